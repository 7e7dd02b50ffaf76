//! The ledger's records as the engine sees them, and how a slot is restored from them.
//!
//! The wire form is `protocol`'s `LedgerEntry`; `crate::codec` converts.

use super::index::{HashSeed, LedgerIndex};
use std::sync::Arc;

/// Record key of SLOT. No idempotency key can begin with a zero byte.
pub const SLOT_KEY: &[u8] = b"\0slot";
/// Record key of MARK.
pub const MARK_KEY: &[u8] = b"\0mark";
/// Prefix of the record key that remembers the answer to an *invalid* record's job id. Such a
/// record never claims an idempotency key, but its job id must not be answered twice.
pub const REJECTED_PREFIX: &[u8] = b"\0rejected:";

/// Most answered job ids a DONE keeps (decisions.md): the newest ones.
pub const ANSWERED_MAX: usize = 1_000;

/// Record key under which the answer to an invalid record's job id is remembered.
#[must_use]
pub fn rejected_key(job_id: &str) -> Vec<u8> {
    let mut key = REJECTED_PREFIX.to_vec();
    key.extend_from_slice(job_id.as_bytes());
    key
}

/// Offsets from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OffsetRange {
    /// First offset.
    pub first: i64,
    /// Last offset.
    pub last: i64,
}

impl OffsetRange {
    /// Whether the range holds an offset.
    #[must_use]
    pub fn contains(&self, offset: i64) -> bool {
        self.first <= offset && offset <= self.last
    }
}

/// Joins ascending offsets into ranges; neighbours join only when nothing lies between them.
pub fn ranges(offsets: impl IntoIterator<Item = i64>) -> Vec<OffsetRange> {
    let mut ranges: Vec<OffsetRange> = Vec::new();
    for offset in offsets {
        match ranges.last_mut() {
            Some(range) if range.last + 1 == offset => range.last = offset,
            _ => ranges.push(OffsetRange {
                first: offset,
                last: offset,
            }),
        }
    }
    ranges
}

/// One job id that a key has answered, with the payload it came with, in 12 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// First 64 bits of SHA-256 over the job id.
    pub job_id: u64,
    /// First 32 bits of the payload hash.
    pub payload: u32,
}

impl Fingerprint {
    /// Fingerprint of a job id and its payload.
    #[must_use]
    pub fn of(job_id: &str, payload_hash: &[u8; 32]) -> Self {
        use sha2::{Digest, Sha256};
        let digest: [u8; 32] = Sha256::digest(job_id.as_bytes()).into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        let [p, q, r, s, ..] = *payload_hash;
        Self {
            job_id: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            payload: u32::from_be_bytes([p, q, r, s]),
        }
    }
}

/// How a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FinalStatus {
    /// The handler succeeded.
    Completed,
    /// The handler failed, or the job could not be run.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// It ran out of time.
    Timeout,
}

/// Where a result stands. Never an offset: it is unknown inside the transaction that writes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResultPointer {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: u32,
    /// Record key.
    pub job_id: Arc<str>,
}

/// DONE: the answer of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The job that was executed (or refused) under this key.
    pub job_id: Arc<str>,
    /// SHA-256 of its payload.
    pub payload_hash: [u8; 32],
    /// How it ended.
    pub status: FinalStatus,
    /// Attempt that gave the answer.
    pub attempt: u32,
    /// Run that gave the answer.
    pub run: u32,
    /// Where its result stands.
    pub result: ResultPointer,
    /// Further job ids answered for this key, oldest first.
    pub answered: Vec<Fingerprint>,
}

impl Done {
    /// What a record with this job id and payload must get, now that the key is answered.
    #[must_use]
    pub fn judge(&self, job_id: &str, payload_hash: &[u8; 32]) -> Verdict {
        let same_payload = self.payload_hash == *payload_hash;
        if *self.job_id == *job_id {
            return if same_payload {
                Verdict::Drop
            } else {
                Verdict::DeadLetter
            };
        }
        if !self.answered.is_empty() {
            let fingerprint = Fingerprint::of(job_id, payload_hash);
            let answered = self
                .answered
                .iter()
                .rev()
                .find(|known| known.job_id == fingerprint.job_id);
            match answered {
                Some(known) if known.payload == fingerprint.payload => return Verdict::Drop,
                Some(_) => return Verdict::DeadLetter,
                None => {}
            }
        }
        if same_payload {
            Verdict::Duplicate
        } else {
            Verdict::Conflict
        }
    }

    /// Notes a further job id as answered; the oldest one gives way beyond [`ANSWERED_MAX`].
    pub fn answer(&mut self, job_id: &str, payload_hash: &[u8; 32]) {
        if self.answered.len() >= ANSWERED_MAX {
            self.answered.remove(0);
        }
        self.answered.push(Fingerprint::of(job_id, payload_hash));
    }
}

/// What a further record of an answered key gets (engine.md, "Transitions").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The same job again: its id has this answer already.
    Drop,
    /// Its id was answered with another payload: no second answer, but nothing is lost.
    DeadLetter,
    /// A new id with the original's payload: a pointer to the original result.
    Duplicate,
    /// A new id with another payload.
    Conflict,
}

/// SLOT: how far a slot is answered. In every transaction, for every slot it touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRecord {
    /// Partition count of the ledger when this was written.
    pub partition_count: u32,
    /// Everything below is answered.
    pub next_offset: i64,
    /// What is answered beyond.
    pub settled: Vec<OffsetRange>,
    /// `transactional.id` of the writer.
    pub writer: Arc<str>,
    /// Whether the writer gave the slot up in good order.
    pub released: bool,
}

impl SlotRecord {
    /// Whether this record names an offset as answered.
    #[must_use]
    pub fn covers(&self, offset: i64) -> bool {
        offset < self.next_offset || self.settled.iter().any(|range| range.contains(offset))
    }
}

/// MARK: which offsets may be running in which process; written before they start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Worker id and a random number of its process life.
    pub incarnation: Arc<str>,
    /// The writer's `transactional.id`.
    pub transactional_id: Arc<str>,
    /// Offsets that hold an execution permit, and the look-ahead.
    pub offsets: Vec<OffsetRange>,
}

/// Kind of a ledger record, from its header: restore decodes no value it does not need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LedgerKind {
    /// A key's answer.
    Done,
    /// A job that the committed offset has passed or that runs elsewhere (a later issue).
    Open,
    /// How far the slot is.
    Slot,
    /// What may be running.
    Mark,
}

/// Folds the ledger records of one slot, in offset order, into what its new owner needs.
#[derive(Debug, Default)]
pub struct Restoration {
    index: LedgerIndex,
    rejected: u64,
    open: u64,
    slot: Option<Vec<u8>>,
    mark: Option<Vec<u8>>,
    records: u64,
}

impl Restoration {
    /// Takes the next record.
    pub fn feed(
        &mut self,
        seed: HashSeed,
        offset: i64,
        key: &[u8],
        kind: LedgerKind,
        value: Option<&[u8]>,
    ) {
        self.records += 1;
        match (kind, value) {
            (LedgerKind::Slot, Some(value)) => self.slot = Some(value.to_vec()),
            (LedgerKind::Mark, Some(value)) => self.mark = Some(value.to_vec()),
            (LedgerKind::Done, Some(_)) => {
                if key.starts_with(REJECTED_PREFIX) {
                    self.rejected += 1;
                }
                self.index.insert(seed.hash(key), offset);
            }
            // Nothing built now writes OPEN; its place in the fold is here.
            (LedgerKind::Open, Some(_)) => self.open += 1,
            (_, None) => self.index.remove(seed.hash(key)),
        }
    }

    /// Number of records taken.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Number of OPEN records seen: an engine that cannot resume them must not run the slot.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open
    }

    /// Encoded newest SLOT.
    #[must_use]
    pub fn slot(&self) -> Option<&[u8]> {
        self.slot.as_deref()
    }

    /// Encoded newest MARK.
    #[must_use]
    pub fn mark(&self) -> Option<&[u8]> {
        self.mark.as_deref()
    }

    /// The index, and whether it holds answers to invalid records.
    #[must_use]
    pub fn into_index(self) -> (LedgerIndex, u64) {
        (self.index, self.rejected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(answered: &[(&str, [u8; 32])]) -> Done {
        let mut done = Done {
            job_id: "original".into(),
            payload_hash: [1; 32],
            status: FinalStatus::Completed,
            attempt: 1,
            run: 1,
            result: ResultPointer {
                topic: "results".into(),
                partition: 0,
                job_id: "original".into(),
            },
            answered: Vec::new(),
        };
        for (id, hash) in answered {
            done.answer(id, hash);
        }
        done
    }

    #[test]
    fn a_known_key_gives_each_of_the_four_verdicts() {
        let done = done(&[("twin", [1; 32]), ("other", [2; 32])]);
        assert_eq!(done.judge("original", &[1; 32]), Verdict::Drop);
        assert_eq!(done.judge("original", &[2; 32]), Verdict::DeadLetter);
        assert_eq!(done.judge("twin", &[1; 32]), Verdict::Drop);
        assert_eq!(done.judge("twin", &[2; 32]), Verdict::DeadLetter);
        assert_eq!(done.judge("other", &[2; 32]), Verdict::Drop);
        assert_eq!(done.judge("other", &[1; 32]), Verdict::DeadLetter);
        assert_eq!(done.judge("new", &[1; 32]), Verdict::Duplicate);
        assert_eq!(done.judge("new", &[2; 32]), Verdict::Conflict);
    }

    #[test]
    fn the_newest_answered_ids_are_kept() {
        let mut done = done(&[]);
        for n in 0..=ANSWERED_MAX {
            done.answer(&format!("id-{n}"), &[1; 32]);
        }
        assert_eq!(done.answered.len(), ANSWERED_MAX);
        assert_eq!(done.judge("id-0", &[1; 32]), Verdict::Duplicate);
        assert_eq!(done.judge("id-1", &[1; 32]), Verdict::Drop);
    }

    #[test]
    fn ranges_join_neighbours_only() {
        let joined = ranges([1, 2, 3, 5, 7, 8]);
        let pairs: Vec<_> = joined.iter().map(|r| (r.first, r.last)).collect();
        assert_eq!(pairs, [(1, 3), (5, 5), (7, 8)]);
    }
}
