//! The states of an idempotency key while a slot's owner has to think about it.

use super::ledger::Done;
use super::record::{Content, Invalid, Job, Record};
use std::sync::Arc;

/// Number of an execution within one process life.
pub type ExecId = u64;

/// Key states of engine.md that exist without OPEN. Remote and Waiting come with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The index knows it; its DONE is being read from the ledger.
    LookingUp,
    /// May start.
    Queued,
    /// A MARK that names it is on its way.
    Marking,
    /// Its MARK is durable: it waits for a permit.
    Ready,
    /// It runs here.
    Local(ExecId),
    /// Its answer is known; committed when nothing of it is dirty or pending any more.
    Answered,
}

/// A record that waits for its key's answer. The first one of an active key is its opener.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) record: Record,
}

impl Claim {
    pub(super) fn job(&self) -> Option<&Arc<Job>> {
        match &self.record.content {
            Content::Job(job) => Some(job),
            Content::Invalid(_) => None,
        }
    }

    pub(super) fn invalid(&self) -> Option<&Arc<Invalid>> {
        match &self.record.content {
            Content::Job(_) => None,
            Content::Invalid(invalid) => Some(invalid),
        }
    }

    fn job_id(&self) -> Option<&str> {
        match &self.record.content {
            Content::Job(job) => Some(&job.job_id),
            Content::Invalid(invalid) => invalid.job_id.as_deref(),
        }
    }
}

/// A key that is not simply "answered long ago".
#[derive(Debug)]
pub(super) struct Key {
    /// Ledger record key.
    pub(super) text: Arc<[u8]>,
    pub(super) phase: Phase,
    /// Records that wait for the answer, in the order of reading.
    pub(super) claims: Vec<Claim>,
    /// The answer, when `Answered`.
    pub(super) done: Option<Arc<Done>>,
    /// The answer has to be written by the next transaction.
    pub(super) dirty: bool,
    /// The answer is being written by the transaction in flight.
    pub(super) in_transaction: bool,
}

impl Key {
    pub(super) fn active(text: Arc<[u8]>, phase: Phase, claim: Claim) -> Self {
        Self {
            text,
            phase,
            claims: vec![claim],
            done: None,
            dirty: false,
            in_transaction: false,
        }
    }

    pub(super) fn answered(text: Arc<[u8]>, done: Arc<Done>, dirty: bool) -> Self {
        Self {
            text,
            phase: Phase::Answered,
            claims: Vec::new(),
            done: Some(done),
            dirty,
            in_transaction: false,
        }
    }

    /// Whether its answer stands in the ledger just as it is here.
    pub(super) fn is_committed(&self) -> bool {
        self.phase == Phase::Answered && !self.dirty && !self.in_transaction
    }

    /// The waiting record with this job id, if any.
    pub(super) fn claim_of(&self, job_id: &str) -> Option<&Claim> {
        self.claims
            .iter()
            .find(|claim| claim.job_id() == Some(job_id))
    }

    pub(super) fn opener(&self) -> Option<&Arc<Job>> {
        self.claims.first().and_then(Claim::job)
    }
}
