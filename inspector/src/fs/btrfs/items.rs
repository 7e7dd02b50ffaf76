//! Items of file trees and of the root tree, from the btrfs on-disk format documentation.

use super::superblock::Root;
use super::tree::Key;
use crate::bytes::Record;
use crate::error::Result;
use crate::fs::{Metadata, NodeKind};

pub(super) mod kind {
    pub(in super::super) const INODE: u8 = 1;
    pub(in super::super) const INODE_REF: u8 = 12;
    pub(in super::super) const INODE_EXTREF: u8 = 13;
    pub(in super::super) const XATTR: u8 = 24;
    pub(in super::super) const DIR_ITEM: u8 = 84;
    pub(in super::super) const DIR_INDEX: u8 = 96;
    pub(in super::super) const EXTENT_DATA: u8 = 108;
    pub(in super::super) const ROOT: u8 = 132;
    pub(in super::super) const ROOT_BACKREF: u8 = 144;
    pub(in super::super) const ROOT_REF: u8 = 156;
    pub(in super::super) const CHUNK: u8 = 228;
}

/// `BTRFS_NAME_LEN`.
pub(super) const NAME_MAX: usize = 255;

pub(super) fn inode(r: &Record<'_>) -> Result<Metadata> {
    let mode = r.u32_le(52)?;
    let kind = kind_of_mode(mode).ok_or_else(|| r.corrupt(52, format!("inode mode {mode:#o}")))?;
    let size = r.u64_le(16)?;
    if size > u64::MAX >> 1 {
        return Err(r.corrupt(16, format!("inode size {size}")));
    }
    Ok(Metadata {
        kind,
        size,
        mode: mode & 0o7777,
        uid: r.u32_le(44)?,
        gid: r.u32_le(48)?,
        mtime: r.u64_le(136)?.cast_signed(),
        links: r.u32_le(40)?,
    })
}

fn kind_of_mode(mode: u32) -> Option<NodeKind> {
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

/// A directory entry or an extended attribute.
pub(super) struct Named<'a> {
    pub(super) target: Key,
    pub(super) kind: Option<NodeKind>,
    pub(super) name: &'a [u8],
    pub(super) data: &'a [u8],
}

/// All names of an item: those with equal hashes share one.
pub(super) fn named<'a>(r: &Record<'a>) -> Result<Vec<Named<'a>>> {
    let mut all = Vec::new();
    let mut at = 0usize;
    // A name takes 30 bytes at least, so the item bounds the loop.
    while at.saturating_add(30) <= r.bytes().len() {
        let data_len = usize::from(r.u16_le(at.saturating_add(25))?);
        let name_len = usize::from(r.u16_le(at.saturating_add(27))?);
        let name_at = at.saturating_add(30);
        let data_at = name_at.saturating_add(name_len);
        if name_len > NAME_MAX {
            return Err(r.corrupt(at, format!("a name of {name_len} bytes")));
        }
        all.push(Named {
            target: Key::read(r, at)?,
            kind: kind_of_type(r.u8(at.saturating_add(29))?),
            name: r.slice(name_at, name_len)?,
            data: r.slice(data_at, data_len)?,
        });
        at = data_at.saturating_add(data_len);
    }
    Ok(all)
}

/// The upper bit tells an encrypted name.
fn kind_of_type(byte: u8) -> Option<NodeKind> {
    Some(match byte & 0x7f {
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

/// `btrfs_root_item`.
pub(super) struct RootItem {
    pub(super) root: Root,
    pub(super) read_only: bool,
    /// 0 for a subvolume that is being deleted.
    pub(super) references: u32,
    pub(super) uuid: [u8; 16],
    pub(super) parent_uuid: [u8; 16],
}

pub(super) fn root(r: &Record<'_>) -> Result<RootItem> {
    let generation = r.u64_le(160)?;
    // The newer half holds only if a kernel that knows it wrote the item last.
    let newer = r.u64_le(239).is_ok_and(|v2| v2 == generation);
    let uuid = |at| {
        if newer {
            r.array::<16>(at)
        } else {
            Ok([0; 16])
        }
    };
    Ok(RootItem {
        root: Root {
            address: r.u64_le(176)?,
            level: r.u8(238)?,
            generation,
        },
        read_only: r.u64_le(208)? & 1 != 0,
        references: r.u32_le(216)?,
        uuid: uuid(247)?,
        parent_uuid: uuid(263)?,
    })
}

/// Directory and name of a subvolume, from a root reference.
pub(super) fn root_reference<'a>(r: &Record<'a>) -> Result<(u64, &'a [u8])> {
    let len = usize::from(r.u16_le(16)?);
    Ok((r.u64_le(0)?, r.slice(18, len)?))
}

/// Where a piece of a file lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    /// In the item.
    Inline(Vec<u8>),
    /// Nowhere: a hole, or allocated but never written.
    Hole,
    /// `offset` bytes into an extent, all of which is stored at a logical address.
    Extent {
        address: u64,
        stored: u64,
        offset: u64,
    },
}

/// `btrfs_file_extent_item`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    /// First byte in the file.
    pub(super) start: u64,
    /// Bytes of the file.
    pub(super) len: u64,
    pub(super) compression: u8,
    /// Bytes of the whole extent when decompressed.
    pub(super) ram: u64,
    pub(super) data: Data,
}

pub(super) fn extent(start: u64, r: &Record<'_>) -> Result<Extent> {
    let (ram, compression) = (r.u64_le(8)?, r.u8(16)?);
    if r.u8(17)? != 0 || r.u16_le(18)? != 0 {
        return Err(r.corrupt(17, "an encrypted or encoded extent"));
    }
    let shape = r.u8(20)?;
    if shape == 0 {
        let stored = r.bytes().get(21..).unwrap_or_default();
        return Ok(Extent {
            start,
            len: ram,
            compression,
            ram,
            data: Data::Inline(stored.to_vec()),
        });
    }
    let (address, stored) = (r.u64_le(21)?, r.u64_le(29)?);
    let (offset, len) = (r.u64_le(37)?, r.u64_le(45)?);
    if shape > 2 || len == 0 || start.checked_add(len).is_none() {
        return Err(r.corrupt(20, format!("extent type {shape} of {len} bytes")));
    }
    let data = if shape == 2 || address == 0 {
        Data::Hole
    } else {
        Data::Extent {
            address,
            stored,
            offset,
        }
    };
    Ok(Extent {
        start,
        len,
        compression,
        ram,
        data,
    })
}
