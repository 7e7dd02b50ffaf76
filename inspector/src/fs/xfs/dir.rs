//! Directories in all their forms, from the kernel's `xfs_da_format.h`: entries in the inode, in
//! data blocks, and found by hash through leaf and node blocks.

use super::inode::Inode;
use super::superblock::SuperBlock;
use crate::bytes::Record;
use crate::error::Result;
use crate::fs::{DirEntry, NodeId, NodeKind};
use std::ops::ControlFlow;

/// Leaf blocks begin at this byte of a directory's address space (`XFS_DIR2_LEAF_OFFSET`).
pub(super) const LEAF_OFFSET: u64 = 1 << 35;
/// Inode numbers have 56 bits at most.
const INODE_MASK: u64 = (1 << 56) - 1;

type Visit<'a> = &'a mut dyn FnMut(DirEntry) -> ControlFlow<()>;

/// Entries that stand in the inode itself.
pub(super) fn short(inode: &Inode, sb: &SuperBlock, visit: Visit<'_>) -> Result<ControlFlow<()>> {
    let r = Record::new("XFS short directory", inode.position, &inode.data.bytes);
    let (count, wide_count) = (r.u8(0)?, r.u8(1)?);
    let number_len = if wide_count == 0 { 4usize } else { 8 };
    let mut at = 2usize.saturating_add(number_len);
    for _ in 0..count {
        let name_len = usize::from(r.u8(at)?);
        let name = r.slice(at.saturating_add(3), name_len)?;
        at = at.saturating_add(3).saturating_add(name_len);
        let kind = if sb.ftype {
            at = at.saturating_add(1);
            kind_of_type(r.u8(at.saturating_sub(1))?)
        } else {
            None
        };
        let node = if number_len == 8 {
            r.u64_be(at)? & INODE_MASK
        } else {
            u64::from(r.u32_be(at)?)
        };
        at = at.saturating_add(number_len);
        let entry = DirEntry {
            name: name.to_vec(),
            node: NodeId(node),
            kind,
        };
        if name_len > 0 && visit(entry).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Where the entries of a data block begin and end.
fn bounds(r: &Record<'_>) -> Result<(usize, usize)> {
    let (start, block_form) = match r.slice(0, 4)? {
        b"XD2B" => (16, true),
        b"XD2D" => (16, false),
        b"XDB3" => (64, true),
        b"XDD3" => (64, false),
        other => return Err(r.corrupt(0, format!("magic {other:02x?}"))),
    };
    let len = r.bytes().len();
    if !block_form {
        return Ok((start, len));
    }
    // The block form ends with its own leaf: count and stale at the very end.
    let tail = len.saturating_sub(8);
    let count = crate::bytes::size(r.u32_be(tail)?);
    match tail.checked_sub(count.saturating_mul(8)) {
        Some(end) if end >= start => Ok((start, end)),
        _ => Err(r.corrupt(tail, format!("{count} leaf entries"))),
    }
}

/// Calls `visit` for each entry of a data block except `.` and `..`.
pub(super) fn entries(
    block: &[u8],
    position: u64,
    sb: &SuperBlock,
    visit: Visit<'_>,
) -> Result<ControlFlow<()>> {
    let r = Record::new("XFS directory block", position, block);
    let (mut at, end) = bounds(&r)?;
    // An entry takes 16 bytes, a free piece 8 at least: the block bounds the loop.
    while at.saturating_add(8) <= end {
        if r.u16_be(at)? == 0xffff {
            let free = usize::from(r.u16_be(at.saturating_add(2))?);
            if free < 8 || free % 8 != 0 {
                return Err(r.corrupt(at, format!("a free piece of {free} bytes")));
            }
            at = at.saturating_add(free);
            continue;
        }
        let (entry, len) = entry_at(&r, at, sb)?;
        if at.saturating_add(len) > end {
            return Err(r.corrupt(at, format!("an entry of {len} bytes passes the end {end}")));
        }
        at = at.saturating_add(len);
        if entry.name != b"." && entry.name != b".." && visit(entry).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The entry at byte `at` of a data block, and its length with padding and tag.
pub(super) fn entry_at(r: &Record<'_>, at: usize, sb: &SuperBlock) -> Result<(DirEntry, usize)> {
    let name_len = usize::from(r.u8(at.saturating_add(8))?);
    if name_len == 0 {
        return Err(r.corrupt(at, "an entry without a name"));
    }
    let name_at = at.saturating_add(9);
    let past_name = name_at.saturating_add(name_len);
    let kind = if sb.ftype {
        kind_of_type(r.u8(past_name)?)
    } else {
        None
    };
    let entry = DirEntry {
        name: r.slice(name_at, name_len)?.to_vec(),
        node: NodeId(r.u64_be(at)? & INODE_MASK),
        kind,
    };
    let used = 11usize
        .saturating_add(name_len)
        .saturating_add(usize::from(sb.ftype));
    Ok((entry, used.next_multiple_of(8)))
}

/// What a block of a hashed index says about a hash.
pub(super) enum Index {
    /// Look into this logical directory block.
    Child(u32),
    /// Entries with that hash, as addresses in units of eight bytes; and whether the next leaf may
    /// hold more (its logical block).
    Leaf(Vec<u32>, Option<u32>),
}

/// Reads a leaf or node block. `level` is what its parent promised.
pub(super) fn index(block: &[u8], position: u64, hash: u32) -> Result<Index> {
    let r = Record::new("XFS directory index", position, block);
    let (header, node) = match r.u16_be(8)? {
        0xd2f1 | 0xd2ff => (16usize, false),
        0x3df1 | 0x3dff => (64, false),
        0xfebe => (16, true),
        0x3ebe => (64, true),
        magic => return Err(r.corrupt(8, format!("magic {magic:#06x}"))),
    };
    let count_at = if header == 64 { 56 } else { 12 };
    let count = usize::from(r.u16_be(count_at)?);
    let at = |i: usize| header.saturating_add(i.saturating_mul(8));
    if at(count) > block.len() {
        return Err(r.corrupt(count_at, format!("{count} entries")));
    }
    let (mut low, mut high) = (0usize, count);
    while low < high {
        let middle = low.midpoint(high);
        if r.u32_be(at(middle))? < hash {
            low = middle.saturating_add(1);
        } else {
            high = middle;
        }
    }
    if node {
        // Each entry tells the largest hash below it.
        if low >= count {
            return Ok(Index::Leaf(Vec::new(), None));
        }
        return r.u32_be(at(low).saturating_add(4)).map(Index::Child);
    }
    let mut found = Vec::new();
    while low < count && r.u32_be(at(low))? == hash {
        let address = r.u32_be(at(low).saturating_add(4))?;
        if address != 0 {
            found.push(address);
        }
        low = low.saturating_add(1);
    }
    let next = r.u32_be(0)?;
    let single = matches!(r.u16_be(8)?, 0xd2f1 | 0x3df1);
    Ok(Index::Leaf(
        found,
        (low >= count && next != 0 && !single).then_some(next),
    ))
}

/// `xfs_da_hashname`: four bytes at a time, rotated by 28 bits.
pub(super) fn hash(name: &[u8]) -> u32 {
    let mut hash = 0u32;
    let mut chunks = name.chunks_exact(4);
    for chunk in &mut chunks {
        let word = chunk.iter().fold(0u32, |w, b| (w << 7) ^ u32::from(*b));
        hash = word ^ hash.rotate_left(28);
    }
    let rest = chunks.remainder();
    let word = rest.iter().fold(0u32, |w, b| (w << 7) ^ u32::from(*b));
    match rest.len() {
        0 => hash,
        1 => word ^ hash.rotate_left(7),
        2 => word ^ hash.rotate_left(14),
        _ => word ^ hash.rotate_left(21),
    }
}

fn kind_of_type(byte: u8) -> Option<NodeKind> {
    Some(match byte {
        1 => NodeKind::File,
        2 => NodeKind::Directory,
        3 => NodeKind::CharDevice,
        4 => NodeKind::BlockDevice,
        5 => NodeKind::Fifo,
        6 => NodeKind::Socket,
        7 => NodeKind::Symlink,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hash_as_the_kernel_hashes_them() {
        // From `xfs_db -c "hash NAME"`.
        for (name, expected) in [
            (&b"."[..], 0x2e),
            (b"..", 0x172e),
            (b"lost+found", 0x021a_a60c),
            (b"abcd", 0x0c38_b1e4),
        ] {
            assert_eq!(hash(name), expected, "{}", String::from_utf8_lossy(name));
        }
    }
}
