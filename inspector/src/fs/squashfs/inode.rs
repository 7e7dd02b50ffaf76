//! Inodes, as they lie one after the other in compressed metadata.

use super::meta::Cursor;
use crate::bytes::{Record, size};
use crate::error::Result;
use crate::fs::NodeKind;

/// No fragment, no extended attributes.
pub(super) const NONE: u32 = u32::MAX;

/// A parsed inode.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) kind: NodeKind,
    pub(super) mode: u16,
    pub(super) uid: u16,
    pub(super) gid: u16,
    pub(super) mtime: u32,
    pub(super) links: u32,
    pub(super) size: u64,
    /// Index of its extended attributes.
    pub(super) xattr: u32,
    pub(super) body: Body,
}

/// What the kinds have of their own.
#[derive(Debug, Clone)]
pub(super) enum Body {
    File {
        start: u64,
        fragment: u32,
        fragment_at: u32,
        /// Where the list of block sizes is.
        list: Cursor,
    },
    Directory {
        block: u32,
        offset: u16,
    },
    /// Where the target is.
    Link(Cursor),
    Other,
}

/// The longest fixed part (an extended file).
pub(super) const HEAD: usize = 56;

impl Inode {
    /// Parses the bytes from an inode's start on, and says how many the fixed part takes.
    pub(super) fn parse(r: &Record<'_>, at: Cursor) -> Result<Self> {
        let number = r.u16_le(0)?;
        let base = |kind, links, length, xattr, body| -> Result<Self> {
            Ok(Self {
                kind,
                mode: r.u16_le(2)? & 0o7777,
                uid: r.u16_le(4)?,
                gid: r.u16_le(6)?,
                mtime: r.u32_le(8)?,
                links,
                size: length,
                xattr,
                body,
            })
        };
        let special = match number {
            4 | 11 => Some(NodeKind::BlockDevice),
            5 | 12 => Some(NodeKind::CharDevice),
            6 | 13 => Some(NodeKind::Fifo),
            7 | 14 => Some(NodeKind::Socket),
            _ => None,
        };
        if let Some(kind) = special {
            return base(kind, r.u32_le(16)?, 0, NONE, Body::Other);
        }
        match number {
            1 => {
                let body = Body::Directory {
                    block: r.u32_le(16)?,
                    offset: r.u16_le(26)?,
                };
                let length = u64::from(r.u16_le(24)?);
                base(NodeKind::Directory, r.u32_le(20)?, length, NONE, body)
            }
            8 => {
                let body = Body::Directory {
                    block: r.u32_le(24)?,
                    offset: r.u16_le(34)?,
                };
                let length = u64::from(r.u32_le(20)?);
                base(
                    NodeKind::Directory,
                    r.u32_le(16)?,
                    length,
                    r.u32_le(36)?,
                    body,
                )
            }
            2 => {
                let body = Body::File {
                    start: u64::from(r.u32_le(16)?),
                    fragment: r.u32_le(20)?,
                    fragment_at: r.u32_le(24)?,
                    list: at.ahead(32),
                };
                base(NodeKind::File, 1, u64::from(r.u32_le(28)?), NONE, body)
            }
            9 => {
                let body = Body::File {
                    start: r.u64_le(16)?,
                    fragment: r.u32_le(44)?,
                    fragment_at: r.u32_le(48)?,
                    list: at.ahead(56),
                };
                base(
                    NodeKind::File,
                    r.u32_le(40)?,
                    r.u64_le(24)?,
                    r.u32_le(52)?,
                    body,
                )
            }
            3 | 10 => {
                let length = u64::from(r.u32_le(20)?);
                base(
                    NodeKind::Symlink,
                    r.u32_le(16)?,
                    length,
                    NONE,
                    Body::Link(at.ahead(24)),
                )
            }
            n => Err(r.corrupt(0, format!("inode type {n}"))),
        }
    }

    /// Where the index of extended attributes stands in an inode whose fixed part does not have it.
    pub(super) fn late_xattr(number: u16, length: u64) -> Option<usize> {
        match number {
            10 => Some(24usize.saturating_add(crate::bytes::narrow(length))),
            11 | 12 => Some(24),
            13 | 14 => Some(20),
            _ => None,
        }
    }
}

/// An entry's type as a kind.
pub(super) fn kind_of_entry(number: u16) -> Option<NodeKind> {
    Some(match number {
        1 | 8 => NodeKind::Directory,
        2 | 9 => NodeKind::File,
        3 | 10 => NodeKind::Symlink,
        4 | 11 => NodeKind::BlockDevice,
        5 | 12 => NodeKind::CharDevice,
        6 | 13 => NodeKind::Fifo,
        7 | 14 => NodeKind::Socket,
        _ => return None,
    })
}

/// Length of a stored block and whether it is compressed.
pub(super) fn stored(word: u32) -> (usize, bool) {
    (size(word & 0x00ff_ffff), word & 0x0100_0000 == 0)
}
