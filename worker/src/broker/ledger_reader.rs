//! Reads ledgers: to restore a slot, to look answers up, to find out what became of a transaction.
//!
//! The order of calls stands in `engine/read_steps.rs`: the one the model shows necessary (engine.md,
//! "Restore"): the committed offset *stably*, then the high watermark *read uncommitted*, then
//! everything up to it *read committed*.

use super::writer::TRANSACTION_TIMEOUT_MS;
use super::{BrokerError, Topics, permissions};
use crate::codec;
use crate::engine::Restored;
use crate::engine::events::LedgerAnswer;
use crate::engine::index::{HashSeed, KeyHash};
use crate::engine::ledger::Restoration;
use crate::engine::read_steps::{
    HANG_MS, Read, ReadStep, ReadSteps, STABLE_POLL_MS, STALLED_MAX_MS,
};
use crate::engine::transaction::{Epoch, PartitionCommit, Resolution};
use crate::ledger_fold::{self, ReadBack};
use guestkit_kafka::acls::{Operation, Permission};
use guestkit_protocol::headers;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Step 4 of restore: what hangs this long waits for a dead writer's transaction.
const HANG: Duration = Duration::from_millis(HANG_MS as u64);
/// A request that no transaction holds up is answered within this.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// Deadline of one restore or read-back without progress.
const STALLED_MAX: Duration = Duration::from_millis(STALLED_MAX_MS as u64);
/// Pause between two looks at the last stable offset.
const STABLE_POLL: Duration = Duration::from_millis(STABLE_POLL_MS as u64);
/// Further apart than this, two look-ups are two fetches.
const LOOKUP_RUN: i64 = 2_000;
/// One poll for records.
const POLL: Duration = Duration::from_millis(50);

/// Why a restore gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The cluster did not play along; another try may.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Another try would find the same: the slot must not run.
    #[error("{0}")]
    Final(String),
    /// The partition is no longer ours.
    #[error("the partition was taken away")]
    Cancelled,
}

struct ReaderContext;

impl ClientContext for ReaderContext {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        super::log_librdkafka("ledger reader", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "ledger reader reports");
    }
}

impl ConsumerContext for ReaderContext {}

type LedgerConsumer = BaseConsumer<ReaderContext>;

/// Reads the ledgers of one pool. Each thread has one of its own.
pub struct LedgerReader {
    connection: ClientConfig,
    topics: Arc<Topics>,
    seed: HashSeed,
    own_transactional_id: Arc<str>,
    committed: LedgerConsumer,
    uncommitted: LedgerConsumer,
    /// Writers fenced so far: each is fenced once.
    fenced: Mutex<BTreeSet<String>>,
}

impl LedgerReader {
    /// Opens a reader; `connection` holds the worker's `group.id`, whose offsets it looks at.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(
        connection: &ClientConfig,
        topics: Arc<Topics>,
        seed: HashSeed,
        own_transactional_id: Arc<str>,
    ) -> Result<Self, BrokerError> {
        let consumer = |isolation: &str| {
            connection
                .clone()
                .set("enable.auto.commit", "false")
                .set("enable.auto.offset.store", "false")
                .set("auto.offset.reset", "error")
                .set("enable.partition.eof", "true")
                .set("isolation.level", isolation)
                .set("fetch.wait.max.ms", "10")
                .set("fetch.error.backoff.ms", "20")
                .set("queued.max.messages.kbytes", "32768")
                .set("queued.min.messages", "100000")
                // A full queue is asked again soon: the default of a second caps a restore at
                // 150,000 keys a second.
                .set("fetch.queue.backoff.ms", "2")
                .create_with_context::<_, LedgerConsumer>(ReaderContext)
                .map_err(|source| BrokerError::of("create a ledger reader", source))
        };
        Ok(Self {
            connection: connection.clone(),
            topics,
            seed,
            own_transactional_id,
            committed: consumer("read_committed")?,
            uncommitted: consumer("read_uncommitted")?,
            fenced: Mutex::new(BTreeSet::new()),
        })
    }

    /// Reads everything a partition's new owner needs.
    ///
    /// # Errors
    /// See [`RestoreError`].
    pub fn restore(
        &self,
        partition: u32,
        epoch: Epoch,
        is_ours: &dyn Fn() -> bool,
    ) -> Result<Restored, RestoreError> {
        let slots = self.topics.slots;
        let mut restoration = Restoration::default();
        let read = self.run(
            ReadSteps::restore(partition < slots),
            partition,
            is_ours,
            &mut |message| feed(&mut restoration, self.seed, message),
        )?;
        ledger_fold::restored(partition, epoch, slots, &read, restoration)
            .map_err(RestoreError::Final)
    }

    /// Makes the calls of the procedure until everything is read.
    fn run(
        &self,
        mut steps: ReadSteps,
        partition: u32,
        is_ours: &dyn Fn() -> bool,
        take: &mut dyn FnMut(&BorrowedMessage<'_>) -> Result<(), String>,
    ) -> Result<ReadSteps, RestoreError> {
        let Topics { jobs, ledger, .. } = &*self.topics;
        loop {
            if !is_ours() {
                return Err(RestoreError::Cancelled);
            }
            let read = match steps.step() {
                ReadStep::StableOffset => self.stable_offset(partition)?,
                ReadStep::LogStart => Read::At(watermarks(&self.uncommitted, jobs, partition)?.0),
                ReadStep::LedgerEnd => {
                    Read::At(watermarks(&self.uncommitted, ledger, partition)?.1)
                }
                ReadStep::LastStable => Read::At(watermarks(&self.committed, ledger, partition)?.1),
                ReadStep::Pause => {
                    std::thread::sleep(STABLE_POLL);
                    Read::Over
                }
                ReadStep::FenceWriters => {
                    self.fence_writers_of(partition, is_ours)?;
                    Read::Over
                }
                ReadStep::ReadLedger => {
                    read_all(&self.committed, ledger, partition, 0, is_ours, take)?;
                    Read::Over
                }
                ReadStep::Done => return Ok(steps),
                ReadStep::Stalled => {
                    return Err(RestoreError::Broker(BrokerError::of(
                        "wait for a transaction's end",
                        KafkaError::Global(RDKafkaErrorCode::OperationTimedOut),
                    )));
                }
            };
            steps.took(read);
        }
    }

    /// Step 2: the group's committed offset, once no transaction is about to change it.
    fn stable_offset(&self, partition: u32) -> Result<Read, RestoreError> {
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition(&self.topics.jobs, number(partition));
        // A read_committed consumer asks for stable offsets only, and retries while they are
        // pending until its time is up.
        match self.committed.committed_offsets(wanted, HANG) {
            Ok(list) => {
                let found = list
                    .find_partition(&self.topics.jobs, number(partition))
                    .map(|element| element.offset());
                Ok(Read::Offset(match found {
                    Some(Offset::Offset(offset)) => Some(offset),
                    _ => None,
                }))
            }
            Err(source) => {
                let error = BrokerError::of("fetch the committed offset", source)
                    .needing(&permissions::of_group(&self.connection, &self.topics.jobs));
                if error.is_timeout() || is_unstable(&error.source) {
                    Ok(Read::Pending)
                } else {
                    Err(error.into())
                }
            }
        }
    }

    /// Step 4: fences whoever MARK or SLOT name as writer, committed or not. A live one only renews
    /// its producer; a dead one's transaction ends here instead of by timeout.
    fn fence_writers_of(
        &self,
        partition: u32,
        is_ours: &dyn Fn() -> bool,
    ) -> Result<(), RestoreError> {
        let mut writers = BTreeSet::new();
        read_all(
            &self.uncommitted,
            &self.topics.ledger,
            partition,
            0,
            is_ours,
            &mut |message| {
                let key = message.key().unwrap_or_default();
                let value = message.payload().unwrap_or_default();
                writers.extend(ledger_fold::writer_named(key, value));
                Ok(())
            },
        )?;
        for writer in writers {
            let is_new = self
                .fenced
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(writer.clone());
            if *writer != *self.own_transactional_id && is_new {
                tracing::info!(partition, writer, "fencing the slot's earlier writer");
                self.fence(&writer)?;
            }
        }
        Ok(())
    }

    fn fence(&self, transactional_id: &str) -> Result<(), BrokerError> {
        let producer: BaseProducer = self
            .connection
            .clone()
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS.to_string())
            .set("retry.backoff.ms", "1")
            .set("retry.backoff.max.ms", "10")
            .create()
            .map_err(|source| BrokerError::of("create a producer to fence with", source))?;
        producer
            .client()
            .fetch_metadata(Some(&self.topics.ledger), REQUEST_MAX)
            .map_err(|source| BrokerError::of("fetch metadata to fence with", source))?;
        producer.init_transactions(REQUEST_MAX).map_err(|source| {
            BrokerError::of("fence an earlier writer", source)
                .needing(&[Permission::transactional_id(transactional_id)])
        })
    }

    /// Step 7 of commit: what stands in the ledger and in the group after the old transaction was
    /// resolved.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub fn read_back(&self, part: &PartitionCommit) -> Result<Resolution, BrokerError> {
        let mut back = ReadBack::of(part);
        let read = self
            .run(
                ReadSteps::read_back(part.slot.is_some()),
                part.partition,
                &|| true,
                &mut |message| {
                    let key = message.key().unwrap_or_default();
                    back.feed(message.offset(), key, message.payload());
                    Ok(())
                },
            )
            .map_err(|error| match error {
                RestoreError::Broker(error) => error,
                RestoreError::Final(_) | RestoreError::Cancelled => BrokerError::of(
                    "read a transaction back",
                    KafkaError::Global(RDKafkaErrorCode::Fail),
                ),
            })?;
        Ok(back.finish(read.committed()))
    }

    /// Reads answers back. They are committed, so that their exact offsets may be read uncommitted:
    /// the last stable offset can lag behind for a moment.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub fn look_up(
        &self,
        partition: u32,
        lookups: &[(KeyHash, i64)],
    ) -> Result<Vec<(KeyHash, Option<LedgerAnswer>)>, BrokerError> {
        let mut sorted = lookups.to_vec();
        sorted.sort_by_key(|(_, offset)| *offset);
        let mut found = Vec::with_capacity(sorted.len());
        let (start, end) = watermarks(&self.uncommitted, &self.topics.ledger, partition)?;
        let mut rest = sorted.as_slice();
        while let Some(((hash, first), tail)) = rest.split_first() {
            if *first < start || *first >= end {
                found.push((*hash, None));
                rest = tail;
                continue;
            }
            let run = rest
                .windows(2)
                .take_while(
                    |pair| matches!(pair, [(_, a), (_, b)] if b - a <= LOOKUP_RUN && *b < end),
                )
                .count()
                + 1;
            let (here, later) = rest.split_at(run);
            self.look_up_run(partition, here, end, &mut found)?;
            rest = later;
        }
        Ok(found)
    }

    fn look_up_run(
        &self,
        partition: u32,
        run: &[(KeyHash, i64)],
        end: i64,
        found: &mut Vec<(KeyHash, Option<LedgerAnswer>)>,
    ) -> Result<(), BrokerError> {
        let Some((_, first)) = run.first() else {
            return Ok(());
        };
        assign(&self.uncommitted, &self.topics.ledger, partition, *first)?;
        let mut waiting = run.iter().peekable();
        let mut idle = Duration::ZERO;
        while let Some((hash, offset)) = waiting.peek() {
            match self.uncommitted.poll(POLL) {
                Some(Ok(message)) if message.partition() == number(partition) => {
                    idle = Duration::ZERO;
                    if message.offset() < *offset {
                        continue;
                    }
                    // Beyond it: its record was compacted away or has expired.
                    while let Some((hash, _)) =
                        waiting.next_if(|(_, offset)| *offset < message.offset())
                    {
                        found.push((*hash, None));
                    }
                    if let Some((hash, _)) =
                        waiting.next_if(|(_, offset)| *offset == message.offset())
                    {
                        found.push((*hash, answer(&message)));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(at))) if at == number(partition) => {
                    let (_, now) = watermarks(&self.uncommitted, &self.topics.ledger, partition)?;
                    if now >= end {
                        found.push((*hash, None));
                        waiting.next();
                    }
                }
                Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(source)) if is_passing(&source) => idle += POLL,
                Some(Err(source)) => {
                    return Err(BrokerError::of("look answers up", source)
                        .needing(&[Permission::topic(Operation::Read, &self.topics.ledger)]));
                }
                None => {
                    idle += POLL;
                    if idle > STALLED_MAX {
                        return Err(BrokerError::of(
                            "look answers up",
                            KafkaError::Global(RDKafkaErrorCode::OperationTimedOut),
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

fn answer(message: &BorrowedMessage<'_>) -> Option<LedgerAnswer> {
    let key = message.key()?.to_vec();
    match codec::decode_done(message.payload()?) {
        Ok(done) => Some(LedgerAnswer { key, done }),
        Err(reason) => {
            tracing::error!(
                partition = message.partition(),
                offset = message.offset(),
                reason,
                "a ledger entry cannot be read"
            );
            None
        }
    }
}

fn feed(
    restoration: &mut Restoration,
    seed: HashSeed,
    message: &BorrowedMessage<'_>,
) -> Result<(), String> {
    let kind = message.headers().and_then(|headers| {
        headers
            .iter()
            .find(|header| header.key == headers::LEDGER_KIND)
            .and_then(|header| header.value)
    });
    let key = message.key().unwrap_or_default();
    ledger_fold::feed(
        restoration,
        seed,
        message.offset(),
        key,
        kind,
        message.payload(),
    )
}

fn number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

fn watermarks(
    consumer: &LedgerConsumer,
    topic: &str,
    partition: u32,
) -> Result<(i64, i64), BrokerError> {
    // The upper one is the high watermark for a read_uncommitted consumer and the last stable
    // offset for a read_committed one.
    consumer
        .fetch_watermarks(topic, number(partition), REQUEST_MAX)
        .map_err(|source| {
            BrokerError::of("fetch watermarks", source)
                .needing(&[Permission::topic(Operation::Read, topic)])
        })
}

fn assign(
    consumer: &LedgerConsumer,
    topic: &str,
    partition: u32,
    from: i64,
) -> Result<(), BrokerError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, number(partition), Offset::Offset(from))
        .and_then(|()| consumer.assign(&list))
        .map_err(|source| BrokerError::of("read a ledger", source))
}

/// Reads a partition from an offset (or its start, if that is later) to its end as it is now.
fn read_all(
    consumer: &LedgerConsumer,
    topic: &str,
    partition: u32,
    from: i64,
    is_ours: &dyn Fn() -> bool,
    take: &mut dyn FnMut(&BorrowedMessage<'_>) -> Result<(), String>,
) -> Result<(), RestoreError> {
    let (start, end) = watermarks(consumer, topic, partition)?;
    let from = from.max(start);
    if from >= end {
        return Ok(());
    }
    assign(consumer, topic, partition, from)?;
    let result = read_assigned(consumer, partition, is_ours, take).map_err(|error| match error {
        RestoreError::Broker(error) => error
            .needing(&[Permission::topic(Operation::Read, topic)])
            .into(),
        other => other,
    });
    if let Err(error) = consumer.unassign() {
        tracing::debug!(%error, "ledger reader keeps its assignment");
    }
    result
}

fn read_assigned(
    consumer: &LedgerConsumer,
    partition: u32,
    is_ours: &dyn Fn() -> bool,
    take: &mut dyn FnMut(&BorrowedMessage<'_>) -> Result<(), String>,
) -> Result<(), RestoreError> {
    let mut idle = Duration::ZERO;
    let mut records = 0_u64;
    loop {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                idle = Duration::ZERO;
                if message.partition() != number(partition) {
                    continue;
                }
                take(&message).map_err(RestoreError::Final)?;
                records += 1;
                if records.is_multiple_of(10_000) && !is_ours() {
                    return Err(RestoreError::Cancelled);
                }
            }
            Some(Err(KafkaError::PartitionEOF(at))) if at == number(partition) => return Ok(()),
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(source)) if is_passing(&source) => idle += POLL,
            Some(Err(source)) => {
                return Err(BrokerError::of("read a ledger", source).into());
            }
            None => {
                idle += POLL;
                if !is_ours() {
                    return Err(RestoreError::Cancelled);
                }
            }
        }
        if idle > STALLED_MAX {
            return Err(RestoreError::Broker(BrokerError::of(
                "read a ledger",
                KafkaError::Global(RDKafkaErrorCode::OperationTimedOut),
            )));
        }
    }
}

/// Faults that librdkafka mends by itself while one goes on polling.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::Resolve
        )
    )
}

fn is_unstable(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnstableOffsetCommit)
}
