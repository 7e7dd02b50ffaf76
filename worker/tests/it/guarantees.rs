//! The guarantees of the engine, held against what a read_committed client and the group show.

use crate::fleet::Fleet;
use guestkit_protocol::{JobResult, NoRegistry, SchemaSource, decode, headers};
use guestkit_worker::codec;
use guestkit_worker::engine::invariants::{
    DoneSeen, History, JobSeen, LetterSeen, OffsetSeen, ResultSeen, SlotSeen, check,
};
use guestkit_worker::engine::ledger::{MARK_KEY, SLOT_KEY};
use guestkit_worker::engine::record::{RawRecord, Record};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(20);
/// A topic that gives nothing for so long is not going to.
const IDLE_POLLS_MAX: usize = 400;

/// A record of a topic with its place.
struct Placed {
    partition: u32,
    offset: i64,
    raw: RawRecord,
}

/// Holds everything that is visible now against every guarantee. To be called once all lag is gone.
pub(crate) fn assert_all(fleet: &Fleet, schemas: &dyn SchemaSource) {
    let history = history(fleet, schemas);
    let broken: Vec<String> = check(&history).iter().map(ToString::to_string).collect();
    assert!(broken.is_empty(), "broken:\n  {}", broken.join("\n  "));
    println!(
        "every guarantee holds over {} jobs, {} results, {} DONE, {} dead letters",
        history.jobs.len(),
        history.results.len(),
        history.done.len(),
        history.dead_letters.len()
    );
}

fn history(fleet: &Fleet, schemas: &dyn SchemaSource) -> History {
    let mut history = History {
        slots: fleet.partitions.unsigned_abs(),
        ..History::default()
    };
    for placed in read(fleet, "jobs") {
        let content = codec::decode_record(&placed.raw, None, schemas).unwrap();
        history.jobs.push(JobSeen {
            partition: placed.partition,
            record: Record {
                offset: placed.offset,
                raw: Arc::new(placed.raw),
                content,
            },
            moment: 0,
        });
    }
    for placed in read(fleet, "results") {
        let value = placed.raw.value.unwrap_or_default();
        let result: JobResult = decode(&value, &NoRegistry).unwrap();
        history.results.push(ResultSeen::of(&result, 0));
    }
    for placed in read(fleet, "ledger") {
        let key = placed.raw.key.unwrap_or_default();
        let value = placed.raw.value.unwrap_or_default();
        if key == SLOT_KEY {
            history.slot_records.push(SlotSeen {
                partition: placed.partition,
                moment: 0,
                slot: codec::decode_slot(&value).unwrap(),
            });
        } else if key != MARK_KEY {
            let done = codec::decode_done(&value).unwrap();
            history.done.push(DoneSeen { key, done });
        }
    }
    for placed in read(fleet, "dead-letters") {
        let number = |name: &str| {
            let (_, value) = placed.raw.headers.iter().find(|(h, _)| h == name).unwrap();
            let text = String::from_utf8(value.clone().unwrap()).unwrap();
            text.parse::<i64>().unwrap()
        };
        history.dead_letters.push(LetterSeen {
            source: (
                u32::try_from(number(headers::SOURCE_PARTITION)).unwrap(),
                number(headers::SOURCE_OFFSET),
            ),
            moment: 0,
            key: placed.raw.key.clone(),
            value: placed.raw.value.clone(),
        });
    }
    history.offsets = committed(fleet);
    history.lag_after_healing = Some(
        fleet
            .lag()
            .into_iter()
            .map(|(partition, lag)| (partition.unsigned_abs(), lag))
            .collect(),
    );
    history
}

fn reader(fleet: &Fleet, group: &str) -> BaseConsumer {
    fleet
        .client()
        .set("group.id", group)
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap()
}

/// A whole topic, read committed, each partition in its order.
fn read(fleet: &Fleet, name: &str) -> Vec<Placed> {
    let topic = fleet.topic(name);
    let consumer = reader(fleet, "judge");
    let mut list = TopicPartitionList::new();
    for partition in 0..fleet.partitions {
        list.add_partition_offset(&topic, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut open: BTreeSet<i32> = (0..fleet.partitions).collect();
    let mut seen = Vec::new();
    let mut idle = 0;
    while !open.is_empty() {
        match consumer.poll(Duration::from_millis(50)) {
            Some(Ok(message)) => {
                idle = 0;
                let headers = message.headers().map_or_else(Vec::new, |headers| {
                    headers
                        .iter()
                        .map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec)))
                        .collect()
                });
                seen.push(Placed {
                    partition: message.partition().unsigned_abs(),
                    offset: message.offset(),
                    raw: RawRecord {
                        key: message.key().map(<[u8]>::to_vec),
                        value: message.payload().map(<[u8]>::to_vec),
                        headers,
                        timestamp: 0,
                    },
                });
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error)) => panic!("{topic}: {error}"),
            None => {
                idle += 1;
                assert!(idle < IDLE_POLLS_MAX, "{topic} gives nothing");
            }
        }
    }
    seen
}

fn committed(fleet: &Fleet) -> Vec<OffsetSeen> {
    let topic = fleet.topic("jobs");
    let mut list = TopicPartitionList::new();
    for partition in 0..fleet.partitions {
        list.add_partition(&topic, partition);
    }
    let offsets = reader(fleet, &fleet.group())
        .committed_offsets(list, REQUEST_MAX)
        .unwrap();
    let known = offsets.elements().into_iter().filter_map(|element| {
        let Offset::Offset(next_offset) = element.offset() else {
            return None;
        };
        Some(OffsetSeen {
            partition: element.partition().unsigned_abs(),
            next_offset,
            moment: 0,
        })
    });
    known.collect()
}
