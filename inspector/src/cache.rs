//! A block cache over the image files, bounded in memory, shared by all files of one image.
//!
//! Metadata reads are small and cluster together; blocks of 16 KiB turn thousands of them into a
//! few hundred reads. Neighbouring missing blocks are read at once; long reads go past the cache.

use crate::budget::Budget;
use crate::bytes::{narrow, wide};
use crate::error::Result;
use crate::layer::check_range;
use crate::read_at::{Layer, ReadAt};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

const BLOCK: u64 = 16 << 10;
/// From this length on a read neither fills nor flushes the cache.
const BYPASS: usize = 256 << 10;
/// At most this many missing blocks are read at once.
const RUN_MAX: u64 = 16;

/// Blocks of all files of an image.
pub struct BlockCache {
    state: Mutex<State>,
    slots_max: usize,
}

struct State {
    index: HashMap<(usize, u64), usize>,
    slots: Vec<Slot>,
    hand: usize,
    files: usize,
}

struct Slot {
    key: (usize, u64),
    used: bool,
    data: Vec<u8>,
}

impl BlockCache {
    /// A cache of at most `bytes` (at least one block).
    pub fn new(bytes: usize) -> Arc<Self> {
        let slots_max = narrow(wide(bytes) / BLOCK).max(1);
        Arc::new(Self {
            state: Mutex::new(State {
                index: HashMap::new(),
                slots: Vec::new(),
                hand: 0,
                files: 0,
            }),
            slots_max,
        })
    }

    /// Reads `inner` through this cache, each read one step of `budget`.
    pub fn attach(self: &Arc<Self>, inner: Layer, budget: Arc<Budget>) -> Cached {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.files = state.files.saturating_add(1);
        Cached {
            inner,
            budget,
            file: state.files,
            cache: Arc::clone(self),
        }
    }
}

impl State {
    fn find(&mut self, key: (usize, u64)) -> Option<&[u8]> {
        let slot = self.slots.get_mut(*self.index.get(&key)?)?;
        slot.used = true;
        Some(&slot.data)
    }

    /// Second chance: a slot used since the hand last passed is spared once.
    fn insert(&mut self, key: (usize, u64), data: &[u8], slots_max: usize) {
        let fresh = Slot {
            key,
            used: false,
            data: data.to_vec(),
        };
        if self.slots.len() < slots_max {
            self.index.insert(key, self.slots.len());
            self.slots.push(fresh);
            return;
        }
        loop {
            let at = self.hand;
            self.hand = at.saturating_add(1).checked_rem(slots_max).unwrap_or(0);
            let Some(slot) = self.slots.get_mut(at) else {
                return;
            };
            if slot.used {
                slot.used = false;
                continue;
            }
            self.index.remove(&slot.key);
            *slot = fresh;
            self.index.insert(key, at);
            return;
        }
    }
}

/// A layer read through a [`BlockCache`].
pub struct Cached {
    inner: Layer,
    budget: Arc<Budget>,
    file: usize,
    cache: Arc<BlockCache>,
}

impl Cached {
    /// Reads the missing blocks from `first` on, up to `last`, in one go.
    fn fill(&self, state: &mut State, first: u64, last: u64) -> Result<()> {
        let mut past = first.saturating_add(1);
        while past <= last
            && past.saturating_sub(first) < RUN_MAX
            && !state.index.contains_key(&(self.file, past))
        {
            past = past.saturating_add(1);
        }
        let start = first.saturating_mul(BLOCK);
        let end = past.saturating_mul(BLOCK).min(self.inner.len());
        let mut run = vec![0; narrow(end.saturating_sub(start))];
        self.inner.read_exact_at(start, &mut run)?;
        for (block, data) in (first..past).zip(run.chunks(narrow(BLOCK))) {
            state.insert((self.file, block), data, self.cache.slots_max);
        }
        Ok(())
    }
}

impl ReadAt for Cached {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, position: u64, buf: &mut [u8]) -> Result<()> {
        check_range(position, buf.len(), self.inner.len())?;
        self.budget.step()?;
        if buf.is_empty() {
            return Ok(());
        }
        if buf.len() >= BYPASS {
            return self.inner.read_exact_at(position, buf);
        }
        let last = position.saturating_add(wide(buf.len())).saturating_sub(1) / BLOCK;
        let mut state = self
            .cache
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut at = position;
        let mut rest = buf;
        while !rest.is_empty() {
            let block = at / BLOCK;
            let key = (self.file, block);
            if state.find(key).is_none() {
                self.fill(&mut state, block, last)?;
            }
            let skip = narrow(at % BLOCK);
            let from = state.find(key).and_then(|d| d.get(skip..)).unwrap_or(&[]);
            let len = from.len().min(rest.len());
            let (head, tail) = rest.split_at_mut(len);
            head.copy_from_slice(from.get(..len).unwrap_or_default());
            if len == 0 {
                // A cache smaller than the run evicted the block: read it directly.
                return self.inner.read_exact_at(at, tail);
            }
            at = at.saturating_add(wide(len));
            rest = tail;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Limits, Meter};
    use crate::layer::Memory;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    fn cached(len: usize, cache_bytes: usize) -> (Vec<u8>, Cached, Arc<Budget>) {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
        let clock = || Duration::ZERO;
        let budget = Budget::new(Limits::default(), clock, Arc::new(AtomicBool::new(false)));
        let meter = Meter::new(Arc::new(Memory(bytes.clone())), Arc::clone(&budget));
        let cached = BlockCache::new(cache_bytes).attach(Arc::new(meter), Arc::clone(&budget));
        (bytes, cached, budget)
    }

    #[test]
    fn any_range_reads_the_same_bytes_through_any_cache() {
        for cache_bytes in [0, 40 << 10, 4 << 20] {
            let (bytes, cached, _) = cached(300_001, cache_bytes);
            for i in 0..500usize {
                let at = i * 7919 % bytes.len();
                let len = (i * i * 31 % 280_000).min(bytes.len() - at);
                let mut found = vec![0; len];
                cached.read_exact_at(at as u64, &mut found).unwrap();
                assert!(found == bytes[at..at + len], "{len} bytes at {at}");
            }
            assert!(cached.read_exact_at(300_000, &mut [0; 2]).is_err());
        }
    }

    #[test]
    fn neighbours_are_read_at_once_and_only_once() {
        let (_, cached, budget) = cached(1 << 20, 4 << 20);
        let mut buf = vec![0; 100 << 10];
        cached.read_exact_at(20 << 10, &mut buf).unwrap();
        assert_eq!(
            (budget.spent().reads, budget.spent().bytes_read),
            (1, 112 << 10)
        );
        cached
            .read_exact_at(30 << 10, &mut buf[..70 << 10])
            .unwrap();
        assert_eq!(budget.spent().reads, 1);
    }
}
