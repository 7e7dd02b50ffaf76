//! Reads and decodes the jobs of restored partitions, on a thread of its own.
//!
//! Decoding happens here, before the engine: a fault of the schema registry stops the partition at
//! that record and tries again, and never becomes an invalid job.

use super::figures::Figures;
use super::log_ends::LogEnds;
use super::member::Events;
use super::{BrokerError, Topics, permissions};
use crate::codec;
use crate::engine::Event;
use crate::engine::record::{Millis, RawRecord, Record};
use crate::engine::transaction::Epoch;
use crate::health::Heart;
use crate::spans::JobSpans;
use guestkit_protocol::SchemaSource;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::statistics::Statistics;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// Records handed over at once: amortises the queue, keeps the engine's steps short.
const BATCH: usize = 512;
/// One wait for a record.
const POLL: Duration = Duration::from_millis(20);
/// Wait while the engine is full.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// Records that may wait in the engine over all partitions before nothing more is read: enough for
/// the look-ahead and the next transaction at full speed, and a transaction of so many is delivered
/// within its timeout by a broker that takes 4,000 a second.
const WAITING_MAX: usize = 32_000;
/// The same in bytes: a worker's memory for records that wait.
const HELD_BYTES_MAX: usize = 64 << 20;
/// First and longest pause of a partition whose schema cannot be had now.
const SCHEMA_RETRY_MS: (i64, i64) = (250, 5_000);
/// How long one question for the log of a partition may take, and the pause before the next try.
const LOG_ANSWER_MAX: Duration = Duration::from_secs(2);
const LOG_RETRY_MS: i64 = 1_000;
/// How often librdkafka reports the ends of partitions.
const STATISTICS_MS: &str = "1000";

/// What the fetcher is told.
#[derive(Debug)]
pub enum Order {
    /// Read a partition from an offset on.
    Consume {
        /// The partition.
        partition: u32,
        /// The assignment.
        epoch: Epoch,
        /// First offset.
        offset: i64,
    },
    /// Stop reading it for a while.
    Pause(u32, Epoch),
    /// Go on reading it.
    Resume(u32, Epoch),
    /// It is not ours any more.
    Drop(u32, Epoch),
}

/// How full the engine is: written by its loop, read here.
#[derive(Debug, Default)]
pub struct Load {
    /// Records read that no transaction has taken yet.
    pub waiting: AtomicUsize,
    /// Their bytes.
    pub held_bytes: AtomicUsize,
}

impl Load {
    fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= WAITING_MAX
            || self.held_bytes.load(Ordering::Relaxed) >= HELD_BYTES_MAX
    }
}

/// The ends of partitions, out of librdkafka's statistics.
///
/// rust-rdkafka's end-of-partition event carries no offset, and control records leave gaps at the
/// end that only this offset shows. `eof_offset` is the last end that was signalled into the queue
/// this thread drains; once the queue was empty *after* a report, everything before that end was
/// delivered.
#[derive(Debug, Default)]
struct Ends {
    reported: Mutex<BTreeMap<u32, i64>>,
    reports: AtomicU64,
}

struct FetchContext {
    topic: String,
    ends: Arc<Ends>,
    log_ends: Arc<LogEnds>,
    figures: Arc<Figures>,
}

impl ClientContext for FetchContext {
    fn stats(&self, statistics: Statistics) {
        self.figures.take(&statistics);
        let Some(topic) = statistics.topics.get(&self.topic) else {
            return;
        };
        let mut reported = self
            .ends
            .reported
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        reported.clear();
        for (partition, state) in &topic.partitions {
            let Ok(partition) = u32::try_from(*partition) else {
                continue;
            };
            if state.eof_offset >= 0 {
                reported.insert(partition, state.eof_offset);
            }
            if state.hi_offset >= 0 {
                self.log_ends.ends_at(partition, state.hi_offset);
            }
        }
        drop(reported);
        self.ends.reports.fetch_add(1, Ordering::Release);
    }

    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        super::log_librdkafka("fetcher", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "fetcher reports");
    }
}

impl ConsumerContext for FetchContext {}

/// The fetch thread.
pub struct Fetcher {
    orders: mpsc::Sender<Order>,
    stop: Arc<AtomicBool>,
    heart: Arc<Heart>,
    log_ends: Arc<LogEnds>,
    figures: Arc<Figures>,
    schema_waits: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// What the fetch thread needs.
pub struct FetcherParts {
    /// Connection with the worker's `group.id`.
    pub connection: ClientConfig,
    /// Topics.
    pub topics: Arc<Topics>,
    /// Pool of this worker, if not the default one.
    pub pool: Option<String>,
    /// Where writer schemas come from.
    pub schemas: Arc<dyn SchemaSource>,
    /// Where records go.
    pub events: Events,
    /// How full the engine is.
    pub load: Arc<Load>,
    /// Spans of jobs, where they are exported.
    pub spans: Option<Arc<JobSpans>>,
    /// The clock.
    pub now: fn() -> Millis,
}

impl Fetcher {
    /// Starts the thread.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn start(parts: FetcherParts) -> Result<Self, BrokerError> {
        let ends = Arc::new(Ends::default());
        let context = FetchContext {
            topic: parts.topics.jobs.clone(),
            ends: ends.clone(),
            log_ends: Arc::default(),
            figures: Arc::default(),
        };
        let (log_ends, figures) = (context.log_ends.clone(), context.figures.clone());
        let consumer: BaseConsumer<FetchContext> = parts
            .connection
            .clone()
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // An aborted forward must never be acted on.
            .set("isolation.level", "read_committed")
            // A silent reset would lose jobs or repeat them.
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("statistics.interval.ms", STATISTICS_MS)
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "50")
            .set("queued.min.messages", "20000")
            // The default is a second, for which a partition would stand still after a full queue.
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.max.messages.kbytes", "65536")
            .create_with_context(context)
            .map_err(|source| BrokerError::of("create the fetcher", source))?;
        let (orders, incoming) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let heart = Arc::new(Heart::default());
        let schema_waits = Arc::new(AtomicUsize::new(0));
        let mut fetching = Fetching {
            consumer,
            parts,
            ends,
            partitions: BTreeMap::new(),
            full_batches: BTreeMap::new(),
            seen_reports: 0,
            heart: heart.clone(),
            schema_waits: schema_waits.clone(),
            look_at_log: None,
        };
        let thread = std::thread::Builder::new()
            .name("kafka-fetch".to_owned())
            .spawn({
                let stop = stop.clone();
                move || {
                    while !stop.load(Ordering::Acquire) {
                        fetching.heart.beat();
                        fetching.step(&incoming);
                    }
                }
            })
            .map_err(|error| {
                BrokerError::of(
                    "start the fetch thread",
                    KafkaError::ClientCreation(error.to_string()),
                )
            })?;
        Ok(Self {
            orders,
            stop,
            heart,
            log_ends,
            figures,
            schema_waits,
            thread: Some(thread),
        })
    }

    /// Tells the fetcher what to do. Never waits.
    pub fn order(&self, order: Order) {
        if self.orders.send(order).is_err() {
            tracing::error!("the fetch thread is gone");
        }
    }

    /// Beats with every round of the thread.
    #[must_use]
    pub fn heart(&self) -> Arc<Heart> {
        self.heart.clone()
    }

    /// Where the partitions being read end.
    #[must_use]
    pub fn log_ends(&self) -> Arc<LogEnds> {
        self.log_ends.clone()
    }

    /// What librdkafka says of this client.
    #[must_use]
    pub fn figures(&self) -> Arc<Figures> {
        self.figures.clone()
    }

    /// Partitions that stand still because the schema of their next job cannot be had.
    #[must_use]
    pub fn schema_waits(&self) -> usize {
        self.schema_waits.load(Ordering::Relaxed)
    }

    /// Ends the thread.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the fetch thread panicked");
        }
    }
}

#[derive(Debug)]
struct Reading {
    epoch: Epoch,
    /// Next offset expected.
    position: i64,
    /// Last end told to the engine.
    told_end: i64,
    /// Waiting for a schema: read again from `position` at this time.
    retry: Option<(Millis, i64)>,
}

struct Fetching {
    consumer: BaseConsumer<FetchContext>,
    parts: FetcherParts,
    ends: Arc<Ends>,
    partitions: BTreeMap<u32, Reading>,
    full_batches: BTreeMap<u32, Vec<Record>>,
    seen_reports: u64,
    heart: Arc<Heart>,
    schema_waits: Arc<AtomicUsize>,
    /// An offset was refused: when to find out of which partition.
    look_at_log: Option<Millis>,
}

impl Fetching {
    fn step(&mut self, orders: &mpsc::Receiver<Order>) {
        while let Ok(order) = orders.try_recv() {
            self.obey(order);
        }
        self.retry_waiting();
        if self.parts.load.is_full() {
            std::thread::sleep(FULL_PAUSE);
            return;
        }
        let reports = self.ends.reports.load(Ordering::Acquire);
        let drained = self.gather();
        self.hand_over();
        // Only what the engine has got counts as read.
        if drained {
            self.look_for_lost_records();
        }
        let waiting = |reading: &&Reading| reading.retry.is_some();
        let waits = self.partitions.values().filter(waiting).count();
        self.schema_waits.store(waits, Ordering::Relaxed);
        // A report that came before the queue ran empty speaks of records that were delivered; one
        // that came during the last poll may not.
        let settled = self.ends.reports.load(Ordering::Acquire) == reports;
        if drained && settled && reports != self.seen_reports {
            self.seen_reports = reports;
            self.tell_ends();
        }
    }

    /// Polls up to a batch; answers whether the queue ran empty.
    fn gather(&mut self) -> bool {
        let mut wait = POLL;
        for _ in 0..BATCH {
            let step = match self.consumer.poll(wait) {
                None => return true,
                Some(Ok(message)) => take(&message, &self.parts, &self.partitions),
                Some(Err(error)) => Step::Failed(error),
            };
            match step {
                Step::Record(partition, record) => {
                    if let Some(reading) = self.partitions.get_mut(&partition) {
                        reading.position = record.offset + 1;
                        reading.retry = None;
                    }
                    self.full_batches.entry(partition).or_default().push(record);
                }
                Step::Skip => {}
                Step::Wait(partition, offset, reason) => {
                    // The registry may have taken its time, and may do so for every partition.
                    self.heart.beat();
                    self.wait_for_schema(partition, offset, &reason);
                }
                Step::Failed(error) => self.failed(&error),
            }
            // After the first record, only what is there already: latency before batch size.
            wait = Duration::ZERO;
        }
        false
    }

    fn hand_over(&mut self) {
        for (partition, records) in std::mem::take(&mut self.full_batches) {
            let Some(reading) = self.partitions.get(&partition) else {
                continue;
            };
            let event = Event::Records {
                partition,
                epoch: reading.epoch,
                records,
            };
            if self.parts.events.blocking_send(event).is_err() {
                tracing::debug!("the engine is gone; records have no taker");
            }
        }
    }

    fn tell_ends(&mut self) {
        let ends = self
            .ends
            .reported
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for (partition, end) in ends {
            let Some(reading) = self.partitions.get_mut(&partition) else {
                continue;
            };
            if reading.retry.is_some() || end < reading.position || end == reading.told_end {
                continue;
            }
            reading.told_end = end;
            let event = Event::EndOfPartition {
                partition,
                epoch: reading.epoch,
                offset: end,
            };
            if self.parts.events.blocking_send(event).is_err() {
                tracing::debug!("the engine is gone; an end has no taker");
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Consume {
                partition,
                epoch,
                offset,
            } => {
                if self.partitions.contains_key(&partition) {
                    self.unassign(partition);
                }
                self.partitions.insert(
                    partition,
                    Reading {
                        epoch,
                        position: offset,
                        told_end: -1,
                        retry: None,
                    },
                );
                self.assign(partition, offset);
            }
            Order::Pause(partition, epoch) | Order::Resume(partition, epoch) => {
                if self.partitions.get(&partition).map(|r| r.epoch) != Some(epoch) {
                    return;
                }
                let list = self.list(partition, None);
                let result = if matches!(order, Order::Pause(..)) {
                    self.consumer.pause(&list)
                } else {
                    self.consumer.resume(&list)
                };
                if let Err(error) = result {
                    tracing::error!(partition, %error, "cannot pause or resume");
                }
            }
            Order::Drop(partition, epoch) => {
                if self.partitions.get(&partition).map(|r| r.epoch) == Some(epoch) {
                    self.partitions.remove(&partition);
                    self.full_batches.remove(&partition);
                    self.unassign(partition);
                }
            }
        }
    }

    fn wait_for_schema(&mut self, partition: u32, offset: i64, reason: &str) {
        let now = (self.parts.now)();
        let Some(reading) = self.partitions.get_mut(&partition) else {
            return;
        };
        let pause = match reading.retry {
            Some((_, pause)) => (pause * 2).min(SCHEMA_RETRY_MS.1),
            None => SCHEMA_RETRY_MS.0,
        };
        tracing::warn!(partition, offset, reason, "job waits for its schema");
        reading.position = offset;
        reading.retry = Some((now + pause, pause));
        // What was fetched behind it is read again: the order of a partition is kept.
        self.unassign(partition);
    }

    fn retry_waiting(&mut self) {
        let now = (self.parts.now)();
        let due: Vec<(u32, i64)> = self
            .partitions
            .iter_mut()
            .filter_map(|(partition, reading)| match &mut reading.retry {
                Some((at, _)) if *at <= now => {
                    // Asked again only when this try fails: until then it is being read.
                    *at = Millis::MAX;
                    Some((*partition, reading.position))
                }
                _ => None,
            })
            .collect();
        for (partition, offset) in due {
            self.assign(partition, offset);
        }
    }

    fn failed(&mut self, error: &KafkaError) {
        match error {
            KafkaError::PartitionEOF(_) => {}
            _ if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) => {
                // The error names no partition. What was read before it goes to the engine first.
                self.look_at_log = Some((self.parts.now)());
            }
            _ if permissions::noticed(
                error,
                &permissions::of_group(&self.parts.connection, &self.parts.topics.jobs),
            ) => {}
            _ => tracing::debug!(%error, "fetch"),
        }
    }

    /// Finds the partitions whose next offset the log does not have, and stops reading them.
    fn look_for_lost_records(&mut self) {
        let now = (self.parts.now)();
        if self.look_at_log.is_none_or(|at| now < at) {
            return;
        }
        self.look_at_log = None;
        let positions: Vec<(u32, i64)> = self
            .partitions
            .iter()
            .map(|(partition, reading)| (*partition, reading.position))
            .collect();
        for (partition, position) in positions {
            self.heart.beat();
            let number = i32::try_from(partition).unwrap_or(i32::MAX);
            let jobs = &self.parts.topics.jobs;
            match self.consumer.fetch_watermarks(jobs, number, LOG_ANSWER_MAX) {
                Ok((first, end)) if position < first || position > end => {
                    self.stop_reading(partition, position, (first, end));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(partition, %error, "an offset was refused; asking the log again");
                    self.look_at_log = Some(now + LOG_RETRY_MS);
                    // One that does not answer now hardly answers for the next.
                    return;
                }
            }
        }
    }

    fn stop_reading(&mut self, partition: u32, position: i64, log: (i64, i64)) {
        self.unassign(partition);
        let Some(reading) = self.partitions.remove(&partition) else {
            return;
        };
        tracing::error!(
            partition,
            position,
            log_start = log.0,
            log_end = log.1,
            "the next record is no longer in the log: the slot stops; reset its offset on purpose"
        );
        let event = Event::OffsetGone {
            partition,
            epoch: reading.epoch,
            position,
            log,
        };
        if self.parts.events.blocking_send(event).is_err() {
            tracing::debug!("the engine is gone; a lost offset has no taker");
        }
    }

    fn list(&self, partition: u32, offset: Option<i64>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        let partition = i32::try_from(partition).unwrap_or(i32::MAX);
        match offset {
            None => {
                list.add_partition(&self.parts.topics.jobs, partition);
            }
            Some(offset) => {
                if let Err(error) = list.add_partition_offset(
                    &self.parts.topics.jobs,
                    partition,
                    Offset::Offset(offset),
                ) {
                    tracing::error!(partition, offset, %error, "no offset to read from");
                }
            }
        }
        list
    }

    fn assign(&self, partition: u32, offset: i64) {
        if let Err(error) = self
            .consumer
            .incremental_assign(&self.list(partition, Some(offset)))
        {
            tracing::error!(partition, offset, %error, "cannot read a partition");
        }
    }

    fn unassign(&self, partition: u32) {
        if let Err(error) = self
            .consumer
            .incremental_unassign(&self.list(partition, None))
        {
            tracing::debug!(partition, %error, "partition was not being read");
        }
    }
}

enum Step {
    Record(u32, Record),
    Skip,
    Wait(u32, i64, String),
    Failed(KafkaError),
}

fn take(
    message: &BorrowedMessage<'_>,
    parts: &FetcherParts,
    partitions: &BTreeMap<u32, Reading>,
) -> Step {
    let Ok(partition) = u32::try_from(message.partition()) else {
        return Step::Skip;
    };
    let offset = message.offset();
    // What comes from before a re-assignment, or from behind a record that waits for its schema.
    let current = partitions.get(&partition).is_some_and(|reading| {
        offset >= reading.position && reading.retry.is_none_or(|(at, _)| at == Millis::MAX)
    });
    if !current {
        return Step::Skip;
    }
    let raw = raw(message);
    match codec::decode_record(&raw, parts.pool.as_deref(), &*parts.schemas) {
        Ok(content) => {
            let mut record = Record {
                offset,
                raw: Arc::new(raw),
                content,
            };
            if let Some(spans) = &parts.spans {
                spans.received(&mut record, (parts.now)());
            }
            Step::Record(partition, record)
        }
        Err(fault) => Step::Wait(partition, offset, fault.to_string()),
    }
}

fn raw(message: &BorrowedMessage<'_>) -> RawRecord {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect()
    });
    RawRecord {
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
        timestamp: message.timestamp().to_millis().unwrap_or(0),
    }
}
