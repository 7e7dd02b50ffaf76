//! The one place that reads a clock. Everything else takes time as an argument.

use std::time::{Duration, Instant};

/// A monotonic clock: each call answers the time since the clock was made.
pub fn monotonic() -> impl Fn() -> Duration + Send + Sync + 'static {
    #[allow(clippy::disallowed_methods)] // clock.rs is the edge
    let start = Instant::now();
    move || start.elapsed()
}
