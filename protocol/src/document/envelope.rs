//! The job envelope: what a client asks for.

use crate::document::document;
use crate::json_text::JsonText;
use crate::record::{default_or, default_text, json_name, record};
use crate::timestamp::Timestamp;
use std::collections::BTreeMap;

/// `kind` of every job of this version.
pub const KIND: &str = "VMOperation";
/// `version` that this crate writes.
pub const VERSION: &str = "1.0";

record! {
    /// A job: a stable, generic envelope around a typed payload.
    plain pub struct JobEnvelope {
        /// Where the JSON Schema of this document is; `$schema` in JSON.
        schema_uri as "$schema": Option<String>,
        /// Version of the envelope, major.minor; every version of the same major is readable.
        version: String,
        /// Unique for each submission: 8 to 128 of A-Z a-z 0-9 . _ : -
        job_id: String,
        /// When the job was made.
        created_at: Timestamp,
        /// Always VMOperation.
        kind: String,
        /// What to do: a namespaced name with at least one dot, for example guestkit.inspect.
        operation: String,
        /// What to do it with.
        payload: Payload,
        /// Names and labels for people.
        metadata: Metadata,
        /// How to run the job.
        execution: Execution,
        /// What a worker must have; one that has not never starts the job.
        constraints: Constraints,
        /// Hints where to run the job; the worker pool decides the topic.
        routing: Routing,
        /// Trace and correlation ids, carried end to end; a W3C traceparent in the record header wins.
        observability: Observability,
        /// Who asked for the job.
        audit: Audit,
    }
}
document!(JobEnvelope, "job_envelope");

record! {
    /// A payload with its own type and version.
    plain pub struct Payload {
        /// Namespace, operation and version, for example guestkit.inspect.v1.
        r#type as "type": String,
        /// The data as JSON text, any value; a bare string has its quotes. In the JSON form it stands as it is.
        data: JsonText,
    }
}

record! {
    /// Names and labels for people.
    nullable pub struct Metadata {
        /// A name for people.
        name: Option<String>,
        /// A tenant or project.
        namespace: Option<String>,
        /// Short texts to select by.
        labels: BTreeMap<String, String>,
        /// Longer texts.
        annotations: BTreeMap<String, String>,
    }
}

record! {
    /// How to run a job.
    nullable pub struct Execution {
        /// Two jobs with the same key and payload are the same work; 1 to 512 bytes without control
        /// characters. Without it the job id is the key.
        idempotency_key: Option<String>,
        /// Which attempt this is, from 1.
        attempt: u32 = 1,
        /// How many attempts a recoverable failure may take in all, at least 1.
        max_attempts: u32 = 1,
        /// How long one attempt may run, in seconds; over 24 hours is a warning.
        timeout_seconds: u64 = 3600,
        /// When the job is of no use any more.
        deadline: Option<Timestamp>,
        /// 1 to 10, higher is more urgent.
        priority: u32 = 5,
        /// Whether a cancel request stops the job.
        cancellable: bool = true,
    }
}

record! {
    /// What a worker must have.
    nullable pub struct Constraints {
        /// Operations, features or disk formats that the worker must list.
        required_capabilities: Vec<String>,
        /// Features that the worker must list.
        required_features: Vec<String>,
        /// The oldest worker that may take the job, a semantic version.
        minimum_worker_version: Option<String>,
        /// The size of disk, in GB, that the worker must be able to take.
        maximum_disk_size_gb: Option<u64>,
        /// Whether the worker must be privileged.
        require_privileged: bool = false,
        /// Pools that may take the job; empty means any.
        allowed_worker_pools: Vec<String>,
    }
}

record! {
    /// Hints where to run a job.
    nullable pub struct Routing {
        /// The worker that should take it.
        worker_id: Option<String>,
        /// The pool whose topic the job is published to; another pool's topic makes the job invalid.
        worker_pool: Option<String>,
        /// What to be near to.
        affinity: BTreeMap<String, String>,
        /// What to keep away from.
        anti_affinity: BTreeMap<String, String>,
    }
}

record! {
    /// Trace and correlation ids.
    nullable pub struct Observability {
        /// W3C trace id, 32 hexadecimal digits.
        trace_id: Option<String>,
        /// W3C span id, 16 hexadecimal digits.
        span_id: Option<String>,
        /// The span that this one belongs to.
        parent_span_id: Option<String>,
        /// An id of the caller's own.
        correlation_id: Option<String>,
    }
}

record! {
    /// Who asked for a job.
    nullable pub struct Audit {
        /// A person or service.
        submitted_by: Option<String>,
        /// A host or address.
        submitted_from: Option<String>,
        /// How it was authorised.
        authorization: Option<Authorization>,
    }
}

record! {
    /// How a job was authorised.
    empty pub struct Authorization {
        /// The method, for example oidc or mtls.
        method: Option<String>,
        /// Who was authorised.
        subject: Option<String>,
    }
}

impl JobEnvelope {
    /// The key that deduplicates this job: `execution.idempotency_key`, else the job id.
    pub fn idempotency_key(&self) -> &str {
        self.execution
            .idempotency_key
            .as_deref()
            .unwrap_or(&self.job_id)
    }
}
