//! Records of the jobs topic as the engine sees them: decoded once, immutable, shared.

use guestkit_protocol::{JobEnvelope, TraceContext};
use std::sync::Arc;

/// Milliseconds since 1970 UTC, from a clock that never goes back (`crate::clock`).
pub type Millis = i64;

/// A record as the broker gave it: what a forward or a dead letter repeats unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RawRecord {
    /// Record key.
    pub key: Option<Vec<u8>>,
    /// Record value.
    pub value: Option<Vec<u8>>,
    /// Headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Timestamp in milliseconds since 1970 UTC.
    pub timestamp: Millis,
}

impl RawRecord {
    /// Bytes it holds in memory, roughly: what back-pressure counts.
    #[must_use]
    pub fn size(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len))
            .sum();
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + headers
    }
}

/// A valid job.
#[derive(Debug, Clone)]
pub struct Job {
    /// The document.
    pub envelope: JobEnvelope,
    /// Unique per submission.
    pub job_id: Arc<str>,
    /// Idempotency key; the job id where the envelope has none.
    pub key: Arc<str>,
    /// SHA-256 over operation, payload type and canonical payload.
    pub payload_hash: [u8; 32],
    /// Timestamp of its record: when the broker took it, on a topic with LogAppendTime.
    pub published: Millis,
    /// 1 to 10; higher starts earlier.
    pub priority: u8,
    /// How long it may run.
    pub timeout_ms: i64,
    /// When it must be over, if ever.
    pub deadline: Option<Millis>,
    /// W3C trace context that results and progress carry: that of the job's own span where spans are
    /// exported, else the creator's: the record's header, else the document's.
    pub traceparent: Option<Arc<str>>,
    /// The job's span, where it is exported. The engine only carries it.
    pub trace: Option<Arc<JobTrace>>,
}

/// Where a job stands in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobTrace {
    /// The span of its processing here.
    pub own: TraceContext,
    /// The span that sent it.
    pub creator: Option<TraceContext>,
    /// When the broker took it.
    pub appended: Millis,
    /// When it was decoded here.
    pub received: Millis,
}

/// A record that is no valid job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Code of the failed result and reason of the dead letter: `INVALID_JOB`,
    /// `UNSUPPORTED_VERSION`, ….
    pub code: &'static str,
    /// Names the field or the byte and says what to do.
    pub message: String,
    /// Job id, if one can be read.
    pub job_id: Option<Arc<str>>,
    /// Idempotency key, if one can be read.
    pub key: Option<Arc<str>>,
    /// Operation, if one can be read.
    pub operation: Option<String>,
}

impl Invalid {
    /// What decides the slot: the key, else the job id.
    #[must_use]
    pub fn routing_key(&self) -> Option<&str> {
        self.key.as_deref().or(self.job_id.as_deref())
    }
}

/// What a record holds.
#[derive(Debug, Clone)]
pub enum Content {
    /// A valid job.
    Job(Arc<Job>),
    /// Anything else.
    Invalid(Arc<Invalid>),
}

/// A record of the jobs topic, decoded.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its offset.
    pub offset: i64,
    /// Its bytes.
    pub raw: Arc<RawRecord>,
    /// What they mean.
    pub content: Content,
}
