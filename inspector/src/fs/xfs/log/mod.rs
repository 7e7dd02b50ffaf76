//! The log, replayed in memory: what a mount would write is an overlay over the device.
//!
//! A log is a circle of 512-byte blocks, each stamped with the number of its turn (the cycle).
//! The head is where the cycle drops; the record before it names the tail. Between the two lie
//! the records of transactions that may not have reached their place.

mod items;
mod overlay;
mod record;
mod transaction;

use super::superblock::SuperBlock;
use crate::bytes::{Record, narrow, read_vec, wide};
use crate::error::{DiskError, Result};
use crate::read_at::Layer;
use items::Replay;
use record::Header;
use transaction::Assembly;

const SECTOR: u64 = 512;
/// `XFS_MAX_LOG_BYTES` is below 2 GiB.
const LOG_SECTORS_MAX: u64 = (2 << 30) / SECTOR;
/// Sectors in flight at once: eight buffers of 256 KiB. Writes among them may land out of order.
const IN_FLIGHT: u64 = (8 * (256 << 10)) / SECTOR;

/// What replaying came to.
pub(super) enum Replayed {
    /// The file system was unmounted, or nothing was ever written.
    Clean,
    /// The device with the log's changes in place.
    Overlay {
        /// Reads like the device after a mount.
        layer: Layer,
        /// What was not replayed.
        warnings: Vec<String>,
    },
}

/// Replays the internal log.
///
/// # Errors
/// `Corrupt` or `Unsupported` when the log itself cannot be read; then it is as if it were not
/// there.
pub(super) fn replay(device: &Layer, sb: &SuperBlock) -> Result<Replayed> {
    let log = Log::open(device, sb)?;
    let Some(extent) = log.dirty()? else {
        return Ok(Replayed::Clean);
    };
    let mut replay = Replay::new(device, sb);
    // First pass: which buffers were freed and must not be written to.
    log.transactions(&extent, &mut |t| replay.note_cancelled(&t))?;
    let torn = log.transactions(&extent, &mut |t| replay.apply(t))?;
    Ok(replay.finish(torn))
}

struct Log {
    device: Layer,
    start: u64,
    sectors: u64,
}

/// The live part of the log, in sectors.
struct Extent {
    tail: u64,
    head: u64,
}

impl Log {
    fn open(device: &Layer, sb: &SuperBlock) -> Result<Self> {
        if sb.log_start == 0 {
            return Err(DiskError::Unsupported {
                feature: "xfs external log".into(),
            });
        }
        let bytes = sb.log_blocks.saturating_mul(sb.block_size);
        let sectors = bytes / SECTOR;
        let corrupt = || DiskError::Corrupt {
            structure: "XFS log",
            position: 0,
            problem: format!("{} blocks from block {:#x}", sb.log_blocks, sb.log_start),
        };
        let start = sb.block_position(sb.log_start).ok_or_else(corrupt)?;
        if !(8..=LOG_SECTORS_MAX).contains(&sectors) || start.saturating_add(bytes) > device.len() {
            return Err(corrupt());
        }
        Ok(Self {
            device: device.clone(),
            start,
            sectors,
        })
    }

    /// Byte position of a sector.
    fn position(&self, sector: u64) -> u64 {
        self.start.saturating_add(sector.saturating_mul(SECTOR))
    }

    /// Reads `count` sectors from `at` on, around the end.
    fn read(&self, at: u64, count: u64) -> Result<Vec<u8>> {
        let count = count.min(self.sectors);
        let first = count.min(self.sectors.saturating_sub(at));
        let bytes = |n: u64| narrow(n.saturating_mul(SECTOR));
        let mut data = read_vec(self.device.as_ref(), self.position(at), bytes(first))?;
        if first < count {
            let rest = bytes(count.saturating_sub(first));
            data.extend(read_vec(self.device.as_ref(), self.position(0), rest)?);
        }
        Ok(data)
    }

    /// Wraps a sector number that may be up to one turn too large.
    fn wrap(&self, sector: u64) -> u64 {
        sector.checked_rem(self.sectors).unwrap_or(0)
    }

    /// `count` sectors before `sector`.
    fn before(&self, sector: u64, count: u64) -> u64 {
        self.wrap(
            sector
                .saturating_add(self.sectors)
                .saturating_sub(count.min(self.sectors)),
        )
    }

    fn cycle(&self, sector: u64) -> Result<u32> {
        let position = self.position(sector);
        let raw = read_vec(self.device.as_ref(), position, 8)?;
        cycle_of(&Record::new("XFS log", position, &raw))
    }

    /// The live part; `None` for a log that holds nothing.
    fn dirty(&self) -> Result<Option<Extent>> {
        let Some(head) = self.head()? else {
            return Ok(None);
        };
        // An unmount is a record of one block behind its header.
        if self.unmounted(head)? {
            return Ok(None);
        }
        let head = self.without_holes(head)?;
        let window = self.sectors.min(IN_FLIGHT);
        let start = self.before(head, window);
        let raw = self.read(start, window)?;
        for (back, sector) in (1u64..).zip(raw.rchunks_exact(narrow(SECTOR))) {
            if !sector.starts_with(&record::MAGIC.to_be_bytes()) {
                continue;
            }
            let at = self.before(head, back);
            let header = Header::parse(sector, self.position(at))?;
            let tail = header.tail_lsn & 0xffff_ffff;
            if tail >= self.sectors {
                return Err(header.corrupt("tail beyond the log"));
            }
            if header.operations == 1 && self.is_unmount(&header, at)? {
                return Ok(None);
            }
            return Ok(Some(Extent { tail, head }));
        }
        Err(DiskError::Corrupt {
            structure: "XFS log",
            position: self.start,
            problem: "no record before the head".into(),
        })
    }

    /// Where the next record would be written. `None` when none ever was.
    fn head(&self) -> Result<Option<u64>> {
        let last_sector = self.sectors.saturating_sub(1);
        let (first, last) = (self.cycle(0)?, self.cycle(last_sector)?);
        if first == 0 {
            return Ok(None);
        }
        if first == last {
            return Ok(Some(0));
        }
        // Blocks of the newest cycle come first, then those of the one before, or zeros.
        let (mut low, mut high) = (0, last_sector);
        while high.saturating_sub(low) > 1 {
            let middle = low.midpoint(high);
            if self.cycle(middle)? == first {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(Some(high))
    }

    fn unmounted(&self, head: u64) -> Result<bool> {
        let at = self.before(head, 2);
        let raw = self.read(at, 1)?;
        if !raw.starts_with(&record::MAGIC.to_be_bytes()) {
            return Ok(false);
        }
        let header = Header::parse(&raw, self.position(at))?;
        Ok(header.operations == 1 && self.is_unmount(&header, at)?)
    }

    fn is_unmount(&self, header: &Header, at: u64) -> Result<bool> {
        let data = self.read(self.wrap(at.saturating_add(header.sectors())), 1)?;
        Ok(transaction::is_unmount(&data))
    }

    /// Writes in flight may have landed with a gap before them: the head is where the first gap
    /// is.
    fn without_holes(&self, head: u64) -> Result<u64> {
        let window = self.sectors.min(IN_FLIGHT).saturating_sub(1);
        let newest = self.cycle(self.before(head, 1))?;
        let start = self.before(head, window);
        let raw = self.read(start, window)?;
        for (i, sector) in (0u64..).zip(raw.chunks_exact(narrow(SECTOR))) {
            let at = self.wrap(start.saturating_add(i));
            // Around the end one cycle less is right.
            let expected = if at >= head && head > 0 {
                newest.wrapping_sub(1)
            } else {
                newest
            };
            let r = Record::new("XFS log", self.start, sector);
            if newest > 1 && cycle_of(&r)? < expected {
                return Ok(at);
            }
        }
        Ok(head)
    }

    /// Calls `each` for every committed transaction from the tail on, in the order of their
    /// commits. Answers whether a torn record ended the log early.
    fn transactions(
        &self,
        extent: &Extent,
        each: &mut dyn FnMut(transaction::Transaction) -> Result<()>,
    ) -> Result<bool> {
        let mut assembly = Assembly::default();
        let live = self.before(extent.head, extent.tail);
        let mut done = 0u64;
        // Each record takes a sector at least.
        while done < live {
            let at = self.wrap(extent.tail.saturating_add(done));
            let raw = self.read(at, 1)?;
            let position = self.position(at);
            if !raw.starts_with(&record::MAGIC.to_be_bytes()) {
                return Ok(true);
            }
            let header = Header::parse(&raw, position)?;
            let total = header.sectors().saturating_add(header.data_sectors());
            if total > live.saturating_sub(done) {
                return Ok(true);
            }
            let whole = self.read(at, total)?;
            let Some(data) = header.unpack(&whole)? else {
                return Ok(true);
            };
            assembly.add(&header, &data, each)?;
            done = done.saturating_add(total);
        }
        Ok(false)
    }
}

/// The stamp of a sector: its first word, or the one after a record's magic.
fn cycle_of(r: &Record<'_>) -> Result<u32> {
    match r.u32_be(0)? {
        record::MAGIC => r.u32_be(4),
        cycle => Ok(cycle),
    }
}

/// Compares log sequence numbers: cycle above, block below.
fn newer(a: u64, b: u64) -> bool {
    a > b
}

/// Bytes held of transactions that are being put together, and of changes: a log of 2 GiB must
/// not become memory.
const BYTES_MAX: u64 = 64 << 20;

fn too_much() -> DiskError {
    DiskError::Unsupported {
        feature: format!("xfs log with more than {BYTES_MAX} bytes to replay"),
    }
}

fn within(total: usize) -> Result<()> {
    if wide(total) > BYTES_MAX {
        return Err(too_much());
    }
    Ok(())
}
