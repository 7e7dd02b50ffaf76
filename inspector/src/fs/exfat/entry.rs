//! Entry sets: a file entry, a stream extension, file names (sections 7.4, 7.6 and 7.7).

use crate::bytes::Record;
use crate::error::Result;
use crate::fs::fat::dir::timestamp;
use crate::fs::ntfs::name;

/// Bytes of an entry.
pub(super) const ENTRY: usize = 32;
/// Types of entries in use.
pub(super) const FILE: u8 = 0x85;
const STREAM: u8 = 0xc0;
const NAME: u8 = 0xc1;

/// What the first two entries of a set say.
pub(super) struct File {
    pub(super) directory: bool,
    pub(super) read_only: bool,
    pub(super) mtime: i64,
    pub(super) cluster: u32,
    pub(super) size: u64,
    pub(super) valid: u64,
    /// Stored in consecutive clusters, without a chain.
    pub(super) contiguous: bool,
}

impl File {
    pub(super) fn parse(file: &Record<'_>, stream: &Record<'_>) -> Result<Self> {
        if file.u8(0)? != FILE || stream.u8(0)? != STREAM {
            return Err(file.corrupt(0, "no file entry with a stream extension"));
        }
        let attributes = file.u16_le(4)?;
        let stamp = file.u32_le(0x0c)?;
        let date = u16::try_from(stamp >> 16).unwrap_or(0);
        let time = u16::try_from(stamp & 0xffff).unwrap_or(0);
        // Quarters of an hour from UTC, in seven bits with a sign, where the highest bit is set.
        let zone = file.u8(0x17)?;
        let quarters = match zone & 0x7f {
            _ if zone & 0x80 == 0 => 0,
            n @ 0..0x40 => i64::from(n),
            n => i64::from(n).saturating_sub(128),
        };
        let size = stream.u64_le(0x18)?;
        Ok(Self {
            directory: attributes & 0x10 != 0,
            read_only: attributes & 1 != 0,
            mtime: timestamp(date, time).saturating_sub(quarters.saturating_mul(900)),
            cluster: stream.u32_le(0x14)?,
            size,
            valid: stream.u64_le(8)?.min(size),
            contiguous: stream.u8(1)? & 2 != 0,
        })
    }
}

/// An entry set as it is read.
#[derive(Default)]
pub(super) struct Set {
    node: u64,
    directory: bool,
    /// Entries that are still to come.
    left: u8,
    /// Units of the name.
    units: usize,
    name: Vec<u8>,
}

impl Set {
    pub(super) fn begin(r: &Record<'_>, node: u64) -> Result<Self> {
        Ok(Self {
            node,
            directory: r.u16_le(4)? & 0x10 != 0,
            left: r.u8(1)?,
            ..Self::default()
        })
    }

    /// Adds a later entry; answers name, node and whether it is a directory once all are there.
    pub(super) fn add(&mut self, r: &Record<'_>) -> Result<Option<(Vec<u8>, u64, bool)>> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        match r.u8(0)? {
            STREAM => self.units = usize::from(r.u8(3)?),
            NAME => self.name.extend(r.slice(2, 30)?),
            // Vendors' own entries belong to the set, anything else breaks it.
            kind if kind & 0xc0 == 0xc0 => {}
            _ => {
                self.left = 0;
                return Ok(None);
            }
        }
        self.left = left;
        let bytes = self.units.saturating_mul(2);
        if left > 0 || bytes == 0 || self.name.len() < bytes {
            return Ok(None);
        }
        let raw = self.name.get(..bytes).unwrap_or_default();
        Ok(Some((name::to_bytes(raw), self.node, self.directory)))
    }
}
