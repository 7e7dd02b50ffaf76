//! The engine: which job runs, what its record gets, and what one transaction says.
//!
//! Plain synchronous state. `apply(event, now)` answers with actions; nothing here knows Kafka, a
//! clock or a thread. The words are those of `engine.md`: slot, offset states, key states, ledger
//! records DONE, SLOT and MARK, and the procedures *commit* and *restore*.

pub mod index;
pub mod keys;
pub mod ledger;
pub mod offsets;
pub mod outcome;
mod partition;
mod permits;
pub mod read_steps;
pub mod record;
pub mod transaction;
pub mod write_steps;

mod commit;
pub mod events;
pub mod invariants;

pub use events::{Action, Event, RestoreFailure, Restored, SlotStatus};
pub use keys::ExecId;

use self::index::HashSeed;
use self::keys::Phase;
use self::ledger::FinalStatus;
use self::outcome::{Failure, Outcome};
use self::partition::{Life, Partition, Release, Surroundings, Taken};
use self::permits::Permits;
use self::record::{Job, Millis, Record};
use self::transaction::Epoch;
use commit::Commits;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Says whether this worker pool may run a job: capabilities, handler, disk size.
pub type Admission = Box<dyn Fn(&Job) -> Result<(), Failure> + Send>;

/// What an engine is told at start; constant for the life of the process.
pub struct Config {
    /// Partition count of the ledger: the number of slots.
    pub slots: u32,
    /// Worker id and a random number of this process life.
    pub incarnation: Arc<str>,
    /// `transactional.id` of this process' writer.
    pub transactional_id: Arc<str>,
    /// Topic that results go to: part of DONE's pointer.
    pub results_topic: Arc<str>,
    /// Jobs that may run at the same time.
    pub concurrency: usize,
    /// Secret of the key hashes.
    pub seed: HashSeed,
    /// Records that a partition may hold between its committed and its newest offset.
    pub window_max: usize,
    /// Who may run here.
    pub admission: Admission,
}

/// Records a partition may hold undecided before it is paused: enough for a full look-ahead,
/// little enough that pausing bounds memory (decisions.md: window W).
pub const WINDOW_MAX: usize = 10_000;

/// What happened, for metrics. Each only rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Counters {
    /// Records taken in.
    pub records: u64,
    /// Jobs started.
    pub started: u64,
    /// Results of executed (or refused) jobs committed.
    pub executed: u64,
    /// Outcomes of executions whose partition was lost meanwhile.
    pub outcomes_dropped: u64,
    /// Results for duplicates committed.
    pub duplicates: u64,
    /// Results for conflicts committed.
    pub conflicts: u64,
    /// Repeats dropped.
    pub drops: u64,
    /// Dead letters committed.
    pub dead_letters: u64,
    /// Forwards committed.
    pub forwards: u64,
    /// Transactions committed.
    pub committed: u64,
    /// Transactions aborted.
    pub aborted: u64,
    /// Transactions aborted because the group refused their metadata.
    pub fenced: u64,
    /// Transactions whose outcome was unknown at first.
    pub unknown: u64,
    /// Ledger look-ups.
    pub lookups: u64,
    /// MARKs written.
    pub marks: u64,
    /// Slots that could not be restored.
    pub stopped_unrestored: u64,
    /// Slots whose next record is no longer in the log.
    pub stopped_offset_gone: u64,
    /// Slots whose transaction of unknown outcome could not be read back.
    pub stopped_unresolved: u64,
}

struct Execution {
    partition: u32,
    epoch: Epoch,
    hash: index::KeyHash,
    job: Arc<Job>,
    started: Millis,
    told_to_stop: bool,
}

/// The engine of one worker process.
pub struct Engine {
    config: Config,
    partitions: BTreeMap<u32, Partition>,
    executions: BTreeMap<ExecId, Execution>,
    next_exec: ExecId,
    permits: Permits,
    commits: Commits,
    counters: Counters,
    draining: bool,
    next_deadline_check: Millis,
}

/// How often running jobs are held against their time limits. Limits are seconds; a quarter of one
/// is precise enough and costs nothing.
const DEADLINE_CHECK_MS: i64 = 250;

impl Engine {
    /// An engine that owns nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let permits = Permits::new(config.concurrency);
        Self {
            config,
            partitions: BTreeMap::new(),
            executions: BTreeMap::new(),
            next_exec: 1,
            permits,
            commits: Commits::default(),
            counters: Counters::default(),
            draining: false,
            next_deadline_check: 0,
        }
    }

    /// Takes one event and says what to do. Actions never wait for each other.
    pub fn apply(&mut self, event: Event, now: Millis) -> Vec<Action> {
        let mut actions = Vec::new();
        self.apply_into(event, now, &mut actions);
        self.settle(now, &mut actions);
        actions
    }

    /// Takes several events that happened by `now`, then says what to do.
    pub fn apply_all(
        &mut self,
        events: impl IntoIterator<Item = Event>,
        now: Millis,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        for event in events {
            self.apply_into(event, now, &mut actions);
        }
        self.settle(now, &mut actions);
        actions
    }

    fn apply_into(&mut self, event: Event, now: Millis, actions: &mut Vec<Action>) {
        match event {
            Event::Assigned { partition, epoch } => self.assigned(partition, epoch, actions),
            Event::Restored(restored) => self.restored(*restored, actions),
            Event::RestoreFailed(failure) => self.restore_failed(failure),
            Event::Revoking { partition, epoch } => self.revoking(partition, epoch, actions),
            Event::Lost { partition, epoch } => self.lost(partition, epoch, actions),
            Event::Records {
                partition,
                epoch,
                records,
            } => self.records(partition, epoch, records, now),
            Event::EndOfPartition {
                partition,
                epoch,
                offset,
            } => {
                // While it is released its records are not taken in any more: an end that lies behind
                // them would let the last transaction pass them.
                if let Some(partition) = self.owned(partition, epoch)
                    && partition.life == Life::Running
                    && partition.gone.is_none()
                {
                    partition.offsets.end_of_partition(offset);
                }
            }
            Event::OffsetGone {
                partition,
                epoch,
                position,
                log,
            } => self.offset_gone(partition, epoch, position, log),
            Event::MarkAcked {
                partition,
                epoch,
                number,
            } => self.mark_acked(partition, epoch, number),
            Event::MarkFailed {
                partition,
                epoch,
                number,
            } => self.mark_failed(partition, epoch, number),
            Event::Ended { exec, outcome } => self.ended(exec, outcome, now),
            Event::LedgerRead {
                partition,
                epoch,
                found,
            } => self.ledger_read(partition, epoch, found, now),
            Event::TxEnded { id, outcome } => self.tx_ended(id, outcome, now, actions),
            Event::TxResolved { id, resolutions } => {
                self.tx_resolved(id, &resolutions, now, actions);
            }
            Event::Drain => self.draining = true,
            Event::Tick => {}
        }
    }

    /// Everything that follows from the state, whatever event brought it there.
    fn settle(&mut self, now: Millis, actions: &mut Vec<Action>) {
        self.check_deadlines(now, actions);
        self.ask_ledger(actions);
        self.write_marks(actions);
        self.start_ready(now, actions);
        self.begin_transaction(now, actions);
        self.finish_releases(actions);
        self.press_back(actions);
    }

    fn owned(&mut self, partition: u32, epoch: Epoch) -> Option<&mut Partition> {
        self.partitions
            .get_mut(&partition)
            .filter(|owned| owned.epoch == epoch)
    }

    fn assigned(&mut self, partition: u32, epoch: Epoch, actions: &mut Vec<Action>) {
        let is_slot = partition < self.config.slots;
        self.partitions
            .insert(partition, Partition::new(partition, epoch, is_slot));
        actions.push(Action::Restore { partition, epoch });
    }

    fn restored(&mut self, restored: Restored, actions: &mut Vec<Action>) {
        let Some(partition) = self.owned(restored.partition, restored.epoch) else {
            return;
        };
        if partition.life != Life::Restoring {
            return;
        }
        let (slot_next, settled) = restored
            .slot
            .as_ref()
            .map_or((0, &[][..]), |slot| (slot.next_offset, &slot.settled));
        let start = restored
            .committed
            .unwrap_or(0)
            .max(slot_next)
            .max(restored.log_start);
        partition.offsets = offsets::Offsets::starting_at(start, settled);
        partition.index = restored.index;
        partition.rejected = restored.rejected;
        // A group that has the offset already needs no transaction to hear it again.
        partition.sent_offset = restored.committed.or(Some(start));
        partition.life = Life::Running;
        actions.push(Action::Consume {
            partition: restored.partition,
            epoch: restored.epoch,
            offset: start,
        });
    }

    fn restore_failed(&mut self, failure: RestoreFailure) {
        if let Some(partition) = self.owned(failure.partition, failure.epoch) {
            partition.life = Life::Stopped(failure.reason);
            self.counters.stopped_unrestored += 1;
        }
    }

    /// Nothing more is taken in: the jobs between are lost, and only a person may say that the rest
    /// goes on without them. What was read before is finished and committed.
    fn offset_gone(&mut self, number: u32, epoch: Epoch, position: i64, (first, end): (i64, i64)) {
        let Some(partition) = self.owned(number, epoch) else {
            return;
        };
        if partition.gone.is_some() {
            return;
        }
        partition.gone = Some(if position < first {
            format!(
                "the next offset {position} lies before the log's start {first}: records were deleted unread; see \"lost records\" in the operations guide, then reset the group's offset on purpose"
            )
        } else {
            format!(
                "the next offset {position} lies behind the log's end {end}: the topic was truncated or made anew; see \"lost records\" in the operations guide"
            )
        });
        self.counters.stopped_offset_gone += 1;
    }

    /// Drain of one partition: claims nothing new, cancels what runs, commits what is finished.
    fn revoking(&mut self, number: u32, epoch: Epoch, actions: &mut Vec<Action>) {
        if self.owned(number, epoch).is_none() {
            actions.push(Action::Released {
                partition: number,
                epoch,
            });
            return;
        }
        self.stop_executions(number, epoch, actions);
        let unresolved = self.commits.is_unknown();
        if let Some(partition) = self.owned(number, epoch) {
            let can_commit = partition.life == Life::Running && !unresolved;
            partition.lookups.clear();
            partition.marks.pending.clear();
            partition.life = if can_commit {
                Life::Releasing(Release::Wanted)
            } else {
                actions.push(Action::Released {
                    partition: number,
                    epoch,
                });
                Life::Releasing(Release::Over)
            };
        }
        self.permits.forget(number, epoch);
    }

    fn lost(&mut self, number: u32, epoch: Epoch, actions: &mut Vec<Action>) {
        if self.owned(number, epoch).is_some() {
            self.partitions.remove(&number);
            self.permits.forget(number, epoch);
            self.stop_executions(number, epoch, actions);
        }
    }

    fn stop_executions(&mut self, number: u32, epoch: Epoch, actions: &mut Vec<Action>) {
        for (exec, execution) in &mut self.executions {
            if execution.partition == number && execution.epoch == epoch && !execution.told_to_stop
            {
                execution.told_to_stop = true;
                actions.push(Action::Stop { exec: *exec });
            }
        }
    }

    fn records(&mut self, number: u32, epoch: Epoch, records: Vec<Record>, now: Millis) {
        let around = Surroundings {
            seed: self.config.seed,
            slots: self.config.slots,
            results_topic: &self.config.results_topic,
            admit: &*self.config.admission,
            now,
        };
        let Some(partition) = self.partitions.get_mut(&number).filter(|owned| {
            owned.epoch == epoch && owned.life == Life::Running && owned.gone.is_none()
        }) else {
            return;
        };
        for record in records {
            self.counters.records += 1;
            if let Taken::Queue(hash, priority) = partition.take(record, &around) {
                self.permits.queue(number, epoch, hash, priority);
            }
        }
    }

    fn ledger_read(
        &mut self,
        number: u32,
        epoch: Epoch,
        found: Vec<(index::KeyHash, Option<events::LedgerAnswer>)>,
        now: Millis,
    ) {
        let around = Surroundings {
            seed: self.config.seed,
            slots: self.config.slots,
            results_topic: &self.config.results_topic,
            admit: &*self.config.admission,
            now,
        };
        let Some(partition) = self
            .partitions
            .get_mut(&number)
            .filter(|owned| owned.epoch == epoch && owned.life == Life::Running)
        else {
            return;
        };
        for (hash, answer) in found {
            // Another key with the same hash, or one that has expired, is no answer.
            let done = answer.and_then(|answer| {
                let same = partition
                    .keys
                    .get(&hash)
                    .is_some_and(|key| *key.text == *answer.key);
                same.then_some(answer.done)
            });
            if let Taken::Queue(hash, priority) = partition.looked_up(hash, done, &around) {
                self.permits.queue(number, epoch, hash, priority);
            }
        }
    }

    fn ended(&mut self, exec: ExecId, outcome: Outcome, now: Millis) {
        let Some(execution) = self.executions.remove(&exec) else {
            return;
        };
        self.permits.ended(now);
        let results_topic = self.config.results_topic.clone();
        let mut counts = false;
        if let Some(partition) = self.owned(execution.partition, execution.epoch)
            && partition.life == Life::Running
            && partition
                .keys
                .get(&execution.hash)
                .is_some_and(|key| key.phase == Phase::Local(exec))
        {
            partition.finish(execution.hash, Arc::new(outcome), &results_topic, now);
            counts = true;
        }
        if !counts {
            self.counters.outcomes_dropped += 1;
        }
    }

    fn check_deadlines(&mut self, now: Millis, actions: &mut Vec<Action>) {
        if now < self.next_deadline_check {
            return;
        }
        self.next_deadline_check = now + DEADLINE_CHECK_MS;
        let mut over = Vec::new();
        for (exec, execution) in &mut self.executions {
            let limit = execution.started.saturating_add(execution.job.timeout_ms);
            let deadline = execution.job.deadline.unwrap_or(i64::MAX);
            if !execution.told_to_stop && now >= limit.min(deadline) {
                execution.told_to_stop = true;
                over.push((*exec, deadline <= limit));
            }
        }
        for (exec, by_deadline) in over {
            actions.push(Action::Stop { exec });
            let Some(execution) = self.executions.get(&exec) else {
                continue;
            };
            let failure = if by_deadline {
                deadline_exceeded(&execution.job)
            } else {
                Failure::lasting(
                    "TIMEOUT",
                    format!(
                        "ran for {} ms without an end: raise execution.timeout_seconds if it needs longer",
                        execution.job.timeout_ms
                    ),
                )
            };
            let mut outcome = Outcome::unsuccessful(FinalStatus::Timeout, failure, now);
            outcome.started_at = execution.started;
            let (number, epoch, hash) = (execution.partition, execution.epoch, execution.hash);
            let results_topic = self.config.results_topic.clone();
            if let Some(partition) = self.owned(number, epoch)
                && partition.life == Life::Running
            {
                partition.finish(hash, Arc::new(outcome), &results_topic, now);
            }
        }
    }

    fn ask_ledger(&mut self, actions: &mut Vec<Action>) {
        for partition in self.partitions.values_mut() {
            if !partition.lookups.is_empty() {
                let lookups = std::mem::take(&mut partition.lookups);
                self.counters.lookups += lookups.len() as u64;
                actions.push(Action::ReadLedger {
                    partition: partition.number,
                    epoch: partition.epoch,
                    lookups,
                });
            }
        }
    }

    /// Full means pause, not buffer.
    fn press_back(&mut self, actions: &mut Vec<Action>) {
        for partition in self.partitions.values_mut() {
            let full = partition.offsets.len() >= self.config.window_max;
            // Half empty before it goes on: a pause throws fetched records away.
            let has_room = partition.offsets.len() <= self.config.window_max / 2;
            if full && !partition.paused {
                partition.paused = true;
                actions.push(Action::Pause {
                    partition: partition.number,
                    epoch: partition.epoch,
                });
            } else if has_room && partition.paused {
                partition.paused = false;
                actions.push(Action::Resume {
                    partition: partition.number,
                    epoch: partition.epoch,
                });
            }
        }
    }

    /// Counters since start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Jobs that run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.executions.len()
    }

    /// The ids of the jobs that run.
    pub fn running_jobs(&self) -> impl Iterator<Item = &str> {
        self.executions.values().map(|running| &*running.job.job_id)
    }

    /// Records read that no transaction has taken yet, over all partitions: what back-pressure looks
    /// at. It bounds transactions too, since each takes everything decided.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let waiting = |p: &Partition| p.undecided + p.decided.len();
        self.partitions.values().map(waiting).sum()
    }

    /// Jobs that run and whose outcome still counts.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.executions
            .values()
            .filter(|execution| !execution.told_to_stop)
            .count()
    }

    /// Bytes of records read and not decided.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.partitions.values().map(|p| p.held_bytes).sum()
    }

    /// Whether nothing runs, waits for a transaction or is in one.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.executions.is_empty()
            && self.commits.is_idle()
            && self.partitions.values().all(|p| !p.has_news())
    }

    /// State of each partition, for people and health checks.
    #[must_use]
    pub fn status(&self) -> Vec<SlotStatus> {
        self.partitions
            .values()
            .map(|partition| self.slot_status(partition))
            .collect()
    }

    fn slot_status(&self, partition: &Partition) -> SlotStatus {
        let (state, reason) = match (&partition.life, &partition.gone) {
            (Life::Restoring, _) => ("restoring", None),
            (Life::Running, None) => ("running", None),
            (Life::Running, Some(reason)) | (Life::Stopped(reason), _) => ("stopped", Some(reason)),
            (Life::Releasing(_), _) => ("releasing", None),
        };
        let here = |execution: &&Execution| {
            execution.partition == partition.number && execution.epoch == partition.epoch
        };
        let running = self.executions.values().filter(here).map(|exec| exec.hash);
        SlotStatus {
            partition: partition.number,
            state,
            reason: reason.cloned(),
            restored: partition.sent_offset.is_some(),
            next_offset: partition.offsets.next_offset(None),
            position: partition.offsets.position(),
            undecided: partition.undecided,
            uncommitted: partition.decided.len()
                + self.commits.records_of(partition.number, partition.epoch),
            settled_unread: partition.offsets.settled_unread(),
            oldest_waiting_ms: partition.offsets.oldest(&partition.offsets_of(running)),
            keys: partition.index.len(),
            index_bytes: partition.index.heap_bytes(),
            paused: partition.paused,
        }
    }

    /// When `apply` wants to be called again, if nothing happens before.
    #[must_use]
    pub fn next_wake(&self, now: Millis) -> Option<Millis> {
        let deadlines = (!self.executions.is_empty()).then_some(self.next_deadline_check);
        let commit = self.commit_due(now);
        let marks = self.permits.retry_at();
        [deadlines, commit, marks].into_iter().flatten().min()
    }
}

fn deadline_exceeded(job: &Job) -> Failure {
    Failure::lasting(
        "DEADLINE_EXCEEDED",
        format!(
            "execution.deadline of job {} has passed: publish it again with a later one",
            job.job_id
        ),
    )
}
