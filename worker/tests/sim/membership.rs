//! Group membership as the client library holds it, with its callbacks.
//!
//! The library forgets generation and member id as soon as it hears that it was expelled; the
//! callback that tells so comes later. Between the two the metadata is unfenceable (rule 2).

use crate::broker::Holder;
use crate::group::{Joined, Metadata, Refused};
use crate::net::Net;
use crate::process::Message;
use guestkit_worker::broker::ownership::Ownership;
use guestkit_worker::engine::Event;
use guestkit_worker::engine::record::Millis;
use guestkit_worker::engine::transaction::Epoch;
use std::collections::BTreeSet;

/// How long a revoke waits for the last transaction (broker::member).
const RELEASE_MS: Millis = 2_000;
/// Pause between two polls of the group.
const POLL_MS: Millis = 150;

#[derive(Debug)]
pub(crate) enum GroupReply {
    Heartbeat(Metadata, Result<(), Refused>),
    Joined(String, Joined),
    Left,
}

#[derive(Debug)]
struct Revoking {
    wanted: BTreeSet<(u32, Epoch)>,
    add_after: BTreeSet<u32>,
}

#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) metadata: Metadata,
    pub(crate) ownership: Ownership,
    /// Under which member id each partition was taken: for the judge.
    pub(crate) holder: Holder,
    assigned: BTreeSet<u32>,
    joining: bool,
    losing: bool,
    waiting: bool,
    revoking: Option<Revoking>,
    revokes: u64,
    leaving: bool,
    pub(crate) left: bool,
}

impl Membership {
    pub(crate) fn new() -> Self {
        Self {
            metadata: Metadata::none(),
            ownership: Ownership::default(),
            holder: Holder::new(),
            assigned: BTreeSet::new(),
            joining: true,
            losing: false,
            waiting: false,
            revoking: None,
            revokes: 0,
            leaving: false,
            left: false,
        }
    }

    /// One poll of the group, and the heartbeat of the library's own thread.
    pub(crate) fn poll(&mut self, net: &mut Net<'_>) {
        if self.left {
            return;
        }
        let pause = POLL_MS + net.dice.between(0, POLL_MS);
        net.after(pause, Message::Poll);
        if self.losing || self.waiting {
            return;
        }
        if self.joining && self.revoking.is_none() && !self.leaving {
            let (id, generation) = (self.metadata.member_id.clone(), self.metadata.generation);
            let owned = self.assigned.clone();
            self.waiting = true;
            net.call(move |broker, now| {
                let id = if id.is_empty() {
                    broker.group.new_member(now)
                } else {
                    id
                };
                let joined = broker.group.join(&id, generation, &owned, now);
                Message::Group(GroupReply::Joined(id, joined))
            });
        } else if !self.metadata.member_id.is_empty() {
            let metadata = self.metadata.clone();
            self.waiting = true;
            net.call(move |broker, now| {
                let answer = broker.group.heartbeat(&metadata, now);
                Message::Group(GroupReply::Heartbeat(metadata, answer))
            });
        }
    }

    /// Takes the coordinator's answer; events for the engine.
    pub(crate) fn answered(&mut self, reply: GroupReply, net: &mut Net<'_>) -> Vec<Event> {
        self.waiting = false;
        match reply {
            GroupReply::Left => {
                self.left = true;
                Vec::new()
            }
            GroupReply::Heartbeat(of, _) if of != self.metadata => Vec::new(),
            GroupReply::Heartbeat(_, Ok(())) => Vec::new(),
            GroupReply::Heartbeat(_, Err(Refused::Rebalancing)) => {
                self.joining = true;
                Vec::new()
            }
            GroupReply::Heartbeat(_, Err(Refused::UnknownMember | Refused::IllegalGeneration))
            | GroupReply::Joined(_, Joined::Unknown) => {
                self.metadata = Metadata::none();
                self.losing = true;
                let delay = net.dice.between(0, 400);
                net.after(delay, Message::LostCallback);
                Vec::new()
            }
            GroupReply::Joined(id, Joined::Waiting) => {
                self.metadata.member_id = id;
                Vec::new()
            }
            GroupReply::Joined(
                id,
                Joined::Member {
                    generation,
                    partitions,
                },
            ) => {
                self.metadata = Metadata {
                    generation,
                    member_id: id,
                };
                self.joining = false;
                let add: BTreeSet<u32> = partitions.difference(&self.assigned).copied().collect();
                let revoke: BTreeSet<u32> =
                    self.assigned.difference(&partitions).copied().collect();
                if revoke.is_empty() {
                    self.add(&add)
                } else {
                    self.revoke(&revoke, add, net)
                }
            }
        }
    }

    fn add(&mut self, partitions: &BTreeSet<u32>) -> Vec<Event> {
        partitions
            .iter()
            .map(|partition| {
                self.assigned.insert(*partition);
                self.holder
                    .insert(*partition, self.metadata.member_id.clone());
                Event::Assigned {
                    partition: *partition,
                    epoch: self.ownership.add(*partition),
                }
            })
            .collect()
    }

    fn revoke(
        &mut self,
        partitions: &BTreeSet<u32>,
        add_after: BTreeSet<u32>,
        net: &mut Net<'_>,
    ) -> Vec<Event> {
        let wanted: BTreeSet<(u32, Epoch)> = partitions
            .iter()
            .filter_map(|partition| Some((*partition, self.ownership.epoch(*partition)?)))
            .collect();
        self.revokes += 1;
        net.after(RELEASE_MS, Message::RevokeOver(self.revokes));
        let events = wanted
            .iter()
            .map(|(partition, epoch)| Event::Revoking {
                partition: *partition,
                epoch: *epoch,
            })
            .collect();
        self.revoking = Some(Revoking { wanted, add_after });
        events
    }

    /// The callback's wait is over: by the last release, or by time.
    pub(crate) fn end_revoke(
        &mut self,
        released: &BTreeSet<(u32, Epoch)>,
        by_time: Option<u64>,
        net: &mut Net<'_>,
    ) -> Vec<Event> {
        let over = self.revoking.as_ref().is_some_and(|revoking| {
            by_time == Some(self.revokes) || revoking.wanted.is_subset(released)
        });
        if !over {
            return Vec::new();
        }
        let Some(revoking) = self.revoking.take() else {
            return Vec::new();
        };
        let mut events = self.drop_all(&revoking.wanted);
        if self.leaving {
            let id = self.metadata.member_id.clone();
            self.waiting = true;
            net.call(move |broker, now| {
                broker.group.leave(&id, now);
                Message::Group(GroupReply::Left)
            });
            return events;
        }
        events.extend(self.add(&revoking.add_after));
        // What was given up is given on once this member joins without it.
        self.joining = true;
        events
    }

    fn drop_all(&mut self, owned: &BTreeSet<(u32, Epoch)>) -> Vec<Event> {
        let numbers: Vec<u32> = owned.iter().map(|(partition, _)| *partition).collect();
        self.ownership.remove(&numbers);
        for partition in &numbers {
            self.assigned.remove(partition);
        }
        owned
            .iter()
            .map(|(partition, epoch)| Event::Lost {
                partition: *partition,
                epoch: *epoch,
            })
            .collect()
    }

    /// The library tells that membership is gone.
    pub(crate) fn lost(&mut self) -> Vec<Event> {
        self.revoking = None;
        self.losing = false;
        self.joining = true;
        let owned: BTreeSet<(u32, Epoch)> = self.ownership.all().into_iter().collect();
        if self.leaving {
            self.left = true;
        }
        self.drop_all(&owned)
    }

    /// Leaves in good order: a revoke of everything, then goodbye.
    pub(crate) fn leave(&mut self, net: &mut Net<'_>) -> Vec<Event> {
        self.leaving = true;
        if self.losing || self.revoking.is_some() {
            return Vec::new();
        }
        let all = self.assigned.clone();
        self.revoke(&all, BTreeSet::new(), net)
    }
}
