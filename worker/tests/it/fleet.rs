//! A fleet under test: its topics, its worker processes, what clients publish and see.

use guestkit_protocol::{JobResult, NoRegistry, decode};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A dead worker is noticed soon.
const SHORT_SESSION: &str = "\"session.timeout.ms\" = \"6000\"\n";
/// Lines of a worker's log that a failed test shows.
const LOG_TAIL: usize = 40;

/// Topics of a fleet; the worker directory is the last.
const TOPICS: [&str; 6] = [
    "jobs",
    "ledger",
    "results",
    "progress",
    "dead-letters",
    "workers",
];

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The clock of these tests.
#[expect(clippy::disallowed_methods, reason = "tests wait for real processes")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A worker process. Dropping it kills it.
pub(crate) struct Worker {
    child: Child,
    id: String,
    log: PathBuf,
}

impl Worker {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Worker id: what its results name.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn terminate(&mut self) -> i32 {
        // Before it listens to signals, one would simply end it.
        wait_until("the worker starts", Duration::from_secs(30), || {
            self.log().contains("worker starts")
        });
        xtask::cluster::process::sigterm(self.pid()).unwrap();
        let ended = xtask::cluster::process::wait_at_most(&mut self.child, Duration::from_secs(45))
            .unwrap()
            .expect("the worker drains and leaves");
        ended.code().unwrap_or(-1)
    }

    /// The exit code of a worker that ends by itself.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let status = self.child.try_wait().unwrap()?;
        Some(status.code().unwrap_or(-1))
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.len().saturating_sub(LOG_TAIL);
            eprintln!(
                "the end of {}:\n{}",
                self.log.display(),
                lines[tail..].join("\n")
            );
        }
        if self.is_running() {
            self.kill();
        }
    }
}

/// A result as a read_committed client sees it.
#[derive(Debug, Clone)]
pub(crate) struct SeenResult {
    pub(crate) partition: i32,
    pub(crate) result: JobResult,
}

impl SeenResult {
    pub(crate) fn error_code(&self) -> Option<&str> {
        self.result.error.as_ref().map(|error| error.code.as_str())
    }

    pub(crate) fn error_message(&self) -> &str {
        self.result
            .error
            .as_ref()
            .map_or("", |error| error.message.as_str())
    }

    /// Whether a handler ran for it (or refused it), as opposed to pointing to another result.
    pub(crate) fn is_executed(&self) -> bool {
        self.result.duplicate_of.is_none() && self.error_code() != Some("IDEMPOTENCY_CONFLICT")
    }

    pub(crate) fn key(&self) -> Option<&str> {
        self.result
            .execution_summary
            .as_ref()
            .and_then(|summary| summary.idempotency_key.as_deref())
    }
}

/// A record as a client sees it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) partition: i32,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: BTreeMap<String, Vec<u8>>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> String {
        String::from_utf8_lossy(self.headers.get(name).map_or(&[], Vec::as_slice)).into_owned()
    }
}

/// Properties of librdkafka.
pub(crate) type Properties = Vec<(&'static str, String)>;

/// How to come into a cluster.
#[derive(Clone, Default)]
pub(crate) struct Access {
    /// As the test's own clients do.
    pub(crate) clients: Properties,
    /// As the workers do.
    pub(crate) workers: Properties,
}

/// Topics and workers of one test.
pub(crate) struct Fleet {
    pub(crate) bootstrap: String,
    pub(crate) access: Access,
    pub(crate) prefix: String,
    pub(crate) partitions: i32,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) producer: BaseProducer,
    /// Sees records of open transactions too: its ends are the log's.
    uncommitted: BaseConsumer,
    /// Its ends are the last stable offsets.
    committed: BaseConsumer,
}

impl Fleet {
    /// Topics of its own on the shared Kafka.
    pub(crate) fn new(name: &str, partitions: i32) -> Self {
        let bootstrap = xtask::cluster::bootstrap_servers().unwrap().to_owned();
        Self::at(&bootstrap, name, partitions)
    }

    /// Topics of its own on a given Kafka.
    pub(crate) fn at(bootstrap: &str, name: &str, partitions: i32) -> Self {
        Self::with_topics(bootstrap, name, partitions, |_| Vec::new())
    }

    /// The same, with further settings of topics by their last name.
    pub(crate) fn with_topics(
        bootstrap: &str,
        name: &str,
        partitions: i32,
        settings: impl Fn(&str) -> Vec<(&'static str, &'static str)>,
    ) -> Self {
        Self::with_access(bootstrap, Access::default(), name, partitions, settings)
    }

    /// The same on a Kafka that does not let everybody in.
    pub(crate) fn with_access(
        bootstrap: &str,
        access: Access,
        name: &str,
        partitions: i32,
        settings: impl Fn(&str) -> Vec<(&'static str, &'static str)>,
    ) -> Self {
        Self::made_of(&TOPICS, bootstrap, access, name, partitions, settings)
    }

    /// A fleet as it was before there was a worker directory.
    pub(crate) fn without_directory(name: &str, partitions: i32) -> Self {
        let bootstrap = xtask::cluster::bootstrap_servers().unwrap();
        let topics = TOPICS.split_last().unwrap().1;
        let access = Access::default();
        Self::made_of(topics, bootstrap, access, name, partitions, |_| Vec::new())
    }

    fn made_of(
        topics: &[&'static str],
        bootstrap: &str,
        access: Access,
        name: &str,
        partitions: i32,
        settings: impl Fn(&str) -> Vec<(&'static str, &'static str)>,
    ) -> Self {
        let client = |bootstrap: &str| with(client(bootstrap), &access.clients);
        let prefix = format!(
            "{name}-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let admin: AdminClient<DefaultClientContext> = client(bootstrap).create().unwrap();
        let topics: Vec<_> = topics
            .iter()
            .map(|topic| {
                let mut settings = settings(topic);
                let policy = match *topic {
                    "ledger" | "workers" => "compact,delete",
                    _ => "delete",
                };
                settings.push(("cleanup.policy", policy));
                (format!("{prefix}.{topic}"), settings)
            })
            .collect();
        let new: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|(topic, settings)| {
                let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
                for (key, value) in settings {
                    new = new.set(key, value);
                }
                new
            })
            .collect();
        let created = tokio::runtime::Runtime::new()
            .unwrap()
            .block_on(admin.create_topics(&new, &AdminOptions::new()))
            .unwrap();
        for topic in created {
            topic.unwrap();
        }
        let observer = |isolation| -> BaseConsumer {
            client(bootstrap)
                .set("group.id", format!("{prefix}-workers"))
                .set("isolation.level", isolation)
                .create()
                .unwrap()
        };
        let uncommitted = observer("read_uncommitted");
        let committed = observer("read_committed");
        // The controller answers before every broker has heard of a new topic.
        for (topic, _) in &topics {
            wait_until("the topics are there", Duration::from_secs(30), || {
                (0..partitions).all(|partition| {
                    uncommitted
                        .fetch_watermarks(topic, partition, Duration::from_secs(5))
                        .is_ok()
                })
            });
        }
        let producer = client(bootstrap)
            .set("enable.idempotence", "true")
            .set("linger.ms", "2")
            .create()
            .unwrap();
        Self {
            bootstrap: bootstrap.to_owned(),
            access,
            prefix,
            partitions,
            dir: tempfile::tempdir().unwrap(),
            producer,
            uncommitted,
            committed,
        }
    }

    /// What a client of this test is made of.
    pub(crate) fn client(&self) -> ClientConfig {
        with(client(&self.bootstrap), &self.access.clients)
    }

    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// Starts a worker; short session, so that a dead one is noticed soon.
    pub(crate) fn worker(&self, arguments: &[&str]) -> Worker {
        self.worker_at(&self.bootstrap, arguments)
    }

    /// Starts a worker that reaches Kafka through another address.
    pub(crate) fn worker_at(&self, bootstrap: &str, arguments: &[&str]) -> Worker {
        self.worker_with(bootstrap, arguments, SHORT_SESSION)
    }

    /// Starts a worker with variables in its environment.
    pub(crate) fn worker_in(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Worker {
        self.start(&self.bootstrap, environment, arguments, SHORT_SESSION)
    }

    /// The same with properties of librdkafka, in TOML.
    pub(crate) fn worker_with(
        &self,
        bootstrap: &str,
        arguments: &[&str],
        properties: &str,
    ) -> Worker {
        self.start(bootstrap, &[], arguments, properties)
    }

    fn start(
        &self,
        bootstrap: &str,
        environment: &[(&str, &str)],
        arguments: &[&str],
        properties: &str,
    ) -> Worker {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let config = self.dir.path().join(format!("worker-{number}.toml"));
        let mut text = format!("[kafka]\n\"heartbeat.interval.ms\" = \"1000\"\n{properties}");
        for (name, value) in &self.access.workers {
            text += &format!("{name:?} = {value:?}\n");
        }
        std::fs::write(&config, text).unwrap();
        let id = format!("worker-{number}");
        let log = self.dir.path().join(format!("{id}.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_guestkit-worker"))
            .args(["run", "--bootstrap-servers", bootstrap])
            .args(["--topic-prefix", &self.prefix, "--group-id", &self.group()])
            .args(["--worker-id", &id])
            .arg("--config")
            .arg(config)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Worker { child, id, log }
    }

    pub(crate) fn group(&self) -> String {
        format!("{}-workers", self.prefix)
    }

    /// Publishes a record as any client might: on a partition of its choice, or librdkafka's.
    pub(crate) fn publish(&self, partition: Option<i32>, key: Option<&str>, value: &[u8]) {
        self.publish_with(partition, key.map(str::as_bytes), value, &[]);
    }

    pub(crate) fn publish_with(
        &self,
        partition: Option<i32>,
        key: Option<&[u8]>,
        value: &[u8],
        headers: &[(&str, &[u8])],
    ) {
        let topic = self.topic("jobs");
        publish_by(&self.producer, &topic, partition, key, value, headers);
    }

    pub(crate) fn flush(&self) {
        self.producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// Reads a topic read_committed until `enough` says so, the time is up, or both ends are quiet.
    pub(crate) fn read(
        &self,
        topic: &str,
        limit: Duration,
        mut enough: impl FnMut(&[Seen]) -> bool,
    ) -> Vec<Seen> {
        let consumer = self.reader(topic);
        let mut seen = Vec::new();
        let end = now() + limit;
        while now() < end && !enough(&seen) {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) {
                seen.push(of(&message));
            }
        }
        seen
    }

    fn ends(&self, observer: &BaseConsumer, topic: &str) -> BTreeMap<i32, i64> {
        let topic = self.topic(topic);
        (0..self.partitions)
            .map(|partition| {
                let (_, end) = observer
                    .fetch_watermarks(&topic, partition, Duration::from_secs(20))
                    .unwrap();
                (partition, end)
            })
            .collect()
    }

    /// Records in a topic so far, control records included.
    pub(crate) fn count(&self, topic: &str) -> i64 {
        self.ends(&self.uncommitted, topic).values().sum()
    }

    /// Everything in a topic, once no transaction is open in it.
    pub(crate) fn read_all(&self, topic: &str, limit: Duration) -> Vec<Seen> {
        wait_until("the topic is stable", limit, || {
            self.ends(&self.committed, topic) == self.ends(&self.uncommitted, topic)
        });
        let mut ended = BTreeSet::new();
        let consumer = self.reader(topic);
        let mut seen = Vec::new();
        let end = now() + limit;
        while ended.len() < self.partitions as usize {
            assert!(now() < end, "{topic} was not read within {limit:?}");
            match consumer.poll(Duration::from_millis(50)) {
                Some(Ok(message)) => seen.push(of(&message)),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended.insert(partition);
                }
                Some(Err(_)) | None => {}
            }
        }
        seen
    }

    /// Reads all partitions of a topic read_committed, from their beginning.
    fn reader(&self, topic: &str) -> BaseConsumer {
        let topic = self.topic(topic);
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", "reader")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions {
            list.add_partition_offset(&topic, partition, Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&list).unwrap();
        consumer
    }

    /// Results until there are `count`, then whatever else comes within a moment.
    pub(crate) fn results(&self, count: usize, limit: Duration) -> Vec<SeenResult> {
        let mut settled: Option<Instant> = None;
        let seen = self.read("results", limit, |seen| {
            if seen.len() < count {
                return false;
            }
            let since = *settled.get_or_insert_with(now);
            now() - since > Duration::from_millis(700)
        });
        seen.iter().map(decoded).collect()
    }

    /// Results that there are now, however long it takes to read them.
    pub(crate) fn results_now(&self) -> Vec<SeenResult> {
        let seen = self.read_all("results", Duration::from_secs(60));
        seen.iter().map(decoded).collect()
    }

    pub(crate) fn dead_letters(&self, count: usize, limit: Duration) -> Vec<Seen> {
        let mut settled: Option<Instant> = None;
        self.read("dead-letters", limit, |seen| {
            if seen.len() < count {
                return false;
            }
            let since = *settled.get_or_insert_with(now);
            now() - since > Duration::from_millis(500)
        })
    }

    /// The group's committed offset of each partition that has one.
    pub(crate) fn committed(&self) -> BTreeMap<i32, i64> {
        let topic = self.topic("jobs");
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&topic, 0, self.partitions - 1);
        let found = self
            .committed
            .committed_offsets(list, Duration::from_secs(20))
            .unwrap();
        let elements = found.elements();
        let known = elements
            .iter()
            .filter_map(|element| match element.offset() {
                Offset::Offset(offset) => Some((element.partition(), offset)),
                _ => None,
            });
        known.collect()
    }

    /// Lag of each partition: records and control records that the group has not passed.
    pub(crate) fn lag(&self) -> BTreeMap<i32, i64> {
        let topic = self.topic("jobs");
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions {
            list.add_partition(&topic, partition);
        }
        let committed = self
            .committed
            .committed_offsets(list, Duration::from_secs(20))
            .unwrap();
        let ends = self.ends(&self.uncommitted, "jobs");
        committed
            .elements()
            .iter()
            .map(|element| {
                let next = match element.offset() {
                    Offset::Offset(offset) => offset,
                    _ => 0,
                };
                (element.partition(), ends[&element.partition()] - next)
            })
            .collect()
    }

    /// Waits until the group has passed everything.
    pub(crate) fn wait_no_lag(&self, limit: Duration) {
        let end = now() + limit;
        loop {
            let lag = self.lag();
            if lag.values().all(|lag| *lag == 0) {
                return;
            }
            assert!(now() < end, "lag stays: {lag:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

pub(crate) fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

fn with(mut config: ClientConfig, properties: &Properties) -> ClientConfig {
    for (name, value) in properties {
        config.set(*name, value);
    }
    config
}

/// Publishes by a producer of any kind.
pub(crate) fn publish_by(
    producer: &BaseProducer,
    topic: &str,
    partition: Option<i32>,
    key: Option<&[u8]>,
    value: &[u8],
    headers: &[(&str, &[u8])],
) {
    let mut owned = OwnedHeaders::new();
    for (name, value) in headers {
        owned = owned.insert(Header {
            key: name,
            value: Some(*value),
        });
    }
    let mut record = BaseRecord::<[u8], [u8]>::to(topic)
        .payload(value)
        .headers(owned);
    record.partition = partition;
    record.key = key;
    while let Err((_, back)) = producer.send(record) {
        record = back;
        producer.poll(Duration::from_millis(10));
    }
}

fn of(message: &rdkafka::message::BorrowedMessage<'_>) -> Seen {
    let headers = message.headers().map_or_else(BTreeMap::new, |headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.unwrap_or(&[]).to_vec()))
            .collect()
    });
    Seen {
        partition: message.partition(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}

fn decoded(seen: &Seen) -> SeenResult {
    let value = seen.value.as_deref().unwrap_or_default();
    SeenResult {
        partition: seen.partition,
        result: decode(value, &NoRegistry).unwrap(),
    }
}

/// A job in the JSON form, with payload data given as JSON text.
pub(crate) fn echo(job_id: &str, key: Option<&str>, data: &str) -> Vec<u8> {
    job("system.echo", job_id, key, data)
}

pub(crate) fn job(operation: &str, job_id: &str, key: Option<&str>, data: &str) -> Vec<u8> {
    let key = key.map_or_else(String::new, |key| {
        format!(",\"execution\":{{\"idempotency_key\":\"{key}\"}}")
    });
    format!(
        "{{\"version\":\"1.0\",\"job_id\":\"{job_id}\",\"created_at\":\"2026-11-24T15:00:00Z\",\"kind\":\"VMOperation\",\"operation\":\"{operation}\",\"payload\":{{\"type\":\"{operation}.v1\",\"data\":{data}}}{key}}}"
    )
    .into_bytes()
}

/// Results by job id; more than one for an id is a failure of the fleet.
pub(crate) fn by_job(results: &[SeenResult]) -> BTreeMap<String, SeenResult> {
    let mut by_job = BTreeMap::new();
    for seen in results {
        let before = by_job.insert(seen.result.job_id.clone(), seen.clone());
        assert!(
            before.is_none(),
            "{} was answered twice",
            seen.result.job_id
        );
    }
    by_job
}

/// Keys that were executed; more than once is a failure of the fleet.
pub(crate) fn executed_keys(results: &[SeenResult]) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for seen in results.iter().filter(|seen| seen.is_executed()) {
        if let Some(key) = seen.key() {
            assert!(keys.insert(key.to_owned()), "key {key} was executed twice");
        }
    }
    keys
}

/// Waits until a condition holds.
pub(crate) fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let end = now() + limit;
    while !holds() {
        assert!(now() < end, "{what} did not happen within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
