//! The index of compressed files: one entry for each logical cluster, which begins an extent of
//! compressed data ("head") or continues one (`struct z_erofs_map_header`,
//! `z_erofs_lcluster_index`; compact indexes pack several entries and one block number).

use super::Erofs;
use super::decode::Algorithm;
use super::inode::{Inode, Layout};
use crate::bytes::{Record, narrow};
use crate::error::{DiskError, Result};

/// Bits of the header's `h_advise`.
const SHORT_ENTRIES: u16 = 1;
const BIG_1: u16 = 2;
const BIG_2: u16 = 4;
const TAIL_INLINE: u16 = 8;
const INTERLACED: u16 = 0x10;
const TAIL_PACKED: u16 = 0x20;
/// In the distance of a continuing entry: it is a number of blocks instead.
const IS_BLOCKS: u16 = 1 << 11;
/// Bytes that an extent may decompress to, and that it may take (`Z_EROFS_PCLUSTER_MAX_DSIZE` and
/// `Z_EROFS_PCLUSTER_MAX_SIZE`).
const DECODED_MAX: u64 = 12 << 20;
const STORED_MAX: u64 = 1 << 20;

/// How an extent is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// As it is.
    Plain,
    /// As it is, each byte at its place within a block: the end comes first.
    Interlaced,
    Compressed(Algorithm),
    /// In the packed inode, from a position on.
    Packed,
}

/// A run of a file: where it begins and ends there, and where it is stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) position: u64,
    pub(super) len: u64,
    pub(super) stored: Stored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Head1,
    Head2,
}

/// An entry.
#[derive(Debug, Clone, Copy)]
enum Entry {
    Head {
        kind: Kind,
        /// Where in the logical cluster the extent begins.
        offset: u64,
        block: u32,
    },
    /// How far back the head is; blocks that the extent takes, if this entry says so.
    Rest { back: u64, blocks: Option<u64> },
}

/// The index of one file.
pub(super) struct Index<'a> {
    fs: &'a Erofs,
    inode: &'a Inode,
    advise: u16,
    algorithms: u8,
    /// Size of logical clusters as a power of two, and their number.
    bits: u32,
    count: u64,
    /// The header's first four bytes: bytes of the inline tail, or a place in the packed inode.
    tail: u32,
    /// Set when all of the file is there.
    whole: Option<u64>,
    entries: u64,
}

impl<'a> Index<'a> {
    pub(super) fn open(fs: &'a Erofs, inode: &'a Inode) -> Result<Self> {
        let at = inode.end().next_multiple_of(8);
        let full = inode.layout == Layout::Full;
        let raw = match full && !fs.superblock.full_header() {
            true => vec![0; 8],
            false => fs.meta(at, 8)?,
        };
        let r = Record::new("erofs cluster header", at, &raw);
        let (advise, algorithms, clusters) = (r.u16_le(4)?, r.u8(6)?, r.u8(7)?);
        let bits = fs
            .superblock
            .block_bits
            .saturating_add(u32::from(clusters & 15));
        let whole = (clusters & 0x80 != 0).then_some(r.u64_le(0)? & !(1 << 63));
        if bits > 16 && whole.is_none() {
            return Err(r.corrupt(7, format!("clusters of 2^{bits} bytes")));
        }
        // Compact entries have 12 bits for an offset, or 14 where they are longer.
        if !full && bits > 14 && whole.is_none() {
            return Err(r.corrupt(7, format!("compact clusters of 2^{bits} bytes")));
        }
        if full && advise & SHORT_ENTRIES != 0 && whole.is_none() {
            return unsupported("erofs extents of their own size");
        }
        // Full indexes begin behind eight bytes that are not used.
        let ahead = if full { 16 } else { 8 };
        Ok(Self {
            fs,
            inode,
            advise,
            algorithms,
            bits,
            count: inode.size.div_ceil(1u64.checked_shl(bits).unwrap_or(1)),
            tail: r.u32_le(0)?,
            whole,
            entries: at.saturating_add(ahead),
        })
    }

    /// The extent that holds a byte of the file.
    pub(super) fn extent(&self, at: u64) -> Result<Extent> {
        if let Some(position) = self.whole {
            return Ok(Extent {
                start: 0,
                end: self.inode.size,
                position,
                len: self.inode.size,
                stored: Stored::Packed,
            });
        }
        let number = at >> self.bits;
        let mut back = match self.entry(number)? {
            Entry::Head { offset, .. } if self.start(number, offset) <= at => 0,
            Entry::Head { .. } => 1,
            Entry::Rest { back, .. } => back,
        };
        // Distances may be cut off at what fits their field; each step goes back by one at least.
        let mut head = number;
        let (kind, start, block) = loop {
            head = head
                .checked_sub(back)
                .ok_or_else(|| self.corrupt("a head before the file begins"))?;
            match self.entry(head)? {
                Entry::Head {
                    kind,
                    offset,
                    block,
                } => break (kind, self.start(head, offset), block),
                Entry::Rest { back: 0, .. } => return Err(self.corrupt("an extent without a head")),
                Entry::Rest { back: more, .. } => back = more,
            }
            if (number.saturating_sub(head) << self.bits) > DECODED_MAX {
                return Err(self.corrupt("an extent of more than 12 MiB"));
            }
        };
        let end = self.end(head, start, number.max(head.saturating_add(1)))?;
        if !(start..end).contains(&at) {
            return Err(self.corrupt("extents overlap"));
        }
        self.stored(kind, head, block, start, end)
    }

    fn start(&self, number: u64, offset: u64) -> u64 {
        (number << self.bits).saturating_add(offset)
    }

    /// Where the extent of `head` ends: at the first head from entry `next` on that begins behind
    /// `start`, or with the file.
    fn end(&self, head: u64, start: u64, next: u64) -> Result<u64> {
        let mut number = next;
        while number < self.count {
            if (number.saturating_sub(head) << self.bits) > DECODED_MAX {
                return Err(self.corrupt("an extent of more than 12 MiB"));
            }
            if let Entry::Head { offset, .. } = self.entry(number)? {
                return Ok(self.start(number, offset).min(self.inode.size));
            }
            number = number.saturating_add(1);
        }
        match self.inode.size.saturating_sub(start) > DECODED_MAX {
            true => Err(self.corrupt("an extent of more than 12 MiB")),
            false => Ok(self.inode.size),
        }
    }

    fn stored(&self, kind: Kind, head: u64, block: u32, start: u64, end: u64) -> Result<Extent> {
        let last = end == self.inode.size;
        let extent = |position, len, stored| Extent {
            start,
            end,
            position,
            len,
            stored,
        };
        if last && self.advise & TAIL_PACKED != 0 {
            // Full indexes have room for the upper half.
            let high = match self.inode.layout {
                Layout::Full => u64::from(block) << 32,
                _ => 0,
            };
            let position = high | u64::from(self.tail);
            let len = end.saturating_sub(start);
            return Ok(extent(position, len, Stored::Packed));
        }
        let algorithm = match kind {
            Kind::Plain => None,
            Kind::Head1 => Some(self.algorithms & 15),
            Kind::Head2 => Some(self.algorithms >> 4),
        };
        let stored = match algorithm {
            None if self.advise & INTERLACED != 0 => Stored::Interlaced,
            None => Stored::Plain,
            Some(number) => match Algorithm::new(number) {
                Some(algorithm) => Stored::Compressed(algorithm),
                None => return unsupported(&format!("erofs compression {number}")),
            },
        };
        let inline = u64::from(self.tail >> 16);
        if last && self.advise & TAIL_INLINE != 0 && inline > 0 {
            let stored = match stored {
                Stored::Interlaced => Stored::Plain,
                other => other,
            };
            return Ok(extent(self.entries_end(), inline, stored));
        }
        let len = self.stored_len(kind, head)?;
        if len == 0 || len > STORED_MAX {
            return Err(self.corrupt("an extent that takes nothing or more than 1 MiB"));
        }
        let position = u64::from(block) << self.fs.superblock.block_bits;
        Ok(extent(position, len, stored))
    }

    /// Bytes that an extent takes: a cluster, or as many blocks as the entry behind the head says.
    fn stored_len(&self, kind: Kind, head: u64) -> Result<u64> {
        let big = match kind {
            Kind::Head1 => BIG_1,
            Kind::Plain | Kind::Head2 => BIG_2,
        };
        let next = head.saturating_add(1);
        let cluster = 1u64.checked_shl(self.bits).unwrap_or(0);
        if self.advise & big == 0 || next >= self.count {
            return Ok(cluster);
        }
        match self.entry(next)? {
            Entry::Head { .. } => Ok(cluster),
            Entry::Rest {
                blocks: Some(blocks),
                ..
            } => Ok(blocks << self.fs.superblock.block_bits),
            Entry::Rest { .. } => Err(self.corrupt("an extent without its number of blocks")),
        }
    }

    fn entry(&self, number: u64) -> Result<Entry> {
        if number >= self.count {
            return Err(self.corrupt("an entry behind the index"));
        }
        match self.inode.layout {
            Layout::Full => self.full_entry(number),
            _ => self.compact_entry(number),
        }
    }

    fn full_entry(&self, number: u64) -> Result<Entry> {
        let at = self.entries.saturating_add(number.saturating_mul(8));
        let raw = self.fs.meta(at, 8)?;
        let r = Record::new("erofs cluster index", at, &raw);
        match kind(r.u16_le(0)?) {
            Some(kind) => self.head(kind, u64::from(r.u16_le(2)?), r.u32_le(4)?),
            None => Ok(self.rest(r.u16_le(4)?)),
        }
    }

    fn head(&self, kind: Kind, offset: u64, block: u32) -> Result<Entry> {
        if offset >> self.bits != 0 {
            return Err(self.corrupt("an extent begins outside its cluster"));
        }
        Ok(Entry::Head {
            kind,
            offset,
            block,
        })
    }

    fn rest(&self, word: u16) -> Entry {
        match word & IS_BLOCKS != 0 && self.advise & (BIG_1 | BIG_2) != 0 {
            true => Entry::Rest {
                back: 1,
                blocks: Some(u64::from(word & !IS_BLOCKS)),
            },
            false => Entry::Rest {
                back: u64::from(word),
                blocks: None,
            },
        }
    }

    /// Where the entry is packed, at which place, and how: (position of the pack, index, is short).
    fn pack(&self, number: u64) -> (u64, usize, bool) {
        // Short entries are packed by 16 into 32 bytes, aligned so; others surround them.
        let room = self
            .entries
            .next_multiple_of(32)
            .saturating_sub(self.entries);
        let first = room >> 2;
        let short = match self.advise & SHORT_ENTRIES != 0 && first < self.count {
            true => self.count.saturating_sub(first) & !15,
            false => 0,
        };
        if let Some(index) = number.checked_sub(first).filter(|index| *index < short) {
            let pack = room.saturating_add((index & !15) << 1);
            return (self.entries.saturating_add(pack), narrow(index & 15), true);
        }
        // Two of four bytes each in eight.
        let before = if number < first { 0 } else { short };
        let pack = (number.saturating_sub(before) & !1)
            .saturating_mul(4)
            .saturating_add(before << 1);
        let at = self.entries.saturating_add(pack);
        (at, narrow(number & 1), false)
    }

    fn compact_entry(&self, number: u64) -> Result<Entry> {
        let (at, index, short) = self.pack(number);
        let (len, width) = if short { (32, 14) } else { (8, 16) };
        let raw = self.fs.meta(at, len)?;
        let r = Record::new("erofs compact index", at, &raw);
        let field = |index: usize| -> Result<(u16, Option<Kind>)> {
            let bit = index.saturating_mul(width);
            let word = r.u32_le(bit >> 3)? >> (bit & 7);
            let mask = 1u32
                .checked_shl(self.bits.max(12))
                .unwrap_or(0)
                .wrapping_sub(1);
            let low = u16::try_from(word & mask).unwrap_or(u16::MAX);
            let kind_bits = (word >> self.bits.max(12)) & 3;
            Ok((low, kind(u16::try_from(kind_bits).unwrap_or(0))))
        };
        let (low, found) = field(index)?;
        let Some(kind) = found else {
            let rest = self.rest(low);
            let fields = if short { 16 } else { 2 };
            let last = index.saturating_add(1) == fields;
            if !last
                || matches!(
                    rest,
                    Entry::Rest {
                        blocks: Some(_),
                        ..
                    }
                )
            {
                return Ok(rest);
            }
            // The last one of a pack says how far the next head is; the one before it knows more.
            let back = match field(index.saturating_sub(1))? {
                (_, Some(_)) => 1,
                (low, None) => match self.rest(low) {
                    Entry::Rest { back, .. } => back.saturating_add(1),
                    Entry::Head { .. } => 1,
                },
            };
            return Ok(Entry::Rest { back, blocks: None });
        };
        let base = r.u32_le(len.saturating_sub(4))?;
        let before = self.blocks_before(index, &field)?;
        let block = base.wrapping_add(before);
        self.head(kind, u64::from(low), block)
    }

    /// Blocks of the extents that begin in a pack before the entry at `index`. The pack's number is
    /// that of its first block, or with small clusters of the block before.
    fn blocks_before(
        &self,
        index: usize,
        field: &dyn Fn(usize) -> Result<(u16, Option<Kind>)>,
    ) -> Result<u32> {
        let big = self.advise & BIG_1 != 0;
        let mut blocks = if big { 0u32 } else { 1 };
        let mut left = index;
        while let Some(at) = left.checked_sub(1) {
            let (low, kind) = field(at)?;
            left = at;
            if kind.is_some() {
                blocks = blocks.saturating_add(1);
                continue;
            }
            match self.rest(low) {
                // It follows its head at once.
                Entry::Rest {
                    blocks: Some(count),
                    ..
                } => {
                    blocks = blocks.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
                    left = at.saturating_sub(1);
                }
                // To the entry behind its head, which has the number of blocks.
                Entry::Rest { back, .. } if big => {
                    let step = back
                        .checked_sub(2)
                        .ok_or_else(|| self.corrupt("an extent without its number of blocks"))?;
                    left = at.saturating_sub(narrow(step));
                }
                // To its head, if that is in this pack.
                Entry::Rest { back, .. } => match at.checked_sub(narrow(back)) {
                    Some(head) => {
                        blocks = blocks.saturating_add(1);
                        left = head;
                    }
                    None => break,
                },
                Entry::Head { .. } => {}
            }
        }
        Ok(blocks)
    }

    /// Where the index ends: with an entry, or with a pack of them.
    fn entries_end(&self) -> u64 {
        let last = self.count.saturating_sub(1);
        if self.inode.layout == Layout::Full {
            return self.entries.saturating_add(self.count.saturating_mul(8));
        }
        let (at, _, short) = self.pack(last);
        at.saturating_add(if short { 32 } else { 8 })
    }

    fn corrupt(&self, problem: &str) -> DiskError {
        DiskError::Corrupt {
            structure: "erofs cluster index",
            position: self.entries,
            problem: problem.to_owned(),
        }
    }
}

/// The kind of an entry that is a head.
fn kind(word: u16) -> Option<Kind> {
    match word & 3 {
        0 => Some(Kind::Plain),
        1 => Some(Kind::Head1),
        2 => None,
        _ => Some(Kind::Head2),
    }
}

fn unsupported<T>(feature: &str) -> Result<T> {
    Err(DiskError::Unsupported {
        feature: feature.to_owned(),
    })
}
