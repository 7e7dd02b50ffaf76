//! VHDX: fixed, dynamic and differencing, from MS-VHDX 8.0 ("Virtual Hard Disk v2 File Format").
//! All fields are little-endian. A log that was not yet applied is replayed in memory.

mod log;
mod metadata;

use super::mapped::{Mapped, Mapping, Place, corrupt, read_whole, unsupported};
use super::tree::{Expected, Reference, Role, last_part, relative_to_here};
use super::vhd::bit_run;
use super::{Container, ContainerFacts, Parent};
use crate::bytes::{Record, guid, narrow, read_vec, wide};
use crate::crc32::crc32c;
use crate::error::Result;
use crate::read_at::{Layer, ReadAt};
use metadata::Metadata;
use std::sync::Arc;

/// 2.6.1.2: a sector bitmap block describes 2^23 sectors.
const CHUNK_SECTORS: u64 = 1 << 23;
/// Bytes of a sector bitmap looked at in one go.
const BITMAP_PIECE: u64 = 512;
const MIB: u64 = 1 << 20;
/// The headers (2.2.2) and region tables (2.2.3).
const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];
/// 2.2.3.1: "EntryCount … must be less than or equal to 2,047".
const REGIONS_MAX: u32 = 2047;

/// 2DC27766-F623-4200-9D64-115E9BFD4A08, as stored.
const BAT: [u8; 16] = *b"\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08";
/// 8B7CA206-4790-4B9A-B8FE-575F050F886E, as stored.
const METADATA: [u8; 16] = *b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";

/// The header that counts, the regions, the metadata.
#[derive(Debug, Clone)]
pub(super) struct Header {
    data_write: [u8; 16],
    log: Option<log::Place>,
    table: Region,
    metadata: Metadata,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Region {
    offset: u64,
    len: u64,
}

impl Header {
    /// Reads everything that tells how to read the rest. A log that waits is not looked at: that
    /// is left to [`Header::open`].
    pub(super) fn read(layer: &dyn ReadAt) -> Result<Self> {
        let (data_write, log) = newest_header(layer)?;
        let (table, metadata) = regions(layer)?;
        Ok(Self {
            data_write,
            log,
            table,
            metadata: Metadata::read(layer, metadata.offset, metadata.len)?,
        })
    }

    /// The parent's names, if there is a parent.
    pub(super) fn parent(&self) -> Option<Reference> {
        let locator = self.metadata.locator.as_ref()?;
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut keep = |name: &str| {
            let name = name.as_bytes().to_vec();
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        };
        if let Some(path) = locator.relative.as_deref().and_then(relative_to_here) {
            keep(&path);
        }
        // A path that begins with a slash is for policy to judge.
        for path in locator.absolute.iter().filter(|path| path.starts_with('/')) {
            keep(path);
        }
        for path in locator.relative.iter().chain(&locator.absolute) {
            keep(last_part(path));
        }
        Some(Reference {
            role: Role::Backing,
            names,
            expected: Expected::Image(Some("vhdx".into())),
        })
    }

    /// Identifies what the disk held when it was last written to.
    pub(super) fn data_write(&self) -> [u8; 16] {
        self.data_write
    }

    /// The virtual disk.
    pub(super) fn open(self, file: Layer, parent: Option<&Parent>) -> Result<Container> {
        let dirty = self.log.is_some();
        let (file, header) = match self.log {
            None => (file, self),
            Some(place) => {
                let file: Layer = Arc::new(log::replay(file, place)?);
                let (table, metadata) = regions(file.as_ref())?;
                let metadata = Metadata::read(file.as_ref(), metadata.offset, metadata.len)?;
                if metadata.locator != self.metadata.locator {
                    return Err(unsupported("VHDX log that replaces the parent locator"));
                }
                let header = Self {
                    table,
                    metadata,
                    ..self
                };
                (file, header)
            }
        };
        let m = &header.metadata;
        if let (Some(locator), Some(parent)) = (&m.locator, parent) {
            let found = parent.identity.data_write.unwrap_or_default();
            if !locator.linkage.contains(&found) {
                let wanted = locator.linkage.first().copied().unwrap_or_default();
                let problem = format!(
                    "the parent's data write identifier is {}, expected {}",
                    guid(&found),
                    guid(&wanted)
                );
                return Err(corrupt("VHDX parent", 0, problem));
            }
        }
        header.check_table(file.len())?;
        let variant = match (m.has_parent, m.fixed) {
            (true, _) => "differencing",
            (false, true) => "fixed",
            (false, false) => "dynamic",
        };
        let facts = ContainerFacts {
            format: "vhdx".into(),
            variant: Some(variant.into()),
            version: Some(1),
            virtual_size: m.virtual_size,
            cluster_size: Some(m.block_size),
            compressed: Some(false),
            dirty,
            features: (m.sector_size != 512)
                .then(|| format!("{} byte sectors", m.sector_size))
                .into_iter()
                .collect(),
            ..ContainerFacts::default()
        };
        let map = Map {
            file,
            table: header.table,
            virtual_size: m.virtual_size,
            block_size: m.block_size,
            sector_size: m.sector_size,
            ratio: header.ratio(),
            differencing: m.has_parent,
        };
        let below = parent.map(|p| Arc::clone(&p.container.disk));
        Ok(Container {
            facts,
            disk: Arc::new(Mapped::new(map, below)),
        })
    }

    /// Payload blocks to a sector bitmap block (2.5.1).
    fn ratio(&self) -> u64 {
        CHUNK_SECTORS
            .saturating_mul(self.metadata.sector_size)
            .checked_div(self.metadata.block_size)
            .unwrap_or(1)
            .max(1)
    }

    fn check_table(&self, file_len: u64) -> Result<()> {
        let blocks = self
            .metadata
            .virtual_size
            .div_ceil(self.metadata.block_size.max(1));
        let last = blocks.saturating_sub(1);
        let bitmaps = last.checked_div(self.ratio()).unwrap_or(0);
        let entries = blocks.saturating_add(bitmaps);
        let structure = "VHDX block allocation table";
        if entries.saturating_mul(8) > self.table.len {
            let problem = format!("{entries} entries in {} bytes", self.table.len);
            return Err(corrupt(structure, self.table.offset, problem));
        }
        if self.table.offset.saturating_add(entries.saturating_mul(8)) > file_len {
            return Err(corrupt(structure, self.table.offset, "outside the file"));
        }
        Ok(())
    }
}

/// The valid header with the higher sequence number: its data write identifier and its log.
fn newest_header(layer: &dyn ReadAt) -> Result<([u8; 16], Option<log::Place>)> {
    let mut newest: Option<(u64, Vec<u8>, u64)> = None;
    for at in HEADERS {
        let Ok(bytes) = read_vec(layer, at, 4096) else {
            continue;
        };
        if !bytes.starts_with(b"head") || !checksum_holds(&bytes) {
            continue;
        }
        let sequence = Record::new("VHDX header", at, &bytes).u64_le(8)?;
        if newest
            .as_ref()
            .is_none_or(|(_, _, known)| sequence > *known)
        {
            newest = Some((at, bytes, sequence));
        }
    }
    let Some((at, bytes, _)) = newest else {
        return Err(corrupt("VHDX header", 0x10000, "neither copy is valid"));
    };
    let r = Record::new("VHDX header", at, &bytes);
    let version = r.u16_le(66)?;
    if version != 1 {
        return Err(unsupported(format!("VHDX version {version}")));
    }
    let log_guid: [u8; 16] = r.array(48)?;
    let log = if log_guid == [0; 16] {
        None
    } else {
        Some(log::Place {
            guid: log_guid,
            version: r.u16_le(64)?,
            len: u64::from(r.u32_le(68)?),
            offset: r.u64_le(72)?,
        })
    };
    Ok((r.array(32)?, log))
}

/// Block allocation table and metadata, from the first valid region table.
fn regions(layer: &dyn ReadAt) -> Result<(Region, Region)> {
    for at in REGION_TABLES {
        let Ok(bytes) = read_vec(layer, at, 64 << 10) else {
            continue;
        };
        if !bytes.starts_with(b"regi") || !checksum_holds(&bytes) {
            continue;
        }
        let r = Record::new("VHDX region table", at, &bytes);
        let count = r.u32_le(8)?;
        if count > REGIONS_MAX {
            return Err(r.corrupt(8, format!("{count} regions")));
        }
        let (mut table, mut metadata) = (None, None);
        for entry in bytes
            .get(16..)
            .unwrap_or_default()
            .chunks_exact(32)
            .take(crate::bytes::size(count))
        {
            let e = Record::new("VHDX region table", at, entry);
            let id: [u8; 16] = e.array(0)?;
            let region = Region {
                offset: e.u64_le(16)?,
                len: u64::from(e.u32_le(24)?),
            };
            match id {
                BAT => table = Some(region),
                METADATA => metadata = Some(region),
                _ if e.u32_le(28)? & 1 == 1 => {
                    return Err(unsupported(format!("VHDX region {}", guid(&id))));
                }
                _ => {}
            }
        }
        let (Some(table), Some(metadata)) = (table, metadata) else {
            return Err(r.corrupt(8, "no block allocation table, or no metadata"));
        };
        for region in [table, metadata] {
            if region.offset < MIB || !region.offset.is_multiple_of(MIB) {
                return Err(r.corrupt(16, format!("a region at {}", region.offset)));
            }
        }
        return Ok((table, metadata));
    }
    Err(corrupt(
        "VHDX region table",
        0x30000,
        "neither copy is valid",
    ))
}

/// CRC-32C of the structure with its checksum field, at byte 4, as zeros.
fn checksum_holds(bytes: &[u8]) -> bool {
    let Ok(stored) = Record::new("VHDX structure", 0, bytes).u32_le(4) else {
        return false;
    };
    let head = bytes.get(..4).unwrap_or_default();
    let tail = bytes.get(8..).unwrap_or_default();
    let crc = crc32c(crc32c(crc32c(!0, head), &[0; 4]), tail);
    stored == !crc
}

/// The block allocation table (2.5): payload blocks, and after each chunk of them the sector bitmap
/// block that describes it.
struct Map {
    file: Layer,
    table: Region,
    virtual_size: u64,
    block_size: u64,
    sector_size: u64,
    ratio: u64,
    differencing: bool,
}

impl Map {
    fn entry(&self, index: u64) -> Result<(u64, u64)> {
        let at = self.table.offset.saturating_add(index.saturating_mul(8));
        let mut raw = [0; 8];
        let structure = "VHDX block allocation table";
        if index.saturating_add(1).saturating_mul(8) > self.table.len {
            return Err(corrupt(structure, at, format!("entry {index} is outside")));
        }
        read_whole(self.file.as_ref(), structure, at, &mut raw)?;
        let entry = u64::from_le_bytes(raw);
        Ok((entry & 7, (entry >> 20).saturating_mul(MIB)))
    }

    /// A partially present block: one bit for each sector, least significant first (2.5.2).
    fn sectors(&self, block: u64, block_at: u64, within: u64) -> Result<(Place, u64)> {
        let chunk = block.checked_div(self.ratio).unwrap_or(0);
        let in_chunk = block.checked_rem(self.ratio).unwrap_or(0);
        let index = chunk
            .saturating_mul(self.ratio.saturating_add(1))
            .saturating_add(self.ratio);
        let (state, bitmap_at) = self.entry(index)?;
        if state != 6 {
            let at = self.table.offset.saturating_add(index.saturating_mul(8));
            return Err(corrupt(
                "VHDX block allocation table",
                at,
                format!("a sector bitmap in state {state} for a partially present block"),
            ));
        }
        let sector = in_chunk
            .saturating_mul(self.block_size)
            .saturating_add(within)
            .checked_div(self.sector_size)
            .unwrap_or(0);
        let byte = sector / 8;
        let mut bitmap = vec![0; narrow(BITMAP_PIECE.min(MIB.saturating_sub(byte)))];
        let at = bitmap_at.saturating_add(byte);
        read_whole(self.file.as_ref(), "VHDX sector bitmap", at, &mut bitmap)?;
        let (here, run) = bit_run(&bitmap, sector % 8, false);
        let left = self.block_size.saturating_sub(within);
        let skipped = within.checked_rem(self.sector_size).unwrap_or(0);
        let run = run
            .saturating_mul(self.sector_size)
            .saturating_sub(skipped)
            .clamp(1, left.max(1));
        let place = if here {
            Place::Data(block_at.saturating_add(within))
        } else {
            Place::Parent
        };
        Ok((place, run))
    }
}

impl Mapping for Map {
    fn size(&self) -> u64 {
        self.virtual_size
    }

    fn cluster_size(&self) -> u64 {
        self.block_size
    }

    fn locate(&self, position: u64) -> Result<(Place, u64)> {
        let block = position.checked_div(self.block_size).unwrap_or(0);
        let within = position.checked_rem(self.block_size).unwrap_or(0);
        let left = self.block_size.saturating_sub(within);
        let chunk = block.checked_div(self.ratio).unwrap_or(0);
        let (state, block_at) = self.entry(block.saturating_add(chunk))?;
        // 2.5.1.1: not present, undefined, zero, unmapped, fully present, partially present.
        let place = match state {
            0 if self.differencing => Place::Parent,
            0..=3 => Place::Zero,
            6 => Place::Data(block_at.saturating_add(within)),
            7 if self.differencing => return self.sectors(block, block_at, within),
            other => {
                return Err(corrupt(
                    "VHDX block allocation table",
                    self.table.offset,
                    format!("block {block} in state {other}"),
                ));
            }
        };
        Ok((place, left))
    }

    fn read_data(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if offset < MIB || offset.checked_add(wide(buf.len())).is_none() {
            return Err(corrupt("VHDX payload block", offset, "inside the header"));
        }
        read_whole(self.file.as_ref(), "VHDX payload block", offset, buf)
    }
}
