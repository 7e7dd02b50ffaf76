//! A bounded cache of decoded pieces: index blocks, decompressed units, metadata blocks.

use crate::error::Result;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Pieces by key, the oldest dropped first once they weigh more than the limit.
pub(crate) struct Pieces<K, V> {
    state: Mutex<State<K, V>>,
    limit: usize,
}

struct State<K, V> {
    pieces: HashMap<K, (Arc<V>, usize)>,
    order: VecDeque<K>,
    weight: usize,
}

impl<K: Eq + Hash + Clone, V> Pieces<K, V> {
    /// A cache for pieces of at most `limit` bytes in all.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            state: Mutex::new(State {
                pieces: HashMap::new(),
                order: VecDeque::new(),
                weight: 0,
            }),
            limit,
        }
    }

    /// The piece, made when it is not there. Nothing is locked while it is made.
    pub(crate) fn get_or(
        &self,
        key: &K,
        weigh: impl FnOnce(&V) -> usize,
        make: impl FnOnce() -> Result<V>,
    ) -> Result<Arc<V>> {
        let known = self.with(|state| state.pieces.get(key).map(|(piece, _)| Arc::clone(piece)));
        if let Some(piece) = known {
            return Ok(piece);
        }
        let piece = Arc::new(make()?);
        let weight = weigh(&piece);
        self.with(|state| state.put(key.clone(), Arc::clone(&piece), weight, self.limit));
        Ok(piece)
    }

    fn with<T>(&self, act: impl FnOnce(&mut State<K, V>) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<K: Eq + Hash + Clone, V> State<K, V> {
    fn put(&mut self, key: K, piece: Arc<V>, weight: usize, limit: usize) {
        if self.pieces.contains_key(&key) {
            return;
        }
        while self.weight.saturating_add(weight) > limit {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Some((_, freed)) = self.pieces.remove(&oldest) {
                self.weight = self.weight.saturating_sub(freed);
            }
        }
        self.weight = self.weight.saturating_add(weight);
        self.order.push_back(key.clone());
        self.pieces.insert(key, (piece, weight));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_pieces_go_first_and_errors_are_not_kept() {
        let cache = Pieces::new(10);
        let made = std::cell::Cell::new(0);
        let get = |key: u32| {
            let make = || {
                made.set(made.get() + 1);
                Ok(key)
            };
            *cache.get_or(&key, |_| 4, make).unwrap()
        };
        assert_eq!((get(1), get(2), get(1), get(2)), (1, 2, 1, 2));
        assert_eq!(made.get(), 2);
        get(3);
        get(2);
        assert_eq!(made.get(), 3);
        get(1);
        assert_eq!(made.get(), 4);
        let failed = cache.get_or(
            &9,
            |_| 1,
            || Err(crate::DiskError::NotFound { what: "x".into() }),
        );
        assert!(failed.is_err());
        assert_eq!(get(9), 9);
    }
}
