//! Inodes and the extended attribute that holds inline data.

use super::features::{INCOMPAT_EA_INODE, INCOMPAT_LARGE_DIR};
use super::superblock::SuperBlock;
use super::xattr;
use crate::bytes::{Record, narrow, read_vec};
use crate::error::{DiskError, Result};
use crate::fs::{Metadata, NodeKind};
use crate::read_at::ReadAt;

pub(super) mod flag {
    pub(in super::super) const ENCRYPT: u32 = 0x800;
    pub(in super::super) const INDEX: u32 = 0x1000;
    pub(in super::super) const EXTENTS: u32 = 0x8_0000;
    pub(in super::super) const INLINE_DATA: u32 = 0x1000_0000;
    pub(in super::super) const CASEFOLD: u32 = 0x4000_0000;
    pub(in super::super) const COMPRESSED: u32 = 0x200;
}

/// `i_block` holds 15 pointers, an extent tree, a short symlink or inline data.
pub(super) const BLOCK_BYTES: usize = 60;

/// A parsed inode.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) number: u32,
    pub(super) position: u64,
    pub(super) metadata: Metadata,
    pub(super) flags: u32,
    pub(super) block: [u8; BLOCK_BYTES],
    /// Block of extended attributes; 0 for none.
    pub(super) attributes: u64,
    fast_symlink: bool,
}

impl Inode {
    pub(super) fn read(layer: &dyn ReadAt, sb: &SuperBlock, number: u32) -> Result<Self> {
        if number == 0 || number > sb.inodes {
            return Err(DiskError::Corrupt {
                structure: "ext inode number",
                position: u64::from(number),
                problem: format!("expected 1 to {}", sb.inodes),
            });
        }
        let position = sb.inode_position(layer, number)?;
        // Times beyond 2038 are in the part after the first 128 bytes.
        let raw = read_vec(layer, position, narrow(sb.inode_size.min(160)))?;
        let r = Record::new("ext inode", position, &raw);
        let mode = r.u16_le(0)?;
        let kind = kind_of_mode(mode)
            .ok_or_else(|| r.corrupt(0, format!("inode {number}: mode {mode:#o}")))?;
        let flags = r.u32_le(0x20)?;
        let large = kind == NodeKind::File
            || (kind == NodeKind::Directory && sb.features.incompat & INCOMPAT_LARGE_DIR != 0);
        let high = if large { r.u32_le(0x6c)? } else { 0 };
        let size = u64::from(r.u32_le(4)?) | (u64::from(high) << 32);
        if size > u64::MAX >> 1 {
            return Err(r.corrupt(0x6c, format!("inode {number}: size {size}")));
        }
        let acl = u64::from(r.u32_le(0x68)?) | (u64::from(r.u16_le(0x76)?) << 32);
        // i_blocks counts 512-byte sectors; one cluster may hold extended attributes.
        let sectors = u64::from(r.u32_le(0x1c)?) | (u64::from(r.u16_le(0x74)?) << 32);
        let empty = sectors == 0 || (acl != 0 && sectors <= sb.cluster_size / 512);
        let short = size < 60;
        let fast_symlink = kind == NodeKind::Symlink
            && flags & (flag::EXTENTS | flag::INLINE_DATA) == 0
            && short
            && (empty || sb.features.incompat & INCOMPAT_EA_INODE != 0);
        Ok(Self {
            number,
            position,
            metadata: Metadata {
                kind,
                size,
                mode: u32::from(mode & 0o7777),
                uid: u32::from(r.u16_le(2)?) | (u32::from(r.u16_le(0x78)?) << 16),
                gid: u32::from(r.u16_le(0x18)?) | (u32::from(r.u16_le(0x7a)?) << 16),
                mtime: mtime(&r)?,
                links: u32::from(r.u16_le(0x1a)?),
            },
            flags,
            block: r.array(0x28)?,
            attributes: acl,
            fast_symlink,
        })
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Whether the target stands in `i_block` itself.
    pub(super) fn is_fast_symlink(&self) -> bool {
        self.fast_symlink
    }

    /// A `Corrupt` error about this inode.
    pub(super) fn corrupt(&self, problem: impl std::fmt::Display) -> DiskError {
        DiskError::Corrupt {
            structure: "ext inode",
            position: self.position,
            problem: format!("inode {}: {problem}", self.number),
        }
    }

    /// The part of inline data that did not fit `i_block`: the value of the attribute
    /// `system.data`, which always lies in the inode.
    pub(super) fn inline_rest(&self, layer: &dyn ReadAt, sb: &SuperBlock) -> Result<Vec<u8>> {
        match xattr::find_in_inode(layer, sb, self, 7, b"data")? {
            None => Ok(Vec::new()),
            Some(xattr::Value::Here(data)) => Ok(data),
            Some(xattr::Value::Inode { .. }) => Err(DiskError::Unsupported {
                feature: "ext4 inline data in an ea_inode".into(),
            }),
        }
    }
}

/// `i_mtime`, widened by the two epoch bits of `i_mtime_extra` where the inode has them.
fn mtime(r: &Record<'_>) -> Result<i64> {
    let low = i64::from(i32::from_le_bytes(r.array(0x10)?));
    let extra_size = r.u16_le(0x80).unwrap_or(0);
    if extra_size < 12 {
        return Ok(low);
    }
    let epoch = i64::from(r.u32_le(0x88).unwrap_or(0) & 3);
    Ok(low.saturating_add(epoch << 32))
}

fn kind_of_mode(mode: u16) -> Option<NodeKind> {
    Some(match mode & 0xf000 {
        0x1000 => NodeKind::Fifo,
        0x2000 => NodeKind::CharDevice,
        0x4000 => NodeKind::Directory,
        0x6000 => NodeKind::BlockDevice,
        0x8000 => NodeKind::File,
        0xa000 => NodeKind::Symlink,
        0xc000 => NodeKind::Socket,
        _ => return None,
    })
}
