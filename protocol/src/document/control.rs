//! Control requests: cancel a job.

use crate::document::document;
use crate::document::envelope::Observability;
use crate::record::{default_or, default_text, json_name, record, words};
use crate::timestamp::Timestamp;

words! {
    /// `action` of a control request.
    pub enum ControlAction {
        /// Stop the job, or never start it.
        Cancel = "cancel",
    }
}

record! {
    /// A request about a job.
    plain pub struct JobControl {
        /// The job; also the record key.
        job_id: String,
        /// What to do: cancel.
        action: ControlAction,
        /// When it was asked for.
        requested_at: Timestamp,
        /// Who asked.
        requested_by: Option<String>,
        /// Why, for people; stands in the job's result.
        reason: Option<String>,
        /// Trace and correlation ids of the request.
        observability: Observability,
    }
}
document!(JobControl, "job_control");

impl JobControl {
    /// A cancel request.
    pub fn cancel(job_id: impl Into<String>, requested_at: Timestamp) -> Self {
        Self {
            job_id: job_id.into(),
            action: ControlAction::Cancel,
            requested_at,
            requested_by: None,
            reason: None,
            observability: Observability::default(),
            extensions: Default::default(),
        }
    }
}
