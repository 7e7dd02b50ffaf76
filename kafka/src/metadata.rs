//! Questions to the cluster: partition counts, ends, a group's committed offsets.

use crate::acls::{Operation, Permission};
use crate::clock::Moment;
use crate::connection::Connection;
use crate::fault::Fault;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Sends librdkafka's log to `tracing`: its errors are warnings here, since it goes on by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            // One connection serves all kinds of client: each ignores the others' properties.
            _ if facility == "CONFWARN" => {}
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(target: "librdkafka", facility, "{message}");
            }
            _ => tracing::warn!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl ConsumerContext for Quiet {}

/// [`Quiet`], and it remembers why a broker did not let us in: calls only tell that they ran out of time.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    refused: Mutex<Option<String>>,
}

impl Watched {
    fn refusal(&self) -> Option<String> {
        self.refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl ClientContext for Watched {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // A handshake that fails is told in the log alone, and so is the alert of a broker that misses our
        // certificate, which comes after the handshake.
        let refuses = |words| message.contains("SSL") && message.contains(words);
        if facility == "FAIL" && (refuses("handshake failed") || refuses(" alert ")) {
            // Behind the names of thread and broker.
            let reason = message.rsplit_once("]: ").map_or(message, |(_, rest)| rest);
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
        Quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(
            error.rdkafka_error_code(),
            Some(Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL)
        ) {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
        ClientContext::error(&Quiet, error, reason);
    }
}

impl ConsumerContext for Watched {}

pub(crate) type QuietConsumer = BaseConsumer<Watched>;

pub(crate) fn consumer(config: &ClientConfig) -> Result<QuietConsumer, Fault> {
    config
        .create_with_context(Watched::default())
        .map_err(|error| Fault::of("create a consumer", &error))
}

/// First wait for an answer before we look whether we are let in at all; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Events that are served after a question that failed: what a few tries of all brokers log and report.
const EVENTS_SERVED: usize = 200;

/// Asks for metadata. A broker that does not let us in is noticed long before the time is up.
fn fetch(
    consumer: &QuietConsumer,
    topic: Option<&str>,
    timeout: Duration,
    what: &dyn Fn() -> String,
) -> Result<rdkafka::metadata::Metadata, Fault> {
    let deadline = Moment::now().after(timeout);
    let mut wait = FIRST_WAIT;
    loop {
        // Nothing is assigned: this serves errors and logs, and fetches a token where one is needed.
        let served = consumer.poll(Duration::ZERO);
        drop(served);
        let left = deadline.since(Moment::now()).unwrap_or_default();
        let error = match consumer.fetch_metadata(topic, wait.min(left)) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        // One event a call, and an event that was served looks like none.
        for _ in 0..EVENTS_SERVED {
            let served = consumer.poll(Duration::ZERO);
            drop(served);
        }
        let fault = Fault::of(what(), &error);
        if let Some(reason) = consumer.context().refusal() {
            let what = what();
            return Err(Fault::Unauthenticated { what, reason });
        }
        if !fault.is_unreachable() || deadline.since(Moment::now()).is_none() {
            return Err(fault);
        }
        wait = wait.saturating_mul(2);
    }
}

/// What the cluster knows about topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// How many brokers there are.
    pub brokers: usize,
    /// Topics by name, with their partition counts.
    pub topics: BTreeMap<String, u32>,
}

/// Asks for brokers and all topics that we may see.
///
/// # Errors
/// See [`Fault`].
pub fn cluster(connection: &Connection, timeout: Duration) -> Result<Cluster, Fault> {
    let what = || format!("ask {} for its topics", connection.bootstrap_servers());
    let consumer = consumer(&connection.client_config())?;
    let metadata = fetch(&consumer, None, timeout, &what)?;
    let topics = metadata
        .topics()
        .iter()
        .filter(|topic| topic.error().is_none() && !topic.partitions().is_empty())
        .map(|topic| {
            let count = u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX);
            (topic.name().to_owned(), count)
        })
        .collect();
    Ok(Cluster {
        brokers: metadata.brokers().len(),
        topics,
    })
}

/// The same, and what we may not even see of the topics of `wanted` is told from what does not exist.
///
/// # Errors
/// See [`Fault`]; [`Fault::Denied`] names the permission of `wanted` that is missing.
pub fn cluster_seen(
    connection: &Connection,
    wanted: &[Permission],
    timeout: Duration,
) -> Result<Cluster, Fault> {
    let found = cluster(connection, timeout)?;
    let unseen: Vec<&Permission> = wanted
        .iter()
        .filter(|need| !found.topics.contains_key(&need.name))
        .collect();
    if !unseen.is_empty() {
        let consumer = consumer(&connection.client_config())?;
        for need in unseen {
            // A question by name is refused where one for all leaves the topic out.
            partitions(&consumer, need, timeout)?;
        }
    }
    Ok(found)
}

/// The same, and all topics of `wanted` must be there.
///
/// # Errors
/// See [`cluster_seen`]; [`Fault::Config`] when a topic does not exist.
pub fn cluster_with(
    connection: &Connection,
    wanted: &[Permission],
    timeout: Duration,
) -> Result<Cluster, Fault> {
    let found = cluster_seen(connection, wanted, timeout)?;
    for need in wanted {
        found.partitions(&need.name)?;
    }
    Ok(found)
}

impl Cluster {
    /// A topic's partition count.
    ///
    /// # Errors
    /// [`Fault::Config`] when it does not exist.
    pub fn partitions(&self, topic: &str) -> Result<u32, Fault> {
        self.topics
            .get(topic)
            .copied()
            .ok_or_else(|| missing_topic(topic))
    }
}

/// Where each partition of a topic begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first offset that is kept.
    pub start: i64,
    /// The offset that a read_committed reader would read next at the end.
    pub end: i64,
}

/// The extents of all partitions, as a read_committed reader sees them now.
///
/// # Errors
/// See [`Fault`]; [`Fault::Config`] when there is no such topic.
pub fn extents(
    connection: &Connection,
    topic: &str,
    timeout: Duration,
) -> Result<Vec<Extent>, Fault> {
    let mut config = connection.client_config();
    config.set("isolation.level", "read_committed");
    let consumer = consumer(&config)?;
    let need = Permission::topic(Operation::Describe, topic);
    extents_with(&consumer, need, timeout)
}

/// `need` names the topic, and what its user is about to do to it.
pub(crate) fn extents_with(
    consumer: &QuietConsumer,
    need: Permission,
    timeout: Duration,
) -> Result<Vec<Extent>, Fault> {
    let count = partitions(consumer, &need, timeout)?;
    let needs = [need];
    let [Permission { name: topic, .. }] = &needs;
    let what = || format!("ask for the ends of {topic}");
    if count == 0 {
        return Err(missing_topic(topic));
    }
    (0..count)
        .map(|partition| {
            let partition = i32::try_from(partition).unwrap_or(i32::MAX);
            consumer
                .fetch_watermarks(topic, partition, timeout)
                .map(|(start, end)| Extent { start, end })
                .map_err(|error| Fault::of_call(what(), &error, &needs))
        })
        .collect()
}

/// How many partitions a topic has, asked by its name; none when it does not exist.
fn partitions(
    consumer: &QuietConsumer,
    need: &Permission,
    timeout: Duration,
) -> Result<usize, Fault> {
    let topic = need.name.as_str();
    let what = || format!("ask about topic {topic}");
    let metadata = fetch(consumer, Some(topic), timeout, &what)?;
    let found = metadata.topics().iter().find(|t| t.name() == topic);
    if let Some(code) = found.and_then(|topic| topic.error())
        && !matches!(
            Code::from(code),
            Code::UnknownTopicOrPartition | Code::UnknownTopic
        )
    {
        return Err(Fault::of_call(
            what(),
            &KafkaError::MetadataFetch(code.into()),
            std::slice::from_ref(need),
        ));
    }
    Ok(found.map_or(0, |topic| topic.partitions().len()))
}

fn missing_topic(topic: &str) -> Fault {
    Fault::Config(format!(
        "topic {topic} does not exist: run `guestkit-jobs topics create`"
    ))
}

/// What a group has committed for each partition of a topic; `None` where it has committed nothing.
///
/// # Errors
/// See [`Fault`].
pub fn committed(
    connection: &Connection,
    group: &str,
    topic: &str,
    partitions: u32,
    timeout: Duration,
) -> Result<Vec<Option<i64>>, Fault> {
    let mut config = connection.client_config();
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false");
    let consumer = consumer(&config)?;
    let mut wanted = TopicPartitionList::new();
    let count = i32::try_from(partitions).unwrap_or(i32::MAX);
    wanted.add_partition_range(topic, 0, count.saturating_sub(1));
    let found = consumer
        .committed_offsets(wanted, timeout)
        .map_err(|error| {
            let needs = [
                Permission::group(Operation::Describe, group),
                Permission::topic(Operation::Describe, topic),
            ];
            let mut what = format!("ask for the offsets of group {group}");
            // librdkafka asks again and again whom an authorizer forbids the group.
            if error.rdkafka_error_code() == Some(Code::OperationTimedOut) {
                what += &format!(" (where other questions are answered, {})", needs[0]);
            }
            Fault::of_call(what, &error, &needs)
        })?;
    Ok((0..count)
        .map(|partition| {
            let element = found.find_partition(topic, partition)?;
            match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            }
        })
        .collect())
}
