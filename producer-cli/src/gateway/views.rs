//! What clients see of jobs.

use crate::gateway::highlights::Highlights;
use crate::gateway::index::Entry;
use crate::gateway::tenants::Caller;
use guestkit_protocol::{JobProgress, JobStatus, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;

/// The answer to a submission.
#[derive(Debug, Serialize)]
pub(crate) struct Accepted<'a> {
    pub(crate) job_id: &'a str,
    pub(crate) status: JobStatus,
    /// The client's key, or the one that was made for it.
    pub(crate) idempotency_key: &'a str,
    pub(crate) idempotency_key_generated: bool,
    /// Whether the same request was there before.
    pub(crate) known: bool,
    pub(crate) location: &'a str,
    /// What is lawful but worth a look.
    pub(crate) warnings: Vec<String>,
}

/// A job with all that is known.
#[derive(Debug, Serialize)]
pub(crate) struct JobView<'a> {
    job_id: &'a str,
    status: JobStatus,
    operation: Option<&'a str>,
    title: Option<&'a str>,
    idempotency_key: Option<&'a str>,
    submitted_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    /// The newest event.
    progress: Option<&'a JobProgress>,
    /// The whole result, when there is one.
    result: Option<&'a RawValue>,
}

impl<'a> JobView<'a> {
    /// Of an entry and its result.
    pub(crate) fn new(
        job_id: &'a str,
        entry: &'a Entry,
        result: Option<&'a RawValue>,
        caller: &Caller,
    ) -> Self {
        let prefix = caller.key_prefix();
        let key = entry.key.as_deref();
        Self {
            job_id,
            status: entry.status(),
            operation: entry.operation.as_deref(),
            title: entry.title.as_deref(),
            idempotency_key: key.map(|key| key.strip_prefix(&*prefix).unwrap_or(key)),
            submitted_at: entry.submitted_ms.map(Timestamp::from_millis),
            finished_at: entry
                .ending
                .as_ref()
                .map(|ending| Timestamp::from_millis(ending.at_ms)),
            progress: entry.progress.back().map(|event| &**event),
            result,
        }
    }
}

/// A job in a list.
#[derive(Debug, Serialize)]
pub(crate) struct JobRow {
    job_id: String,
    status: JobStatus,
    operation: Option<String>,
    title: Option<String>,
    submitted_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    progress_percent: Option<f64>,
    phase: Option<String>,
    worker_id: Option<String>,
    duplicate_of: Option<String>,
    error: Option<RowError>,
    highlights: Option<Highlights>,
}

#[derive(Debug, Serialize)]
struct RowError {
    code: String,
    message: String,
}

impl JobRow {
    /// Of an entry.
    pub(crate) fn new(job_id: &str, entry: &Entry) -> Self {
        let last = entry.progress.back();
        let ending = entry.ending.as_ref();
        Self {
            job_id: job_id.to_owned(),
            status: entry.status(),
            operation: entry.operation.clone(),
            title: entry.title.clone(),
            submitted_at: entry.submitted_ms.map(Timestamp::from_millis),
            finished_at: ending.map(|ending| Timestamp::from_millis(ending.at_ms)),
            progress_percent: last.and_then(|event| event.progress_percent),
            phase: last.map(|event| event.phase.clone()),
            worker_id: ending
                .and_then(|ending| ending.worker_id.clone())
                .or_else(|| last.and_then(|event| event.worker_id.clone())),
            duplicate_of: ending.and_then(|ending| ending.duplicate_of.clone()),
            error: ending
                .and_then(|ending| ending.error.clone())
                .map(|(code, message)| RowError { code, message }),
            highlights: ending.and_then(|ending| ending.highlights.clone()),
        }
    }
}
