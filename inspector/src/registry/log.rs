//! Transaction logs ("Format of transaction log files"), checked and laid over the hive bins.
//!
//! Entries are hashed as they are found but not kept: the overlay remembers where their pages lie.

use super::base::{BaseBlock, TYPE_LOG_NEW, TYPE_LOG_OLD};
use super::marvin::Marvin32;
use super::overlay::{Overlay, UNIT};
use crate::bytes::{Record, narrow, read_upto, read_vec, size, wide};
use crate::error::{DiskError, Result};
use crate::read_at::Layer;
use std::collections::BTreeMap;

/// Largest log that is read: Windows keeps them far below this.
const LOG_MAX: u64 = 128 << 20;
/// Header of a log entry.
const ENTRY_HEADER: usize = 40;
/// Pages of one entry: as many as 128 MiB hold.
const PAGES_MAX: u32 = 32_768;
/// Hashed at a time.
const CHUNK: u64 = 64 << 10;
/// Hive bins grow by whole pages.
const PAGE: u32 = 4_096;

/// One log with its base block.
pub(super) struct Log {
    /// Its place among the logs of the overlay.
    index: usize,
    layer: Layer,
    pub(super) base: BaseBlock,
}

impl Log {
    /// `None` when it is empty, unfinished or no log at all.
    pub(super) fn read(index: usize, layer: &Layer) -> Result<Option<Self>> {
        if layer.len() <= UNIT || layer.len() > LOG_MAX {
            return Ok(None);
        }
        let base = match BaseBlock::read(layer.as_ref()) {
            Ok(base) => base,
            Err(DiskError::Corrupt { .. } | DiskError::Unsupported { .. }) => return Ok(None),
            Err(other) => return Err(other),
        };
        let whole = base.checksum_ok && base.primary_sequence == base.secondary_sequence;
        let kind = base.file_type == TYPE_LOG_NEW || base.file_type == TYPE_LOG_OLD;
        Ok((whole && kind).then(|| Self {
            index,
            layer: layer.clone(),
            base,
        }))
    }

    pub(super) fn is_new(&self) -> bool {
        self.base.file_type == TYPE_LOG_NEW
    }
}

/// A valid entry of the new format.
struct Entry {
    log: usize,
    position: u64,
    pages: u32,
    bins_size: u32,
}

/// Applies the entries of new-format logs from sequence number `first` on, and returns how many.
///
/// Numbers run on from one log to the other (notes 5 and 7), so both are put in one order. They may
/// begin above `first`: after two rotations Windows has written the missing pages to the primary
/// file already. Without `first` (the primary's base block is damaged) the longest unbroken run up
/// to the newest entry is taken: pages that were applied before are applied again, in order.
pub(super) fn apply_new(logs: &[&Log], first: Option<u32>, bins: &mut Overlay) -> Result<u32> {
    let mut entries: BTreeMap<u32, Entry> = BTreeMap::new();
    for log in logs {
        scan(log, &mut entries)?;
    }
    let first = first.unwrap_or_else(|| run_start(&entries));
    let mut applied = 0_u32;
    let mut last = first;
    for (sequence, entry) in entries.range(first..) {
        if applied > 0 && *sequence != last.wrapping_add(1) {
            break;
        }
        let Some(log) = logs.iter().find(|log| log.index == entry.log) else {
            break;
        };
        if !lay(log, entry, bins)? {
            break;
        }
        applied = applied.saturating_add(1);
        last = *sequence;
    }
    Ok(applied)
}

fn run_start(entries: &BTreeMap<u32, Entry>) -> u32 {
    let mut start = None;
    for sequence in entries.keys().rev() {
        match start {
            Some(next) if sequence.wrapping_add(1) != next => break,
            _ => start = Some(*sequence),
        }
    }
    start.unwrap_or(0)
}

/// Finds the valid entries of a log; the first bad one ends it (note 8).
fn scan(log: &Log, entries: &mut BTreeMap<u32, Entry>) -> Result<()> {
    let mut position = UNIT;
    while position.saturating_add(wide(ENTRY_HEADER)) <= log.layer.len() {
        let header = read_vec(log.layer.as_ref(), position, ENTRY_HEADER)?;
        let record = Record::new("registry log entry", position, &header);
        let length = u64::from(record.u32_le(4)?);
        let bins_size = record.u32_le(16)?;
        let pages = record.u32_le(20)?;
        let sound = record.slice(0, 4)? == b"HvLE"
            && length >= UNIT
            && length.is_multiple_of(UNIT)
            && length <= log.layer.len().saturating_sub(position)
            && bins_size > 0
            && bins_size.is_multiple_of(PAGE)
            && pages <= PAGES_MAX;
        if !sound {
            break;
        }
        let mut hash = Marvin32::new();
        hash.update(record.slice(0, 32)?);
        if hash.finish() != record.u64_le(32)?
            || body_hash(log, position, length)? != record.u64_le(24)?
        {
            break;
        }
        entries.entry(record.u32_le(12)?).or_insert(Entry {
            log: log.index,
            position,
            pages,
            bins_size,
        });
        position = position.saturating_add(length);
    }
    Ok(())
}

fn body_hash(log: &Log, position: u64, length: u64) -> Result<u64> {
    let mut hash = Marvin32::new();
    let mut at = position.saturating_add(wide(ENTRY_HEADER));
    let end = position.saturating_add(length);
    let mut buf = vec![0; narrow(CHUNK.min(length))];
    while at < end {
        let len = narrow(end.saturating_sub(at)).min(buf.len());
        let part = buf.get_mut(..len).unwrap_or_default();
        log.layer.read_exact_at(at, part)?;
        hash.update(part);
        at = at.saturating_add(wide(len));
    }
    Ok(hash.finish())
}

/// Lays the pages of an entry over the bins. `false`, and nothing laid, when the entry contradicts
/// itself.
fn lay(log: &Log, entry: &Entry, bins: &mut Overlay) -> Result<bool> {
    let references = entry.position.saturating_add(wide(ENTRY_HEADER));
    let length = size(entry.pages).saturating_mul(8);
    let bytes = read_upto(log.layer.as_ref(), references, length)?;
    let mut data = references.saturating_add(wide(length));
    let mut pages = Vec::new();
    for reference in bytes.as_chunks::<4>().0.as_chunks::<2>().0 {
        let [offset, len] = reference.map(|word| u64::from(u32::from_le_bytes(word)));
        let past = data.saturating_add(len);
        if !offset.is_multiple_of(UNIT) || !len.is_multiple_of(UNIT) || past > log.layer.len() {
            return Ok(false);
        }
        pages.push((offset, len, data));
        data = past;
    }
    bins.resize(entry.bins_size);
    for (offset, len, data) in pages {
        bins.replace(offset, len, log.index, data)?;
    }
    Ok(true)
}

/// Applies a log of the old format: a bitmap of dirty 512-byte pages, then those pages ("Dirty
/// vector", "Dirty pages"). `false`, and nothing applied, when the log
/// is none of that or holds fewer pages than it names.
pub(super) fn apply_old(log: &Log, bins: &mut Overlay) -> Result<bool> {
    let bits = log.base.bins_size / 512;
    let head = read_upto(
        log.layer.as_ref(),
        UNIT,
        size(bits.div_ceil(8)).saturating_add(4),
    )?;
    if head.get(..4) != Some(b"DIRT") {
        return Ok(false);
    }
    let mut position = UNIT.saturating_add(wide(head.len()).next_multiple_of(UNIT));
    let mut pages = Vec::new();
    for bit in 0..bits {
        let byte = head.get(size(bit / 8).saturating_add(4)).unwrap_or(&0);
        if byte >> (bit % 8) & 1 == 0 {
            continue;
        }
        if position.saturating_add(UNIT) > log.layer.len() {
            return Ok(false);
        }
        pages.push((u64::from(bit).saturating_mul(UNIT), position));
        position = position.saturating_add(UNIT);
    }
    bins.resize(log.base.bins_size);
    for (offset, position) in pages {
        bins.replace(offset, UNIT, log.index, position)?;
    }
    Ok(true)
}
