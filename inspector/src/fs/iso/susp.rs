//! System Use entries: SUSP (IEEE P1281) and Rock Ridge (IEEE P1282).

use crate::bytes::{Record, size};
use crate::error::Result;
use crate::read_at::ReadAt;

/// Continuations followed for one record, and bytes of all of them.
const CONTINUATIONS_MAX: usize = 64;
const BYTES_MAX: usize = 64 << 10;

/// What Rock Ridge says of a file.
#[derive(Debug, Clone, Default)]
pub(super) struct RockRidge {
    pub(super) name: Option<Vec<u8>>,
    /// Mode, links, owner, group.
    pub(super) posix: Option<(u32, u32, u32, u32)>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) mtime: Option<i64>,
    /// Block of the directory that was moved away because it lay too deep.
    pub(super) child: Option<u64>,
    /// The entry of such a directory where it was moved to.
    pub(super) moved: bool,
    pub(super) zisofs: Option<Zisofs>,
    /// Whether there was any Rock Ridge entry.
    pub(super) any: bool,
}

/// A file compressed by zisofs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Zisofs {
    /// Length once decompressed.
    pub(super) size: u64,
    /// Bytes of the header, then of a block as a power of two.
    pub(super) header: u64,
    pub(super) block_log: u32,
}

/// The indicator in the root's first record: how many bytes of System Use belong to others.
pub(super) fn indicator(system_use: &[u8]) -> Option<usize> {
    match system_use {
        [b'S', b'P', 7, 1, 0xbe, 0xef, skip, ..] => Some(usize::from(*skip)),
        _ => None,
    }
}

/// Reads the entries of a record and their continuations.
pub(super) fn read(device: &dyn ReadAt, block_size: u64, system_use: &[u8]) -> Result<RockRidge> {
    let mut found = RockRidge::default();
    let mut link = Link::default();
    let mut area = system_use.to_vec();
    let mut total = 0usize;
    for _ in 0..CONTINUATIONS_MAX {
        let Some((block, offset, len)) = entries(&area, &mut found, &mut link)? else {
            break;
        };
        total = total.saturating_add(len);
        if total > BYTES_MAX {
            break;
        }
        let position = block.saturating_mul(block_size).saturating_add(offset);
        area = crate::bytes::read_upto(device, position, len)?;
    }
    found.link = link.finish();
    Ok(found)
}

/// Takes the entries of one area; answers block, offset and length of the next one.
fn entries(
    area: &[u8],
    found: &mut RockRidge,
    link: &mut Link,
) -> Result<Option<(u64, u64, usize)>> {
    let r = Record::new("System Use entry", 0, area);
    let mut at = 0usize;
    let mut next = None;
    // Entries take four bytes at least; the area bounds the loop.
    while let (Ok(signature), Ok(len)) = (r.slice(at, 2), r.u8(at.saturating_add(2))) {
        let len = usize::from(len);
        let Some(body) = area.get(at..at.saturating_add(len)).filter(|_| len >= 4) else {
            break;
        };
        let e = Record::new("System Use entry", 0, body);
        match signature {
            b"CE" => {
                let (block, offset) = (e.u32_le(4)?, e.u32_le(12)?);
                next = Some((u64::from(block), u64::from(offset), size(e.u32_le(20)?)));
            }
            b"ST" => break,
            b"NM" => {
                found.any = true;
                // 2 and 4 stand for `.` and `..`.
                if e.u8(4)? & 6 == 0 {
                    let piece = body.get(5..).unwrap_or_default();
                    found.name.get_or_insert_default().extend(piece);
                }
            }
            b"PX" => {
                found.any = true;
                found.posix = Some((e.u32_le(4)?, e.u32_le(12)?, e.u32_le(20)?, e.u32_le(28)?));
            }
            b"SL" => {
                found.any = true;
                link.add(body.get(5..).unwrap_or_default());
            }
            b"TF" => found.mtime = found.mtime.or(modified(&e)?),
            b"CL" => found.child = Some(u64::from(e.u32_le(4)?)),
            b"RE" => found.moved = true,
            b"ZF" if e.slice(4, 2)? == b"pz" => {
                found.zisofs = Some(Zisofs {
                    header: u64::from(e.u8(6)?).saturating_mul(4),
                    block_log: u32::from(e.u8(7)?),
                    size: u64::from(e.u32_le(8)?),
                });
            }
            _ => {}
        }
        at = at.saturating_add(len);
    }
    Ok(next)
}

/// The time of the last change among the times of `TF`: the creation may stand before it.
fn modified(e: &Record<'_>) -> Result<Option<i64>> {
    let flags = e.u8(4)?;
    // The long form is text of 17 digits; nobody writes it.
    if flags & 0x82 != 2 {
        return Ok(None);
    }
    let at = if flags & 1 != 0 { 12 } else { 5 };
    Ok(Some(super::record::date(e.slice(at, 7)?)))
}

/// The target of a symbolic link, component by component.
#[derive(Default)]
struct Link {
    target: Option<Vec<u8>>,
    /// The component before goes on in the next one.
    goes_on: bool,
}

impl Link {
    fn add(&mut self, mut components: &[u8]) {
        let target = self.target.get_or_insert_default();
        while let [flags, len, rest @ ..] = components {
            let len = usize::from(*len).min(rest.len());
            let (content, after) = rest.split_at(len);
            let separate = !self.goes_on && !target.is_empty() && target.last() != Some(&b'/');
            if separate {
                target.push(b'/');
            }
            match flags & 0x0e {
                2 => target.extend(b"."),
                4 => target.extend(b".."),
                // The root; genisoimage writes it for two slashes in a row as well.
                8 if target.last() == Some(&b'/') => {}
                8 => target.push(b'/'),
                _ => target.extend(content),
            }
            self.goes_on = flags & 1 != 0;
            components = after;
        }
    }

    fn finish(self) -> Option<Vec<u8>> {
        self.target
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Memory;

    #[test]
    fn names_and_links_go_on_in_continuations() {
        let mut device = vec![0u8; 64];
        let more = b"NM\x07\x01\0de";
        device[40..47].copy_from_slice(more);
        device[47..57].copy_from_slice(b"SL\x0a\x01\0\0\x03bar");
        let mut area = b"NM\x08\x01\x01abc".to_vec();
        area.extend(b"SL\x0f\x01\x01\x08\0\x04\0\x01\x04fooo");
        area.extend(b"CE\x1c\x01");
        for field in [2u32, 8, 17] {
            area.extend(field.to_le_bytes());
            area.extend(field.to_be_bytes());
        }
        let found = read(&Memory(device), 16, &area).unwrap();
        assert_eq!(found.name.unwrap(), b"abcde");
        assert_eq!(found.link.unwrap(), b"/../fooobar");
    }
}
