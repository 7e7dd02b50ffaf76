//! The jbd2 journal, replayed in memory: an overlay that answers for the blocks of committed
//! transactions from the journal itself. Nothing is copied but block numbers.

use super::inode::Inode;
use super::map;
use super::superblock::SuperBlock;
use crate::bytes::{Record, narrow, read_vec, wide};
use crate::crc32::crc32c;
use crate::error::{DiskError, Result};
use crate::layer::check_range;
use crate::read_at::{Layer, ReadAt};
use std::collections::HashMap;
use std::sync::Arc;

const MAGIC: u32 = 0xc03b_3998;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const REVOKE: u32 = 5;

const INCOMPAT_REVOKE: u32 = 0x1;
const INCOMPAT_64BIT: u32 = 0x2;
const INCOMPAT_ASYNC_COMMIT: u32 = 0x4;
const INCOMPAT_CSUM_V2: u32 = 0x8;
const INCOMPAT_CSUM_V3: u32 = 0x10;
const INCOMPAT_FAST_COMMIT: u32 = 0x20;
const INCOMPAT_KNOWN: u32 = INCOMPAT_REVOKE
    | INCOMPAT_64BIT
    | INCOMPAT_ASYNC_COMMIT
    | INCOMPAT_CSUM_V2
    | INCOMPAT_CSUM_V3
    | INCOMPAT_FAST_COMMIT;

const TAG_ESCAPED: u32 = 1;
const TAG_SAME_UUID: u32 = 2;
const TAG_LAST: u32 = 8;

/// Blocks of a journal: mke2fs makes 1 GiB at most unless told otherwise; this is that with blocks
/// of 1 KiB. A longer one is not replayed.
const LOG_BLOCKS_MAX: u64 = 1 << 20;
/// Revoked blocks, for the same reason as [`REPLACED_MAX`].
const REVOKED_MAX: usize = 1_000_000;
/// Blocks that the overlay may replace: bounds its memory to some 64 MiB.
const REPLACED_MAX: usize = 1_000_000;

/// The device with its journal replayed.
///
/// # Errors
/// `Corrupt` or `Unsupported` when the journal itself cannot be read; then it is as if it were
/// not there.
pub(super) fn replay(device: &Layer, sb: &SuperBlock) -> Result<Layer> {
    if sb.journal_inode == 0 {
        return Err(DiskError::Unsupported {
            feature: "ext external journal".into(),
        });
    }
    let log = Log::open(device, sb)?;
    let replaced = log.collect()?;
    if replaced.is_empty() {
        return Ok(Arc::clone(device));
    }
    Ok(Arc::new(Replayed {
        device: Arc::clone(device),
        block_size: sb.block_size,
        replaced,
    }))
}

/// The journal file and its superblock.
struct Log {
    device: Layer,
    block_size: u64,
    /// Device block of each stretch of the journal: (first logical block, device block, length).
    runs: Vec<(u64, u64, u64)>,
    first: u64,
    /// One past the last block of the circular part.
    end: u64,
    start: u64,
    sequence: u32,
    incompat: u32,
    checksum_seed: u32,
}

/// Where the newest content of a block is.
#[derive(Debug, Clone, Copy)]
struct Replacement {
    position: u64,
    escaped: bool,
}

/// One block as a descriptor names it.
struct Tag {
    block: u64,
    escaped: bool,
    log_block: u64,
    sequence: u32,
}

/// What a pass over the log found.
#[derive(Default)]
struct Found {
    tags: Vec<Tag>,
    revoked: HashMap<u64, u32>,
}

impl Log {
    fn open(device: &Layer, sb: &SuperBlock) -> Result<Self> {
        let inode = Inode::read(device.as_ref(), sb, sb.journal_inode)?;
        let blocks = inode.metadata.size.checked_div(sb.block_size).unwrap_or(0);
        if blocks > LOG_BLOCKS_MAX {
            return Err(too_long());
        }
        let mut runs = Vec::new();
        let mut block = 0u64;
        while block < blocks {
            let run = map::run_at(device.as_ref(), sb, &inode, block)?;
            if let Some(physical) = run.physical {
                runs.push((block, physical, run.len));
            }
            block = block.saturating_add(run.len);
        }
        let mut log = Self {
            device: Arc::clone(device),
            block_size: sb.block_size,
            runs,
            first: 1,
            end: 1,
            start: 0,
            sequence: 0,
            incompat: 0,
            checksum_seed: 0,
        };
        let (position, raw) = log.block(0)?;
        let r = Record::new("jbd2 superblock", position, &raw);
        let kind = r.u32_be(4)?;
        if r.u32_be(0)? != MAGIC || !matches!(kind, 3 | 4) {
            return Err(r.corrupt(0, format!("no journal superblock (type {kind})")));
        }
        if u64::from(r.u32_be(0x0c)?) != sb.block_size {
            return Err(r.corrupt(0x0c, "block size differs from the file system's"));
        }
        log.incompat = if kind == 4 { r.u32_be(0x28)? } else { 0 };
        if log.incompat & !INCOMPAT_KNOWN != 0 {
            return Err(DiskError::Unsupported {
                feature: format!("jbd2 features {:#x}", log.incompat & !INCOMPAT_KNOWN),
            });
        }
        let fast_commit = match r.u32_be(0x54)? {
            _ if log.incompat & INCOMPAT_FAST_COMMIT == 0 => 0,
            0 => 256,
            n => n,
        };
        log.first = u64::from(r.u32_be(0x14)?).max(1);
        log.end = u64::from(r.u32_be(0x10)?)
            .min(blocks)
            .saturating_sub(u64::from(fast_commit));
        log.sequence = r.u32_be(0x18)?;
        log.start = u64::from(r.u32_be(0x1c)?);
        log.checksum_seed = crc32c(!0, r.slice(0x30, 16)?);
        if log.start != 0 && (log.start < log.first || log.start >= log.end) {
            return Err(r.corrupt(0x1c, format!("start {} of {}", log.start, log.end)));
        }
        Ok(log)
    }

    fn position(&self, block: u64) -> Result<u64> {
        let after = self.runs.partition_point(|(first, ..)| *first <= block);
        let run = after.checked_sub(1).and_then(|i| self.runs.get(i));
        match run {
            Some((first, physical, len)) if block.saturating_sub(*first) < *len => Ok(physical
                .saturating_add(block.saturating_sub(*first))
                .saturating_mul(self.block_size)),
            _ => Err(DiskError::Corrupt {
                structure: "jbd2 journal",
                position: block,
                problem: "the journal file has a hole".into(),
            }),
        }
    }

    fn block(&self, block: u64) -> Result<(u64, Vec<u8>)> {
        let position = self.position(block)?;
        let raw = read_vec(self.device.as_ref(), position, narrow(self.block_size))?;
        Ok((position, raw))
    }

    fn next(&self, block: u64) -> u64 {
        let next = block.saturating_add(1);
        if next >= self.end { self.first } else { next }
    }

    fn checksummed(&self) -> bool {
        self.incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3) != 0
    }

    /// Blocks of committed transactions that no later transaction revoked.
    fn collect(&self) -> Result<HashMap<u64, Replacement>> {
        let found = self.scan()?;
        let mut replaced = HashMap::new();
        for tag in found.tags {
            let revoked = found.revoked.get(&tag.block);
            if revoked.is_some_and(|by| !before(*by, tag.sequence)) {
                continue;
            }
            let position = self.position(tag.log_block)?;
            let escaped = tag.escaped;
            replaced.insert(tag.block, Replacement { position, escaped });
            if replaced.len() > REPLACED_MAX {
                return Err(too_long());
            }
        }
        Ok(replaced)
    }

    /// Walks the log once. A transaction counts when its commit block is there; the log ends at
    /// the first block that does not belong.
    fn scan(&self) -> Result<Found> {
        let mut found = Found::default();
        let mut pending = Found::default();
        let mut sequence = self.sequence;
        let mut at = self.start;
        let mut walked = 0u64;
        let whole = self.end.saturating_sub(self.first);
        while at != 0 && walked < whole {
            let (position, raw) = self.block(at)?;
            let r = Record::new("jbd2 block", position, &raw);
            if r.u32_be(0)? != MAGIC || r.u32_be(8)? != sequence {
                break;
            }
            match r.u32_be(4)? {
                DESCRIPTOR if self.tail_holds(&raw) => {
                    let tags = self.tags(&r)?;
                    for (block, escaped) in tags {
                        at = self.next(at);
                        walked = walked.saturating_add(1);
                        pending.tags.push(Tag {
                            block,
                            escaped,
                            log_block: at,
                            sequence,
                        });
                    }
                }
                REVOKE if self.tail_holds(&raw) => {
                    for block in self.revoked(&r)? {
                        pending.revoked.insert(block, sequence);
                    }
                    let held = pending.revoked.len().max(found.revoked.len());
                    if held > REVOKED_MAX {
                        return Err(too_long());
                    }
                }
                COMMIT if self.commit_holds(&raw) => {
                    found.tags.append(&mut pending.tags);
                    found.revoked.extend(pending.revoked.drain());
                    sequence = sequence.wrapping_add(1);
                }
                _ => break,
            }
            at = self.next(at);
            walked = walked.saturating_add(1);
        }
        Ok(found)
    }

    fn tag_bytes(&self) -> usize {
        let wide = self.incompat & INCOMPAT_64BIT != 0;
        match (
            self.incompat & INCOMPAT_CSUM_V3 != 0,
            self.incompat & INCOMPAT_CSUM_V2 != 0,
        ) {
            (true, _) => 16,
            (false, true) if wide => 14,
            (false, true) => 10,
            (false, false) if wide => 12,
            (false, false) => 8,
        }
    }

    /// (block, escaped) of each tag of a descriptor block.
    fn tags(&self, r: &Record<'_>) -> Result<Vec<(u64, bool)>> {
        let step = self.tag_bytes();
        let v3 = self.incompat & INCOMPAT_CSUM_V3 != 0;
        let tail = if self.checksummed() { 4 } else { 0 };
        let end = r.bytes().len().saturating_sub(tail);
        let mut at = 12usize;
        let mut tags = Vec::new();
        while at.saturating_add(step) <= end {
            let flags = if v3 {
                r.u32_be(at.saturating_add(4))?
            } else {
                u32::from(r.u16_be(at.saturating_add(6))?)
            };
            let high = if self.incompat & INCOMPAT_64BIT != 0 {
                r.u32_be(at.saturating_add(8))?
            } else {
                0
            };
            let block = u64::from(r.u32_be(at)?) | (u64::from(high) << 32);
            tags.push((block, flags & TAG_ESCAPED != 0));
            if flags & TAG_LAST != 0 {
                break;
            }
            at = at.saturating_add(step);
            if flags & TAG_SAME_UUID == 0 {
                at = at.saturating_add(16);
            }
        }
        Ok(tags)
    }

    fn revoked(&self, r: &Record<'_>) -> Result<Vec<u64>> {
        let step = if self.incompat & INCOMPAT_64BIT != 0 {
            8
        } else {
            4
        };
        let used = narrow(u64::from(r.u32_be(12)?)).min(r.bytes().len());
        let mut at = 16usize;
        let mut blocks = Vec::new();
        while at.saturating_add(step) <= used {
            blocks.push(match step {
                8 => r.u64_be(at)?,
                _ => u64::from(r.u32_be(at)?),
            });
            at = at.saturating_add(step);
        }
        Ok(blocks)
    }

    /// Checksum in the last four bytes of descriptor and revoke blocks.
    fn tail_holds(&self, raw: &[u8]) -> bool {
        self.field_holds(raw, raw.len().saturating_sub(4))
    }

    /// Checksum of a commit block, in `h_chksum[0]`.
    fn commit_holds(&self, raw: &[u8]) -> bool {
        self.field_holds(raw, 16)
    }

    /// CRC-32C over the block with the field itself as zeros.
    fn field_holds(&self, raw: &[u8], field: usize) -> bool {
        if !self.checksummed() {
            return true;
        }
        let r = Record::new("jbd2 block", 0, raw);
        let after = field.saturating_add(4);
        let rest = raw.len().saturating_sub(after);
        let (Ok(head), Ok(stored), Ok(tail)) =
            (r.slice(0, field), r.u32_be(field), r.slice(after, rest))
        else {
            return false;
        };
        let crc = crc32c(self.checksum_seed, head);
        crc32c(crc32c(crc, &[0; 4]), tail) == stored
    }
}

fn too_long() -> DiskError {
    DiskError::Unsupported {
        feature: "a journal of more than a million blocks".into(),
    }
}

/// Whether transaction `a` came before `b`; numbers wrap around.
fn before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

/// A device some of whose blocks are answered from the journal.
struct Replayed {
    device: Layer,
    block_size: u64,
    replaced: HashMap<u64, Replacement>,
}

impl Replayed {
    fn read_block(&self, at: u64, newer: Replacement, buf: &mut [u8]) -> Result<()> {
        let skip = at.checked_rem(self.block_size).unwrap_or(0);
        self.device
            .read_exact_at(newer.position.saturating_add(skip), buf)?;
        // A block that began with the journal's own magic has zeros there in the log.
        if newer.escaped {
            for (offset, byte) in (skip..).zip(buf.iter_mut()).take_while(|(o, _)| *o < 4) {
                let magic = MAGIC.to_be_bytes();
                *byte = magic.get(narrow(offset)).copied().unwrap_or(0);
            }
        }
        Ok(())
    }
}

impl ReadAt for Replayed {
    fn len(&self) -> u64 {
        self.device.len()
    }

    fn read_exact_at(&self, position: u64, buf: &mut [u8]) -> Result<()> {
        check_range(position, buf.len(), self.len())?;
        let block_of = |at: u64| at.checked_div(self.block_size).unwrap_or(0);
        let mut at = position;
        let mut rest = buf;
        while !rest.is_empty() {
            let end = at.saturating_add(wide(rest.len()));
            let first = block_of(at);
            let newer = self.replaced.get(&first).copied();
            let mut past = first.saturating_add(1);
            while newer.is_none()
                && past.saturating_mul(self.block_size) < end
                && !self.replaced.contains_key(&past)
            {
                past = past.saturating_add(1);
            }
            let stop = past.saturating_mul(self.block_size).min(end);
            let (head, tail) = rest.split_at_mut(narrow(stop.saturating_sub(at)));
            match newer {
                Some(newer) => self.read_block(at, newer, head)?,
                None => self.device.read_exact_at(at, head)?,
            }
            at = stop;
            rest = tail;
        }
        Ok(())
    }
}
