//! Reads stretches of single partitions, read_committed, with one client that stays open.
//!
//! A [`Reader`](crate::reader::Reader) asks for the ends of all partitions and reads a topic; this one is for
//! who knows the partition: it asks for nothing else, and the next question finds its connections open.

use crate::clock::Moment;
use crate::connection::Connection;
use crate::fault::Fault;
use crate::metadata::{Extent, QuietConsumer, consumer};
use crate::reader::{Record, record};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};
use std::ops::Range;
use std::time::Duration;

/// The longest wait for a record before the deadline is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// See the module.
pub struct Scanner {
    consumer: QuietConsumer,
}

/// How a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scanned {
    /// All of the stretch was read.
    All,
    /// The caller had what it wanted.
    Stopped,
    /// The time ran out first.
    OutOfTime,
}

impl Scanner {
    /// Makes the client; it connects when it is asked.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn new(connection: &Connection) -> Result<Self, Fault> {
        let mut config = connection.client_config();
        config
            // librdkafka assigns nothing without a name; nothing joins or commits under it.
            .set("group.id", "guestkit-reader")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "10")
            // One partition at a time, and records that nobody asked for are thrown away: a small read-ahead.
            .set("queued.max.messages.kbytes", "8192");
        Ok(Self {
            consumer: consumer(&config)?,
        })
    }

    /// Where the partition begins and ends for a read_committed reader.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn extent(&self, topic: &str, partition: i32, timeout: Duration) -> Result<Extent, Fault> {
        self.consumer
            .fetch_watermarks(topic, partition, timeout)
            .map(|(start, end)| Extent { start, end })
            .map_err(|error| Fault::of(format!("ask for the end of {topic}/{partition}"), &error))
    }

    /// Hands the records of the stretch to `each`, in order, until it says `false`.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn read(
        &self,
        topic: &str,
        partition: i32,
        stretch: Range<i64>,
        limit: Duration,
        each: impl FnMut(Record) -> bool,
    ) -> Result<Scanned, Fault> {
        if stretch.is_empty() {
            return Ok(Scanned::All);
        }
        let what = || format!("read {topic}/{partition}");
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(topic, partition, Offset::Offset(stretch.start))
            .and_then(|()| self.consumer.assign(&assignment))
            .map_err(|error| Fault::of(what(), &error))?;
        let scanned = self.poll(stretch, limit, each);
        // What was read ahead goes with the assignment; a failure here shows at the next one.
        if let Err(error) = self.consumer.unassign() {
            tracing::debug!(%error, "unassign");
        }
        scanned.map_err(|error| Fault::of(what(), &error))
    }

    fn poll(
        &self,
        stretch: Range<i64>,
        limit: Duration,
        mut each: impl FnMut(Record) -> bool,
    ) -> Result<Scanned, KafkaError> {
        let deadline = Moment::now().after(limit);
        loop {
            match self.consumer.poll(LOOK) {
                Some(Ok(message)) => {
                    let record = record(&message);
                    drop(message);
                    let at = record.offset;
                    if at >= stretch.end {
                        return Ok(Scanned::All);
                    }
                    if !each(record) {
                        return Ok(Scanned::Stopped);
                    }
                    if at + 1 >= stretch.end {
                        return Ok(Scanned::All);
                    }
                }
                // The last offsets of the stretch may be control records that are never delivered.
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(Scanned::All),
                Some(Err(error)) => match error.rdkafka_error_code() {
                    // librdkafka goes on by itself.
                    Some(
                        Code::BrokerTransportFailure
                        | Code::AllBrokersDown
                        | Code::NotLeaderForPartition
                        | Code::OperationTimedOut,
                    ) => {}
                    _ => return Err(error),
                },
                None => {}
            }
            if deadline.since(Moment::now()).is_none() {
                return Ok(Scanned::OutOfTime);
            }
        }
    }
}
