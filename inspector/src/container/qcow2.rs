//! qcow2, versions 2 and 3, from qemu's docs/interop/qcow2.rst.
//!
//! Tables are read through the block cache entry by entry, so memory does not grow with what a
//! header claims. Reference counts and internal snapshots are not needed for reading.

use super::ContainerFacts;
use super::mapped::{Compressed, Mapping, Place, corrupt, read_cut, read_whole};
use super::packed::{Packed, Wrapping};
use super::tree::{Expected, Reference, Role};
use crate::bytes::{Record, narrow, read_upto, read_vec, size, text, wide};
use crate::error::{DiskError, Result};
use crate::read_at::{Layer, ReadAt};
use std::io::Read;

/// `QFI\xfb`.
pub(super) const MAGIC: &[u8] = b"QFI\xfb";

/// qemu's own limit for the active L1 table: 32 MiB.
const L1_BYTES_MAX: u64 = 32 << 20;
/// Header extensions read at most; the format has six.
const EXTENSIONS_MAX: usize = 32;
/// Offset bits of L1 and L2 entries (9 to 55).
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;

mod incompatible {
    pub(super) const DIRTY: u64 = 1;
    pub(super) const CORRUPT: u64 = 1 << 1;
    pub(super) const DATA_FILE: u64 = 1 << 2;
    pub(super) const COMPRESSION: u64 = 1 << 3;
    pub(super) const EXTENDED_L2: u64 = 1 << 4;
    pub(super) const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Zlib,
    Zstd,
}

/// A parsed and bounded header.
#[derive(Debug, Clone)]
pub(super) struct Header {
    version: u32,
    cluster_bits: u32,
    virtual_size: u64,
    crypt_method: u32,
    l1_offset: u64,
    l1_size: u64,
    snapshots: u32,
    incompatible: u64,
    compatible: u64,
    compression: u8,
    feature_names: Vec<(u8, u8, String)>,
    /// The backing file, if there is one.
    pub(super) backing: Option<Reference>,
}

impl Header {
    /// Reads the header of an image file.
    ///
    /// # Errors
    /// `Corrupt` when a field is out of its bounds; `Unsupported` for later versions.
    pub(super) fn read(layer: &dyn ReadAt) -> Result<Self> {
        // The header and its extensions lie in the first cluster; 64 KiB hold the sane ones.
        let head = read_upto(layer, 0, 64 << 10)?;
        let r = Record::new("qcow2 header", 0, &head);
        if !head.starts_with(MAGIC) {
            return Err(r.corrupt(0, "no qcow2 magic"));
        }
        let version = r.u32_be(4)?;
        if !matches!(version, 2 | 3) {
            return Err(DiskError::Unsupported {
                feature: format!("qcow2 version {version}"),
            });
        }
        let cluster_bits = r.u32_be(0x14)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(r.corrupt(
                0x14,
                format!("cluster_bits {cluster_bits}, expected 9 to 21"),
            ));
        }
        let v3 = version == 3;
        let header_length = if v3 { r.u32_be(0x64)? } else { 72 };
        if v3 && !(104..=(1 << cluster_bits)).contains(&header_length) {
            return Err(r.corrupt(0x64, format!("header_length {header_length}")));
        }
        let mut header = Self {
            version,
            cluster_bits,
            virtual_size: r.u64_be(0x18)?,
            crypt_method: r.u32_be(0x20)?,
            l1_size: u64::from(r.u32_be(0x24)?),
            l1_offset: r.u64_be(0x28)?,
            snapshots: r.u32_be(0x3c)?,
            incompatible: if v3 { r.u64_be(0x48)? } else { 0 },
            compatible: if v3 { r.u64_be(0x50)? } else { 0 },
            compression: if header_length > 104 { r.u8(0x68)? } else { 0 },
            feature_names: Vec::new(),
            backing: None,
        };
        let refcount_order = if v3 { r.u32_be(0x60)? } else { 4 };
        if refcount_order > 6 {
            return Err(r.corrupt(
                0x60,
                format!("refcount_order {refcount_order}, expected 0 to 6"),
            ));
        }
        let format = header.extensions(&r, size(header_length))?;
        header.backing = header.backing_reference(&r, format)?;
        header.check_l1(&r, layer.len())?;
        Ok(header)
    }

    /// Walks the header extensions; answers the backing format.
    fn extensions(&mut self, r: &Record<'_>, start: usize) -> Result<Option<String>> {
        let backing_offset = r.u64_be(8)?;
        let mut at = start;
        let mut format = None;
        for _ in 0..EXTENSIONS_MAX {
            // They end at the end marker, at the backing file name or with the first cluster.
            if backing_offset != 0 && wide(at) >= backing_offset {
                break;
            }
            let (Ok(kind), Ok(len)) = (r.u32_be(at), r.u32_be(at.saturating_add(4))) else {
                break;
            };
            if kind == 0 {
                break;
            }
            let body = r.slice(at.saturating_add(8), size(len))?;
            match kind {
                0xe279_2aca => format = Some(text(body)),
                0x6803_f857 => self.feature_names = feature_names(body),
                _ => {}
            }
            at = at
                .saturating_add(8)
                .saturating_add(size(len).next_multiple_of(8));
        }
        Ok(format)
    }

    fn backing_reference(
        &self,
        r: &Record<'_>,
        format: Option<String>,
    ) -> Result<Option<Reference>> {
        let offset = r.u64_be(8)?;
        if offset == 0 {
            return Ok(None);
        }
        let len = r.u32_be(0x10)?;
        if len == 0 {
            return Ok(None);
        }
        if len > 1023 {
            return Err(r.corrupt(
                0x10,
                format!("backing file name of {len} bytes, at most 1023"),
            ));
        }
        if offset.saturating_add(u64::from(len)) > self.cluster_size() {
            return Err(r.corrupt(8, "backing file name outside the first cluster"));
        }
        let name = r.slice(narrow(offset), size(len))?.to_vec();
        Ok(Some(Reference {
            role: Role::Backing,
            names: vec![name],
            expected: match format.as_deref() {
                // Said to be raw: its bytes are never taken for a header.
                Some("raw") => Expected::Raw,
                _ => Expected::Image(format),
            },
        }))
    }

    fn check_l1(&self, r: &Record<'_>, file_len: u64) -> Result<()> {
        let bytes = self.l1_size.saturating_mul(8);
        if bytes > L1_BYTES_MAX {
            return Err(r.corrupt(
                0x24,
                format!("l1_size {}, at most {}", self.l1_size, L1_BYTES_MAX / 8),
            ));
        }
        let covered = self
            .l1_size
            .saturating_mul(self.l2_entries())
            .saturating_mul(self.cluster_size());
        if self.virtual_size > covered {
            return Err(r.corrupt(
                0x24,
                format!(
                    "l1_size {} covers {covered} of {} bytes",
                    self.l1_size, self.virtual_size
                ),
            ));
        }
        if self.virtual_size > 1 << 62 {
            return Err(r.corrupt(0x18, format!("size {}", self.virtual_size)));
        }
        if self.l1_size > 0
            && (self.l1_offset & self.cluster_mask() != 0
                || self.l1_offset.saturating_add(bytes) > file_len)
        {
            return Err(r.corrupt(
                0x28,
                format!("l1_table_offset {} in a file of {file_len}", self.l1_offset),
            ));
        }
        Ok(())
    }

    fn cluster_size(&self) -> u64 {
        1u64.checked_shl(self.cluster_bits).unwrap_or(0)
    }

    fn cluster_mask(&self) -> u64 {
        self.cluster_size().saturating_sub(1)
    }

    fn has(&self, bit: u64) -> bool {
        self.incompatible & bit != 0
    }

    fn l2_entries(&self) -> u64 {
        if self.has(incompatible::EXTENDED_L2) {
            self.cluster_size() / 16
        } else {
            self.cluster_size() / 8
        }
    }

    /// Refuses images that are sound but not readable here.
    ///
    /// # Errors
    /// `Unsupported` with the feature's name; `Denied` for an external data file.
    pub(super) fn check_readable(&self) -> Result<()> {
        let unsupported = |feature: String| Err(DiskError::Unsupported { feature });
        match self.crypt_method {
            0 => {}
            1 => return unsupported("qcow2 encryption (aes)".into()),
            2 => return unsupported("qcow2 encryption (luks)".into()),
            other => return unsupported(format!("qcow2 encryption (method {other})")),
        }
        if self.has(incompatible::DATA_FILE) {
            return Err(DiskError::Denied {
                reason: "qcow2 external data file: only backing files are followed".into(),
            });
        }
        let unknown = self.incompatible & !incompatible::KNOWN;
        if unknown != 0 {
            let bit = unknown.trailing_zeros();
            let name = self
                .feature_names
                .iter()
                .find(|(kind, b, _)| *kind == 0 && u32::from(*b) == bit)
                .map(|(.., name)| format!(" ({})", name.escape_debug()));
            return unsupported(format!(
                "qcow2 feature bit {bit}{}",
                name.unwrap_or_default()
            ));
        }
        if self.has(incompatible::EXTENDED_L2) && self.cluster_bits < 14 {
            return Err(DiskError::Corrupt {
                structure: "qcow2 header",
                position: 0x14,
                problem: "extended L2 entries need clusters of 16 KiB or more".into(),
            });
        }
        self.compression().map(|_| ())
    }

    fn compression(&self) -> Result<Compression> {
        match (self.has(incompatible::COMPRESSION), self.compression) {
            (false, _) | (true, 0) => Ok(Compression::Zlib),
            (true, 1) => Ok(Compression::Zstd),
            (true, other) => Err(DiskError::Unsupported {
                feature: format!("qcow2 compression type {other}"),
            }),
        }
    }

    /// What the header says.
    pub(super) fn facts(&self) -> ContainerFacts {
        let mut features = Vec::new();
        for (bit, name) in [
            (incompatible::DIRTY, "dirty"),
            (incompatible::CORRUPT, "corrupt"),
            (incompatible::COMPRESSION, "compression type"),
            (incompatible::EXTENDED_L2, "extended l2"),
        ] {
            if self.has(bit) {
                features.push(name.to_owned());
            }
        }
        if self.compatible & 1 != 0 {
            features.push("lazy refcounts".into());
        }
        features.sort();
        ContainerFacts {
            format: "qcow2".into(),
            version: Some(self.version),
            virtual_size: self.virtual_size,
            cluster_size: Some(self.cluster_size()),
            compression: Some(match self.compression() {
                Ok(Compression::Zstd) => "zstd".into(),
                _ => "zlib".into(),
            }),
            encrypted: self.crypt_method != 0,
            dirty: self.has(incompatible::DIRTY),
            corrupt: self.has(incompatible::CORRUPT),
            snapshots: self.snapshots,
            features,
            ..ContainerFacts::default()
        }
    }
}

/// The feature name table: entries of 48 bytes (kind, bit, name).
fn feature_names(body: &[u8]) -> Vec<(u8, u8, String)> {
    body.chunks_exact(48)
        .take(64)
        .filter_map(|entry| match entry {
            [kind, bit, name @ ..] => Some((*kind, *bit, text(name))),
            _ => None,
        })
        .collect()
}

/// The tables of a qcow2 image.
pub(super) struct Map {
    file: Layer,
    header: Header,
    compression: Compression,
}

impl Map {
    /// The tables of `file`.
    ///
    /// # Errors
    /// `Unsupported` for an unknown compression type.
    pub(super) fn new(file: Layer, header: Header) -> Result<Self> {
        Ok(Self {
            compression: header.compression()?,
            file,
            header,
        })
    }

    fn entry(&self, structure: &'static str, at: u64) -> Result<u64> {
        let mut raw = [0; 8];
        read_whole(self.file.as_ref(), structure, at, &mut raw)?;
        Ok(u64::from_be_bytes(raw))
    }

    /// Extended L2 entries: bits 0–31 of the bitmap say allocated, bits 32–63 zero, one for each
    /// 32nd of the cluster.
    fn subcluster(&self, at: u64, offset: u64, bitmap: u64, within: u64) -> Result<(Place, u64)> {
        let bits = self.header.cluster_bits.saturating_sub(5);
        let index = u32::try_from(within.checked_shr(bits).unwrap_or(0)).unwrap_or(0);
        let size = 1u64.checked_shl(bits).unwrap_or(1);
        let left = size.saturating_sub(within & size.saturating_sub(1));
        let bit = |shift: u32| bitmap.checked_shr(shift).unwrap_or(0) & 1 != 0;
        let place = match (bit(index), bit(index.saturating_add(32))) {
            (true, true) => {
                return Err(corrupt(
                    "qcow2 L2 table",
                    at,
                    "subcluster both allocated and zero",
                ));
            }
            (false, true) => Place::Zero,
            (false, false) => Place::Parent,
            (true, false) if offset == 0 => {
                return Err(corrupt(
                    "qcow2 L2 table",
                    at,
                    "allocated subcluster without a cluster",
                ));
            }
            (true, false) => Place::Data(offset.saturating_add(within)),
        };
        Ok((place, left))
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
        let cluster_size = h.cluster_size();
        let within = position & h.cluster_mask();
        let left = cluster_size.saturating_sub(within);
        let cluster = position.checked_shr(h.cluster_bits).unwrap_or(0);
        let l2_entries = h.l2_entries().max(1);
        let l1_index = cluster.checked_div(l2_entries).unwrap_or(0);
        let index = cluster.checked_rem(l2_entries).unwrap_or(0);
        // Where there is no L2 table, all that it would cover is one stretch.
        let table_left = l2_entries
            .saturating_sub(index)
            .saturating_mul(cluster_size)
            .saturating_sub(within);
        if l1_index >= h.l1_size {
            return Ok((Place::Parent, table_left));
        }
        let l1_at = h.l1_offset.saturating_add(l1_index.saturating_mul(8));
        let l2_table = self.entry("qcow2 L1 table", l1_at)? & OFFSET_MASK;
        if l2_table == 0 {
            return Ok((Place::Parent, table_left));
        }
        if l2_table & h.cluster_mask() != 0 {
            return Err(corrupt(
                "qcow2 L1 table",
                l1_at,
                "L2 table is not aligned to a cluster",
            ));
        }
        let extended = h.has(incompatible::EXTENDED_L2);
        let at = l2_table.saturating_add(index.saturating_mul(if extended { 16 } else { 8 }));
        let entry = self.entry("qcow2 L2 table", at)?;
        if entry & (1 << 62) != 0 {
            return Ok((Place::Packed(entry & ((1 << 62) - 1)), left));
        }
        let offset = entry & OFFSET_MASK;
        if offset & h.cluster_mask() != 0 {
            return Err(corrupt(
                "qcow2 L2 table",
                at,
                "cluster offset is not aligned",
            ));
        }
        if extended {
            let bitmap = self.entry("qcow2 L2 table", at.saturating_add(8))?;
            return self.subcluster(at, offset, bitmap, within);
        }
        // Bit 0 means "all zeros" since version 3.
        if entry & 1 != 0 && h.version >= 3 {
            return Ok((Place::Zero, left));
        }
        Ok(match offset {
            0 => (Place::Parent, left),
            offset => (Place::Data(offset.saturating_add(within)), left),
        })
    }

    fn read_data(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        read_cut(self.file.as_ref(), "qcow2 data cluster", offset, buf)
    }

    /// A compressed descriptor: offset in the low `62 - (cluster_bits - 8)` bits, above it the
    /// number of further 512-byte sectors.
    fn unpack(&self, descriptor: u64) -> Result<Compressed> {
        let shift = 70u32.saturating_sub(self.header.cluster_bits);
        let split = 1u64.checked_shl(shift).unwrap_or(0);
        let offset = descriptor & split.saturating_sub(1);
        let sectors = descriptor.checked_shr(shift).unwrap_or(0).saturating_add(1);
        let len = sectors.saturating_mul(512).saturating_sub(offset & 511);
        let there = len.min(self.file.len().saturating_sub(offset));
        let structure = "qcow2 compressed cluster";
        if there == 0 {
            return Err(corrupt(structure, offset, "outside the file"));
        }
        let input = read_vec(self.file.as_ref(), offset, narrow(there))?;
        let len = narrow(self.header.cluster_size());
        let packed = match self.compression {
            Compression::Zlib => Packed::deflated(input, len, Wrapping::Raw),
            Compression::Zstd => {
                let mut out = vec![0; len];
                unzstd(&input, &mut out).map_err(|problem| corrupt(structure, offset, problem))?;
                Packed::whole(out)
            }
        };
        Ok(Compressed {
            structure,
            position: offset,
            packed,
        })
    }
}

fn unzstd(input: &[u8], out: &mut [u8]) -> std::result::Result<(), String> {
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(input).map_err(|e| e.to_string())?;
    decoder.read_exact(out).map_err(|e| e.to_string())
}
