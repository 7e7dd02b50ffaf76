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
    /// Bytes of the answer.
    pub output: u64,
    /// Memory of a confined child, in bytes: held by the kernel, not by the budget.
    pub memory: u64,
    /// Processor time of a confined child: held by the kernel, not by the budget.
    pub cpu: Duration,
}

impl Limits {
    /// What an inspection may cost unless said otherwise.
    pub const DEFAULT: Self = Self {
        bytes: 256 << 20,
        reads: 200_000,
        steps: 20_000_000,
        wall: Duration::from_secs(60),
        output: 32 << 20,
        memory: 512 << 20,
        cpu: Duration::from_secs(30),
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
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
        if steps.is_multiple_of(STEPS_PER_CLOCK) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Memory;

    fn metered(limits: Limits) -> (Meter, Arc<Budget>, Arc<AtomicU64>, Arc<AtomicBool>) {
        let now = Arc::new(AtomicU64::new(0));
        let cancelled = Arc::new(AtomicBool::new(false));
        let clock = Arc::clone(&now);
        let clock = move || Duration::from_millis(clock.load(Ordering::Relaxed));
        let budget = Budget::new(limits, clock, Arc::clone(&cancelled));
        let meter = Meter::new(Arc::new(Memory(vec![7; 1000])), Arc::clone(&budget));
        (meter, budget, now, cancelled)
    }

    #[test]
    fn bytes_and_reads_are_counted_and_limited() {
        let (meter, budget, ..) = metered(Limits {
            bytes: 100,
            reads: 3,
            ..Limits::default()
        });
        meter.read_exact_at(0, &mut [0; 60]).unwrap();
        meter.read_exact_at(0, &mut [0; 40]).unwrap();
        assert_eq!((budget.spent().bytes_read, budget.spent().reads), (100, 2));
        let over = meter.read_exact_at(0, &mut [0; 1]).unwrap_err();
        assert_eq!(over.to_string(), "over budget: 100 bytes");
        let over = meter.read_exact_at(0, &mut [0; 1]).unwrap_err();
        assert_eq!(over.to_string(), "over budget: 3 reads");
    }

    #[test]
    fn lateness_and_cancelling_stop_the_next_read() {
        let wall = Duration::from_millis(50);
        let (meter, budget, now, cancelled) = metered(Limits {
            wall,
            ..Limits::default()
        });
        now.store(50, Ordering::Relaxed);
        meter.read_exact_at(0, &mut [0; 1]).unwrap();
        now.store(51, Ordering::Relaxed);
        let late = meter.read_exact_at(0, &mut [0; 1]).unwrap_err();
        assert_eq!(late.to_string(), "over budget: 50 ms");
        now.store(0, Ordering::Relaxed);
        cancelled.store(true, Ordering::Relaxed);
        assert_eq!(
            budget.check().unwrap_err().to_string(),
            "over budget: cancelled"
        );
    }

    #[test]
    fn work_without_reads_is_limited_by_steps() {
        let (_, budget, ..) = metered(Limits {
            steps: 2,
            ..Limits::default()
        });
        assert!(budget.step().is_ok() && budget.step().is_ok());
        assert_eq!(
            budget.step().unwrap_err().to_string(),
            "over budget: 2 steps"
        );
    }
}
