//! The hive bins as they are after recovery: pages of the logs laid over the primary file.

use super::base::BINS_START;
use crate::bytes::{narrow, wide};
use crate::error::{DiskError, Result};
use crate::read_at::Layer;
use std::collections::BTreeMap;

/// Unit of both log formats: the old one records 512-byte pages, the new one multiples of 4 KiB.
pub(super) const UNIT: u64 = 512;
/// Units that logs may replace: 64 MiB, more than Windows lets its logs grow to.
const UNITS_MAX: usize = 131_072;

/// Hive bins, read at offsets from their start.
pub(super) struct Overlay {
    primary: Layer,
    logs: Vec<Layer>,
    /// Unit of the hive bins → (log, position in it). The newest entry wins.
    units: BTreeMap<u64, (usize, u64)>,
    size: u64,
}

impl Overlay {
    /// The bins of `primary`, `size` bytes long.
    pub(super) fn new(primary: Layer, logs: Vec<Layer>, size: u32) -> Self {
        Self {
            primary,
            logs,
            units: BTreeMap::new(),
            size: u64::from(size),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.size
    }

    pub(super) fn resize(&mut self, size: u32) {
        self.size = u64::from(size);
    }

    /// How many bytes come from logs.
    pub(super) fn replaced(&self) -> u64 {
        wide(self.units.len()).saturating_mul(UNIT)
    }

    /// Lays `len` bytes at `position` of a log over the bins from `offset` on.
    pub(super) fn replace(
        &mut self,
        offset: u64,
        len: u64,
        log: usize,
        position: u64,
    ) -> Result<()> {
        for step in 0..len / UNIT {
            let skip = step.saturating_mul(UNIT);
            let unit = offset.saturating_add(skip) / UNIT;
            self.units
                .insert(unit, (log, position.saturating_add(skip)));
            if self.units.len() > UNITS_MAX {
                return Err(DiskError::OverBudget {
                    budget: format!("{UNITS_MAX} log pages of a registry hive"),
                });
            }
        }
        Ok(())
    }

    /// Fills `buf` from `offset` on. `offset` and the length are multiples of [`UNIT`]; what the
    /// files do not have reads as zeros, which no structure takes for a cell.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset.saturating_add(wide(buf.len()));
        let replaced = self.units.range(offset / UNIT..end.div_ceil(UNIT));
        // A page that no log touches is one read.
        self.read_primary(offset, buf)?;
        for (unit, (log, position)) in replaced {
            let at = narrow(unit.saturating_mul(UNIT).saturating_sub(offset));
            let past = at.saturating_add(narrow(UNIT)).min(buf.len());
            if let (Some(part), Some(log)) = (buf.get_mut(at..past), self.logs.get(*log)) {
                log.read_exact_at(*position, part)?;
            }
        }
        Ok(())
    }

    fn read_primary(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let position = offset.saturating_add(BINS_START);
        let there = narrow(self.primary.len().saturating_sub(position)).min(buf.len());
        let (have, miss) = buf.split_at_mut(there);
        miss.fill(0);
        if have.is_empty() {
            return Ok(());
        }
        self.primary.read_exact_at(position, have)
    }
}
