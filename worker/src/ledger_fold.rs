//! From the raw records of a ledger partition to what the engine needs: at restore, at a read-back,
//! and for fencing. Both edges, Kafka's and the simulated one, fold with this.

use crate::codec;
use crate::engine::index::HashSeed;
use crate::engine::ledger::{LedgerKind, MARK_KEY, Restoration, SLOT_KEY};
use crate::engine::read_steps::ReadSteps;
use crate::engine::transaction::{Epoch, PartitionCommit, Resolution};
use crate::engine::{Restored, ledger::SlotRecord};
use guestkit_protocol::headers;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Takes the next record of a slot that is being restored; `kind` is the value of its kind header.
///
/// # Errors
/// For a person: the record is none of ours.
pub fn feed(
    restoration: &mut Restoration,
    seed: HashSeed,
    offset: i64,
    key: &[u8],
    kind: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<(), String> {
    let kind = match key {
        SLOT_KEY => LedgerKind::Slot,
        MARK_KEY => LedgerKind::Mark,
        _ => kind.and_then(codec::kind_of).ok_or_else(|| {
            format!(
                "ledger record at offset {offset} has no {} header: something else writes to the ledger",
                headers::LEDGER_KIND
            )
        })?,
    };
    restoration.feed(seed, offset, key, kind, value);
    Ok(())
}

/// What a finished reading means for the slot.
///
/// # Errors
/// Why the slot must not run: another try would find the same.
pub fn restored(
    partition: u32,
    epoch: Epoch,
    slots: u32,
    read: &ReadSteps,
    restoration: Restoration,
) -> Result<Restored, String> {
    let slot = restoration
        .slot()
        .map(codec::decode_slot)
        .transpose()
        .map_err(|reason| format!("the slot entry of the ledger cannot be read: {reason}"))?;
    let (committed, log_start) = (read.committed(), read.log_start());
    check(slots, committed, log_start, slot.as_ref(), &restoration)?;
    let (index, rejected) = restoration.into_index();
    Ok(Restored {
        partition,
        epoch,
        committed,
        log_start,
        slot,
        index,
        rejected,
    })
}

fn check(
    slots: u32,
    committed: Option<i64>,
    log_start: i64,
    slot: Option<&SlotRecord>,
    restoration: &Restoration,
) -> Result<(), String> {
    if let Some(slot) = slot
        && slot.partition_count != slots
    {
        return Err(format!(
            "the ledger was written with {} partitions and has {slots} now: keys would move to other slots; restore the old count or start with a new prefix",
            slot.partition_count
        ));
    }
    if restoration.open() > 0 {
        return Err(format!(
            "the ledger holds {} open jobs, written by a newer version: run that version",
            restoration.open()
        ));
    }
    let done_until = committed
        .unwrap_or(0)
        .max(slot.map_or(0, |slot| slot.next_offset));
    let known = committed.is_some() || slot.is_some();
    if known && done_until < log_start {
        return Err(format!(
            "the committed offset {done_until} lies before the log's start {log_start}: records were deleted unread; see \"lost records\" in the operations guide, then reset the group's offset on purpose"
        ));
    }
    Ok(())
}

/// The `transactional.id` that a ledger record names as a writer of its slot.
#[must_use]
pub fn writer_named(key: &[u8], value: &[u8]) -> Option<String> {
    match key {
        SLOT_KEY => codec::decode_slot(value)
            .ok()
            .map(|slot| slot.writer.to_string()),
        MARK_KEY => codec::decode_mark(value)
            .ok()
            .map(|mark| mark.transactional_id.to_string()),
        _ => None,
    }
}

/// A record that a transaction may have written: its key, its offset, its value.
type Written = (Arc<[u8]>, i64, Option<Vec<u8>>);

/// What stands in the ledger of one partition of a transaction with unknown outcome.
#[derive(Debug)]
pub struct ReadBack<'a> {
    part: &'a PartitionCommit,
    wanted: BTreeSet<&'a [u8]>,
    slot: Option<Vec<u8>>,
    done: Vec<Written>,
}

impl<'a> ReadBack<'a> {
    /// A read-back of this partition.
    #[must_use]
    pub fn of(part: &'a PartitionCommit) -> Self {
        Self {
            part,
            wanted: part.done.iter().map(|(key, _)| &**key).collect(),
            slot: None,
            done: Vec::new(),
        }
    }

    /// Takes the next record, read committed.
    pub fn feed(&mut self, offset: i64, key: &[u8], value: Option<&[u8]>) {
        if key == SLOT_KEY {
            self.slot = value.map(<[u8]>::to_vec);
        } else if self.wanted.contains(key) {
            self.done
                .push((key.into(), offset, value.map(<[u8]>::to_vec)));
        }
    }

    /// What the engine decides by.
    #[must_use]
    pub fn finish(self, committed: Option<i64>) -> Resolution {
        let part = self.part;
        // Only this transaction's own answers count: an earlier DONE of the key says less.
        let is_own = |(key, _, value): &Written| {
            let written = part.done.iter().find(|(wanted, _)| wanted == key);
            let found = value
                .as_deref()
                .and_then(|value| codec::decode_done(value).ok());
            written.is_some_and(|(_, done)| found.as_ref() == Some(&**done))
        };
        Resolution {
            partition: part.partition,
            committed,
            slot: self.slot.and_then(|value| codec::decode_slot(&value).ok()),
            done: self
                .done
                .into_iter()
                .filter(is_own)
                .map(|(key, offset, _)| (key, offset))
                .collect(),
        }
    }
}
