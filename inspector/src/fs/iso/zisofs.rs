//! Files compressed by zisofs: a header, pointers to blocks, blocks in zlib's format.

use super::susp::Zisofs;
use super::{Iso, Sections};
use crate::bytes::{Record, narrow, wide};
use crate::error::Result;
use flate2::{Decompress, FlushDecompress};

const MAGIC: &[u8] = &[0x37, 0xe4, 0x53, 0x96, 0xc9, 0xdb, 0xd6, 0x07];

impl Iso {
    /// Reads from a compressed file; the range lies within its decompressed size.
    pub(super) fn read_zisofs(
        &self,
        file: &Sections,
        z: Zisofs,
        position: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        let block = match z.block_log {
            // Linux' own limits: 32 to 128 KiB.
            15..=17 => 1u64.checked_shl(z.block_log).unwrap_or(1),
            n => return Err(file.corrupt(format!("zisofs blocks of 2^{n} bytes"))),
        };
        let mut at = position;
        let mut rest = buf;
        while !rest.is_empty() {
            let number = at.checked_div(block).unwrap_or(0);
            let skip = narrow(at.checked_rem(block).unwrap_or(0));
            let piece = self.blocks.get_or(&(file.position, number), Vec::len, || {
                let len = block.min(z.size.saturating_sub(number.saturating_mul(block)));
                self.zisofs_block(file, z, number, narrow(len))
            })?;
            let from = piece.get(skip..).unwrap_or_default();
            let len = from.len().min(rest.len());
            if len == 0 {
                return Err(file.corrupt("a zisofs block of no bytes"));
            }
            let (head, tail) = rest.split_at_mut(len);
            head.copy_from_slice(from.get(..len).unwrap_or_default());
            at = at.saturating_add(wide(len));
            rest = tail;
        }
        Ok(())
    }

    fn zisofs_block(&self, file: &Sections, z: Zisofs, number: u64, len: usize) -> Result<Vec<u8>> {
        let mut magic = [0; 8];
        self.read_sections(file, 0, &mut magic)?;
        if magic != MAGIC {
            return Err(file.corrupt("no zisofs header"));
        }
        let mut raw = [0; 8];
        let pointer = z.header.saturating_add(number.saturating_mul(4));
        self.read_sections(file, pointer, &mut raw)?;
        let r = Record::new("zisofs pointers", file.position, &raw);
        let (start, end) = (u64::from(r.u32_le(0)?), u64::from(r.u32_le(4)?));
        let mut out = vec![0; len];
        if start == end {
            return Ok(out);
        }
        // zlib adds some bytes to what it cannot compress.
        let stored = end.checked_sub(start).filter(|n| *n <= 160 << 10);
        let stored = stored.ok_or_else(|| file.corrupt("a zisofs block too long"))?;
        let mut input = vec![0; narrow(stored)];
        self.read_sections(file, start, &mut input)?;
        let mut decoder = Decompress::new(true);
        let done = decoder.decompress(&input, &mut out, FlushDecompress::Finish);
        if done.is_err() || decoder.total_out() != wide(len) {
            return Err(file.corrupt("a zisofs block does not decompress"));
        }
        Ok(out)
    }
}
