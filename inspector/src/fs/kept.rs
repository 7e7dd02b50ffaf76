//! A small cache for readers: bounded by weight, emptied when full.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// Values that are cheap to clone (numbers, `Arc`s), by key.
///
/// Emptying beats an eviction order here: directories and inodes are asked for in bursts, and one
/// burst fits.
pub(crate) struct Kept<K, V> {
    state: Mutex<State<K, V>>,
    weight_max: usize,
}

struct State<K, V> {
    values: HashMap<K, V>,
    weight: usize,
}

impl<K: Eq + Hash, V: Clone> Kept<K, V> {
    pub(crate) fn new(weight_max: usize) -> Self {
        Self {
            state: Mutex::new(State {
                values: HashMap::new(),
                weight: 0,
            }),
            weight_max,
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.values.get(key).cloned()
    }

    pub(crate) fn insert(&self, key: K, value: V, weight: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.weight = state.weight.saturating_add(weight);
        if state.weight > self.weight_max {
            state.values.clear();
            state.weight = weight;
        }
        state.values.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_cache_starts_again() {
        let kept = Kept::new(3);
        kept.insert(1, "one", 2);
        kept.insert(2, "two", 1);
        assert_eq!((kept.get(&1), kept.get(&2)), (Some("one"), Some("two")));
        kept.insert(3, "three", 1);
        assert_eq!((kept.get(&1), kept.get(&3)), (None, Some("three")));
    }
}
