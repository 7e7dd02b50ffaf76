//! SimBroker: logs, a transaction coordinator, a group coordinator. Each call is atomic; what takes
//! a real cluster time (markers, the scan for old transactions) takes calls of its own.

use crate::group::{Group, Metadata, Refused};
use crate::log::Log;
use guestkit_worker::engine::invariants::{Moment, TransactionSeen};
use guestkit_worker::engine::record::{Millis, RawRecord};
use guestkit_worker::transaction_records::Place;
use std::collections::{BTreeMap, BTreeSet};

/// `transaction.timeout.ms` (broker::writer).
pub(crate) const TRANSACTION_MS: Millis = 10_000;

/// What a transactional call is refused for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TxError {
    /// The producer's epoch is old: fatal.
    Fenced,
    /// The transaction of before is still ending: call again.
    Concurrent,
    /// There is no such transaction: fatal.
    InvalidState,
    /// The group refuses the metadata: abort.
    Group(Refused),
}

/// A producer as its client holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Handle {
    pub(crate) transactional_id: String,
    producer: u64,
    epoch: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Log(Place, u32),
    Group,
}

#[derive(Debug)]
enum State {
    Empty,
    Ongoing { since: Millis },
    Ending { commit: bool, moment: Moment },
    Ended { commit: bool },
}

#[derive(Debug)]
struct Transactional {
    producer: u64,
    epoch: u32,
    state: State,
    targets: BTreeSet<Target>,
    accepted: BTreeMap<u32, bool>,
}

/// Who held which partition: what the judge compares accepted offsets with.
pub(crate) type Holder = BTreeMap<u32, String>;

#[derive(Debug)]
pub(crate) struct Broker {
    logs: BTreeMap<(Place, u32), Log>,
    transactional: BTreeMap<String, Transactional>,
    pub(crate) group: Group,
    next_producer: u64,
    moment: Moment,
    pub(crate) transactions: Vec<TransactionSeen>,
    slots: u32,
}

impl Broker {
    pub(crate) fn new(partitions: u32, slots: u32) -> Self {
        Self {
            logs: BTreeMap::new(),
            transactional: BTreeMap::new(),
            group: Group::new(partitions),
            next_producer: 1,
            moment: 0,
            transactions: Vec::new(),
            slots,
        }
    }

    pub(crate) fn log(&self, place: Place, partition: u32) -> &Log {
        static EMPTY: Log = Log::empty();
        self.logs.get(&(place, partition)).unwrap_or(&EMPTY)
    }

    fn log_mut(&mut self, place: Place, partition: u32) -> &mut Log {
        self.logs.entry((place, partition)).or_default()
    }

    pub(crate) fn compact(&mut self, partition: u32) {
        self.log_mut(Place::Ledger, partition).compact();
    }

    /// A write outside transactions.
    pub(crate) fn produce_plain(&mut self, place: Place, partition: u32, record: RawRecord) -> i64 {
        self.moment += 1;
        let moment = self.moment;
        self.log_mut(place, partition).append(record, None, moment)
    }

    /// `init_transactions`: a new epoch, once the old transaction is over.
    pub(crate) fn init(&mut self, id: &str) -> Result<Handle, TxError> {
        let next_producer = &mut self.next_producer;
        let known = self.transactional.entry(id.to_owned()).or_insert_with(|| {
            *next_producer += 1;
            Transactional {
                producer: *next_producer,
                epoch: 0,
                state: State::Empty,
                targets: BTreeSet::new(),
                accepted: BTreeMap::new(),
            }
        });
        match known.state {
            State::Ongoing { .. } => {
                known.epoch += 1;
                self.begin_end(id, false);
                Err(TxError::Concurrent)
            }
            State::Ending { .. } => Err(TxError::Concurrent),
            State::Empty | State::Ended { .. } => {
                known.epoch += 1;
                known.state = State::Empty;
                Ok(Handle {
                    transactional_id: id.to_owned(),
                    producer: known.producer,
                    epoch: known.epoch,
                })
            }
        }
    }

    fn known(&mut self, handle: &Handle) -> Result<&mut Transactional, TxError> {
        let known = self
            .transactional
            .get_mut(&handle.transactional_id)
            .ok_or(TxError::InvalidState)?;
        if known.epoch != handle.epoch {
            return Err(TxError::Fenced);
        }
        if matches!(known.state, State::Ending { .. }) {
            return Err(TxError::Concurrent);
        }
        Ok(known)
    }

    /// Adds a target to the transaction, beginning one where there is none.
    fn add(&mut self, handle: &Handle, target: Target, now: Millis) -> Result<(), TxError> {
        let known = self.known(handle)?;
        if !matches!(known.state, State::Ongoing { .. }) {
            known.state = State::Ongoing { since: now };
            known.targets.clear();
            known.accepted.clear();
        }
        known.targets.insert(target);
        Ok(())
    }

    /// Adds the partition if the client says it is its first write there, then writes. A write to a
    /// partition that the transaction does not hold is refused (KIP-890, part 1).
    pub(crate) fn produce(
        &mut self,
        handle: &Handle,
        first: bool,
        place: Place,
        partition: u32,
        records: Vec<RawRecord>,
        now: Millis,
    ) -> Result<Vec<i64>, TxError> {
        if first {
            self.add(handle, Target::Log(place, partition), now)?;
        }
        let known = self.known(handle)?;
        let holds = matches!(known.state, State::Ongoing { .. })
            && known.targets.contains(&Target::Log(place, partition));
        if !holds {
            return Err(TxError::InvalidState);
        }
        let producer = known.producer;
        let log = self.log_mut(place, partition);
        Ok(records
            .into_iter()
            .map(|record| log.append(record, Some(producer), 0))
            .collect())
    }

    pub(crate) fn send_offsets(
        &mut self,
        handle: &Handle,
        metadata: &Metadata,
        offsets: &[(u32, i64)],
        holder: &Holder,
        now: Millis,
    ) -> Result<(), TxError> {
        self.add(handle, Target::Group, now)?;
        self.group
            .transactional_commit(handle.producer, metadata, offsets)
            .map_err(TxError::Group)?;
        let owned: Vec<(u32, bool)> = offsets
            .iter()
            .map(|(partition, _)| {
                let held = holder
                    .get(partition)
                    .is_some_and(|member| self.group.is_owner(*partition, member));
                (*partition, held)
            })
            .collect();
        self.known(handle)?.accepted.extend(owned);
        Ok(())
    }

    pub(crate) fn end(&mut self, handle: &Handle, commit: bool) -> Result<(), TxError> {
        let known = self.known(handle)?;
        match known.state {
            State::Ongoing { .. } => {
                self.begin_end(&handle.transactional_id, commit);
                Ok(())
            }
            State::Ended { commit: before } if before == commit => Ok(()),
            _ => Err(TxError::InvalidState),
        }
    }

    fn begin_end(&mut self, id: &str, commit: bool) {
        self.moment += 1;
        let moment = self.moment;
        let slots = self.slots;
        let Some(known) = self.transactional.get_mut(id) else {
            return;
        };
        known.state = State::Ending { commit, moment };
        if commit {
            let touched = known
                .targets
                .iter()
                .filter_map(|target| match target {
                    Target::Log(Place::Ledger | Place::Results, partition) => Some(*partition),
                    _ => None,
                })
                .filter(|partition| *partition < slots)
                .collect();
            self.transactions.push(TransactionSeen {
                writer: id.to_owned(),
                touched,
                accepted: std::mem::take(&mut known.accepted),
            });
        }
    }

    /// Transactions that are ending.
    pub(crate) fn ending(&self) -> Vec<String> {
        self.transactional
            .iter()
            .filter(|(_, known)| matches!(known.state, State::Ending { .. }))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Writes one more marker of a transaction that is ending; `nth` says to which of what is left.
    pub(crate) fn write_marker(&mut self, id: &str, nth: u64) {
        let Some(known) = self.transactional.get_mut(id) else {
            return;
        };
        let State::Ending { commit, moment } = known.state else {
            return;
        };
        let producer = known.producer;
        let left = known.targets.len() as u64;
        let target = if left == 0 {
            None
        } else {
            known.targets.iter().nth((nth % left) as usize).copied()
        };
        let Some(target) = target else {
            known.state = State::Ended { commit };
            return;
        };
        known.targets.remove(&target);
        if known.targets.is_empty() {
            known.state = State::Ended { commit };
        }
        match target {
            Target::Group => self.group.end_transaction(producer, commit, moment),
            Target::Log(place, partition) => {
                self.log_mut(place, partition)
                    .end_transaction(producer, commit, moment);
            }
        }
    }

    /// What the broker does by itself: sessions and transactions that are over.
    pub(crate) fn tick(&mut self, now: Millis) {
        self.group.tick(now);
        let late: Vec<String> = self
            .transactional
            .iter()
            .filter(|(_, known)| {
                matches!(known.state, State::Ongoing { since } if now - since >= TRANSACTION_MS)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in late {
            if let Some(known) = self.transactional.get_mut(&id) {
                known.epoch += 1;
            }
            self.begin_end(&id, false);
        }
    }

    /// Records that the group has not passed, control records included.
    pub(crate) fn lag(&self, partitions: u32) -> BTreeMap<u32, i64> {
        (0..partitions)
            .map(|partition| {
                let end = self.log(Place::Jobs, partition).high_watermark();
                let next = self.group.committed(partition).unwrap_or(0);
                (partition, end - next)
            })
            .collect()
    }
}
