//! The dedup index of one slot: which idempotency keys are answered, and where the ledger says so.
//!
//! A key is kept as a 128-bit keyed hash beside the ledger offset of its newest record; the record
//! itself is read back on a hit (decisions.md, "Ledger"). The table is open addressing with linear
//! probing over fixed 24-byte entries and grows by a quarter, so that an entry costs at most
//! 24 / (0.88 / 1.25) ≈ 35 bytes: full keys would cost four times that.

use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

/// A 128-bit keyed hash of a ledger record key.
///
/// Keyed per process, so that nobody can publish keys that collide on purpose. A collision costs
/// deduplication of the older key only: a hit is always compared with the key in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(u64, u64);

/// The secret of the hash.
#[derive(Debug, Clone, Copy)]
pub struct HashSeed(pub u64, pub u64);

impl HashSeed {
    /// Hash of a ledger record key.
    #[must_use]
    pub fn hash(self, key: &[u8]) -> KeyHash {
        let mut hasher = SipHasher13::new_with_keys(self.0, self.1);
        hasher.write(key);
        let hash = hasher.finish128();
        KeyHash(hash.h1, hash.h2)
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: KeyHash,
    /// Ledger offset plus one; 0 marks a free entry.
    place: u64,
}

const FREE: Entry = Entry {
    hash: KeyHash(0, 0),
    place: 0,
};

/// Share of entries in use, in percent, beyond which the table grows: linear probing stays below
/// five probes a look-up.
const LOAD_PERCENT_MAX: usize = 88;
/// Smallest table, so that an idle slot costs 1.5 KiB.
const CAPACITY_MIN: usize = 64;

/// Keys of one slot that have an answer in the ledger.
#[derive(Debug, Default)]
pub struct LedgerIndex {
    entries: Vec<Entry>,
    len: usize,
}

impl LedgerIndex {
    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no key is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Heap bytes in use.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }

    /// Ledger offset of the newest record of a key.
    #[must_use]
    pub fn get(&self, hash: KeyHash) -> Option<i64> {
        if self.entries.is_empty() {
            return None;
        }
        let mut at = self.home(hash);
        loop {
            let entry = &self.entries[at];
            if entry.place == 0 {
                return None;
            }
            if entry.hash == hash {
                return i64::try_from(entry.place - 1).ok();
            }
            at = self.after(at);
        }
    }

    /// Notes that the newest record of a key stands at `offset`. Negative offsets are refused by
    /// doing nothing: no broker hands them out.
    pub fn insert(&mut self, hash: KeyHash, offset: i64) {
        let Ok(offset) = u64::try_from(offset) else {
            return;
        };
        if (self.len + 1) * 100 > self.entries.len() * LOAD_PERCENT_MAX {
            self.grow();
        }
        self.place(Entry {
            hash,
            place: offset + 1,
        });
    }

    /// Forgets a key (its ledger record has expired).
    pub fn remove(&mut self, hash: KeyHash) {
        if self.entries.is_empty() {
            return;
        }
        let mut at = self.home(hash);
        while self.entries[at].place != 0 {
            if self.entries[at].hash == hash {
                self.entries[at] = FREE;
                self.len -= 1;
                self.close_gap(at);
                return;
            }
            at = self.after(at);
        }
    }

    /// Moves the run behind a freed entry, so that no probe stops early.
    fn close_gap(&mut self, freed: usize) {
        let mut at = self.after(freed);
        while self.entries[at].place != 0 {
            let entry = std::mem::replace(&mut self.entries[at], FREE);
            self.len -= 1;
            self.place(entry);
            at = self.after(at);
        }
    }

    fn place(&mut self, new: Entry) {
        let mut at = self.home(new.hash);
        loop {
            let entry = &mut self.entries[at];
            if entry.place == 0 {
                *entry = new;
                self.len += 1;
                return;
            }
            if entry.hash == new.hash {
                *entry = new;
                return;
            }
            at = self.after(at);
        }
    }

    fn grow(&mut self) {
        let capacity = (self.entries.len() + self.entries.len() / 4).max(CAPACITY_MIN);
        let old = std::mem::replace(&mut self.entries, vec![FREE; capacity]);
        self.len = 0;
        for entry in old {
            if entry.place != 0 {
                self.place(entry);
            }
        }
    }

    /// Where a key's probe begins: the hash scaled to the table, which needs no power of two.
    fn home(&self, hash: KeyHash) -> usize {
        let scaled = (u128::from(hash.0) * self.entries.len() as u128) >> 64;
        scaled as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.entries.len() {
            0
        } else {
            at + 1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const SEED: HashSeed = HashSeed(1, 2);

    fn hash(n: u32) -> KeyHash {
        SEED.hash(format!("key-{n}").as_bytes())
    }

    #[test]
    fn agrees_with_a_map_over_inserts_updates_and_removals() {
        let mut index = LedgerIndex::default();
        let mut model = BTreeMap::new();
        let mut state = 7_u64;
        for step in 0..200_000_i64 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let key = hash((state >> 40) as u32 % 5_000);
            if state >> 33 & 3 == 0 {
                index.remove(key);
                model.remove(&key);
            } else {
                index.insert(key, step);
                model.insert(key, step);
            }
        }
        assert_eq!(index.len(), model.len());
        for n in 0..5_000 {
            assert_eq!(index.get(hash(n)), model.get(&hash(n)).copied());
        }
    }

    #[test]
    fn a_key_costs_at_most_48_bytes() {
        for keys in [83_334, 1_000_000_u32] {
            let mut index = LedgerIndex::default();
            for n in 0..keys {
                index.insert(hash(n), i64::from(n));
            }
            let per_key = index.heap_bytes() as f64 / f64::from(keys);
            assert!(per_key <= 48.0, "{per_key} bytes a key at {keys} keys");
        }
    }

    #[test]
    fn an_empty_index_knows_nothing() {
        let mut index = LedgerIndex::default();
        assert_eq!(index.get(hash(1)), None);
        index.remove(hash(1));
        index.insert(hash(1), -1);
        assert!(index.is_empty());
    }
}
