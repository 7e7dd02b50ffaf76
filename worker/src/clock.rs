//! The only place that knows time.

use crate::engine::record::Millis;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

struct Start {
    wall_ms: Millis,
    monotonic: Instant,
}

static START: OnceLock<Start> = OnceLock::new();

/// Milliseconds since 1970 UTC that never go back: the wall clock at start plus a monotonic one.
/// A clock that is set while the process lives is followed after the next start.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now_ms() -> Millis {
    let start = START.get_or_init(|| {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Start {
            wall_ms: Millis::try_from(wall.as_millis()).unwrap_or(Millis::MAX),
            monotonic: Instant::now(),
        }
    });
    let elapsed = start.monotonic.elapsed().as_millis();
    start
        .wall_ms
        .saturating_add(Millis::try_from(elapsed).unwrap_or(Millis::MAX))
}
