//! The log (MS-VHDX 2.3): updates that were written down but perhaps not yet applied. The newest
//! complete sequence of entries is replayed in memory, the file is not touched.

use super::super::mapped::{corrupt, unsupported};
use super::{MIB, checksum_holds};
use crate::bytes::{Record, narrow, read_vec, size, wide};
use crate::error::Result;
use crate::layer::check_range;
use crate::read_at::{Layer, ReadAt};
use std::collections::{BTreeMap, BTreeSet};

const SECTOR: u64 = 4096;
/// Logs are 1 MiB; nobody makes larger ones than this. It bounds memory (an update takes some 50
/// bytes for each sector of the log) and time.
const LOG_MAX: u64 = 32 << 20;
/// Bytes checked, as a multiple of the log: what older entries claim overlaps, but not endlessly.
const CHECKED_MAX: u64 = 8;
/// Updates kept: as many as there are data sectors in the largest log, and as many zeros.
const UPDATES_MAX: usize = 16 << 10;

/// Where the log is, by the header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) guid: [u8; 16],
    pub(super) version: u16,
    pub(super) len: u64,
    pub(super) offset: u64,
}

/// The file as it is once the log is applied.
pub(super) struct Replayed {
    file: Layer,
    len: u64,
    updates: BTreeMap<u64, Update>,
}

/// What an update, which begins at its key, puts there.
#[derive(Debug, Clone, Copy)]
struct Update {
    len: u64,
    data: Option<Sector>,
}

/// A data sector: 4084 bytes in the log, the first 8 and last 4 in its descriptor.
#[derive(Debug, Clone, Copy)]
struct Sector {
    at: u64,
    leading: [u8; 8],
    trailing: [u8; 4],
}

/// An entry's header and position (2.3.1.1).
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Within the log.
    at: u64,
    len: u64,
    tail: u64,
    sequence: u64,
    descriptors: u32,
    flushed: u64,
    last: u64,
}

/// Finds the active sequence and applies it on top of `file`.
pub(super) fn replay(file: Layer, place: Place) -> Result<Replayed> {
    if place.version != 0 {
        return Err(unsupported(format!("VHDX log version {}", place.version)));
    }
    let bad = |problem: &str| corrupt("VHDX log", place.offset, problem);
    if place.len == 0 || !place.len.is_multiple_of(MIB) || place.len > LOG_MAX {
        return Err(bad("its length is not one of 1 to 32 MiB"));
    }
    if place.offset < MIB || place.offset.saturating_add(place.len) > file.len() {
        return Err(bad("it lies outside the file"));
    }
    let log = read_vec(file.as_ref(), place.offset, narrow(place.len))?;
    let sequence = active_sequence(&log, &place)
        .ok_or_else(|| bad("it waits to be replayed, but holds no complete sequence"))?;
    let mut replayed = Replayed {
        len: file.len(),
        file,
        updates: BTreeMap::new(),
    };
    for entry in &sequence {
        replayed.apply(&log, entry, place.offset)?;
    }
    if let Some(head) = sequence.last() {
        if replayed.file.len() < head.flushed {
            return Err(bad("the file is shorter than the log says: it was cut off"));
        }
        replayed.len = replayed.len.max(head.last);
    }
    Ok(replayed)
}

/// 2.3.3: of all runs of valid entries with consecutive numbers whose head names a tail within the
/// run, the one with the highest number; from that tail on.
fn active_sequence(log: &[u8], place: &Place) -> Option<Vec<Entry>> {
    let entries = entries(log, place);
    let mut best: Option<Vec<Entry>> = None;
    let mut seen = BTreeSet::new();
    for start in entries.values() {
        // Part of an earlier run: that one has the same head.
        if seen.contains(&start.at) {
            continue;
        }
        let mut run = vec![*start];
        let mut last = *start;
        seen.insert(last.at);
        while let Some(next) = entries.get(&wrapped(last.at.saturating_add(last.len), log))
            && next.sequence == last.sequence.saturating_add(1)
        {
            last = *next;
            seen.insert(last.at);
            run.push(last);
        }
        let Some(first) = run.iter().position(|e| e.at == last.tail) else {
            continue;
        };
        let known = best.as_ref().and_then(|b| b.last()).map(|e| e.sequence);
        if known.is_none_or(|known| last.sequence > known) {
            best = Some(run.split_off(first));
        }
    }
    best
}

/// All valid entries by position. What follows a valid entry is examined from its end on.
fn entries(log: &[u8], place: &Place) -> BTreeMap<u64, Entry> {
    let end = wide(log.len());
    let mut entries: BTreeMap<u64, Entry> = BTreeMap::new();
    let mut allowance = end.saturating_mul(CHECKED_MAX);
    let mut position = 0u64;
    while position < end {
        let step = match entry(log, position, place, &mut allowance) {
            Some(found) => {
                entries.insert(position, found);
                found.len
            }
            None => SECTOR,
        };
        position = position.saturating_add(step);
    }
    entries
}

fn wrapped(at: u64, log: &[u8]) -> u64 {
    at.checked_rem(wide(log.len())).unwrap_or(0)
}

/// `len` bytes of the log from `at` on; it goes on at its start.
fn ring(log: &[u8], at: u64, len: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(narrow(len.min(wide(log.len()))));
    let start = narrow(wrapped(at, log));
    let first = log.get(start..).unwrap_or_default();
    out.extend(first.iter().chain(log).take(narrow(len)));
    out
}

/// The valid entry at `at`, if there is one and `allowance` bytes are enough to check it.
fn entry(log: &[u8], at: u64, place: &Place, allowance: &mut u64) -> Option<Entry> {
    let start = narrow(at);
    let header = log.get(start..start.checked_add(64)?)?;
    if !header.starts_with(b"loge") {
        return None;
    }
    let r = Record::new("VHDX log entry", at, header);
    let found = Entry {
        at,
        len: u64::from(r.u32_le(8).ok()?),
        tail: u64::from(r.u32_le(12).ok()?),
        sequence: r.u64_le(16).ok()?,
        descriptors: r.u32_le(24).ok()?,
        flushed: r.u64_le(48).ok()?,
        last: r.u64_le(56).ok()?,
    };
    let fits = found.len > 0
        && found.len.is_multiple_of(SECTOR)
        && found.len <= wide(log.len())
        && found.tail.is_multiple_of(SECTOR)
        && found.tail < wide(log.len())
        && found.sequence > 0
        && descriptor_bytes(found.descriptors) <= found.len;
    let ours = r.array::<16>(32).ok()? == place.guid;
    if !fits || !ours {
        return None;
    }
    *allowance = allowance.checked_sub(found.len)?;
    checksum_holds(&ring(log, at, found.len)).then_some(found)
}

/// Header and descriptors, rounded up to sectors.
fn descriptor_bytes(descriptors: u32) -> u64 {
    u64::from(descriptors)
        .saturating_mul(32)
        .saturating_add(64)
        .next_multiple_of(SECTOR)
}

impl Replayed {
    fn apply(&mut self, log: &[u8], entry: &Entry, log_offset: u64) -> Result<()> {
        let bytes = ring(log, entry.at, entry.len);
        let position = log_offset.saturating_add(entry.at);
        let r = Record::new("VHDX log entry", position, &bytes);
        let mut data_at = descriptor_bytes(entry.descriptors);
        for index in 0..size(entry.descriptors) {
            let at = index.saturating_mul(32).saturating_add(64);
            let target = r.u64_le(at.saturating_add(16))?;
            if self.updates.len() > UPDATES_MAX {
                return Err(r.corrupt(at, format!("more than {UPDATES_MAX} updates")));
            }
            if r.u64_le(at.saturating_add(24))? != entry.sequence || !target.is_multiple_of(SECTOR)
            {
                return Err(r.corrupt(at, "a descriptor of another entry, or not aligned"));
            }
            match &r.array::<4>(at)? {
                b"zero" => {
                    let len = r.u64_le(at.saturating_add(8))?;
                    if len == 0 || !len.is_multiple_of(SECTOR) || target.checked_add(len).is_none()
                    {
                        return Err(r.corrupt(at, format!("{len} zeros")));
                    }
                    self.insert(target, Update { len, data: None });
                }
                b"desc" => {
                    let sector = narrow(data_at);
                    self.insert(target, data_update(&r, at, sector, entry, log, log_offset)?);
                    data_at = data_at.saturating_add(SECTOR);
                }
                _ => return Err(r.corrupt(at, "no descriptor")),
            }
        }
        Ok(())
    }

    /// Puts an update above all earlier ones.
    fn insert(&mut self, start: u64, update: Update) {
        let end = start.saturating_add(update.len);
        // What earlier updates overlap: the last one that begins before, and those within.
        let before = self.updates.range(..start).next_back();
        let before = before.map(|(at, _)| *at);
        let within: Vec<u64> = self.updates.range(start..end).map(|(at, _)| *at).collect();
        for at in before.into_iter().chain(within) {
            let Some(old) = self.updates.get(&at).copied() else {
                continue;
            };
            let old_end = at.saturating_add(old.len);
            if old_end <= start {
                continue;
            }
            self.updates.remove(&at);
            // Only zeros are longer than a sector, and all is aligned: what is left is zeros.
            for (from, to) in [(at, start), (end, old_end)] {
                if from < to {
                    let len = to.saturating_sub(from);
                    self.updates.insert(from, Update { len, data: None });
                }
            }
        }
        self.updates.insert(start, update);
    }

    /// Reads the file, past whose end there are zeros until the log's own end.
    fn below(&self, position: u64, buf: &mut [u8]) -> Result<()> {
        super::super::mapped::read_padded(self.file.as_ref(), position, buf)
    }
}

/// The update of a data descriptor at `at`, whose sector is at `sector` of the entry.
fn data_update(
    r: &Record<'_>,
    at: usize,
    sector: usize,
    entry: &Entry,
    log: &[u8],
    log_offset: u64,
) -> Result<Update> {
    let high = u64::from(r.u32_le(sector.saturating_add(4))?);
    let low = u64::from(r.u32_le(sector.saturating_add(4092))?);
    if r.array::<4>(sector)? != *b"data" || (high << 32 | low) != entry.sequence {
        return Err(r.corrupt(sector, "a data sector of another entry"));
    }
    let in_log = wrapped(entry.at.saturating_add(wide(sector)), log);
    Ok(Update {
        len: SECTOR,
        data: Some(Sector {
            at: log_offset.saturating_add(in_log),
            leading: r.array(at.saturating_add(8))?,
            trailing: r.array(at.saturating_add(4))?,
        }),
    })
}

impl ReadAt for Replayed {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, position: u64, buf: &mut [u8]) -> Result<()> {
        check_range(position, buf.len(), self.len)?;
        let mut at = position;
        let mut rest = buf;
        while !rest.is_empty() {
            let covering = self
                .updates
                .range(..=at)
                .next_back()
                .filter(|(start, u)| start.saturating_add(u.len) > at);
            let Some((start, update)) = covering else {
                let next = self.updates.range(at..).next().map(|(start, _)| *start);
                let run = next.map_or(u64::MAX, |next| next.saturating_sub(at));
                let len = narrow(run).min(rest.len());
                let (head, tail) = rest.split_at_mut(len);
                self.below(at, head)?;
                at = at.saturating_add(wide(len));
                rest = tail;
                continue;
            };
            let within = at.saturating_sub(*start);
            let len = narrow(update.len.saturating_sub(within)).min(rest.len());
            let (head, tail) = rest.split_at_mut(len);
            match &update.data {
                None => head.fill(0),
                Some(sector) => {
                    let mut bytes = vec![0; narrow(SECTOR)];
                    self.file.read_exact_at(sector.at, &mut bytes)?;
                    // The sector's own first 8 and last 4 bytes made way for its signature.
                    if let Some(leading) = bytes.get_mut(..8) {
                        leading.copy_from_slice(&sector.leading);
                    }
                    if let Some(trailing) = bytes.get_mut(4092..) {
                        trailing.copy_from_slice(&sector.trailing);
                    }
                    let from = narrow(within);
                    for (to, byte) in head.iter_mut().zip(bytes.iter().skip(from)) {
                        *to = *byte;
                    }
                }
            }
            at = at.saturating_add(wide(len));
            rest = tail;
        }
        Ok(())
    }
}
