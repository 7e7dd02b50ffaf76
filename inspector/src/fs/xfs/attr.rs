//! Extended attributes: in the inode, in leaf blocks found by hash, values in blocks of their own.

use super::dir;
use super::extents::run_at;
use super::inode::{Fork, Format, Inode};
use super::superblock::SuperBlock;
use crate::bytes::{Record, narrow, read_vec, size, wide};
use crate::error::{DiskError, Result};
use crate::read_at::ReadAt;

const FLAG_ROOT: u8 = 0x2;
const FLAG_SECURE: u8 = 0x4;
const FLAG_LOCAL: u8 = 0x1;
/// An attribute being written, or a parent pointer: neither is seen by name.
const FLAGS_HIDDEN: u8 = 0x80 | 0x8;
/// `XATTR_SIZE_MAX`.
const VALUE_MAX: usize = 64 << 10;
/// Levels of an index, and leaves with one hash: more is damage.
const BLOCKS_MAX: usize = 16;
/// Header of each block of a remote value of version 5.
const REMOTE_HEADER: usize = 56;

/// A name split into the namespace's flag and the rest.
fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    for (prefix, flag) in [
        (&b"user."[..], 0),
        (b"trusted.", FLAG_ROOT),
        (b"security.", FLAG_SECURE),
    ] {
        if let Some(rest) = name.strip_prefix(prefix) {
            return Some((flag, rest));
        }
    }
    // ACLs lie in the root namespace under names of their own.
    match name {
        b"system.posix_acl_access" => Some((FLAG_ROOT, b"SGI_ACL_FILE")),
        b"system.posix_acl_default" => Some((FLAG_ROOT, b"SGI_ACL_DEFAULT")),
        _ => None,
    }
}

fn matches(flags: u8, wanted: u8) -> bool {
    flags & (FLAG_ROOT | FLAG_SECURE) == wanted && flags & FLAGS_HIDDEN == 0
}

/// Value of an attribute of an inode.
pub(super) fn value(
    layer: &dyn ReadAt,
    sb: &SuperBlock,
    inode: &Inode,
    name: &[u8],
) -> Result<Option<Vec<u8>>> {
    let (Some(fork), Some((space, name))) = (&inode.attr, split(name)) else {
        return Ok(None);
    };
    match fork.format {
        Format::None => Ok(None),
        Format::Local => short(fork, inode.position, space, name),
        // Room for attributes, and none yet.
        Format::Extents if fork.extents == 0 => Ok(None),
        Format::Extents | Format::Btree => {
            let blocks = Blocks {
                layer,
                sb,
                fork,
                position: inode.position,
            };
            blocks.find(space, name)
        }
    }
}

fn short(fork: &Fork, position: u64, space: u8, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let r = Record::new("XFS short attributes", position, &fork.bytes);
    let mut at = 4usize;
    for _ in 0..r.u8(2)? {
        let (name_len, value_len) = (
            usize::from(r.u8(at)?),
            usize::from(r.u8(at.saturating_add(1))?),
        );
        let flags = r.u8(at.saturating_add(2))?;
        let name_at = at.saturating_add(3);
        let value_at = name_at.saturating_add(name_len);
        if matches(flags, space) && r.slice(name_at, name_len)? == name {
            return Ok(Some(r.slice(value_at, value_len)?.to_vec()));
        }
        at = value_at.saturating_add(value_len);
    }
    Ok(None)
}

struct Blocks<'a> {
    layer: &'a dyn ReadAt,
    sb: &'a SuperBlock,
    fork: &'a Fork,
    position: u64,
}

impl Blocks<'_> {
    fn read(&self, block: u64) -> Result<(u64, Vec<u8>)> {
        let run = run_at(self.layer, self.sb, self.fork, self.position, block)?;
        let Some(position) = run.position else {
            return Err(DiskError::Corrupt {
                structure: "XFS attribute fork",
                position: self.position,
                problem: format!("block {block} is a hole"),
            });
        };
        let bytes = read_vec(self.layer, position, narrow(self.sb.block_size))?;
        Ok((position, bytes))
    }

    fn find(&self, space: u8, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let hash = dir::hash(name);
        let mut block = 0u64;
        for _ in 0..BLOCKS_MAX {
            let (position, bytes) = self.read(block)?;
            let r = Record::new("XFS attribute block", position, &bytes);
            match r.u16_be(8)? {
                0xfebe | 0x3ebe => match dir::index(&bytes, position, hash)? {
                    dir::Index::Child(child) => block = u64::from(child),
                    dir::Index::Leaf(..) => return Ok(None),
                },
                0xfbee | 0x3bee => {
                    let (found, more) = self.leaf(&r, hash, space, name)?;
                    if found.is_some() || !more {
                        return Ok(found);
                    }
                    // Equal hashes may go on in the next leaf.
                    block = u64::from(r.u32_be(0)?);
                }
                magic => return Err(r.corrupt(8, format!("magic {magic:#06x}"))),
            }
        }
        Ok(None)
    }

    fn leaf(
        &self,
        r: &Record<'_>,
        hash: u32,
        space: u8,
        name: &[u8],
    ) -> Result<(Option<Vec<u8>>, bool)> {
        let v5 = r.u16_be(8)? == 0x3bee;
        let (count_at, header) = if v5 { (56usize, 80usize) } else { (12, 32) };
        let count = usize::from(r.u16_be(count_at)?);
        let mut last = 0;
        for i in 0..count {
            let at = header.saturating_add(i.saturating_mul(8));
            last = r.u32_be(at)?;
            let flags = r.u8(at.saturating_add(6))?;
            if last != hash || !matches(flags, space) {
                continue;
            }
            let at = usize::from(r.u16_be(at.saturating_add(4))?);
            if flags & FLAG_LOCAL != 0 {
                let value_len = usize::from(r.u16_be(at)?);
                let name_len = usize::from(r.u8(at.saturating_add(2))?);
                let name_at = at.saturating_add(3);
                if r.slice(name_at, name_len)? == name {
                    let value = r.slice(name_at.saturating_add(name_len), value_len)?;
                    return Ok((Some(value.to_vec()), false));
                }
                continue;
            }
            let (first, len) = (r.u32_be(at)?, size(r.u32_be(at.saturating_add(4))?));
            let name_len = usize::from(r.u8(at.saturating_add(8))?);
            if r.slice(at.saturating_add(9), name_len)? == name {
                if len > VALUE_MAX {
                    return Err(r.corrupt(at, format!("a value of {len} bytes")));
                }
                return Ok((Some(self.remote(u64::from(first), len)?), false));
            }
        }
        Ok((None, last == hash && r.u32_be(0)? != 0))
    }

    fn remote(&self, first: u64, len: usize) -> Result<Vec<u8>> {
        let mut value = Vec::new();
        let mut block = first;
        // A block gives 456 bytes at least, so the length bounds the loop.
        while value.len() < len {
            let (position, bytes) = self.read(block)?;
            let skip = if self.sb.is_v5() { REMOTE_HEADER } else { 0 };
            if skip > 0 && !bytes.starts_with(b"XARM") {
                let r = Record::new("XFS remote attribute", position, &bytes);
                return Err(r.corrupt(0, "no XARM magic"));
            }
            let left = len.saturating_sub(value.len());
            value.extend(bytes.iter().skip(skip).take(left));
            block = block.saturating_add(1);
        }
        debug_assert!(wide(value.len()) <= wide(VALUE_MAX));
        Ok(value)
    }
}
