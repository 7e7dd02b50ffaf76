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
    share: Share,
}

/// What the part of the work that runs now may bring the counters to.
struct Share {
    bytes: AtomicU64,
    reads: AtomicU64,
    steps: AtomicU64,
    wall_ms: AtomicU64,
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
            share: Share {
                bytes: AtomicU64::new(limits.bytes),
                reads: AtomicU64::new(limits.reads),
                steps: AtomicU64::new(limits.steps),
                wall_ms: AtomicU64::new(millis(limits.wall)),
            },
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

    /// A further part of the work begins: it may use half of what is left, so that one part that
    /// wants everything leaves something for those behind it.
    pub fn begin_part(&self) {
        let half = |limit: u64, spent: u64| spent.saturating_add(limit.saturating_sub(spent) / 2);
        let spent = self.spent();
        let (limits, share) = (&self.limits, &self.share);
        for (share, limit, spent) in [
            (&share.bytes, limits.bytes, spent.bytes_read),
            (&share.reads, limits.reads, spent.reads),
            (&share.steps, limits.steps, spent.steps),
            (&share.wall_ms, millis(limits.wall), millis(spent.elapsed)),
        ] {
            share.store(half(limit, spent), Ordering::Relaxed);
        }
    }

    /// Fails when cancelled.
    ///
    /// # Errors
    /// `OverBudget`.
    pub fn check_cancelled(&self) -> Result<()> {
        match self.cancelled.load(Ordering::Relaxed) {
            true => Err(over("cancelled".into())),
            false => Ok(()),
        }
    }

    /// Fails when cancelled or late.
    ///
    /// # Errors
    /// `OverBudget`.
    pub fn check(&self) -> Result<()> {
        self.check_cancelled()?;
        let wall_ms = self.share.wall_ms.load(Ordering::Relaxed);
        if millis((self.clock)().saturating_sub(self.started)) > wall_ms {
            return Err(over(format!("{wall_ms} ms")));
        }
        Ok(())
    }

    /// Counts one read asked for by a layer above the files.
    ///
    /// # Errors
    /// `OverBudget`.
    pub fn step(&self) -> Result<()> {
        let steps = self.steps.fetch_add(1, Ordering::Relaxed);
        let limit = self.share.steps.load(Ordering::Relaxed);
        if steps >= limit {
            return Err(over(format!("{limit} steps")));
        }
        if steps.is_multiple_of(STEPS_PER_CLOCK) {
            self.check()?;
        }
        Ok(())
    }

    fn read(&self, len: usize) -> Result<()> {
        let reads = self.reads.fetch_add(1, Ordering::Relaxed);
        let limit = self.share.reads.load(Ordering::Relaxed);
        if reads >= limit {
            return Err(over(format!("{limit} reads")));
        }
        let before = self.bytes.fetch_add(wide(len), Ordering::Relaxed);
        let limit = self.share.bytes.load(Ordering::Relaxed);
        if before.saturating_add(wide(len)) > limit {
            // What was refused is not read.
            self.bytes.fetch_sub(wide(len), Ordering::Relaxed);
            self.reads.fetch_sub(1, Ordering::Relaxed);
            return Err(over(format!("{limit} bytes")));
        }
        self.check()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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
        // What was refused was not read.
        assert_eq!((budget.spent().bytes_read, budget.spent().reads), (100, 2));
        meter.read_exact_at(0, &mut []).unwrap();
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

    #[test]
    fn a_part_that_wants_everything_leaves_half() {
        let (meter, budget, ..) = metered(Limits {
            bytes: 40,
            ..Limits::default()
        });
        budget.begin_part();
        meter.read_exact_at(0, &mut [0; 20]).unwrap();
        assert!(meter.read_exact_at(0, &mut [0; 1]).is_err());
        budget.begin_part();
        meter.read_exact_at(0, &mut [0; 10]).unwrap();
        assert!(meter.read_exact_at(0, &mut [0; 1]).is_err());
        assert_eq!(budget.spent().bytes_read, 30);
    }
}
