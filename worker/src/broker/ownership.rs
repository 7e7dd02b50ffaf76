//! Which partitions this process owns, in which assignment.
//!
//! The rebalance callback and the producer thread meet here. What a transaction may say and the
//! group metadata it says it under are taken under one lock (rule 3), and the callback drops a
//! partition under the same lock *before* the group hears of it: metadata is never taken after
//! ownership is gone.

use crate::engine::transaction::Epoch;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Owned partitions with their assignment epochs.
#[derive(Debug, Default)]
pub struct Ownership {
    owned: Mutex<Owned>,
}

#[derive(Debug, Default)]
struct Owned {
    epochs: BTreeMap<u32, Epoch>,
    last: Epoch,
}

impl Ownership {
    /// Takes a partition; answers with the epoch of this assignment.
    pub fn add(&self, partition: u32) -> Epoch {
        let mut owned = self.lock();
        owned.last += 1;
        let epoch = owned.last;
        owned.epochs.insert(partition, epoch);
        epoch
    }

    /// Gives partitions up.
    pub fn remove(&self, partitions: &[u32]) {
        let mut owned = self.lock();
        for partition in partitions {
            owned.epochs.remove(partition);
        }
    }

    /// Epoch of a partition, if it is owned.
    #[must_use]
    pub fn epoch(&self, partition: u32) -> Option<Epoch> {
        self.lock().epochs.get(&partition).copied()
    }

    /// All owned partitions.
    #[must_use]
    pub fn all(&self) -> Vec<(u32, Epoch)> {
        self.lock().epochs.iter().map(|(p, e)| (*p, *e)).collect()
    }

    /// Runs `take` while nothing can be given up, if all of `wanted` is owned in just these epochs;
    /// else names the first that is not.
    pub fn while_owned<T>(
        &self,
        wanted: impl IntoIterator<Item = (u32, Epoch)>,
        take: impl FnOnce() -> T,
    ) -> Result<T, u32> {
        let owned = self.lock();
        for (partition, epoch) in wanted {
            if owned.epochs.get(&partition) != Some(&epoch) {
                return Err(partition);
            }
        }
        Ok(take())
    }

    fn lock(&self) -> MutexGuard<'_, Owned> {
        // The map is valid after every single step, so a panic elsewhere cannot have torn it.
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_assignment_does_not_count() {
        let ownership = Ownership::default();
        let first = ownership.add(3);
        assert_eq!(ownership.while_owned([(3, first)], || "taken"), Ok("taken"));
        ownership.remove(&[3]);
        assert_eq!(ownership.while_owned([(3, first)], || "taken"), Err(3));
        let second = ownership.add(3);
        assert_ne!(first, second);
        assert_eq!(ownership.while_owned([(3, first)], || "taken"), Err(3));
        assert_eq!(
            ownership.while_owned([(3, second)], || "taken"),
            Ok("taken")
        );
    }
}
