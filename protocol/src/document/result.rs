//! The result: how a job ended.

use crate::document::document;
use crate::document::envelope::Observability;
use crate::json_text::JsonText;
use crate::record::{default_or, default_text, json_name, record, words};
use crate::timestamp::Timestamp;
use std::collections::BTreeMap;

/// From this size on, in bytes, result data is not written inline but as an artifact: one common Go decoder
/// refuses strings over 1 MiB, and brokers refuse records over 1 MiB.
pub const RESULT_DATA_MAX: usize = 512 * 1024;

words! {
    /// `status` of a result.
    pub enum JobStatus {
        /// Known, nothing done yet.
        Pending = "pending",
        /// A worker has it.
        Assigned = "assigned",
        /// A handler runs it.
        Running = "running",
        /// It succeeded.
        Completed = "completed",
        /// It failed for good.
        Failed = "failed",
        /// It was cancelled.
        Cancelled = "cancelled",
        /// Its deadline or its time ran out.
        Timeout = "timeout",
    }
}

record! {
    /// How a job ended, or how far it is.
    plain pub struct JobResult {
        /// The job.
        job_id: String,
        /// One of pending, assigned, running, completed, failed, cancelled, timeout. Test this, not which
        /// record is there.
        status: JobStatus,
        /// The job's operation, where it could be read.
        operation: Option<String>,
        /// When it completed.
        completed_at: Option<Timestamp>,
        /// When it failed, was cancelled or timed out.
        failed_at: Option<Timestamp>,
        /// The worker that ran it, or that answered for it.
        worker_id: Option<String>,
        /// The job whose result this repeats: nothing ran for this one.
        duplicate_of: Option<String>,
        /// Where the result of that job is.
        original: Option<ResultPointer>,
        /// When and how it ran.
        execution_summary: Option<ExecutionSummary>,
        /// Files that it wrote.
        outputs: Option<Outputs>,
        /// What it used; varies from run to run.
        metrics: Option<Metrics>,
        /// Why it failed.
        error: Option<JobError>,
        /// The job's trace and correlation ids.
        observability: Observability,
        /// The result data as JSON text, below 512 KiB; a larger one is an artifact in outputs. In the JSON
        /// form it stands as it is.
        data: Option<JsonText>,
    }
}
document!(JobResult, "job_result");

record! {
    /// Where a result is: look for the job id in this partition. There is no offset, because it is unknown
    /// inside the transaction that writes the pointer.
    plain pub struct ResultPointer {
        /// The results topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The job id, which is the record key.
        job_id: String,
    }
}

record! {
    /// When and how a job ran.
    empty pub struct ExecutionSummary {
        /// When the last attempt began.
        started_at: Option<Timestamp>,
        /// How long the last attempt ran, in seconds.
        duration: Option<f64>,
        /// The attempt that decided, from 1.
        attempt: u32 = 1,
        /// The job's idempotency key.
        idempotency_key: Option<String>,
    }
}

record! {
    /// Files that a job wrote.
    empty pub struct Outputs {
        /// The one to look at first.
        primary: Option<Artifact>,
        /// All others.
        artifacts: Vec<Artifact>,
    }
}

record! {
    /// A file that a job wrote.
    plain pub struct Artifact {
        /// What it is, for example result or report.
        name: Option<String>,
        /// Where it is: a path or URL.
        path: String,
        /// Its format, for example json, qcow2 or cyclonedx.
        format: Option<String>,
        /// Its size in bytes.
        size_bytes: Option<u64>,
        /// Its checksum, sha256: and 64 hexadecimal digits.
        checksum: Option<String>,
    }
}

record! {
    /// What a job used.
    empty pub struct Metrics {
        /// Bytes read from disks.
        disk_read_bytes: Option<u64>,
        /// Bytes written to disks.
        disk_write_bytes: Option<u64>,
        /// The most memory it held, in bytes.
        peak_memory: Option<u64>,
        /// Processor time in seconds.
        cpu_seconds: Option<f64>,
    }
}

record! {
    /// Why a job failed.
    plain pub struct JobError {
        /// A code that programs match on, for example IMAGE_NOT_FOUND.
        code: String,
        /// What happened and what to do, for people.
        message: String,
        /// The part of the work in which it failed.
        phase: Option<String>,
        /// Further facts by name.
        details: BTreeMap<String, String>,
        /// Whether the same job can succeed later.
        recoverable: bool = false,
        /// Whether it is worth while to submit it again.
        retry_recommended: bool = false,
    }
}

impl JobResult {
    /// A result with nothing but its job id and status.
    pub fn new(job_id: impl Into<String>, status: JobStatus) -> Self {
        Self {
            job_id: job_id.into(),
            status,
            operation: None,
            completed_at: None,
            failed_at: None,
            worker_id: None,
            duplicate_of: None,
            original: None,
            execution_summary: None,
            outputs: None,
            metrics: None,
            error: None,
            observability: Observability::default(),
            data: None,
            extensions: Default::default(),
        }
    }

    /// A result that says `completed`.
    pub fn completed(job_id: impl Into<String>, at: Timestamp) -> Self {
        Self {
            completed_at: Some(at),
            ..Self::new(job_id, JobStatus::Completed)
        }
    }

    /// A result that says `failed`, with the reason.
    pub fn failed(job_id: impl Into<String>, at: Timestamp, error: JobError) -> Self {
        Self {
            failed_at: Some(at),
            error: Some(error),
            ..Self::new(job_id, JobStatus::Failed)
        }
    }
}

impl JobError {
    /// An error that is final: neither recoverable nor worth a retry.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            phase: None,
            details: BTreeMap::new(),
            recoverable: false,
            retry_recommended: false,
            extensions: Default::default(),
        }
    }

    /// The same error, recoverable and worth a retry.
    #[must_use]
    pub fn recoverable(self) -> Self {
        Self {
            recoverable: true,
            retry_recommended: true,
            ..self
        }
    }
}

impl ResultPointer {
    /// A pointer to the result of `job_id`.
    pub fn new(topic: impl Into<String>, partition: i32, job_id: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            partition,
            job_id: job_id.into(),
            extensions: Default::default(),
        }
    }
}

impl Artifact {
    /// An artifact of which only the place is known.
    pub fn at(path: impl Into<String>) -> Self {
        Self {
            name: None,
            path: path.into(),
            format: None,
            size_bytes: None,
            checksum: None,
            extensions: Default::default(),
        }
    }
}
