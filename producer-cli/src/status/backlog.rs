//! How many jobs wait: records that nothing has been decided about, counted, not computed from offsets.
//!
//! The difference of two offsets counts transaction markers, aborted records and what was decided out of order
//! too. So the records from the committed offset on are read, within a budget, less those that the ledger's
//! newest SLOT names as settled.

use crate::clock::Deadline;
use crate::failure::Outcome;
use crate::settings::Settings;
use guestkit_kafka::metadata::Extent;
use guestkit_kafka::reader::{Reader, Record, Start, Step, Until};
use guestkit_protocol::{LedgerEntry, NoRegistry, OffsetRange, SLOT_KEY, decode};
use std::collections::BTreeMap;
use std::time::Duration;

/// Records read for one answer, over all partitions. A second's work; whoever has more waiting wants to know
/// that, not the exact number.
pub(crate) const COUNT_MAX: u64 = 20_000;
/// Offsets at the end of a ledger partition among which the newest SLOT is looked for: each transaction ends
/// with one, and only MARKs come between two of them.
const SLOT_TAIL: i64 = 500;
/// How long one look for the next record takes.
const LOOK: Duration = Duration::from_millis(100);

/// What waits in a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Records that were counted.
    pub(crate) records: u64,
    /// Whether these are all.
    pub(crate) is_exact: bool,
    /// The time of the first.
    pub(crate) oldest_ms: Option<i64>,
}

/// Counts records of a topic from offsets on, to its ends, within the budget.
pub(crate) fn count(
    settings: &Settings,
    topic: &str,
    starts: &[i64],
    settled: &BTreeMap<usize, Vec<OffsetRange>>,
    mut each: impl FnMut(&Record),
) -> Outcome<Vec<Waiting>> {
    let mut found = vec![Waiting::default(); starts.len()];
    let share = COUNT_MAX / u64::try_from(starts.len().max(1)).unwrap_or(1);
    let deadline = Deadline::of(Some(settings.question()));
    let mut reader = Reader::open(
        &settings.connection()?,
        topic,
        &Start::Offsets(starts.to_vec()),
        Until::End,
        settings.question(),
    )?;
    let mut complete = false;
    while !deadline.has_passed() {
        match reader.next(LOOK)? {
            Step::Idle => {}
            Step::Done => {
                complete = true;
                break;
            }
            Step::Record(record) => {
                let at = usize::try_from(record.partition).unwrap_or(usize::MAX);
                let Some(waiting) = found.get_mut(at) else {
                    continue;
                };
                if waiting.records >= share {
                    reader.leave(record.partition);
                    continue;
                }
                if covers(settled.get(&at), record.offset) {
                    continue;
                }
                waiting.records += 1;
                waiting.oldest_ms = waiting.oldest_ms.or(record.timestamp_ms);
                each(&record);
            }
        }
    }
    for waiting in &mut found {
        waiting.is_exact = complete && waiting.records < share;
    }
    Ok(found)
}

fn covers(settled: Option<&Vec<OffsetRange>>, offset: i64) -> bool {
    let (Some(ranges), Ok(offset)) = (settled, u64::try_from(offset)) else {
        return false;
    };
    ranges
        .iter()
        .any(|range| (range.first..=range.last).contains(&offset))
}

/// What is settled beyond the committed offsets, of the partitions that have something beyond them.
pub(crate) fn settled(
    settings: &Settings,
    ledger: &str,
    ends: &[Extent],
    wanted: impl Fn(usize) -> bool,
) -> Outcome<BTreeMap<usize, Vec<OffsetRange>>> {
    let starts: Vec<i64> = ends
        .iter()
        .enumerate()
        .map(|(at, extent)| match wanted(at) {
            true => extent.start.max(extent.end - SLOT_TAIL),
            false => extent.end,
        })
        .collect();
    let mut found = BTreeMap::new();
    if !(0..ends.len()).any(&wanted) {
        return Ok(found);
    }
    let deadline = Deadline::of(Some(settings.question()));
    let mut reader = Reader::open(
        &settings.connection()?,
        ledger,
        &Start::Offsets(starts),
        Until::End,
        settings.question(),
    )?;
    while !deadline.has_passed() {
        match reader.next(LOOK)? {
            Step::Idle => {}
            Step::Done => break,
            Step::Record(record) => {
                if record.key.as_deref() == Some(SLOT_KEY)
                    && let Some(value) = record.value.as_deref()
                    // The ledger is single-object encoded always.
                    && let Ok(LedgerEntry::Slot(slot)) = decode(value, &NoRegistry)
                    && let Ok(at) = usize::try_from(record.partition)
                {
                    found.insert(at, slot.settled);
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_offsets_are_no_backlog() {
        let ranges = vec![
            OffsetRange { first: 3, last: 3 },
            OffsetRange { first: 7, last: 9 },
        ];
        let covered: Vec<i64> = (-1..12).filter(|at| covers(Some(&ranges), *at)).collect();
        assert_eq!(covered, [3, 7, 8, 9]);
        assert!(!covers(None, 3));
    }
}
