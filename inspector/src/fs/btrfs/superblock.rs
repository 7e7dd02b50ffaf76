//! The superblock, its mirrors and the system chunks it carries.

use super::sum::Sum;
use crate::bytes::{Record, label, read_vec, size, uuid};
use crate::error::{DiskError, Result};
use crate::fs::FileSystemFacts;
use crate::read_at::ReadAt;

/// Where the primary superblock is, and its mirrors on devices that are large enough.
const POSITIONS: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];
const LENGTH: usize = 4096;
const MAGIC: &[u8; 8] = b"_BHRfS_M";
const SYSTEM_CHUNKS_AT: usize = 0x32b;
const SYSTEM_CHUNKS_MAX: u32 = 2048;

const INCOMPAT: [(u32, &str); 16] = [
    (0, "mixed-backref"),
    (1, "default-subvol"),
    (2, "mixed-groups"),
    (3, "compress-lzo"),
    (4, "compress-zstd"),
    (5, "big-metadata"),
    (6, "extended-iref"),
    (7, "raid56"),
    (8, "skinny-metadata"),
    (9, "no-holes"),
    (10, "metadata-uuid"),
    (11, "raid1c34"),
    (12, "zoned"),
    (13, "extent-tree-v2"),
    (14, "raid-stripe-tree"),
    (16, "simple-quota"),
];
/// Features that move what a reader looks for: superblocks in zones, other roots, other stripes.
const UNREAD: [u32; 3] = [12, 13, 14];

const COMPAT_RO: [(u32, &str); 4] = [
    (0, "free-space-tree"),
    (1, "free-space-tree-valid"),
    (2, "verity"),
    (3, "block-group-tree"),
];

/// Where a tree begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Root {
    /// Logical address of the root node.
    pub(super) address: u64,
    pub(super) level: u8,
    pub(super) generation: u64,
}

/// Parsed and bounded.
#[derive(Debug, Clone)]
pub(super) struct SuperBlock {
    pub(super) fsid: [u8; 16],
    /// UUID that nodes carry.
    pub(super) metadata_uuid: [u8; 16],
    pub(super) root: Root,
    pub(super) chunk_root: Root,
    pub(super) has_log: bool,
    pub(super) root_dir: u64,
    pub(super) devices: u64,
    pub(super) device_id: u64,
    pub(super) node_size: usize,
    pub(super) sector_size: usize,
    pub(super) system_chunks: Vec<u8>,
    pub(super) sum: Sum,
    features: Vec<String>,
    unread: Option<String>,
    total_bytes: u64,
    volume: Option<String>,
    warnings: Vec<String>,
}

/// Whether a btrfs superblock is there.
pub(crate) fn recognise(layer: &dyn ReadAt) -> Result<bool> {
    let [primary, ..] = POSITIONS;
    let magic = primary.saturating_add(0x40);
    if layer.len() < primary.saturating_add(4096) {
        return Ok(false);
    }
    Ok(read_vec(layer, magic, MAGIC.len())? == MAGIC)
}

/// UUID of the file system and how many devices it has, for a device that may be one of several.
pub(crate) fn membership(layer: &dyn ReadAt) -> Result<([u8; 16], u64)> {
    let sb = SuperBlock::read(layer)?;
    Ok((sb.fsid, sb.devices))
}

impl SuperBlock {
    /// The primary superblock, or the first mirror that holds when it does not.
    pub(super) fn read(layer: &dyn ReadAt) -> Result<Self> {
        let [primary, mirrors @ ..] = POSITIONS;
        let damage = match Self::read_at(layer, primary) {
            Ok(sb) => return Ok(sb),
            Err(e @ DiskError::Corrupt { .. }) => e,
            Err(e) => return Err(e),
        };
        for position in mirrors {
            if position.saturating_add(4096) > layer.len() {
                break;
            }
            match Self::read_at(layer, position) {
                Ok(mut sb) => {
                    sb.warnings.push(format!("a mirror is used: {damage}"));
                    return Ok(sb);
                }
                Err(DiskError::Corrupt { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Err(damage)
    }

    fn read_at(layer: &dyn ReadAt, position: u64) -> Result<Self> {
        let raw = read_vec(layer, position, LENGTH)?;
        let r = Record::new("btrfs superblock", position, &raw);
        if r.slice(0x40, 8)? != MAGIC {
            return Err(r.corrupt(0x40, "no btrfs magic"));
        }
        let sum = Sum::of_type(r.u16_le(0xc4)?)
            .ok_or_else(|| r.corrupt(0xc4, format!("csum_type {:?}", r.u16_le(0xc4))))?;
        if !sum.holds(&raw) {
            return Err(r.corrupt(0, "checksum does not match"));
        }
        if r.u64_le(0x30)? != position {
            return Err(r.corrupt(0x30, format!("says it is at {}", r.u64_le(0x30)?)));
        }
        let (sector_size, node_size) = (r.u32_le(0x90)?, r.u32_le(0x94)?);
        for (at, n) in [(0x90, sector_size), (0x94, node_size)] {
            if !n.is_power_of_two() || !(4096..=65_536).contains(&n) {
                return Err(r.corrupt(at, format!("a size of {n}")));
            }
        }
        let system_len = r.u32_le(0xa0)?;
        if system_len > SYSTEM_CHUNKS_MAX {
            return Err(r.corrupt(0xa0, format!("sys_chunk_array_size {system_len}")));
        }
        let incompat = r.u64_le(0xbc)?;
        let fsid = r.array(0x20)?;
        let metadata_uuid = if incompat & (1 << 10) != 0 {
            r.array(0x23b)?
        } else {
            fsid
        };
        let generation = r.u64_le(0x48)?;
        let mut warnings = Vec::new();
        if let Some(name) = sum.unverified() {
            warnings.push(format!("checksums of type {name} are not verified"));
        }
        Ok(Self {
            fsid,
            metadata_uuid,
            root: Root {
                address: r.u64_le(0x50)?,
                level: r.u8(0xc6)?,
                generation,
            },
            chunk_root: Root {
                address: r.u64_le(0x58)?,
                level: r.u8(0xc7)?,
                generation: r.u64_le(0xa4)?,
            },
            has_log: r.u64_le(0x60)? != 0,
            root_dir: r.u64_le(0x80)?,
            devices: r.u64_le(0x88)?,
            device_id: r.u64_le(0xc9)?,
            node_size: size(node_size),
            sector_size: size(sector_size),
            system_chunks: r.slice(SYSTEM_CHUNKS_AT, size(system_len))?.to_vec(),
            sum,
            features: names(incompat, r.u64_le(0xb4)?),
            unread: unread(incompat),
            total_bytes: r.u64_le(0x70)?,
            volume: label(r.slice(0x12b, 0x100)?),
            warnings,
        })
    }

    /// The feature that forbids reading, if there is one.
    pub(super) fn refuse(&self) -> Result<()> {
        match &self.unread {
            None => Ok(()),
            Some(name) => Err(DiskError::Unsupported {
                feature: format!("btrfs feature {name}"),
            }),
        }
    }

    pub(super) fn facts(&self) -> FileSystemFacts {
        FileSystemFacts {
            fs_type: "btrfs".to_owned(),
            uuid: uuid(&self.fsid),
            label: self.volume.clone(),
            size_bytes: Some(self.total_bytes),
            block_size: u32::try_from(self.sector_size).ok(),
            features: self.features.clone(),
            needs_recovery: self.has_log,
            warnings: self.warnings.clone(),
        }
    }
}

fn bit(word: u64, n: u32) -> bool {
    word.checked_shr(n).unwrap_or(0) & 1 == 1
}

fn names(incompat: u64, compat_ro: u64) -> Vec<String> {
    let set = |word: u64, table: &[(u32, &str)]| -> Vec<String> {
        let known = table.iter().filter(|(n, _)| bit(word, *n));
        known.map(|(_, name)| (*name).to_owned()).collect()
    };
    let mut names = set(incompat, &INCOMPAT);
    names.extend(set(compat_ro, &COMPAT_RO));
    names.sort();
    names
}

fn unread(incompat: u64) -> Option<String> {
    let name_of = |n: u32| INCOMPAT.iter().find(|(known, _)| *known == n);
    (0..64)
        .filter(|n| bit(incompat, *n))
        .find_map(|n| match name_of(n) {
            Some((_, name)) => UNREAD.contains(&n).then(|| (*name).to_owned()),
            None => Some(format!("incompat bit {n}")),
        })
}
