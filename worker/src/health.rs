//! Whether the loops of this process turn.
//!
//! Each loop notes the time at every turn; whoever asks compares. What a loop waits for does not
//! matter: none of them waits longer than moments, whether or not a broker answers and however long
//! jobs take.

use crate::clock::now_ms;
use crate::engine::record::Millis;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A loop that did not turn for this long is stuck. The longest honest turn is a revoke (2 s for the
/// last transaction) or a question to the schema registry (2 s); with a probe every second or two,
/// health is red within ten seconds.
pub const STUCK_MS: Millis = 8_000;

/// The time at which a loop last turned.
#[derive(Debug)]
pub struct Heart(AtomicI64);

impl Default for Heart {
    /// Beats now: a loop that never starts is stuck, too.
    fn default() -> Self {
        Self(AtomicI64::new(now_ms()))
    }
}

impl Heart {
    /// The loop turned.
    pub fn beat(&self) {
        self.0.store(now_ms(), Ordering::Relaxed);
    }

    fn age(&self, now: Millis) -> Millis {
        (now - self.0.load(Ordering::Relaxed)).max(0)
    }
}

/// The loops of a worker, by name.
#[derive(Debug, Default)]
pub struct Health {
    hearts: Mutex<Vec<(&'static str, Arc<Heart>)>>,
}

impl Health {
    /// Looks at a loop from now on; a second one of the same name takes the first one's place.
    pub fn watch(&self, name: &'static str, heart: Arc<Heart>) {
        let mut hearts = self.lock();
        hearts.retain(|(known, _)| *known != name);
        hearts.push((name, heart));
    }

    /// How long ago each loop turned, in milliseconds.
    #[must_use]
    pub fn ages(&self, now: Millis) -> Vec<(&'static str, Millis)> {
        self.lock()
            .iter()
            .map(|(name, heart)| (*name, heart.age(now)))
            .collect()
    }

    /// Loops that are stuck.
    #[must_use]
    pub fn stuck(&self, now: Millis) -> Vec<(&'static str, Millis)> {
        let mut ages = self.ages(now);
        ages.retain(|(_, age)| *age >= STUCK_MS);
        ages
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(&'static str, Arc<Heart>)>> {
        // Whole entries are pushed and removed, so a panic elsewhere cannot have torn them.
        self.hearts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_stuck_until_it_turns_again() {
        let health = Health::default();
        let heart = Arc::new(Heart::default());
        health.watch("engine", heart.clone());
        health.watch("fetch", Arc::new(Heart::default()));
        let now = now_ms();
        assert_eq!(health.stuck(now + STUCK_MS - 1_000), []);
        heart.0.store(now - STUCK_MS, Ordering::Relaxed);
        assert_eq!(health.stuck(now), [("engine", STUCK_MS)]);
        heart.beat();
        assert_eq!(health.stuck(now), []);
    }
}
