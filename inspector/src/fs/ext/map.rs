//! From logical block numbers of a file to blocks of the device: extent trees and block maps.

use super::inode::{Inode, flag};
use super::superblock::SuperBlock;
use crate::bytes::{Record, narrow, read_vec, wide};
use crate::error::Result;
use crate::read_at::ReadAt;

/// Consecutive logical blocks with one answer; `len` is at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// First block on the device; `None` for a hole or an unwritten extent.
    pub(super) physical: Option<u64>,
    pub(super) len: u64,
}

/// Depth of an extent tree, as the kernel limits it.
const EXTENT_DEPTH_MAX: u16 = 5;

/// The run that begins at logical block `block`.
pub(super) fn run_at(
    layer: &dyn ReadAt,
    sb: &SuperBlock,
    inode: &Inode,
    block: u64,
) -> Result<Run> {
    let run = if inode.has(flag::EXTENTS) {
        extent_run(layer, sb, inode, block)?
    } else {
        indirect_run(layer, sb, inode, block)?
    };
    match run.physical {
        Some(first) if first == 0 || first.saturating_add(run.len) > sb.blocks => Err(inode
            .corrupt(format!(
                "blocks {first} to {} of {}",
                first.saturating_add(run.len),
                sb.blocks
            ))),
        _ => Ok(run),
    }
}

fn hole(len: u64) -> Run {
    Run {
        physical: None,
        len: len.max(1),
    }
}

fn extent_run(layer: &dyn ReadAt, sb: &SuperBlock, inode: &Inode, block: u64) -> Result<Run> {
    let mut node = inode.block.to_vec();
    let mut position = inode.position.saturating_add(0x28);
    let mut expected_depth = None;
    // Where the next sibling subtree begins: a hole ends there.
    let mut limit = u64::MAX;
    loop {
        let r = Record::new("ext4 extent node", position, &node);
        let (magic, entries, depth) = (r.u16_le(0)?, r.u16_le(2)?, r.u16_le(6)?);
        if magic != 0xf30a {
            return Err(r.corrupt(0, format!("inode {}: magic {magic:#x}", inode.number)));
        }
        if depth > EXTENT_DEPTH_MAX || expected_depth.is_some_and(|want| want != depth) {
            return Err(r.corrupt(6, format!("inode {}: depth {depth}", inode.number)));
        }
        let room = node.len().saturating_sub(12) / 12;
        if usize::from(entries) > room || entries > r.u16_le(4)? {
            return Err(r.corrupt(2, format!("inode {}: {entries} entries", inode.number)));
        }
        let Some((at, first, next)) = find(&r, entries, block)? else {
            let first = if entries == 0 {
                u64::MAX
            } else {
                u64::from(r.u32_le(12)?)
            };
            return Ok(hole(first.min(limit).saturating_sub(block)));
        };
        if let Some(next) = next {
            limit = limit.min(next);
        }
        if depth == 0 {
            return leaf(&r, at, first, block, limit);
        }
        let child = u64::from(r.u32_le(at.saturating_add(4))?)
            | (u64::from(r.u16_le(at.saturating_add(8))?) << 32);
        if child == 0 || child >= sb.blocks {
            return Err(r.corrupt(at, format!("inode {}: child block {child}", inode.number)));
        }
        position = child.saturating_mul(sb.block_size);
        expected_depth = Some(depth.saturating_sub(1));
        node = read_vec(layer, position, narrow(sb.block_size))?;
    }
}

/// The last entry that begins at or before `block`: its offset in the node, its first logical
/// block, and the first logical block of the entry after it.
fn find(r: &Record<'_>, entries: u16, block: u64) -> Result<Option<(usize, u64, Option<u64>)>> {
    let at = |i: u16| 12usize.saturating_add(usize::from(i).saturating_mul(12));
    let (mut low, mut high) = (0u16, entries);
    while low < high {
        let middle = low.midpoint(high);
        if u64::from(r.u32_le(at(middle))?) <= block {
            low = middle.saturating_add(1);
        } else {
            high = middle;
        }
    }
    let Some(found) = low.checked_sub(1) else {
        return Ok(None);
    };
    let next = if low < entries {
        Some(u64::from(r.u32_le(at(low))?))
    } else {
        None
    };
    Ok(Some((at(found), u64::from(r.u32_le(at(found))?), next)))
}

/// An extent of more than 32768 blocks is unwritten: it reads as zeros.
fn leaf(r: &Record<'_>, at: usize, first: u64, block: u64, limit: u64) -> Result<Run> {
    let raw = r.u16_le(at.saturating_add(4))?;
    let (len, written) = match raw.checked_sub(32768) {
        Some(len) if len > 0 => (u64::from(len), false),
        _ => (u64::from(raw), true),
    };
    let skip = block.saturating_sub(first);
    if skip >= len {
        return Ok(hole(limit.saturating_sub(block)));
    }
    let start = u64::from(r.u32_le(at.saturating_add(8))?)
        | (u64::from(r.u16_le(at.saturating_add(6))?) << 32);
    Ok(Run {
        physical: written.then(|| start.saturating_add(skip)),
        len: len
            .saturating_sub(skip)
            .min(limit.saturating_sub(block))
            .max(1),
    })
}

fn indirect_run(layer: &dyn ReadAt, sb: &SuperBlock, inode: &Inode, block: u64) -> Result<Run> {
    let per_block = sb.block_size / 4;
    if block < 12 {
        return Ok(pointers(&inode.block, block, 12));
    }
    let mut index = block.saturating_sub(12);
    let mut span = per_block;
    for level in 1..=3u64 {
        if index < span {
            return descend(layer, sb, inode, level, index, span);
        }
        index = index.saturating_sub(span);
        span = span.saturating_mul(per_block);
    }
    Err(inode.corrupt(format!("logical block {block} beyond the block map")))
}

/// Follows `level` indirect blocks that together cover `span` blocks to the one numbered `index`.
fn descend(
    layer: &dyn ReadAt,
    sb: &SuperBlock,
    inode: &Inode,
    level: u64,
    mut index: u64,
    mut span: u64,
) -> Result<Run> {
    let per_block = sb.block_size / 4;
    let root = narrow(level.saturating_add(11).saturating_mul(4));
    let r = Record::new("ext block map", inode.position, &inode.block);
    let mut table = u64::from(r.u32_le(root)?);
    loop {
        if table == 0 {
            return Ok(hole(span.saturating_sub(index)));
        }
        if table >= sb.blocks {
            return Err(inode.corrupt(format!("indirect block {table} of {}", sb.blocks)));
        }
        let position = table.saturating_mul(sb.block_size);
        if span == per_block {
            let node = read_vec(layer, position, narrow(sb.block_size))?;
            return Ok(pointers(&node, index, per_block));
        }
        span = span.checked_div(per_block).unwrap_or(1);
        let slot = index.checked_div(span).unwrap_or(0);
        index = index.checked_rem(span).unwrap_or(0);
        let mut raw = [0; 4];
        layer.read_exact_at(position.saturating_add(slot.saturating_mul(4)), &mut raw)?;
        table = u64::from(u32::from_le_bytes(raw));
    }
}

/// The run of pointers that begins at `index`, within the first `count` ones.
fn pointers(bytes: &[u8], index: u64, count: u64) -> Run {
    let mut tail = bytes
        .chunks_exact(4)
        .take(narrow(count))
        .skip(narrow(index))
        .map(|raw| raw.iter().rev().fold(0u64, |n, b| (n << 8) | u64::from(*b)));
    let Some(first) = tail.next() else {
        return hole(1);
    };
    let more = match first {
        0 => tail.take_while(|next| *next == 0).count(),
        _ => tail
            .zip(1u64..)
            .take_while(|(next, step)| *next == first.saturating_add(*step))
            .count(),
    };
    Run {
        physical: (first != 0).then_some(first),
        len: wide(more).saturating_add(1),
    }
}
