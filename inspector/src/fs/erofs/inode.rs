//! Inodes: 32 bytes (`struct erofs_inode_compact`) or 64 (`struct erofs_inode_extended`).

use super::superblock::Superblock;
use crate::bytes::{Record, wide};
use crate::error::{DiskError, Result};
use crate::fs::NodeKind;

/// Bytes of the two forms.
pub(super) const COMPACT: usize = 32;
pub(super) const EXTENDED: usize = 64;

/// How a file's content is stored (`i_format`, bits 1 to 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Blocks in a row.
    Plain,
    /// Blocks in a row, the end behind the inode.
    Inline,
    /// Chunks of blocks, each with its own address.
    Chunks,
    /// Compressed, with an index of 8 bytes for each logical cluster.
    Full,
    /// Compressed, with an index of 2 or 4 bytes.
    Compact,
}

/// A parsed inode.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) position: u64,
    pub(super) kind: NodeKind,
    pub(super) layout: Layout,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: u64,
    pub(super) links: u32,
    pub(super) size: u64,
    /// First block, or the format of chunks.
    pub(super) data: u32,
    /// Where its own extended attributes are, and how many bytes they take.
    pub(super) xattr_at: u64,
    pub(super) xattr_len: usize,
}

impl Inode {
    /// Whether the bytes begin an inode of 64 bytes.
    pub(super) fn is_extended(format: u16) -> bool {
        format & 1 != 0
    }

    pub(super) fn parse(r: &Record<'_>, position: u64, superblock: &Superblock) -> Result<Self> {
        let format = r.u16_le(0)?;
        let layout = match (format >> 1) & 7 {
            0 => Layout::Plain,
            1 => Layout::Full,
            2 => Layout::Inline,
            3 => Layout::Compact,
            4 => Layout::Chunks,
            n => return Err(r.corrupt(0, format!("data layout {n}"))),
        };
        if format >> 5 != 0 {
            return Err(DiskError::Unsupported {
                feature: format!("erofs inode format {format:#x}"),
            });
        }
        let mode = r.u16_le(4)?;
        let kind = kind(mode).ok_or_else(|| r.corrupt(4, format!("mode {mode:o}")))?;
        let extended = Self::is_extended(format);
        let len = if extended { EXTENDED } else { COMPACT };
        let xattr_len = match usize::from(r.u16_le(2)?) {
            0 => 0,
            // A header, of which 12 bytes count as the first unit.
            units => units.saturating_mul(4).saturating_add(8),
        };
        let base = Self {
            position,
            kind,
            layout,
            mode: mode & 0o7777,
            uid: 0,
            gid: 0,
            mtime: 0,
            links: 0,
            size: 0,
            data: r.u32_le(16)?,
            xattr_at: position.saturating_add(wide(len)),
            xattr_len,
        };
        if extended {
            return Ok(Self {
                size: r.u64_le(8)?,
                uid: r.u32_le(24)?,
                gid: r.u32_le(28)?,
                mtime: r.u64_le(32)?,
                links: r.u32_le(44)?,
                ..base
            });
        }
        // Bit 4: the field of links has another use, there is one.
        let one_link = format & 0x10 != 0 && kind != NodeKind::Directory;
        Ok(Self {
            size: u64::from(r.u32_le(8)?),
            uid: u32::from(r.u16_le(24)?),
            gid: u32::from(r.u16_le(26)?),
            mtime: superblock.epoch.saturating_add(u64::from(r.u32_le(12)?)),
            links: if one_link { 1 } else { u32::from(r.u16_le(6)?) },
            ..base
        })
    }

    /// Where what follows the inode and its attributes begins.
    pub(super) fn end(&self) -> u64 {
        self.xattr_at.saturating_add(wide(self.xattr_len))
    }
}

fn kind(mode: u16) -> Option<NodeKind> {
    Some(match mode >> 12 {
        1 => NodeKind::Fifo,
        2 => NodeKind::CharDevice,
        4 => NodeKind::Directory,
        6 => NodeKind::BlockDevice,
        8 => NodeKind::File,
        10 => NodeKind::Symlink,
        12 => NodeKind::Socket,
        _ => return None,
    })
}
