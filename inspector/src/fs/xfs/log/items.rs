//! Logged changes put in their places: buffers, inodes, new inode clusters.
//!
//! Intents to free or to map extents change nothing that a reader sees, except unfinished changes
//! of file mappings and attributes: those are told.

use super::overlay::Overlay;
use super::transaction::{Item, Transaction};
use super::{Replayed, newer};
use crate::bytes::{Record, narrow, read_vec, size, wide};
use crate::error::{DiskError, Result};
use crate::fs::xfs::inode::{CORE_V2, CORE_V3, FLAG2_BIGTIME, FLAG2_NREXT64, MAGIC};
use crate::fs::xfs::superblock::SuperBlock;
use crate::read_at::Layer;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const INODE: u16 = 0x123b;
const BUFFER: u16 = 0x123c;
const ICREATE: u16 = 0x123f;
/// Extents to free, quota, reverse mappings, reference counts, with their ends: nothing that
/// shows.
const UNSEEN: [u16; 14] = [
    0x1236, 0x1237, 0x123d, 0x123e, 0x1240, 0x1241, 0x1242, 0x1243, 0x124a, 0x124b, 0x124c, 0x124d,
    0x124e, 0x124f,
];
/// Intents whose effect does show (mappings, attributes, exchanged mappings), each followed by
/// its done item.
const INTENTS: [u16; 3] = [0x1244, 0x1246, 0x1248];

const BUFFER_CANCEL: u16 = 0x2;
/// Only the list of unlinked inodes of the buffer is logged.
const BUFFER_INODES: u16 = 0x1;
const CHUNK: usize = 128;
/// Cancelled buffers remembered.
const CANCELLED_MAX: usize = 1_000_000;
/// An inode chunk: 64 inodes of 2 KiB.
const CLUSTER_MAX: u64 = 64 * 2048;

mod field {
    pub(super) const DATA: u32 = 0x2;
    pub(super) const EXTENTS: u32 = 0x4;
    pub(super) const BROOT: u32 = 0x8;
    pub(super) const DEV: u32 = 0x10;
    pub(super) const ATTR_DATA: u32 = 0x40;
    pub(super) const ATTR_EXTENTS: u32 = 0x80;
    pub(super) const ATTR_BROOT: u32 = 0x100;
}

pub(super) struct Replay<'a> {
    sb: &'a SuperBlock,
    overlay: Overlay,
    /// (512-byte block, length in such blocks) of freed buffers, with how often.
    cancelled: BTreeMap<(u64, u32), u32>,
    pending: BTreeSet<(u16, u64)>,
    unknown: BTreeSet<u16>,
}

struct BufferFormat {
    flags: u16,
    len: u32,
    block: u64,
    map: Vec<u32>,
}

impl BufferFormat {
    fn parse(raw: &[u8]) -> Result<Self> {
        let r = Record::new("XFS log buffer item", 0, raw);
        let words = size(r.u32_le(16)?);
        let mut map = Vec::new();
        for chunk in r.slice(20, words.saturating_mul(4))?.chunks_exact(4) {
            map.push(Record::new("XFS log buffer item", 0, chunk).u32_le(0)?);
        }
        Ok(Self {
            flags: r.u16_le(4)?,
            len: u32::from(r.u16_le(6)?),
            block: r.u64_le(8)?,
            map,
        })
    }

    fn position(&self) -> u64 {
        self.block.saturating_mul(512)
    }
}

impl<'a> Replay<'a> {
    pub(super) fn new(device: &Layer, sb: &'a SuperBlock) -> Self {
        Self {
            sb,
            overlay: Overlay::new(device),
            cancelled: BTreeMap::new(),
            pending: BTreeSet::new(),
            unknown: BTreeSet::new(),
        }
    }

    /// First pass.
    pub(super) fn note_cancelled(&mut self, transaction: &Transaction) -> Result<()> {
        for item in transaction.items.iter().filter(|i| i.kind() == BUFFER) {
            let format = BufferFormat::parse(item.region(0))?;
            if format.flags & BUFFER_CANCEL != 0 {
                if self.cancelled.len() >= CANCELLED_MAX {
                    return Err(super::too_much());
                }
                let times = self
                    .cancelled
                    .entry((format.block, format.len))
                    .or_default();
                *times = times.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Second pass: buffers first, then inodes, then the ends of cancelled buffers, as the kernel
    /// sorts them.
    pub(super) fn apply(&mut self, transaction: Transaction) -> Result<()> {
        let mut ends = Vec::new();
        for item in &transaction.items {
            match item.kind() {
                BUFFER => {
                    let format = BufferFormat::parse(item.region(0))?;
                    if format.flags & BUFFER_CANCEL != 0 {
                        ends.push((format.block, format.len));
                    } else if format.flags & BUFFER_INODES == 0 {
                        self.buffer(&format, item, transaction.lsn)?;
                    }
                }
                ICREATE => self.new_inodes(item)?,
                _ => {}
            }
        }
        for item in &transaction.items {
            let kind = item.kind();
            let done = kind.wrapping_sub(1);
            if kind == INODE {
                self.inode(item, transaction.lsn)?;
            } else if INTENTS.contains(&kind) || INTENTS.contains(&done) {
                let id = Record::new("XFS log intent", 0, item.region(0)).u64_le(8)?;
                if INTENTS.contains(&kind) {
                    self.pending.insert((kind, id));
                } else {
                    self.pending.remove(&(done, id));
                }
            } else if !matches!(kind, BUFFER | ICREATE) && !UNSEEN.contains(&kind) {
                self.unknown.insert(kind);
            }
        }
        for end in ends {
            if let Some(times) = self.cancelled.get_mut(&end) {
                *times = times.saturating_sub(1);
            }
        }
        Ok(())
    }

    fn is_cancelled(&self, block: u64, len: u32) -> bool {
        self.cancelled
            .get(&(block, len))
            .is_some_and(|times| *times > 0)
    }

    /// Copies the dirty chunks of a buffer, unless it was freed later or is newer on disk.
    fn buffer(&mut self, format: &BufferFormat, item: &Item, lsn: u64) -> Result<()> {
        if self.is_cancelled(format.block, format.len) {
            return Ok(());
        }
        if self.sb.is_v5() {
            let len = narrow(u64::from(format.len).saturating_mul(512)).min(256);
            let head = read_vec(&self.overlay, format.position(), len);
            if let Ok(head) = head
                && let Some(on_disk) = self.lsn_of(&head)
                && on_disk >= lsn
            {
                return Ok(());
            }
        }
        let bytes = usize::try_from(format.len).unwrap_or(0).saturating_mul(512);
        let bits = bytes.div_ceil(CHUNK);
        let is_dirty = |bit: usize| {
            let word = format.map.get(bit / 32).copied().unwrap_or(0);
            let shift = u32::try_from(bit % 32).unwrap_or(0);
            word.checked_shr(shift).unwrap_or(0) & 1 == 1
        };
        let mut bit = 0;
        let mut region = 1;
        while bit < bits {
            if !is_dirty(bit) {
                bit = bit.saturating_add(1);
                continue;
            }
            let data = item.region(region);
            let run = (bit..bits).take_while(|b| is_dirty(*b)).count();
            // One region may hold less than the run of bits: then the next goes on.
            let chunks = run.min(data.len() / CHUNK);
            if chunks == 0 {
                let r = Record::new("XFS log buffer item", format.position(), data);
                return Err(r.corrupt(0, "a region without data"));
            }
            let at = format
                .position()
                .saturating_add(wide(bit.saturating_mul(CHUNK)));
            let used = chunks.saturating_mul(CHUNK);
            self.overlay
                .write(at, data.get(..used).unwrap_or_default())?;
            bit = bit.saturating_add(chunks);
            region = region.saturating_add(1);
        }
        Ok(())
    }

    /// LSN that a metadata block of version 5 carries, by its magic; `None` where it has none or
    /// belongs to another file system.
    fn lsn_of(&self, head: &[u8]) -> Option<u64> {
        let r = Record::new("XFS metadata block", 0, head);
        let (lsn_at, uuid_at) = match r.slice(0, 4).ok()? {
            b"AB3B" | b"AB3C" | b"IAB3" | b"FIB3" | b"RMB3" | b"R3FC" => (24, 32),
            b"BMA3" => (32, 40),
            b"XDB3" | b"XDD3" | b"XDF3" => (16, 24),
            b"XSLM" => (48, 16),
            _ => match r.u16_be(8).ok()? {
                0x3df1 | 0x3dff | 0x3ebe | 0x3bee => (24, 32),
                _ => return None,
            },
        };
        if r.array::<16>(uuid_at).ok()? != self.sb.meta_uuid {
            return None;
        }
        r.u64_be(lsn_at)
            .ok()
            .filter(|lsn| *lsn != 0 && *lsn != u64::MAX)
    }

    /// A fresh cluster: zeros, until inode items fill it.
    fn new_inodes(&mut self, item: &Item) -> Result<()> {
        let r = Record::new("XFS log icreate item", 0, item.region(0));
        let (group, block, blocks) = (r.u32_be(4)?, r.u32_be(8)?, r.u32_be(20)?);
        let number = u64::from(group)
            .checked_shl(self.sb.ag_block_log)
            .unwrap_or(u64::MAX)
            | u64::from(block);
        let len = u64::from(blocks).saturating_mul(self.sb.block_size);
        let Some(position) = self
            .sb
            .block_position(number)
            .filter(|_| len <= CLUSTER_MAX)
        else {
            return Err(r.corrupt(4, format!("{blocks} blocks at {group}/{block}")));
        };
        let past = position.saturating_add(len);
        let freed = self.cancelled.range((position / 512, 0)..(past / 512, 0));
        if freed.into_iter().any(|(_, times)| *times > 0) {
            return Ok(());
        }
        self.overlay.write(position, &vec![0; narrow(len)])
    }

    fn inode(&mut self, item: &Item, lsn: u64) -> Result<()> {
        let format = Record::new("XFS log inode item", 0, item.region(0));
        let fields = format.u32_le(4)?;
        // Machines of 32 bits left out the padding before the number.
        let number_at = if item.region(0).len() >= 56 { 16 } else { 12 };
        let number = format.u64_le(number_at)?;
        let block = format.u64_le(number_at.saturating_add(24))?;
        let len = format.u32_le(number_at.saturating_add(32))?;
        let Some(position) = self.sb.inode_position(number) else {
            return Err(format.corrupt(number_at, format!("inode {number}")));
        };
        // The length is in bytes here, in 512-byte blocks in buffer items.
        if self.is_cancelled(block, len / 512) || self.is_cancelled(block, len) {
            return Ok(());
        }
        let mut raw = read_vec(&self.overlay, position, narrow(self.sb.inode_size))?;
        let core = Record::new("XFS log inode item", position, item.region(1));
        if core.u16_le(0)? != MAGIC {
            return Err(core.corrupt(0, format!("inode {number}: no inode magic")));
        }
        if is_newer_on_disk(&Record::new("XFS inode", position, &raw), &core, lsn)? {
            return Ok(());
        }
        let core_len = to_disk(&core, lsn, &mut raw)?;
        let r = Record::new("XFS inode", position, &raw);
        let offset = usize::from(r.u8(82)?).saturating_mul(8);
        let room = raw.len().saturating_sub(core_len);
        let data_len = if offset == 0 { room } else { offset };
        let mut region = 2;
        if fields & (field::DATA | field::EXTENTS | field::BROOT) != 0 {
            let fork = raw.get_mut(core_len..core_len.saturating_add(data_len));
            let is_root = fields & field::BROOT != 0;
            put_fork(item.region(region), fork, is_root, self.sb.is_v5(), &core)?;
            region = 3;
        }
        let attr = fields & (field::ATTR_DATA | field::ATTR_EXTENTS | field::ATTR_BROOT);
        if attr != 0 && offset != 0 {
            let fork = raw.get_mut(core_len.saturating_add(offset)..);
            let is_root = attr & field::ATTR_BROOT != 0;
            put_fork(item.region(region), fork, is_root, self.sb.is_v5(), &core)?;
        }
        // Device numbers are not read.
        let _ = field::DEV;
        self.overlay.write(position, &raw)
    }

    pub(super) fn finish(self, torn: bool) -> Replayed {
        let mut warnings = Vec::new();
        if torn {
            warnings.push("log: the last records are incomplete, replayed up to them".to_owned());
        }
        if !self.pending.is_empty() {
            warnings.push(format!(
                "log: {} changes of file mappings or attributes were not finished",
                self.pending.len()
            ));
        }
        for kind in self.unknown {
            warnings.push(format!("log: items of type {kind:#06x} are not replayed"));
        }
        Replayed::Overlay {
            layer: Arc::new(self.overlay),
            warnings,
        }
    }
}

/// Version 3 inodes carry an LSN, older ones a counter of flushes that wraps.
fn is_newer_on_disk(disk: &Record<'_>, core: &Record<'_>, lsn: u64) -> Result<bool> {
    if disk.u16_be(0)? != MAGIC {
        return Ok(false);
    }
    if core.u8(4)? == 3 {
        let on_disk = if disk.u8(4)? == 3 {
            disk.u64_be(112)?
        } else {
            0
        };
        return Ok(on_disk != u64::MAX && newer(on_disk, lsn));
    }
    let (on_disk, logged) = (disk.u16_be(30)?, core.u16_le(30)?);
    let wrapped = on_disk == 0xffff && logged < 16;
    Ok(logged < on_disk && !wrapped)
}

/// Turns a logged core (in the machine's byte order) into the disk's. Answers its length.
fn to_disk(core: &Record<'_>, lsn: u64, raw: &mut [u8]) -> Result<usize> {
    let v3 = core.u8(4)? == 3;
    let flags2 = if v3 { core.u64_le(120)? } else { 0 };
    let (bigtime, nrext64) = (flags2 & FLAG2_BIGTIME != 0, flags2 & FLAG2_NREXT64 != 0);
    let core_len = if v3 { CORE_V3 } else { CORE_V2 };
    // (offset, width) of every field; bytes between them are single ones or padding.
    let mut fields = vec![(0usize, 2usize), (2, 2), (6, 2)];
    fields.extend([(8, 4), (12, 4), (16, 4), (20, 2), (22, 2)]);
    fields.extend(if nrext64 {
        vec![(24, 8)]
    } else {
        vec![(30, 2)]
    });
    let time = |at: usize| {
        if bigtime {
            vec![(at, 8)]
        } else {
            vec![(at, 4), (at.saturating_add(4), 4)]
        }
    };
    for at in [32, 40, 48] {
        fields.extend(time(at));
    }
    fields.extend([(56, 8), (64, 8), (72, 4), (76, 4), (80, 2)]);
    fields.extend([(84, 4), (88, 2), (90, 2), (92, 4)]);
    if v3 {
        fields.extend([(96, 4), (104, 8), (112, 8), (120, 8), (128, 4)]);
        fields.extend(time(144));
        fields.push((152, 8));
    }
    let logged = core.bytes();
    let used = logged.len().min(core_len);
    let problem = || core.corrupt(0, "a core longer than the inode");
    raw.get_mut(..used)
        .ok_or_else(problem)?
        .copy_from_slice(logged.get(..used).unwrap_or_default());
    for (at, width) in fields {
        let past = at.saturating_add(width);
        if past <= used
            && let Some(field) = raw.get_mut(at..past)
        {
            field.reverse();
        }
    }
    if v3 && let Some(field) = raw.get_mut(112..120) {
        field.copy_from_slice(&lsn.to_be_bytes());
    }
    Ok(core_len)
}

/// Copies a logged fork. The root of a tree is logged as a whole block: it is squeezed into the
/// form that inodes hold.
fn put_fork(
    logged: &[u8],
    fork: Option<&mut [u8]>,
    is_root: bool,
    v5: bool,
    core: &Record<'_>,
) -> Result<()> {
    let problem = |what: &str| -> DiskError { core.corrupt(0, format!("a logged fork {what}")) };
    let fork = fork.ok_or_else(|| problem("outside the inode"))?;
    if !is_root {
        // Regions are padded to whole words.
        let len = logged.len().min(fork.len());
        let (head, _) = fork.split_at_mut(len);
        head.copy_from_slice(logged.get(..len).unwrap_or_default());
        return Ok(());
    }
    let r = Record::new("XFS log tree root", 0, logged);
    let header = if v5 { 72usize } else { 24 };
    let records = r.u16_be(6)?;
    let room = logged.len().saturating_sub(header) / 16;
    let fork_room = fork.len().saturating_sub(4) / 16;
    let count = usize::from(records);
    if count > room || count > fork_room {
        return Err(problem("with too many records"));
    }
    let width = count.saturating_mul(8);
    let keys = r.slice(header, width)?;
    let pointers = r.slice(header.saturating_add(room.saturating_mul(8)), width)?;
    let mut out = vec![0; fork.len()];
    let pointers_at = 4usize.saturating_add(fork_room.saturating_mul(8));
    for (at, bytes) in [(0, r.slice(4, 4)?), (4, keys), (pointers_at, pointers)] {
        if let Some(target) = out.get_mut(at..at.saturating_add(bytes.len())) {
            target.copy_from_slice(bytes);
        }
    }
    fork.copy_from_slice(&out);
    Ok(())
}
