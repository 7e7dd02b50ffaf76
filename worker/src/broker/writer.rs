//! The transactional writer: commits one [`Transaction`] at a time, and finds out what became of
//! one whose answer was lost.
//!
//! Every answer is one of three: committed, surely aborted, unknown. Anything that might have
//! reached the transaction coordinator and was not clearly answered is *unknown* (rule 5).

use super::group_metadata::{self, GroupMetadata, SendOffsetsError};
use super::ledger_reader::LedgerReader;
use super::member::Member;
use super::{BrokerError, Topics};
use crate::codec::Codec;
use crate::engine::ledger::{LedgerKind, MARK_KEY, SLOT_KEY};
use crate::engine::record::RawRecord;
use crate::engine::transaction::{
    AbortReason, Decision, PartitionCommit, Resolution, ResultRecord, Transaction, TxOutcome,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::util::Timeout;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// `transaction.timeout.ms`: a crash inside a transaction pins readers no longer (rule 6).
pub const TRANSACTION_TIMEOUT_MS: u32 = 10_000;
/// How long delivery of a transaction's records may take before its outcome counts as unknown.
/// Below the transaction timeout: the coordinator must not abort while we still wait.
const DELIVERY_MAX: Duration = Duration::from_secs(9);
/// How long one try to send offsets may take.
const SEND_OFFSETS_MS: i32 = 5_000;
/// `batch.size` to begin with: librdkafka's default, just below Kafka's default limit of a record.
const BATCH_BYTES: usize = 1_000_000;
/// `batch.size` is never made smaller: a single record of this size must fit any topic.
const BATCH_BYTES_MIN: usize = 4_096;
/// Pause between two looks for delivery reports. `BaseProducer::poll` would spin through any time it
/// is given (librdkafka waits whole milliseconds, and the wrapper asks again until time is up).
const PAUSE: Duration = Duration::from_micros(250);
/// How long the cluster may take to hand out a producer id; it waits for an old transaction to end.
const INIT_MAX: Duration = Duration::from_secs(30);

/// What the producer saw besides its answers.
#[derive(Debug, Default)]
pub struct Seen {
    connection_broke: AtomicBool,
    reports: Mutex<Reports>,
}

#[derive(Debug, Default)]
struct Reports {
    offsets: Vec<(usize, i64)>,
    failed: Option<KafkaError>,
    /// The largest record that was refused for its size, or stood in a batch that was.
    too_large: Option<TooLarge>,
}

#[derive(Debug, Clone, Copy)]
struct TooLarge {
    bytes: usize,
    number: usize,
    code: RDKafkaErrorCode,
}

struct WriterContext(Arc<Seen>);

impl ClientContext for WriterContext {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        // decisions.md, "Broken connection since begin": with `log.connection.close=true` a broken
        // connection shows here and nowhere else. The log queue keeps its order with the answers.
        if facility == "FAIL" {
            self.0.connection_broke.store(true, Ordering::Release);
        }
        super::log_librdkafka("writer", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "writer reports");
    }
}

impl ProducerContext for WriterContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let mut reports = self
            .0
            .reports
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(message) => {
                if number & DONE_TAG != 0 {
                    reports.offsets.push((number & !DONE_TAG, message.offset()));
                }
            }
            Err((KafkaError::MessageProduction(code), message)) if is_too_large(*code) => {
                let bytes = message.payload_len();
                if reports.too_large.is_none_or(|known| known.bytes < bytes) {
                    reports.too_large = Some(TooLarge {
                        bytes,
                        number,
                        code: *code,
                    });
                }
            }
            Err((error, _)) => {
                reports.failed.get_or_insert_with(|| error.clone());
            }
        }
    }
}

/// Marks the delivery reports of DONE records, whose ledger offsets the index needs.
const DONE_TAG: usize = 1 << (usize::BITS - 1);

/// Writes transactions under one `transactional.id`.
pub struct Writer {
    config: ClientConfig,
    topics: Arc<Topics>,
    codec: Arc<Codec>,
    seen: Arc<Seen>,
    producer: Option<BaseProducer<WriterContext>>,
    must_renew: bool,
    /// `batch.size`: shrinks when a topic takes less than librdkafka's default.
    batch_bytes: usize,
}

impl Writer {
    /// A writer that opens its producer with the first transaction, or by [`Writer::open`].
    #[must_use]
    pub fn new(
        connection: &ClientConfig,
        transactional_id: &str,
        topics: Arc<Topics>,
        codec: Arc<Codec>,
    ) -> Self {
        let mut config = connection.clone();
        config
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS.to_string())
            // librdkafka demands message.timeout.ms ≤ transaction.timeout.ms.
            .set("message.timeout.ms", TRANSACTION_TIMEOUT_MS.to_string())
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Ecosystem.md: the default backoff of 100 ms delays every first AddPartitions.
            .set("retry.backoff.ms", "1")
            .set("retry.backoff.max.ms", "10")
            .set("linger.ms", "1")
            .set("batch.num.messages", "10000")
            .set("queue.buffering.max.messages", "200000")
            .set("log.connection.close", "true")
            .set_log_level(rdkafka::config::RDKafkaLogLevel::Info);
        Self {
            config,
            topics,
            codec,
            seen: Arc::new(Seen::default()),
            producer: None,
            must_renew: false,
            batch_bytes: BATCH_BYTES,
        }
    }

    /// Gets a producer id; fences whatever the id's earlier holder has in flight.
    ///
    /// # Errors
    /// When the cluster gives none within [`INIT_MAX`].
    pub fn open(&mut self) -> Result<(), BrokerError> {
        if self.producer.is_some() && !self.must_renew {
            return Ok(());
        }
        self.producer = None;
        self.seen = Arc::new(Seen::default());
        let producer: BaseProducer<WriterContext> = self
            .config
            .clone()
            .set("batch.size", self.batch_bytes.to_string())
            .create_with_context(WriterContext(self.seen.clone()))
            .map_err(|source| BrokerError::of("create the transactional producer", source))?;
        // Without metadata the search for the coordinator loses half a second (ecosystem.md).
        producer
            .client()
            .fetch_metadata(Some(&self.topics.results), Duration::from_secs(5))
            .map_err(|source| BrokerError::of("fetch metadata for the writer", source))?;
        producer
            .init_transactions(INIT_MAX)
            .map_err(|source| BrokerError::of("initialise transactions", source))?;
        self.producer = Some(producer);
        self.must_renew = false;
        Ok(())
    }

    /// Commits one transaction (engine.md, "Commit", steps 1 to 5).
    pub fn commit(&mut self, tx: &Transaction, member: &Member) -> TxOutcome {
        if let Err(error) = self.open() {
            return TxOutcome::Aborted(AbortReason::Other(error.to_string()));
        }
        let wanted = tx
            .partitions
            .iter()
            .map(|part| (part.partition, part.epoch));
        let metadata = match member.metadata_for(wanted) {
            Ok(metadata) => metadata,
            Err(refused) => return TxOutcome::Aborted(refused),
        };
        let outcome = self.commit_under(tx, &metadata);
        if matches!(outcome, TxOutcome::Unknown { .. }) {
            self.must_renew = true;
        }
        outcome
    }

    /// Commits under metadata that was taken with the ownership of all its partitions.
    pub fn commit_under(&mut self, tx: &Transaction, metadata: &GroupMetadata) -> TxOutcome {
        let Some(producer) = self.producer.as_ref() else {
            return TxOutcome::Aborted(AbortReason::Other("the producer is not open".to_owned()));
        };
        // Logs of connections that broke while idle must not count against this transaction.
        producer.poll(Duration::ZERO);
        self.seen.connection_broke.store(false, Ordering::Release);
        *self.reports() = Reports::default();
        if let Err(error) = producer.begin_transaction() {
            // Nothing was sent, but this producer can begin nothing any more.
            self.must_renew = true;
            return TxOutcome::Aborted(AbortReason::Other(error.to_string()));
        }
        let mut produced = Produced::default();
        let sent = self
            .produce_all(producer, tx, &mut produced)
            .and_then(|()| self.drain(producer, &produced))
            .and_then(|()| self.send_offsets(producer, tx, metadata));
        let trouble = match sent {
            Ok(()) => None,
            Err(Trouble::SmallerBatches(message)) => {
                let smaller = (self.batch_bytes / 4).max(BATCH_BYTES_MIN);
                let outcome = self.abort(producer, Trouble::Abort(AbortReason::Other(message)));
                self.batch_bytes = smaller;
                self.must_renew = true;
                return outcome;
            }
            Err(trouble) => Some(trouble),
        };
        if let Some(trouble) = trouble {
            return self.abort(producer, trouble);
        }
        match producer.commit_transaction(Timeout::Never) {
            Ok(()) => {
                producer.poll(Duration::ZERO);
                if self.seen.connection_broke.load(Ordering::Acquire) {
                    // Rule 5b: librdkafka may have sent EndTxn twice, and the first copy would end
                    // the next transaction.
                    tracing::info!(
                        id = tx.id,
                        "a connection broke during a transaction that was committed; renewing the producer"
                    );
                    self.must_renew = true;
                }
                TxOutcome::Committed {
                    ledger_offsets: self.ledger_offsets(&produced),
                }
            }
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => self.abort(
                producer,
                Trouble::Abort(AbortReason::Other(error.to_string())),
            ),
            Err(error) => TxOutcome::Unknown {
                reason: format!("commit: {error}"),
            },
        }
    }

    fn reports(&self) -> std::sync::MutexGuard<'_, Reports> {
        self.seen
            .reports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn abort(&self, producer: &BaseProducer<WriterContext>, trouble: Trouble) -> TxOutcome {
        let reason = match trouble {
            Trouble::Unknown(reason) => return TxOutcome::Unknown { reason },
            Trouble::Abort(reason) => reason,
            Trouble::SmallerBatches(message) => AbortReason::Other(message),
        };
        // Undelivered reports make abort fail (ecosystem.md).
        producer.poll(Duration::ZERO);
        match producer.abort_transaction(Timeout::Never) {
            Ok(()) => TxOutcome::Aborted(reason),
            Err(error) => TxOutcome::Unknown {
                reason: format!("abort after {reason:?}: {error}"),
            },
        }
    }

    fn produce_all(
        &self,
        producer: &BaseProducer<WriterContext>,
        tx: &Transaction,
        produced: &mut Produced,
    ) -> Result<(), Trouble> {
        for part in &tx.partitions {
            self.produce_ledger(producer, part, produced)?;
            for (_, decision) in part.decisions.iter() {
                self.produce_decision(producer, part, decision, produced)?;
            }
        }
        Ok(())
    }

    fn produce_ledger(
        &self,
        producer: &BaseProducer<WriterContext>,
        part: &PartitionCommit,
        produced: &mut Produced,
    ) -> Result<(), Trouble> {
        produced.done_starts.push(produced.done);
        let to = Destination {
            topic: &self.topics.ledger,
            partition: part.partition,
        };
        for (key, done) in &part.done {
            let value = self.codec.encode_done(done);
            let number = produced.done | DONE_TAG;
            produced.done += 1;
            let headers = Codec::ledger_headers(LedgerKind::Done);
            self.produce(producer, to, Some(key), Some(&value), Some(headers), number)?;
        }
        if let Some(slot) = &part.slot {
            let value = self.codec.encode_slot(slot);
            let headers = Codec::ledger_headers(LedgerKind::Slot);
            self.produce(producer, to, Some(SLOT_KEY), Some(&value), Some(headers), 0)?;
        }
        Ok(())
    }

    fn produce_decision(
        &self,
        producer: &BaseProducer<WriterContext>,
        part: &PartitionCommit,
        decision: &Decision,
        produced: &mut Produced,
    ) -> Result<(), Trouble> {
        match decision {
            Decision::Drop => Ok(()),
            Decision::Answer(result) => {
                self.produce_result(producer, part.partition, result, produced)
            }
            Decision::DeadLetter(letter) => {
                let raw = self
                    .codec
                    .dead_letter(letter, &self.topics.jobs, part.partition);
                self.produce_raw(producer, &self.topics.dead_letters, part.partition, &raw)
            }
            Decision::Reject(letter, result) => {
                let raw = self
                    .codec
                    .dead_letter(letter, &self.topics.jobs, part.partition);
                self.produce_raw(producer, &self.topics.dead_letters, part.partition, &raw)?;
                self.produce_result(producer, part.partition, result, produced)
            }
            Decision::Forward(to, raw) => self.produce_raw(producer, &self.topics.jobs, *to, raw),
        }
    }

    fn produce_result(
        &self,
        producer: &BaseProducer<WriterContext>,
        partition: u32,
        result: &ResultRecord,
        produced: &mut Produced,
    ) -> Result<(), Trouble> {
        let encoded = self.codec.encode_result(result, partition);
        produced.results.push(result.job_id().clone());
        let number = produced.results.len();
        let to = Destination {
            topic: &self.topics.results,
            partition,
        };
        let key = result.job_id().as_bytes();
        let headers = owned(&encoded.headers);
        self.produce(
            producer,
            to,
            Some(key),
            Some(&encoded.value),
            Some(headers),
            number,
        )
        .map_err(|trouble| name_too_large(trouble, result.job_id()))
    }

    fn produce_raw(
        &self,
        producer: &BaseProducer<WriterContext>,
        topic: &str,
        partition: u32,
        raw: &RawRecord,
    ) -> Result<(), Trouble> {
        let to = Destination {
            topic,
            partition: if topic == self.topics.dead_letters {
                partition % self.topics.slots
            } else {
                partition
            },
        };
        let headers = owned(&raw.headers);
        self.produce(
            producer,
            to,
            raw.key.as_deref(),
            raw.value.as_deref(),
            Some(headers),
            0,
        )
    }

    fn produce(
        &self,
        producer: &BaseProducer<WriterContext>,
        to: Destination<'_>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Option<OwnedHeaders>,
        number: usize,
    ) -> Result<(), Trouble> {
        let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(to.topic, number)
            .partition(i32::try_from(to.partition).unwrap_or(i32::MAX));
        record.key = key;
        record.payload = value;
        record.headers = headers;
        let mut waited = Duration::ZERO;
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    if waited > DELIVERY_MAX {
                        return Err(Trouble::Abort(AbortReason::Other(
                            "the producer's queue stays full".to_owned(),
                        )));
                    }
                    record = back;
                    look_for_reports(producer);
                    waited += PAUSE;
                }
                Err((KafkaError::MessageProduction(code), _)) if is_too_large(code) => {
                    return Err(Trouble::Abort(AbortReason::TooLarge {
                        job_id: Arc::from(""),
                        message: code.to_string(),
                    }));
                }
                Err((error, _)) => return Err(self.classify_delivery(producer, &error)),
            }
        }
    }

    /// Waits for all delivery reports with short polls (ecosystem.md: the flush inside
    /// `commit_transaction` waits 100 ms at a time).
    fn drain(
        &self,
        producer: &BaseProducer<WriterContext>,
        produced: &Produced,
    ) -> Result<(), Trouble> {
        let mut waited = Duration::ZERO;
        while producer.in_flight_count() > 0 {
            look_for_reports(producer);
            waited += PAUSE;
            if waited > DELIVERY_MAX {
                return Err(Trouble::Unknown("delivery took too long".to_owned()));
            }
        }
        let (failed, too_large) = {
            let reports = self.reports();
            (reports.failed.clone(), reports.too_large)
        };
        match (failed, too_large) {
            (None, None) => Ok(()),
            (_, Some(refused)) => Err(self.refused_for_size(refused, produced)),
            (Some(error), None) => Err(self.classify_delivery(producer, &error)),
        }
    }

    /// A batch is refused as a whole: the largest record in it is the one to blame, unless even that
    /// one is small; then batches are too large for this topic.
    fn refused_for_size(&self, refused: TooLarge, produced: &Produced) -> Trouble {
        let result = refused
            .number
            .checked_sub(1)
            .and_then(|place| produced.results.get(place));
        match result {
            Some(job_id) if refused.bytes >= self.batch_bytes / 4 => {
                Trouble::Abort(AbortReason::TooLarge {
                    job_id: job_id.clone(),
                    message: format!("{}, {} bytes", refused.code, refused.bytes),
                })
            }
            _ => Trouble::SmallerBatches(refused.code.to_string()),
        }
    }

    /// A record that was not delivered: the transaction can be aborted unless the producer is dead.
    fn classify_delivery(
        &self,
        producer: &BaseProducer<WriterContext>,
        error: &KafkaError,
    ) -> Trouble {
        if let Some((code, message)) = producer.client().fatal_error() {
            return Trouble::Unknown(format!("{code}: {message}"));
        }
        Trouble::Abort(AbortReason::Other(error.to_string()))
    }

    fn send_offsets(
        &self,
        producer: &BaseProducer<WriterContext>,
        tx: &Transaction,
        metadata: &GroupMetadata,
    ) -> Result<(), Trouble> {
        let mut offsets = TopicPartitionList::with_capacity(tx.partitions.len());
        for part in &tx.partitions {
            let partition = i32::try_from(part.partition).unwrap_or(i32::MAX);
            offsets
                .add_partition_offset(
                    &self.topics.jobs,
                    partition,
                    Offset::Offset(part.next_offset),
                )
                .map_err(|error| Trouble::Abort(AbortReason::Other(error.to_string())))?;
        }
        group_metadata::send_offsets(producer, &offsets, metadata, SEND_OFFSETS_MS)
            .map_err(classify_send_offsets)
    }

    fn ledger_offsets(&self, produced: &Produced) -> Vec<Vec<i64>> {
        let mut flat = vec![-1; produced.done];
        for (number, offset) in &self.reports().offsets {
            if let Some(place) = flat.get_mut(*number) {
                *place = *offset;
            }
        }
        let ends = produced.done_starts.iter().skip(1).copied();
        produced
            .done_starts
            .iter()
            .zip(ends.chain([produced.done]))
            .map(|(start, end)| flat.get(*start..end).unwrap_or_default().to_vec())
            .collect()
    }

    /// Finds out what became of a transaction (engine.md, "Commit", steps 6 and 7): renews the
    /// producer, which resolves it, then reads back. `is_owned` lets go of partitions lost since.
    ///
    /// # Errors
    /// When the cluster cannot be reached; the caller tries again.
    pub fn resolve(
        &mut self,
        tx: &Transaction,
        reader: &LedgerReader,
        is_owned: impl Fn(&PartitionCommit) -> bool,
    ) -> Result<Vec<Resolution>, BrokerError> {
        self.must_renew = true;
        self.open()?;
        let mut resolutions = Vec::new();
        for part in &tx.partitions {
            if is_owned(part) {
                resolutions.push(reader.read_back(part)?);
            }
        }
        Ok(resolutions)
    }

    /// Whether the next transaction has to renew the producer first (for tests and metrics).
    #[must_use]
    pub fn must_renew(&self) -> bool {
        self.must_renew
    }
}

/// Serves the delivery reports that are there, then lets others work for a moment.
fn look_for_reports(producer: &BaseProducer<WriterContext>) {
    producer.poll(Duration::ZERO);
    std::thread::sleep(PAUSE);
}

#[derive(Debug, Clone, Copy)]
struct Destination<'a> {
    topic: &'a str,
    partition: u32,
}

/// What one transaction has handed to the producer.
#[derive(Debug, Default)]
struct Produced {
    /// DONE records so far, and where each partition's begin.
    done: usize,
    done_starts: Vec<usize>,
    /// Job ids of results so far; the delivery number of a result is its place plus one.
    results: Vec<Arc<str>>,
}

#[derive(Debug)]
enum Trouble {
    Abort(AbortReason),
    /// Abort, and go on with smaller batches.
    SmallerBatches(String),
    Unknown(String),
}

fn is_too_large(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge
    )
}

fn name_too_large(trouble: Trouble, name: &Arc<str>) -> Trouble {
    match trouble {
        Trouble::Abort(AbortReason::TooLarge { message, .. }) => {
            Trouble::Abort(AbortReason::TooLarge {
                job_id: name.clone(),
                message,
            })
        }
        other => other,
    }
}

/// Rule 4: a stale member is told so and goes on; anything unclear is unknown.
fn classify_send_offsets(error: SendOffsetsError) -> Trouble {
    let stale = matches!(
        error.code,
        RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::FencedInstanceId
            | RDKafkaErrorCode::RebalanceInProgress
    );
    if error.fatal {
        Trouble::Unknown(error.to_string())
    } else if stale {
        Trouble::Abort(AbortReason::Fenced(error.to_string()))
    } else if error.abortable {
        Trouble::Abort(AbortReason::Other(error.to_string()))
    } else {
        Trouble::Unknown(error.to_string())
    }
}

fn owned(headers: &[(String, Option<Vec<u8>>)]) -> OwnedHeaders {
    let mut owned = OwnedHeaders::new_with_capacity(headers.len());
    for (key, value) in headers {
        owned = owned.insert(Header {
            key,
            value: value.as_deref(),
        });
    }
    owned
}

/// Record key of a MARK, for the plain producer beside this one.
pub const MARK_RECORD_KEY: &[u8] = MARK_KEY;
