//! The file allocation table: chains of clusters.

use crate::bytes::{narrow, read_upto, wide};
use crate::error::{DiskError, Result};
use crate::read_at::ReadAt;

/// Bytes of the table read at once while a chain is followed.
const WINDOW: u64 = 4096;

/// Runs of one chain, 8 bytes each: a file of 4 GiB in single clusters of 4 KiB has as many.
const RUNS_MAX: usize = 1 << 20;

/// Bits of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Twelve,
    Sixteen,
    /// Of which 28 count.
    ThirtyTwo,
    /// exFAT: all 32 count.
    Full,
}

impl Width {
    /// From this value on an entry ends a chain; the one before it marks a bad cluster.
    fn end(self) -> u32 {
        match self {
            Self::Twelve => 0xff8,
            Self::Sixteen => 0xfff8,
            Self::ThirtyTwo => 0x0fff_fff8,
            Self::Full => 0xffff_fff8,
        }
    }
}

/// Where the table and the clusters are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    /// Byte position of the table.
    pub(crate) position: u64,
    pub(crate) width: Width,
    /// Number of clusters; the first one is number 2.
    pub(crate) clusters: u32,
    /// Byte position of cluster 2.
    pub(crate) heap: u64,
    /// Bytes of a cluster.
    pub(crate) cluster: u64,
}

/// Consecutive clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

impl Table {
    /// Byte position of a cluster.
    pub(crate) fn place(&self, cluster: u32) -> Result<u64> {
        match cluster.checked_sub(2) {
            Some(index) if index < self.clusters => Ok(self
                .heap
                .saturating_add(u64::from(index).saturating_mul(self.cluster))),
            _ => Err(DiskError::Corrupt {
                structure: "FAT",
                position: self.position,
                problem: format!("cluster {cluster} of {}", self.clusters),
            }),
        }
    }

    /// The chain from `first` on, at most `max` clusters of it. A chain longer than the volume has
    /// clusters is a circle.
    pub(crate) fn chain(&self, device: &dyn ReadAt, first: u32, max: u64) -> Result<Vec<Run>> {
        let mut runs: Vec<Run> = Vec::new();
        let mut window = (u64::MAX, Vec::new());
        let mut cluster = first;
        let mut count = 0u64;
        while count < max {
            if count >= u64::from(self.clusters) {
                return Err(DiskError::Corrupt {
                    structure: "FAT",
                    position: self.position,
                    problem: format!("the chain from cluster {first} is a circle"),
                });
            }
            self.place(cluster)?;
            if runs.len() >= RUNS_MAX {
                return Err(DiskError::OverBudget {
                    budget: format!("{RUNS_MAX} runs of a FAT chain"),
                });
            }
            match runs.last_mut() {
                Some(run) if run.first.checked_add(run.count) == Some(cluster) => {
                    run.count = run.count.saturating_add(1);
                }
                _ => runs.push(Run {
                    first: cluster,
                    count: 1,
                }),
            }
            count = count.saturating_add(1);
            let next = self.entry(device, cluster, &mut window)?;
            if next >= self.width.end() {
                break;
            }
            cluster = next;
        }
        Ok(runs)
    }

    /// An entry of the table, by way of the window that was read last.
    fn entry(&self, device: &dyn ReadAt, cluster: u32, window: &mut (u64, Vec<u8>)) -> Result<u32> {
        let number = u64::from(cluster);
        let offset = match self.width {
            Width::Twelve => number.saturating_add(number / 2),
            Width::Sixteen => number.saturating_mul(2),
            Width::ThirtyTwo | Width::Full => number.saturating_mul(4),
        };
        // An entry of 12 bits may end in the next window: a few bytes more are read.
        let start = offset
            .checked_rem(WINDOW)
            .map_or(0, |r| offset.saturating_sub(r));
        if window.0 != start {
            let position = self.position.saturating_add(start);
            *window = (
                start,
                read_upto(device, position, narrow(WINDOW).saturating_add(4))?,
            );
        }
        let at = narrow(offset.saturating_sub(start));
        let byte = |i: usize| {
            let byte = window.1.get(at.saturating_add(i)).copied();
            byte.map(u32::from).ok_or(DiskError::OutOfBounds {
                position: self.position.saturating_add(offset),
                wanted: 4,
                end: device.len(),
            })
        };
        let low = byte(0)? | (byte(1)? << 8);
        Ok(match self.width {
            Width::Twelve if cluster & 1 == 1 => low >> 4,
            Width::Twelve => low & 0xfff,
            Width::Sixteen => low,
            Width::ThirtyTwo => (low | (byte(2)? << 16) | (byte(3)? << 24)) & 0x0fff_ffff,
            Width::Full => low | (byte(2)? << 16) | (byte(3)? << 24),
        })
    }

    /// Reads from a chain.
    pub(crate) fn read(
        &self,
        device: &dyn ReadAt,
        runs: &[Run],
        position: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        let mut start = 0u64;
        let mut at = position;
        let mut rest = buf;
        for run in runs {
            let len = u64::from(run.count).saturating_mul(self.cluster);
            let end = start.saturating_add(len);
            if at < end && !rest.is_empty() {
                let skip = at.saturating_sub(start);
                let room = narrow(len.saturating_sub(skip)).min(rest.len());
                let (head, tail) = rest.split_at_mut(room);
                device.read_exact_at(self.place(run.first)?.saturating_add(skip), head)?;
                at = at.saturating_add(wide(room));
                rest = tail;
            }
            start = end;
        }
        if rest.is_empty() {
            return Ok(());
        }
        Err(DiskError::Corrupt {
            structure: "FAT",
            position: self.position,
            problem: format!("a chain of {start} bytes, byte {at} wanted"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Memory;

    #[test]
    fn chains_of_twelve_bits_join_runs_and_find_circles() {
        let table = Table {
            position: 0,
            width: Width::Twelve,
            clusters: 6,
            heap: 100,
            cluster: 10,
        };
        // Entries 0 and 1 are the media byte; 2→3, 3→5, 4→4, 5→end.
        let entries = [0xff8u16, 0xfff, 3, 5, 4, 0xfff];
        let mut bytes = vec![0u8; 12];
        for (i, pair) in entries.chunks(2).enumerate() {
            bytes[i * 3] = pair[0] as u8;
            bytes[i * 3 + 1] = (pair[0] >> 8) as u8 | (pair[1] << 4) as u8;
            bytes[i * 3 + 2] = (pair[1] >> 4) as u8;
        }
        let device = Memory(bytes);
        let run = |first, count| Run { first, count };
        assert_eq!(table.chain(&device, 2, 9).unwrap(), [run(2, 2), run(5, 1)]);
        assert_eq!(table.chain(&device, 2, 1).unwrap(), [run(2, 1)]);
        let circle = table.chain(&device, 4, 99).unwrap_err().to_string();
        assert!(circle.contains("circle"), "{circle}");
        assert!(table.chain(&device, 0, 1).is_err());
        assert!(table.chain(&device, 8, 1).is_err());
    }
}
