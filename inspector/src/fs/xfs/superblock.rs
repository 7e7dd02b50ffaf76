//! The primary superblock and what it makes of block and inode numbers.

use crate::bytes::{Record, label, read_vec, uuid};
use crate::crc32::crc32c;
use crate::error::{DiskError, Result};
use crate::fs::FileSystemFacts;
use crate::read_at::ReadAt;

const LENGTH: usize = 512;

pub(super) const INCOMPAT_FTYPE: u32 = 0x1;
const INCOMPAT_META_UUID: u32 = 0x4;
/// Incompatible features that change nothing a reader does, or that are read: ftype, sparse
/// inodes, meta_uuid, bigtime, needsrepair, nrext64, exchange-range, parent, metadir.
const INCOMPAT_READ: u32 = 0x1ff;

const VERSION_DIRV2: u16 = 0x2000;
const VERSION_BORG: u16 = 0x4000;
const VERSION_MOREBITS: u16 = 0x8000;
const FEATURES2_FTYPE: u32 = 0x200;

/// Parsed and bounded: shifts are below 32, sizes are powers of two.
#[derive(Debug, Clone)]
pub(super) struct SuperBlock {
    pub(super) block_size: u64,
    pub(super) block_log: u32,
    pub(super) blocks: u64,
    pub(super) ag_blocks: u64,
    pub(super) ag_count: u64,
    pub(super) ag_block_log: u32,
    pub(super) inode_size: u64,
    pub(super) inodes_per_block_log: u32,
    pub(super) root: u64,
    /// First block of the internal log; 0 for a log on another device.
    pub(super) log_start: u64,
    pub(super) log_blocks: u64,
    /// File system blocks of a directory block, as a power of two.
    pub(super) dir_block_log: u32,
    pub(super) version: u16,
    /// Whether directory entries carry a type.
    pub(super) ftype: bool,
    /// Whether names are hashed without regard to case.
    pub(super) ascii_ci: bool,
    /// UUID that metadata blocks carry.
    pub(super) meta_uuid: [u8; 16],
    features: Vec<String>,
    unread: Option<String>,
    uuid: [u8; 16],
    volume: Option<String>,
    warnings: Vec<String>,
}

/// Whether an XFS superblock may be there: magic, and a block size that can be.
pub(crate) fn recognise(layer: &dyn ReadAt) -> Result<bool> {
    if layer.len() < 1024 {
        return Ok(false);
    }
    let raw = read_vec(layer, 0, LENGTH)?;
    let r = Record::new("XFS superblock", 0, &raw);
    let block = r.u32_be(4)?;
    Ok(r.slice(0, 4)? == b"XFSB" && block.is_power_of_two() && (512..=65_536).contains(&block))
}

impl SuperBlock {
    pub(super) fn read(layer: &dyn ReadAt) -> Result<Self> {
        let raw = read_vec(layer, 0, LENGTH)?;
        let r = Record::new("XFS superblock", 0, &raw);
        if r.slice(0, 4)? != b"XFSB" {
            return Err(r.corrupt(0, "no XFS magic"));
        }
        let block_size = r.u32_be(4)?;
        if !block_size.is_power_of_two() || !(512..=65_536).contains(&block_size) {
            return Err(r.corrupt(4, format!("sb_blocksize {block_size}")));
        }
        let inode_size = u32::from(r.u16_be(104)?);
        if !inode_size.is_power_of_two()
            || !(256..=2048).contains(&inode_size)
            || inode_size > block_size
        {
            return Err(r.corrupt(104, format!("sb_inodesize {inode_size}")));
        }
        let (ag_blocks, ag_count) = (u64::from(r.u32_be(84)?), u64::from(r.u32_be(88)?));
        let ag_block_log = u32::from(r.u8(124)?);
        let covers = 1u64.checked_shl(ag_block_log).unwrap_or(0);
        if ag_blocks == 0 || ag_block_log > 31 || covers < ag_blocks || ag_count == 0 {
            return Err(r.corrupt(
                84,
                format!("{ag_count} groups of {ag_blocks} blocks, sb_agblklog {ag_block_log}"),
            ));
        }
        let blocks = r.u64_be(8)?;
        if blocks > ag_blocks.saturating_mul(ag_count) {
            return Err(r.corrupt(8, format!("sb_dblocks {blocks}")));
        }
        let dir_block_log = u32::from(r.u8(192)?);
        if dir_block_log > 7 || u64::from(block_size) << dir_block_log > 65_536 {
            return Err(r.corrupt(192, format!("sb_dirblklog {dir_block_log}")));
        }
        let versionnum = r.u16_be(100)?;
        let features2 = if versionnum & VERSION_MOREBITS != 0 {
            r.u32_be(200)? | r.u32_be(204)?
        } else {
            0
        };
        let version = versionnum & 0xf;
        let v5 = version == 5;
        let (ro_compat, incompat) = if v5 {
            (r.u32_be(212)?, r.u32_be(216)?)
        } else {
            (0, 0)
        };
        let meta_at = if incompat & INCOMPAT_META_UUID != 0 {
            248
        } else {
            32
        };
        let mut warnings = Vec::new();
        if v5 && checksum(&raw) != r.u32_le(224)? {
            warnings.push("XFS superblock: checksum does not match".to_owned());
        }
        Ok(Self {
            block_size: u64::from(block_size),
            block_log: block_size.trailing_zeros(),
            blocks,
            ag_blocks,
            ag_count,
            ag_block_log,
            inode_size: u64::from(inode_size),
            inodes_per_block_log: (block_size.checked_div(inode_size).unwrap_or(1))
                .trailing_zeros(),
            root: r.u64_be(56)?,
            log_start: r.u64_be(48)?,
            log_blocks: u64::from(r.u32_be(96)?),
            dir_block_log,
            version,
            ftype: if v5 {
                incompat & INCOMPAT_FTYPE != 0
            } else {
                features2 & FEATURES2_FTYPE != 0
            },
            ascii_ci: versionnum & VERSION_BORG != 0,
            meta_uuid: r.array(meta_at)?,
            features: names(versionnum, features2, ro_compat, incompat),
            unread: unread(version, versionnum, incompat),
            uuid: r.array(32)?,
            volume: label(r.slice(108, 12)?),
            warnings,
        })
    }

    /// The feature that forbids reading, if there is one.
    pub(super) fn refuse(&self) -> Result<()> {
        match &self.unread {
            None => Ok(()),
            Some(feature) => Err(DiskError::Unsupported {
                feature: feature.clone(),
            }),
        }
    }

    pub(super) fn facts(&self) -> FileSystemFacts {
        FileSystemFacts {
            fs_type: "xfs".to_owned(),
            uuid: uuid(&self.uuid),
            label: self.volume.clone(),
            size_bytes: Some(self.blocks.saturating_mul(self.block_size)),
            block_size: u32::try_from(self.block_size).ok(),
            features: self.features.clone(),
            needs_recovery: false,
            warnings: self.warnings.clone(),
        }
    }

    pub(super) fn is_v5(&self) -> bool {
        self.version == 5
    }

    /// Byte position of a block number as metadata holds it: allocation group above, block in it
    /// below. `None` when there is no such block.
    pub(super) fn block_position(&self, number: u64) -> Option<u64> {
        let group = number.checked_shr(self.ag_block_log)?;
        let mask = 1u64.checked_shl(self.ag_block_log)?.wrapping_sub(1);
        let within = number & mask;
        if group >= self.ag_count || within >= self.ag_blocks {
            return None;
        }
        let block = group.saturating_mul(self.ag_blocks).saturating_add(within);
        (block < self.blocks).then(|| block.saturating_mul(self.block_size))
    }

    /// Byte position of an inode. `None` when there can be none of that number.
    pub(super) fn inode_position(&self, number: u64) -> Option<u64> {
        let block = number.checked_shr(self.inodes_per_block_log)?;
        let mask = 1u64.checked_shl(self.inodes_per_block_log)?.wrapping_sub(1);
        let start = self.block_position(block)?;
        Some(start.saturating_add((number & mask).saturating_mul(self.inode_size)))
    }
}

/// CRC-32C over the sector with the checksum's own field zero.
fn checksum(sector: &[u8]) -> u32 {
    let before = crc32c(!0, sector.get(..224).unwrap_or_default());
    let zeroed = crc32c(before, &[0; 4]);
    !crc32c(zeroed, sector.get(228..).unwrap_or_default())
}

fn unread(version: u16, versionnum: u16, incompat: u32) -> Option<String> {
    if !(4..=5).contains(&version) {
        return Some(format!("xfs version {version}"));
    }
    if versionnum & VERSION_DIRV2 == 0 {
        return Some("xfs directories of version 1".to_owned());
    }
    match incompat & !INCOMPAT_READ {
        0 => None,
        bits if bits & 0x200 != 0 => Some("xfs zoned devices".to_owned()),
        bits => Some(format!("xfs incompatible features {bits:#x}")),
    }
}

/// Names as xfs_info prints them, sorted.
fn names(versionnum: u16, features2: u32, ro_compat: u32, incompat: u32) -> Vec<String> {
    let mut names = Vec::new();
    let mut add = |set: bool, name: &str| {
        if set {
            names.push(name.to_owned());
        }
    };
    let v5 = versionnum & 0xf == 5;
    add(versionnum & 0x10 != 0, "attr");
    add(versionnum & VERSION_BORG != 0, "ascii-ci");
    add(versionnum & 0x400 != 0, "logv2");
    add(features2 & 0x2 != 0, "lazy-count");
    add(features2 & 0x8 != 0, "attr2");
    add(v5 || features2 & 0x80 != 0, "projid32bit");
    add(v5, "crc");
    for (bit, name) in [
        (1, "finobt"),
        (2, "rmapbt"),
        (4, "reflink"),
        (8, "inobtcount"),
    ] {
        add(ro_compat & bit != 0, name);
    }
    add(
        incompat & INCOMPAT_FTYPE != 0 || features2 & FEATURES2_FTYPE != 0,
        "ftype",
    );
    for (bit, name) in [
        (0x2, "sparse"),
        (INCOMPAT_META_UUID, "meta-uuid"),
        (0x8, "bigtime"),
        (0x10, "needsrepair"),
        (0x20, "nrext64"),
        (0x40, "exchange"),
        (0x80, "parent"),
        (0x100, "metadir"),
    ] {
        add(incompat & bit != 0, name);
    }
    names.sort();
    names
}
