//! An image with some bytes changed, as an input says.

use guestkit_inspector::error::Result;
use guestkit_inspector::read_at::{Layer, ReadAt};
use std::collections::BTreeMap;

/// Changes that one input may make.
const PATCHES_MAX: usize = 64;
/// Bytes of one change: where (within a sixteenth of the image and at any distance), what.
const PATCH: usize = 8;

/// A base image with changed bytes. The input: a byte that chooses the base, then changes of eight
/// bytes each: three for the place, one for its scale, one for the kind, three for the value.
pub(crate) struct Patched {
    base: Layer,
    bytes: BTreeMap<u64, u8>,
}

impl Patched {
    /// `None` without a base, or when the input changes nothing.
    pub(crate) fn new(data: &[u8], bases: &[Layer]) -> Option<Self> {
        let (choice, rest) = data.split_first()?;
        let base = bases.get(usize::from(*choice) % bases.len().max(1))?;
        let mut patched = Self {
            base: base.clone(),
            bytes: BTreeMap::new(),
        };
        for patch in rest.chunks_exact(PATCH).take(PATCHES_MAX) {
            let &[a, b, c, scale, kind, x, y, z] = patch else {
                break;
            };
            patched.change([a, b, c], scale, kind, [x, y, z]);
        }
        Some(patched)
    }

    fn change(&mut self, place: [u8; 3], scale: u8, kind: u8, value: [u8; 3]) {
        let length = self.base.len().max(1);
        let [a, b, c] = place;
        let place = u64::from(u32::from_le_bytes([a, b, c, 0]));
        // Metadata lies at the beginning, at the end, and at multiples of blocks.
        let at = match scale % 6 {
            0 => place % 65_536,
            1 => place,
            2 => (place >> 12).saturating_mul(4_096) + (place & 0xfff),
            3 => (place >> 10).saturating_mul(65_536) + (place & 0x3ff),
            4 => length.saturating_sub(place % 65_536 + 1),
            _ => (place >> 8).saturating_mul(length / 65_536 + 1) / 512 * 512 + (place & 0xff),
        } % length;
        let [x, y, z] = value;
        let new: Vec<u8> = match kind % 6 {
            0 => vec![x],
            1 => vec![x, y],
            2 => vec![x, y, z, 0],
            3 => vec![0xff; usize::from(x % 8) + 1],
            4 => vec![0; usize::from(x) + 1],
            _ => vec![0, 0, 0, 0, x, y, z, 0x7f],
        };
        for (offset, byte) in (0_u64..).zip(new) {
            self.bytes.insert(at.saturating_add(offset), byte);
        }
    }
}

impl ReadAt for Patched {
    fn len(&self) -> u64 {
        self.base.len()
    }

    fn read_exact_at(&self, position: u64, buf: &mut [u8]) -> Result<()> {
        self.base.read_exact_at(position, buf)?;
        let end = position.saturating_add(u64::try_from(buf.len()).unwrap_or(u64::MAX));
        for (at, byte) in self.bytes.range(position..end) {
            let index = usize::try_from(at - position).unwrap_or(usize::MAX);
            if let Some(place) = buf.get_mut(index) {
                *place = *byte;
            }
        }
        Ok(())
    }
}
