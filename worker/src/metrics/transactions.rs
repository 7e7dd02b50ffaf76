//! The pace of transactions and restores.

use super::buckets;
use crate::engine::record::Millis;
use crate::engine::transaction::Epoch;
use prometheus::{Histogram, IntCounter, Registry};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Stands for: no transaction is under way.
const NONE: i64 = i64::MAX;

/// Series about transactions.
#[derive(Debug)]
pub struct Transactions {
    took: Histogram,
    begun: AtomicI64,
}

impl Transactions {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let took = buckets::seconds(
            "guestkit_commit_seconds",
            "Time of one transaction, from the writer's taking it to its outcome, reading back included.",
        )?;
        registry.register(Box::new(took.clone()))?;
        Ok(Self {
            took,
            begun: AtomicI64::new(NONE),
        })
    }

    /// The writer took a transaction.
    pub fn begun(&self, now: Millis) {
        self.begun.store(now, Ordering::Relaxed);
    }

    /// Its outcome is known.
    pub fn ended(&self, now: Millis) {
        let begun = self.begun.swap(NONE, Ordering::Relaxed);
        if begun != NONE {
            self.took.observe(super::seconds(now - begun));
        }
    }

    /// For how long the transaction under way has had no outcome; 0 without one.
    #[must_use]
    pub fn age(&self, now: Millis) -> Millis {
        match self.begun.load(Ordering::Relaxed) {
            NONE => 0,
            begun => (now - begun).max(0),
        }
    }
}

/// Series about restores.
#[derive(Debug)]
pub struct Restores {
    took: Histogram,
    faults: IntCounter,
    begun: Mutex<BTreeMap<(u32, Epoch), Millis>>,
}

impl Restores {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let took = buckets::seconds(
            "guestkit_restore_seconds",
            "Time from a partition's assignment until its ledger was read.",
        )?;
        let faults = IntCounter::new(
            "guestkit_restore_faults_total",
            "Tries to restore a partition that the cluster did not play along with; each is repeated.",
        )?;
        registry.register(Box::new(took.clone()))?;
        registry.register(Box::new(faults.clone()))?;
        Ok(Self {
            took,
            faults,
            begun: Mutex::default(),
        })
    }

    /// A partition is to be restored.
    pub fn begun(&self, partition: u32, epoch: Epoch, now: Millis) {
        self.lock().entry((partition, epoch)).or_insert(now);
    }

    /// It is restored.
    pub fn done(&self, partition: u32, epoch: Epoch, now: Millis) {
        if let Some(begun) = self.lock().remove(&(partition, epoch)) {
            self.took.observe(super::seconds(now - begun));
        }
    }

    /// It was taken away, or cannot be restored.
    pub fn given_up(&self, partition: u32, epoch: Epoch) {
        self.lock().remove(&(partition, epoch));
    }

    /// A try did not work out; another follows.
    pub fn fault(&self) {
        self.faults.inc();
    }

    /// For how long the oldest restore under way has been going on; 0 without one.
    #[must_use]
    pub fn age(&self, now: Millis) -> Millis {
        let oldest = self.lock().values().min().copied();
        oldest.map_or(0, |begun| (now - begun).max(0))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(u32, Epoch), Millis>> {
        // Entries go in and out whole, so a panic elsewhere cannot have torn them.
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_rise_until_the_end() {
        let registry = Registry::new();
        let transactions = Transactions::new(&registry).unwrap();
        assert_eq!(transactions.age(5_000), 0);
        transactions.begun(1_000);
        assert_eq!(transactions.age(5_000), 4_000);
        transactions.ended(6_000);
        assert_eq!(transactions.age(9_000), 0);
        assert_eq!(transactions.took.get_sample_count(), 1);

        let restores = Restores::new(&registry).unwrap();
        restores.begun(1, 7, 1_000);
        restores.begun(2, 8, 2_000);
        restores.begun(1, 7, 3_000);
        assert_eq!(
            restores.age(4_000),
            3_000,
            "a repeated try is the same restore"
        );
        restores.done(1, 7, 4_000);
        assert_eq!(restores.age(4_000), 2_000);
        restores.given_up(2, 8);
        assert_eq!(restores.age(4_000), 0);
        assert_eq!(restores.took.get_sample_count(), 1);
    }
}
