//! Log records: a header, perhaps more headers, and data whose sectors are stamped.

use crate::bytes::{Record, narrow, size, wide};
use crate::crc32::crc32c;
use crate::error::{DiskError, Result};

pub(super) const MAGIC: u32 = 0xfeed_babe;
const SECTOR: usize = 512;
/// `XLOG_HEADER_CYCLE_SIZE`: data that one header holds stamps for.
const PER_HEADER: u32 = 32 << 10;
/// `XLOG_MAX_RECORD_BSIZE`.
const RECORD_MAX: u32 = 256 << 10;
/// `sizeof(struct xlog_rec_header)` on machines of 64 and 32 bits: both were summed up.
const HEADER_LENS: [usize; 2] = [328, 324];
const EXTENDED_LEN: usize = 260;
const CRC_AT: usize = 32;

/// `xlog_rec_header`.
pub(super) struct Header {
    pub(super) lsn: u64,
    pub(super) tail_lsn: u64,
    pub(super) operations: u32,
    position: u64,
    len: u32,
    crc: u32,
    headers: usize,
}

impl Header {
    pub(super) fn parse(sector: &[u8], position: u64) -> Result<Self> {
        let r = Record::new("XFS log record", position, sector);
        if r.u32_be(0)? != MAGIC {
            return Err(r.corrupt(0, "no record magic"));
        }
        let (version, len, operations) = (r.u32_be(8)?, r.u32_be(12)?, r.u32_be(40)?);
        if !(1..=2).contains(&version) {
            return Err(r.corrupt(8, format!("h_version {version:#x}")));
        }
        if r.u32_be(300)? != 1 {
            return Err(DiskError::Unsupported {
                feature: format!("xfs log of another machine (h_fmt {})", r.u32_be(300)?),
            });
        }
        // mkfs writes its unmount record with a buffer size smaller than its stripe unit.
        let buffer = if version == 2 {
            r.u32_be(320)?
        } else {
            PER_HEADER
        };
        if len > RECORD_MAX || buffer > RECORD_MAX || (len > buffer && operations != 1) {
            return Err(r.corrupt(12, format!("h_len {len}, h_size {buffer}")));
        }
        Ok(Self {
            lsn: r.u64_be(16)?,
            tail_lsn: r.u64_be(24)?,
            operations,
            position,
            len,
            crc: r.u32_le(CRC_AT)?,
            headers: size(buffer.div_ceil(PER_HEADER)).max(1),
        })
    }

    pub(super) fn corrupt(&self, problem: &str) -> DiskError {
        DiskError::Corrupt {
            structure: "XFS log record",
            position: self.position,
            problem: problem.to_owned(),
        }
    }

    /// Sectors of headers.
    pub(super) fn sectors(&self) -> u64 {
        wide(self.headers)
    }

    pub(super) fn data_sectors(&self) -> u64 {
        u64::from(self.len).div_ceil(wide(SECTOR))
    }

    /// The data with the words under the stamps put back; `None` when it was torn.
    pub(super) fn unpack(&self, whole: &[u8]) -> Result<Option<Vec<u8>>> {
        let r = Record::new("XFS log record", self.position, whole);
        let start = self.headers.saturating_mul(SECTOR);
        let stamped = r.slice(start, narrow(self.data_sectors()).saturating_mul(SECTOR))?;
        let used = stamped.get(..size(self.len)).unwrap_or_default();
        if self.crc != 0 && !self.sum_holds(&r, used)? {
            return Ok(None);
        }
        let mut data = stamped.to_vec();
        for (i, sector) in data.chunks_exact_mut(SECTOR).enumerate() {
            let (header, slot) = (i / 64, i % 64);
            // h_cycle_data follows at 44, xh_cycle_data at 4.
            let base = if header == 0 { 44usize } else { 4 };
            let at = header
                .saturating_mul(SECTOR)
                .saturating_add(base)
                .saturating_add(slot.saturating_mul(4));
            let word: [u8; 4] = r.array(at)?;
            if let Some(first) = sector.get_mut(..4) {
                first.copy_from_slice(&word);
            }
        }
        data.truncate(size(self.len));
        Ok(Some(data))
    }

    fn sum_holds(&self, r: &Record<'_>, data: &[u8]) -> Result<bool> {
        for len in HEADER_LENS {
            let mut sum = crc32c(!0, r.slice(0, CRC_AT)?);
            sum = crc32c(sum, &[0; 4]);
            let rest = CRC_AT.saturating_add(4);
            sum = crc32c(sum, r.slice(rest, len.saturating_sub(rest))?);
            for extra in 1..self.headers {
                sum = crc32c(sum, r.slice(extra.saturating_mul(SECTOR), EXTENDED_LEN)?);
            }
            if !crc32c(sum, data) == self.crc {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
