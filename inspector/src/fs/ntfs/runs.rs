//! Run lists: where the clusters of an attribute lie.

use crate::bytes::{Record, wide};
use crate::error::{DiskError, Result};

/// Runs of one attribute, all its fragments together. A file of a gigabyte in single clusters of
/// 4 KiB has a quarter of it; a run takes 24 bytes.
const RUNS_MAX: usize = 1_000_000;

/// Consecutive clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// First cluster within the attribute.
    pub(super) vcn: u64,
    pub(super) len: u64,
    /// First cluster on the device; `None` for a hole.
    pub(super) lcn: Option<u64>,
}

/// Runs in ascending order without gaps.
#[derive(Debug, Clone, Default)]
pub(super) struct Runs(Vec<Run>);

impl Runs {
    /// Decodes mapping pairs: a byte with two lengths, the run's length, the signed distance of its
    /// first cluster from that of the run before. A distance of no bytes is a hole.
    pub(super) fn decode(r: &Record<'_>, first_vcn: u64) -> Result<Self> {
        let (mut runs, mut at) = (Vec::new(), 0usize);
        let (mut vcn, mut lcn) = (first_vcn, 0i64);
        while let Ok(header) = r.u8(at) {
            if header == 0 {
                break;
            }
            let (len_size, lcn_size) = (usize::from(header & 15), usize::from(header >> 4));
            let len_at = at.saturating_add(1);
            let lcn_at = len_at.saturating_add(len_size);
            let len = signed(r.slice(len_at, len_size)?);
            let Some(len) = len.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0) else {
                return Err(r.corrupt(at, "length of a run"));
            };
            let start = if lcn_size == 0 {
                None
            } else {
                let step = signed(r.slice(lcn_at, lcn_size)?);
                lcn = match step.and_then(|step| lcn.checked_add(step)) {
                    Some(lcn) if lcn >= 0 => lcn,
                    _ => return Err(r.corrupt(lcn_at, "first cluster of a run")),
                };
                u64::try_from(lcn).ok()
            };
            runs.push(Run {
                vcn,
                len,
                lcn: start,
            });
            vcn = match vcn.checked_add(len) {
                Some(next) if next < u64::MAX >> 8 => next,
                _ => return Err(r.corrupt(at, "runs without end")),
            };
            at = lcn_at.saturating_add(lcn_size);
        }
        Ok(Self(runs))
    }

    /// The first cluster after the last run.
    pub(super) fn end(&self) -> u64 {
        self.0
            .last()
            .map_or(0, |run| run.vcn.saturating_add(run.len))
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Appends the runs of the next fragment. What does not continue the ones before is left out:
    /// reads of what lies behind it fail.
    pub(super) fn append(&mut self, more: Self) -> Result<()> {
        if self.0.len().saturating_add(more.0.len()) > RUNS_MAX {
            return Err(DiskError::OverBudget {
                budget: format!("{RUNS_MAX} runs of an NTFS attribute"),
            });
        }
        if more.0.first().is_some_and(|run| run.vcn == self.end()) {
            self.0.extend(more.0);
        }
        Ok(())
    }

    /// What is left from cluster `vcn` on of the run that holds it.
    pub(super) fn at(&self, vcn: u64) -> Option<Run> {
        let index = self
            .0
            .partition_point(|run| run.vcn <= vcn)
            .checked_sub(1)?;
        let run = self.0.get(index)?;
        let skip = vcn.checked_sub(run.vcn)?;
        let len = run.len.checked_sub(skip).filter(|len| *len > 0)?;
        Some(Run {
            vcn,
            len,
            lcn: run.lcn.map(|lcn| lcn.saturating_add(skip)),
        })
    }
}

/// A little-endian two's complement number of up to 8 bytes.
fn signed(bytes: &[u8]) -> Option<i64> {
    if bytes.is_empty() || wide(bytes.len()) > 8 {
        return None;
    }
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut full = [if negative { 0xff } else { 0 }; 8];
    for (to, from) in full.iter_mut().zip(bytes) {
        *to = *from;
    }
    Some(i64::from_le_bytes(full))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Runs> {
        Runs::decode(&Record::new("runs", 0, bytes), 0)
    }

    #[test]
    fn runs_go_forth_back_and_leave_holes() {
        let runs = decode(&[0x21, 0x18, 0x34, 0x56, 0x11, 0x10, 0xf0, 0x01, 0x08, 0]).unwrap();
        let run = |vcn, len, lcn| Run { vcn, len, lcn };
        assert_eq!(
            runs.0,
            [
                run(0, 0x18, Some(0x5634)),
                run(0x18, 0x10, Some(0x5624)),
                run(0x28, 8, None)
            ]
        );
        assert_eq!(runs.at(0x20), Some(run(0x20, 8, Some(0x562c))));
        assert_eq!(runs.at(0x2f), Some(run(0x2f, 1, None)));
        assert_eq!(runs.at(0x30), None);
    }

    #[test]
    fn damaged_runs_are_refused() {
        for bytes in [
            &[0x11u8, 0x00, 0x01, 0][..],
            &[0x11, 0x80, 0x01, 0],
            &[0x11, 0x01, 0x80, 0],
            &[0x21, 0x01, 0x80],
            &[0x19, 0x01],
        ] {
            assert!(decode(bytes).is_err(), "{bytes:x?}");
        }
    }
}
