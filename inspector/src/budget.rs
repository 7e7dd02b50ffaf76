//! What one inspection may cost, and what it did cost.

use crate::bytes::wide;
use crate::error::{DiskError, Result};
use crate::read_at::{Layer, ReadAt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of one inspection.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes read from the image files.
    pub bytes: u64,
    /// Reads of the image files.
    pub reads: u64,
    /// Reads asked for by the layers above, cached or not. Bounds work that costs no I/O.
    pub steps: u64,
    /// Wall time from the making of the budget on.
    pub wall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 256 << 20,
            reads: 200_000,
            steps: 20_000_000,
            wall: Duration::from_secs(60),
        }
    }
}

/// What was used of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// Bytes read from the image files.
    pub bytes_read: u64,
    /// Reads of the image files.
    pub reads: u64,
    /// Reads asked for by the layers above.
    pub steps: u64,
    /// Wall time since the budget was made.
    pub elapsed: Duration,
}

/// Limits with their counters, shared by every layer of one inspection.
pub struct Budget {
    limits: Limits,
    clock: Box<dyn Fn() -> Duration + Send + Sync>,
    started: Duration,
    cancelled: Arc<AtomicBool>,
    bytes: AtomicU64,
    reads: AtomicU64,
    steps: AtomicU64,
}

/// The clock is asked at every 32nd step: a step costs less than a microsecond.
const STEPS_PER_CLOCK: u64 = 32;

impl Budget {
    /// A budget that starts now, by `clock` (see [`crate::clock::monotonic`]). Setting `cancelled`
    /// makes the next read fail.
    pub fn new(
        limits: Limits,
        clock: impl Fn() -> Duration + Send + Sync + 'static,
        cancelled: Arc<AtomicBool>,
    ) -> Arc<Self> {
        let started = clock();
        Arc::new(Self {
            limits,
            clock: Box::new(clock),
            started,
            cancelled,
            bytes: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            steps: AtomicU64::new(0),
        })
    }

    /// What was used up to now.
    pub fn spent(&self) -> Spent {
        Spent {
            bytes_read: self.bytes.load(Ordering::Relaxed),
            reads: self.reads.load(Ordering::Relaxed),
            steps: self.steps.load(Ordering::Relaxed),
            elapsed: (self.clock)().saturating_sub(self.started),
        }
    }

    /// Fails when cancelled or late.
    ///
    /// # Errors
    /// `OverBudget`.
    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(over("cancelled".into()));
        }
        if (self.clock)().saturating_sub(self.started) > self.limits.wall {
            return Err(over(format!("{} ms", self.limits.wall.as_millis())));
        }
        Ok(())
    }

    /// Counts one read asked for by a layer above the files.
    ///
    /// # Errors
    /// `OverBudget`.
    pub fn step(&self) -> Result<()> {
        let steps = self.steps.fetch_add(1, Ordering::Relaxed);
        if steps >= self.limits.steps {
            return Err(over(format!("{} steps", self.limits.steps)));
        }
        if steps % STEPS_PER_CLOCK == 0 {
            self.check()?;
        }
        Ok(())
    }

    fn read(&self, len: usize) -> Result<()> {
        let reads = self.reads.fetch_add(1, Ordering::Relaxed);
        if reads >= self.limits.reads {
            return Err(over(format!("{} reads", self.limits.reads)));
        }
        let before = self.bytes.fetch_add(wide(len), Ordering::Relaxed);
        if before.saturating_add(wide(len)) > self.limits.bytes {
            return Err(over(format!("{} bytes", self.limits.bytes)));
        }
        self.check()
    }
}

fn over(budget: String) -> DiskError {
    DiskError::OverBudget { budget }
}

/// Counts and limits the reads of an image file.
pub struct Meter {
    inner: Layer,
    budget: Arc<Budget>,
}

impl Meter {
    /// Charges every read of `inner` to `budget`.
    pub fn new(inner: Layer, budget: Arc<Budget>) -> Self {
        Self { inner, budget }
    }
}

impl ReadAt for Meter {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, position: u64, buf: &mut [u8]) -> Result<()> {
        self.budget.read(buf.len())?;
        self.inner.read_exact_at(position, buf)
    }
}
