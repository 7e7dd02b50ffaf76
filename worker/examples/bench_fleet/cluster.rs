//! Topics and jobs of the bench.

use guestkit_protocol::{Framing, NoRegistry, decode_job, encode, slot_of};
use guestkit_worker::broker::Topics as Names;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::time::Duration;
use xtask::cluster::{Jvm, KafkaNode};

pub(crate) struct Cluster {
    pub(crate) bootstrap: String,
    /// One of our own, unless the user named his.
    _node: Option<KafkaNode>,
}

pub(crate) struct Topics {
    pub(crate) bootstrap: String,
    pub(crate) prefix: String,
    pub(crate) partitions: u32,
}

impl Cluster {
    pub(crate) fn find() -> Self {
        let named = std::env::var("GUESTKIT_TEST_BOOTSTRAP_SERVERS");
        if let Some(bootstrap) = named.ok().filter(|servers| !servers.is_empty()) {
            return Self {
                bootstrap,
                _node: None,
            };
        }
        // Tests run on a broker that starts fast; this one has the compiler of production.
        let node = KafkaNode::builder()
            .jvm(Jvm::Throughput)
            .start()
            .expect("a broker");
        Self {
            bootstrap: node.bootstrap().to_owned(),
            _node: Some(node),
        }
    }

    pub(crate) fn topics(&self, name: &str, partitions: u32) -> Topics {
        let prefix = format!("bench-{name}-{}", std::process::id());
        let admin: AdminClient<DefaultClientContext> =
            client(&self.bootstrap).create().expect("an admin client");
        let names = [
            "jobs",
            "ledger",
            "results",
            "progress",
            "dead-letters",
            "workers",
        ]
        .map(|topic| format!("{prefix}.{topic}"));
        let count = i32::try_from(partitions).expect("few partitions");
        let new: Vec<_> = names
            .iter()
            .map(|name| NewTopic::new(name, count, TopicReplication::Fixed(1)))
            .collect();
        tokio::runtime::Runtime::new()
            .expect("a runtime")
            .block_on(admin.create_topics(&new, &AdminOptions::new()))
            .expect("topics are created");
        Topics {
            bootstrap: self.bootstrap.clone(),
            prefix,
            partitions,
        }
    }
}

impl Topics {
    pub(crate) fn names(&self) -> Names {
        let name = |topic: &str| format!("{}.{topic}", self.prefix);
        Names {
            jobs: name("jobs"),
            ledger: name("ledger"),
            results: name("results"),
            progress: name("progress"),
            dead_letters: name("dead-letters"),
            slots: self.partitions,
        }
    }

    /// Publishes jobs of 700 bytes, whose results have about 300, to their slots.
    pub(crate) fn publish(&self, count: usize, more: &str) {
        let producer: BaseProducer = client(&self.bootstrap)
            .set("enable.idempotence", "true")
            .set("linger.ms", "20")
            .set("compression.type", "lz4")
            .create()
            .expect("a producer");
        for n in 0..count {
            self.send(&producer, n, more);
        }
        producer
            .flush(Duration::from_secs(120))
            .expect("jobs are published");
    }

    pub(crate) fn send(&self, producer: &BaseProducer, n: usize, more: &str) {
        let key = format!("key-{n:08}");
        let topic = format!("{}.jobs", self.prefix);
        let value = job(n, &key, more);
        let slot = i32::try_from(slot_of(&key, self.partitions)).expect("few partitions");
        let mut record = BaseRecord::to(&topic)
            .partition(slot)
            .key(key.as_str())
            .payload(value.as_slice());
        while let Err((_, back)) = producer.send(record) {
            record = back;
            producer.poll(Duration::from_millis(5));
        }
    }
}

pub(crate) fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("message.max.bytes", "2097152");
    config
}

fn job(n: usize, key: &str, more: &str) -> Vec<u8> {
    let padding = "p".repeat(470_usize.saturating_sub(more.len()));
    let json = format!(
        r#"{{"version":"1.0","job_id":"job-{n:08}","created_at":"2026-11-24T15:00:00Z","kind":"VMOperation","operation":"system.echo","payload":{{"type":"system.echo.v1","data":{{"data":"{}","padding":"{padding}"{more}}}}},"execution":{{"idempotency_key":"{key}"}}}}"#,
        "d".repeat(100)
    );
    let job = decode_job(json.as_bytes(), &NoRegistry).expect("a valid job");
    encode(&job, Framing::SingleObject).expect("a small job")
}
