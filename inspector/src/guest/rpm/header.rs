//! The header blob of a package: an index of 16-byte entries and a store of values, big-endian
//! (RPM package format V4/V6, "Header"; in the database without the eight bytes of magic).

use crate::bytes::{Record, size};
use crate::error::Result;

/// Entries of a header: rpm's own limit (`HEADER_TAGS_MAX`).
const ENTRIES_MAX: u32 = 65_535;
/// Longest string value that is taken. A licence or a vendor has some hundred bytes.
const STRING_MAX: usize = 4_096;

/// Tags that are read (rpmtag.h).
const NAME: u32 = 1_000;
const VERSION: u32 = 1_001;
const RELEASE: u32 = 1_002;
const EPOCH: u32 = 1_003;
const INSTALL_TIME: u32 = 1_008;
const SIZE: u32 = 1_009;
const VENDOR: u32 = 1_011;
const LICENSE: u32 = 1_014;
const ARCH: u32 = 1_022;
const SOURCE_RPM: u32 = 1_044;
const LONG_SIZE: u32 = 5_009;
const MODULARITY_LABEL: u32 = 5_096;

/// Types of values.
const INT32: u32 = 4;
const INT64: u32 = 5;
const STRING: u32 = 6;
const STRING_ARRAY: u32 = 8;
const I18N_STRING: u32 = 9;

/// What of a header is reported. An absent value is not in the header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    pub(super) release: Option<String>,
    pub(super) epoch: Option<u32>,
    pub(super) install_time: Option<u32>,
    pub(super) size: Option<u64>,
    pub(super) vendor: Option<String>,
    pub(super) license: Option<String>,
    pub(super) arch: Option<String>,
    pub(super) source_rpm: Option<String>,
    pub(super) modularity: Option<String>,
}

/// Reads a header blob.
///
/// # Errors
/// `Corrupt` for an index or a value that passes the end.
pub(super) fn parse(blob: &[u8]) -> Result<Header> {
    let record = Record::new("rpm header", 0, blob);
    let entries = record.u32_be(0)?;
    let store_len = record.u32_be(4)?;
    if entries == 0 || entries > ENTRIES_MAX {
        return Err(record.corrupt(0, format!("{entries} entries")));
    }
    let index_len = size(entries).saturating_mul(16);
    let index = Record::new("rpm header index", 8, record.slice(8, index_len)?);
    let store_at = index_len.saturating_add(8);
    let store = Record::new(
        "rpm header store",
        0,
        record.slice(store_at, size(store_len))?,
    );
    let mut header = Header::default();
    for n in 0..size(entries) {
        let at = n.saturating_mul(16);
        let tag = index.u32_be(at)?;
        let kind = index.u32_be(at.saturating_add(4))?;
        let offset = size(index.u32_be(at.saturating_add(8))?);
        let count = index.u32_be(at.saturating_add(12))?;
        let text = || text(&store, kind, offset);
        match tag {
            NAME => set(&mut header.name, text()?),
            VERSION => set(&mut header.version, text()?),
            RELEASE => set(&mut header.release, text()?),
            VENDOR => set(&mut header.vendor, text()?),
            LICENSE => set(&mut header.license, text()?),
            ARCH => set(&mut header.arch, text()?),
            SOURCE_RPM => set(&mut header.source_rpm, text()?),
            MODULARITY_LABEL => set(&mut header.modularity, text()?),
            EPOCH if kind == INT32 && count > 0 => header.epoch = Some(store.u32_be(offset)?),
            INSTALL_TIME if kind == INT32 && count > 0 => {
                header.install_time = Some(store.u32_be(offset)?);
            }
            SIZE if kind == INT32 && count > 0 => {
                let bytes = u64::from(store.u32_be(offset)?);
                header.size.get_or_insert(bytes);
            }
            LONG_SIZE if kind == INT64 && count > 0 => header.size = Some(store.u64_be(offset)?),
            _ => {}
        }
    }
    Ok(header)
}

/// The first value of a tag counts.
fn set(field: &mut Option<String>, value: Option<String>) {
    if field.is_none() {
        *field = value;
    }
}

/// A string, or the first of several.
fn text(store: &Record<'_>, kind: u32, offset: usize) -> Result<Option<String>> {
    if !matches!(kind, STRING | STRING_ARRAY | I18N_STRING) {
        return Ok(None);
    }
    let rest = store
        .bytes()
        .get(offset..)
        .ok_or_else(|| store.corrupt(offset, "a value passes the end"))?;
    let end = rest
        .iter()
        .position(|byte| *byte == 0)
        .ok_or_else(|| store.corrupt(offset, "a string without end"))?;
    let value = rest.get(..end.min(STRING_MAX)).unwrap_or_default();
    Ok(Some(super::super::clean(&crate::bytes::text(value))))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A blob of string and number values.
    pub(in super::super) fn blob(texts: &[(u32, &str)], numbers: &[(u32, u32)]) -> Vec<u8> {
        let mut index = Vec::new();
        let mut store = Vec::new();
        let mut entry = |tag: u32, kind: u32, store: &mut Vec<u8>, value: &[u8]| {
            while kind == INT32 && !store.len().is_multiple_of(4) {
                store.push(0);
            }
            for field in [tag, kind, store.len() as u32, 1] {
                index.extend(field.to_be_bytes());
            }
            store.extend(value);
        };
        for (tag, value) in texts {
            entry(*tag, STRING, &mut store, format!("{value}\0").as_bytes());
        }
        for (tag, value) in numbers {
            entry(*tag, INT32, &mut store, &value.to_be_bytes());
        }
        let mut out = Vec::new();
        out.extend(((index.len() / 16) as u32).to_be_bytes());
        out.extend((store.len() as u32).to_be_bytes());
        out.extend(index);
        out.extend(store);
        out
    }

    #[test]
    fn values_are_found_and_bounds_are_kept() {
        let whole = blob(
            &[(NAME, "bash"), (VERSION, "5"), (ARCH, "noarch")],
            &[(EPOCH, 2)],
        );
        let header = parse(&whole).unwrap();
        assert_eq!(header.name.as_deref(), Some("bash"));
        assert_eq!(header.epoch, Some(2));
        assert_eq!(header.release, None);
        for len in 0..whole.len() {
            assert!(parse(&whole[..len]).is_err(), "cut at {len}");
        }
        let mut endless = whole;
        endless[3] = 0xff;
        endless[0] = 0xff;
        assert!(parse(&endless).is_err());
    }
}
