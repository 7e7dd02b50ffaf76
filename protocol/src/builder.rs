//! Building a job step by step.

use crate::document::envelope::{
    Audit, Constraints, Execution, JobEnvelope, KIND, Metadata, Observability, Payload, Routing,
    VERSION,
};
use crate::json_text::{JsonFault, JsonText};
use crate::payload::{ComparePayload, ImagePayload, ImageRef, InspectOptions, OutputSpec};
use crate::payload_hash::PayloadHash;
use crate::timestamp::Timestamp;
use crate::validate::ValidationError;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Builds a [`JobEnvelope`].
///
/// This crate has neither a clock nor randomness, so what is not given has one fixed default: `created_at` is
/// 1970-01-01T00:00:00Z, and `job_id` is `job-` and 32 hexadecimal digits of a hash over operation, payload,
/// idempotency key and `created_at`. The same job built twice thus has the same id and counts as one
/// submission; give an id of your own for each submission that should have its own result.
#[derive(Debug, Clone)]
#[must_use]
pub struct JobBuilder {
    job_id: Option<String>,
    job: JobEnvelope,
    data_fault: Option<JsonFault>,
}

/// Why a job can't be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The payload has no acceptable JSON form.
    #[error("payload.data: {0}")]
    Data(#[from] JsonFault),
    /// Fields break rules of the envelope.
    #[error("{0}")]
    Invalid(#[from] ValidationError),
}

impl Default for JobBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl JobBuilder {
    /// A job without operation and payload.
    pub fn new() -> Self {
        Self {
            job_id: None,
            job: JobEnvelope {
                schema_uri: None,
                version: VERSION.to_owned(),
                job_id: String::new(),
                created_at: Timestamp::default(),
                kind: KIND.to_owned(),
                operation: String::new(),
                payload: Payload {
                    r#type: String::new(),
                    data: JsonText::default(),
                    extensions: Default::default(),
                },
                metadata: Metadata::default(),
                execution: Execution::default(),
                constraints: Constraints::default(),
                routing: Routing::default(),
                observability: Observability::default(),
                audit: Audit::default(),
                extensions: Default::default(),
            },
            data_fault: None,
        }
    }

    /// What to do, for example `guestkit.inspect`.
    pub fn operation(mut self, operation: impl Into<String>) -> Self {
        self.job.operation = operation.into();
        self
    }

    /// The payload's type, for example `guestkit.inspect.v1`, and its data: anything that serde can write as
    /// JSON. A [`JsonText`] is taken as it is.
    pub fn payload<T: Serialize + ?Sized>(
        mut self,
        payload_type: impl Into<String>,
        data: &T,
    ) -> Self {
        self.job.payload.r#type = payload_type.into();
        match JsonText::of(data) {
            Ok(text) => self.job.payload.data = text,
            Err(fault) => self.data_fault = Some(fault),
        }
        self
    }

    /// The id of this submission.
    pub fn job_id(mut self, job_id: impl Into<String>) -> Self {
        self.job_id = Some(job_id.into());
        self
    }

    /// When the job was made.
    pub fn created_at(mut self, created_at: Timestamp) -> Self {
        self.job.created_at = created_at;
        self
    }

    /// The key that makes two jobs the same work.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.job.execution.idempotency_key = Some(key.into());
        self
    }

    /// 1 to 10, higher is more urgent.
    pub fn priority(mut self, priority: u32) -> Self {
        self.job.execution.priority = priority;
        self
    }

    /// How many attempts a recoverable failure may take in all.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.job.execution.max_attempts = attempts;
        self
    }

    /// How long one attempt may run, in seconds.
    pub fn timeout_seconds(mut self, seconds: u64) -> Self {
        self.job.execution.timeout_seconds = seconds;
        self
    }

    /// When the job is of no use any more.
    pub fn deadline(mut self, deadline: Timestamp) -> Self {
        self.job.execution.deadline = Some(deadline);
        self
    }

    /// A name for people.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.job.metadata.name = Some(name.into());
        self
    }

    /// A label to select by.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.job.metadata.labels.insert(name.into(), value.into());
        self
    }

    /// What a worker must have.
    pub fn constraints(mut self, constraints: Constraints) -> Self {
        self.job.constraints = constraints;
        self
    }

    /// The pool that shall run it.
    pub fn worker_pool(mut self, pool: impl Into<String>) -> Self {
        self.job.routing.worker_pool = Some(pool.into());
        self
    }

    /// Trace and correlation ids.
    pub fn observability(mut self, observability: Observability) -> Self {
        self.job.observability = observability;
        self
    }

    /// An id of the caller's own, carried end to end.
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.job.observability.correlation_id = Some(id.into());
        self
    }

    /// Who asks for the job.
    pub fn submitted_by(mut self, who: impl Into<String>) -> Self {
        self.job.audit.submitted_by = Some(who.into());
        self
    }

    /// The job, valid.
    ///
    /// # Errors
    /// The payload has no JSON form, or a field breaks a rule; see [`BuildError`].
    pub fn build(self) -> Result<JobEnvelope, BuildError> {
        if let Some(fault) = self.data_fault {
            return Err(fault.into());
        }
        let mut job = self.job;
        job.job_id = match self.job_id {
            Some(job_id) => job_id,
            None => default_job_id(&job)?,
        };
        job.validate()?;
        Ok(job)
    }
}

fn default_job_id(job: &JobEnvelope) -> Result<String, JsonFault> {
    let payload: PayloadHash = job.payload_hash()?;
    let mut sha = Sha256::new();
    sha.update(payload.as_bytes());
    sha.update(job.created_at.as_millis().to_be_bytes());
    sha.update(job.execution.idempotency_key.as_deref().unwrap_or_default());
    let hash = hex::encode(sha.finalize());
    Ok(format!("job-{}", &hash[..32]))
}

fn image_job(operation: &str, path: &str, output: Option<OutputSpec>) -> JobBuilder {
    let image = ImageRef::at(path);
    let payload = ImagePayload {
        image,
        options: BTreeMap::new(),
        output,
    };
    JobBuilder::new()
        .operation(operation)
        .payload(format!("{operation}.v1"), &payload)
}

/// A `guestkit.inspect` of the image at `path`, with all options at their defaults.
pub fn inspect_job(path: &str) -> JobBuilder {
    image_job("guestkit.inspect", path, None)
}

/// A `guestkit.profile` of the image at `path`.
pub fn profile_job(path: &str) -> JobBuilder {
    image_job("guestkit.profile", path, None)
}

/// A `guestkit.convert` of the image at `path` to a format.
pub fn convert_job(path: &str, format: &str, destination: &str) -> JobBuilder {
    let output = OutputSpec {
        format: Some(format.to_owned()),
        destination: Some(destination.to_owned()),
        compression: None,
    };
    image_job("guestkit.convert", path, Some(output))
}

/// A `guestkit.fix` of the image at `path`, which is never changed in place.
pub fn fix_job(path: &str) -> JobBuilder {
    image_job("guestkit.fix", path, None)
}

/// A `guestkit.compare` of the image at `path` with a baseline image.
pub fn compare_job(path: &str, baseline: &str) -> JobBuilder {
    let payload = ComparePayload {
        image: ImageRef::at(path),
        baseline: Some(ImageRef::at(baseline)),
        baseline_document: None,
        options: InspectOptions::default(),
        output: None,
    };
    JobBuilder::new()
        .operation("guestkit.compare")
        .payload("guestkit.compare.v1", &payload)
}

/// A `system.echo` that returns `data`.
pub fn echo_job<T: Serialize + ?Sized>(data: &T) -> JobBuilder {
    JobBuilder::new()
        .operation("system.echo")
        .payload("system.echo.v1", data)
}
