//! What health checks and people may know of a running worker.

use crate::broker::log_ends::{LogEnd, LogEnds};
use crate::clock::now_ms;
use crate::engine::record::Millis;
use crate::engine::{Counters, Engine, SlotStatus};
use crate::health::Health;
use crate::metrics::Metrics;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A picture of the worker, replaced a few times a second, and what is always up to date.
#[derive(Debug)]
pub struct Status {
    page: Mutex<Page>,
    draining: AtomicBool,
    health: Health,
    metrics: Metrics,
}

/// What `/status` shows.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Page {
    /// When it was taken, milliseconds since 1970 UTC.
    pub at_ms: Millis,
    /// Whether the worker leaves.
    pub draining: bool,
    /// Jobs that run and whose outcome counts.
    pub running: usize,
    /// Jobs that wait for a permit.
    pub queued: usize,
    /// Jobs that may run at the same time.
    pub permits: usize,
    /// Permits taken, by jobs that were told to stop, too.
    pub permits_used: usize,
    /// Rebalances so far.
    pub rebalances: u64,
    /// Progress events that could not be written.
    pub progress_lost: u64,
    /// Partitions that stand still because the schema of their next job cannot be had.
    pub schema_waits: usize,
    /// Partitions of the jobs topic; none before the first answer of a broker.
    pub topic_partitions: Option<u32>,
    /// Counters since start.
    pub counters: Counters,
    /// Assigned partitions.
    pub partitions: Vec<PartitionPage>,
}

/// A partition on the page.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionPage {
    /// What the engine knows of it.
    #[serde(flatten)]
    pub slot: SlotStatus,
    /// First offset that the log has; none before the first answer of a broker.
    pub log_start: Option<i64>,
    /// High watermark.
    pub log_end: Option<i64>,
    /// Records that were not read yet, as well as it can be known.
    pub unread: Option<i64>,
    /// Records without a committed answer: unread, undecided and uncommitted.
    pub backlog: Option<i64>,
}

impl PartitionPage {
    fn new(slot: SlotStatus, log: LogEnd) -> Self {
        let unread = unread(&slot, log);
        let held = i64::try_from(slot.undecided + slot.uncommitted).unwrap_or(i64::MAX);
        Self {
            log_start: log.start,
            log_end: log.end,
            unread,
            backlog: unread.map(|unread| unread.saturating_add(held)),
            slot,
        }
    }
}

fn unread(slot: &SlotStatus, log: LogEnd) -> Option<i64> {
    let end = log.end?;
    if slot.restored {
        // What an earlier owner settled beyond the position was in the log when it did so; the end
        // that is known here may be older.
        return Some((end - slot.position - slot.settled_unread).max(0));
    }
    // What the group has committed, or nothing: then everything that the log holds.
    let from = log.committed.max(log.start)?;
    Some((end - from).max(0))
}

/// What the page shows beside the engine's own state.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Jobs that may run at the same time.
    pub permits: usize,
    /// Rebalances so far.
    pub rebalances: u64,
    /// Progress events that could not be written.
    pub progress_lost: u64,
    /// Partitions that wait for a schema.
    pub schema_waits: usize,
    /// Where partitions end.
    pub log_ends: &'a LogEnds,
}

impl Status {
    /// The status of a worker of this pool that has not started.
    ///
    /// # Errors
    /// When the metrics contradict each other, which is a fault of ours.
    pub fn new(pool: &str) -> prometheus::Result<Self> {
        Ok(Self {
            page: Mutex::default(),
            draining: AtomicBool::new(false),
            health: Health::default(),
            metrics: Metrics::new(pool)?,
        })
    }

    /// Takes a new picture.
    pub fn update(&self, now: Millis, engine: &Engine, around: Surroundings<'_>) {
        let of = |slot: SlotStatus| {
            let log = around.log_ends.of(slot.partition);
            PartitionPage::new(slot, log)
        };
        let page = Page {
            at_ms: now,
            draining: self.draining.load(Ordering::Relaxed),
            running: engine.wanted(),
            queued: engine.queued(),
            permits: around.permits,
            permits_used: engine.running(),
            rebalances: around.rebalances,
            progress_lost: around.progress_lost,
            schema_waits: around.schema_waits,
            topic_partitions: around.log_ends.partitions(),
            counters: engine.counters(),
            partitions: engine.status().into_iter().map(of).collect(),
        };
        *self.lock() = page;
    }

    /// The worker leaves.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.lock().draining = true;
    }

    /// The newest picture.
    #[must_use]
    pub fn page(&self) -> Page {
        self.lock().clone()
    }

    /// The loops that are looked at.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The series.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Loops that do not turn, and for how long. A lost broker does not stop them, a long job neither.
    #[must_use]
    pub fn stuck(&self, now: Millis) -> Vec<(&'static str, Millis)> {
        self.health.stuck(now)
    }

    /// Whether all loops turn now.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.stuck(now_ms()).is_empty()
    }

    /// Whether it takes jobs: assigned, restored, not draining.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let page = self.lock();
        !page.draining
            && page
                .partitions
                .iter()
                .any(|partition| partition.slot.state == "running")
    }

    fn lock(&self) -> MutexGuard<'_, Page> {
        // Each write replaces whole values, so a panic elsewhere cannot have torn them.
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(restored: bool, position: i64, settled_unread: i64) -> SlotStatus {
        SlotStatus {
            partition: 0,
            state: "running",
            reason: None,
            restored,
            next_offset: 0,
            position,
            undecided: 2,
            uncommitted: 3,
            settled_unread,
            oldest_waiting_ms: None,
            keys: 0,
            index_bytes: 0,
            paused: false,
        }
    }

    #[test]
    fn the_backlog_counts_what_nobody_has_answered() {
        let log = LogEnd {
            start: Some(10),
            end: Some(100),
            committed: Some(40),
        };
        let page = |slot, log| {
            let page = PartitionPage::new(slot, log);
            (page.unread, page.backlog)
        };
        assert_eq!(page(slot(true, 60, 15), log), (Some(25), Some(30)));
        assert_eq!(page(slot(true, 100, 0), log).0, Some(0), "idle");
        assert_eq!(page(slot(true, 101, 0), log).0, Some(0), "an old end");
        assert_eq!(page(slot(false, 0, 0), log).0, Some(60), "not restored yet");
        let fresh = LogEnd {
            committed: None,
            ..log
        };
        assert_eq!(page(slot(false, 0, 0), fresh).0, Some(90), "a new group");
        assert_eq!(page(slot(true, 60, 0), LogEnd::default()), (None, None));
    }
}
