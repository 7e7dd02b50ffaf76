//! A consumer group as its coordinator sees it: who is in it, and which partitions each member has.

use crate::connection::Connection;
use crate::fault::Fault;
use crate::metadata::consumer;
use rdkafka::consumer::Consumer;
use std::collections::BTreeMap;
use std::time::Duration;

/// A consumer group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// `Stable`, `Empty`, `PreparingRebalance`, `CompletingRebalance` or `Dead`.
    pub state: String,
    /// Its members.
    pub members: Vec<Member>,
}

/// A member of a consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its client id: the worker id, unless `client.id` is configured.
    pub client_id: String,
    /// Where it is.
    pub host: String,
    /// Its partitions by topic.
    pub assigned: BTreeMap<String, Vec<u32>>,
}

impl Group {
    /// Whether it is being handed out anew: assignments mean nothing until it is over.
    pub fn is_rebalancing(&self) -> bool {
        self.state.ends_with("Rebalance")
    }

    /// Who has each of the first `count` partitions of a topic.
    pub fn owners(&self, topic: &str, count: u32) -> Vec<Option<&Member>> {
        (0..count)
            .map(|partition| {
                self.members.iter().find(|member| {
                    let theirs = member.assigned.get(topic);
                    theirs.is_some_and(|theirs| theirs.contains(&partition))
                })
            })
            .collect()
    }
}

/// Asks the coordinator for a group. One that nobody ever joined is empty.
///
/// # Errors
/// See [`Fault`].
pub fn describe(connection: &Connection, group: &str, timeout: Duration) -> Result<Group, Fault> {
    let what = || format!("ask for the members of group {group}");
    let list = consumer(&connection.client_config())?
        .fetch_group_list(Some(group), timeout)
        .map_err(|error| Fault::of(what(), &error))?;
    let Some(found) = list.groups().iter().find(|found| found.name() == group) else {
        return Ok(Group::default());
    };
    let members = found.members().iter().map(|member| Member {
        client_id: member.client_id().to_owned(),
        host: member.client_host().trim_start_matches('/').to_owned(),
        assigned: member.assignment().and_then(assignment).unwrap_or_default(),
    });
    Ok(Group {
        state: found.state().to_owned(),
        members: members.collect(),
    })
}

/// The consumer protocol's assignment: version, then topics with their partitions. `None` when it is cut off:
/// a member that has nothing yet sends an empty one.
fn assignment(bytes: &[u8]) -> Option<BTreeMap<String, Vec<u32>>> {
    let mut rest = bytes;
    let mut take = |length: usize| -> Option<&[u8]> {
        let (head, tail) = rest.split_at_checked(length)?;
        rest = tail;
        Some(head)
    };
    let short = |bytes: &[u8]| bytes.try_into().map(u16::from_be_bytes).ok();
    let long = |bytes: &[u8]| bytes.try_into().map(u32::from_be_bytes).ok();
    let _version = short(take(2)?)?;
    let topics = long(take(4)?)?;
    let mut assigned = BTreeMap::new();
    // Counts are not believed: each turn of either loop takes bytes, or ends it.
    for _ in 0..topics {
        let length = short(take(2)?)?;
        let name = std::str::from_utf8(take(usize::from(length))?)
            .ok()?
            .to_owned();
        let count = long(take(4)?)?;
        let mut partitions = Vec::new();
        for _ in 0..count {
            partitions.push(long(take(4)?)?);
        }
        assigned.insert(name, partitions);
    }
    Some(assigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_read_and_broken_ones_do_no_harm() {
        let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, 4];
        bytes.extend(b"jobs");
        bytes.extend([0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 5]);
        bytes.extend([0xff; 4]); // user data, absent
        let found = assignment(&bytes).unwrap();
        assert_eq!(found, BTreeMap::from([("jobs".to_owned(), vec![3, 5])]));
        for length in 0..bytes.len() - 4 {
            assert_eq!(assignment(&bytes[..length]), None, "{length}");
        }
        assert_eq!(assignment(&[0, 0, 0xff, 0xff, 0xff, 0xff]), None);
        let member = Member {
            client_id: "w".to_owned(),
            host: String::new(),
            assigned: found,
        };
        let group = Group {
            state: "PreparingRebalance".to_owned(),
            members: vec![member],
        };
        let owned: Vec<bool> = group
            .owners("jobs", 4)
            .iter()
            .map(Option::is_some)
            .collect();
        assert_eq!(owned, [false, false, false, true]);
        assert!(group.is_rebalancing());
    }
}
