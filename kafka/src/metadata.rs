//! Questions to the cluster: partition counts, ends, a group's committed offsets.

use crate::connection::Connection;
use crate::fault::Fault;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::BTreeMap;
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

pub(crate) type QuietConsumer = BaseConsumer<Quiet>;

pub(crate) fn consumer(config: &ClientConfig) -> Result<QuietConsumer, Fault> {
    config
        .create_with_context(Quiet)
        .map_err(|error| Fault::of("create a consumer", &error))
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
    let metadata = consumer(&connection.client_config())?
        .fetch_metadata(None, timeout)
        .map_err(|error| Fault::of(what(), &error))?;
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

impl Cluster {
    /// A topic's partition count.
    ///
    /// # Errors
    /// [`Fault::Config`] when it does not exist.
    pub fn partitions(&self, topic: &str) -> Result<u32, Fault> {
        self.topics.get(topic).copied().ok_or_else(|| {
            Fault::Config(format!(
                "topic {topic} does not exist: run `guestkit-jobs topics create`"
            ))
        })
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
    extents_with(&consumer, topic, timeout)
}

pub(crate) fn extents_with(
    consumer: &QuietConsumer,
    topic: &str,
    timeout: Duration,
) -> Result<Vec<Extent>, Fault> {
    let what = || format!("ask for the ends of {topic}");
    let metadata = consumer
        .fetch_metadata(Some(topic), timeout)
        .map_err(|error| Fault::of(what(), &error))?;
    let found = metadata.topics().iter().find(|t| t.name() == topic);
    if let Some(code) = found.and_then(|topic| topic.error())
        && !matches!(
            Code::from(code),
            Code::UnknownTopicOrPartition | Code::UnknownTopic
        )
    {
        return Err(Fault::of_code(what(), code.into()));
    }
    let count = found.map_or(0, |topic| topic.partitions().len());
    if count == 0 {
        return Err(Fault::Config(format!(
            "topic {topic} does not exist: run `guestkit-jobs topics create`"
        )));
    }
    (0..count)
        .map(|partition| {
            let partition = i32::try_from(partition).unwrap_or(i32::MAX);
            consumer
                .fetch_watermarks(topic, partition, timeout)
                .map(|(start, end)| Extent { start, end })
                .map_err(|error| Fault::of(what(), &error))
        })
        .collect()
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
        .map_err(|error| Fault::of(format!("ask for the offsets of group {group}"), &error))?;
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
