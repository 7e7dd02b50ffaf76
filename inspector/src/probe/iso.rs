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
                return udf(layer).map(Some);
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
        facts.label = Some(completed(label, facts.label.as_deref().unwrap_or_default()));
    }
    Ok(())
}

/// Joliet labels end after 16 characters: where the primary label says the same, its rest is
/// appended. The primary one has `_` for what it cannot write.
fn completed(joliet: String, primary: &str) -> String {
    let mut rest = primary.chars();
    let same = joliet
        .chars()
        .zip(rest.by_ref())
        .all(|(j, p)| j.eq_ignore_ascii_case(&p) || p == '_');
    let tail: String = rest.collect();
    if same && joliet.chars().count() == 16 {
        joliet + &tail
    } else {
        joliet
    }
}

/// UDF (ECMA-167): the anchor at sector 256 leads to the volume descriptors, among them the
/// primary one (tag 1, with the set identifier) and the logical one (tag 6, with the label).
fn udf(layer: &dyn ReadAt) -> Result<FileSystemFacts> {
    let mut facts = FileSystemFacts {
        fs_type: "udf".into(),
        ..FileSystemFacts::default()
    };
    for block in [2048u64, 512, 4096] {
        let at = block.saturating_mul(256);
        let raw = read_upto(layer, at, 32)?;
        let anchor = Record::new("UDF anchor", at, &raw);
        if anchor.u16_le(0).ok() != Some(2) || anchor.u32_le(12).ok() != Some(256) {
            continue;
        }
        let (len, first) = (u64::from(anchor.u32_le(16)?), u64::from(anchor.u32_le(20)?));
        facts.block_size = u32::try_from(block).ok();
        let count = len.checked_div(block).unwrap_or(0).min(DESCRIPTORS_MAX);
        for index in 0..count {
            let at = first.saturating_add(index).saturating_mul(block);
            let raw = read_upto(layer, at, 512)?;
            let r = Record::new("UDF volume descriptor", at, &raw);
            match r.u16_le(0) {
                Ok(1) => facts.uuid = set_identifier(r.slice(72, 128)?),
                Ok(6) => facts.label = Some(dstring(r.slice(84, 128)?)).filter(|l| !l.is_empty()),
                Ok(8) | Err(_) => break,
                Ok(_) => {}
            }
        }
        break;
    }
    Ok(facts)
}

/// The first 16 characters of a set identifier are its unique part when they are hex digits.
fn set_identifier(field: &[u8]) -> Option<String> {
    let unique: String = dstring(field).chars().take(16).collect();
    (unique.len() == 16 && unique.bytes().all(|b| b.is_ascii_hexdigit()))
        .then(|| unique.to_lowercase())
}

/// OSTA CS0: a compression id, characters of 8 or 16 bits, the length in the last byte.
fn dstring(field: &[u8]) -> String {
    let [kind, body @ .., len] = field else {
        return String::new();
    };
    let used = usize::from(*len).saturating_sub(1).min(body.len());
    let body = body.get(..used).unwrap_or_default();
    match kind {
        8 => body.iter().map(|b| char::from(*b)).collect::<String>(),
        16 => text_utf16_be(body),
        _ => String::new(),
    }
}
