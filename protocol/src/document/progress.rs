//! Progress events: how far a running job is.

use crate::document::document;
use crate::document::envelope::Observability;
use crate::record::{default_or, default_text, json_name, record};
use crate::timestamp::Timestamp;
use std::collections::BTreeMap;

record! {
    /// How far a running job is.
    plain pub struct JobProgress {
        /// The job.
        job_id: String,
        /// When the handler said so.
        timestamp: Timestamp,
        /// Rises within the attempt and run, from 1.
        sequence: u64,
        /// The attempt, from 1.
        attempt: u32 = 1,
        /// The run, from 1: how often the job was started.
        run: u32 = 1,
        /// What is being done.
        phase: String,
        /// 0 to 100, where it is known.
        progress_percent: Option<f64>,
        /// For people.
        message: Option<String>,
        /// Further facts by name.
        details: BTreeMap<String, String>,
        /// The job's trace and correlation ids.
        observability: Observability,
        /// The worker that runs it.
        worker_id: Option<String>,
    }
}
document!(JobProgress, "job_progress");

impl JobProgress {
    /// An event with the fields that are always there; attempt and run are 1.
    pub fn new(
        job_id: impl Into<String>,
        timestamp: Timestamp,
        sequence: u64,
        phase: impl Into<String>,
    ) -> Self {
        Self {
            job_id: job_id.into(),
            timestamp,
            sequence,
            attempt: 1,
            run: 1,
            phase: phase.into(),
            progress_percent: None,
            message: None,
            details: BTreeMap::new(),
            observability: Observability::default(),
            worker_id: None,
            extensions: Default::default(),
        }
    }
}
