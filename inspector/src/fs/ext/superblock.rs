//! The superblock at byte 1024, and where it puts group descriptors and inode tables.

use super::features::{
    COMPAT_SPARSE_SUPER2, Features, INCOMPAT_64BIT, INCOMPAT_META_BG, INCOMPAT_RECOVER,
    RO_COMPAT_BIGALLOC, RO_COMPAT_METADATA_CSUM, RO_COMPAT_SPARSE_SUPER,
};
use crate::bytes::{Record, label, read_vec, uuid};
use crate::crc32::crc32c;
use crate::error::Result;
use crate::fs::FileSystemFacts;
use crate::read_at::ReadAt;

pub(super) const POSITION: u64 = 1024;
const LENGTH: usize = 1024;
const MAGIC: u16 = 0xef53;

/// Whether an ext superblock may be there: enough bytes and the magic.
pub(crate) fn recognise(layer: &dyn ReadAt) -> Result<bool> {
    if layer.len() < POSITION.saturating_add(1024) {
        return Ok(false);
    }
    let raw = read_vec(layer, POSITION, LENGTH)?;
    Ok(Record::new("ext superblock", POSITION, &raw).u16_le(0x38)? == MAGIC)
}

/// Parsed and bounded: every field that is a divisor is not zero.
#[derive(Debug, Clone)]
pub(super) struct SuperBlock {
    pub(super) features: Features,
    pub(super) block_size: u64,
    /// Allocation unit: larger than a block with `bigalloc`.
    pub(super) cluster_size: u64,
    pub(super) blocks: u64,
    pub(super) inodes: u32,
    pub(super) inodes_per_group: u32,
    pub(super) inode_size: u64,
    pub(super) journal_inode: u32,
    pub(super) hash_seed: [u32; 4],
    pub(super) hash_unsigned: bool,
    blocks_per_group: u64,
    first_data_block: u64,
    first_meta_bg: u64,
    backup_groups: [u32; 2],
    desc_size: u64,
    uuid: [u8; 16],
    volume: Option<String>,
    checksum_fails: bool,
}

impl SuperBlock {
    pub(super) fn read(layer: &dyn ReadAt) -> Result<Self> {
        let raw = read_vec(layer, POSITION, LENGTH)?;
        let r = Record::new("ext superblock", POSITION, &raw);
        if r.u16_le(0x38)? != MAGIC {
            return Err(r.corrupt(0x38, "no ext magic"));
        }
        let features = Features {
            compat: r.u32_le(0x5c)?,
            incompat: r.u32_le(0x60)?,
            ro_compat: r.u32_le(0x64)?,
        };
        // Revision 0 has fixed inodes of 128 bytes and no feature words.
        let dynamic = r.u32_le(0x4c)? >= 1;
        let log_block_size = r.u32_le(0x18)?;
        if log_block_size > 6 {
            return Err(r.corrupt(0x18, format!("log_block_size {log_block_size}, at most 6")));
        }
        let block_size = 1024u64.checked_shl(log_block_size).unwrap_or(1024);
        let log_cluster_size = r.u32_le(0x1c)?;
        let cluster_size = if features.ro_compat & RO_COMPAT_BIGALLOC != 0 {
            1024u64.checked_shl(log_cluster_size).unwrap_or(block_size)
        } else {
            block_size
        };
        let wide = features.incompat & INCOMPAT_64BIT != 0;
        let blocks_high = if wide { r.u32_le(0x150)? } else { 0 };
        let inode_size = if dynamic {
            u64::from(r.u16_le(0x58)?)
        } else {
            128
        };
        if inode_size < 128 || inode_size > block_size || !inode_size.is_power_of_two() {
            return Err(r.corrupt(0x58, format!("inode_size {inode_size}")));
        }
        let desc_size = if wide { u64::from(r.u16_le(0xfe)?) } else { 32 };
        if desc_size < 32 || desc_size > block_size || !desc_size.is_power_of_two() {
            return Err(r.corrupt(0xfe, format!("desc_size {desc_size}")));
        }
        let blocks_per_group = u64::from(r.u32_le(0x20)?);
        let inodes_per_group = r.u32_le(0x28)?;
        if blocks_per_group == 0 {
            return Err(r.corrupt(0x20, "blocks_per_group 0"));
        }
        if inodes_per_group == 0 {
            return Err(r.corrupt(0x28, "inodes_per_group 0"));
        }
        let uuid = r.array::<16>(0x68)?;
        let checked = features.ro_compat & RO_COMPAT_METADATA_CSUM != 0;
        Ok(Self {
            features,
            block_size,
            cluster_size,
            blocks: u64::from(r.u32_le(4)?) | (u64::from(blocks_high) << 32),
            inodes: r.u32_le(0)?,
            inodes_per_group,
            inode_size,
            journal_inode: r.u32_le(0xe0)?,
            hash_seed: [
                r.u32_le(0xec)?,
                r.u32_le(0xf0)?,
                r.u32_le(0xf4)?,
                r.u32_le(0xf8)?,
            ],
            hash_unsigned: r.u32_le(0x160)? & 2 != 0,
            blocks_per_group,
            first_data_block: u64::from(r.u32_le(0x14)?),
            first_meta_bg: u64::from(r.u32_le(0x104)?),
            backup_groups: [r.u32_le(0x24c)?, r.u32_le(0x250)?],
            desc_size,
            uuid,
            volume: label(r.slice(0x78, 16)?),
            checksum_fails: checked && crc32c(!0, r.slice(0, 0x3fc)?) != r.u32_le(0x3fc)?,
        })
    }

    pub(super) fn facts(&self) -> FileSystemFacts {
        let mut warnings = Vec::new();
        if self.checksum_fails {
            warnings.push("ext superblock: checksum does not match".to_owned());
        }
        FileSystemFacts {
            fs_type: self.features.fs_type().to_owned(),
            uuid: uuid(&self.uuid),
            label: self.volume.clone(),
            size_bytes: Some(self.blocks.saturating_mul(self.block_size)),
            block_size: u32::try_from(self.block_size).ok(),
            features: self.features.names(),
            needs_recovery: self.needs_recovery(),
            warnings,
        }
    }

    pub(super) fn needs_recovery(&self) -> bool {
        self.features.incompat & INCOMPAT_RECOVER != 0
    }

    /// Byte position of an inode, whose number is at least 1.
    pub(super) fn inode_position(&self, layer: &dyn ReadAt, number: u32) -> Result<u64> {
        let index = number.saturating_sub(1);
        let group = u64::from(index.checked_div(self.inodes_per_group).unwrap_or(0));
        let within = u64::from(index.checked_rem(self.inodes_per_group).unwrap_or(0));
        let at = self.descriptor_position(group);
        let mut raw = [0; 64];
        let len = if self.desc_size >= 64 { 64 } else { 32 };
        let (used, _) = raw.split_at_mut(len);
        layer.read_exact_at(at, used)?;
        let r = Record::new("ext group descriptor", at, &raw);
        let high = if len == 64 { r.u32_le(0x28)? } else { 0 };
        let table = u64::from(r.u32_le(8)?) | (u64::from(high) << 32);
        if table == 0 || table >= self.blocks {
            return Err(r.corrupt(8, format!("inode table of group {group} at block {table}")));
        }
        Ok(table
            .saturating_mul(self.block_size)
            .saturating_add(within.saturating_mul(self.inode_size)))
    }

    /// Descriptors follow the superblock; with `meta_bg` each block of them lies in the first
    /// group that it describes.
    fn descriptor_position(&self, group: u64) -> u64 {
        let per_block = self.block_size.checked_div(self.desc_size).unwrap_or(1);
        let index = group.checked_div(per_block).unwrap_or(0);
        let within = group
            .checked_rem(per_block)
            .unwrap_or(0)
            .saturating_mul(self.desc_size);
        let super_block = POSITION.checked_div(self.block_size).unwrap_or(0);
        let meta = self.features.incompat & INCOMPAT_META_BG != 0;
        let block = if !meta || index < self.first_meta_bg {
            super_block.saturating_add(1).saturating_add(index)
        } else {
            let first = index.saturating_mul(per_block);
            let start = self
                .first_data_block
                .saturating_add(first.saturating_mul(self.blocks_per_group));
            // Blocks of 1 KiB with first_data_block 0 (bigalloc): the boot block comes first.
            let boot = u64::from(first == 0 && self.first_data_block == 0 && super_block == 1);
            start
                .saturating_add(u64::from(self.has_super(first)))
                .saturating_add(boot)
        };
        block.saturating_mul(self.block_size).saturating_add(within)
    }

    fn has_super(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if self.features.compat & COMPAT_SPARSE_SUPER2 != 0 {
            return self.backup_groups.iter().any(|g| u64::from(*g) == group);
        }
        if group == 1 || self.features.ro_compat & RO_COMPAT_SPARSE_SUPER == 0 {
            return true;
        }
        [3u64, 5, 7].iter().any(|base| {
            let mut power = *base;
            while power < group {
                power = power.saturating_mul(*base);
            }
            power == group
        })
    }
}
