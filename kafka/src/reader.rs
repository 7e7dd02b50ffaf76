//! A read_committed reader over all partitions of a topic, without a group.
//!
//! It ends at the ends captured at its start, or follows. A partition's last offsets may be control records or
//! aborted ones that are never delivered, so it is read when its end-of-partition event comes, not when a
//! certain offset does.

use crate::acls::{Operation, Permission};
use crate::connection::Connection;
use crate::fault::Fault;
use crate::metadata::{Extent, QuietConsumer, consumer, extents_with};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::time::Duration;

/// What a reader holds of records that its caller has not taken yet, in KiB.
const READ_AHEAD_KIB: &str = "16384";

/// Where a reader begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// At the first record that is kept.
    Beginning,
    /// At these offsets, by partition; others at the beginning.
    Offsets(Vec<i64>),
    /// At the first record of this time (milliseconds since 1970) or later.
    Timestamp(i64),
    /// At one record of one partition; others are not read.
    Record {
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
    },
    /// After the last record.
    End,
}

/// When a reader is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// At the end as it was at the start.
    End,
    /// Never.
    Follow,
}

/// A record, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since 1970, where the broker knows.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers, in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// The last header of a name, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().rev().find(|(found, _)| found == name)?;
        value
            .as_deref()
            .map(|value| String::from_utf8_lossy(value).into_owned())
    }
}

/// What a reader comes back with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A record.
    Record(Record),
    /// Nothing came in this time.
    Idle,
    /// All is read; only with [`Until::End`].
    Done,
}

/// See the module.
pub struct Reader {
    consumer: QuietConsumer,
    topic: String,
    ends: Vec<Extent>,
    /// Partitions that are not at their end yet; with `Follow` none is ever taken out.
    unread: BTreeSet<i32>,
    until: Until,
    last_fault: Option<Fault>,
}

impl Reader {
    /// Opens a topic; `timeout` bounds each question to the cluster.
    ///
    /// # Errors
    /// See [`Fault`]; [`Fault::Config`] when there is no such topic, partition or offset.
    pub fn open(
        connection: &Connection,
        topic: &str,
        start: &Start,
        until: Until,
        timeout: Duration,
    ) -> Result<Self, Fault> {
        let mut config = connection.client_config();
        config
            // librdkafka assigns nothing without a name; nothing joins or commits under it.
            .set("group.id", "guestkit-reader")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            // A reader of the tail should not wait 500 ms for more.
            .set("fetch.wait.max.ms", "50");
        // Read-ahead beyond some seconds of work is only memory: librdkafka would take 64 MiB.
        if config.get("queued.max.messages.kbytes").is_none() {
            config.set("queued.max.messages.kbytes", READ_AHEAD_KIB);
        }
        let consumer = consumer(&config)?;
        let need = Permission::topic(Operation::Read, topic);
        let ends = extents_with(&consumer, need, timeout)?;
        let starts = starts(&consumer, topic, start, &ends, timeout)?;
        let mut assignment = TopicPartitionList::new();
        let mut unread = BTreeSet::new();
        for (partition, offset) in starts {
            let end = ends.get(usize::try_from(partition).unwrap_or(usize::MAX));
            if until == Until::End && end.is_none_or(|end| offset >= end.end) {
                continue;
            }
            unread.insert(partition);
            assignment
                .add_partition_offset(topic, partition, Offset::Offset(offset))
                .map_err(|error| Fault::of(format!("read {topic}"), &error))?;
        }
        if !unread.is_empty() {
            consumer
                .assign(&assignment)
                .map_err(|error| Fault::of(format!("read {topic}"), &error))?;
        }
        Ok(Self {
            consumer,
            topic: topic.to_owned(),
            ends,
            unread,
            until,
            last_fault: None,
        })
    }

    /// Where the partitions began and ended when the reader was opened.
    pub fn extents(&self) -> &[Extent] {
        &self.ends
    }

    /// What went wrong since the last record, if the cluster can't be reached: librdkafka keeps trying.
    pub fn last_fault(&self) -> Option<&Fault> {
        self.last_fault.as_ref()
    }

    /// Reads no more of a partition: what was wanted of it is there.
    pub fn leave(&mut self, partition: i32) {
        if self.unread.contains(&partition) {
            self.finish(partition);
        }
    }

    /// The next record, waiting at most `wait` for it.
    ///
    /// # Errors
    /// [`Fault::Denied`] and others that time won't mend. An unreachable cluster is [`Step::Idle`].
    pub fn next(&mut self, wait: Duration) -> Result<Step, Fault> {
        if self.unread.is_empty() {
            return Ok(match self.until {
                Until::End => Step::Done,
                Until::Follow => Step::Idle,
            });
        }
        match self.consumer.poll(wait) {
            None => Ok(Step::Idle),
            Some(Ok(message)) => {
                let record = record(&message);
                drop(message);
                self.last_fault = None;
                let at = usize::try_from(record.partition).unwrap_or(usize::MAX);
                let end = self.ends.get(at).map_or(i64::MAX, |extent| extent.end);
                if self.until == Until::End {
                    if record.offset >= end {
                        // Written after the start: the partition is read.
                        self.finish(record.partition);
                        return self.next(Duration::ZERO);
                    }
                    if record.offset + 1 >= end {
                        self.finish(record.partition);
                    }
                }
                Ok(Step::Record(record))
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                if self.until == Until::End {
                    self.finish(partition);
                }
                Ok(if self.unread.is_empty() && self.until == Until::End {
                    Step::Done
                } else {
                    Step::Idle
                })
            }
            Some(Err(error)) => {
                let needs = [Permission::topic(Operation::Read, &self.topic)];
                let fault = Fault::of_call(format!("read {}", self.topic), &error, &needs);
                let passes = fault.is_unreachable()
                    || matches!(
                        error.rdkafka_error_code(),
                        Some(
                            Code::NotLeaderForPartition
                                | Code::OffsetOutOfRange
                                // librdkafka looks for the group's coordinator; nothing of ours needs it.
                                | Code::GroupAuthorizationFailed
                        )
                    );
                if !passes {
                    return Err(fault);
                }
                self.last_fault = Some(fault);
                Ok(Step::Idle)
            }
        }
    }

    fn finish(&mut self, partition: i32) {
        self.unread.remove(&partition);
        let mut done = TopicPartitionList::new();
        done.add_partition(&self.topic, partition);
        // A paused partition fetches nothing more; a failure only costs a fetch.
        if let Err(error) = self.consumer.pause(&done) {
            tracing::debug!(partition, %error, "pause");
        }
    }
}

fn starts(
    consumer: &QuietConsumer,
    topic: &str,
    start: &Start,
    ends: &[Extent],
    timeout: Duration,
) -> Result<Vec<(i32, i64)>, Fault> {
    let numbered = |offset: &dyn Fn(usize, &Extent) -> i64| {
        let extents = ends.iter().enumerate();
        extents
            .map(|(at, extent)| (i32::try_from(at).unwrap_or(i32::MAX), offset(at, extent)))
            .collect()
    };
    Ok(match start {
        Start::Beginning => numbered(&|_, extent| extent.start),
        Start::End => numbered(&|_, extent| extent.end),
        Start::Offsets(offsets) => numbered(&|at, extent| {
            let offset = offsets.get(at).copied().unwrap_or(extent.start);
            offset.max(extent.start)
        }),
        Start::Record { partition, offset } => {
            let extent = usize::try_from(*partition)
                .ok()
                .and_then(|at| ends.get(at))
                .ok_or_else(|| Fault::Config(format!("{topic} has no partition {partition}")))?;
            if !(extent.start..extent.end).contains(offset) {
                return Err(Fault::Config(format!(
                    "{topic}, partition {partition}, has the offsets {} to {}, not {offset}",
                    extent.start, extent.end
                )));
            }
            vec![(*partition, *offset)]
        }
        Start::Timestamp(ms) => {
            let mut wanted = TopicPartitionList::new();
            for at in 0..ends.len() {
                wanted
                    .add_partition_offset(
                        topic,
                        i32::try_from(at).unwrap_or(i32::MAX),
                        Offset::Offset(*ms),
                    )
                    .map_err(|error| Fault::of(format!("read {topic}"), &error))?;
            }
            let found = consumer
                .offsets_for_times(wanted, timeout)
                .map_err(|error| Fault::of(format!("look for a time in {topic}"), &error))?;
            numbered(&|at, extent| {
                let element = found.find_partition(topic, i32::try_from(at).unwrap_or(i32::MAX));
                match element.map(|element| element.offset()) {
                    Some(Offset::Offset(offset)) => offset,
                    _ => extent.end,
                }
            })
        }
    })
}

pub(crate) fn record(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect()
    });
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}
