//! The offsets of one partition between what is committed and what was read.
//!
//! Jobs finish in any order; the committed offset moves only over a contiguous prefix. What is
//! decided beyond it is named in SLOT, so that a crash re-reads those records and skips them.

use super::ledger::OffsetRange;
use super::record::Millis;
use std::collections::VecDeque;

/// Where a record stands (engine.md, "State").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetState {
    /// It opened a key, or waits with one: its answer comes when the key's does.
    Claimed,
    /// Its answer is known and waits for a transaction.
    Decided,
    /// Its answer is in the transaction with this number.
    InTransaction(u64),
    /// Its answer is committed.
    Settled,
}

/// A record that was read.
#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: i64,
    /// Its timestamp.
    published: Millis,
    state: OffsetState,
}

/// Unsettled offsets of a partition, in order, and what is settled between them.
#[derive(Debug, Clone, Default)]
pub struct Offsets {
    window: VecDeque<Entry>,
    /// Offset after the newest record read, or after the end of the partition when that is further
    /// (control records leave gaps).
    position: i64,
    /// Offset ranges that an earlier owner settled beyond the committed offset: skipped when read.
    settled_before: Vec<OffsetRange>,
}

impl Offsets {
    /// Starts at `next_offset`, knowing what is settled beyond it.
    #[must_use]
    pub fn starting_at(next_offset: i64, settled: &[OffsetRange]) -> Self {
        Self {
            window: VecDeque::new(),
            position: next_offset,
            settled_before: settled
                .iter()
                .copied()
                .filter(|range| range.last >= next_offset)
                .collect(),
        }
    }

    /// Notes a record that was read, with its timestamp. `None` when it was settled before or is a
    /// repeat: skip it.
    pub fn read(&mut self, offset: i64, published: Millis) -> Option<()> {
        if offset < self.position {
            return None;
        }
        self.position = offset + 1;
        while self
            .settled_before
            .first()
            .is_some_and(|range| range.last < offset)
        {
            self.settled_before.remove(0);
        }
        let settled = self
            .settled_before
            .first()
            .is_some_and(|range| range.first <= offset);
        let state = if settled {
            OffsetState::Settled
        } else {
            OffsetState::Claimed
        };
        self.window.push_back(Entry {
            offset,
            published,
            state,
        });
        if settled {
            self.trim();
            return None;
        }
        Some(())
    }

    /// Notes that the partition ends at `offset`: what lies before it and was not read is no record.
    pub fn end_of_partition(&mut self, offset: i64) {
        self.position = self.position.max(offset);
    }

    /// State of an offset still in the window; `None` for one that is settled and passed.
    #[must_use]
    pub fn state(&self, offset: i64) -> Option<OffsetState> {
        self.find(offset).map(|at| self.window[at].state)
    }

    /// Moves an offset to another state. Settled offsets at the head leave the window.
    pub fn set(&mut self, offset: i64, state: OffsetState) {
        if let Some(at) = self.find(offset) {
            self.window[at].state = state;
            if state == OffsetState::Settled && at == 0 {
                self.trim();
            }
        }
    }

    /// Next offset to commit if everything in transaction `tx` and everything settled counts as done.
    #[must_use]
    pub fn next_offset(&self, tx: Option<u64>) -> i64 {
        self.window
            .iter()
            .find(|entry| !is_done(entry.state, tx))
            .map_or(self.position, |entry| entry.offset)
    }

    /// What is settled, or in transaction `tx`, beyond [`Offsets::next_offset`]; in order, joined.
    #[must_use]
    pub fn settled_beyond(&self, tx: Option<u64>) -> Vec<OffsetRange> {
        let mut ranges: Vec<OffsetRange> = Vec::new();
        let mut joined = false;
        let behind_head = self
            .window
            .iter()
            .skip_while(|entry| is_done(entry.state, tx));
        for Entry { offset, state, .. } in behind_head {
            if !is_done(*state, tx) {
                joined = false;
                continue;
            }
            match ranges.last_mut() {
                Some(range) if joined => range.last = *offset,
                _ => ranges.push(OffsetRange {
                    first: *offset,
                    last: *offset,
                }),
            }
            joined = true;
        }
        // What an earlier owner settled and this one has not read yet must not be forgotten.
        for known in &self.settled_before {
            if known.last < self.position {
                continue;
            }
            let first = known.first.max(self.position);
            match ranges.last_mut() {
                Some(range) if joined && range.last + 1 == first => range.last = known.last,
                _ => ranges.push(OffsetRange {
                    first,
                    last: known.last,
                }),
            }
            joined = true;
        }
        ranges
    }

    /// Offset after the newest record read.
    #[must_use]
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Records between the committed prefix and the newest one read.
    #[must_use]
    pub fn len(&self) -> usize {
        self.window.len()
    }

    /// Whether everything read is settled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    /// Offsets that wait in the given transaction.
    pub fn in_transaction(&self, tx: u64) -> impl Iterator<Item = i64> + '_ {
        self.window
            .iter()
            .filter(move |entry| entry.state == OffsetState::InTransaction(tx))
            .map(|entry| entry.offset)
    }

    /// Offsets from the position on that are known to be settled already.
    #[must_use]
    pub fn settled_unread(&self) -> i64 {
        self.settled_before
            .iter()
            .map(|range| (range.last + 1 - range.first.max(self.position)).max(0))
            .sum()
    }

    /// Timestamp of the first record without an answer, except those at offsets that are `excused`.
    #[must_use]
    pub fn oldest(&self, excused: &[i64]) -> Option<Millis> {
        self.window
            .iter()
            .find(|entry| entry.state == OffsetState::Claimed && !excused.contains(&entry.offset))
            .map(|entry| entry.published)
    }

    fn trim(&mut self) {
        while self
            .window
            .front()
            .is_some_and(|entry| entry.state == OffsetState::Settled)
        {
            self.window.pop_front();
        }
    }

    fn find(&self, offset: i64) -> Option<usize> {
        // Offsets are nearly always dense, so the distance from the head is nearly always the place.
        let first = self.window.front()?.offset;
        let guess = usize::try_from(offset.checked_sub(first)?).ok()?;
        if self
            .window
            .get(guess)
            .is_some_and(|entry| entry.offset == offset)
        {
            return Some(guess);
        }
        self.window
            .binary_search_by_key(&offset, |entry| entry.offset)
            .ok()
    }
}

fn is_done(state: OffsetState, tx: Option<u64>) -> bool {
    match state {
        OffsetState::Settled => true,
        OffsetState::InTransaction(in_tx) => Some(in_tx) == tx,
        OffsetState::Claimed | OffsetState::Decided => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use OffsetState::{Decided, InTransaction, Settled};

    fn range(first: i64, last: i64) -> OffsetRange {
        OffsetRange { first, last }
    }

    #[test]
    fn moves_only_over_a_contiguous_prefix() {
        let mut offsets = Offsets::starting_at(10, &[]);
        for offset in [10, 11, 12, 13, 15] {
            assert!(offsets.read(offset, 0).is_some());
        }
        offsets.set(11, InTransaction(1));
        offsets.set(13, InTransaction(1));
        offsets.set(15, InTransaction(1));
        assert_eq!(offsets.next_offset(Some(1)), 10);
        assert_eq!(
            offsets.settled_beyond(Some(1)),
            [range(11, 11), range(13, 15)]
        );
        for offset in [11, 13, 15] {
            offsets.set(offset, Settled);
        }
        offsets.set(10, Settled);
        assert_eq!(offsets.next_offset(None), 12);
        offsets.set(12, Settled);
        assert_eq!(offsets.next_offset(None), 16);
        assert!(offsets.is_empty());
    }

    #[test]
    fn another_transaction_does_not_count() {
        let mut offsets = Offsets::starting_at(0, &[]);
        offsets.read(0, 0);
        offsets.set(0, InTransaction(1));
        assert_eq!(offsets.next_offset(Some(2)), 0);
        assert_eq!(offsets.next_offset(Some(1)), 1);
        offsets.set(0, Decided);
        assert_eq!(offsets.next_offset(Some(1)), 0);
    }

    #[test]
    fn skips_what_an_earlier_owner_settled_and_keeps_naming_it() {
        let mut offsets = Offsets::starting_at(5, &[range(2, 3), range(6, 7), range(20, 22)]);
        assert!(offsets.read(5, 0).is_some());
        assert_eq!(
            offsets.settled_beyond(None),
            [range(6, 7), range(20, 22)],
            "ranges not read yet stay named"
        );
        assert!(offsets.read(6, 0).is_none());
        assert!(offsets.read(7, 0).is_none());
        assert!(offsets.read(8, 0).is_some());
        assert_eq!(offsets.settled_beyond(None), [range(6, 7), range(20, 22)]);
        offsets.set(5, Settled);
        assert_eq!(offsets.next_offset(None), 8);
        assert_eq!(offsets.settled_beyond(None), [range(20, 22)]);
        assert!(offsets.read(21, 0).is_none());
        assert_eq!(offsets.settled_beyond(None), [range(21, 22)]);
    }

    #[test]
    fn the_end_of_the_partition_passes_control_records() {
        let mut offsets = Offsets::starting_at(0, &[]);
        offsets.read(0, 0);
        offsets.end_of_partition(3);
        assert_eq!(offsets.next_offset(None), 0);
        offsets.set(0, Settled);
        assert_eq!(offsets.next_offset(None), 3);
        assert!(offsets.read(2, 0).is_none(), "already behind the position");
        assert!(offsets.read(3, 0).is_some());
    }

    #[test]
    fn the_oldest_waits_and_does_not_run() {
        let mut offsets = Offsets::starting_at(0, &[range(5, 9)]);
        assert_eq!(offsets.settled_unread(), 5);
        for (offset, published) in [(0, 100), (1, 200), (2, 300)] {
            offsets.read(offset, published);
        }
        assert_eq!(offsets.oldest(&[]), Some(100));
        assert_eq!(offsets.oldest(&[0]), Some(200), "what runs does not wait");
        offsets.set(1, Decided);
        assert_eq!(offsets.oldest(&[0]), Some(300), "what is decided neither");
        offsets.read(6, 400);
        assert_eq!(offsets.settled_unread(), 3, "two of five were passed");
        offsets.set(2, Settled);
        assert_eq!(offsets.oldest(&[0]), None);
    }
}
