//! The superblock (`struct erofs_super_block`), 1024 bytes into the device.

use crate::bytes::{Record, read_upto};
use crate::crc32::crc32c;
use crate::error::{DiskError, Result};
use crate::read_at::ReadAt;

/// Where it lies.
const AT: u64 = 1024;
/// Bytes without extension slots.
const LEN: usize = 128;

/// Features that a reader has to know (`feature_incompat`); some bits have two names.
const ZERO_PADDING: u32 = 1;
const CONFIGURED: u32 = 2;
const SHARED_DEVICES: u32 = 8;
const TAIL_PACKING: u32 = 0x10;
const FRAGMENTS: u32 = 0x20;
const LONG_ADDRESSES: u32 = 0x80;
const META_BOX: u32 = 0x100;

/// Of `feature_compat`: prefixes are not in the packed inode.
const PLAIN_PREFIXES: u32 = 0x10;

/// The names of the bits, as `/sys/fs/erofs/features` has them.
const NAMES: [(u32, &str); 9] = [
    (ZERO_PADDING, "zero_padding"),
    (CONFIGURED, "big_pcluster"),
    (4, "chunked_file"),
    (SHARED_DEVICES, "compr_head2"),
    (TAIL_PACKING, "ztailpacking"),
    (FRAGMENTS, "fragments"),
    (0x40, "xattr_prefixes"),
    (LONG_ADDRESSES, "48bit"),
    (META_BOX, "metabox"),
];

/// What reading needs of it.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    pub(super) block_bits: u32,
    pub(super) root: u64,
    /// Time of files whose inode has none of its own.
    pub(super) epoch: u64,
    meta_start: u64,
    pub(super) xattr_start: u64,
    pub(super) packed: u64,
    /// Where the beginnings of names are that the file system itself defines, and their number.
    pub(super) prefixes_at: u64,
    pub(super) prefixes: u8,
    /// Whether that is a place in the packed inode.
    pub(super) prefixes_packed: bool,
    incompatible: u32,
    /// Whether there is a checksum and it is wrong.
    pub(super) damaged_sum: bool,
}

impl Superblock {
    pub(super) fn read(device: &dyn ReadAt) -> Result<Self> {
        let raw = read_upto(device, AT, LEN)?;
        let r = Record::new("erofs superblock", AT, &raw);
        let block_bits = u32::from(r.u8(12)?);
        // As the kernel: from a sector to the largest page.
        if !(9..=16).contains(&block_bits) {
            return Err(r.corrupt(12, format!("blocks of 2^{block_bits} bytes")));
        }
        let incompatible = r.u32_le(80)?;
        let known = NAMES.iter().fold(0, |bits, (bit, _)| bits | bit);
        let refuse = |feature: String| {
            Err(DiskError::Unsupported {
                feature: format!("erofs {feature}"),
            })
        };
        if incompatible & !known != 0 {
            return refuse(format!("features {:#x}", incompatible & !known));
        }
        if incompatible & (LONG_ADDRESSES | META_BOX) != 0 {
            return refuse(names(incompatible & (LONG_ADDRESSES | META_BOX)).join(", "));
        }
        if incompatible & SHARED_DEVICES != 0 && r.u16_le(86)? > 0 {
            return refuse("with further devices".to_owned());
        }
        if r.u8(90)? != 0 {
            return refuse("directory blocks of their own size".to_owned());
        }
        let bytes_of = |block: u32| u64::from(block) << block_bits;
        Ok(Self {
            block_bits,
            root: u64::from(r.u16_le(14)?),
            epoch: r.u64_le(24)?,
            meta_start: bytes_of(r.u32_le(40)?),
            xattr_start: bytes_of(r.u32_le(44)?),
            packed: r.u64_le(96)?,
            prefixes_at: u64::from(r.u32_le(92)?) << 2,
            prefixes: r.u8(91)?,
            prefixes_packed: r.u32_le(8)? & PLAIN_PREFIXES == 0
                && incompatible & FRAGMENTS != 0
                && r.u64_le(96)? != 0,
            incompatible,
            damaged_sum: r.u32_le(8)? & 1 != 0 && !sum_is_right(device, block_bits)?,
        })
    }

    pub(super) fn features(&self) -> Vec<String> {
        let mut features = names(self.incompatible);
        features.sort_unstable();
        features
    }

    pub(super) fn block_size(&self) -> u64 {
        1 << self.block_bits
    }

    /// Whether compressed data stands at the end of its blocks.
    pub(super) fn zero_padded(&self) -> bool {
        self.incompatible & ZERO_PADDING != 0
    }

    /// Whether full indexes have a header that means something.
    pub(super) fn full_header(&self) -> bool {
        self.incompatible & (CONFIGURED | TAIL_PACKING | FRAGMENTS) != 0
    }

    /// Where an inode lies: they are numbered in units of 32 bytes.
    pub(super) fn position(&self, node: u64) -> Result<u64> {
        node.checked_mul(32)
            .and_then(|at| at.checked_add(self.meta_start))
            .ok_or_else(|| DiskError::Corrupt {
                structure: "erofs inode",
                position: self.meta_start,
                problem: format!("number {node}"),
            })
    }
}

fn names(bits: u32) -> Vec<String> {
    NAMES
        .iter()
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, name)| (*name).to_owned())
        .collect()
}

/// CRC-32C of the superblock's block from the superblock on, with its own field as zero.
fn sum_is_right(device: &dyn ReadAt, block_bits: u32) -> Result<bool> {
    let block = 1usize.checked_shl(block_bits).unwrap_or(0);
    let len = match block.checked_sub(1024) {
        Some(rest @ 1..) => rest,
        _ => block,
    };
    let mut raw = read_upto(device, AT, len)?;
    let stored = Record::new("erofs superblock", AT, &raw).u32_le(4)?;
    raw.iter_mut().skip(4).take(4).for_each(|byte| *byte = 0);
    Ok(crc32c(!0, &raw) == stored)
}
