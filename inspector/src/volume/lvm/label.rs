//! The label of a physical volume, and its metadata areas: text in a circle behind a header.

use crate::bytes::{Record, narrow, read_upto, read_vec, text};
use crate::crc32::crc32_seeded;
use crate::error::{DiskError, Result};
use crate::probe::VolumeFacts;
use crate::read_at::ReadAt;

const SECTOR: usize = 512;
const SEED: u32 = 0xf597_a6cf;
/// Areas of a physical volume: LVM makes two at most.
const AREAS_MAX: usize = 8;
/// `MDA_SIZE_MAX` of a text that LVM would still write with its defaults is far below.
const TEXT_MAX: u64 = 8 << 20;
const MAGIC: &[u8; 16] = b" LVM2 x[5A%r0N*>";
const IGNORED: u32 = 1;

/// A physical volume.
pub(super) struct Pv {
    /// Grouped 6-4-4-4-4-4-6.
    pub(super) uuid: String,
    areas: Vec<(u64, u64)>,
}

/// What is told of a physical volume.
pub(crate) fn facts(layer: &dyn ReadAt) -> Result<Option<VolumeFacts>> {
    Ok(Pv::read(layer)?.map(|pv| VolumeFacts {
        version: Some("LVM2 001".into()),
        uuid: Some(pv.uuid),
        ..VolumeFacts::of_type("LVM2_member")
    }))
}

fn grouped(raw: &str) -> Option<String> {
    let mut rest = raw;
    let mut groups = Vec::new();
    for width in [6, 4, 4, 4, 4, 4, 6] {
        let (group, after) = rest.split_at_checked(width)?;
        groups.push(group);
        rest = after;
    }
    Some(groups.join("-"))
}

impl Pv {
    /// The label is in one of the first four sectors.
    pub(super) fn read(layer: &dyn ReadAt) -> Result<Option<Self>> {
        let head = read_upto(layer, 0, 2048)?;
        for sector in head.chunks_exact(SECTOR) {
            let r = Record::new("LVM2 label", 0, sector);
            if r.slice(0, 8)? != b"LABELONE" || r.slice(24, 8)? != b"LVM2 001" {
                continue;
            }
            let at = crate::bytes::size(r.u32_le(20)?);
            let Some(uuid) = grouped(&text(r.slice(at, 32)?)) else {
                return Ok(None);
            };
            // Behind uuid and size: data areas up to a zero, then metadata areas up to a zero.
            let mut at = at.saturating_add(40);
            let mut areas = Vec::new();
            let mut data = true;
            while areas.len() < AREAS_MAX {
                let (Ok(start), Ok(len)) = (r.u64_le(at), r.u64_le(at.saturating_add(8))) else {
                    break;
                };
                at = at.saturating_add(16);
                match (start, data) {
                    (0, true) => data = false,
                    (0, false) => break,
                    (_, true) => {}
                    (_, false) => areas.push((start, len)),
                }
            }
            return Ok(Some(Self { uuid, areas }));
        }
        Ok(None)
    }

    /// The current text of each metadata area that holds one.
    pub(super) fn metadata(&self, layer: &dyn ReadAt) -> Result<Vec<Vec<u8>>> {
        let mut texts = Vec::new();
        for (start, len) in &self.areas {
            match area(layer, *start, *len) {
                Ok(Some(text)) => texts.push(text),
                // Another area or another physical volume has it too.
                Ok(None) | Err(DiskError::Corrupt { .. } | DiskError::OutOfBounds { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(texts)
    }
}

fn area(layer: &dyn ReadAt, start: u64, len: u64) -> Result<Option<Vec<u8>>> {
    let raw = read_vec(layer, start, SECTOR)?;
    let r = Record::new("LVM2 metadata area", start, &raw);
    if r.slice(4, 16)? != MAGIC {
        return Err(r.corrupt(4, "no metadata magic"));
    }
    if crc32_seeded(SEED, r.slice(4, 508)?) != r.u32_le(0)? {
        return Err(r.corrupt(0, "header checksum does not match"));
    }
    // The first location is the committed text.
    let (offset, text_len) = (r.u64_le(40)?, r.u64_le(48)?);
    let (sum, flags) = (r.u32_le(56)?, r.u32_le(60)?);
    if offset == 0 || flags & IGNORED != 0 {
        return Ok(None);
    }
    let room = len.saturating_sub(512);
    if offset < 512 || offset >= len || text_len > room.min(TEXT_MAX) {
        return Err(r.corrupt(40, format!("text of {text_len} bytes at {offset} of {len}")));
    }
    let straight = text_len.min(len.saturating_sub(offset));
    let mut text = read_vec(layer, start.saturating_add(offset), narrow(straight))?;
    let around = text_len.saturating_sub(straight);
    text.extend(read_vec(layer, start.saturating_add(512), narrow(around))?);
    if crc32_seeded(SEED, &text) != sum {
        return Err(r.corrupt(56, "text checksum does not match"));
    }
    Ok(Some(text))
}
