//! Master boot records, with logical partitions in a chain of extended boot records.

use super::{Disk, Partition, names};
use crate::bytes::{Record, read_vec};
use crate::error::{DiskError, Result};
use crate::read_at::ReadAt;
use std::collections::HashSet;

/// Logical partitions at most; the kernel stops at 256 of all kinds.
const LOGICAL_MAX: usize = 256;
const SECTOR: u64 = 512;

#[derive(Clone, Copy)]
struct Entry {
    boot: u8,
    kind: u8,
    start: u64,
    sectors: u64,
}

impl Entry {
    fn is_extended(self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }

    fn is_empty(self) -> bool {
        self.sectors == 0
    }
}

/// The first sector, once it looks like a boot record.
pub(super) struct Mbr {
    disk_id: u32,
    entries: [Entry; 4],
}

impl Mbr {
    /// `None` without the signature, or when a boot indicator is neither 0 nor 0x80: then the
    /// sector holds code or text there.
    pub(super) fn parse(sector: &[u8]) -> Option<Self> {
        let r = Record::new("MBR", 0, sector);
        let entries = entries(&r).ok()?;
        if r.u16_le(510).ok()? != 0xaa55 || entries.iter().any(|e| e.boot & 0x7f != 0) {
            return None;
        }
        Some(Self {
            disk_id: r.u32_le(440).ok()?,
            entries,
        })
    }

    /// Whether the table only protects a GPT (or is a hybrid of both).
    pub(super) fn is_protective(&self) -> bool {
        self.entries.iter().any(|e| e.kind == 0xee)
    }
}

fn entries(r: &Record<'_>) -> Result<[Entry; 4]> {
    let entry = |at: usize| -> Result<Entry> {
        Ok(Entry {
            boot: r.u8(at)?,
            kind: r.u8(at.saturating_add(4))?,
            start: u64::from(r.u32_le(at.saturating_add(8))?),
            sectors: u64::from(r.u32_le(at.saturating_add(12))?),
        })
    };
    Ok([entry(446)?, entry(462)?, entry(478)?, entry(494)?])
}

pub(super) fn read(disk: &dyn ReadAt, mbr: &Mbr, found: &mut Disk) -> Result<()> {
    found.table = "dos".into();
    found.id = Some(format!("{:08x}", mbr.disk_id));
    let mut extended = None;
    for (index, entry) in (1u32..).zip(mbr.entries) {
        if entry.is_empty() {
            continue;
        }
        if entry.is_extended() && extended.is_none() {
            extended = Some(entry);
        }
        found
            .partitions
            .push(partition(mbr.disk_id, index, entry, entry.start));
    }
    if let Some(extended) = extended {
        match logical(disk, mbr.disk_id, extended, &mut found.partitions) {
            Err(e @ (DiskError::Corrupt { .. } | DiskError::OutOfBounds { .. })) => {
                found.warnings.push(e.to_string());
            }
            other => other?,
        }
    }
    Ok(())
}

/// Each record names one partition, relative to itself, and the next record, relative to the
/// extended partition.
fn logical(
    disk: &dyn ReadAt,
    disk_id: u32,
    extended: Entry,
    partitions: &mut Vec<Partition>,
) -> Result<()> {
    let mut seen = HashSet::new();
    let mut at = extended.start;
    let mut index = 5u32;
    loop {
        let position = at.saturating_mul(SECTOR);
        let raw = read_vec(disk, position, 512)?;
        let r = Record::new("extended boot record", position, &raw);
        if !seen.insert(at) || seen.len() > LOGICAL_MAX {
            return Err(r.corrupt(0, "the chain of logical partitions does not end"));
        }
        if r.u16_le(510)? != 0xaa55 {
            return Err(r.corrupt(510, "no signature"));
        }
        let [first, second, ..] = entries(&r)?;
        for entry in [first, second] {
            if !entry.is_empty() && !entry.is_extended() {
                let start = at.saturating_add(entry.start);
                partitions.push(partition(disk_id, index, entry, start));
                index = index.saturating_add(1);
            }
        }
        let next = [first, second]
            .into_iter()
            .find(|e| e.is_extended() && !e.is_empty());
        match next {
            Some(link) => at = extended.start.saturating_add(link.start),
            None => return Ok(()),
        }
    }
}

fn partition(disk_id: u32, index: u32, entry: Entry, start: u64) -> Partition {
    Partition {
        index,
        start: start.saturating_mul(SECTOR),
        size: entry.sectors.saturating_mul(SECTOR),
        part_type: format!("{:x}", entry.kind),
        type_name: names::of_byte(entry.kind).map(str::to_owned),
        name: None,
        uuid: Some(format!("{disk_id:08x}-{index:02x}")),
        flags: Vec::new(),
        bootable: entry.boot & 0x80 != 0,
        container: entry.is_extended(),
        content: None,
    }
}
