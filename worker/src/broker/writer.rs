//! The transactional writer: commits one [`Transaction`] at a time, and finds out what became of
//! one whose answer was lost.
//!
//! Every answer is one of three: committed, surely aborted, unknown. Anything that might have
//! reached the transaction coordinator and was not clearly answered is *unknown* (rule 5).

use super::figures::{Figures, REPORT_MS};
use super::group_metadata::{self, GroupMetadata, SendOffsetsError};
use super::ledger_reader::LedgerReader;
use super::member::Member;
use super::{BrokerError, Topics, permissions};
use crate::codec::Codec;
use crate::engine::ledger::MARK_KEY;
use crate::engine::transaction::{
    AbortReason, PartitionCommit, Resolution, Transaction, TxOutcome,
};
use crate::engine::write_steps::{Renewal, WriteFault, WriteStep, WriteSteps};
use crate::transaction_records::{self, Output, Place, Written};
use guestkit_kafka::acls::{Operation, Permission};
use guestkit_kafka::missing;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
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
    /// A permission that was missing since the last error was put into words.
    denied: Mutex<Option<Permission>>,
}

impl Seen {
    /// Notes and reports that an authorizer said no.
    fn deny(&self, permission: Permission) {
        permissions::report(&permission);
        *self.denied.lock().unwrap_or_else(PoisonError::into_inner) = Some(permission);
    }

    /// What an error means, in words: a permission that is missing says more than the rest.
    fn words(&self, error: &KafkaError) -> String {
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        denied
            .take()
            .map_or_else(|| error.to_string(), |permission| permission.to_string())
    }
}

fn missing_in<'a>(error: &KafkaError, needs: &'a [Permission]) -> Option<&'a Permission> {
    missing(error.rdkafka_error_code()?, needs)
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

struct WriterContext {
    seen: Arc<Seen>,
    figures: Arc<Figures>,
}

impl ClientContext for WriterContext {
    fn stats(&self, statistics: rdkafka::Statistics) {
        self.figures.take(&statistics);
    }

    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        // decisions.md, "Broken connection since begin": with `log.connection.close=true` a broken
        // connection shows here and nowhere else. The log queue keeps its order with the answers.
        if facility == "FAIL" {
            self.seen.connection_broke.store(true, Ordering::Release);
        }
        if facility == "ADDPARTS"
            && let Some(permission) = permissions::in_log_line(message)
        {
            self.seen.deny(permission);
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
            .seen
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
            Err((error, message)) => {
                reports.failed.get_or_insert_with(|| error.clone());
                drop(reports);
                let needs = [Permission::topic(Operation::Write, message.topic())];
                if let Some(permission) = missing_in(error, &needs) {
                    self.seen.deny(permission.clone());
                }
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
    figures: Arc<Figures>,
    producer: Option<BaseProducer<WriterContext>>,
    renewal: Renewal,
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
            .set("statistics.interval.ms", REPORT_MS)
            .set_log_level(rdkafka::config::RDKafkaLogLevel::Info);
        Self {
            config,
            topics,
            codec,
            seen: Arc::new(Seen::default()),
            figures: Arc::default(),
            producer: None,
            renewal: Renewal::default(),
            batch_bytes: BATCH_BYTES,
        }
    }

    /// Gets a producer id; fences whatever the id's earlier holder has in flight.
    ///
    /// # Errors
    /// When the cluster gives none within `INIT_MAX`.
    pub fn open(&mut self) -> Result<(), BrokerError> {
        if self.producer.is_some() && !self.renewal.is_due() {
            return Ok(());
        }
        self.producer = None;
        self.seen = Arc::new(Seen::default());
        let producer: BaseProducer<WriterContext> = self
            .config
            .clone()
            .set("batch.size", self.batch_bytes.to_string())
            .create_with_context(WriterContext {
                seen: self.seen.clone(),
                figures: self.figures.clone(),
            })
            .map_err(|source| BrokerError::of("create the transactional producer", source))?;
        // Without metadata the search for the coordinator loses half a second (ecosystem.md).
        producer
            .client()
            .fetch_metadata(Some(&self.topics.results), Duration::from_secs(5))
            .map_err(|source| BrokerError::of("fetch metadata for the writer", source))?;
        producer.init_transactions(INIT_MAX).map_err(|source| {
            let needs = [Permission::transactional_id(
                self.config.get("transactional.id").unwrap_or_default(),
            )];
            if let Some(permission) = missing_in(&source, &needs) {
                permissions::report(permission);
            }
            BrokerError::of("initialise transactions", source).needing(&needs)
        })?;
        self.producer = Some(producer);
        self.renewal.renewed();
        Ok(())
    }

    /// Commits one transaction (engine.md, "Commit", steps 1 to 5).
    pub fn commit(&mut self, tx: &Transaction, member: &Member) -> TxOutcome {
        let mut steps = WriteSteps::default();
        if let Err(error) = self.open() {
            steps.failed(WriteFault::Unclear(error.to_string()), &mut self.renewal);
            return self.run(steps, tx, None);
        }
        steps.worked(Vec::new);
        let wanted = tx
            .partitions
            .iter()
            .map(|part| (part.partition, part.epoch));
        match member.metadata_for(wanted) {
            Ok(metadata) => {
                steps.worked(Vec::new);
                self.run(steps, tx, Some(&metadata))
            }
            Err(refused) => {
                steps.failed(WriteFault::Abortable(refused), &mut self.renewal);
                self.run(steps, tx, None)
            }
        }
    }

    /// Commits under metadata that was taken with the ownership of all its partitions.
    pub fn commit_under(&mut self, tx: &Transaction, metadata: &GroupMetadata) -> TxOutcome {
        self.run(WriteSteps::from_begin(), tx, Some(metadata))
    }

    /// Makes the calls of the procedure until it ends.
    fn run(
        &mut self,
        mut steps: WriteSteps,
        tx: &Transaction,
        metadata: Option<&GroupMetadata>,
    ) -> TxOutcome {
        let mut produced = Produced::default();
        let mut begun = false;
        loop {
            let made = match steps.step() {
                WriteStep::Ended(outcome) => {
                    let broke = begun && self.connection_broke();
                    if broke {
                        tracing::info!(
                            id = tx.id,
                            "a connection broke during a transaction; renewing the producer"
                        );
                    }
                    self.renewal.after(outcome, broke);
                    return outcome.clone();
                }
                WriteStep::Begin => {
                    begun = true;
                    self.begin()
                }
                WriteStep::Produce => self.produce_all(tx, &mut produced),
                WriteStep::SendOffsets => self.send_offsets(tx, metadata),
                WriteStep::Commit => {
                    self.end(|producer| producer.commit_transaction(Timeout::Never))
                }
                WriteStep::Abort => self.abort(),
                // Made by the caller, or not needed.
                WriteStep::Open | WriteStep::TakeMetadata => Ok(()),
            };
            match made {
                Ok(()) => steps.worked(|| self.ledger_offsets(&produced)),
                Err(fault) => steps.failed(fault, &mut self.renewal),
            }
        }
    }

    fn open_producer(&self) -> Result<&BaseProducer<WriterContext>, WriteFault> {
        self.producer
            .as_ref()
            .ok_or_else(|| abort_for("the producer is not open"))
    }

    fn begin(&self) -> Result<(), WriteFault> {
        let producer = self.open_producer()?;
        // Logs of connections that broke while idle must not count against this transaction.
        producer.poll(Duration::ZERO);
        self.seen.connection_broke.store(false, Ordering::Release);
        *self.reports() = Reports::default();
        producer
            .begin_transaction()
            .map_err(|error| abort_for(&error.to_string()))
    }

    /// Aborts once nothing is under way. `abort_transaction` itself would wait for reports of records that
    /// it takes out of the queue, and nobody serves reports while it waits: for ever.
    fn abort(&self) -> Result<(), WriteFault> {
        let producer = self.open_producer()?;
        producer.purge(PurgeConfig::default().queue());
        let mut waited = Duration::ZERO;
        while producer.in_flight_count() > 0 {
            look_for_reports(producer);
            waited += PAUSE;
            if waited > DELIVERY_MAX {
                return Err(WriteFault::Unclear(
                    "records on their way come to no end".to_owned(),
                ));
            }
        }
        self.end(|producer| producer.abort_transaction(Timeout::Never))
    }

    fn end(
        &self,
        call: impl FnOnce(&BaseProducer<WriterContext>) -> Result<(), KafkaError>,
    ) -> Result<(), WriteFault> {
        let producer = self.open_producer()?;
        // Undelivered reports make abort fail (ecosystem.md).
        producer.poll(Duration::ZERO);
        match call(producer) {
            Ok(()) => Ok(()),
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
                Err(abort_for(&error.to_string()))
            }
            Err(error) => Err(WriteFault::Unclear(error.to_string())),
        }
    }

    fn connection_broke(&self) -> bool {
        if let Some(producer) = &self.producer {
            producer.poll(Duration::ZERO);
        }
        self.seen.connection_broke.load(Ordering::Acquire)
    }

    fn reports(&self) -> std::sync::MutexGuard<'_, Reports> {
        self.seen
            .reports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes all records and waits until they are delivered.
    fn produce_all(&mut self, tx: &Transaction, produced: &mut Produced) -> Result<(), WriteFault> {
        let producer = self.open_producer()?;
        let jobs = &self.topics.jobs;
        let mut sent = Ok(());
        for part in &tx.partitions {
            produced.done_starts.push(produced.done);
            let mut write = |output: Output<'_>| self.produce(producer, output, produced);
            sent = transaction_records::write_all(
                &self.codec,
                jobs,
                self.topics.slots,
                part,
                &mut write,
            );
            if sent.is_err() {
                break;
            }
        }
        match sent.and_then(|()| self.drain(producer, produced)) {
            Ok(()) => Ok(()),
            Err(Trouble::Fault(fault)) => Err(fault),
            Err(Trouble::SmallerBatches(message)) => {
                self.batch_bytes = (self.batch_bytes / 4).max(BATCH_BYTES_MIN);
                self.renewal.demand();
                Err(abort_for(&message))
            }
        }
    }

    fn produce(
        &self,
        producer: &BaseProducer<WriterContext>,
        output: Output<'_>,
        produced: &mut Produced,
    ) -> Result<(), Trouble> {
        let topic = match output.place {
            Place::Jobs => &self.topics.jobs,
            Place::Ledger => &self.topics.ledger,
            Place::Results => &self.topics.results,
            Place::DeadLetters => &self.topics.dead_letters,
        };
        let number = produced.number(output.written);
        let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(topic, number)
            .partition(i32::try_from(output.partition).unwrap_or(i32::MAX));
        record.key = output.key;
        record.payload = output.value;
        record.headers = Some(owned(output.headers));
        let mut waited = Duration::ZERO;
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    if waited > DELIVERY_MAX {
                        return Err(abort_for("the producer's queue stays full").into());
                    }
                    record = back;
                    look_for_reports(producer);
                    waited += PAUSE;
                }
                Err((KafkaError::MessageProduction(code), _)) if is_too_large(code) => {
                    return Err(too_large(output.written, code.to_string()).into());
                }
                Err((error, _)) => return Err(self.classify_delivery(producer, &error).into()),
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
                return Err(WriteFault::Unclear("delivery took too long".to_owned()).into());
            }
        }
        let (failed, too_large) = {
            let reports = self.reports();
            (reports.failed.clone(), reports.too_large)
        };
        match (failed, too_large) {
            (None, None) => Ok(()),
            (_, Some(refused)) => Err(self.refused_for_size(refused, produced)),
            (Some(error), None) => Err(self.classify_delivery(producer, &error).into()),
        }
    }

    /// A record that was not delivered: the transaction can be aborted unless the producer is dead.
    fn classify_delivery(
        &self,
        producer: &BaseProducer<WriterContext>,
        error: &KafkaError,
    ) -> WriteFault {
        // The log line that says why may be behind the report.
        producer.poll(Duration::ZERO);
        match producer.client().fatal_error() {
            Some((code, message)) => WriteFault::Unclear(format!("{code}: {message}")),
            None => abort_for(&self.seen.words(error)),
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
                let message = format!("{}, {} bytes", refused.code, refused.bytes);
                too_large(Written::Result(job_id), message).into()
            }
            _ => Trouble::SmallerBatches(refused.code.to_string()),
        }
    }

    fn send_offsets(
        &self,
        tx: &Transaction,
        metadata: Option<&GroupMetadata>,
    ) -> Result<(), WriteFault> {
        let producer = self.open_producer()?;
        let Some(metadata) = metadata else {
            return Err(WriteFault::Abortable(AbortReason::Unfenceable));
        };
        let mut offsets = TopicPartitionList::with_capacity(tx.partitions.len());
        for part in &tx.partitions {
            let partition = i32::try_from(part.partition).unwrap_or(i32::MAX);
            offsets
                .add_partition_offset(
                    &self.topics.jobs,
                    partition,
                    Offset::Offset(part.next_offset),
                )
                .map_err(|error| abort_for(&error.to_string()))?;
        }
        group_metadata::send_offsets(producer, &offsets, metadata, SEND_OFFSETS_MS).map_err(
            |error| {
                let needs = permissions::of_group(&self.config, &self.topics.jobs);
                match missing(error.code, &needs) {
                    Some(permission) if error.abortable => {
                        permissions::report(permission);
                        abort_for(&permission.to_string())
                    }
                    _ => classify_send_offsets(error),
                }
            },
        )
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
        self.renewal.demand();
        self.open()?;
        let mut resolutions = Vec::new();
        for part in &tx.partitions {
            if is_owned(part) {
                resolutions.push(reader.read_back(part)?);
            }
        }
        Ok(resolutions)
    }

    /// Takes what the client reports of its own accord out of its queue: it would pile up while there
    /// is nothing to commit.
    pub fn idle(&self) {
        if let Some(producer) = &self.producer {
            producer.poll(Duration::ZERO);
        }
    }

    /// What librdkafka says of this client; from zero again with every renewed producer.
    #[must_use]
    pub fn figures(&self) -> Arc<Figures> {
        self.figures.clone()
    }

    /// Whether the next transaction has to renew the producer first (for tests and metrics).
    #[must_use]
    pub fn must_renew(&self) -> bool {
        self.renewal.is_due()
    }
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

/// Serves the delivery reports that are there, then lets others work for a moment.
fn look_for_reports(producer: &BaseProducer<WriterContext>) {
    producer.poll(Duration::ZERO);
    std::thread::sleep(PAUSE);
}

impl Produced {
    /// Number of a record's delivery report.
    fn number(&mut self, written: Written<'_>) -> usize {
        match written {
            Written::Done => {
                self.done += 1;
                (self.done - 1) | DONE_TAG
            }
            Written::Result(job_id) => {
                self.results.push(job_id.clone());
                self.results.len()
            }
            Written::Other => 0,
        }
    }
}

#[derive(Debug)]
enum Trouble {
    Fault(WriteFault),
    /// Abort, and go on with smaller batches.
    SmallerBatches(String),
}

impl From<WriteFault> for Trouble {
    fn from(fault: WriteFault) -> Self {
        Self::Fault(fault)
    }
}

fn abort_for(words: &str) -> WriteFault {
    WriteFault::Abortable(AbortReason::Other(words.to_owned()))
}

fn is_too_large(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge
    )
}

fn too_large(written: Written<'_>, message: String) -> WriteFault {
    let job_id = match written {
        Written::Result(job_id) => job_id.clone(),
        Written::Done | Written::Other => Arc::from(""),
    };
    WriteFault::Abortable(AbortReason::TooLarge { job_id, message })
}

/// Rule 4: a stale member is told so and goes on; anything unclear is unknown.
fn classify_send_offsets(error: SendOffsetsError) -> WriteFault {
    let stale = matches!(
        error.code,
        RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::FencedInstanceId
            | RDKafkaErrorCode::RebalanceInProgress
    );
    if error.fatal {
        WriteFault::Unclear(error.to_string())
    } else if stale {
        WriteFault::Stale(error.to_string())
    } else if error.abortable {
        abort_for(&error.to_string())
    } else {
        WriteFault::Unclear(error.to_string())
    }
}

fn owned(headers: &[transaction_records::Header<'_>]) -> OwnedHeaders {
    let mut owned = OwnedHeaders::new_with_capacity(headers.len());
    for (key, value) in headers {
        owned = owned.insert(Header { key, value: *value });
    }
    owned
}

/// Record key of a MARK, for the plain producer beside this one.
pub const MARK_RECORD_KEY: &[u8] = MARK_KEY;
