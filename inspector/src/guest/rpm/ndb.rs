//! rpm's own package store (`Packages.db`, SUSE): slots that point at contiguous blobs, little-endian
//! (rpm, lib/backend/ndb/rpmpkg.c).

use super::{BLOB_MAX, Blobs};
use crate::bytes::{Record, read_vec, size};
use crate::error::Result;
use crate::read_at::ReadAt;

const MAGIC: &[u8] = b"RpmP";
const SLOT_MAGIC: u32 = u32::from_le_bytes(*b"Slot");
const BLOB_MAGIC: u32 = u32::from_le_bytes(*b"BlbS");
/// Unit of offsets and lengths.
const BLOCK: u64 = 16;
const SLOT: usize = 16;
const PAGE: usize = 4_096;
/// Pages of slots: 255 packages each, so some 260,000 in all.
const SLOT_PAGES_MAX: u32 = 1_024;

pub(super) fn is_ndb(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

pub(super) fn read(layer: &dyn ReadAt, blobs: &mut Blobs<'_>) -> Result<()> {
    let bytes = read_vec(layer, 0, 32)?;
    let header = Record::new("rpm ndb header", 0, &bytes);
    if header.slice(0, 4)? != MAGIC || header.u32_le(4)? != 0 {
        return Err(header.corrupt(0, "no package store of version 0"));
    }
    let pages = header.u32_le(12)?;
    if pages == 0 || pages > SLOT_PAGES_MAX {
        return Err(header.corrupt(12, format!("{pages} pages of slots")));
    }
    let bytes = read_vec(layer, 0, size(pages).saturating_mul(PAGE))?;
    let slots = Record::new("rpm ndb slots", 0, &bytes);
    // The header takes the place of the first two slots.
    for at in (2 * SLOT..bytes.len()).step_by(SLOT) {
        if slots.u32_le(at)? != SLOT_MAGIC {
            return Err(slots.corrupt(at, "no slot"));
        }
        let package = slots.u32_le(at.saturating_add(4))?;
        let block = slots.u32_le(at.saturating_add(8))?;
        if package == 0 || block == 0 {
            continue;
        }
        let position = u64::from(block).saturating_mul(BLOCK);
        let bytes = read_vec(layer, position, 16)?;
        let blob = Record::new("rpm ndb blob", position, &bytes);
        if blob.u32_le(0)? != BLOB_MAGIC || blob.u32_le(4)? != package {
            return Err(blob.corrupt(0, "no blob of this package"));
        }
        let length = size(blob.u32_le(12)?);
        if length > BLOB_MAX {
            blobs.skip(length);
            continue;
        }
        blobs.take(&read_vec(layer, position.saturating_add(16), length)?)?;
    }
    Ok(())
}
