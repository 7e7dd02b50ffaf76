//! VDI 1.1, VirtualBox's own format: a header, a table of block numbers, blocks. Little-endian;
//! field names as in VirtualBox's `VDICore.h` (VDIHEADER1, VDIHEADER1PLUS).

use super::mapped::{Mapped, Mapping, Place, corrupt, read_whole, unsupported};
use super::{Container, ContainerFacts};
use crate::bytes::{Record, read_upto, uuid};
use crate::error::Result;
use crate::read_at::{Layer, ReadAt};
use std::sync::Arc;

/// Blocks are 1 MiB unless someone asks for others; nothing asks for more than this.
const BLOCK_MAX: u32 = 64 << 20;

/// A parsed header.
#[derive(Debug, Clone)]
pub(super) struct Header {
    fixed: bool,
    version: u32,
    virtual_size: u64,
    blocks_offset: u64,
    data_offset: u64,
    block_size: u64,
    block_extra: u64,
    blocks: u32,
}

impl Header {
    /// Reads the header.
    pub(super) fn read(layer: &dyn ReadAt) -> Result<Self> {
        let head = read_upto(layer, 0, 512)?;
        let r = Record::new("VDI header", 0, &head);
        let version = r.u32_le(0x44)?;
        if version >> 16 != 1 {
            return Err(unsupported(format!(
                "VDI version {}.{}",
                version >> 16,
                version & 0xffff
            )));
        }
        let fixed = match r.u32_le(0x4c)? {
            1 => false,
            2 => true,
            // Their parents are known by identifier only, no name says where they are.
            3 => return Err(unsupported("VDI undo image")),
            4 => {
                let parent = uuid(&r.array(0x1a8)?).unwrap_or_default();
                return Err(unsupported(format!(
                    "VDI differencing image (parent {parent})"
                )));
            }
            other => return Err(r.corrupt(0x4c, format!("image type {other}"))),
        };
        let block_size = r.u32_le(0x178)?;
        if !block_size.is_power_of_two() || !(512..=BLOCK_MAX).contains(&block_size) {
            return Err(r.corrupt(0x178, format!("block size {block_size}")));
        }
        let block_extra = r.u32_le(0x17c)?;
        let header = Self {
            fixed,
            version,
            virtual_size: r.u64_le(0x170)?,
            blocks_offset: u64::from(r.u32_le(0x154)?),
            data_offset: u64::from(r.u32_le(0x158)?),
            block_size: u64::from(block_size),
            block_extra: u64::from(block_extra),
            blocks: r.u32_le(0x180)?,
        };
        if block_extra > BLOCK_MAX {
            return Err(r.corrupt(0x17c, format!("{block_extra} bytes before each block")));
        }
        let covered = u64::from(header.blocks).saturating_mul(header.block_size);
        if covered < header.virtual_size {
            let problem = format!(
                "{} blocks cover {covered} of {} bytes",
                header.blocks, header.virtual_size
            );
            return Err(r.corrupt(0x180, problem));
        }
        let table_end = u64::from(header.blocks)
            .saturating_mul(4)
            .saturating_add(header.blocks_offset);
        if table_end > layer.len() {
            return Err(r.corrupt(0x154, "the block table passes the end of the file"));
        }
        Ok(header)
    }

    /// The virtual disk.
    pub(super) fn open(self, file: Layer) -> Container {
        let facts = ContainerFacts {
            format: "vdi".into(),
            variant: Some(if self.fixed { "static" } else { "dynamic" }.into()),
            version: Some(self.version >> 16),
            virtual_size: self.virtual_size,
            cluster_size: Some(self.block_size),
            compressed: Some(false),
            ..ContainerFacts::default()
        };
        let map = Map { file, header: self };
        Container {
            facts,
            disk: Arc::new(Mapped::new(map, None)),
        }
    }
}

/// The block table: block numbers in the file; all ones is free, all ones but the last bit is
/// zeros.
struct Map {
    file: Layer,
    header: Header,
}

impl Mapping for Map {
    fn size(&self) -> u64 {
        self.header.virtual_size
    }

    fn cluster_size(&self) -> u64 {
        self.header.block_size
    }

    fn locate(&self, position: u64) -> Result<(Place, u64)> {
        let h = &self.header;
        let block = position.checked_div(h.block_size).unwrap_or(0);
        let within = position.checked_rem(h.block_size).unwrap_or(0);
        let left = h.block_size.saturating_sub(within);
        let at = h.blocks_offset.saturating_add(block.saturating_mul(4));
        let mut raw = [0; 4];
        read_whole(self.file.as_ref(), "VDI block table", at, &mut raw)?;
        let number = u32::from_le_bytes(raw);
        if number >= u32::MAX.saturating_sub(1) {
            return Ok((Place::Zero, left));
        }
        if number >= h.blocks {
            let problem = format!("block {number} of {}", h.blocks);
            return Err(corrupt("VDI block table", at, problem));
        }
        let step = h.block_size.saturating_add(h.block_extra);
        let data_at = u64::from(number)
            .saturating_mul(step)
            .saturating_add(h.data_offset)
            .saturating_add(h.block_extra);
        Ok((Place::Data(data_at.saturating_add(within)), left))
    }

    fn read_data(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        read_whole(self.file.as_ref(), "VDI block", offset, buf)
    }
}
