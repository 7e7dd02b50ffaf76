//! qcow version 1, the format before qcow2: two levels of tables, deflated clusters. Field names as
//! in qemu's `block/qcow.c` (QCowHeader). All fields are big-endian.

use super::ContainerFacts;
use super::mapped::{Compressed, Mapping, Place, read_cut, read_whole, unsupported};
use super::packed::{Packed, Wrapping};
use super::tree::{Expected, Reference, Role};
use crate::bytes::{Record, narrow, read_upto, size};
use crate::error::Result;
use crate::read_at::{Layer, ReadAt};

/// The bounds that qemu keeps to.
const CLUSTER_BITS: std::ops::RangeInclusive<u8> = 9..=16;
const L2_BITS: std::ops::RangeInclusive<u8> = 6..=13;
const NAME_MAX: u32 = 1023;
/// Marks a compressed cluster in an L2 entry.
const COMPRESSED: u64 = 1 << 63;

/// A parsed header.
#[derive(Debug, Clone)]
pub(super) struct Header {
    virtual_size: u64,
    cluster_bits: u32,
    l2_bits: u32,
    l1_offset: u64,
    pub(super) backing: Option<Reference>,
}

impl Header {
    /// Reads the header.
    pub(super) fn read(layer: &dyn ReadAt) -> Result<Self> {
        let head = read_upto(layer, 0, 48)?;
        let r = Record::new("qcow header", 0, &head);
        match r.u32_be(0x24)? {
            0 => {}
            1 => return Err(unsupported("qcow encryption (aes)")),
            other => return Err(unsupported(format!("qcow encryption (method {other})"))),
        }
        let (cluster_bits, l2_bits) = (r.u8(0x20)?, r.u8(0x21)?);
        if !CLUSTER_BITS.contains(&cluster_bits) || !L2_BITS.contains(&l2_bits) {
            let problem = format!("cluster_bits {cluster_bits}, l2_bits {l2_bits}");
            return Err(r.corrupt(0x20, problem));
        }
        let virtual_size = r.u64_be(0x18)?;
        let l1_offset = r.u64_be(0x28)?;
        let covers = 1u64
            .checked_shl(u32::from(cluster_bits).saturating_add(u32::from(l2_bits)))
            .unwrap_or(1);
        let l1_bytes = virtual_size.div_ceil(covers).saturating_mul(8);
        if l1_offset.saturating_add(l1_bytes) > layer.len() {
            let problem = format!("an L1 table of {l1_bytes} bytes outside the file");
            return Err(r.corrupt(0x28, problem));
        }
        let (name_at, name_len) = (r.u64_be(8)?, r.u32_be(0x10)?);
        let backing = if name_at == 0 || name_len == 0 {
            None
        } else {
            if name_len > NAME_MAX {
                return Err(r.corrupt(0x10, format!("backing file name of {name_len} bytes")));
            }
            let mut name = vec![0; size(name_len)];
            read_whole(layer, "qcow backing file name", name_at, &mut name)?;
            Some(Reference {
                role: Role::Backing,
                names: vec![name],
                expected: Expected::Image(None),
            })
        };
        Ok(Self {
            virtual_size,
            cluster_bits: u32::from(cluster_bits),
            l2_bits: u32::from(l2_bits),
            l1_offset,
            backing,
        })
    }

    /// What the header says.
    pub(super) fn facts(&self) -> ContainerFacts {
        ContainerFacts {
            format: "qcow".into(),
            version: Some(1),
            virtual_size: self.virtual_size,
            cluster_size: Some(self.cluster_size()),
            compression: Some("zlib".into()),
            ..ContainerFacts::default()
        }
    }

    fn cluster_size(&self) -> u64 {
        1u64.checked_shl(self.cluster_bits).unwrap_or(1)
    }
}

/// The tables of a qcow image.
pub(super) struct Map {
    file: Layer,
    header: Header,
}

impl Map {
    pub(super) fn new(file: Layer, header: Header) -> Self {
        Self { file, header }
    }

    fn entry(&self, structure: &'static str, at: u64) -> Result<u64> {
        let mut raw = [0; 8];
        read_whole(self.file.as_ref(), structure, at, &mut raw)?;
        Ok(u64::from_be_bytes(raw))
    }
}

impl Mapping for Map {
    fn size(&self) -> u64 {
        self.header.virtual_size
    }

    fn cluster_size(&self) -> u64 {
        self.header.cluster_size()
    }

    fn locate(&self, position: u64) -> Result<(Place, u64)> {
        let h = &self.header;
        let within = position & h.cluster_size().saturating_sub(1);
        let left = h.cluster_size().saturating_sub(within);
        let cluster = position.checked_shr(h.cluster_bits).unwrap_or(0);
        let l1_index = cluster.checked_shr(h.l2_bits).unwrap_or(0);
        let l2_entries = 1u64.checked_shl(h.l2_bits).unwrap_or(1);
        let l2_index = cluster & l2_entries.saturating_sub(1);
        let at = h.l1_offset.saturating_add(l1_index.saturating_mul(8));
        let l2_table = self.entry("qcow L1 table", at)?;
        if l2_table == 0 {
            let clusters = l2_entries.saturating_sub(l2_index);
            let left = clusters
                .saturating_mul(h.cluster_size())
                .saturating_sub(within);
            return Ok((Place::Parent, left));
        }
        let at = l2_table.saturating_add(l2_index.saturating_mul(8));
        Ok(match self.entry("qcow L2 table", at)? {
            0 => (Place::Parent, left),
            entry if entry & COMPRESSED != 0 => (Place::Packed(entry & !COMPRESSED), left),
            offset => (Place::Data(offset.saturating_add(within)), left),
        })
    }

    fn read_data(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        read_cut(self.file.as_ref(), "qcow data cluster", offset, buf)
    }

    /// The size in bytes is above the low `63 - cluster_bits` bits, which are the offset.
    fn unpack(&self, descriptor: u64) -> Result<Compressed> {
        let structure = "qcow compressed cluster";
        let shift = 63u32.saturating_sub(self.header.cluster_bits);
        let low = 1u64.checked_shl(shift).unwrap_or(1).saturating_sub(1);
        let offset = descriptor & low;
        let len = descriptor.checked_shr(shift).unwrap_or(0);
        let mut input = vec![0; narrow(len)];
        read_whole(self.file.as_ref(), structure, offset, &mut input)?;
        let len = narrow(self.header.cluster_size());
        Ok(Compressed {
            structure,
            position: offset,
            packed: Packed::deflated(input, len, Wrapping::Raw),
        })
    }
}
