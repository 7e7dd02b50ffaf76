//! Chunks: from logical addresses to places on devices.

use crate::bytes::{Record, narrow, wide};
use crate::error::{DiskError, Result};
use crate::read_at::Layer;
use std::collections::BTreeMap;

/// Chunks of one file system: 200 TB in chunks of 1 GiB.
const CHUNKS_MAX: usize = 200_000;
const HEADER: usize = 48;
const STRIPE: usize = 32;

const RAID0: u64 = 0x8;
const RAID10: u64 = 0x40;
const RAID5: u64 = 0x80;
const RAID6: u64 = 0x100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// One copy, or several whole ones (dup, raid1, raid1c3, raid1c4).
    Copies,
    /// Striped over groups of this many copies (raid0, raid10).
    Striped(u64),
    /// Striped with this many rotating parity stripes (raid5, raid6).
    Parity(u64),
}

struct Chunk {
    len: u64,
    stripe_len: u64,
    layout: Layout,
    /// (device id, byte on it)
    stripes: Vec<(u64, u64)>,
}

/// Devices and the map over them.
pub(super) struct Chunks {
    devices: BTreeMap<u64, Layer>,
    chunks: BTreeMap<u64, Chunk>,
}

/// Places that hold the same bytes, and how many of them.
struct Span {
    copies: Vec<(u64, u64)>,
    len: u64,
}

impl Chunks {
    pub(super) fn new(devices: BTreeMap<u64, Layer>) -> Self {
        Self {
            devices,
            chunks: BTreeMap::new(),
        }
    }

    /// Parses a chunk item; answers its length in the item.
    pub(super) fn add(&mut self, logical: u64, r: &Record<'_>, at: usize) -> Result<usize> {
        let field = |offset: usize| at.saturating_add(offset);
        let (len, stripe_len) = (r.u64_le(at)?, r.u64_le(field(16))?);
        let kind = r.u64_le(field(24))?;
        let (count, sub) = (r.u16_le(field(44))?, r.u16_le(field(46))?);
        let layout = match kind {
            k if k & RAID0 != 0 => Layout::Striped(1),
            k if k & RAID10 != 0 => Layout::Striped(u64::from(sub)),
            k if k & RAID5 != 0 => Layout::Parity(1),
            k if k & RAID6 != 0 => Layout::Parity(2),
            _ => Layout::Copies,
        };
        let stripes_needed = match layout {
            Layout::Copies => 1,
            Layout::Striped(group) => group,
            Layout::Parity(parity) => parity.saturating_add(1),
        };
        let sound = match layout {
            Layout::Striped(group) => group > 0 && u64::from(count).checked_rem(group) == Some(0),
            _ => true,
        };
        if u64::from(count) < stripes_needed
            || count == 0
            || !sound
            || len == 0
            || logical.checked_add(len).is_none()
            || !stripe_len.is_power_of_two()
            || !(4096..=1 << 30).contains(&stripe_len)
        {
            return Err(r.corrupt(
                at,
                format!("chunk at {logical}: {len} bytes, {count} stripes of {stripe_len}"),
            ));
        }
        let mut stripes = Vec::new();
        for i in 0..usize::from(count) {
            let stripe = field(HEADER).saturating_add(i.saturating_mul(STRIPE));
            stripes.push((r.u64_le(stripe)?, r.u64_le(stripe.saturating_add(8))?));
        }
        if self.chunks.len() >= CHUNKS_MAX {
            return Err(DiskError::OverBudget {
                budget: format!("{CHUNKS_MAX} btrfs chunks"),
            });
        }
        self.chunks.insert(
            logical,
            Chunk {
                len,
                stripe_len,
                layout,
                stripes,
            },
        );
        Ok(HEADER.saturating_add(usize::from(count).saturating_mul(STRIPE)))
    }

    fn span(&self, logical: u64) -> Result<Span> {
        let found = self.chunks.range(..=logical).next_back();
        let Some((chunk, within)) = found
            .map(|(start, chunk)| (chunk, logical.saturating_sub(*start)))
            .filter(|(chunk, within)| *within < chunk.len)
        else {
            return Err(DiskError::Corrupt {
                structure: "btrfs chunk tree",
                position: logical,
                problem: "no chunk holds this logical address".into(),
            });
        };
        let count = wide(chunk.stripes.len());
        let stripe = within.checked_div(chunk.stripe_len).unwrap_or(0);
        let in_stripe = within.checked_rem(chunk.stripe_len).unwrap_or(0);
        let left = chunk.len.saturating_sub(within);
        let at = |index: u64, row: u64| {
            let (device, start) = chunk.stripes.get(narrow(index)).copied()?;
            let offset = row.saturating_mul(chunk.stripe_len);
            Some((
                device,
                start.saturating_add(offset).saturating_add(in_stripe),
            ))
        };
        let in_one = left.min(chunk.stripe_len.saturating_sub(in_stripe));
        let (copies, len) = match chunk.layout {
            Layout::Copies => {
                let copies = chunk.stripes.iter();
                let copies = copies.map(|(device, start)| (*device, start.saturating_add(within)));
                (copies.collect(), left)
            }
            Layout::Striped(group) => {
                let groups = count.checked_div(group).unwrap_or(1);
                let row = stripe.checked_div(groups).unwrap_or(0);
                let first = stripe
                    .checked_rem(groups)
                    .unwrap_or(0)
                    .saturating_mul(group);
                let past = first.saturating_add(group);
                ((first..past).filter_map(|i| at(i, row)).collect(), in_one)
            }
            Layout::Parity(parity) => {
                let data = count.saturating_sub(parity).max(1);
                let row = stripe.checked_div(data).unwrap_or(0);
                let index = stripe.checked_rem(data).unwrap_or(0);
                let turned = row.saturating_add(index).checked_rem(count).unwrap_or(0);
                (at(turned, row).into_iter().collect(), in_one)
            }
        };
        Ok(Span { copies, len })
    }

    /// Reads from copy `mirror` (as far as there are so many); false when there is no such copy.
    fn read_piece(&self, span: &Span, mirror: usize, buf: &mut [u8]) -> Result<bool> {
        let present = span
            .copies
            .iter()
            .filter_map(|(device, at)| Some((self.devices.get(device)?, *at)));
        if let Some((device, at)) = present.clone().nth(mirror) {
            device.read_exact_at(at, buf)?;
            return Ok(true);
        }
        if present.count() == 0 {
            let device = span.copies.first().map_or(0, |(device, _)| *device);
            return Err(DiskError::Unsupported {
                feature: format!("btrfs with device {device} missing"),
            });
        }
        Ok(false)
    }

    /// Fills `buf` from logical address `logical` on, from the copies numbered `mirror`. False
    /// when there are not so many copies.
    pub(super) fn read(&self, logical: u64, buf: &mut [u8], mirror: usize) -> Result<bool> {
        let mut at = logical;
        let mut rest = buf;
        while !rest.is_empty() {
            let span = self.span(at)?;
            let len = narrow(span.len).min(rest.len());
            let (head, tail) = rest.split_at_mut(len);
            if !self.read_piece(&span, mirror, head)? {
                return Ok(false);
            }
            at = at.saturating_add(wide(len));
            rest = tail;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Memory;
    use std::sync::Arc;

    /// A chunk item over `devices`, each stripe at byte 4096 of its device.
    fn item(kind: u64, sub: u16, devices: &[u64]) -> Vec<u8> {
        let mut raw = vec![0; HEADER];
        raw[..8].copy_from_slice(&(1u64 << 20).to_le_bytes());
        raw[16..24].copy_from_slice(&4096u64.to_le_bytes());
        raw[24..32].copy_from_slice(&kind.to_le_bytes());
        raw[44..46].copy_from_slice(&(devices.len() as u16).to_le_bytes());
        raw[46..48].copy_from_slice(&sub.to_le_bytes());
        for device in devices {
            raw.extend(device.to_le_bytes());
            raw.extend(4096u64.to_le_bytes());
            raw.extend([0; 16]);
        }
        raw
    }

    /// Device `d` holds `d * 16 + row` in each row of 4 KiB behind its first 4096 bytes.
    fn devices(numbers: &[u64]) -> BTreeMap<u64, Layer> {
        let device = |d: u64| -> Layer {
            let rows = (0..16u64).flat_map(|row| [(d * 16 + row) as u8; 4096]);
            Arc::new(Memory([0u8; 4096].into_iter().chain(rows).collect()))
        };
        numbers.iter().map(|d| (*d, device(*d))).collect()
    }

    fn rows(chunks: &Chunks, count: usize) -> Vec<u8> {
        let mut buf = vec![0; count * 4096];
        assert!(chunks.read(1 << 20, &mut buf, 0).unwrap());
        buf.chunks(4096).map(|row| row[4095]).collect()
    }

    fn mapped(kind: u64, sub: u16, of: &[u64], present: &[u64]) -> Chunks {
        let mut chunks = Chunks::new(devices(present));
        let raw = item(kind, sub, of);
        let r = Record::new("chunk", 0, &raw);
        assert_eq!(chunks.add(1 << 20, &r, 0).unwrap(), raw.len());
        chunks
    }

    #[test]
    fn every_profile_goes_to_the_right_device_and_row() {
        let all = [1, 2, 3, 4];
        assert_eq!(rows(&mapped(0, 0, &[1], &all), 3), [16, 17, 18]);
        // One leg of a mirror is missing.
        assert_eq!(rows(&mapped(0x10, 0, &[1, 2], &[2]), 3), [32, 33, 34]);
        assert_eq!(rows(&mapped(0x8, 0, &[1, 2], &all), 4), [16, 32, 17, 33]);
        let ten = mapped(0x40, 2, &all, &[2, 3]);
        assert_eq!(rows(&ten, 4), [32, 48, 33, 49]);
        // Data rotate before the parity: 1 2 P, then 2 3 P(1), then 3 1 P(2).
        let five = mapped(0x80, 0, &[1, 2, 3], &all);
        assert_eq!(rows(&five, 6), [16, 32, 33, 49, 50, 18]);
        let six = mapped(0x100, 0, &all, &all);
        assert_eq!(rows(&six, 4), [16, 32, 33, 49]);
    }

    #[test]
    fn missing_devices_and_bad_chunks_are_told() {
        let chunks = mapped(0x8, 0, &[1, 2], &[1]);
        let error = chunks.read(1 << 20, &mut [0; 8192], 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unsupported: btrfs with device 2 missing"
        );
        assert!(chunks.read(0, &mut [0; 1], 0).is_err());
        assert!(chunks.read(2 << 20, &mut [0; 1], 0).is_err());
        for (kind, sub, of) in [(0, 0, &[][..]), (0x40, 0, &[1, 2]), (0x40, 2, &[1, 2, 3])] {
            let raw = item(kind, sub, of);
            let r = Record::new("chunk", 0, &raw);
            assert!(Chunks::new(devices(&[1])).add(0, &r, 0).is_err());
        }
    }
}
