//! The boot sector: geometry, where the MFT and its mirror lie, the serial number.

use crate::bytes::{Record, read_upto};
use crate::error::Result;
use crate::read_at::ReadAt;

/// The largest cluster that Windows 10 formats.
const CLUSTER_MAX: u64 = 2 << 20;
/// FILE records have 1 KiB, on disks with 4 KiB sectors 4 KiB; the kernel takes up to a page.
const RECORD_MAX: u64 = 64 << 10;

/// A boot sector that holds together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Boot {
    pub(crate) sector: u64,
    pub(crate) cluster: u64,
    /// Size of a FILE record.
    pub(crate) record: u64,
    /// Byte position of the MFT.
    pub(crate) mft: u64,
    /// Byte position of the copy of its first records.
    pub(crate) mirror: u64,
    /// Size in bytes without the backup boot sector.
    pub(crate) size: u64,
    pub(crate) serial: u64,
}

impl Boot {
    /// Reads the boot sector; `None` when it is not one of NTFS.
    pub(crate) fn read(layer: &dyn ReadAt) -> Result<Option<Self>> {
        let raw = read_upto(layer, 0, 512)?;
        Self::parse(&Record::new("NTFS boot sector", 0, &raw))
    }

    pub(crate) fn parse(r: &Record<'_>) -> Result<Option<Self>> {
        if r.slice(3, 8).ok() != Some(b"NTFS    ") {
            return Ok(None);
        }
        let sector = u64::from(r.u16_le(0x0b)?);
        // Values above 128 are negative powers of two.
        let per_cluster = match r.u8(0x0d)? {
            n @ 0..=128 => u64::from(n),
            n => 1u64.checked_shl(u32::from(n.wrapping_neg())).unwrap_or(0),
        };
        let cluster = sector.saturating_mul(per_cluster);
        if !matches!(sector, 256 | 512 | 1024 | 2048 | 4096)
            || !per_cluster.is_power_of_two()
            || cluster > CLUSTER_MAX
        {
            return Ok(None);
        }
        let record = match i8::from_ne_bytes([r.u8(0x40)?]) {
            n if n > 0 => u64::from(n.unsigned_abs()).saturating_mul(cluster),
            n => 1u64.checked_shl(u32::from(n.unsigned_abs())).unwrap_or(0),
        };
        if !record.is_power_of_two() || !(256..=RECORD_MAX).contains(&record) {
            return Ok(None);
        }
        Ok(Some(Self {
            sector,
            cluster,
            record,
            mft: r.u64_le(0x30)?.saturating_mul(cluster),
            mirror: r.u64_le(0x38)?.saturating_mul(cluster),
            size: r.u64_le(0x28)?.saturating_mul(sector),
            serial: r.u64_le(0x48)?,
        }))
    }
}
