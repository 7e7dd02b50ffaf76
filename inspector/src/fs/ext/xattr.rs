//! Extended attributes: in the inode behind its fixed part, in a block of their own, and values in
//! inodes of their own (`ea_inode`).

use super::inode::Inode;
use super::superblock::SuperBlock;
use crate::bytes::{Record, narrow, read_vec, size};
use crate::error::Result;
use crate::read_at::ReadAt;

const MAGIC: u32 = 0xea02_0000;
const BLOCK_HEADER: usize = 32;
const ENTRY: usize = 16;
/// `XATTR_SIZE_MAX`.
pub(super) const VALUE_MAX: usize = 64 << 10;

/// Where a value is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Beside its name.
    Here(Vec<u8>),
    /// The content of an inode.
    Inode { number: u32, len: usize },
}

/// A full name as the index of its prefix and the rest (`s_index` of the kernel's table).
pub(super) fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    match name {
        b"system.posix_acl_access" => return Some((2, b"")),
        b"system.posix_acl_default" => return Some((3, b"")),
        b"system.richacl" => return Some((8, b"")),
        _ => {}
    }
    [
        (&b"user."[..], 1),
        (b"trusted.", 4),
        (b"security.", 6),
        (b"system.", 7),
    ]
    .into_iter()
    .find_map(|(prefix, index)| Some((index, name.strip_prefix(prefix)?)))
}

/// Looks into the inode, then into its block.
pub(super) fn find(
    layer: &dyn ReadAt,
    sb: &SuperBlock,
    inode: &Inode,
    index: u8,
    name: &[u8],
) -> Result<Option<Value>> {
    if let Some(value) = find_in_inode(layer, sb, inode, index, name)? {
        return Ok(Some(value));
    }
    if inode.attributes == 0 {
        return Ok(None);
    }
    if inode.attributes >= sb.blocks {
        return Err(inode.corrupt(format!("attributes in block {}", inode.attributes)));
    }
    let position = inode.attributes.saturating_mul(sb.block_size);
    let raw = read_vec(layer, position, narrow(sb.block_size))?;
    let r = Record::new("ext attribute block", position, &raw);
    if r.u32_le(0)? != MAGIC {
        return Err(r.corrupt(0, "no attribute magic"));
    }
    find_in(&r, BLOCK_HEADER, 0, index, name)
}

/// Looks into the part of the inode behind `i_extra_isize`.
pub(super) fn find_in_inode(
    layer: &dyn ReadAt,
    sb: &SuperBlock,
    inode: &Inode,
    index: u8,
    name: &[u8],
) -> Result<Option<Value>> {
    if sb.inode_size <= 132 {
        return Ok(None);
    }
    let raw = read_vec(layer, inode.position, narrow(sb.inode_size))?;
    let r = Record::new("ext inode", inode.position, &raw);
    let start = 128usize.saturating_add(usize::from(r.u16_le(0x80)?));
    if r.u32_le(start).ok() != Some(MAGIC) {
        return Ok(None);
    }
    let first = start.saturating_add(4);
    find_in(&r, first, first, index, name)
}

/// Entries begin at `first`; offsets of values count from `base`.
fn find_in(
    r: &Record<'_>,
    first: usize,
    base: usize,
    index: u8,
    name: &[u8],
) -> Result<Option<Value>> {
    let mut at = first;
    // Entries take 16 bytes at least, so the structure bounds the loop.
    while let Ok(head) = r.u32_le(at) {
        if head == 0 {
            break;
        }
        let name_len = usize::from(r.u8(at)?);
        let found = r.slice(at.saturating_add(ENTRY), name_len)?;
        if r.u8(at.saturating_add(1))? == index && found == name {
            let len = size(r.u32_le(at.saturating_add(8))?);
            if len > VALUE_MAX {
                return Err(r.corrupt(at, format!("a value of {len} bytes")));
            }
            let number = r.u32_le(at.saturating_add(4))?;
            if number != 0 {
                return Ok(Some(Value::Inode { number, len }));
            }
            let offset = base.saturating_add(usize::from(r.u16_le(at.saturating_add(2))?));
            return Ok(Some(Value::Here(r.slice(offset, len)?.to_vec())));
        }
        at = at
            .saturating_add(ENTRY)
            .saturating_add(name_len.next_multiple_of(4));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_by_their_prefix() {
        assert_eq!(split(b"security.selinux"), Some((6, &b"selinux"[..])));
        assert_eq!(split(b"system.posix_acl_access"), Some((2, &b""[..])));
        assert_eq!(split(b"system.data"), Some((7, &b"data"[..])));
        assert_eq!(split(b"unknown.name"), None);
    }
}
