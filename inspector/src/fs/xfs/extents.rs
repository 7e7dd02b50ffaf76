//! From logical blocks of a fork to byte positions: extent lists and B+trees.

use super::inode::{Fork, Format};
use super::superblock::SuperBlock;
use crate::bytes::{Record, narrow, read_vec, wide};
use crate::error::Result;
use crate::read_at::ReadAt;

/// Consecutive logical blocks with one answer; `len` is at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Byte position of the first block; `None` for a hole or an unwritten extent.
    pub(super) position: Option<u64>,
    /// Blocks.
    pub(super) len: u64,
}

/// Bytes of an extent record.
const RECORD: usize = 16;
/// Levels of a B+tree; the kernel's own bound is lower for every block size.
const LEVELS_MAX: u16 = 9;

fn hole(block: u64, until: u64) -> Run {
    Run {
        position: None,
        len: until.saturating_sub(block).max(1),
    }
}

/// The run that begins at logical block `block`.
pub(super) fn run_at(
    layer: &dyn ReadAt,
    sb: &SuperBlock,
    fork: &Fork,
    position: u64,
    block: u64,
) -> Result<Run> {
    match fork.format {
        Format::Extents => {
            let r = Record::new("XFS extent list", position, &fork.bytes);
            let room = wide(fork.bytes.len() / RECORD);
            if fork.extents > room {
                return Err(r.corrupt(0, format!("{} extents, room for {room}", fork.extents)));
            }
            in_list(&r, sb, 0, narrow(fork.extents), block, u64::MAX)
        }
        Format::Btree => in_tree(layer, sb, fork, position, block),
        Format::Local | Format::None => Ok(hole(block, u64::MAX)),
    }
}

/// `br_startoff` of the record at `at`.
fn first_block(r: &Record<'_>, at: usize) -> Result<u64> {
    Ok((r.u64_be(at)? >> 9) & ((1 << 54) - 1))
}

/// Index of the last of `count` sorted keys that is at most `block`.
fn last_at_most(
    count: usize,
    block: u64,
    key: impl Fn(usize) -> Result<u64>,
) -> Result<Option<usize>> {
    let (mut low, mut high) = (0usize, count);
    while low < high {
        let middle = low.midpoint(high);
        if key(middle)? <= block {
            low = middle.saturating_add(1);
        } else {
            high = middle;
        }
    }
    Ok(low.checked_sub(1))
}

/// Looks into `count` records from `base` on; a hole ends at `limit` at the latest.
fn in_list(
    r: &Record<'_>,
    sb: &SuperBlock,
    base: usize,
    count: usize,
    block: u64,
    limit: u64,
) -> Result<Run> {
    let at = |i: usize| base.saturating_add(i.saturating_mul(RECORD));
    let found = last_at_most(count, block, |i| first_block(r, at(i)))?;
    let next = found.map_or(0, |i| i.saturating_add(1));
    let until = if next < count {
        first_block(r, at(next))?.min(limit)
    } else {
        limit
    };
    let Some(index) = found else {
        return Ok(hole(block, until));
    };
    let (high, low) = (r.u64_be(at(index))?, r.u64_be(at(index).saturating_add(8))?);
    let first = first_block(r, at(index))?;
    let len = low & ((1 << 21) - 1);
    let skip = block.saturating_sub(first);
    if skip >= len {
        return Ok(hole(block, until));
    }
    let len = len.saturating_sub(skip);
    if high >> 63 == 1 {
        return Ok(hole(block, block.saturating_add(len)));
    }
    let number = ((high & 0x1ff) << 43) | (low >> 21);
    let Some(start) = sb.block_position(number) else {
        return Err(r.corrupt(at(index), format!("block {number:#x} is beyond the end")));
    };
    Ok(Run {
        position: Some(start.saturating_add(skip.saturating_mul(sb.block_size))),
        len,
    })
}

fn in_tree(
    layer: &dyn ReadAt,
    sb: &SuperBlock,
    fork: &Fork,
    position: u64,
    block: u64,
) -> Result<Run> {
    let root = Record::new("XFS extent tree root", position, &fork.bytes);
    let (mut level, count) = (root.u16_be(0)?, usize::from(root.u16_be(2)?));
    if level == 0 || level > LEVELS_MAX {
        return Err(root.corrupt(0, format!("level {level}")));
    }
    let room = fork.bytes.len().saturating_sub(4) / 16;
    let mut limit = u64::MAX;
    let Some(mut child) = child_of(&root, 4, count, room, block, &mut limit)? else {
        return Ok(hole(block, limit));
    };
    loop {
        level = level.saturating_sub(1);
        let Some(at) = sb.block_position(child) else {
            return Err(root.corrupt(0, format!("block {child:#x} is beyond the end")));
        };
        let raw = read_vec(layer, at, narrow(sb.block_size))?;
        let r = Record::new("XFS extent tree block", at, &raw);
        let header = match r.slice(0, 4)? {
            b"BMA3" => 72usize,
            b"BMAP" => 24,
            _ => return Err(r.corrupt(0, "no BMAP or BMA3 magic")),
        };
        if r.u16_be(4)? != level {
            return Err(r.corrupt(4, format!("level {}, expected {level}", r.u16_be(4)?)));
        }
        let count = usize::from(r.u16_be(6)?);
        let room = raw.len().saturating_sub(header) / 16;
        if count > room {
            return Err(r.corrupt(6, format!("{count} records, room for {room}")));
        }
        if level == 0 {
            return in_list(&r, sb, header, count, block, limit);
        }
        let Some(next) = child_of(&r, header, count, room, block, &mut limit)? else {
            return Ok(hole(block, limit));
        };
        child = next;
    }
}

/// The child that covers `block`; `limit` shrinks to where its next sibling begins.
fn child_of(
    r: &Record<'_>,
    keys: usize,
    count: usize,
    room: usize,
    block: u64,
    limit: &mut u64,
) -> Result<Option<u64>> {
    if count > room {
        return Err(r.corrupt(keys, format!("{count} keys, room for {room}")));
    }
    let key = |i: usize| r.u64_be(keys.saturating_add(i.saturating_mul(8)));
    let found = last_at_most(count, block, key)?;
    let next = found.map_or(0, |i| i.saturating_add(1));
    if next < count {
        *limit = (*limit).min(key(next)?);
    }
    let Some(index) = found else {
        return Ok(None);
    };
    let pointers = keys.saturating_add(room.saturating_mul(8));
    r.u64_be(pointers.saturating_add(index.saturating_mul(8)))
        .map(Some)
}
