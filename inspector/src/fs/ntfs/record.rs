//! FILE and INDX records: update sequences; attributes of a FILE record.

use super::runs::Runs;
use crate::bytes::{Record, size};
use crate::error::Result;

/// Update sequences protect pieces of 512 bytes, whatever the sector size is.
const STRIDE: usize = 512;

/// Attribute types that are read.
pub(super) mod kind {
    pub(in super::super) const STANDARD_INFORMATION: u32 = 0x10;
    pub(in super::super) const ATTRIBUTE_LIST: u32 = 0x20;
    pub(in super::super) const FILE_NAME: u32 = 0x30;
    pub(in super::super) const VOLUME_NAME: u32 = 0x60;
    pub(in super::super) const VOLUME_INFORMATION: u32 = 0x70;
    pub(in super::super) const DATA: u32 = 0x80;
    pub(in super::super) const INDEX_ROOT: u32 = 0x90;
    pub(in super::super) const INDEX_ALLOCATION: u32 = 0xa0;
    pub(in super::super) const BITMAP: u32 = 0xb0;
    pub(in super::super) const REPARSE_POINT: u32 = 0xc0;
    pub(super) const END: u32 = u32::MAX;
}

/// Puts back the last two bytes of every 512, which the record holds in its update sequence array,
/// and checks that the piece was written together with the others.
pub(super) fn fix_up(
    structure: &'static str,
    magic: &[u8; 4],
    position: u64,
    bytes: &mut [u8],
) -> Result<()> {
    let r = Record::new(structure, position, bytes);
    if r.slice(0, 4)? != magic {
        return Err(r.corrupt(
            0,
            format!("signature {:?}", crate::bytes::text(r.slice(0, 4)?)),
        ));
    }
    let (array, count) = (usize::from(r.u16_le(4)?), usize::from(r.u16_le(6)?));
    if count != (bytes.len() / STRIDE).saturating_add(1) {
        return Err(r.corrupt(6, format!("{count} update sequence numbers")));
    }
    let sequence = r.slice(array, count.saturating_mul(2))?.to_vec();
    let Some((number, saved)) = sequence.split_at_checked(2) else {
        return Ok(());
    };
    let torn = bytes
        .chunks_exact(STRIDE)
        .any(|piece| piece.get(STRIDE - 2..) != Some(number));
    if torn {
        return Err(Record::new(structure, position, bytes).corrupt(array, "torn write"));
    }
    for (piece, saved) in bytes.chunks_exact_mut(STRIDE).zip(saved.chunks_exact(2)) {
        if let Some(end) = piece.get_mut(STRIDE - 2..) {
            end.copy_from_slice(saved);
        }
    }
    Ok(())
}

/// Where an attribute's value is.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// In the FILE record.
    Resident(Vec<u8>),
    /// In clusters.
    Clusters(Clusters),
}

/// An attribute outside its FILE record.
#[derive(Debug, Clone)]
pub(super) struct Clusters {
    pub(super) runs: Runs,
    /// Length in bytes.
    pub(super) size: u64,
    /// What lies beyond was never written: zeros.
    pub(super) initialized: u64,
    /// Clusters of a compression unit, as a power of two.
    pub(super) unit: u8,
}

/// An attribute, or one fragment of it.
#[derive(Debug, Clone)]
pub(super) struct Attribute {
    pub(super) kind: u32,
    /// UTF-16LE bytes.
    pub(super) name: Vec<u8>,
    pub(super) flags: u16,
    /// First cluster of this fragment.
    pub(super) first_vcn: u64,
    pub(super) content: Content,
}

impl Attribute {
    pub(super) const COMPRESSED: u16 = 0x00ff;
    pub(super) const ENCRYPTED: u16 = 0x4000;

    pub(super) fn is(&self, kind: u32, name: &[u8]) -> bool {
        self.kind == kind && self.name == name
    }

    pub(super) fn len(&self) -> u64 {
        match &self.content {
            Content::Resident(bytes) => crate::bytes::wide(bytes.len()),
            Content::Clusters(clusters) => clusters.size,
        }
    }
}

/// The header of a FILE record and the attributes in it.
#[derive(Debug, Clone)]
pub(super) struct FileRecord {
    pub(super) sequence: u16,
    pub(super) in_use: bool,
    pub(super) directory: bool,
    /// The record that this one extends; 0 for a base record.
    pub(super) base: u64,
    pub(super) attributes: Vec<Attribute>,
}

/// The part of a file reference that numbers the record.
pub(super) fn record_number(reference: u64) -> u64 {
    reference & 0xffff_ffff_ffff
}

impl FileRecord {
    /// Parses a record whose update sequence was applied. [MS-FSA] names the attributes; their
    /// layout is that of the NTFS documentation of the Linux-NTFS project.
    pub(super) fn parse(position: u64, bytes: &[u8]) -> Result<Self> {
        let r = Record::new("NTFS FILE record", position, bytes);
        let flags = r.u16_le(0x16)?;
        let mut attributes = Vec::new();
        let mut at = usize::from(r.u16_le(0x14)?);
        // Attributes take 16 bytes at least; the record bounds the loop.
        loop {
            let kind = r.u32_le(at)?;
            if kind == kind::END {
                break;
            }
            let len = size(r.u32_le(at.saturating_add(4))?);
            if len < 16 {
                return Err(r.corrupt(at, format!("attribute of {len} bytes")));
            }
            let place = position.saturating_add(crate::bytes::wide(at));
            let raw = Record::new("NTFS attribute", place, r.slice(at, len)?);
            attributes.push(attribute(kind, &raw)?);
            at = at.saturating_add(len);
        }
        Ok(Self {
            sequence: r.u16_le(0x10)?,
            in_use: flags & 1 != 0,
            directory: flags & 2 != 0,
            base: record_number(r.u64_le(0x20)?),
            attributes,
        })
    }
}

fn attribute(kind: u32, r: &Record<'_>) -> Result<Attribute> {
    let name_len = usize::from(r.u8(9)?).saturating_mul(2);
    let name = r.slice(usize::from(r.u16_le(0x0a)?), name_len)?.to_vec();
    let flags = r.u16_le(0x0c)?;
    if r.u8(8)? == 0 {
        let value = r.slice(usize::from(r.u16_le(0x14)?), size(r.u32_le(0x10)?))?;
        return Ok(Attribute {
            kind,
            name,
            flags,
            first_vcn: 0,
            content: Content::Resident(value.to_vec()),
        });
    }
    let first_vcn = r.u64_le(0x10)?;
    let pairs_at = usize::from(r.u16_le(0x20)?);
    let pairs = r.bytes().get(pairs_at..).unwrap_or_default();
    let runs = Runs::decode(&Record::new("NTFS runs", first_vcn, pairs), first_vcn)?;
    // Sizes stand in the first fragment only.
    let length = |at| match r.u64_le(at)? {
        _ if first_vcn > 0 => Ok(0),
        n if n > u64::MAX >> 1 => Err(r.corrupt(at, format!("size {n}"))),
        n => Ok(n),
    };
    Ok(Attribute {
        kind,
        name,
        flags,
        first_vcn,
        content: Content::Clusters(Clusters {
            runs,
            size: length(0x30)?,
            initialized: length(0x38)?,
            unit: r.u8(0x22)?,
        }),
    })
}

/// Joins fragments: the first one of each has the sizes, later ones continue its runs.
pub(super) fn joined(mut fragments: Vec<Attribute>) -> Result<Vec<Attribute>> {
    // Stable: resident attributes of one kind keep their order.
    fragments.sort_by(|a, b| (a.kind, &a.name, a.first_vcn).cmp(&(b.kind, &b.name, b.first_vcn)));
    let mut whole: Vec<Attribute> = Vec::with_capacity(fragments.len());
    for fragment in fragments {
        if fragment.first_vcn == 0 {
            whole.push(fragment);
            continue;
        }
        let (Some(last), Content::Clusters(more)) = (whole.last_mut(), fragment.content) else {
            continue;
        };
        if last.is(fragment.kind, &fragment.name)
            && let Content::Clusters(clusters) = &mut last.content
        {
            clusters.runs.append(more.runs)?;
        }
    }
    Ok(whole)
}
