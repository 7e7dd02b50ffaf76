//! Where the partitions of the jobs topic begin and end, for the backlog and for whoever has to
//! know that records are about to be deleted unread.
//!
//! The fetcher hears of the ends of what it reads every second. A thread asks for those of all
//! partitions that this process owns, so that a slot that is being restored or has stopped does not
//! look empty.

use super::BrokerError;
use super::ownership::Ownership;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

/// How often all ends are asked for.
const ROUND: Duration = Duration::from_secs(5);
/// How long a broker may take to answer: nothing waits for it.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Rounds between two looks at how many partitions the topic has.
const COUNT_EVERY: u32 = 6;
/// Timestamps that stand for the log's end and its beginning (ListOffsets, KIP-79).
const ENDS: [Offset; 2] = [Offset::End, Offset::Beginning];

/// A partition, as last heard; `None`: not heard yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogEnd {
    /// Its first offset.
    pub start: Option<i64>,
    /// Its high watermark.
    pub end: Option<i64>,
    /// Committed offset of this worker's group.
    pub committed: Option<i64>,
}

/// What is known of the partitions that this process owns.
#[derive(Debug, Default)]
pub struct LogEnds {
    known: Mutex<BTreeMap<u32, LogEnd>>,
    partitions: AtomicU32,
}

impl LogEnds {
    /// A partition ends here. An older answer that comes late is told apart by being smaller.
    pub fn ends_at(&self, partition: u32, end: i64) {
        let mut known = self.lock();
        let entry = known.entry(partition).or_default();
        entry.end = entry.end.max(Some(end));
    }

    fn begins_at(&self, partition: u32, start: i64) {
        self.lock().entry(partition).or_default().start = Some(start);
    }

    fn committed_at(&self, partition: u32, committed: Option<i64>) {
        self.lock().entry(partition).or_default().committed = committed;
    }

    /// What is known of a partition.
    #[must_use]
    pub fn of(&self, partition: u32) -> LogEnd {
        self.lock().get(&partition).copied().unwrap_or_default()
    }

    /// Partitions of the topic; `None` before the first answer.
    #[must_use]
    pub fn partitions(&self) -> Option<u32> {
        match self.partitions.load(Ordering::Relaxed) {
            0 => None,
            count => Some(count),
        }
    }

    /// What is not ours any more is forgotten: another process may move it on, or the topic may be
    /// made anew before it comes back.
    fn keep(&self, owned: &[u32]) {
        self.lock().retain(|partition, _| owned.contains(partition));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, LogEnd>> {
        // Entries are replaced whole, so a panic elsewhere cannot have torn them.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct AskContext;

impl ClientContext for AskContext {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        super::log_librdkafka("log ends", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "log ends reports");
    }
}

impl ConsumerContext for AskContext {}

/// Asks until the returned sender is dropped.
///
/// # Errors
/// When librdkafka refuses the configuration or the system gives no thread.
pub fn ask_always(
    connection: &ClientConfig,
    topic: &str,
    ownership: Arc<Ownership>,
    ends: Arc<LogEnds>,
) -> Result<mpsc::Sender<()>, BrokerError> {
    let consumer: BaseConsumer<AskContext> = connection
        .clone()
        .set("enable.auto.commit", "false")
        // Records of open transactions wait, too.
        .set("isolation.level", "read_uncommitted")
        .create_with_context(AskContext)
        .map_err(|source| BrokerError::of("create the client that asks for log ends", source))?;
    let (open, closed) = mpsc::channel();
    let asking = Asking {
        consumer,
        topic: topic.to_owned(),
        ownership,
        ends,
    };
    std::thread::Builder::new()
        .name("log-ends".to_owned())
        .spawn(move || {
            for round in 0_u32.. {
                asking.round(round % COUNT_EVERY == 0);
                if closed.recv_timeout(ROUND) == Err(mpsc::RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        })
        .map_err(|error| {
            BrokerError::of(
                "start the thread that asks for log ends",
                KafkaError::ClientCreation(error.to_string()),
            )
        })?;
    Ok(open)
}

struct Asking {
    consumer: BaseConsumer<AskContext>,
    topic: String,
    ownership: Arc<Ownership>,
    ends: Arc<LogEnds>,
}

impl Asking {
    fn round(&self, count: bool) {
        // Nothing is assigned: this only takes the client's own reports out of its queue.
        if let Some(Err(error)) = self.consumer.poll(Duration::ZERO) {
            tracing::debug!(%error, "log ends");
        }
        let asked = if count { self.count() } else { Ok(()) };
        if let Err(error) = asked.and_then(|()| self.ask()) {
            tracing::debug!(%error, "log ends not heard; asking again");
        }
    }

    fn count(&self) -> Result<(), KafkaError> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(&self.topic), ANSWER_MAX)?;
        let partitions = metadata
            .topics()
            .first()
            .map_or(0, |t| t.partitions().len());
        let partitions = u32::try_from(partitions).unwrap_or(u32::MAX);
        self.ends.partitions.store(partitions, Ordering::Relaxed);
        Ok(())
    }

    fn ask(&self) -> Result<(), KafkaError> {
        let owned: Vec<u32> = self.ownership.all().iter().map(|(p, _)| *p).collect();
        self.ends.keep(&owned);
        if owned.is_empty() {
            return Ok(());
        }
        for which in ENDS {
            let list = self.list(&owned, which)?;
            let answer = self.consumer.offsets_for_times(list, ANSWER_MAX)?;
            for (partition, offset) in self.offsets(&answer) {
                match (which, offset) {
                    (Offset::End, Some(end)) => self.ends.ends_at(partition, end),
                    (_, Some(start)) => self.ends.begins_at(partition, start),
                    (_, None) => {}
                }
            }
        }
        let list = self.list(&owned, Offset::Invalid)?;
        let answer = self.consumer.committed_offsets(list, ANSWER_MAX)?;
        for (partition, offset) in self.offsets(&answer) {
            self.ends.committed_at(partition, offset);
        }
        Ok(())
    }

    fn list(&self, partitions: &[u32], at: Offset) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            let partition = i32::try_from(*partition).unwrap_or(i32::MAX);
            list.add_partition_offset(&self.topic, partition, at)?;
        }
        Ok(list)
    }

    fn offsets(&self, answer: &TopicPartitionList) -> Vec<(u32, Option<i64>)> {
        let of = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            let offset = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            Some((u32::try_from(element.partition()).ok()?, offset))
        };
        let elements = answer.elements_for_topic(&self.topic);
        elements.iter().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_does_not_shrink_a_log() {
        let ends = LogEnds::default();
        assert_eq!(ends.of(3), LogEnd::default());
        ends.ends_at(3, 10);
        ends.ends_at(3, 7);
        ends.begins_at(3, 2);
        ends.committed_at(3, Some(5));
        let known = LogEnd {
            start: Some(2),
            end: Some(10),
            committed: Some(5),
        };
        assert_eq!(ends.of(3), known);
        ends.keep(&[4]);
        assert_eq!(ends.of(3), LogEnd::default());
    }
}
