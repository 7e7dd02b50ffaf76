//! A hive: its base block, its recovered bins, and cells read out of them.

use super::base::{BINS_START, BaseBlock};
use super::key::Key;
use super::log::{self, Log};
use super::overlay::Overlay;
use crate::bytes::{narrow, read_upto, size, wide};
use crate::error::{DiskError, Result};
use crate::read_at::{Layer, ReadAt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Cells cluster: pages of 4 KiB, the hive's own unit, spare most reads below.
const PAGE: u64 = 4_096;
/// 2 MiB of pages, at fixed places by page number: enough for the paths of a report.
const PAGES: usize = 512;
/// Cells read of one hive: more than a whole SOFTWARE hive of 65 MB has, key by key.
const CELLS_MAX: u64 = 2_000_000;
/// Elements of lists that count as one cell.
const ELEMENTS_PER_CELL: usize = 16;
/// Pages spare reads below, and with them the checks of budgets: every so many cells one read goes
/// past them.
const CELLS_PER_CHECK: u64 = 256;
/// A bin's header stands where no cell may ("Hive bin").
const BIN_HEADER: u32 = 32;
/// The oldest format that has cells as they are today.
const MINOR_MIN: u32 = 2;
/// The newest known.
const MINOR_MAX: u32 = 6;

/// What had to be done to read a hive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Recovery {
    /// Nothing: the last write had ended.
    Clean,
    /// Transaction logs were replayed in memory.
    Replayed {
        /// Log entries (1 for a log of the old format).
        entries: u32,
        /// Bytes that come from logs.
        bytes: u64,
    },
    /// The last write had not ended, and no log fits. What is told may be older than the guest, or
    /// damaged.
    NotRecovered,
}

/// A page of the bins with its number.
type Page = (u64, Box<[u8]>);

/// A registry hive.
pub struct Hive {
    bins: Overlay,
    base: BaseBlock,
    recovery: Recovery,
    pages: Mutex<Vec<Option<Page>>>,
    cells: AtomicU64,
}

/// A cell's content: the bytes behind its size field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    /// Offset of the content in the bins.
    pub(super) start: u64,
    /// Length of the content.
    pub(super) len: usize,
}

impl Hive {
    /// Opens a hive. `logs` finds its .LOG, .LOG1 and .LOG2 files, as far as there are any; it is
    /// asked only when the hive needs them.
    ///
    /// # Errors
    /// `Corrupt` when it is no hive, `Unsupported` for versions never seen, or any read error. A
    /// damaged log is no error: see [`Hive::recovery`].
    pub fn open(primary: Layer, logs: impl FnOnce() -> Result<Vec<Layer>>) -> Result<Self> {
        let first = BaseBlock::read(primary.as_ref());
        let dirty = first.as_ref().map_or(true, BaseBlock::is_dirty);
        if !dirty {
            let base = first?;
            let bins = Overlay::new(primary, Vec::new(), base.bins_size);
            return Self::with(bins, base, Recovery::Clean);
        }
        let logs = logs()?;
        let mut valid = Vec::new();
        for (index, layer) in logs.iter().enumerate() {
            valid.extend(Log::read(index, layer)?);
        }
        let (base, bins, recovery) = recover(first, primary, logs, &valid)?;
        Self::with(bins, base, recovery)
    }

    fn with(bins: Overlay, base: BaseBlock, recovery: Recovery) -> Result<Self> {
        if !(MINOR_MIN..=MINOR_MAX).contains(&base.minor) {
            return Err(DiskError::Unsupported {
                feature: format!("registry hive of version 1.{}", base.minor),
            });
        }
        Ok(Self {
            bins,
            base,
            recovery,
            pages: Mutex::new(vec![None; PAGES]),
            cells: AtomicU64::new(0),
        })
    }

    /// What had to be done to read it.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// End of the path it had on its system, as far as it fits into the base block.
    #[must_use]
    pub fn file_name(&self) -> &str {
        &self.base.file_name
    }

    /// Bytes of its bins.
    #[must_use]
    pub fn bins_size(&self) -> u64 {
        self.bins.len()
    }

    /// Minor version of the format: 3 to 6. From 4 on large values are stored in pieces.
    #[must_use]
    pub fn minor_version(&self) -> u32 {
        self.base.minor
    }

    /// The root key.
    ///
    /// # Errors
    /// `Corrupt` or any read error.
    pub fn root(&self) -> Result<Key<'_>> {
        Key::read(self, self.base.root_cell)
    }

    /// The key at a path from the root, parts separated by `\`, case ignored.
    ///
    /// # Errors
    /// `Corrupt` or any read error on the way.
    pub fn key(&self, path: &str) -> Result<Option<Key<'_>>> {
        self.root()?.descend(path)
    }

    /// Finds a cell and checks its size field ("Cell").
    pub(super) fn cell(&self, offset: u32) -> Result<Cell> {
        self.charge(1)?;
        if offset < BIN_HEADER || !offset.is_multiple_of(8) {
            return Err(corrupt(offset, "no offset of a cell"));
        }
        let mut bytes = [0; 4];
        self.read(u64::from(offset), &mut bytes)?;
        let stored = i32::from_le_bytes(bytes);
        // Positive sizes are free space: nothing that is in use refers to it.
        let len = stored.checked_neg().filter(|len| *len >= 8);
        let Some(len) = len.and_then(|len| u32::try_from(len).ok()) else {
            return Err(corrupt(offset, format!("size {stored} of a cell in use")));
        };
        if u64::from(offset).saturating_add(u64::from(len)) > self.bins.len() {
            return Err(corrupt(
                offset,
                format!("a cell of {len} bytes passes the end"),
            ));
        }
        Ok(Cell {
            start: u64::from(offset).saturating_add(4),
            len: size(len).saturating_sub(4),
        })
    }

    /// Counts elements of a list that was read: lists of many elements may be read many times.
    pub(super) fn charge_list(&self, elements: usize) -> Result<()> {
        self.charge(wide(elements / ELEMENTS_PER_CELL))
    }

    fn charge(&self, cells: u64) -> Result<()> {
        let before = self.cells.fetch_add(cells, Ordering::Relaxed);
        let after = before.saturating_add(cells);
        if after > CELLS_MAX {
            return Err(DiskError::OverBudget {
                budget: format!("{CELLS_MAX} cells of a registry hive"),
            });
        }
        if before / CELLS_PER_CHECK != after / CELLS_PER_CHECK {
            let mut unit = [0; 512];
            if let Err(error) = self.bins.read(0, &mut unit) {
                // Late or cancelled: nothing more of this hive.
                self.cells.store(CELLS_MAX, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    }

    /// The first bytes of a cell, at most `cap`.
    pub(super) fn head(&self, cell: Cell, cap: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; cell.len.min(cap)];
        self.read(cell.start, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `buf` from an offset in the bins.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if offset.saturating_add(wide(buf.len())) > self.bins.len() {
            return Err(DiskError::OutOfBounds {
                position: offset.saturating_add(BINS_START),
                wanted: wide(buf.len()),
                end: self.bins.len().saturating_add(BINS_START),
            });
        }
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let page = at / PAGE;
            let place = narrow(page).checked_rem(PAGES).unwrap_or(0);
            let Some(slot) = pages.get_mut(place) else {
                break;
            };
            if slot.as_ref().is_none_or(|(number, _)| *number != page) {
                let mut data = vec![0; narrow(PAGE)].into_boxed_slice();
                self.bins.read(page.saturating_mul(PAGE), &mut data)?;
                *slot = Some((page, data));
            }
            let from = slot
                .as_ref()
                .and_then(|(_, data)| data.get(narrow(at % PAGE)..))
                .unwrap_or_default();
            let len = from.len().min(rest.len());
            let (head, tail) = rest.split_at_mut(len);
            head.copy_from_slice(from.get(..len).unwrap_or_default());
            at = at.saturating_add(wide(len));
            rest = tail;
        }
        Ok(())
    }
}

/// Chooses among the logs of a dirty hive and applies what fits ("Multiple transaction log
/// files").
fn recover(
    first: Result<BaseBlock>,
    primary: Layer,
    layers: Vec<Layer>,
    logs: &[Log],
) -> Result<(BaseBlock, Overlay, Recovery)> {
    let trusted = first.as_ref().is_ok_and(|base| base.checksum_ok);
    let newest = logs.iter().max_by_key(|log| log.base.primary_sequence);
    let base = match (&first, newest) {
        (Ok(base), _) if trusted => base.clone(),
        (_, Some(log)) => log.base.clone(),
        // No log can tell better: take the damaged block at its word.
        _ => first.clone()?,
    };
    let mut bins = Overlay::new(primary.clone(), layers, base.bins_size);
    let written = if trusted {
        base.written
    } else {
        bin_timestamp(primary.as_ref())?
    };
    let new: Vec<&Log> = logs.iter().filter(|log| log.is_new()).collect();
    let mut entries = 0;
    if new.is_empty() {
        for log in logs {
            if log.base.written == written && log::apply_old(log, &mut bins)? {
                entries = 1;
                break;
            }
        }
    } else {
        let start = trusted.then_some(base.secondary_sequence);
        entries = log::apply_new(&new, start, &mut bins)?;
    }
    let recovery = match entries {
        0 => Recovery::NotRecovered,
        entries => Recovery::Replayed {
            entries,
            bytes: bins.replaced(),
        },
    };
    Ok((base, bins, recovery))
}

/// The first bin's header repeats when the hive was written (offset 20).
fn bin_timestamp(primary: &dyn ReadAt) -> Result<u64> {
    let header = read_upto(primary, BINS_START, 28)?;
    let bytes = header.get(20..28).and_then(|bytes| bytes.try_into().ok());
    Ok(bytes.map_or(0, u64::from_le_bytes))
}

pub(super) fn corrupt(offset: u32, problem: impl Into<String>) -> DiskError {
    DiskError::Corrupt {
        structure: "registry cell",
        position: u64::from(offset).saturating_add(BINS_START),
        problem: problem.into(),
    }
}
