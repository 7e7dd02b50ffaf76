//! Who may start next: queue → MARK → permit.
//!
//! A job starts only when a MARK that names its offset is durable. To keep permits busy, MARK names
//! a look-ahead beyond what can run at once, in proportion to how fast jobs have been ending: one
//! acknowledgement then covers many short jobs, and hardly more than the running ones when jobs
//! are long.

use super::index::KeyHash;
use super::keys::Phase;
use super::ledger::Mark;
use super::outcome::Outcome;
use super::partition::Life;
use super::record::Millis;
use super::transaction::{Epoch, MarkWrite};
use super::{Action, Engine, Execution, FinalStatus, deadline_exceeded};
use std::collections::VecDeque;
use std::sync::Arc;

/// Look-ahead: as many jobs as ended in this time. An acknowledgement takes 2 to 20 ms; the rest is
/// there to write few MARKs, each of which costs the broker as much as a hundred results.
const LOOK_AHEAD_MS: i64 = 150;
/// Most jobs in the look-ahead, whatever the speed: bounds the size of a MARK.
const LOOK_AHEAD_MAX: usize = 12_288;
/// Pause before a MARK that failed is written again.
const MARK_RETRY_MS: i64 = 200;
/// Priorities run from 1 to 10.
const PRIORITIES: usize = 11;

#[derive(Debug, Clone, Copy)]
struct Waiting {
    partition: u32,
    epoch: Epoch,
    hash: KeyHash,
}

/// First in, first out within a priority; higher priorities first.
#[derive(Debug)]
struct Queue {
    lanes: [VecDeque<Waiting>; PRIORITIES],
    len: usize,
}

impl Queue {
    fn new() -> Self {
        Self {
            lanes: std::array::from_fn(|_| VecDeque::new()),
            len: 0,
        }
    }

    fn push(&mut self, waiting: Waiting, priority: u8) {
        let lane = usize::from(priority).min(PRIORITIES - 1);
        self.lanes[lane].push_back(waiting);
        self.len += 1;
    }

    fn pop(&mut self) -> Option<(Waiting, u8)> {
        if self.len == 0 {
            return None;
        }
        for (priority, lane) in self.lanes.iter_mut().enumerate().rev() {
            if let Some(waiting) = lane.pop_front() {
                self.len -= 1;
                return Some((waiting, priority as u8));
            }
        }
        None
    }

    fn retain(&mut self, keep: impl Fn(&Waiting) -> bool) {
        for lane in &mut self.lanes {
            lane.retain(&keep);
        }
        self.len = self.lanes.iter().map(VecDeque::len).sum();
    }
}

/// Permits of the process and who waits for them.
#[derive(Debug)]
pub(super) struct Permits {
    concurrency: usize,
    queued: Queue,
    ready: Queue,
    next_mark: u64,
    ended_window: usize,
    ended_before: usize,
    window_began: Millis,
    retry_at: Option<Millis>,
}

impl Permits {
    pub(super) fn new(concurrency: usize) -> Self {
        Self {
            concurrency: concurrency.max(1),
            queued: Queue::new(),
            ready: Queue::new(),
            next_mark: 1,
            ended_window: 0,
            ended_before: 0,
            window_began: 0,
            retry_at: None,
        }
    }

    pub(super) fn queue(&mut self, partition: u32, epoch: Epoch, hash: KeyHash, priority: u8) {
        let waiting = Waiting {
            partition,
            epoch,
            hash,
        };
        self.queued.push(waiting, priority);
    }

    pub(super) fn forget(&mut self, partition: u32, epoch: Epoch) {
        let others = |waiting: &Waiting| waiting.partition != partition || waiting.epoch != epoch;
        self.queued.retain(others);
        self.ready.retain(others);
    }

    pub(super) fn ended(&mut self, now: Millis) {
        if now - self.window_began >= LOOK_AHEAD_MS {
            let skipped = now - self.window_began >= 2 * LOOK_AHEAD_MS;
            self.ended_before = if skipped { 0 } else { self.ended_window };
            self.ended_window = 0;
            self.window_began = now;
        }
        self.ended_window += 1;
    }

    pub(super) fn retry_at(&self) -> Option<Millis> {
        self.retry_at
    }

    fn look_ahead(&self) -> usize {
        self.ended_before
            .max(self.ended_window)
            .clamp(self.concurrency, LOOK_AHEAD_MAX)
    }
}

impl Engine {
    /// Whether jobs wait that could start if this process were not full.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.permits.queued.len + self.permits.ready.len
    }

    pub(super) fn write_marks(&mut self, actions: &mut Vec<Action>) {
        if self.draining {
            self.permits.queued.retain(|_| false);
        }
        let marking: usize = self
            .partitions
            .values()
            .map(|partition| partition.marks.marking())
            .sum();
        let look_ahead = self.permits.look_ahead();
        let spare = self.permits.ready.len + marking;
        // Half of it may be used up before it is filled again.
        let room = if spare > look_ahead / 2 {
            0
        } else {
            (self.permits.concurrency + look_ahead).saturating_sub(self.executions.len() + spare)
        };
        for _ in 0..room {
            let Some((waiting, _)) = self.permits.queued.pop() else {
                break;
            };
            let Some(partition) = self.partitions.get_mut(&waiting.partition) else {
                continue;
            };
            if partition.epoch != waiting.epoch || partition.life != Life::Running {
                continue;
            }
            let Some(key) = partition.keys.get_mut(&waiting.hash) else {
                continue;
            };
            if key.phase != Phase::Queued {
                continue;
            }
            key.phase = Phase::Marking;
            if let Some(opener) = key.claims.first() {
                partition.marks.permitted.insert(opener.record.offset);
            }
            partition.marks.pending.push(waiting.hash);
        }
        self.send_marks(actions);
    }

    fn send_marks(&mut self, actions: &mut Vec<Action>) {
        if self.permits.retry_at.is_some() {
            return;
        }
        for partition in self.partitions.values_mut() {
            let wanted = !partition.marks.pending.is_empty()
                // A successor must be able to fence us before we write a first transaction.
                || (!partition.marks.durable && partition.has_news());
            if !wanted
                || !partition.is_slot
                || partition.life != Life::Running
                || partition.marks.in_flight.is_some()
            {
                continue;
            }
            let number = self.permits.next_mark;
            self.permits.next_mark += 1;
            let keys = std::mem::take(&mut partition.marks.pending);
            partition.marks.in_flight = Some((number, keys));
            self.counters.marks += 1;
            actions.push(Action::WriteMark(MarkWrite {
                partition: partition.number,
                epoch: partition.epoch,
                number,
                mark: Mark {
                    incarnation: self.config.incarnation.clone(),
                    transactional_id: self.config.transactional_id.clone(),
                    offsets: partition.marks.ranges(),
                },
            }));
        }
    }

    pub(super) fn mark_acked(&mut self, number: u32, epoch: Epoch, mark: u64) {
        let Some(partition) = self
            .partitions
            .get_mut(&number)
            .filter(|owned| owned.epoch == epoch)
        else {
            return;
        };
        if partition.marks.in_flight.as_ref().map(|(n, _)| *n) != Some(mark) {
            return;
        }
        let keys = partition
            .marks
            .in_flight
            .take()
            .map_or_else(Vec::new, |(_, keys)| keys);
        partition.marks.durable = true;
        for hash in keys {
            let Some(key) = partition.keys.get_mut(&hash) else {
                continue;
            };
            if key.phase == Phase::Marking && partition.life == Life::Running {
                key.phase = Phase::Ready;
                let priority = key.opener().map_or(5, |job| job.priority);
                let waiting = Waiting {
                    partition: number,
                    epoch,
                    hash,
                };
                self.permits.ready.push(waiting, priority);
            }
        }
    }

    pub(super) fn mark_failed(&mut self, number: u32, epoch: Epoch, mark: u64) {
        let Some(partition) = self.owned(number, epoch) else {
            return;
        };
        if partition.marks.in_flight.as_ref().map(|(n, _)| *n) == Some(mark)
            && let Some((_, keys)) = partition.marks.in_flight.take()
        {
            partition.marks.pending.extend(keys);
            self.permits.retry_at = Some(0);
        }
    }

    pub(super) fn start_ready(&mut self, now: Millis, actions: &mut Vec<Action>) {
        match self.permits.retry_at {
            Some(0) => self.permits.retry_at = Some(now + MARK_RETRY_MS),
            Some(at) if at <= now => {
                self.permits.retry_at = None;
                self.send_marks(actions);
            }
            _ => {}
        }
        if self.draining {
            return;
        }
        while self.executions.len() < self.permits.concurrency {
            let Some((waiting, _)) = self.permits.ready.pop() else {
                return;
            };
            self.start(waiting, now, actions);
        }
    }

    fn start(&mut self, waiting: Waiting, now: Millis, actions: &mut Vec<Action>) {
        let results_topic = self.config.results_topic.clone();
        let exec = self.next_exec;
        let Some(partition) = self.owned(waiting.partition, waiting.epoch) else {
            return;
        };
        let Some(key) = partition.keys.get_mut(&waiting.hash) else {
            return;
        };
        let Some(job) = key.opener().cloned() else {
            return;
        };
        if key.phase != Phase::Ready {
            return;
        }
        if job.deadline.is_some_and(|deadline| deadline <= now) {
            let outcome = Outcome::unsuccessful(FinalStatus::Timeout, deadline_exceeded(&job), now);
            partition.finish(waiting.hash, Arc::new(outcome), &results_topic, now);
            return;
        }
        key.phase = Phase::Local(exec);
        self.next_exec += 1;
        self.counters.started += 1;
        self.executions.insert(
            exec,
            Execution {
                partition: waiting.partition,
                epoch: waiting.epoch,
                hash: waiting.hash,
                job: job.clone(),
                started: now,
                told_to_stop: false,
            },
        );
        actions.push(Action::Start {
            exec,
            job,
            attempt: 1,
            run: 1,
        });
    }
}
