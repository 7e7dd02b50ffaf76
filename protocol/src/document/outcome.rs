//! The outcome of an adopted job: what a process found for a slot that it no longer owns.

use crate::document::document;
use crate::document::result::{JobResult, JobStatus};
use crate::record::{default_or, default_text, json_name, record};

record! {
    /// What a process found for a job whose slot it no longer owns. The new owner publishes it if job, run
    /// and holder still match.
    plain pub struct JobOutcome {
        /// The job.
        job_id: String,
        /// The key of the job; also the record key.
        idempotency_key: String,
        /// The run that ended.
        run: u32,
        /// The incarnation that ran it.
        holder: String,
        /// The attempt that ended, from 1.
        attempt: u32 = 1,
        /// How it ended: completed, failed, cancelled or timeout.
        outcome: JobStatus,
        /// The result to publish; result.error says whether another attempt makes sense.
        result: JobResult,
    }
}
document!(JobOutcome, "job_outcome");
