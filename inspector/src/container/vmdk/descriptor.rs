//! The text descriptor: "Virtual Disk Format 5.0", section "The Descriptor File".

use super::super::FILES_MAX;
use super::super::mapped::{corrupt, unsupported};
use super::DISK_MAX;
use crate::error::Result;

/// Extents at most: each file may be named more than once.
const EXTENTS_MAX: usize = 4 * FILES_MAX;

/// How an extent holds its sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One after the other.
    Flat,
    /// In grains, as a hosted sparse extent.
    Sparse,
    /// In grains, as an ESX copy-on-write file (`COWD`).
    VmfsSparse,
    /// Nowhere.
    Zero,
}

/// A line of the extent description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) sectors: u64,
    pub(super) kind: Kind,
    pub(super) name: Vec<u8>,
    /// Where a flat extent begins in its file, in sectors.
    pub(super) offset: u64,
}

/// A parsed descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Descriptor {
    pub(super) content_id: Option<u32>,
    parent_content_id: u32,
    parent_hint: Option<Vec<u8>>,
    pub(super) create_type: Option<String>,
    pub(super) extents: Vec<Extent>,
}

/// "No parent" as a content identifier.
const NO_PARENT: u32 = u32::MAX;

impl Descriptor {
    /// Parses the text at byte `position` of the file.
    pub(super) fn parse(text: &[u8], position: u64) -> Result<Self> {
        let bad = |problem: String| corrupt("VMDK descriptor", position, problem);
        let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
        let text = text.get(..end).unwrap_or_default();
        let mut found = Self {
            content_id: None,
            parent_content_id: NO_PARENT,
            parent_hint: None,
            create_type: None,
            extents: Vec::new(),
        };
        for line in text.split(|b| matches!(b, b'\n' | b'\r')) {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            if let Some(extent) = extent(line, position)? {
                if found.extents.len() >= EXTENTS_MAX {
                    return Err(bad(format!("more than {EXTENTS_MAX} extents")));
                }
                found.extents.push(extent);
                continue;
            }
            let Some(equals) = line.iter().position(|b| *b == b'=') else {
                continue;
            };
            let (key, value) = line.split_at(equals);
            let key = key.trim_ascii().to_ascii_lowercase();
            let value = unquoted(value.get(1..).unwrap_or_default());
            match key.as_slice() {
                b"cid" => found.content_id = Some(hex(value).ok_or_else(|| bad("CID".into()))?),
                b"parentcid" => {
                    found.parent_content_id = hex(value).ok_or_else(|| bad("parentCID".into()))?;
                }
                b"parentfilenamehint" => found.parent_hint = Some(value.to_vec()),
                b"createtype" => {
                    let kind: String = String::from_utf8_lossy(value).chars().take(64).collect();
                    found.create_type = Some(kind);
                }
                b"encoding" | b"version" => {}
                _ => {}
            }
        }
        if found.extents.is_empty() {
            return Err(bad("no extent is described".into()));
        }
        if found.parent_content_id != NO_PARENT && found.parent_hint.is_none() {
            return Err(bad("a parent without parentFileNameHint".into()));
        }
        Ok(found)
    }

    /// The parent's name and content identifier.
    pub(super) fn parent(&self) -> Option<(&[u8], u32)> {
        let hint = self.parent_hint.as_deref()?;
        (self.parent_content_id != NO_PARENT).then_some((hint, self.parent_content_id))
    }
}

fn hex(value: &[u8]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(value).ok()?, 16).ok()
}

fn unquoted(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    value
        .strip_prefix(b"\"")
        .and_then(|v| v.strip_suffix(b"\""))
        .unwrap_or(value)
}

/// `RW 4192256 SPARSE "disk-s001.vmdk"`: access, sectors, type, name and, for flat ones, offset.
/// `None` for any other line.
fn extent(line: &[u8], position: u64) -> Result<Option<Extent>> {
    let bad = |problem: &str| {
        let shown: String = String::from_utf8_lossy(line).chars().take(80).collect();
        corrupt(
            "VMDK descriptor",
            position,
            format!("{problem}: {}", shown.escape_debug()),
        )
    };
    let mut rest = line;
    let access = word(&mut rest);
    if !matches!(access, b"RW" | b"RDONLY" | b"NOACCESS") {
        return Ok(None);
    }
    if access == b"NOACCESS" {
        return Err(unsupported("VMDK extent that may not be accessed"));
    }
    let sectors = number(word(&mut rest)).ok_or_else(|| bad("extent without a size"))?;
    if sectors > DISK_MAX / super::SECTOR {
        return Err(bad("extent of more than 64 TiB"));
    }
    let kind = match word(&mut rest).to_ascii_uppercase().as_slice() {
        b"FLAT" | b"VMFS" => Kind::Flat,
        b"SPARSE" => Kind::Sparse,
        b"VMFSSPARSE" => Kind::VmfsSparse,
        b"ZERO" => Kind::Zero,
        b"SESPARSE" => return Err(unsupported("VMDK seSparse extent")),
        b"VMFSRDM" => return Err(unsupported("VMDK raw device extent (VMFSRDM)")),
        b"VMFSRAW" => return Err(unsupported("VMDK raw device extent (VMFSRAW)")),
        _ => return Err(bad("unknown type of extent")),
    };
    let rest = rest.trim_ascii();
    if kind == Kind::Zero {
        return Ok(Some(Extent {
            sectors,
            kind,
            name: Vec::new(),
            offset: 0,
        }));
    }
    let (name, after) = rest
        .strip_prefix(b"\"")
        .and_then(|r| {
            let end = r.iter().rposition(|b| *b == b'"')?;
            Some((r.get(..end)?, r.get(end.checked_add(1)?..)?))
        })
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| bad("extent without a file name"))?;
    let offset = match after.trim_ascii() {
        b"" => 0,
        digits => number(digits).ok_or_else(|| bad("extent with a strange offset"))?,
    };
    Ok(Some(Extent {
        sectors,
        kind,
        name: name.to_vec(),
        offset,
    }))
}

fn word<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let line = rest.trim_ascii_start();
    let end = line
        .iter()
        .position(u8::is_ascii_whitespace)
        .unwrap_or(line.len());
    let (head, tail) = line.split_at(end);
    *rest = tail;
    head
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Disk DescriptorFile\r\nversion=1\r\nCID=fffffffe\r\nparentCID=ffffffff\r\n\
        createType=\"custom\"\r\n\r\nRW 100 FLAT \"a b-f001.vmdk\" 7\r\nRW 5 ZERO\r\n\
        RDONLY 63 SPARSE \"x\\\"y.vmdk\"\r\nddb.adapterType = \"ide\"\r\n";

    #[test]
    fn extents_names_and_identifiers() {
        let found = Descriptor::parse(TEXT.as_bytes(), 0).unwrap();
        assert_eq!(found.content_id, Some(0xffff_fffe));
        assert_eq!(found.create_type.as_deref(), Some("custom"));
        assert_eq!(found.parent(), None);
        let rows: Vec<_> = found
            .extents
            .iter()
            .map(|e| (e.sectors, e.kind, e.name.as_slice(), e.offset))
            .collect();
        assert_eq!(
            rows,
            [
                (100, Kind::Flat, b"a b-f001.vmdk".as_slice(), 7),
                (5, Kind::Zero, b"", 0),
                (63, Kind::Sparse, b"x\\\"y.vmdk", 0),
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let refused = |line: &str| {
            let error = Descriptor::parse(line.as_bytes(), 0).unwrap_err();
            error.to_string()
        };
        for (line, expected) in [
            ("RW 5 SESPARSE \"x\"", "unsupported: VMDK seSparse extent"),
            (
                "RW 5 VMFSRDM \"x\"",
                "unsupported: VMDK raw device extent (VMFSRDM)",
            ),
            (
                "NOACCESS 5 FLAT \"x\"",
                "unsupported: VMDK extent that may not be accessed",
            ),
            ("RW x FLAT \"x\"", "extent without a size"),
            ("RW 5 FLAT x", "extent without a file name"),
            ("RW 5 FLOPPY \"x\"", "unknown type"),
            ("RW 5 FLAT \"x\" y", "strange offset"),
            ("RW 99999999999999 ZERO", "64 TiB"),
            ("CID=1", "no extent"),
            ("parentCID=1\nRW 5 ZERO", "parentFileNameHint"),
        ] {
            let found = refused(line);
            assert!(found.contains(expected), "{line}: {found}");
        }
    }
}
