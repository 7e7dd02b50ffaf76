//! Progress, throttled: enough to watch, never enough to flood.

use crate::engine::record::Millis;
use crate::handlers::Progress;

/// Least time between two events of one phase.
const SAME_PHASE_MS: Millis = 250;
/// Least time between two events of any kind.
const ANY_MS: Millis = 20;
/// Most events of one run.
const EVENTS_MAX: u64 = 10_000;

/// Decides which progress events of one run are published, and numbers them.
#[derive(Debug, Default)]
pub struct Throttle {
    last: Option<(Millis, String)>,
    sequence: u64,
}

impl Throttle {
    /// The sequence number of this event, or `None` if it is not published.
    pub fn admit(&mut self, progress: &Progress, now: Millis) -> Option<u64> {
        if self.sequence >= EVENTS_MAX {
            return None;
        }
        let is_end = progress.percent.is_some_and(|percent| percent >= 100.0);
        if let Some((at, phase)) = &self.last {
            let pause = if *phase == progress.phase {
                SAME_PHASE_MS
            } else {
                ANY_MS
            };
            if now - at < pause && !is_end {
                return None;
            }
        }
        self.last = Some((now, progress.phase.clone()));
        self.sequence += 1;
        Some(self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(phase: &str, percent: f64) -> Progress {
        Progress {
            phase: phase.to_owned(),
            percent: Some(percent),
            message: None,
        }
    }

    #[test]
    fn lets_new_phases_and_the_end_through_and_numbers_without_gaps() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.admit(&event("read", 1.0), 0), Some(1));
        assert_eq!(throttle.admit(&event("read", 2.0), 100), None);
        assert_eq!(throttle.admit(&event("parse", 3.0), 100), Some(2));
        assert_eq!(throttle.admit(&event("parse", 100.0), 101), Some(3));
        assert_eq!(throttle.admit(&event("parse", 50.0), 400), Some(4));
    }
}
