//! ISO 9660 and UDF: volume recognition sequence, label, date as identifier.

use crate::bytes::{Record, read_upto, text_utf16_be};
use crate::error::Result;
use crate::fs::FileSystemFacts;
use crate::read_at::ReadAt;

const FIRST: u64 = 32 << 10;
const SECTOR: u64 = 2048;
/// Descriptors looked at.
const DESCRIPTORS_MAX: u64 = 32;

pub(super) fn recognise(layer: &dyn ReadAt) -> Result<Option<FileSystemFacts>> {
    let mut iso: Option<FileSystemFacts> = None;
    for index in 0..DESCRIPTORS_MAX {
        let at = FIRST.saturating_add(index.saturating_mul(SECTOR));
        let raw = read_upto(layer, at, 2048)?;
        let r = Record::new("volume descriptor", at, &raw);
        match r.slice(1, 5) {
            Ok(b"CD001") => match (r.u8(0)?, &mut iso) {
                (1, none @ None) => *none = Some(primary(&r)?),
                (2, Some(facts)) => joliet(&r, facts)?,
                _ => {}
            },
            Ok(b"NSR02" | b"NSR03") => {
                return Ok(Some(FileSystemFacts {
                    fs_type: "udf".into(),
                    ..FileSystemFacts::default()
                }));
            }
            Ok(b"BEA01" | b"TEA01" | b"BOOT2" | b"CDW02") => {}
            _ => break,
        }
    }
    Ok(iso)
}

fn primary(r: &Record<'_>) -> Result<FileSystemFacts> {
    let blocks = u64::from(r.u32_le(80)?);
    let block = u32::from(r.u16_le(128)?);
    Ok(FileSystemFacts {
        fs_type: "iso9660".into(),
        // The modification date, else the creation date.
        uuid: date(r.slice(830, 17)?).or(date(r.slice(813, 17)?)),
        label: crate::bytes::label(r.slice(40, 32)?),
        size_bytes: Some(blocks.saturating_mul(u64::from(block))),
        block_size: Some(block),
        ..FileSystemFacts::default()
    })
}

/// `YYYYMMDDhhmmsscc` as `YYYY-MM-DD-hh-mm-ss-cc`.
fn date(raw: &[u8]) -> Option<String> {
    let digits = std::str::from_utf8(raw.get(..16)?).ok()?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) || digits.bytes().all(|b| b == b'0') {
        return None;
    }
    let (year, mut rest) = digits.split_at_checked(4)?;
    let mut parts = vec![year];
    while let Some((part, after)) = rest.split_at_checked(2).filter(|(p, _)| !p.is_empty()) {
        parts.push(part);
        rest = after;
    }
    Some(parts.join("-"))
}

/// A Joliet descriptor (escape sequence in the field at 88) repeats the label in UTF-16, with
/// lower case and beyond ASCII.
fn joliet(r: &Record<'_>, facts: &mut FileSystemFacts) -> Result<()> {
    if !matches!(r.slice(88, 3)?, b"%/@" | b"%/C" | b"%/E") {
        return Ok(());
    }
    let label = text_utf16_be(r.slice(40, 32)?);
    if !label.is_empty() {
        facts.label = Some(label);
    }
    Ok(())
}
