//! The broker contract on real Kafka.

use crate::contract::{self, Cluster, Pending, Refused};
use crate::fleet::{Fleet, client, now};
use guestkit_worker::transaction_records::Place;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};
use std::rc::Rc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);
/// A pending offset is waited for this long before it counts as pending.
const PENDING_MAX: Duration = Duration::from_millis(1_500);
/// Kafka's cleaner looks every 15 seconds.
const CLEANED: Duration = Duration::from_secs(90);

struct Kafka {
    fleet: Fleet,
    members: Vec<Rc<BaseConsumer>>,
}

struct Transactional {
    producer: BaseProducer,
    begun: bool,
}

impl Transactional {
    fn begin(&mut self) {
        if !self.begun {
            self.producer.begin_transaction().unwrap();
            self.begun = true;
        }
    }
}

impl Kafka {
    fn new(name: &str) -> Self {
        let settings = |topic: &str| match topic {
            // Segments that close at once, and a cleaner that finds every one worth its while.
            "ledger" => vec![
                ("segment.ms", "200"),
                ("min.cleanable.dirty.ratio", "0.01"),
                ("delete.retention.ms", "0"),
            ],
            _ => Vec::new(),
        };
        let bootstrap = xtask::cluster::bootstrap_servers().unwrap().to_owned();
        Self {
            fleet: Fleet::with_topics(&bootstrap, &format!("contract-{name}"), 2, settings),
            members: Vec::new(),
        }
    }

    fn topic(&self, place: Place) -> String {
        self.fleet.topic(match place {
            Place::Jobs => "jobs",
            Place::Ledger => "ledger",
            Place::Results => "results",
            Place::DeadLetters => "dead-letters",
        })
    }

    fn consumer(&self, group: &str, read_committed: bool) -> BaseConsumer {
        let isolation = if read_committed {
            "read_committed"
        } else {
            "read_uncommitted"
        };
        client(&self.fleet.bootstrap)
            .set("group.id", group)
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "6000")
            .create()
            .unwrap()
    }

    fn send(&self, producer: &BaseProducer, to: (Place, u32), key: &str, value: &str) {
        let topic = self.topic(to.0);
        let record = BaseRecord::to(&topic)
            .partition(to.1 as i32)
            .key(key)
            .payload(value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(LIMIT).unwrap();
    }
}

fn refused(error: &KafkaError) -> Refused {
    match error {
        KafkaError::Transaction(error) if error.txn_requires_abort() => Refused::Stale,
        _ => Refused::Fatal,
    }
}

impl Cluster for Kafka {
    type Producer = Transactional;
    type Member = Rc<BaseConsumer>;
    type Metadata = ConsumerGroupMetadata;

    fn init(&mut self, transactional_id: &str) -> Transactional {
        let producer: BaseProducer = client(&self.fleet.bootstrap)
            .set(
                "transactional.id",
                format!("{}.{transactional_id}", self.fleet.prefix),
            )
            .create()
            .unwrap();
        producer.init_transactions(LIMIT).unwrap();
        Transactional {
            producer,
            begun: false,
        }
    }

    fn produce(&mut self, by: &mut Transactional, to: (Place, u32), key: &str, value: &str) {
        by.begin();
        self.send(&by.producer, to, key, value);
    }

    fn send_offsets(
        &mut self,
        by: &mut Transactional,
        metadata: &ConsumerGroupMetadata,
        partition: u32,
        next_offset: i64,
    ) -> Result<(), Refused> {
        by.begin();
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset(
                &self.fleet.topic("jobs"),
                partition as i32,
                Offset::Offset(next_offset),
            )
            .unwrap();
        by.producer
            .send_offsets_to_transaction(&offsets, metadata, LIMIT)
            .map_err(|error| refused(&error))
    }

    fn end(&mut self, by: &mut Transactional, commit: bool) -> Result<(), Refused> {
        by.begun = false;
        let ended = if commit {
            by.producer.commit_transaction(Timeout::Never)
        } else {
            by.producer.abort_transaction(Timeout::Never)
        };
        // Markers follow the answer.
        std::thread::sleep(Duration::from_millis(150));
        ended.map_err(|error| refused(&error))
    }

    fn write_plain(&mut self, to: (Place, u32), key: &str, value: &str) {
        self.send(&self.fleet.producer, to, key, value);
    }

    fn join(&mut self) -> Rc<BaseConsumer> {
        let new = Rc::new(self.consumer(&self.fleet.group(), true));
        new.subscribe(&[self.fleet.topic("jobs").as_str()]).unwrap();
        self.members.push(new.clone());
        let share = 2 / self.members.len();
        let end = now() + LIMIT;
        loop {
            for member in &self.members {
                // Nothing is published there; errors are ends of partitions.
                drop(member.poll(Duration::from_millis(50)));
            }
            let settled = self
                .members
                .iter()
                .all(|member| member.assignment().unwrap().count() == share);
            if settled {
                return new;
            }
            assert!(now() < end, "the group does not settle");
        }
    }

    fn metadata(&mut self, member: &Rc<BaseConsumer>) -> ConsumerGroupMetadata {
        member.group_metadata().unwrap()
    }

    fn unjoined(&mut self) -> ConsumerGroupMetadata {
        self.consumer(&self.fleet.group(), true)
            .group_metadata()
            .unwrap()
    }

    fn read(&mut self, from: (Place, u32), read_committed: bool) -> Vec<(i64, String, String)> {
        let consumer = self.consumer("reader", read_committed);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic(from.0), from.1 as i32, Offset::Beginning)
            .unwrap();
        consumer.assign(&list).unwrap();
        let text =
            |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let mut seen = Vec::new();
        let end = now() + LIMIT;
        loop {
            assert!(now() < end, "no end of partition");
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    seen.push((
                        message.offset(),
                        text(message.key()),
                        text(message.payload()),
                    ));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return seen,
                Some(Err(error)) => panic!("{error}"),
                None => {}
            }
        }
    }

    fn high_watermark(&mut self, of: (Place, u32)) -> i64 {
        let (_, high) = self
            .consumer("reader", false)
            .fetch_watermarks(&self.topic(of.0), of.1 as i32, LIMIT)
            .unwrap();
        high
    }

    fn last_stable(&mut self, of: (Place, u32)) -> i64 {
        let (_, stable) = self
            .consumer("reader", true)
            .fetch_watermarks(&self.topic(of.0), of.1 as i32, LIMIT)
            .unwrap();
        stable
    }

    fn stable_offset(&mut self, partition: u32) -> Result<Option<i64>, Pending> {
        let mut wanted = TopicPartitionList::new();
        let topic = self.fleet.topic("jobs");
        wanted.add_partition(&topic, partition as i32);
        let found = self
            .consumer(&self.fleet.group(), true)
            .committed_offsets(wanted, PENDING_MAX)
            .map_err(|_| Pending)?;
        let element = found.find_partition(&topic, partition as i32);
        match element.map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => Ok(Some(offset)),
            _ => Ok(None),
        }
    }

    fn compact(&mut self, of: (Place, u32)) {
        let end = now() + CLEANED;
        let mut n = 0;
        // The newest segment is never cleaned: something has to follow.
        while self
            .read(of, true)
            .iter()
            .filter(|(_, key, _)| key == "slot")
            .count()
            > 1
        {
            assert!(now() < end, "the cleaner does not come");
            self.write_plain(of, &format!("filler-{n}"), "x");
            n += 1;
            std::thread::sleep(Duration::from_millis(1_000));
        }
    }
}

macro_rules! contract {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                contract::$name(&mut Kafka::new(stringify!($name)));
            }
        )*
    };
}

contract! {
    a_commit_shows_everything_an_abort_nothing
    what_is_open_hides_what_comes_after_it
    control_records_leave_gaps
    a_stale_generation_is_refused_and_its_producer_lives
    metadata_of_nobody_is_not_fenced
    any_member_commits_any_partition
    the_stable_offset_waits_for_a_pending_one
    a_new_producer_ends_the_old_ones_transaction
    renewal_decides_an_unknown_commit
    compaction_keeps_the_newest_of_a_key
}
