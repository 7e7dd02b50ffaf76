//! Reads ledgers: to restore a slot, to look answers up, to find out what became of a transaction.
//!
//! The order inside [`LedgerReader::restore`] is the one the model shows necessary (engine.md,
//! "Restore"): the committed offset *stably*, then the high watermark *read uncommitted*, then
//! everything up to it *read committed*.

use super::writer::TRANSACTION_TIMEOUT_MS;
use super::{BrokerError, Topics};
use crate::codec;
use crate::engine::Restored;
use crate::engine::events::LedgerAnswer;
use crate::engine::index::{HashSeed, KeyHash};
use crate::engine::ledger::{LedgerKind, MARK_KEY, Restoration, SLOT_KEY};
use crate::engine::transaction::{Epoch, PartitionCommit, Resolution};
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
const HANG: Duration = Duration::from_millis(500);
/// A request that no transaction holds up is answered within this.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// Deadline of one restore or read-back without progress.
const STALLED_MAX: Duration = Duration::from_secs(30);
/// Pause between two looks at the last stable offset.
const STABLE_POLL: Duration = Duration::from_millis(5);
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
        let is_slot = partition < self.topics.slots;
        let committed = self.stable_offset(partition, is_slot, is_ours)?;
        let (log_start, _) = watermarks(&self.uncommitted, &self.topics.jobs, partition)?;
        let mut restoration = Restoration::default();
        if is_slot {
            let (_, high) = watermarks(&self.uncommitted, &self.topics.ledger, partition)?;
            self.wait_stable(partition, high, is_ours)?;
            self.read_ledger(partition, 0, is_ours, &mut |message| {
                feed(&mut restoration, self.seed, message)
            })?;
        }
        self.finish_restore(partition, epoch, committed, log_start, restoration)
    }

    fn finish_restore(
        &self,
        partition: u32,
        epoch: Epoch,
        committed: Option<i64>,
        log_start: i64,
        restoration: Restoration,
    ) -> Result<Restored, RestoreError> {
        let slot = restoration
            .slot()
            .map(codec::decode_slot)
            .transpose()
            .map_err(|reason| {
                RestoreError::Final(format!(
                    "the slot entry of the ledger cannot be read: {reason}"
                ))
            })?;
        if let Some(slot) = &slot
            && slot.partition_count != self.topics.slots
        {
            return Err(RestoreError::Final(format!(
                "the ledger was written with {} partitions and has {} now: keys would move to other slots; restore the old count or start with a new prefix",
                slot.partition_count, self.topics.slots
            )));
        }
        if restoration.open() > 0 {
            return Err(RestoreError::Final(format!(
                "the ledger holds {} open jobs, written by a newer version: run that version",
                restoration.open()
            )));
        }
        let done_until = committed
            .unwrap_or(0)
            .max(slot.as_ref().map_or(0, |slot| slot.next_offset));
        let known = committed.is_some() || slot.is_some();
        if known && done_until < log_start {
            return Err(RestoreError::Final(format!(
                "the committed offset {done_until} lies before the log's start {log_start}: records were deleted unread; see \"lost records\" in the operations guide, then reset the group's offset on purpose"
            )));
        }
        let (index, rejected) = restoration.into_index();
        Ok(Restored {
            partition,
            epoch,
            committed,
            log_start,
            slot,
            index,
            rejected,
        })
    }

    /// Step 2: the group's committed offset, once no transaction is about to change it.
    fn stable_offset(
        &self,
        partition: u32,
        is_slot: bool,
        is_ours: &dyn Fn() -> bool,
    ) -> Result<Option<i64>, RestoreError> {
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition(&self.topics.jobs, number(partition));
        let mut waited = Duration::ZERO;
        loop {
            if !is_ours() {
                return Err(RestoreError::Cancelled);
            }
            // A read_committed consumer asks for stable offsets only, and retries while they are
            // pending until its time is up.
            match self.committed.committed_offsets(wanted.clone(), HANG) {
                Ok(list) => {
                    let found = list
                        .find_partition(&self.topics.jobs, number(partition))
                        .map(|element| element.offset());
                    return Ok(match found {
                        Some(Offset::Offset(offset)) => Some(offset),
                        _ => None,
                    });
                }
                Err(source) => {
                    let error = BrokerError::of("fetch the committed offset", source);
                    waited += HANG;
                    if waited > STALLED_MAX || !(error.is_timeout() || is_unstable(&error.source)) {
                        return Err(error.into());
                    }
                    if is_slot {
                        self.fence_writers_of(partition, is_ours)?;
                    }
                }
            }
        }
    }

    /// Waits until nothing below `high` is undecided.
    fn wait_stable(
        &self,
        partition: u32,
        high: i64,
        is_ours: &dyn Fn() -> bool,
    ) -> Result<(), RestoreError> {
        let mut waited = Duration::ZERO;
        let mut fenced = false;
        loop {
            let (_, stable) = watermarks(&self.committed, &self.topics.ledger, partition)?;
            if stable >= high {
                return Ok(());
            }
            if !is_ours() {
                return Err(RestoreError::Cancelled);
            }
            if waited >= HANG && !fenced {
                fenced = true;
                self.fence_writers_of(partition, is_ours)?;
            }
            if waited > STALLED_MAX {
                return Err(RestoreError::Broker(BrokerError::of(
                    "wait for the ledger's last stable offset",
                    KafkaError::Global(RDKafkaErrorCode::OperationTimedOut),
                )));
            }
            std::thread::sleep(STABLE_POLL);
            waited += STABLE_POLL;
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
                if key == SLOT_KEY {
                    writers.extend(
                        codec::decode_slot(value)
                            .ok()
                            .map(|slot| slot.writer.to_string()),
                    );
                } else if key == MARK_KEY {
                    writers.extend(
                        codec::decode_mark(value)
                            .ok()
                            .map(|mark| mark.transactional_id.to_string()),
                    );
                }
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
        producer
            .init_transactions(REQUEST_MAX)
            .map_err(|source| BrokerError::of("fence an earlier writer", source))
    }

    fn read_ledger(
        &self,
        partition: u32,
        from: i64,
        is_ours: &dyn Fn() -> bool,
        take: &mut dyn FnMut(&BorrowedMessage<'_>) -> Result<(), String>,
    ) -> Result<(), RestoreError> {
        read_all(
            &self.committed,
            &self.topics.ledger,
            partition,
            from,
            is_ours,
            take,
        )
    }

    /// Step 7 of commit: what stands in the ledger and in the group after the old transaction was
    /// resolved.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub fn read_back(&self, part: &PartitionCommit) -> Result<Resolution, BrokerError> {
        let partition = part.partition;
        let always = || true;
        let in_words = |error: RestoreError| match error {
            RestoreError::Broker(error) => error,
            RestoreError::Final(_) | RestoreError::Cancelled => BrokerError::of(
                "read a transaction back",
                KafkaError::Global(RDKafkaErrorCode::Fail),
            ),
        };
        let mut slot = None;
        let mut done = Vec::new();
        if part.slot.is_some() {
            let (_, high) = watermarks(&self.uncommitted, &self.topics.ledger, partition)?;
            self.wait_stable(partition, high, &always)
                .map_err(in_words)?;
            let wanted: BTreeSet<&[u8]> = part.done.iter().map(|(key, _)| &**key).collect();
            self.read_ledger(partition, 0, &always, &mut |message| {
                let key = message.key().unwrap_or_default();
                if key == SLOT_KEY {
                    slot = message.payload().map(<[u8]>::to_vec);
                } else if wanted.contains(key) {
                    done.push((
                        Arc::<[u8]>::from(key),
                        message.offset(),
                        message.payload().map(<[u8]>::to_vec),
                    ));
                }
                Ok(())
            })
            .map_err(in_words)?;
        }
        let committed = self
            .stable_offset(partition, part.slot.is_some(), &always)
            .map_err(in_words)?;
        // Only this transaction's own answers count: an earlier DONE of the key says less.
        let done = done
            .into_iter()
            .filter(|(key, _, value)| {
                let written = part.done.iter().find(|(wanted, _)| wanted == key);
                let found = value
                    .as_deref()
                    .and_then(|value| codec::decode_done(value).ok());
                written.is_some_and(|(_, done)| found.as_ref() == Some(&**done))
            })
            .map(|(key, offset, _)| (key, offset))
            .collect();
        Ok(Resolution {
            partition,
            committed,
            slot: slot.and_then(|value| codec::decode_slot(&value).ok()),
            done,
        })
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
                Some(Err(source)) => return Err(BrokerError::of("look answers up", source)),
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
    let key = message.key().unwrap_or_default();
    let kind = match key {
        SLOT_KEY => LedgerKind::Slot,
        MARK_KEY => LedgerKind::Mark,
        _ => kind_in_header(message).ok_or_else(|| {
            format!(
                "ledger record at offset {} has no {} header: something else writes to the ledger",
                message.offset(),
                headers::LEDGER_KIND
            )
        })?,
    };
    restoration.feed(seed, message.offset(), key, kind, message.payload());
    Ok(())
}

fn kind_in_header(message: &BorrowedMessage<'_>) -> Option<LedgerKind> {
    let headers = message.headers()?;
    headers
        .iter()
        .find(|header| header.key == headers::LEDGER_KIND)
        .and_then(|header| codec::kind_of(header.value?))
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
        .map_err(|source| BrokerError::of("fetch watermarks", source))
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
    let result = read_assigned(consumer, partition, is_ours, take);
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
