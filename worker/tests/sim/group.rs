//! The group coordinator: members, generations, cooperative rebalances, offsets with pending ones.

use guestkit_worker::engine::invariants::{Moment, OffsetSeen};
use guestkit_worker::engine::record::Millis;
use std::collections::{BTreeMap, BTreeSet};

/// `session.timeout.ms` of the fleet's tests.
pub(crate) const SESSION_MS: Millis = 6_000;
/// How long a rebalance waits for members to join again.
const REBALANCE_MS: Millis = 8_000;

/// What a consumer shows as its membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) generation: i32,
    pub(crate) member_id: String,
}

impl Metadata {
    pub(crate) fn none() -> Self {
        Self {
            generation: -1,
            member_id: String::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    IllegalGeneration,
    UnknownMember,
    Rebalancing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Joined {
    Waiting,
    /// The coordinator does not know this member (any more).
    Unknown,
    Member {
        generation: i32,
        partitions: BTreeSet<u32>,
    },
}

#[derive(Debug)]
struct Member {
    seen: Millis,
    has_joined: bool,
    /// What it said it owned when it joined the rebalance that is going on.
    joined: Option<BTreeSet<u32>>,
    assigned: BTreeSet<u32>,
}

#[derive(Debug)]
struct Offset {
    next: i64,
    /// Position in the offsets log: an older commit that ends later changes nothing.
    position: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Group {
    partitions: u32,
    generation: i32,
    members: BTreeMap<String, Member>,
    rebalance_until: Option<Millis>,
    /// Who was given each partition last.
    owners: BTreeMap<u32, String>,
    offsets: BTreeMap<u32, Offset>,
    pending: BTreeMap<u64, BTreeMap<u32, Offset>>,
    log_position: u64,
    next_member: u64,
    pub(crate) history: Vec<OffsetSeen>,
}

impl Group {
    pub(crate) fn new(partitions: u32) -> Self {
        Self {
            partitions,
            ..Self::default()
        }
    }

    /// A first join gets a member id.
    pub(crate) fn new_member(&mut self, now: Millis) -> String {
        self.next_member += 1;
        let id = format!("member-{}", self.next_member);
        self.members.insert(
            id.clone(),
            Member {
                seen: now,
                has_joined: false,
                joined: None,
                assigned: BTreeSet::new(),
            },
        );
        id
    }

    /// Joins, or asks how the join goes on. A join while nothing is going on begins a rebalance.
    pub(crate) fn join(
        &mut self,
        member_id: &str,
        generation: i32,
        owned: &BTreeSet<u32>,
        now: Millis,
    ) -> Joined {
        let Some(member) = self.members.get_mut(member_id) else {
            return Joined::Unknown;
        };
        member.seen = now;
        if self.rebalance_until.is_none() && generation < self.generation && member.has_joined {
            // The rebalance that it had joined is over.
            return Joined::Member {
                generation: self.generation,
                partitions: member.assigned.clone(),
            };
        }
        member.joined = Some(owned.clone());
        member.has_joined = true;
        self.rebalance_until.get_or_insert(now + REBALANCE_MS);
        self.complete_rebalance(now);
        let member = &self.members[member_id];
        if self.rebalance_until.is_none() {
            Joined::Member {
                generation: self.generation,
                partitions: member.assigned.clone(),
            }
        } else {
            Joined::Waiting
        }
    }

    pub(crate) fn heartbeat(&mut self, metadata: &Metadata, now: Millis) -> Result<(), Refused> {
        let member = self
            .members
            .get_mut(&metadata.member_id)
            .ok_or(Refused::UnknownMember)?;
        member.seen = now;
        if metadata.generation != self.generation {
            Err(Refused::IllegalGeneration)
        } else if self.rebalance_until.is_some() {
            Err(Refused::Rebalancing)
        } else {
            Ok(())
        }
    }

    pub(crate) fn leave(&mut self, member_id: &str, now: Millis) {
        if self.members.remove(member_id).is_some() {
            self.rebalance_until.get_or_insert(now + REBALANCE_MS);
            self.complete_rebalance(now);
        }
    }

    /// Expels who was not seen, ends rebalances that wait too long.
    pub(crate) fn tick(&mut self, now: Millis) {
        let before = self.members.len();
        self.members
            .retain(|_, member| now - member.seen < SESSION_MS);
        if self.members.len() < before {
            self.rebalance_until.get_or_insert(now + REBALANCE_MS);
        }
        self.complete_rebalance(now);
    }

    fn complete_rebalance(&mut self, now: Millis) {
        let Some(until) = self.rebalance_until else {
            return;
        };
        if now >= until {
            self.members.retain(|_, member| member.joined.is_some());
        } else if self.members.values().any(|member| member.joined.is_none()) {
            return;
        }
        self.rebalance_until = None;
        self.generation += 1;
        if self.members.is_empty() {
            return;
        }
        let most = (self.partitions as usize).div_ceil(self.members.len());
        let mut taken = BTreeSet::new();
        let mut held = BTreeSet::new();
        for member in self.members.values_mut() {
            let owned = member.joined.take().unwrap_or_default();
            held.extend(owned.iter().copied());
            member.assigned = owned
                .into_iter()
                .filter(|partition| !taken.contains(partition))
                .take(most)
                .collect();
            taken.extend(member.assigned.iter().copied());
        }
        // What somebody still holds beyond his share is given on only once he has let it go.
        for partition in 0..self.partitions {
            if held.contains(&partition) {
                continue;
            }
            let least = self
                .members
                .values_mut()
                .min_by_key(|member| member.assigned.len());
            if let Some(member) = least {
                member.assigned.insert(partition);
            }
        }
        for (id, member) in &self.members {
            for partition in &member.assigned {
                self.owners.insert(*partition, id.clone());
            }
        }
    }

    /// Whether nobody else was given the partition since this member was.
    pub(crate) fn is_owner(&self, partition: u32, member_id: &str) -> bool {
        self.owners.get(&partition).map(String::as_str) == Some(member_id)
    }

    /// Accepts a transaction's offsets as pending. A classic group does not fence what carries
    /// neither a generation nor a member id, and never looks at the partitions.
    pub(crate) fn transactional_commit(
        &mut self,
        producer: u64,
        metadata: &Metadata,
        offsets: &[(u32, i64)],
    ) -> Result<(), Refused> {
        if metadata.generation >= 0 || !metadata.member_id.is_empty() {
            if !self.members.contains_key(&metadata.member_id) {
                return Err(Refused::UnknownMember);
            }
            if metadata.generation != self.generation {
                return Err(Refused::IllegalGeneration);
            }
        }
        let pending = self.pending.entry(producer).or_default();
        for (partition, next) in offsets {
            self.log_position += 1;
            let position = self.log_position;
            pending.insert(
                *partition,
                Offset {
                    next: *next,
                    position,
                },
            );
        }
        Ok(())
    }

    pub(crate) fn end_transaction(&mut self, producer: u64, commit: bool, moment: Moment) {
        let pending = self.pending.remove(&producer).unwrap_or_default();
        if !commit {
            return;
        }
        for (partition, offset) in pending {
            let newer = self
                .offsets
                .get(&partition)
                .is_none_or(|known| known.position < offset.position);
            if newer {
                self.history.push(OffsetSeen {
                    partition,
                    next_offset: offset.next,
                    moment,
                });
                self.offsets.insert(partition, offset);
            }
        }
    }

    /// The committed offset, unless a transaction is about to change it.
    pub(crate) fn stable_offset(&self, partition: u32) -> Result<Option<i64>, Unstable> {
        if self
            .pending
            .values()
            .any(|offsets| offsets.contains_key(&partition))
        {
            return Err(Unstable);
        }
        Ok(self.committed(partition))
    }

    pub(crate) fn committed(&self, partition: u32) -> Option<i64> {
        self.offsets.get(&partition).map(|offset| offset.next)
    }
}

/// A transaction is about to change the offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unstable;
