//! A transaction is a value: everything one commit makes visible, all or nothing.

use super::ledger::{Done, Mark, ResultPointer, SlotRecord};
use super::outcome::{Failure, Outcome};
use super::record::{Invalid, Job, RawRecord};
use std::sync::Arc;

/// Number of a transaction within one process life.
pub type TxId = u64;

/// Which assignment of a partition something belongs to. Rises with every assignment in a process.
pub type Epoch = u64;

/// A result to publish; key and partition come from the job.
#[derive(Debug, Clone)]
pub enum ResultRecord {
    /// The job of the key ran, or was refused.
    Executed {
        /// The job.
        job: Arc<Job>,
        /// How it ended.
        outcome: Arc<Outcome>,
        /// Attempt.
        attempt: u32,
    },
    /// The same payload under a key that is answered: nothing ran.
    Duplicate {
        /// The job that asked again.
        job: Arc<Job>,
        /// The key's answer.
        original: Arc<Done>,
    },
    /// Another payload under a key that is taken.
    Conflict {
        /// The job that came second.
        job: Arc<Job>,
        /// The job that has the key.
        original: ResultPointer,
    },
    /// An invalid record whose job id can be read.
    Rejected {
        /// The job id.
        job_id: Arc<str>,
        /// What is wrong with it.
        invalid: Arc<Invalid>,
    },
}

impl ResultRecord {
    /// Record key.
    #[must_use]
    pub fn job_id(&self) -> &Arc<str> {
        match self {
            Self::Executed { job, .. }
            | Self::Duplicate { job, .. }
            | Self::Conflict { job, .. } => &job.job_id,
            Self::Rejected { job_id, .. } => job_id,
        }
    }
}

/// Why a record went to the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The record as it came.
    pub raw: Arc<RawRecord>,
    /// Its offset.
    pub offset: i64,
    /// Short, for machines: an error code or `JOB_ID_REUSED`.
    pub reason: &'static str,
    /// Long, for people.
    pub message: String,
}

/// What a record of the jobs topic gets.
#[derive(Debug, Clone)]
pub enum Decision {
    /// A repeat of a job whose id has its answer: counted, nothing is published.
    Drop,
    /// The dead letters.
    DeadLetter(DeadLetter),
    /// The dead letters, and a failed result for its job id.
    Reject(DeadLetter, ResultRecord),
    /// Its slot is another partition.
    Forward(u32, Arc<RawRecord>),
    /// A result.
    Answer(ResultRecord),
}

/// Everything a transaction writes for one partition of the jobs topic.
#[derive(Debug, Clone)]
pub struct PartitionCommit {
    /// The partition.
    pub partition: u32,
    /// The assignment under which it was decided.
    pub epoch: Epoch,
    /// Offset to commit to the consumer group: sent always, even when it did not move.
    pub next_offset: i64,
    /// SLOT; none for partitions beyond the ledger's count.
    pub slot: Option<SlotRecord>,
    /// Answers of keys: record key and DONE.
    pub done: Vec<(Arc<[u8]>, Arc<Done>)>,
    /// What was decided, by offset, in the order of deciding. Results keep the partition number.
    pub decisions: Arc<Vec<(i64, Decision)>>,
}

/// One transaction.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// Its number.
    pub id: TxId,
    /// What it writes, by partition.
    pub partitions: Vec<PartitionCommit>,
}

/// How a transaction ended, as far as its writer can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxOutcome {
    /// Committed. For each partition, in order: the ledger offsets of its DONE records, in order.
    Committed {
        /// Ledger offsets.
        ledger_offsets: Vec<Vec<i64>>,
    },
    /// Surely not committed, and nothing of it is visible.
    Aborted(AbortReason),
    /// Nobody knows yet. The writer renews its producer and reads back; [`Resolution`] follows.
    Unknown {
        /// What was seen.
        reason: String,
    },
}

/// Why a transaction was aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AbortReason {
    /// A partition in it is no longer owned in that assignment: nothing was sent.
    NotOwned,
    /// The group metadata would not be fenced (generation −1 or an empty member id): nothing sent.
    Unfenceable,
    /// Stale generation, unknown member or fenced instance.
    Fenced(String),
    /// A record is larger than the broker takes.
    TooLarge {
        /// The job whose result it is.
        job_id: Arc<str>,
        /// What the broker said.
        message: String,
    },
    /// Anything else that surely did not commit.
    Other(String),
}

/// What was read back about one partition of a transaction with unknown outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The partition.
    pub partition: u32,
    /// Committed offset of the consumer group.
    pub committed: Option<i64>,
    /// Newest SLOT, read committed to the high watermark.
    pub slot: Option<SlotRecord>,
    /// Ledger offsets of the DONE records of this transaction, by record key, where found.
    pub done: Vec<(Arc<[u8]>, i64)>,
}

impl Resolution {
    /// Whether a record that was decided in the transaction is answered.
    #[must_use]
    pub fn settles(&self, offset: i64) -> bool {
        self.committed.is_some_and(|committed| offset < committed)
            || self.slot.as_ref().is_some_and(|slot| slot.covers(offset))
    }
}

/// A MARK to write, outside any transaction, acked before what it names may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkWrite {
    /// Slot.
    pub partition: u32,
    /// Assignment.
    pub epoch: Epoch,
    /// Number, to match the ack.
    pub number: u64,
    /// The record.
    pub mark: Mark,
}

/// What a refused job is told: used by admission.
pub type Refusal = Failure;
