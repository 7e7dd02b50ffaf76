//! A device with small changes: chunks of 128 bytes, the grain of buffer items.

use super::within;
use crate::bytes::{narrow, wide};
use crate::error::Result;
use crate::layer::check_range;
use crate::read_at::{Layer, ReadAt};
use std::collections::BTreeMap;

const CHUNK: usize = 128;
const CHUNK_WIDE: u64 = 128;
/// What a chunk costs in the map, roughly.
const CHUNK_COST: usize = CHUNK + 32;

pub(super) struct Overlay {
    device: Layer,
    chunks: BTreeMap<u64, [u8; CHUNK]>,
}

impl Overlay {
    pub(super) fn new(device: &Layer) -> Self {
        Self {
            device: device.clone(),
            chunks: BTreeMap::new(),
        }
    }

    /// Puts `bytes` at `position`. What lies beyond the device is dropped.
    pub(super) fn write(&mut self, position: u64, bytes: &[u8]) -> Result<()> {
        let mut at = position;
        let mut rest = bytes;
        while !rest.is_empty() {
            let index = at / CHUNK_WIDE;
            let skip = narrow(at % CHUNK_WIDE);
            let start = index.saturating_mul(CHUNK_WIDE);
            if start.saturating_add(CHUNK_WIDE) > self.device.len() {
                return Ok(());
            }
            let len = rest.len().min(CHUNK.saturating_sub(skip));
            let (head, tail) = rest.split_at(len);
            let mut chunk = match self.chunks.get(&index) {
                Some(chunk) => *chunk,
                None => {
                    let mut chunk = [0; CHUNK];
                    if len < CHUNK {
                        self.device.read_exact_at(start, &mut chunk)?;
                    }
                    chunk
                }
            };
            if let Some(target) = chunk.get_mut(skip..skip.saturating_add(len)) {
                target.copy_from_slice(head);
            }
            self.chunks.insert(index, chunk);
            within(self.chunks.len().saturating_mul(CHUNK_COST))?;
            at = at.saturating_add(wide(len));
            rest = tail;
        }
        Ok(())
    }
}

impl ReadAt for Overlay {
    fn len(&self) -> u64 {
        self.device.len()
    }

    fn read_exact_at(&self, position: u64, buf: &mut [u8]) -> Result<()> {
        check_range(position, buf.len(), self.device.len())?;
        self.device.read_exact_at(position, buf)?;
        let end = position.saturating_add(wide(buf.len()));
        let first = position / CHUNK_WIDE;
        for (index, chunk) in self.chunks.range(first..end.div_ceil(CHUNK_WIDE)) {
            let start = index.saturating_mul(CHUNK_WIDE);
            let skip = narrow(position.saturating_sub(start));
            let into = narrow(start.saturating_sub(position));
            let from = chunk.get(skip..).unwrap_or_default();
            let target = buf.get_mut(into..).unwrap_or_default();
            for (to, byte) in target.iter_mut().zip(from) {
                *to = *byte;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Memory;
    use std::sync::Arc;

    #[test]
    fn changes_of_any_size_show_through_any_window() {
        let mut plain: Vec<u8> = (0..2048u32).map(|i| (i % 251) as u8).collect();
        let device: Layer = Arc::new(Memory(plain.clone()));
        let mut overlay = Overlay::new(&device);
        for (at, len) in [
            (0usize, 5usize),
            (120, 20),
            (256, 128),
            (500, 400),
            (2040, 8),
        ] {
            let bytes = vec![at as u8 ^ 0x5a; len];
            overlay.write(at as u64, &bytes).unwrap();
            plain[at..at + len].copy_from_slice(&bytes);
        }
        for at in 0..2048usize {
            for len in [1usize, 7, 128, 300] {
                let len = len.min(2048 - at);
                let mut found = vec![0; len];
                overlay.read_exact_at(at as u64, &mut found).unwrap();
                assert_eq!(found, plain[at..at + len], "{len} bytes at {at}");
            }
        }
        assert!(overlay.read_exact_at(2048, &mut [0; 1]).is_err());
    }
}
