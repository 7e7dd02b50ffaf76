//! Metadata: blocks of at most 8 KiB, most of them compressed, read as one stream.

use super::Squashfs;
use crate::bytes::{Record, narrow, read_vec, wide};
use crate::error::{DiskError, Result};

/// Bytes of a block once decompressed.
pub(super) const BLOCK: usize = 8192;

/// A place in metadata: the position of a block on the device, and an offset into what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Cursor {
    pub(super) block: u64,
    pub(super) offset: usize,
}

impl Cursor {
    /// From a reference: block position within a table, offset in 16 bits.
    pub(super) fn within(table: u64, reference: u64) -> Self {
        Self {
            block: table.saturating_add(reference >> 16),
            offset: narrow(reference & 0xffff),
        }
    }

    /// Further on; the reader takes care of block ends.
    pub(super) fn ahead(self, len: usize) -> Self {
        Self {
            offset: self.offset.saturating_add(len),
            ..self
        }
    }
}

/// A block as decompressed, and where the next one begins.
pub(super) struct Block {
    pub(super) data: Vec<u8>,
    next: u64,
}

impl Squashfs {
    fn meta_block(&self, position: u64) -> Result<std::sync::Arc<Block>> {
        self.meta.get_or(
            &position,
            |b: &Block| b.data.len().saturating_add(64),
            || {
                let head = read_vec(self.device.as_ref(), position, 2)?;
                let word = Record::new("squashfs metadata", position, &head).u16_le(0)?;
                let len = usize::from(word & 0x7fff);
                let start = position.saturating_add(2);
                if len == 0 || len > BLOCK {
                    return Err(DiskError::Corrupt {
                        structure: "squashfs metadata",
                        position,
                        problem: format!("a block of {len} bytes"),
                    });
                }
                let raw = read_vec(self.device.as_ref(), start, len)?;
                let data = match word & 0x8000 {
                    0 => self.compressor.decode(start, &raw, BLOCK)?,
                    _ => raw,
                };
                Ok(Block {
                    data,
                    next: start.saturating_add(wide(len)),
                })
            },
        )
    }

    /// Fills `buf` from a place on and moves it behind.
    pub(super) fn read_meta(&self, cursor: &mut Cursor, buf: &mut [u8]) -> Result<()> {
        let mut rest = buf;
        while !rest.is_empty() {
            let block = self.meta_block(cursor.block)?;
            if cursor.offset >= block.data.len() {
                // Blocks before the last are full; a shorter one would leave a gap.
                if block.data.len() < BLOCK {
                    return Err(DiskError::Corrupt {
                        structure: "squashfs metadata",
                        position: cursor.block,
                        problem: format!("byte {} of {}", cursor.offset, block.data.len()),
                    });
                }
                cursor.offset = cursor.offset.saturating_sub(BLOCK);
                cursor.block = block.next;
                continue;
            }
            let from = block.data.get(cursor.offset..).unwrap_or_default();
            let len = from.len().min(rest.len());
            let (head, tail) = rest.split_at_mut(len);
            head.copy_from_slice(from.get(..len).unwrap_or_default());
            cursor.offset = cursor.offset.saturating_add(len);
            rest = tail;
        }
        Ok(())
    }

    /// What there is of `len` bytes: less where metadata ends.
    pub(super) fn read_meta_upto(&self, mut cursor: Cursor, len: usize) -> Result<Vec<u8>> {
        let block = self.meta_block(cursor.block)?;
        let left = block.data.len().saturating_sub(cursor.offset);
        let mut bytes = vec![0; len.min(left)];
        self.read_meta(&mut cursor, &mut bytes)?;
        if bytes.len() < len && block.data.len() == BLOCK {
            let mut more = vec![0; len.saturating_sub(bytes.len())];
            // The last inode may end with its block.
            if self.read_meta(&mut cursor, &mut more).is_ok() {
                bytes.extend(more);
            }
        }
        Ok(bytes)
    }

    /// Entry `index` of a table that is reached through a list of block positions.
    pub(super) fn table_entry(&self, list: u64, index: u64, width: usize) -> Result<Vec<u8>> {
        let per_block = wide(BLOCK).checked_div(wide(width)).unwrap_or(1);
        let slot = index.checked_div(per_block).unwrap_or(0);
        let within = index.checked_rem(per_block).unwrap_or(0);
        let at = list.saturating_add(slot.saturating_mul(8));
        let raw = read_vec(self.device.as_ref(), at, 8)?;
        let mut cursor = Cursor {
            block: Record::new("squashfs table", at, &raw).u64_le(0)?,
            offset: narrow(within).saturating_mul(width),
        };
        let mut entry = vec![0; width];
        self.read_meta(&mut cursor, &mut entry)?;
        Ok(entry)
    }
}
