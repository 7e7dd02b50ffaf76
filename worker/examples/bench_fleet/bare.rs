//! The loop to compare with: consume, decode, encode result and ledger record through the same
//! codec, produce in transactions. No deduplication, no handler threads, no fencing beyond Kafka's.

use crate::cluster::{Cluster, Topics, client};
use guestkit_protocol::NoRegistry;
use guestkit_worker::clock::now_ms;
use guestkit_worker::codec::{self, Codec, Framings};
use guestkit_worker::engine::ledger::{Done, FinalStatus, LedgerKind, ResultPointer};
use guestkit_worker::engine::outcome::{Cost, Outcome};
use guestkit_worker::engine::record::{Content, Job, RawRecord};
use guestkit_worker::engine::transaction::ResultRecord;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Records of one transaction: the best of 2,000 to 16,000 on two cores.
const BATCH: usize = 4_000;

/// Another size, to look for the best one.
fn batch() -> usize {
    let named = std::env::var("BENCH_BARE_BATCH").ok();
    named.and_then(|size| size.parse().ok()).unwrap_or(BATCH)
}

pub(crate) struct Bare {
    consumer: BaseConsumer,
    producer: BaseProducer,
    codec: Codec,
    names: guestkit_worker::broker::Topics,
    results_topic: Arc<str>,
    batch: usize,
}

impl Bare {
    /// The loop of one lane out of `lanes`. A single one is a member of its group; several share the
    /// partitions by number, so that no rebalance disturbs the measurement.
    pub(crate) fn new(cluster: &Cluster, topics: &Topics, lane: u32, lanes: u32) -> Self {
        let consumer: BaseConsumer = client(&cluster.bootstrap)
            .set("group.id", format!("{}-bare", topics.prefix))
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("queued.min.messages", "20000")
            .set("fetch.queue.backoff.ms", "10")
            .create()
            .expect("a consumer");
        let names = topics.names();
        if lanes == 1 {
            consumer.subscribe(&[&names.jobs]).expect("subscribed");
        } else {
            let mut share = TopicPartitionList::new();
            for partition in (0..topics.partitions).filter(|p| p % lanes == lane) {
                let partition = i32::try_from(partition).expect("few partitions");
                share
                    .add_partition_offset(&names.jobs, partition, Offset::Beginning)
                    .expect("an offset");
            }
            consumer.assign(&share).expect("assigned");
        }
        let producer: BaseProducer = client(&cluster.bootstrap)
            .set("transactional.id", format!("{}-bare-{lane}", topics.prefix))
            .set("retry.backoff.ms", "1")
            .set("retry.backoff.max.ms", "10")
            .set("linger.ms", "1")
            .set("queue.buffering.max.messages", "200000")
            .set("compression.type", "lz4")
            .create()
            .expect("a producer");
        producer
            .client()
            .fetch_metadata(Some(&names.results), Duration::from_secs(10))
            .expect("metadata");
        producer
            .init_transactions(Duration::from_secs(30))
            .expect("a producer id");
        Self {
            consumer,
            producer,
            codec: Codec::new("bare".into(), Framings::default(), now_ms),
            results_topic: names.results.as_str().into(),
            batch: batch(),
            names,
        }
    }

    /// One transaction; answers with the number of its jobs.
    pub(crate) fn round(&self, wait: Duration) -> usize {
        let mut offsets: BTreeMap<i32, i64> = BTreeMap::new();
        let mut count = 0;
        let mut wait = wait;
        while count < self.batch {
            let Some(polled) = self.consumer.poll(wait) else {
                break;
            };
            wait = Duration::ZERO;
            let Ok(message) = polled else { continue };
            if count == 0 {
                self.producer.begin_transaction().expect("begun");
            }
            let raw = RawRecord {
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                headers: Vec::new(),
                timestamp: 0,
            };
            if let Ok(Content::Job(job)) = codec::decode_record(&raw, None, &NoRegistry) {
                self.answer(message.partition(), &job);
            }
            offsets.insert(message.partition(), message.offset() + 1);
            count += 1;
        }
        if count > 0 {
            self.commit(&offsets);
        }
        count
    }

    fn answer(&self, partition: i32, job: &Arc<Job>) {
        let now = now_ms();
        let slot = u32::try_from(partition).unwrap_or(0);
        let record = ResultRecord::Executed {
            job: job.clone(),
            outcome: Arc::new(Outcome {
                status: FinalStatus::Completed,
                started_at: now,
                finished_at: now,
                data: Some(format!("\"{}\"", "d".repeat(100))),
                artifacts: Vec::new(),
                failure: None,
                cost: Cost::default(),
            }),
            attempt: 1,
        };
        let encoded = self.codec.encode_result(&record, slot, 0);
        let mut headers = OwnedHeaders::new_with_capacity(encoded.headers.len());
        for (key, value) in &encoded.headers {
            headers = headers.insert(Header {
                key,
                value: value.as_deref(),
            });
        }
        self.send(
            BaseRecord::to(&self.names.results)
                .partition(partition)
                .key(job.job_id.as_bytes())
                .payload(encoded.value.as_slice())
                .headers(headers),
        );
        let done = self.codec.encode_done(&Done {
            job_id: job.job_id.clone(),
            payload_hash: job.payload_hash,
            status: FinalStatus::Completed,
            attempt: 1,
            run: 1,
            result: ResultPointer {
                topic: self.results_topic.clone(),
                partition: slot,
                job_id: job.job_id.clone(),
            },
            answered: Vec::new(),
        });
        self.send(
            BaseRecord::to(&self.names.ledger)
                .partition(partition)
                .key(job.key.as_bytes())
                .payload(done.as_slice())
                .headers(Codec::ledger_headers(LedgerKind::Done)),
        );
    }

    fn send(&self, mut record: BaseRecord<'_, [u8], [u8]>) {
        while let Err((_, back)) = self.producer.send(record) {
            record = back;
            self.look_for_reports();
        }
    }

    /// As the worker's writer does: `poll` with a time would spin.
    fn look_for_reports(&self) {
        self.producer.poll(Duration::ZERO);
        std::thread::sleep(Duration::from_micros(250));
    }

    fn commit(&self, offsets: &BTreeMap<i32, i64>) {
        while self.producer.in_flight_count() > 0 {
            self.look_for_reports();
        }
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset(&self.names.jobs, *partition, Offset::Offset(*offset))
                .expect("an offset");
        }
        let metadata = self.consumer.group_metadata().expect("a member");
        self.producer
            .send_offsets_to_transaction(&list, &metadata, Duration::from_secs(10))
            .expect("offsets accepted");
        self.producer
            .commit_transaction(Timeout::Never)
            .expect("committed");
    }
}

/// Jobs a second between 5 % and 95 % of `count`, by so many loops in one group, each with a producer
/// and a thread of its own.
pub(crate) fn throughput(cluster: &Cluster, topics: &Topics, count: usize, lanes: u32) -> f64 {
    let done = AtomicUsize::new(0);
    let loops: Vec<Bare> = (0..lanes)
        .map(|lane| Bare::new(cluster, topics, lane, lanes))
        .collect();
    let (low, high) = (count / 20, count * 19 / 20);
    std::thread::scope(|scope| {
        for bare in loops {
            let done = &done;
            scope.spawn(move || {
                while done.load(Ordering::Relaxed) < high {
                    done.fetch_add(bare.round(Duration::from_millis(20)), Ordering::Relaxed);
                }
            });
        }
        let mut first = None;
        loop {
            std::thread::sleep(Duration::from_millis(5));
            let so_far = done.load(Ordering::Relaxed);
            if so_far >= low && first.is_none() {
                first = Some((now_ms(), so_far));
            }
            if so_far >= high
                && let Some((at, before)) = first
            {
                return (so_far - before) as f64 / (now_ms() - at).max(1) as f64 * 1_000.0;
            }
        }
    })
}
