//! The metadata region (MS-VHDX 2.6): what kind of disk it is, and where its parent is.

use super::super::mapped::{corrupt, read_whole, unsupported};
use crate::bytes::{Record, guid, narrow, size, text_utf16_le};
use crate::error::Result;
use crate::read_at::ReadAt;

/// 2.6.1.1: "EntryCount … must be less than or equal to 2,047".
const ENTRIES_MAX: u16 = 2047;
/// 2.6.2.6: key-value entries of a locator; five keys are defined.
const LOCATOR_ENTRIES_MAX: u16 = 64;
/// "The value of Length MUST be less than or equal to 1 MiB"; a locator of four paths takes less.
const LOCATOR_MAX: u32 = 256 << 10;
/// 2.6.2.2: 64 TiB.
const DISK_MAX: u64 = 64 << 40;

/// CAA16737-FA36-4D43-B3B6-33F0AA44E76B
const FILE_PARAMETERS: [u8; 16] =
    *b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
/// 2FA54224-CD1B-4876-B211-5DBED83BF4B8
const VIRTUAL_DISK_SIZE: [u8; 16] =
    *b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
/// 8141BF1D-A96F-4709-BA47-F233A8FAAB5F
const LOGICAL_SECTOR_SIZE: [u8; 16] =
    *b"\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f";
/// CDA348C7-445D-4471-9CC9-E9885251C556
const PHYSICAL_SECTOR_SIZE: [u8; 16] =
    *b"\xc7\x48\xa3\xcd\x5d\x44\x71\x44\x9c\xc9\xe9\x88\x52\x51\xc5\x56";
/// BECA12AB-B2E6-4523-93EF-C309E000C746
const VIRTUAL_DISK_ID: [u8; 16] =
    *b"\xab\x12\xca\xbe\xe6\xb2\x23\x45\x93\xef\xc3\x09\xe0\x00\xc7\x46";
/// A8D35F2D-B30B-454D-ABF7-D3D84834AB0C
const PARENT_LOCATOR: [u8; 16] =
    *b"\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c";
/// B04AEFB7-D19E-4A81-B789-25B8E9445913: a locator whose parent is a VHDX.
const VHDX_LOCATOR: [u8; 16] = *b"\xb7\xef\x4a\xb0\x9e\xd1\x81\x4a\xb7\x89\x25\xb8\xe9\x44\x59\x13";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) block_size: u64,
    pub(super) fixed: bool,
    pub(super) has_parent: bool,
    pub(super) virtual_size: u64,
    pub(super) sector_size: u64,
    pub(super) locator: Option<Locator>,
}

/// Where the parent was, and what it was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Locator {
    /// Data write identifiers that the parent may have.
    pub(super) linkage: Vec<[u8; 16]>,
    pub(super) relative: Option<String>,
    pub(super) absolute: Vec<String>,
}

impl Metadata {
    /// Reads the region of `len` bytes at `region`.
    pub(super) fn read(layer: &dyn ReadAt, region: u64, len: u64) -> Result<Self> {
        // The table is the first 64 KiB of the region.
        let mut bytes = vec![0; 64 << 10];
        read_whole(layer, "VHDX metadata table", region, &mut bytes)?;
        let r = Record::new("VHDX metadata table", region, &bytes);
        if !bytes.starts_with(b"metadata") {
            return Err(r.corrupt(0, "no signature"));
        }
        let count = r.u16_le(10)?;
        if count > ENTRIES_MAX {
            return Err(r.corrupt(10, format!("{count} entries")));
        }
        let (mut parameters, mut disk_size, mut sector_size, mut locator) =
            (None, None, None, None);
        for index in 0..usize::from(count) {
            let at = index.saturating_mul(32).saturating_add(32);
            let id: [u8; 16] = r.array(at)?;
            let offset = r.u32_le(at.saturating_add(16))?;
            let item_len = r.u32_le(at.saturating_add(20))?;
            let flags = r.u32_le(at.saturating_add(24))?;
            let item = Item {
                layer,
                position: region.saturating_add(u64::from(offset)),
                len: item_len,
                fits: u64::from(offset).saturating_add(u64::from(item_len)) <= len,
            };
            match id {
                FILE_PARAMETERS => {
                    let bytes = item.read(8)?;
                    let r = Record::new("VHDX file parameters", item.position, &bytes);
                    parameters = Some((r.u32_le(0)?, r.u32_le(4)?));
                }
                VIRTUAL_DISK_SIZE => {
                    let bytes = item.read(8)?;
                    disk_size = Some(Record::new("", 0, &bytes).u64_le(0)?);
                }
                LOGICAL_SECTOR_SIZE => {
                    let bytes = item.read(4)?;
                    sector_size = Some(Record::new("", 0, &bytes).u32_le(0)?);
                }
                PARENT_LOCATOR => {
                    if item_len > LOCATOR_MAX {
                        return Err(r.corrupt(at, format!("a locator of {item_len} bytes")));
                    }
                    locator = Some((item.position, item.read(item_len)?));
                }
                PHYSICAL_SECTOR_SIZE | VIRTUAL_DISK_ID => {}
                // IsRequired: who does not know the item must not read the file.
                _ if flags & 4 != 0 => {
                    return Err(unsupported(format!("VHDX metadata item {}", guid(&id))));
                }
                _ => {}
            }
        }
        let (Some((block_size, flags)), Some(virtual_size), Some(sector_size)) =
            (parameters, disk_size, sector_size)
        else {
            return Err(r.corrupt(10, "a required item is missing"));
        };
        if !block_size.is_power_of_two() || !(1 << 20..=256 << 20).contains(&block_size) {
            return Err(r.corrupt(0, format!("block size {block_size}")));
        }
        if !matches!(sector_size, 512 | 4096) {
            return Err(r.corrupt(0, format!("logical sectors of {sector_size} bytes")));
        }
        if virtual_size == 0
            || virtual_size > DISK_MAX
            || !virtual_size.is_multiple_of(u64::from(sector_size))
        {
            return Err(r.corrupt(0, format!("a disk of {virtual_size} bytes")));
        }
        let has_parent = flags & 2 != 0;
        let locator = match (has_parent, locator) {
            (true, Some((at, bytes))) => Some(Locator::parse(at, &bytes)?),
            (true, None) => return Err(r.corrupt(10, "a parent, but no parent locator")),
            (false, _) => None,
        };
        Ok(Self {
            block_size: u64::from(block_size),
            fixed: flags & 1 != 0,
            has_parent,
            virtual_size,
            sector_size: u64::from(sector_size),
            locator,
        })
    }
}

struct Item<'a> {
    layer: &'a dyn ReadAt,
    position: u64,
    len: u32,
    fits: bool,
}

impl Item<'_> {
    fn read(&self, wanted: u32) -> Result<Vec<u8>> {
        if self.len < wanted || !self.fits {
            let problem = format!("an item of {} bytes", self.len);
            return Err(corrupt("VHDX metadata item", self.position, problem));
        }
        let mut bytes = vec![0; size(wanted)];
        read_whole(self.layer, "VHDX metadata item", self.position, &mut bytes)?;
        Ok(bytes)
    }
}

impl Locator {
    fn parse(position: u64, bytes: &[u8]) -> Result<Self> {
        let r = Record::new("VHDX parent locator", position, bytes);
        let kind: [u8; 16] = r.array(0)?;
        if kind != VHDX_LOCATOR {
            return Err(unsupported(format!("VHDX parent locator {}", guid(&kind))));
        }
        let count = r.u16_le(18)?;
        if count > LOCATOR_ENTRIES_MAX {
            return Err(r.corrupt(18, format!("{count} entries")));
        }
        let mut found = Self::default();
        for index in 0..usize::from(count) {
            let at = index.saturating_mul(12).saturating_add(20);
            let part = |offset: u32, len: u16| r.slice(size(offset), usize::from(len));
            let key = part(r.u32_le(at)?, r.u16_le(at.saturating_add(8))?)?;
            let value = part(
                r.u32_le(at.saturating_add(4))?,
                r.u16_le(at.saturating_add(10))?,
            )?;
            let value = text_utf16_le(value);
            match text_utf16_le(key).as_str() {
                "parent_linkage" | "parent_linkage2" => found.linkage.extend(parse_guid(&value)),
                "relative_path" => found.relative = Some(value),
                "absolute_win32_path" | "volume_path" => found.absolute.push(value),
                _ => {}
            }
        }
        if found.linkage.is_empty() {
            return Err(r.corrupt(18, "no parent_linkage"));
        }
        if found.relative.is_none() && found.absolute.is_empty() {
            return Err(r.corrupt(18, "no path of the parent"));
        }
        Ok(found)
    }
}

/// `{83ed84b2-…}` to the bytes as they are stored in a header.
fn parse_guid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&digits, 16).ok()?;
    if digits.len() != 32 {
        return None;
    }
    let [a0, a1, a2, a3, b0, b1, c0, c1, rest @ ..] = number.to_be_bytes();
    let mut out = [0; 16];
    let (head, tail) = out.split_at_mut(narrow(8));
    head.copy_from_slice(&[a3, a2, a1, a0, b1, b0, c1, c0]);
    tail.copy_from_slice(&rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_in_text_are_those_in_headers() {
        let text = "{2DC27766-F623-4200-9D64-115E9BFD4A08}";
        let bytes = parse_guid(text).unwrap();
        assert_eq!(bytes, super::super::BAT);
        assert_eq!(format!("{{{}}}", guid(&bytes)), text);
        assert_eq!(parse_guid("{2DC27766}"), None);
    }
}
