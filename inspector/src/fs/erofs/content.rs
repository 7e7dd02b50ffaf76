//! Content of files: which bytes of the device a place in a file stands for.

use super::Erofs;
use super::clusters::{Extent, Index, Stored};
use super::decode::Algorithm;
use super::inode::{Inode, Layout};
use crate::bytes::{Record, narrow, read_vec, wide};
use crate::error::{DiskError, Result};
use std::sync::Arc;

/// No block: a hole.
const HOLE: u32 = u32::MAX;
/// A chunk's format: five bits of size, whether its addresses have eight bytes, and wider numbers.
const CHUNK_BITS: u32 = 0x1f;
const CHUNK_INDEXES: u32 = 0x20;

/// Where bytes come from.
enum Source {
    Device(u64),
    Hole,
    /// Decompressed, from a place on.
    Decoded(Arc<Vec<u8>>, usize),
    /// A position in the packed inode.
    Packed(u64),
}

/// A source and how many bytes it has.
type Run = (Source, u64);

impl Erofs {
    /// Fills `buf` from a position that the file reaches to, as far as the file goes.
    pub(super) fn read(&self, inode: &Inode, position: u64, buf: &mut [u8]) -> Result<usize> {
        let len = narrow(inode.size.saturating_sub(position)).min(buf.len());
        let (mut rest, _) = buf.split_at_mut(len);
        let index = match inode.layout {
            Layout::Full | Layout::Compact if len > 0 => Some(Index::open(self, inode)?),
            _ => None,
        };
        let mut at = position;
        while !rest.is_empty() {
            let (source, room) = match &index {
                Some(index) => self.compressed(&index.extent(at)?, at)?,
                None => self.flat(inode, at)?,
            };
            let room = narrow(room.min(wide(rest.len())));
            if room == 0 {
                return Err(corrupt(inode, "a run of no bytes"));
            }
            let (head, tail) = rest.split_at_mut(room);
            match source {
                Source::Device(from) => self.device.read_exact_at(from, head)?,
                Source::Hole => {
                    head.fill(0);
                    // It costs no read, but it is work: charge a step of the budget.
                    self.device.read_exact_at(0, &mut [])?;
                }
                Source::Decoded(bytes, skip) => {
                    let from = skip
                        .checked_add(room)
                        .and_then(|end| bytes.get(skip..end))
                        .ok_or_else(|| corrupt(inode, "an extent is too short"))?;
                    head.copy_from_slice(from);
                }
                Source::Packed(from) => self.read_packed(inode, from, head)?,
            }
            at = at.saturating_add(wide(room));
            rest = tail;
        }
        Ok(len)
    }

    /// Reads from the inode that holds the ends of many files.
    fn read_packed(&self, inode: &Inode, from: u64, buf: &mut [u8]) -> Result<()> {
        let packed = self.inode(self.superblock.packed)?;
        // Its own content lies in none: this ends the recursion.
        if packed.position == inode.position {
            return Err(corrupt(inode, "the packed inode refers to itself"));
        }
        if self.read(&packed, from, buf)? < buf.len() {
            return Err(corrupt(inode, "a fragment behind the packed inode"));
        }
        Ok(())
    }

    /// What is not compressed.
    fn flat(&self, inode: &Inode, at: u64) -> Result<Run> {
        let bits = self.superblock.block_bits;
        let left = inode.size.saturating_sub(at);
        let raw = (u64::from(inode.data) << bits).saturating_add(at);
        match inode.layout {
            Layout::Inline => {
                // What does not fill a block, or the last one that does, follows the inode.
                let last = inode.size.saturating_sub(1) >> bits << bits;
                match at.checked_sub(last) {
                    Some(skip) => Ok((Source::Device(inode.end().saturating_add(skip)), left)),
                    None => Ok((Source::Device(raw), last.saturating_sub(at))),
                }
            }
            Layout::Chunks => self.chunk(inode, at),
            _ => Ok((Source::Device(raw), left)),
        }
    }

    fn chunk(&self, inode: &Inode, at: u64) -> Result<Run> {
        let format = inode.data & 0xffff;
        if format & !(CHUNK_BITS | CHUNK_INDEXES) != 0 {
            return Err(DiskError::Unsupported {
                feature: format!("erofs chunk format {format:#x}"),
            });
        }
        let bits = self
            .superblock
            .block_bits
            .saturating_add(format & CHUNK_BITS);
        let indexes = format & CHUNK_INDEXES != 0;
        let width = if indexes { 8 } else { 4 };
        let number = at >> bits;
        let entry = inode
            .end()
            .next_multiple_of(wide(width))
            .saturating_add(number.saturating_mul(wide(width)));
        let raw = self.meta(entry, width)?;
        let r = Record::new("erofs chunk", entry, &raw);
        let block = match indexes {
            true if r.u16_le(2)? != 0 => {
                return Err(DiskError::Unsupported {
                    feature: "erofs with further devices".to_owned(),
                });
            }
            true => r.u32_le(4)?,
            false => r.u32_le(0)?,
        };
        let skip = at.saturating_sub(number << bits);
        let room = (1u64 << bits).saturating_sub(skip);
        let source = match block {
            HOLE => Source::Hole,
            _ => Source::Device(
                (u64::from(block) << self.superblock.block_bits).saturating_add(skip),
            ),
        };
        Ok((source, room))
    }

    fn compressed(&self, extent: &Extent, at: u64) -> Result<Run> {
        let skip = at.saturating_sub(extent.start);
        let left = extent.end.saturating_sub(at);
        let whole = extent.end.saturating_sub(extent.start);
        let from = |skip| Source::Device(extent.position.saturating_add(skip));
        match extent.stored {
            Stored::Packed => Ok((Source::Packed(extent.position.saturating_add(skip)), left)),
            Stored::Compressed(by) => Ok((
                Source::Decoded(self.decode(extent, by)?, narrow(skip)),
                left,
            )),
            Stored::Plain | Stored::Interlaced if whole > extent.len => Err(DiskError::Corrupt {
                structure: "erofs extent",
                position: extent.position,
                problem: format!("{whole} bytes in {}", extent.len),
            }),
            Stored::Plain => Ok((from(skip), left)),
            Stored::Interlaced => {
                // Up to the end of a block of the file, the bytes are the last ones stored.
                let block = self.superblock.block_size();
                let turn = (extent.start | block.saturating_sub(1)).saturating_add(1);
                match turn.checked_sub(at) {
                    Some(before @ 1..) => {
                        Ok((from(extent.len.saturating_sub(before)), before.min(left)))
                    }
                    _ => Ok((from(at.saturating_sub(turn)), left)),
                }
            }
        }
    }

    fn decode(&self, extent: &Extent, by: Algorithm) -> Result<Arc<Vec<u8>>> {
        let len = narrow(extent.end.saturating_sub(extent.start));
        let key = (extent.position, extent.len, len, by);
        self.data.get_or(&key, Vec::len, || {
            let raw = read_vec(self.device.as_ref(), extent.position, narrow(extent.len))?;
            let mut input = raw.as_slice();
            if self.superblock.zero_padded() {
                let padding = input.iter().take_while(|byte| **byte == 0).count();
                input = input.get(padding..).unwrap_or_default();
            }
            let mut out = vec![0; len];
            by.fill(input, &mut out).ok_or_else(|| DiskError::Corrupt {
                structure: "erofs extent",
                position: extent.position,
                problem: format!("{} bytes do not decompress to {len}", input.len()),
            })?;
            Ok(out)
        })
    }
}

/// An error about an inode.
pub(super) fn corrupt(inode: &Inode, problem: &str) -> DiskError {
    DiskError::Corrupt {
        structure: "erofs inode",
        position: inode.position,
        problem: problem.to_owned(),
    }
}
