//! The only place in this crate that reads the clock.

use std::time::{Duration, Instant};

/// The monotonic clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// A point in time to wait for, at most.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    #[must_use]
    pub fn after(time: Duration) -> Self {
        Self(now() + time)
    }

    #[must_use]
    pub fn passed(self) -> bool {
        self.left().is_zero()
    }

    /// Zero once it has passed.
    #[must_use]
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(now())
    }
}
