//! VHD (qemu's `vpc`): fixed, dynamic and differencing, from Microsoft's "Virtual Hard Disk Image
//! Format Specification" 1.0 (2006). All fields are big-endian.

use super::mapped::{Mapped, Mapping, Place, corrupt, read_whole, unsupported};
use super::tree::{Expected, Reference, Role, last_part, relative_to_here};
use super::{Container, ContainerFacts, Parent};
use crate::bytes::{Record, narrow, read_vec, text_utf16_be, text_utf16_le, uuid, wide};
use crate::error::Result;
use crate::layer::Window;
use crate::read_at::{Layer, ReadAt};
use std::sync::Arc;

const SECTOR: u64 = 512;
/// The largest geometry; at it, or beyond, only "current size" tells (65535 × 16 × 255 sectors).
const GEOMETRY_MAX: u64 = 65_535 * 16 * 255;
/// Creators that round the geometry and mean "current size": Hyper-V, qemu's `force_size`,
/// disk2vhd, XenServer's tap driver, Citrix. All others mean the geometry.
const BY_SIZE: [&[u8; 4]; 5] = [b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS"];
/// Blocks are 2 MiB by default; the specification sets no upper bound, tools stay below 256 MiB.
const BLOCK_MAX: u32 = 256 << 20;
/// 2040 GiB, the format's limit, in blocks of the smallest size that is accepted (4 KiB).
const ENTRIES_MAX: u32 = 2040 << 18;
/// Bytes of a parent locator at most: a path of 32 Ki UTF-16 units.
const LOCATOR_MAX: u32 = 64 << 10;
/// Bytes of a sector bitmap looked at in one go.
const BITMAP_PIECE: u64 = 512;

/// Whether the one's complement of the sum of all bytes, without the checksum at `offset`, is that
/// checksum.
pub(super) fn checksum_holds(bytes: &[u8], offset: usize) -> bool {
    let Ok(stored) = Record::new("VHD structure", 0, bytes).u32_be(offset) else {
        return false;
    };
    let sum = bytes
        .iter()
        .enumerate()
        .filter(|(i, _)| !(offset..offset.saturating_add(4)).contains(i))
        .fold(0u32, |sum, (_, b)| sum.wrapping_add(u32::from(*b)));
    stored == !sum
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fixed,
    Dynamic,
    Differencing,
}

/// Footer and, but for fixed disks, dynamic disk header.
#[derive(Debug, Clone)]
pub(super) struct Header {
    kind: Kind,
    virtual_size: u64,
    time_stamp: u32,
    id: [u8; 16],
    saved_state: bool,
    table: Option<Table>,
    parent: Option<ParentLink>,
    warnings: Vec<String>,
}

/// Where the block allocation table lies.
#[derive(Debug, Clone, Copy)]
struct Table {
    offset: u64,
    entries: u32,
    block_size: u64,
}

#[derive(Debug, Clone)]
struct ParentLink {
    id: [u8; 16],
    time_stamp: u32,
    names: Vec<Vec<u8>>,
}

impl Header {
    /// Reads the footer at the end or, if that one is damaged, its copy at the start.
    pub(super) fn read(layer: &dyn ReadAt) -> Result<Self> {
        let tail_at = layer.len().saturating_sub(SECTOR);
        let mut found = None;
        for at in [tail_at, 0] {
            let bytes = read_vec(layer, at, narrow(SECTOR))?;
            if bytes.starts_with(b"conectix") && checksum_holds(&bytes, 0x40) {
                found = Some((at, bytes));
                break;
            }
        }
        let Some((at, bytes)) = found else {
            return Err(corrupt(
                "VHD footer",
                tail_at,
                "neither footer nor its copy has a valid checksum",
            ));
        };
        let r = Record::new("VHD footer", at, &bytes);
        let version = r.u32_be(0x0c)?;
        if version >> 16 != 1 {
            return Err(unsupported(format!("VHD version {:#010x}", version)));
        }
        let kind = match r.u32_be(0x3c)? {
            2 => Kind::Fixed,
            3 => Kind::Dynamic,
            4 => Kind::Differencing,
            other => return Err(unsupported(format!("VHD disk type {other}"))),
        };
        let mut header = Self {
            kind,
            virtual_size: virtual_size(&r)?,
            time_stamp: r.u32_be(0x18)?,
            id: r.array(0x44)?,
            saved_state: r.u8(0x54)? != 0,
            table: None,
            parent: None,
            warnings: Vec::new(),
        };
        if at == 0 && kind != Kind::Fixed {
            header
                .warnings
                .push("the footer at the end is damaged; its copy was used".into());
        }
        match kind {
            Kind::Fixed => {
                let there = tail_at;
                if header.virtual_size > there {
                    let problem = format!("a disk of {} bytes in {there}", header.virtual_size);
                    return Err(r.corrupt(0x30, problem));
                }
            }
            _ => header.dynamic(layer, r.u64_be(0x10)?)?,
        }
        Ok(header)
    }

    /// The dynamic disk header, of 1024 bytes.
    fn dynamic(&mut self, layer: &dyn ReadAt, at: u64) -> Result<()> {
        let mut bytes = vec![0; 1024];
        read_whole(layer, "VHD dynamic disk header", at, &mut bytes)?;
        let r = Record::new("VHD dynamic disk header", at, &bytes);
        if !bytes.starts_with(b"cxsparse") {
            return Err(r.corrupt(0, "no cxsparse cookie"));
        }
        if !checksum_holds(&bytes, 0x24) {
            return Err(r.corrupt(0x24, "the checksum does not match"));
        }
        let block_size = r.u32_be(0x20)?;
        if !block_size.is_power_of_two() || !(4096..=BLOCK_MAX).contains(&block_size) {
            return Err(r.corrupt(0x20, format!("block size {block_size}")));
        }
        let entries = r.u32_be(0x1c)?;
        if entries > ENTRIES_MAX {
            return Err(r.corrupt(0x1c, format!("{entries} table entries")));
        }
        let table = Table {
            offset: r.u64_be(0x10)?,
            entries,
            block_size: u64::from(block_size),
        };
        let table_end = u64::from(entries)
            .saturating_mul(4)
            .saturating_add(table.offset);
        if table_end > layer.len() {
            return Err(r.corrupt(
                0x10,
                "the block allocation table passes the end of the file",
            ));
        }
        let covered = u64::from(entries).saturating_mul(table.block_size);
        if covered < self.virtual_size {
            let problem = format!(
                "{entries} entries cover {covered} of {} bytes",
                self.virtual_size
            );
            return Err(r.corrupt(0x1c, problem));
        }
        self.table = Some(table);
        if self.kind == Kind::Differencing {
            self.parent = Some(ParentLink {
                id: r.array(0x28)?,
                time_stamp: r.u32_be(0x38)?,
                names: parent_names(layer, &r)?,
            });
        }
        Ok(())
    }

    /// The parent's names, if there is a parent.
    pub(super) fn parent(&self) -> Option<Reference> {
        let parent = self.parent.as_ref()?;
        Some(Reference {
            role: Role::Backing,
            names: parent.names.clone(),
            expected: Expected::Image(Some("vpc".into())),
        })
    }

    /// Unique identifier and time stamp.
    pub(super) fn identity(&self) -> ([u8; 16], u32) {
        (self.id, self.time_stamp)
    }

    /// The virtual disk.
    pub(super) fn open(mut self, file: Layer, parent: Option<&Parent>) -> Result<Container> {
        if let (Some(link), Some(parent)) = (&self.parent, parent) {
            let (id, time_stamp) = parent.identity.vhd.unwrap_or_default();
            if id != link.id {
                let problem = format!(
                    "the parent's identifier is {}, expected {}",
                    uuid(&id).unwrap_or_default(),
                    uuid(&link.id).unwrap_or_default()
                );
                return Err(corrupt("VHD parent", 0, problem));
            }
            // The parent's time of modification, which most tools leave out or let copying change.
            if link.time_stamp != 0 && link.time_stamp != time_stamp {
                self.warnings
                    .push("the parent's time stamp is another one than when it was named".into());
            }
        }
        let facts = ContainerFacts {
            format: "vpc".into(),
            variant: Some(
                match self.kind {
                    Kind::Fixed => "fixed",
                    Kind::Dynamic => "dynamic",
                    Kind::Differencing => "differencing",
                }
                .into(),
            ),
            version: Some(1),
            virtual_size: self.virtual_size,
            cluster_size: self.table.map(|t| t.block_size),
            compressed: Some(false),
            features: self
                .saved_state
                .then(|| "saved state".into())
                .into_iter()
                .collect(),
            warnings: self.warnings,
            ..ContainerFacts::default()
        };
        let disk: Layer = match self.table {
            None => Arc::new(Window::new(file, 0, self.virtual_size)),
            Some(table) => {
                let map = Map {
                    file,
                    table,
                    virtual_size: self.virtual_size,
                    differencing: self.kind == Kind::Differencing,
                };
                Arc::new(Mapped::new(
                    map,
                    parent.map(|p| Arc::clone(&p.container.disk)),
                ))
            }
        };
        Ok(Container { facts, disk })
    }
}

/// The size that the creator means: by geometry, or "current size".
fn virtual_size(footer: &Record<'_>) -> Result<u64> {
    let cylinders = u64::from(footer.u16_be(0x38)?);
    let heads = u64::from(footer.u8(0x3a)?);
    let per_track = u64::from(footer.u8(0x3b)?);
    let geometry = cylinders.saturating_mul(heads).saturating_mul(per_track);
    let current = footer.u64_be(0x30)?;
    let creator: [u8; 4] = footer.array(0x1c)?;
    let size = if BY_SIZE.contains(&&creator) || geometry >= GEOMETRY_MAX || geometry == 0 {
        current & !(SECTOR - 1)
    } else {
        geometry.saturating_mul(SECTOR)
    };
    // 2040 GiB, rounded up to what Hyper-V allows for a VHD.
    if size == 0 || size > 2048 << 30 {
        return Err(footer.corrupt(0x30, format!("a disk of {size} bytes")));
    }
    Ok(size)
}

/// Names of the parent, best first: the relative path, then the last part of every path in the
/// same directory. A path that begins with a slash is kept for policy to judge.
fn parent_names(layer: &dyn ReadAt, header: &Record<'_>) -> Result<Vec<Vec<u8>>> {
    let mut relative = Vec::new();
    let mut beside = Vec::new();
    let mut keep = |name: String, as_path: bool| {
        match relative_to_here(&name) {
            Some(path) if as_path || path.starts_with('/') => relative.push(path),
            _ => {}
        }
        beside.push(last_part(&name).to_owned());
    };
    for slot in 0..8usize {
        let at = slot.saturating_mul(24).saturating_add(0x240);
        let code: [u8; 4] = header.array(at)?;
        let len = header.u32_be(at.saturating_add(8))?;
        let offset = header.u64_be(at.saturating_add(16))?;
        if len == 0 || !matches!(&code, b"W2ru" | b"W2ku") {
            continue;
        }
        if len > LOCATOR_MAX {
            return Err(header.corrupt(at, format!("a parent locator of {len} bytes")));
        }
        let mut bytes = vec![0; narrow(u64::from(len))];
        read_whole(layer, "VHD parent locator", offset, &mut bytes)?;
        keep(text_utf16_le(&bytes), &code == b"W2ru");
    }
    keep(text_utf16_be(header.slice(0x40, 512)?), false);
    let mut names: Vec<Vec<u8>> = Vec::new();
    for name in relative.into_iter().chain(beside) {
        let name = name.into_bytes();
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Err(header.corrupt(0x240, "a differencing disk without the name of its parent"));
    }
    Ok(names)
}

/// The block allocation table: the sector of each block, all ones where there is none. A block is
/// a sector bitmap, rounded up to sectors, and the data.
struct Map {
    file: Layer,
    table: Table,
    virtual_size: u64,
    differencing: bool,
}

impl Map {
    fn absent(&self) -> Place {
        if self.differencing {
            Place::Parent
        } else {
            Place::Zero
        }
    }

    /// In a differencing disk the bitmap, most significant bit first, says which sectors are here.
    fn sectors(&self, block_at: u64, data_at: u64, within: u64) -> Result<(Place, u64)> {
        let sector = within / SECTOR;
        let byte = sector / 8;
        let bitmap_len = data_at.saturating_sub(block_at);
        let len = BITMAP_PIECE.min(bitmap_len.saturating_sub(byte));
        let mut bitmap = vec![0; narrow(len)];
        let at = block_at.saturating_add(byte);
        read_whole(self.file.as_ref(), "VHD sector bitmap", at, &mut bitmap)?;
        let (here, run) = bit_run(&bitmap, sector % 8, true);
        let left = self.table.block_size.saturating_sub(within);
        let run = run
            .saturating_mul(SECTOR)
            .saturating_sub(within % SECTOR)
            .clamp(1, left.max(1));
        let place = if here {
            Place::Data(data_at.saturating_add(within))
        } else {
            Place::Parent
        };
        Ok((place, run))
    }
}

/// The bit number `first` of a bitmap, and how many bits from there on have the same value.
pub(super) fn bit_run(bitmap: &[u8], first: u64, most_significant_first: bool) -> (bool, u64) {
    let bit = |index: u64| {
        let byte = bitmap.get(narrow(index / 8))?;
        let place = u32::try_from(index % 8).ok()?;
        let shift = if most_significant_first {
            7u32.saturating_sub(place)
        } else {
            place
        };
        Some(byte.checked_shr(shift)? & 1 == 1)
    };
    let value = bit(first).unwrap_or(false);
    let end = wide(bitmap.len()).saturating_mul(8);
    let mut past = first.saturating_add(1);
    while past < end && bit(past) == Some(value) {
        past = past.saturating_add(1);
    }
    (value, past.saturating_sub(first))
}

impl Mapping for Map {
    fn size(&self) -> u64 {
        self.virtual_size
    }

    fn cluster_size(&self) -> u64 {
        self.table.block_size
    }

    fn locate(&self, position: u64) -> Result<(Place, u64)> {
        let block_size = self.table.block_size;
        let block = position.checked_div(block_size).unwrap_or(0);
        let within = position.checked_rem(block_size).unwrap_or(0);
        let left = block_size.saturating_sub(within);
        if block >= u64::from(self.table.entries) {
            return Ok((self.absent(), left));
        }
        let at = self.table.offset.saturating_add(block.saturating_mul(4));
        let mut raw = [0; 4];
        read_whole(
            self.file.as_ref(),
            "VHD block allocation table",
            at,
            &mut raw,
        )?;
        let sector = u32::from_be_bytes(raw);
        if sector == u32::MAX {
            return Ok((self.absent(), left));
        }
        let block_at = u64::from(sector).saturating_mul(SECTOR);
        let bitmap_len = (block_size / SECTOR / 8).next_multiple_of(SECTOR);
        let data_at = block_at.saturating_add(bitmap_len);
        if self.differencing {
            return self.sectors(block_at, data_at, within);
        }
        Ok((Place::Data(data_at.saturating_add(within)), left))
    }

    fn read_data(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        read_whole(self.file.as_ref(), "VHD block", offset, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_bits_in_both_orders() {
        assert_eq!(bit_run(&[0b1110_0000, 0xff], 0, true), (true, 3));
        assert_eq!(bit_run(&[0b1110_0000, 0xff], 3, true), (false, 5));
        assert_eq!(bit_run(&[0b1110_0000, 0xff], 5, false), (true, 11));
        assert_eq!(bit_run(&[], 0, true), (false, 1));
    }
}
