//! A partition: records and control records, transactions in it, what readers may see, compaction.

use guestkit_worker::engine::invariants::Moment;
use guestkit_worker::engine::record::RawRecord;
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// In a transaction whose marker is not in this partition yet.
    Open,
    Committed,
    Aborted,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) offset: i64,
    pub(crate) fate: Fate,
    pub(crate) moment: Moment,
    /// None: a control record.
    pub(crate) record: Option<Arc<RawRecord>>,
    /// Producer id of its transaction.
    producer: Option<u64>,
}

impl Entry {
    pub(crate) fn is_visible(&self) -> bool {
        self.fate == Fate::Committed && self.record.is_some()
    }
}

/// What one fetch gives.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    pub(crate) records: Vec<(i64, Arc<RawRecord>)>,
    /// Where the next fetch goes on.
    pub(crate) next: i64,
    /// The end as the reader sees it was reached.
    pub(crate) at_end: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    entries: Vec<Entry>,
    /// What compaction took: judges look at it, readers do not.
    compacted: Vec<Entry>,
    next: i64,
}

impl Log {
    pub(crate) const fn empty() -> Self {
        Self {
            entries: Vec::new(),
            compacted: Vec::new(),
            next: 0,
        }
    }

    pub(crate) fn append(
        &mut self,
        record: RawRecord,
        producer: Option<u64>,
        moment: Moment,
    ) -> i64 {
        let fate = if producer.is_some() {
            Fate::Open
        } else {
            Fate::Committed
        };
        self.push(Some(Arc::new(record)), fate, producer, moment)
    }

    fn push(
        &mut self,
        record: Option<Arc<RawRecord>>,
        fate: Fate,
        producer: Option<u64>,
        moment: Moment,
    ) -> i64 {
        let offset = self.next;
        self.next += 1;
        self.entries.push(Entry {
            offset,
            fate,
            moment,
            record,
            producer,
        });
        offset
    }

    /// The control record that ends a transaction here.
    pub(crate) fn end_transaction(&mut self, producer: u64, commit: bool, moment: Moment) {
        for entry in &mut self.entries {
            if entry.fate == Fate::Open && entry.producer == Some(producer) {
                entry.fate = if commit {
                    Fate::Committed
                } else {
                    Fate::Aborted
                };
                entry.moment = moment;
            }
        }
        self.push(None, Fate::Committed, None, moment);
    }

    pub(crate) fn high_watermark(&self) -> i64 {
        self.next
    }

    pub(crate) fn last_stable(&self) -> i64 {
        self.entries
            .iter()
            .find(|entry| entry.fate == Fate::Open)
            .map_or(self.next, |entry| entry.offset)
    }

    pub(crate) fn fetch(&self, from: i64, most: usize, read_committed: bool) -> Fetched {
        let end = if read_committed {
            self.last_stable()
        } else {
            self.next
        };
        let start = self.entries.partition_point(|entry| entry.offset < from);
        let mut records = Vec::new();
        let mut next = from.max(end.min(self.next));
        for entry in &self.entries[start..] {
            if entry.offset >= end {
                break;
            }
            let Some(record) = &entry.record else {
                continue;
            };
            if read_committed && entry.fate != Fate::Committed {
                continue;
            }
            if records.len() == most {
                next = entry.offset;
                break;
            }
            records.push((entry.offset, record.clone()));
        }
        Fetched {
            at_end: next >= end,
            next,
            records,
        }
    }

    /// The record at an offset, whatever became of its transaction.
    pub(crate) fn at(&self, offset: i64) -> Option<Arc<RawRecord>> {
        let at = self
            .entries
            .binary_search_by_key(&offset, |entry| entry.offset)
            .ok()?;
        self.entries[at].record.clone()
    }

    /// Keeps, of what is decided, the newest committed record of each key.
    pub(crate) fn compact(&mut self) {
        let stable = self.last_stable();
        let mut seen = BTreeSet::new();
        let mut kept = Vec::with_capacity(self.entries.len());
        for entry in std::mem::take(&mut self.entries).into_iter().rev() {
            let newest = entry.is_visible()
                && entry
                    .record
                    .as_ref()
                    .is_some_and(|record| seen.insert(record.key.clone()));
            if newest || entry.offset >= stable {
                kept.push(entry);
            } else {
                self.compacted.push(entry);
            }
        }
        kept.reverse();
        self.entries = kept;
    }

    /// Everything that ever became visible, in order.
    pub(crate) fn visible(&self) -> Vec<&Entry> {
        let mut all: Vec<&Entry> = self
            .entries
            .iter()
            .chain(&self.compacted)
            .filter(|entry| entry.is_visible())
            .collect();
        all.sort_by_key(|entry| entry.offset);
        all
    }
}
