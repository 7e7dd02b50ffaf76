//! The only look at a clock in this crate.

use std::time::{Duration, Instant};

/// A point of monotonic time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Instant);

impl Moment {
    #[allow(clippy::disallowed_methods)]
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    /// So much later.
    pub(crate) fn after(self, duration: Duration) -> Self {
        // Beyond what the clock can hold: a century is as good.
        let century = Duration::from_secs(3_000_000_000);
        Self(
            self.0
                .checked_add(duration)
                .unwrap_or_else(|| self.0 + century),
        )
    }

    /// How long after `earlier` this is; `None` when it is not after it.
    pub(crate) fn since(self, earlier: Self) -> Option<Duration> {
        self.0
            .checked_duration_since(earlier.0)
            .filter(|left| !left.is_zero())
    }
}
