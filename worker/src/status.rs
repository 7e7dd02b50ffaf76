//! What health checks and people may know of a running worker.

use crate::engine::record::Millis;
use crate::engine::{Counters, Engine, SlotStatus};
use serde::Serialize;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A loop that did not turn for this long is stuck.
const STUCK_MS: Millis = 10_000;

/// A picture of the worker, replaced a few times a second.
#[derive(Debug, Default)]
pub struct Status {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    page: Page,
    draining: bool,
    beats: (u64, Millis),
    polls: (u64, Millis),
}

/// What `/status` shows.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Page {
    /// When it was taken, milliseconds since 1970 UTC.
    pub at_ms: Millis,
    /// Whether the worker leaves.
    pub draining: bool,
    /// Jobs that run.
    pub running: usize,
    /// Jobs that wait for a permit.
    pub queued: usize,
    /// Rebalances so far.
    pub rebalances: u64,
    /// Counters since start.
    pub counters: Counters,
    /// Assigned partitions.
    pub partitions: Vec<SlotStatus>,
}

impl Status {
    /// Takes a new picture.
    pub fn update(&self, now: Millis, engine: &Engine, polls: u64, beats: u64, rebalances: u64) {
        let mut inner = self.lock();
        if inner.beats.0 != beats {
            inner.beats = (beats, now);
        }
        if inner.polls.0 != polls {
            inner.polls = (polls, now);
        }
        inner.page = Page {
            at_ms: now,
            draining: inner.draining,
            running: engine.running(),
            queued: engine.queued(),
            rebalances,
            counters: engine.counters(),
            partitions: engine.status(),
        };
    }

    /// The worker leaves.
    pub fn drain(&self) {
        self.lock().draining = true;
    }

    /// The newest picture.
    #[must_use]
    pub fn page(&self) -> Page {
        self.lock().page.clone()
    }

    /// Whether all loops turn. A lost broker does not stop them, a long job neither.
    #[must_use]
    pub fn is_alive(&self, now: Millis) -> bool {
        let inner = self.lock();
        [inner.page.at_ms, inner.beats.1, inner.polls.1]
            .iter()
            .all(|at| now - at < STUCK_MS)
    }

    /// Whether it takes jobs: assigned, restored, not draining.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let inner = self.lock();
        !inner.draining
            && inner
                .page
                .partitions
                .iter()
                .any(|partition| partition.state == "running")
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each write replaces whole values, so a panic elsewhere cannot have torn them.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
