//! What the engine is told and what it asks for.

use super::index::{KeyHash, LedgerIndex};
use super::keys::ExecId;
use super::ledger::{Done, SlotRecord};
use super::outcome::Outcome;
use super::record::{Job, Millis, Record};
use super::transaction::{Epoch, MarkWrite, Resolution, Transaction, TxId, TxOutcome};
use std::sync::Arc;

/// What a slot's new owner read (engine.md, "Restore").
#[derive(Debug)]
pub struct Restored {
    /// The partition.
    pub partition: u32,
    /// The assignment.
    pub epoch: Epoch,
    /// The group's committed offset, fetched stably before the high watermark.
    pub committed: Option<i64>,
    /// First offset that the log still has.
    pub log_start: i64,
    /// Newest SLOT.
    pub slot: Option<SlotRecord>,
    /// Answered keys.
    pub index: LedgerIndex,
    /// How many of them remember answers to invalid records.
    pub rejected: u64,
}

/// Why a partition starts nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreFailure {
    /// The partition.
    pub partition: u32,
    /// The assignment.
    pub epoch: Epoch,
    /// For a person.
    pub reason: String,
}

/// A ledger record that was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerAnswer {
    /// Its record key: the index knows only a hash.
    pub key: Vec<u8>,
    /// The answer.
    pub done: Done,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The group gave us a partition. Epochs rise with every assignment.
    Assigned {
        /// The partition.
        partition: u32,
        /// The assignment.
        epoch: Epoch,
    },
    /// Its ledger was read.
    Restored(Box<Restored>),
    /// Its ledger cannot be read.
    RestoreFailed(RestoreFailure),
    /// The group takes it away; it may still commit once. Answered by [`Action::Released`].
    Revoking {
        /// The partition.
        partition: u32,
        /// The assignment.
        epoch: Epoch,
    },
    /// It is gone: nothing of it may be committed.
    Lost {
        /// The partition.
        partition: u32,
        /// The assignment.
        epoch: Epoch,
    },
    /// Records were read, in order.
    Records {
        /// The partition.
        partition: u32,
        /// The assignment.
        epoch: Epoch,
        /// The records.
        records: Vec<Record>,
    },
    /// All records below `offset` were delivered, control records included.
    EndOfPartition {
        /// The partition.
        partition: u32,
        /// The assignment.
        epoch: Epoch,
        /// Offset of the partition's end.
        offset: i64,
    },
    /// The log no longer has the record that was to be read next: retention or a person deleted it.
    OffsetGone {
        /// The partition.
        partition: u32,
        /// The assignment.
        epoch: Epoch,
        /// The offset that was to be read.
        position: i64,
        /// First and last offset that the log has, the last one exclusive.
        log: (i64, i64),
    },
    /// A MARK is durable.
    MarkAcked {
        /// The slot.
        partition: u32,
        /// The assignment.
        epoch: Epoch,
        /// Its number.
        number: u64,
    },
    /// A MARK was not written.
    MarkFailed {
        /// The slot.
        partition: u32,
        /// The assignment.
        epoch: Epoch,
        /// Its number.
        number: u64,
    },
    /// An execution ended.
    Ended {
        /// Which.
        exec: ExecId,
        /// How.
        outcome: Outcome,
    },
    /// Look-ups were answered; `None` where the record has expired.
    LedgerRead {
        /// The slot.
        partition: u32,
        /// The assignment.
        epoch: Epoch,
        /// Answers.
        found: Vec<(KeyHash, Option<LedgerAnswer>)>,
    },
    /// The transaction in flight ended.
    TxEnded {
        /// Its number.
        id: TxId,
        /// How.
        outcome: TxOutcome,
    },
    /// A transaction of unknown outcome was read back.
    TxResolved {
        /// Its number.
        id: TxId,
        /// What stands in each of its partitions.
        resolutions: Vec<Resolution>,
    },
    /// Start nothing more; what runs may end.
    Drain,
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Debug)]
pub enum Action {
    /// Read the ledger of a partition.
    Restore {
        /// The partition.
        partition: u32,
        /// The assignment.
        epoch: Epoch,
    },
    /// Read its records from an offset on.
    Consume {
        /// The partition.
        partition: u32,
        /// The assignment.
        epoch: Epoch,
        /// First offset.
        offset: i64,
    },
    /// Stop reading for a while.
    Pause {
        /// The partition.
        partition: u32,
        /// The assignment.
        epoch: Epoch,
    },
    /// Go on reading.
    Resume {
        /// The partition.
        partition: u32,
        /// The assignment.
        epoch: Epoch,
    },
    /// Write a MARK; answer when it is durable.
    WriteMark(MarkWrite),
    /// Run a job.
    Start {
        /// Number of the execution.
        exec: ExecId,
        /// The job.
        job: Arc<Job>,
        /// Attempt, from 1.
        attempt: u32,
        /// Run, from 1.
        run: u32,
    },
    /// Tell an execution to stop; its outcome no longer counts.
    Stop {
        /// Which.
        exec: ExecId,
    },
    /// Read answers back from the ledger.
    ReadLedger {
        /// The slot.
        partition: u32,
        /// The assignment.
        epoch: Epoch,
        /// Keys and the ledger offsets of their newest records.
        lookups: Vec<(KeyHash, i64)>,
    },
    /// Commit.
    Commit(Box<Transaction>),
    /// A partition being revoked has nothing more to commit.
    Released {
        /// The partition.
        partition: u32,
        /// The assignment.
        epoch: Epoch,
    },
}

/// State of a partition, for people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SlotStatus {
    /// The partition.
    pub partition: u32,
    /// `restoring`, `running`, `stopped` or `releasing`.
    pub state: &'static str,
    /// Why it is stopped.
    pub reason: Option<String>,
    /// Whether its offsets are known: not before it is restored.
    pub restored: bool,
    /// Next offset to commit.
    pub next_offset: i64,
    /// Next offset to read.
    pub position: i64,
    /// Records read and not decided.
    pub undecided: usize,
    /// Records decided whose transaction is not committed yet.
    pub uncommitted: usize,
    /// Offsets from `position` on that an earlier owner settled.
    pub settled_unread: i64,
    /// Timestamp of the oldest record read that neither runs nor is decided.
    pub oldest_waiting_ms: Option<Millis>,
    /// Keys in the dedup index.
    pub keys: usize,
    /// Heap bytes of the dedup index.
    pub index_bytes: usize,
    /// Whether reading is paused because its window is full.
    pub paused: bool,
}
