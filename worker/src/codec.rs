//! Between the engine's values and the protocol's documents on the wire.

use crate::engine::index::KeyHash;
use crate::engine::ledger::{
    Done, FinalStatus, Fingerprint, LedgerKind, Mark, OffsetRange, ResultPointer, SlotRecord,
};
use crate::engine::outcome::{ArtifactFile, Failure, Outcome};
use crate::engine::record::{Content, Invalid, Job, Millis, RawRecord};
use crate::engine::transaction::{DeadLetter, ResultRecord};
use guestkit_protocol as protocol;
use protocol::{
    DecodeError, DoneEntry, Framing, JobError, JobProgress, JobResult, JobStatus, LedgerEntry,
    NoRegistry, Observability, PayloadHash, SchemaFault, SchemaSource, Timestamp, TraceContext,
    WorkerAdvertisement, error_code, headers,
};
use rdkafka::message::{Header, OwnedHeaders};
use std::sync::Arc;

/// Most bytes of `guestkit_*` headers that a dead letter gets on top of its own (decisions.md).
const DEAD_LETTER_ERROR_MAX: usize = 12 * 1024;

/// A value with its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Record value.
    pub value: Vec<u8>,
    /// Headers in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// How each document is framed; resolved once at start.
#[derive(Debug, Clone, Copy)]
pub struct Framings {
    /// Results.
    pub results: Framing,
    /// Progress.
    pub progress: Framing,
    /// The worker directory.
    pub workers: Framing,
}

impl Default for Framings {
    fn default() -> Self {
        Self {
            results: Framing::SingleObject,
            progress: Framing::SingleObject,
            workers: Framing::SingleObject,
        }
    }
}

/// Encodes what a worker writes.
///
/// The ledger is single-object encoded always: it is read by workers only, and a restore must not
/// depend on a registry.
pub struct Codec {
    worker_id: Arc<str>,
    framings: Framings,
    now: Box<dyn Fn() -> Millis + Send + Sync>,
}

impl Codec {
    /// A codec that signs with a worker id and takes times that only it needs from `now`.
    pub fn new(
        worker_id: Arc<str>,
        framings: Framings,
        now: impl Fn() -> Millis + Send + Sync + 'static,
    ) -> Self {
        Self {
            worker_id,
            framings,
            now: Box::new(now),
        }
    }

    /// Headers of a ledger record: its kind, so that a restore decodes no value it does not need.
    #[must_use]
    pub fn ledger_headers(kind: LedgerKind) -> OwnedHeaders {
        OwnedHeaders::new_with_capacity(1).insert(Header {
            key: headers::LEDGER_KIND,
            value: Some(kind_name(kind)),
        })
    }

    /// Encodes DONE.
    #[must_use]
    pub fn encode_done(&self, done: &Done) -> Vec<u8> {
        encode_ledger(&LedgerEntry::Done(done_entry(done)))
    }

    /// Encodes SLOT.
    #[must_use]
    pub fn encode_slot(&self, slot: &SlotRecord) -> Vec<u8> {
        encode_ledger(&LedgerEntry::Slot(protocol::SlotEntry {
            partition_count: slot.partition_count,
            next_offset: unsigned(slot.next_offset),
            settled: wire_ranges(&slot.settled),
            writer: slot.writer.to_string(),
            released: slot.released,
            extensions: protocol::Extensions::default(),
        }))
    }

    /// Encodes MARK.
    #[must_use]
    pub fn encode_mark(&self, mark: &Mark) -> Vec<u8> {
        encode_ledger(&LedgerEntry::Mark(protocol::MarkEntry {
            incarnation: mark.incarnation.to_string(),
            transactional_id: mark.transactional_id.to_string(),
            offsets: wire_ranges(&mark.offsets),
            extensions: protocol::Extensions::default(),
        }))
    }

    /// Encodes a result, to be published on `partition`: the answer to the jobs record at `offset`.
    #[must_use]
    pub fn encode_result(&self, record: &ResultRecord, partition: u32, offset: i64) -> Encoded {
        let now = (self.now)();
        let result = self.result(record, partition, now);
        let traceparent = match record {
            ResultRecord::Executed { job, .. }
            | ResultRecord::Duplicate { job, .. }
            | ResultRecord::Conflict { job, .. } => job.traceparent.as_deref(),
            ResultRecord::Rejected { .. } => None,
        };
        let framing = self.framings.results;
        let value = protocol::encode(&result, framing).unwrap_or_else(|error| {
            // Too large, or a number no reader keeps: the job fails with a small result that says so.
            let small = JobError::new(error_code::RESULT_TOO_LARGE, error.to_string());
            let mut failed =
                JobResult::failed(result.job_id.clone(), Timestamp::from_millis(now), small);
            failed.operation.clone_from(&result.operation);
            protocol::encode(&failed, framing).unwrap_or_default()
        });
        // A job id that comes again after the deduplication window is answered again: with the record
        // that it answers an event has an id of its own, as CloudEvents wants.
        let id = format!("{}/{partition}/{offset}", result.job_id);
        Encoded {
            value,
            headers: self.event_headers(
                "io.guestkit.job.result.v1",
                &id,
                now,
                framing,
                traceparent,
            ),
        }
    }

    /// Encodes a progress event.
    ///
    /// # Errors
    /// When it is too large.
    pub fn encode_progress(
        &self,
        progress: &JobProgress,
        traceparent: Option<&str>,
    ) -> Result<Encoded, protocol::EncodeError> {
        let framing = self.framings.progress;
        let id = format!(
            "{}/{}/{}/{}",
            progress.job_id, progress.attempt, progress.run, progress.sequence
        );
        Ok(Encoded {
            value: protocol::encode(progress, framing)?,
            headers: self.event_headers(
                "io.guestkit.job.progress.v1",
                &id,
                (self.now)(),
                framing,
                traceparent,
            ),
        })
    }

    /// Encodes an entry of the worker directory.
    ///
    /// # Errors
    /// When it is too large.
    pub fn encode_advertisement(
        &self,
        advertisement: &WorkerAdvertisement,
    ) -> Result<Encoded, protocol::EncodeError> {
        let framing = self.framings.workers;
        let now = (self.now)();
        let id = format!("{}/{now}", advertisement.incarnation);
        Ok(Encoded {
            value: protocol::encode(advertisement, framing)?,
            headers: self.event_headers("io.guestkit.worker.v1", &id, now, framing, None),
        })
    }

    fn event_headers(
        &self,
        kind: &str,
        id: &str,
        now: Millis,
        framing: Framing,
        traceparent: Option<&str>,
    ) -> Vec<(String, Option<Vec<u8>>)> {
        let source = format!("/guestkit/workers/{}", self.worker_id);
        let time = Timestamp::from_millis(now).to_string();
        let mut list = Vec::with_capacity(7);
        let mut push = |name: &str, value: &str| {
            list.push((name.to_owned(), Some(value.as_bytes().to_vec())));
        };
        push(headers::CE_SPECVERSION, "1.0");
        push(headers::CE_ID, id);
        push(headers::CE_TYPE, kind);
        push(headers::CE_SOURCE, &source);
        push(headers::CE_TIME, &time);
        push(headers::CONTENT_TYPE, framing.content_type());
        if let Some(traceparent) = traceparent {
            push(headers::TRACEPARENT, traceparent);
        }
        list
    }

    /// A dead letter: the record as it came, and why it is here in further headers.
    #[must_use]
    pub fn dead_letter(&self, letter: &DeadLetter, topic: &str, partition: u32) -> RawRecord {
        let mut raw = RawRecord::clone(&letter.raw);
        let end = letter.message.floor_char_boundary(DEAD_LETTER_ERROR_MAX);
        let mut push = |name: &str, value: &str| {
            raw.headers
                .push((name.to_owned(), Some(value.as_bytes().to_vec())));
        };
        push(headers::REASON, letter.reason);
        push(headers::ERROR, &letter.message[..end]);
        push(headers::SOURCE_TOPIC, topic);
        push(headers::SOURCE_PARTITION, &partition.to_string());
        push(headers::SOURCE_OFFSET, &letter.offset.to_string());
        push(
            headers::TIME,
            &Timestamp::from_millis((self.now)()).to_string(),
        );
        raw
    }

    /// The result document of a decision.
    #[must_use]
    pub fn result(&self, record: &ResultRecord, partition: u32, now: Millis) -> JobResult {
        let mut result = match record {
            ResultRecord::Executed {
                job,
                outcome,
                attempt,
            } => executed(job, outcome, *attempt),
            ResultRecord::Duplicate { job, original } => duplicate(job, original, now),
            ResultRecord::Conflict { job, original } => conflict(job, original, now),
            ResultRecord::Rejected { job_id, invalid } => {
                let error = JobError::new(invalid.code, invalid.message.clone());
                let mut result =
                    JobResult::failed(job_id.to_string(), Timestamp::from_millis(now), error);
                result.operation.clone_from(&invalid.operation);
                result
            }
        };
        debug_assert!(partition < u32::MAX);
        result.worker_id = Some(self.worker_id.to_string());
        result
    }
}

fn base(job: &Job, status: JobStatus) -> JobResult {
    let mut result = JobResult::new(job.job_id.to_string(), status);
    result.operation = Some(job.envelope.operation.clone());
    result.observability = observability(job);
    result
}

/// The job's trace and correlation ids, as what it brings about carries them.
pub(crate) fn observability(job: &Job) -> Observability {
    let mut observability = job.envelope.observability.clone();
    if let Some(context) = job.traceparent.as_deref().and_then(TraceContext::parse) {
        let creator = job.trace.as_ref().and_then(|trace| trace.creator);
        context.write_to(&mut observability, creator);
    }
    observability
}

fn finish(result: &mut JobResult, status: FinalStatus, at: Millis) {
    let at = Some(Timestamp::from_millis(at));
    if status == FinalStatus::Completed {
        result.completed_at = at;
    } else {
        result.failed_at = at;
    }
}

fn executed(job: &Job, outcome: &Outcome, attempt: u32) -> JobResult {
    let mut result = base(job, wire_status(outcome.status));
    finish(&mut result, outcome.status, outcome.finished_at);
    let ran_ms = outcome
        .finished_at
        .saturating_sub(outcome.started_at)
        .max(0);
    result.execution_summary = Some(protocol::ExecutionSummary {
        started_at: Some(Timestamp::from_millis(outcome.started_at)),
        duration: Some(ran_ms as f64 / 1_000.0),
        attempt,
        idempotency_key: Some(job.key.to_string()),
        ..protocol::ExecutionSummary::default()
    });
    let cost = outcome.cost;
    if cost != crate::engine::outcome::Cost::default() {
        result.metrics = Some(protocol::Metrics {
            disk_read_bytes: Some(cost.disk_read_bytes),
            disk_write_bytes: Some(cost.disk_write_bytes),
            peak_memory: Some(cost.peak_memory_bytes),
            cpu_seconds: Some(cost.cpu_ms as f64 / 1_000.0),
            ..protocol::Metrics::default()
        });
    }
    let mut artifacts = outcome.artifacts.iter().map(artifact);
    if let Some(primary) = artifacts.next() {
        result.outputs = Some(protocol::Outputs {
            primary: Some(primary),
            artifacts: artifacts.collect(),
            ..protocol::Outputs::default()
        });
    }
    result.error = outcome.failure.as_ref().map(job_error);
    result.data = outcome
        .data
        .clone()
        .and_then(|text| protocol::JsonText::new(text).ok());
    result
}

fn duplicate(job: &Job, original: &Done, now: Millis) -> JobResult {
    let mut result = base(job, wire_status(original.status));
    finish(&mut result, original.status, now);
    result.duplicate_of = Some(original.job_id.to_string());
    result.original = Some(wire_pointer(&original.result));
    result.execution_summary = Some(protocol::ExecutionSummary {
        attempt: original.attempt,
        idempotency_key: Some(job.key.to_string()),
        ..protocol::ExecutionSummary::default()
    });
    result
}

fn conflict(job: &Job, original: &ResultPointer, now: Millis) -> JobResult {
    let mut result = base(job, JobStatus::Failed);
    finish(&mut result, FinalStatus::Failed, now);
    result.execution_summary = Some(protocol::ExecutionSummary {
        idempotency_key: Some(job.key.to_string()),
        ..protocol::ExecutionSummary::default()
    });
    let mut error = JobError::new(
        error_code::IDEMPOTENCY_CONFLICT,
        format!(
            "execution.idempotency_key {:?} was used by job {} with another payload: use a key of its own for other work",
            job.key, original.job_id
        ),
    );
    error
        .details
        .insert("original_job_id".to_owned(), original.job_id.to_string());
    result.error = Some(error);
    result
}

fn job_error(failure: &Failure) -> JobError {
    let mut error = JobError::new(failure.code.as_ref(), failure.message.clone());
    error.phase.clone_from(&failure.phase);
    error.details.clone_from(&failure.details);
    error.recoverable = failure.recoverable;
    error.retry_recommended = failure.recoverable;
    error
}

fn artifact(file: &ArtifactFile) -> protocol::Artifact {
    let mut artifact = protocol::Artifact::at(file.location.clone());
    artifact.name = Some(file.name.clone());
    artifact.format = Some(file.content_type.clone());
    artifact.size_bytes = Some(file.size_bytes);
    artifact.checksum = Some(format!("sha256:{}", file.sha256));
    artifact
}

fn wire_status(status: FinalStatus) -> JobStatus {
    match status {
        FinalStatus::Completed => JobStatus::Completed,
        FinalStatus::Failed => JobStatus::Failed,
        FinalStatus::Cancelled => JobStatus::Cancelled,
        FinalStatus::Timeout => JobStatus::Timeout,
    }
}

fn wire_pointer(pointer: &ResultPointer) -> protocol::ResultPointer {
    protocol::ResultPointer::new(
        pointer.topic.to_string(),
        i32::try_from(pointer.partition).unwrap_or(i32::MAX),
        pointer.job_id.to_string(),
    )
}

fn wire_ranges(ranges: &[OffsetRange]) -> Vec<protocol::OffsetRange> {
    ranges
        .iter()
        .map(|range| protocol::OffsetRange {
            first: unsigned(range.first),
            last: unsigned(range.last),
        })
        .collect()
}

fn unsigned(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}

fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

fn encode_ledger(entry: &LedgerEntry) -> Vec<u8> {
    // Ledger entries are ours: offsets stay below 2^53, and nothing in them grows beyond 100 KB.
    protocol::encode(entry, Framing::SingleObject).unwrap_or_default()
}

fn done_entry(done: &Done) -> DoneEntry {
    let mut entry = DoneEntry::new(
        done.job_id.to_string(),
        PayloadHash::from_bytes(done.payload_hash),
        wire_status(done.status),
        wire_pointer(&done.result),
    );
    entry.attempt = done.attempt;
    entry.run = done.run;
    for answered in &done.answered {
        entry
            .answered
            .push_fingerprint(answered.job_id, answered.payload);
    }
    entry
}

/// Name of a ledger kind in its header.
#[must_use]
pub fn kind_name(kind: LedgerKind) -> &'static str {
    match kind {
        LedgerKind::Done => "done",
        LedgerKind::Open => "open",
        LedgerKind::Slot => "slot",
        LedgerKind::Mark => "mark",
    }
}

/// Kind of a ledger record from its header.
#[must_use]
pub fn kind_of(header: &[u8]) -> Option<LedgerKind> {
    match header {
        b"done" => Some(LedgerKind::Done),
        b"open" => Some(LedgerKind::Open),
        b"slot" => Some(LedgerKind::Slot),
        b"mark" => Some(LedgerKind::Mark),
        _ => None,
    }
}

/// Decodes a ledger value.
///
/// # Errors
/// What is wrong with it, for a person.
pub fn decode_ledger(value: &[u8]) -> Result<LedgerEntry, String> {
    protocol::decode(value, &NoRegistry).map_err(|error| error.to_string())
}

/// SLOT from its encoded value.
///
/// # Errors
/// When it is none.
pub fn decode_slot(value: &[u8]) -> Result<SlotRecord, String> {
    match decode_ledger(value)? {
        LedgerEntry::Slot(entry) => Ok(SlotRecord {
            partition_count: entry.partition_count,
            next_offset: signed(entry.next_offset),
            settled: own_ranges(&entry.settled),
            writer: entry.writer.into(),
            released: entry.released,
        }),
        other => Err(format!("expected a slot entry, found {}", other.kind())),
    }
}

/// MARK from its encoded value.
///
/// # Errors
/// When it is none.
pub fn decode_mark(value: &[u8]) -> Result<Mark, String> {
    match decode_ledger(value)? {
        LedgerEntry::Mark(entry) => Ok(Mark {
            incarnation: entry.incarnation.into(),
            transactional_id: entry.transactional_id.into(),
            offsets: own_ranges(&entry.offsets),
        }),
        other => Err(format!("expected a mark entry, found {}", other.kind())),
    }
}

/// DONE from its encoded value.
///
/// # Errors
/// When it is none.
pub fn decode_done(value: &[u8]) -> Result<Done, String> {
    own_done(decode_ledger(value)?)
}

/// DONE from a ledger entry.
///
/// # Errors
/// When it is another kind.
pub fn own_done(entry: LedgerEntry) -> Result<Done, String> {
    let LedgerEntry::Done(entry) = entry else {
        return Err(format!("expected a done entry, found {}", entry.kind()));
    };
    let own = Fingerprint::of(&entry.job_id, entry.payload_hash.as_bytes());
    Ok(Done {
        payload_hash: *entry.payload_hash.as_bytes(),
        status: match entry.status {
            JobStatus::Completed => FinalStatus::Completed,
            JobStatus::Cancelled => FinalStatus::Cancelled,
            JobStatus::Timeout => FinalStatus::Timeout,
            _ => FinalStatus::Failed,
        },
        attempt: entry.attempt,
        run: entry.run,
        result: ResultPointer {
            topic: entry.result.topic.into(),
            partition: u32::try_from(entry.result.partition).unwrap_or(0),
            job_id: entry.result.job_id.into(),
        },
        answered: entry
            .answered
            .fingerprints()
            .map(|(job_id, payload)| Fingerprint { job_id, payload })
            .filter(|known| known.job_id != own.job_id)
            .collect(),
        job_id: entry.job_id.into(),
    })
}

fn own_ranges(ranges: &[protocol::OffsetRange]) -> Vec<OffsetRange> {
    ranges
        .iter()
        .map(|range| OffsetRange {
            first: signed(range.first),
            last: signed(range.last),
        })
        .collect()
}

/// Decodes a record of the jobs topic.
///
/// # Errors
/// A fault of the schema registry: the record waits.
pub fn decode_record(
    raw: &RawRecord,
    pool: Option<&str>,
    schemas: &dyn SchemaSource,
) -> Result<Content, SchemaFault> {
    let value = raw.value.as_deref().unwrap_or_default();
    match protocol::decode_job(value, schemas) {
        Ok(envelope) => Ok(content(envelope, pool, raw)),
        Err(DecodeError::Temporary(fault)) => Err(fault),
        Err(DecodeError::Invalid(invalid)) => Ok(Content::Invalid(Arc::new(Invalid {
            code: invalid.code,
            message: invalid.reason,
            job_id: invalid.identity.job_id.map(Into::into),
            key: invalid.identity.idempotency_key.map(Into::into),
            operation: invalid.identity.operation,
        }))),
    }
}

fn content(envelope: protocol::JobEnvelope, pool: Option<&str>, raw: &RawRecord) -> Content {
    let invalid = |envelope: &protocol::JobEnvelope, message: String| {
        Content::Invalid(Arc::new(Invalid {
            code: error_code::INVALID_JOB,
            message,
            job_id: Some(envelope.job_id.as_str().into()),
            key: Some(envelope.idempotency_key().into()),
            operation: Some(envelope.operation.clone()),
        }))
    };
    let here = pool.unwrap_or(protocol::DEFAULT_POOL);
    if let Some(wanted) = envelope.routing.worker_pool.as_deref()
        && wanted != here
    {
        let message = format!(
            "routing.worker_pool is {wanted:?} but this is the jobs topic of pool {here:?}: publish to the pool's own topic"
        );
        return invalid(&envelope, message);
    }
    let payload_hash = match envelope.payload_hash() {
        Ok(hash) => *hash.as_bytes(),
        Err(fault) => return invalid(&envelope, format!("payload.data: {fault}")),
    };
    let execution = &envelope.execution;
    let seconds = i64::try_from(execution.timeout_seconds).unwrap_or(i64::MAX);
    Content::Job(Arc::new(Job {
        job_id: envelope.job_id.as_str().into(),
        key: envelope.idempotency_key().into(),
        payload_hash,
        published: raw.timestamp,
        priority: u8::try_from(execution.priority).unwrap_or(5),
        timeout_ms: seconds.saturating_mul(1_000),
        deadline: execution.deadline.map(Timestamp::as_millis),
        traceparent: traceparent(raw, &envelope.observability),
        trace: None,
        envelope,
    }))
}

/// The record's header wins over the document (protocol.md).
fn traceparent(raw: &RawRecord, document: &Observability) -> Option<Arc<str>> {
    let header = raw
        .headers
        .iter()
        .find(|(name, _)| name == headers::TRACEPARENT)
        .and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok())
        .and_then(TraceContext::parse);
    let context = header.or_else(|| TraceContext::of_document(document))?;
    Some(context.to_string().into())
}

/// A key hash for tests and tools that have no process of their own.
#[must_use]
pub fn plain_hash(key: &[u8]) -> KeyHash {
    crate::engine::index::HashSeed(0, 0).hash(key)
}
