//! Sparse extents: "Virtual Disk Format 5.0", sections "Hosted Sparse Extents" and
//! "Stream-Optimized Compressed Sparse Extents"; and ESX copy-on-write files (`COWD`). All fields
//! are little-endian, all offsets in sectors.

use super::super::mapped::{
    Compressed, Mapping, Place, corrupt, read_cut, read_whole, unsupported,
};
use super::super::packed::{Packed, Wrapping};
use super::{DISK_MAX, SECTOR};
use crate::bytes::{Record, narrow, read_upto, read_vec};
use crate::error::Result;
use crate::read_at::{Layer, ReadAt};

/// Grain directory offset of a file whose real header is a footer: it was written as a stream.
const AT_END: u64 = u64::MAX;
/// Grains are 64 KiB by default; larger ones are legal, none of more than this is known.
const GRAIN_MAX: u64 = 32 << 20;
/// A compressed grain is unpacked in memory.
const COMPRESSED_GRAIN_MAX: u64 = 2 << 20;
/// A grain table has 512 entries; qemu accepts no more either.
const TABLE_ENTRIES_MAX: u32 = 512;
/// Entries of a table in a COWD file.
const COWD_TABLE_ENTRIES: u32 = 4096;

mod flag {
    /// Entry 1 of a grain table means zeros.
    pub(super) const ZERO_GRAINS: u32 = 1 << 2;
    pub(super) const COMPRESSED: u32 = 1 << 16;
    /// Compressed grains begin with a marker.
    pub(super) const MARKERS: u32 = 1 << 17;
}

/// The header of a sparse extent.
#[derive(Debug, Clone)]
pub(in super::super) struct Sparse {
    version: u32,
    flags: u32,
    capacity: u64,
    grain: u64,
    descriptor: Option<(u64, u64)>,
    table_entries: u32,
    directory: u64,
    unclean: bool,
}

impl Sparse {
    /// Reads the header or, in a stream, the footer.
    pub(super) fn read(layer: &dyn ReadAt) -> Result<Self> {
        let first = Self::read_at(layer, 0)?;
        if first.directory != AT_END {
            return first.checked(layer);
        }
        // The last three sectors are footer marker, footer, end-of-stream marker.
        let at = layer.len() & !(SECTOR - 1);
        let at = at.saturating_sub(2 * SECTOR);
        let marker_at = at.saturating_sub(SECTOR);
        let marker = read_vec(layer, marker_at, narrow(SECTOR))?;
        let marker = Record::new("VMDK footer marker", marker_at, &marker);
        if marker.u32_le(8)? != 0 || marker.u32_le(12)? != 3 {
            return Err(marker.corrupt(12, "no footer marker: the stream was cut off"));
        }
        let footer = Self::read_at(layer, at)?;
        if footer.directory == AT_END {
            return Err(corrupt(
                "VMDK footer",
                at,
                "it has no grain directory either",
            ));
        }
        Self {
            descriptor: first.descriptor,
            ..footer
        }
        .checked(layer)
    }

    fn read_at(layer: &dyn ReadAt, at: u64) -> Result<Self> {
        let bytes = read_vec(layer, at, narrow(SECTOR))?;
        let r = Record::new("VMDK sparse header", at, &bytes);
        if !bytes.starts_with(b"KDMV") {
            return Err(r.corrupt(0, "no KDMV magic"));
        }
        let version = r.u32_le(4)?;
        if !(1..=3).contains(&version) {
            return Err(unsupported(format!("VMDK version {version}")));
        }
        let flags = r.u32_le(8)?;
        // Bit 0: the four bytes tell whether the file went through a text-mode transfer.
        if flags & 1 != 0 && r.slice(73, 4)? != b"\n \r\n" {
            return Err(r.corrupt(73, "line ends were converted"));
        }
        match (flags & flag::COMPRESSED != 0, r.u16_le(77)?) {
            (true, 1) | (false, _) => {}
            (true, other) => return Err(unsupported(format!("VMDK compression {other}"))),
        }
        if flags & flag::COMPRESSED != 0 && flags & flag::MARKERS == 0 {
            return Err(unsupported("VMDK compressed grains without markers"));
        }
        let sectors = |field: u64| field.saturating_mul(SECTOR);
        let descriptor = (sectors(r.u64_le(28)?), sectors(r.u64_le(36)?));
        let directory = r.u64_le(56)?;
        Ok(Self {
            version,
            flags,
            capacity: sectors(r.u64_le(12)?),
            grain: sectors(r.u64_le(20)?),
            descriptor: (descriptor.0 != 0 && descriptor.1 != 0).then_some(descriptor),
            table_entries: r.u32_le(44)?,
            directory: match directory {
                AT_END => AT_END,
                directory => sectors(directory),
            },
            unclean: r.u8(72)? != 0,
        })
    }

    /// Reads the header of an ESX copy-on-write file.
    pub(super) fn read_cowd(layer: &dyn ReadAt) -> Result<Self> {
        let bytes = read_upto(layer, 0, 512)?;
        let r = Record::new("VMDK COWD header", 0, &bytes);
        if !bytes.starts_with(b"COWD") {
            return Err(r.corrupt(0, "no COWD magic"));
        }
        let version = r.u32_le(4)?;
        if version != 1 {
            return Err(unsupported(format!("VMDK COWD version {version}")));
        }
        let sectors = |field: u32| u64::from(field).saturating_mul(SECTOR);
        Self {
            version,
            flags: 0,
            capacity: sectors(r.u32_le(12)?),
            grain: sectors(r.u32_le(16)?),
            descriptor: None,
            table_entries: COWD_TABLE_ENTRIES,
            directory: sectors(r.u32_le(20)?),
            unclean: false,
        }
        .checked(layer)
    }

    fn checked(self, layer: &dyn ReadAt) -> Result<Self> {
        let bad = |problem: String| Err(corrupt("VMDK sparse header", 0, problem));
        if self.capacity > DISK_MAX {
            return bad(format!("a disk of {} bytes", self.capacity));
        }
        let largest = if self.compressed() {
            COMPRESSED_GRAIN_MAX
        } else {
            GRAIN_MAX
        };
        if !self.grain.is_power_of_two() || !(SECTOR..=largest).contains(&self.grain) {
            return bad(format!("grains of {} bytes", self.grain));
        }
        let cowd = self.table_entries == COWD_TABLE_ENTRIES;
        if !cowd && !(1..=TABLE_ENTRIES_MAX).contains(&self.table_entries) {
            return bad(format!("grain tables of {} entries", self.table_entries));
        }
        if self.capacity > 0 {
            let tables = self.capacity.div_ceil(self.table_covers().max(1));
            let end = tables.saturating_mul(4).saturating_add(self.directory);
            if end > layer.len() {
                return bad(format!(
                    "a grain directory of {tables} entries outside the file"
                ));
            }
        }
        Ok(self)
    }

    /// Size of the extent in bytes.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Where the embedded descriptor is, if there is one: position and length.
    pub(super) fn descriptor(&self) -> Option<(u64, u64)> {
        self.descriptor
    }

    pub(super) fn grain_bytes(&self) -> u64 {
        self.grain
    }

    pub(super) fn version(&self) -> u32 {
        self.version
    }

    pub(super) fn unclean(&self) -> bool {
        self.unclean
    }

    pub(super) fn compressed(&self) -> bool {
        self.flags & flag::COMPRESSED != 0
    }

    fn table_covers(&self) -> u64 {
        self.grain.saturating_mul(u64::from(self.table_entries))
    }

    /// The tables, in `file`.
    pub(super) fn map(self, file: Layer) -> Map {
        Map { file, header: self }
    }
}

/// Grain directory → grain table → grain.
pub(super) struct Map {
    file: Layer,
    header: Sparse,
}

impl Map {
    fn entry(&self, structure: &'static str, at: u64) -> Result<u64> {
        let mut raw = [0; 4];
        read_whole(self.file.as_ref(), structure, at, &mut raw)?;
        Ok(u64::from(u32::from_le_bytes(raw)))
    }
}

impl Mapping for Map {
    fn size(&self) -> u64 {
        self.header.capacity
    }

    fn cluster_size(&self) -> u64 {
        self.header.grain
    }

    fn locate(&self, position: u64) -> Result<(Place, u64)> {
        let h = &self.header;
        let covers = h.table_covers().max(1);
        let in_table = position.checked_rem(covers).unwrap_or(0);
        let table = position.checked_div(covers).unwrap_or(0);
        let at = h.directory.saturating_add(table.saturating_mul(4));
        let table_at = self.entry("VMDK grain directory", at)?;
        if table_at == 0 {
            return Ok((Place::Parent, covers.saturating_sub(in_table)));
        }
        let index = in_table.checked_div(h.grain).unwrap_or(0);
        let within = in_table.checked_rem(h.grain).unwrap_or(0);
        let left = h.grain.saturating_sub(within);
        let at = table_at
            .saturating_mul(SECTOR)
            .saturating_add(index.saturating_mul(4));
        let place = match self.entry("VMDK grain table", at)? {
            0 => Place::Parent,
            1 if h.flags & flag::ZERO_GRAINS != 0 => Place::Zero,
            sector => {
                let grain_at = sector.saturating_mul(SECTOR);
                if h.compressed() {
                    Place::Packed(grain_at)
                } else {
                    Place::Data(grain_at.saturating_add(within))
                }
            }
        };
        Ok((place, left))
    }

    fn read_data(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        read_cut(self.file.as_ref(), "VMDK grain", offset, buf)
    }

    /// A grain marker (first sector as u64, bytes as u32) and a zlib stream.
    fn unpack(&self, descriptor: u64) -> Result<Compressed> {
        let structure = "VMDK compressed grain";
        let mut marker = [0; 12];
        read_whole(self.file.as_ref(), structure, descriptor, &mut marker)?;
        let r = Record::new(structure, descriptor, &marker);
        let len = u64::from(r.u32_le(8)?);
        // Deflate never makes more than this of a grain.
        if len == 0 || len > self.header.grain.saturating_mul(2) {
            return Err(r.corrupt(8, format!("{len} compressed bytes")));
        }
        let mut input = vec![0; narrow(len)];
        let at = descriptor.saturating_add(12);
        read_whole(self.file.as_ref(), structure, at, &mut input)?;
        let len = narrow(self.header.grain);
        // The last grain may end with the disk: nobody reads beyond it.
        Ok(Compressed {
            structure,
            position: at,
            packed: Packed::deflated(input, len, Wrapping::Zlib),
        })
    }
}
