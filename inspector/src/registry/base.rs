//! The base block ("Base block"): the first 4 KiB of a hive, and the first sector of its logs.

use crate::bytes::{Record, read_vec, text_utf16_le, wide};
use crate::error::{DiskError, Result};
use crate::read_at::ReadAt;

/// Where the hive bins begin; every offset inside a hive counts from here.
pub(super) const BINS_START: u64 = 4_096;
/// What is kept of the block: fields behind it have no meaning on disk, and a log holds only this.
const KEPT: usize = 512;
const SIGNATURE: &[u8; 4] = b"regf";
/// File type of a transaction log of the old format.
pub(super) const TYPE_LOG_OLD: u32 = 1;
/// File type of a transaction log of the new format, from Windows 8.1 on.
pub(super) const TYPE_LOG_NEW: u32 = 6;

/// The fields that reading needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseBlock {
    pub(super) primary_sequence: u32,
    pub(super) secondary_sequence: u32,
    /// FILETIME.
    pub(super) written: u64,
    pub(super) minor: u32,
    pub(super) file_type: u32,
    pub(super) root_cell: u32,
    pub(super) bins_size: u32,
    /// Last part of the path the hive had when it was written.
    pub(super) file_name: String,
    pub(super) checksum_ok: bool,
}

impl BaseBlock {
    /// Reads the block at the beginning of a hive or of a log.
    pub(super) fn read(layer: &dyn ReadAt) -> Result<Self> {
        if layer.len() < wide(KEPT) {
            return Err(corrupt(0, format!("a file of {} bytes", layer.len())));
        }
        let bytes = read_vec(layer, 0, KEPT)?;
        let record = Record::new("registry base block", 0, &bytes);
        if record.slice(0, 4)? != SIGNATURE {
            return Err(corrupt(0, "no regf signature"));
        }
        let major = record.u32_le(20)?;
        if major != 1 {
            return Err(DiskError::Unsupported {
                feature: format!("registry hive of major version {major}"),
            });
        }
        Ok(Self {
            primary_sequence: record.u32_le(4)?,
            secondary_sequence: record.u32_le(8)?,
            written: record.u64_le(12)?,
            minor: record.u32_le(24)?,
            file_type: record.u32_le(28)?,
            root_cell: record.u32_le(36)?,
            bins_size: record.u32_le(40)?,
            file_name: text_utf16_le(record.slice(48, 64)?),
            checksum_ok: record.u32_le(508)? == checksum(&bytes),
        })
    }

    /// "Dirty state of a hive": a write began and did not end.
    pub(super) fn is_dirty(&self) -> bool {
        !self.checksum_ok || self.primary_sequence != self.secondary_sequence
    }
}

/// XOR of the first 127 words; 0 and −1 are stored as 1 and −2.
fn checksum(bytes: &[u8]) -> u32 {
    let (words, _) = bytes.as_chunks::<4>();
    let sum = words
        .iter()
        .take(127)
        .fold(0, |sum, word| sum ^ u32::from_le_bytes(*word));
    match sum {
        0 => 1,
        u32::MAX => 0xffff_fffe,
        other => other,
    }
}

fn corrupt(position: u64, problem: impl Into<String>) -> DiskError {
    DiskError::Corrupt {
        structure: "registry base block",
        position,
        problem: problem.into(),
    }
}
