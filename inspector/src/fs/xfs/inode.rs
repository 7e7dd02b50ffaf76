//! Inodes: the core, and where its two forks begin and end.

use super::superblock::SuperBlock;
use crate::bytes::{Record, narrow, read_vec};
use crate::error::{DiskError, Result};
use crate::fs::{Metadata, NodeKind};
use crate::read_at::ReadAt;

pub(super) const MAGIC: u16 = 0x494e;
/// Length of the core of version 3 inodes; older ones end at `di_next_unlinked`.
pub(super) const CORE_V3: usize = 176;
pub(super) const CORE_V2: usize = 100;

const FLAG_REALTIME: u16 = 1;
pub(super) const FLAG2_BIGTIME: u64 = 0x8;
pub(super) const FLAG2_NREXT64: u64 = 0x10;

/// How a fork holds its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// In the inode.
    Local,
    /// A list of extents in the inode.
    Extents,
    /// A B+tree of extents.
    Btree,
    /// Devices, and forks that are not there.
    None,
}

impl Format {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            0 | 4 => Self::None,
            1 => Self::Local,
            2 => Self::Extents,
            3 => Self::Btree,
            _ => return None,
        })
    }
}

/// A fork: its raw bytes in the inode and how to understand them.
#[derive(Debug, Clone)]
pub(super) struct Fork {
    pub(super) format: Format,
    pub(super) extents: u64,
    pub(super) bytes: Vec<u8>,
}

/// A parsed inode.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) number: u64,
    pub(super) position: u64,
    pub(super) metadata: Metadata,
    pub(super) data: Fork,
    pub(super) attr: Option<Fork>,
    pub(super) realtime: bool,
}

impl Inode {
    pub(super) fn read(layer: &dyn ReadAt, sb: &SuperBlock, number: u64) -> Result<Self> {
        let Some(position) = sb.inode_position(number) else {
            return Err(DiskError::Corrupt {
                structure: "XFS inode number",
                position: number,
                problem: "beyond the last allocation group".to_owned(),
            });
        };
        let raw = read_vec(layer, position, narrow(sb.inode_size))?;
        let r = Record::new("XFS inode", position, &raw);
        let (magic, mode, version) = (r.u16_be(0)?, r.u16_be(2)?, r.u8(4)?);
        if magic != MAGIC || !(1..=3).contains(&version) {
            return Err(r.corrupt(
                0,
                format!("inode {number}: magic {magic:#06x}, version {version}"),
            ));
        }
        if version == 3 && r.u64_be(152)? != number {
            return Err(r.corrupt(152, format!("inode {number} says {}", r.u64_be(152)?)));
        }
        let kind = kind_of_mode(mode)
            .ok_or_else(|| r.corrupt(2, format!("inode {number}: mode {mode:#o}")))?;
        let size = r.u64_be(56)?;
        if size > u64::MAX >> 1 {
            return Err(r.corrupt(56, format!("inode {number}: size {size}")));
        }
        let flags2 = if version == 3 { r.u64_be(120)? } else { 0 };
        let (extents, attr_extents) = if flags2 & FLAG2_NREXT64 != 0 {
            (r.u64_be(24)?, u64::from(r.u32_be(76)?))
        } else {
            (u64::from(r.u32_be(76)?), u64::from(r.u16_be(80)?))
        };
        let (data, attr) = forks(&r, version, extents, attr_extents)?;
        Ok(Self {
            number,
            position,
            metadata: Metadata {
                kind,
                size,
                mode: u32::from(mode & 0o7777),
                uid: r.u32_be(8)?,
                gid: r.u32_be(12)?,
                mtime: mtime(&r, flags2)?,
                links: if version == 1 {
                    u32::from(r.u16_be(6)?)
                } else {
                    r.u32_be(16)?
                },
            },
            data,
            attr,
            realtime: r.u16_be(90)? & FLAG_REALTIME != 0 && kind == NodeKind::File,
        })
    }

    /// A `Corrupt` error about this inode.
    pub(super) fn corrupt(&self, problem: impl std::fmt::Display) -> DiskError {
        DiskError::Corrupt {
            structure: "XFS inode",
            position: self.position,
            problem: format!("inode {}: {problem}", self.number),
        }
    }
}

/// `di_forkoff` counts eight bytes from the end of the core; 0 means no attribute fork.
fn forks(
    r: &Record<'_>,
    version: u8,
    extents: u64,
    attr_extents: u64,
) -> Result<(Fork, Option<Fork>)> {
    let core = if version == 3 { CORE_V3 } else { CORE_V2 };
    let room = r.bytes().len().saturating_sub(core);
    let offset = usize::from(r.u8(82)?).saturating_mul(8);
    if offset >= room {
        return Err(r.corrupt(82, format!("di_forkoff {offset} in {room} bytes")));
    }
    let (format, attr_format) = (r.u8(5)?, r.u8(83)?);
    let bad = |at, byte: u8| r.corrupt(at, format!("fork format {byte}"));
    let len = if offset == 0 { room } else { offset };
    let data = Fork {
        format: Format::of(format).ok_or_else(|| bad(5, format))?,
        extents,
        bytes: r.slice(core, len)?.to_vec(),
    };
    if offset == 0 {
        return Ok((data, None));
    }
    let attr = Fork {
        format: Format::of(attr_format).ok_or_else(|| bad(83, attr_format))?,
        extents: attr_extents,
        bytes: r
            .slice(core.saturating_add(offset), room.saturating_sub(offset))?
            .to_vec(),
    };
    Ok((data, Some(attr)))
}

/// Seconds and nanoseconds, or with `bigtime` nanoseconds since 1901.
fn mtime(r: &Record<'_>, flags2: u64) -> Result<i64> {
    if flags2 & FLAG2_BIGTIME == 0 {
        return Ok(i64::from(i32::from_be_bytes(r.array(40)?)));
    }
    let seconds = i64::try_from(r.u64_be(40)? / 1_000_000_000).unwrap_or(i64::MAX);
    Ok(seconds.saturating_sub(1 << 31))
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
