//! The broker contract on SimBroker.

use crate::broker::{Broker, Handle, Holder, TxError};
use crate::contract::{self, Cluster, Pending, Refused};
use crate::group::{Joined, Metadata};
use guestkit_worker::engine::record::RawRecord;
use guestkit_worker::transaction_records::Place;
use std::collections::{BTreeMap, BTreeSet};

struct Simulated {
    broker: Broker,
    members: BTreeMap<String, Member>,
}

struct Member {
    generation: i32,
    owned: BTreeSet<u32>,
    /// It has to join once more: it gave something up.
    let_go: bool,
}

impl Default for Member {
    fn default() -> Self {
        Self {
            generation: -1,
            owned: BTreeSet::new(),
            let_go: false,
        }
    }
}

struct Producer {
    handle: Handle,
    added: BTreeSet<(Place, u32)>,
}

impl Simulated {
    fn new() -> Self {
        Self {
            broker: Broker::new(2, 2),
            members: BTreeMap::new(),
        }
    }

    fn settle(&mut self) {
        while let Some(id) = self.broker.ending().pop() {
            self.broker.write_marker(&id, 0);
        }
    }
}

fn record(key: &str, value: &str) -> RawRecord {
    RawRecord {
        key: Some(key.as_bytes().to_vec()),
        value: Some(value.as_bytes().to_vec()),
        ..RawRecord::default()
    }
}

fn refused(error: TxError) -> Refused {
    match error {
        TxError::Group(_) => Refused::Stale,
        _ => Refused::Fatal,
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

impl Cluster for Simulated {
    type Producer = Producer;
    type Member = String;
    type Metadata = Metadata;

    fn init(&mut self, transactional_id: &str) -> Producer {
        loop {
            match self.broker.init(transactional_id) {
                Ok(handle) => {
                    return Producer {
                        handle,
                        added: BTreeSet::new(),
                    };
                }
                Err(error) => assert_eq!(error, TxError::Concurrent),
            }
            self.settle();
        }
    }

    fn produce(&mut self, by: &mut Producer, to: (Place, u32), key: &str, value: &str) {
        let first = by.added.insert(to);
        let records = vec![record(key, value)];
        self.broker
            .produce(&by.handle, first, to.0, to.1, records, 0)
            .unwrap();
    }

    fn send_offsets(
        &mut self,
        by: &mut Producer,
        metadata: &Metadata,
        partition: u32,
        next_offset: i64,
    ) -> Result<(), Refused> {
        let offsets = [(partition, next_offset)];
        self.broker
            .send_offsets(&by.handle, metadata, &offsets, &Holder::new(), 0)
            .map_err(refused)
    }

    fn end(&mut self, by: &mut Producer, commit: bool) -> Result<(), Refused> {
        by.added.clear();
        let ended = self.broker.end(&by.handle, commit).map_err(refused);
        self.settle();
        ended
    }

    fn write_plain(&mut self, to: (Place, u32), key: &str, value: &str) {
        self.broker.produce_plain(to.0, to.1, record(key, value));
    }

    fn join(&mut self) -> String {
        let new = self.broker.group.new_member(0);
        self.members.insert(new.clone(), Member::default());
        // Every member joins, what has to move is let go, its loser joins again, all follow.
        for _ in 0..8 {
            for (id, member) in &mut self.members {
                let metadata = Metadata {
                    generation: member.generation,
                    member_id: id.clone(),
                };
                let group = &mut self.broker.group;
                if group.heartbeat(&metadata, 0).is_ok() && !member.let_go {
                    continue;
                }
                let joined = group.join(id, member.generation, &member.owned, 0);
                if let Joined::Member {
                    generation,
                    partitions,
                } = joined
                {
                    member.let_go = !member.owned.is_subset(&partitions);
                    member.generation = generation;
                    member.owned = partitions;
                }
            }
        }
        new
    }

    fn metadata(&mut self, member: &String) -> Metadata {
        Metadata {
            generation: self.members[member].generation,
            member_id: member.clone(),
        }
    }

    fn unjoined(&mut self) -> Metadata {
        Metadata::none()
    }

    fn read(&mut self, from: (Place, u32), read_committed: bool) -> Vec<(i64, String, String)> {
        let log = self.broker.log(from.0, from.1);
        log.fetch(0, usize::MAX, read_committed)
            .records
            .iter()
            .map(|(offset, raw)| {
                let (key, value) = (text(raw.key.as_deref()), text(raw.value.as_deref()));
                (*offset, key, value)
            })
            .collect()
    }

    fn high_watermark(&mut self, of: (Place, u32)) -> i64 {
        self.broker.log(of.0, of.1).high_watermark()
    }

    fn last_stable(&mut self, of: (Place, u32)) -> i64 {
        self.broker.log(of.0, of.1).last_stable()
    }

    fn stable_offset(&mut self, partition: u32) -> Result<Option<i64>, Pending> {
        self.broker
            .group
            .stable_offset(partition)
            .map_err(|_| Pending)
    }

    fn compact(&mut self, of: (Place, u32)) {
        self.broker.compact(of.1);
    }
}

macro_rules! contract {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                contract::$name(&mut Simulated::new());
            }
        )*
    };
}

contract! {
    a_commit_shows_everything_an_abort_nothing
    what_is_open_hides_what_comes_after_it
    control_records_leave_gaps
    a_stale_generation_is_refused_and_its_producer_lives
    metadata_of_nobody_is_not_fenced
    any_member_commits_any_partition
    the_stable_offset_waits_for_a_pending_one
    a_new_producer_ends_the_old_ones_transaction
    renewal_decides_an_unknown_commit
    compaction_keeps_the_newest_of_a_key
}
