//! Layers made of other layers: a window, a piece of memory.

use crate::bytes::{narrow, wide};
use crate::error::{DiskError, Result};
use crate::read_at::{Layer, ReadAt};

/// Refuses a range that passes `end`.
pub(crate) fn check_range(position: u64, len: usize, end: u64) -> Result<()> {
    match position.checked_add(wide(len)) {
        Some(past) if past <= end => Ok(()),
        _ => Err(DiskError::OutOfBounds {
            position,
            wanted: wide(len),
            end,
        }),
    }
}

/// A contiguous part of a layer: a partition.
pub struct Window {
    inner: Layer,
    start: u64,
    len: u64,
}

impl Window {
    /// The part of `inner` from `start` on, `len` bytes long; cut where `inner` ends.
    pub fn new(inner: Layer, start: u64, len: u64) -> Self {
        let len = len.min(inner.len().saturating_sub(start));
        Self { inner, start, len }
    }
}

impl ReadAt for Window {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, position: u64, buf: &mut [u8]) -> Result<()> {
        check_range(position, buf.len(), self.len)?;
        self.inner
            .read_exact_at(self.start.saturating_add(position), buf)
    }
}

/// A layer in memory, for tests and for decoded pieces.
pub struct Memory(pub Vec<u8>);

impl ReadAt for Memory {
    fn len(&self) -> u64 {
        wide(self.0.len())
    }

    fn read_exact_at(&self, position: u64, buf: &mut [u8]) -> Result<()> {
        check_range(position, buf.len(), self.len())?;
        let start = narrow(position);
        let end = start.saturating_add(buf.len());
        if let Some(bytes) = self.0.get(start..end) {
            buf.copy_from_slice(bytes);
        }
        Ok(())
    }
}
