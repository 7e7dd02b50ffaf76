//! The worker directory: the newest advertisement of each worker, and whether it still lives.
//!
//! A worker writes its advertisement as a heartbeat. One that leaves cleanly says `offline`; one that vanished
//! cannot, so whoever reads the directory calls it offline after some missed heartbeats. Times are those of the
//! records, which the topic takes from the broker: the workers' clocks do not matter.

use crate::clock::Moment;
use crate::connection::Connection;
use crate::fault::Fault;
use crate::reader::{Reader, Record, Start, Step, Until};
use guestkit_protocol::{SchemaSource, Timestamp, WorkerAdvertisement, WorkerState, decode};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often a worker advertises itself. A record a worker in ten seconds is nothing to a broker, and an
/// operator learns of a lost one within half a minute.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// So many heartbeats may be missed: a broker that moves a partition's leader costs one or two.
pub const MISSED_MAX: u32 = 3;
/// How long one look for the next record takes.
const LOOK: Duration = Duration::from_millis(100);

/// A worker of the directory.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedWorker {
    /// What it said last.
    pub advertisement: WorkerAdvertisement,
    /// When it said so.
    pub last_seen: Timestamp,
    /// How it is: what it said, or offline when its heartbeats stopped.
    pub state: WorkerState,
    /// Whether its heartbeats stopped without a word.
    pub is_vanished: bool,
}

impl ListedWorker {
    /// Judges an advertisement that was written at `last_seen`.
    pub fn judge(advertisement: WorkerAdvertisement, last_seen: Timestamp, now: Timestamp) -> Self {
        let said = advertisement.status.state;
        let is_vanished = said != WorkerState::Offline && age(last_seen, now) > silence_max();
        Self {
            state: if is_vanished {
                WorkerState::Offline
            } else {
                said
            },
            advertisement,
            last_seen,
            is_vanished,
        }
    }

    /// Whether it takes part: ready, busy or draining.
    pub fn is_alive(&self) -> bool {
        self.state != WorkerState::Offline
    }

    /// How long ago it was last seen.
    pub fn age(&self, now: Timestamp) -> Duration {
        age(self.last_seen, now)
    }

    /// Its pool; the default one has a name, too.
    pub fn pool(&self) -> &str {
        self.advertisement
            .configuration
            .worker_pool
            .as_deref()
            .unwrap_or(guestkit_protocol::DEFAULT_POOL)
    }
}

/// All workers of one topic.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Directory {
    /// By worker id.
    pub workers: Vec<ListedWorker>,
    /// Records that could not be read, each with the reason.
    pub unreadable: Vec<String>,
}

/// The longest silence of a worker that counts as alive.
pub fn silence_max() -> Duration {
    HEARTBEAT * MISSED_MAX
}

fn age(since: Timestamp, now: Timestamp) -> Duration {
    let ms = now.as_millis().saturating_sub(since.as_millis());
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// Reads the directory to its end.
///
/// # Errors
/// See [`Fault`]; [`Fault::Config`] when there is no such topic, [`Fault::Unreachable`] when its end was not
/// reached within `timeout`.
pub fn list(
    connection: &Connection,
    topic: &str,
    schemas: &dyn SchemaSource,
    now: Timestamp,
    timeout: Duration,
) -> Result<Directory, Fault> {
    let end = Moment::now().after(timeout);
    let mut reader = Reader::open(connection, topic, &Start::Beginning, Until::End, timeout)?;
    let mut newest = BTreeMap::new();
    loop {
        match reader.next(LOOK)? {
            Step::Done => break,
            Step::Idle => {}
            Step::Record(record) => {
                // Of one key all records are in one partition, in order.
                newest.insert(record.key.clone().unwrap_or_default(), record);
            }
        }
        if end.since(Moment::now()).is_none() {
            return Err(reader.last_fault().cloned().unwrap_or_else(|| {
                Fault::unreachable(
                    format!("read {topic}"),
                    "its end was not reached in time; a longer --timeout may help",
                )
            }));
        }
    }
    Ok(of_records(newest.into_values(), schemas, now))
}

/// What the newest records say. Pure, but for schemas that are looked up.
fn of_records(
    records: impl Iterator<Item = Record>,
    schemas: &dyn SchemaSource,
    now: Timestamp,
) -> Directory {
    let mut directory = Directory::default();
    for record in records {
        // A worker that was deleted from the directory.
        let Some(value) = record.value.as_deref() else {
            continue;
        };
        match decode::<WorkerAdvertisement>(value, schemas) {
            Ok(advertisement) => {
                let last_seen = record
                    .timestamp_ms
                    .map_or(advertisement.status.last_heartbeat, Timestamp::from_millis);
                let worker = ListedWorker::judge(advertisement, last_seen, now);
                directory.workers.push(worker);
            }
            Err(error) => directory
                .unreadable
                .push(format!("{}/{}: {error}", record.partition, record.offset)),
        }
    }
    directory
}

#[cfg(test)]
mod tests {
    use super::*;
    use guestkit_protocol::{Framing, NoRegistry, WorkerStatus, encode};

    fn advertisement(id: &str, state: WorkerState) -> WorkerAdvertisement {
        let at = Timestamp::from_millis(1_000_000);
        let status = WorkerStatus::new(state, 0, at);
        WorkerAdvertisement::new(id, "0.1.0", at, status)
    }

    #[test]
    fn silence_makes_a_worker_offline_and_a_clean_leave_is_no_loss() {
        let seen = Timestamp::from_millis(1_000_000);
        let after = |ms: i64| Timestamp::from_millis(1_000_000 + ms);
        let judge = |state, now| ListedWorker::judge(advertisement("w", state), seen, now);
        let limit = i64::try_from(silence_max().as_millis()).unwrap();
        let busy = judge(WorkerState::Busy, after(limit));
        assert_eq!((busy.state, busy.is_vanished), (WorkerState::Busy, false));
        let lost = judge(WorkerState::Busy, after(limit + 1));
        assert_eq!((lost.state, lost.is_vanished), (WorkerState::Offline, true));
        let left = judge(WorkerState::Offline, after(limit + 1));
        assert_eq!(
            (left.state, left.is_vanished),
            (WorkerState::Offline, false)
        );
        // A clock ahead of ours is no reason to call anybody lost.
        assert!(judge(WorkerState::Ready, after(-60_000)).is_alive());
    }

    #[test]
    fn deleted_and_unreadable_entries_are_told_apart() {
        let record = |key: &str, value: Option<Vec<u8>>| Record {
            partition: 0,
            offset: 7,
            timestamp_ms: Some(2_000_000),
            key: Some(key.into()),
            value,
            headers: Vec::new(),
        };
        let good = encode(&advertisement("a", WorkerState::Ready), Framing::Json).unwrap();
        let records = [
            record("a", Some(good)),
            record("b", None),
            record("c", Some(b"nonsense".to_vec())),
        ];
        let now = Timestamp::from_millis(2_000_001);
        let found = of_records(records.into_iter(), &NoRegistry, now);
        assert_eq!(found.workers.len(), 1);
        // The record's time counts, not what the worker's clock said.
        assert_eq!(found.workers[0].age(now), Duration::from_millis(1));
        assert_eq!(found.unreadable.len(), 1, "{:?}", found.unreadable);
        assert!(found.unreadable[0].starts_with("0/7: "));
    }
}
