//! The commit procedure (engine.md, "Commit, step by step"), as far as it is decided here.
//!
//! One transaction at a time. It takes *everything* decided in the partitions it touches: a DONE
//! names the job ids it has answered, so it must never be committed without their results.

use super::index::KeyHash;
use super::ledger::{FinalStatus, SlotRecord};
use super::offsets::OffsetState;
use super::outcome::{Failure, Outcome};
use super::partition::{Life, Partition, Release};
use super::record::Millis;
use super::transaction::{
    AbortReason, Decision, Epoch, PartitionCommit, Resolution, ResultRecord, Transaction, TxId,
    TxOutcome,
};
use super::{Action, Counters, Engine};
use std::sync::Arc;

/// Records in one transaction from which on it pays to wait for more: a transaction over twelve
/// partitions costs about 20 ms of two cores, whatever it holds.
const BUSY_RECORDS: usize = 256;
/// How long after the last transaction the next one waits for more records when the last one was
/// busy. While there is a backlog this is what keeps transactions large and few.
const LINGER_MS: i64 = 25;
/// Records that go at once, however busy: by then a transaction's own cost is spread thin. (How large
/// it can grow is bounded by what may wait in the engine.)
const BATCH_RECORDS: usize = 6_000;
/// Pause after a transaction that was refused, before the next: membership needs a moment.
const REFUSED_PAUSE_MS: i64 = 50;
/// Pause after a transaction that the broker failed for another reason.
const FAILED_PAUSE_MS: i64 = 300;

#[derive(Debug)]
struct Part {
    partition: u32,
    epoch: Epoch,
    next_offset: i64,
    keys: Vec<KeyHash>,
    texts: Vec<Arc<[u8]>>,
    decisions: Arc<Vec<(i64, Decision)>>,
}

#[derive(Debug)]
struct InFlight {
    id: TxId,
    parts: Vec<Part>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    InFlight(InFlight),
    Unknown(InFlight),
}

/// The transaction in flight and the pace of the next.
#[derive(Debug, Default)]
pub(super) struct Commits {
    state: State,
    last: TxId,
    last_records: usize,
    last_ended: Millis,
    not_before: Millis,
}

impl Commits {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.state, State::Unknown(_))
    }

    /// Records of a partition in the transaction that is not known to be committed.
    pub(super) fn records_of(&self, number: u32, epoch: Epoch) -> usize {
        match &self.state {
            State::Idle => 0,
            State::InFlight(tx) | State::Unknown(tx) => tx
                .parts
                .iter()
                .filter(|part| part.partition == number && part.epoch == epoch)
                .map(|part| part.decisions.len())
                .sum(),
        }
    }

    fn touches(&self, number: u32, epoch: Epoch) -> bool {
        match &self.state {
            State::Idle => false,
            State::InFlight(tx) | State::Unknown(tx) => tx
                .parts
                .iter()
                .any(|part| part.partition == number && part.epoch == epoch),
        }
    }
}

impl Engine {
    /// When the next transaction is due; `None` while there is nothing to commit or one in flight.
    pub(super) fn commit_due(&self, now: Millis) -> Option<Millis> {
        if !self.commits.is_idle() {
            return None;
        }
        let mut oldest: Option<Millis> = None;
        let mut records = 0;
        let mut urgent = false;
        for partition in self.partitions.values() {
            if !partition.may_commit() {
                continue;
            }
            records += partition.decided.len();
            urgent |= matches!(partition.life, Life::Releasing(_));
            let since = if partition.decided.is_empty() {
                now
            } else {
                partition.decided_since
            };
            oldest = Some(oldest.map_or(since, |oldest: Millis| oldest.min(since)));
        }
        let oldest = oldest?;
        if urgent {
            return Some(now);
        }
        let more_to_come = !self.executions.is_empty() || self.queued() > 0;
        let busy = self.commits.last_records >= BUSY_RECORDS && records < BATCH_RECORDS;
        let due = if more_to_come && busy {
            oldest.max(self.commits.last_ended) + LINGER_MS
        } else {
            oldest
        };
        Some(due.max(self.commits.not_before))
    }

    pub(super) fn begin_transaction(&mut self, now: Millis, actions: &mut Vec<Action>) {
        if self.commit_due(now).is_none_or(|due| due > now) {
            return;
        }
        self.commits.last += 1;
        let id = self.commits.last;
        let mut parts = Vec::new();
        let mut commits = Vec::new();
        for partition in self.partitions.values_mut() {
            if partition.may_commit() {
                let (part, commit) = snapshot(
                    partition,
                    id,
                    self.config.slots,
                    &self.config.transactional_id,
                );
                parts.push(part);
                commits.push(commit);
            }
        }
        self.commits.last_records = parts.iter().map(|part| part.decisions.len()).sum();
        self.commits.state = State::InFlight(InFlight { id, parts });
        actions.push(Action::Commit(Box::new(Transaction {
            id,
            partitions: commits,
        })));
    }

    pub(super) fn tx_ended(
        &mut self,
        id: TxId,
        outcome: TxOutcome,
        now: Millis,
        actions: &mut Vec<Action>,
    ) {
        let State::InFlight(tx) = std::mem::take(&mut self.commits.state) else {
            return;
        };
        if tx.id != id {
            self.commits.state = State::InFlight(tx);
            return;
        }
        self.commits.last_ended = now;
        match outcome {
            TxOutcome::Committed { ledger_offsets } => self.committed(tx, &ledger_offsets),
            TxOutcome::Aborted(reason) => self.aborted(tx, &reason, now),
            TxOutcome::Unknown { .. } => {
                self.counters.unknown += 1;
                self.commits.state = State::Unknown(tx);
                self.give_up_releases(actions);
            }
        }
    }

    fn committed(&mut self, tx: InFlight, ledger_offsets: &[Vec<i64>]) {
        self.counters.committed += 1;
        for (at, part) in tx.parts.into_iter().enumerate() {
            for (_, decision) in part.decisions.iter() {
                count(&mut self.counters, decision);
            }
            let Some(partition) = self.owned(part.partition, part.epoch) else {
                continue;
            };
            for (offset, _) in part.decisions.iter() {
                partition.offsets.set(*offset, OffsetState::Settled);
            }
            partition.sent_offset = Some(part.next_offset);
            let offsets = ledger_offsets.get(at).map_or(&[][..], Vec::as_slice);
            for (n, hash) in part.keys.iter().enumerate() {
                partition.key_committed(*hash, offsets.get(n).copied());
            }
            if let Life::Releasing(release) = &mut partition.life
                && *release == Release::InTransaction(tx.id)
            {
                *release = Release::Committed;
            }
        }
    }

    fn aborted(&mut self, mut tx: InFlight, reason: &AbortReason, now: Millis) {
        self.counters.aborted += 1;
        let pause = match reason {
            AbortReason::Fenced(_) => {
                self.counters.fenced += 1;
                REFUSED_PAUSE_MS
            }
            AbortReason::NotOwned | AbortReason::Unfenceable => REFUSED_PAUSE_MS,
            AbortReason::TooLarge { job_id, message } => {
                self.replace_too_large(&mut tx, job_id, message, now);
                0
            }
            AbortReason::Other(_) => FAILED_PAUSE_MS,
        };
        self.commits.not_before = now + pause;
        for part in tx.parts {
            if let Some(partition) = self.owned(part.partition, part.epoch) {
                put_back(partition, part, tx.id, |_| false);
            }
        }
    }

    /// The broker refused a result for its size: the job fails with a small one that says so.
    fn replace_too_large(&mut self, tx: &mut InFlight, job_id: &str, message: &str, now: Millis) {
        let seed = self.config.seed;
        for part in &mut tx.parts {
            let decisions = Arc::make_mut(&mut part.decisions);
            for (_, decision) in decisions {
                let Decision::Answer(ResultRecord::Executed { job, outcome, .. }) = decision else {
                    continue;
                };
                if *job.job_id != *job_id {
                    continue;
                }
                let failure = Failure::lasting(
                    "RESULT_TOO_LARGE",
                    format!(
                        "the broker refused the result ({message}): give the worker an --artifact-dir or raise max.message.bytes of the results topic"
                    ),
                );
                let mut replaced = Outcome::unsuccessful(FinalStatus::Failed, failure, now);
                replaced.started_at = outcome.started_at;
                replaced.cost = outcome.cost;
                *outcome = Arc::new(replaced);
                let hash = seed.hash(job.key.as_bytes());
                if let Some(partition) = self.partitions.get_mut(&part.partition)
                    && partition.epoch == part.epoch
                {
                    partition.set_status(hash, FinalStatus::Failed);
                }
            }
        }
    }

    /// Step 7: what stands in the ledger and in the group decides, offset by offset.
    pub(super) fn tx_resolved(
        &mut self,
        id: TxId,
        resolutions: &[Resolution],
        now: Millis,
        actions: &mut Vec<Action>,
    ) {
        let State::Unknown(tx) = std::mem::take(&mut self.commits.state) else {
            return;
        };
        if tx.id != id {
            self.commits.state = State::Unknown(tx);
            return;
        }
        self.commits.not_before = now;
        let mut applied = true;
        for part in tx.parts {
            let found = resolutions.iter().find(|r| r.partition == part.partition);
            let Some(found) = found else {
                // Every partition of a transaction is read back, unless it was lost meanwhile.
                if let Some(partition) = self.owned(part.partition, part.epoch) {
                    partition.life = Life::Stopped(
                        "a transaction of unknown outcome could not be read back".to_owned(),
                    );
                    self.counters.stopped_unresolved += 1;
                    self.permits.forget(part.partition, part.epoch);
                    self.stop_executions(part.partition, part.epoch, actions);
                }
                continue;
            };
            let is_settled = |offset: i64| found.settles(offset);
            for (offset, decision) in part.decisions.iter() {
                if is_settled(*offset) {
                    count(&mut self.counters, decision);
                } else {
                    applied = false;
                }
            }
            if let Some(partition) = self.owned(part.partition, part.epoch) {
                let offsets: Vec<Option<i64>> = part
                    .texts
                    .iter()
                    .map(|text| {
                        found
                            .done
                            .iter()
                            .find(|(key, _)| key == text)
                            .map(|(_, offset)| *offset)
                    })
                    .collect();
                let keys = part.keys.clone();
                partition.sent_offset = found.committed.or(partition.sent_offset);
                put_back(partition, part, id, is_settled);
                for (hash, offset) in keys.iter().zip(offsets) {
                    // Where its DONE stands in the ledger, nothing is left to write.
                    if let Some(offset) = offset {
                        partition.key_is_written(*hash, offset);
                    }
                }
            }
        }
        if applied {
            self.counters.committed += 1;
        } else {
            self.counters.aborted += 1;
        }
    }

    /// No transaction may follow one of unknown outcome before it is resolved, and a revoke does
    /// not wait that long: the next owner reads from the ledger what became of it.
    fn give_up_releases(&mut self, actions: &mut Vec<Action>) {
        for partition in self.partitions.values_mut() {
            if let Life::Releasing(release) = &mut partition.life
                && *release != Release::Over
            {
                *release = Release::Over;
                actions.push(Action::Released {
                    partition: partition.number,
                    epoch: partition.epoch,
                });
            }
        }
    }

    pub(super) fn finish_releases(&mut self, actions: &mut Vec<Action>) {
        for partition in self.partitions.values_mut() {
            let over = match &partition.life {
                Life::Releasing(Release::Committed) => true,
                Life::Releasing(Release::Wanted) => {
                    !partition.may_commit()
                        && !self.commits.touches(partition.number, partition.epoch)
                }
                _ => false,
            };
            if over {
                partition.life = Life::Releasing(Release::Over);
                actions.push(Action::Released {
                    partition: partition.number,
                    epoch: partition.epoch,
                });
            }
        }
    }
}

fn snapshot(
    partition: &mut Partition,
    id: TxId,
    slots: u32,
    writer: &Arc<str>,
) -> (Part, PartitionCommit) {
    let decisions = Arc::new(std::mem::take(&mut partition.decided));
    for (offset, _) in decisions.iter() {
        partition
            .offsets
            .set(*offset, OffsetState::InTransaction(id));
    }
    let keys = std::mem::take(&mut partition.dirty);
    let mut done = Vec::with_capacity(keys.len());
    for hash in &keys {
        if let Some(key) = partition.keys.get_mut(hash)
            && let Some(answer) = &key.done
        {
            done.push((key.text.clone(), answer.clone()));
            key.dirty = false;
            key.in_transaction = true;
        }
    }
    let released = matches!(partition.life, Life::Releasing(_));
    if released {
        partition.life = Life::Releasing(Release::InTransaction(id));
    }
    let next_offset = partition.offsets.next_offset(Some(id));
    let slot = partition.is_slot.then(|| SlotRecord {
        partition_count: slots,
        next_offset,
        settled: partition.offsets.settled_beyond(Some(id)),
        writer: writer.clone(),
        released,
    });
    let part = Part {
        partition: partition.number,
        epoch: partition.epoch,
        next_offset,
        texts: done.iter().map(|(text, _)| text.clone()).collect(),
        keys,
        decisions: decisions.clone(),
    };
    let commit = PartitionCommit {
        partition: partition.number,
        epoch: partition.epoch,
        next_offset,
        slot,
        done,
        decisions,
    };
    (part, commit)
}

/// Makes decided again what is not settled, before whatever was decided meanwhile.
fn put_back(partition: &mut Partition, part: Part, id: TxId, is_settled: impl Fn(i64) -> bool) {
    let mut again = Vec::new();
    for (offset, decision) in Arc::unwrap_or_clone(part.decisions) {
        if is_settled(offset) {
            partition.offsets.set(offset, OffsetState::Settled);
        } else {
            partition.offsets.set(offset, OffsetState::Decided);
            again.push((offset, decision));
        }
    }
    again.append(&mut partition.decided);
    partition.decided = again;
    for hash in part.keys {
        partition.key_is_dirty(hash);
    }
    if partition.life == Life::Releasing(Release::InTransaction(id)) {
        partition.life = Life::Releasing(Release::Wanted);
    }
}

fn count(counters: &mut Counters, decision: &Decision) {
    match decision {
        Decision::Drop => counters.drops += 1,
        Decision::DeadLetter(_) | Decision::Reject(..) => counters.dead_letters += 1,
        Decision::Forward(..) => counters.forwards += 1,
        Decision::Answer(ResultRecord::Duplicate { .. }) => counters.duplicates += 1,
        Decision::Answer(ResultRecord::Conflict { .. }) => counters.conflicts += 1,
        Decision::Answer(_) => counters.executed += 1,
    }
}
