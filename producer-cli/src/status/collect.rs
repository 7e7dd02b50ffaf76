//! What the cluster knows about the fleet, gathered for one screen.

use super::{backlog, now_ms};
use crate::failure::Outcome;
use crate::settings::Settings;
use crate::workers::{self, pool_name};
use guestkit_kafka::directory::{Directory, ListedWorker};
use guestkit_kafka::group::{self, Group};
use guestkit_kafka::metadata::{Cluster, Extent, cluster, committed, extents};
use guestkit_kafka::reader::Record;
use guestkit_kafka::{Fault, TopicNames};
use guestkit_protocol::{Timestamp, headers};
use std::collections::BTreeMap;

/// Dead letters that are looked at, the newest: each can be a megabyte, and with more of them the exact number
/// is not what matters.
const DEAD_LETTERS_MAX: i64 = 1_000;

/// The fleet at one moment.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) at: Timestamp,
    pub(crate) pools: Vec<Pool>,
    pub(crate) workers: Vec<ListedWorker>,
    /// Why the directory says nothing, if it does not.
    pub(crate) no_directory: Option<String>,
    pub(crate) owned: BTreeMap<String, Vec<u32>>,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) positions: Positions,
}

/// A pool: its jobs and who does them.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) name: String,
    pub(crate) topic: String,
    pub(crate) group: String,
    pub(crate) slots: u32,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) is_rebalancing: bool,
    /// Why the group says nothing, if it does not.
    pub(crate) no_group: Option<String>,
    /// Decided a second, since the positions before.
    pub(crate) rate: Option<f64>,
}

/// A partition of a jobs topic.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) extent: Extent,
    pub(crate) committed: Option<i64>,
    pub(crate) waiting: backlog::Waiting,
    pub(crate) owner: Option<String>,
}

impl Partition {
    pub(crate) fn lag(&self) -> i64 {
        let next = self.committed.unwrap_or(self.extent.start);
        self.extent.end.saturating_sub(next).max(0)
    }
}

impl Pool {
    pub(crate) fn waiting(&self) -> u64 {
        self.partitions.iter().map(|p| p.waiting.records).sum()
    }
    pub(crate) fn is_exact(&self) -> bool {
        self.partitions.iter().all(|p| p.waiting.is_exact)
    }
    pub(crate) fn lag(&self) -> i64 {
        self.partitions.iter().map(Partition::lag).sum()
    }
    pub(crate) fn oldest_ms(&self) -> Option<i64> {
        let all = self.partitions.iter();
        all.filter_map(|p| p.waiting.oldest_ms).min()
    }
    pub(crate) fn without_owner(&self) -> Vec<usize> {
        let all = self.partitions.iter().enumerate();
        all.filter(|(_, p)| p.owner.is_none())
            .map(|(at, _)| at)
            .collect()
    }
}

/// The dead letters that are kept.
#[derive(Debug, Default)]
pub(crate) struct DeadLetters {
    pub(crate) count: u64,
    pub(crate) is_exact: bool,
    pub(crate) newest_ms: Option<i64>,
    pub(crate) newest_reason: Option<String>,
    pub(crate) newest_id: Option<String>,
}

/// Where the groups were, and when.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    at_ms: i64,
    by_topic: BTreeMap<String, Vec<Option<i64>>>,
}

/// The names of every pool that the cluster has topics of; with `--pool` only of that.
fn pools(settings: &Settings, cluster: &Cluster) -> Outcome<Vec<TopicNames>> {
    let names = &settings.names;
    if names.pool.is_some() {
        return Ok(vec![names.clone()]);
    }
    let plain = format!("{}.jobs", names.prefix);
    let mut found = vec![names.clone()];
    for topic in cluster.topics.keys() {
        if let Some(pool) = topic
            .strip_prefix(&plain)
            .and_then(|rest| rest.strip_prefix('.'))
        {
            let pool = TopicNames::new(&names.prefix, Some(pool))?;
            // Else it is somebody's topic that only looks like one.
            if cluster.topics.contains_key(&pool.ledger) {
                found.push(pool);
            }
        }
    }
    Ok(found)
}

/// Where the groups are now.
pub(crate) fn positions(settings: &Settings) -> Outcome<Positions> {
    let connection = settings.connection()?;
    let question = settings.question();
    let cluster = cluster(&connection, question)?;
    let mut positions = Positions {
        at_ms: now_ms(),
        by_topic: BTreeMap::new(),
    };
    for names in pools(settings, &cluster)? {
        let count = cluster.partitions(&names.jobs)?;
        let group = names.group(&settings.group_id);
        let offsets = committed(&connection, &group, &names.jobs, count, question)?;
        positions.by_topic.insert(names.jobs, offsets);
    }
    Ok(positions)
}

/// Everything.
pub(crate) fn fleet(settings: &Settings, before: &Positions) -> Outcome<Fleet> {
    let connection = settings.connection()?;
    let question = settings.question();
    let cluster = cluster(&connection, question)?;
    let at_ms = now_ms();
    let at = Timestamp::from_millis(at_ms);
    let mut positions = Positions {
        at_ms,
        by_topic: BTreeMap::new(),
    };
    let mut owned = BTreeMap::new();
    let mut found = Vec::new();
    for names in pools(settings, &cluster)? {
        let pool = pool(settings, &cluster, &names, before, &mut positions)?;
        found.push(pool.0);
        owned.extend(pool.1);
    }
    // A fleet of an earlier release has no directory; jobs are what matters.
    let (directory, no_directory) = match workers::directory(settings, at) {
        Ok(directory) => (directory, None),
        Err(failure) if failure.code != 3 => (Directory::default(), Some(failure.message)),
        Err(failure) => return Err(failure),
    };
    Ok(Fleet {
        at,
        pools: found,
        workers: directory.workers,
        no_directory,
        owned,
        dead_letters: dead_letters(settings)?,
        positions,
    })
}

type Owned = BTreeMap<String, Vec<u32>>;

fn pool(
    settings: &Settings,
    cluster: &Cluster,
    names: &TopicNames,
    before: &Positions,
    positions: &mut Positions,
) -> Outcome<(Pool, Owned)> {
    let connection = settings.connection()?;
    let question = settings.question();
    let group_id = names.group(&settings.group_id);
    let slots = cluster.partitions(&names.ledger)?;
    // The committed offset first: what is decided meanwhile is counted as waiting, never the other way round.
    let count = cluster.partitions(&names.jobs)?;
    let offsets = committed(&connection, &group_id, &names.jobs, count, question)?;
    let ends = extents(&connection, &names.jobs, question)?;
    let starts: Vec<i64> = ends
        .iter()
        .zip(&offsets)
        .map(|(extent, offset)| offset.unwrap_or(extent.start))
        .collect();
    let has_more = |at: usize| {
        let end = ends.get(at).map_or(0, |extent| extent.end);
        starts.get(at).is_some_and(|start| *start < end)
    };
    let ledger_ends = extents(&connection, &names.ledger, question)?;
    let settled = backlog::settled(settings, &names.ledger, &ledger_ends, has_more)?;
    let waiting = backlog::count(settings, &names.jobs, &starts, &settled, |_| {})?;
    let (group, no_group) = match group::describe(&connection, &group_id, question) {
        Ok(group) => (group, None),
        Err(fault @ Fault::Denied { .. }) => (Group::default(), Some(fault.to_string())),
        Err(fault) => return Err(fault.into()),
    };
    let owners = group.owners(&names.jobs, count);
    let partitions = ends
        .iter()
        .zip(&offsets)
        .zip(waiting.into_iter().zip(owners))
        .map(|((extent, committed), (waiting, owner))| Partition {
            extent: *extent,
            committed: *committed,
            waiting,
            owner: owner.map(|member| member.client_id.clone()),
        })
        .collect();
    let rate = rate(before, positions.at_ms, &names.jobs, &offsets);
    positions.by_topic.insert(names.jobs.clone(), offsets);
    let pool = Pool {
        name: pool_name(names).to_owned(),
        topic: names.jobs.clone(),
        is_rebalancing: group.is_rebalancing(),
        group: group_id,
        slots,
        partitions,
        no_group,
        rate,
    };
    Ok((pool, workers::owned(&group, &names.jobs)))
}

/// Decided a second. Offsets of forwards' transaction markers count too; they are few.
fn rate(before: &Positions, at_ms: i64, topic: &str, now: &[Option<i64>]) -> Option<f64> {
    let earlier = before.by_topic.get(topic)?;
    let ms = at_ms.saturating_sub(before.at_ms);
    if ms <= 0 {
        return None;
    }
    let moved: i64 = earlier
        .iter()
        .zip(now)
        .filter_map(|(earlier, now)| Some(((*now)? - (*earlier)?).max(0)))
        .sum();
    Some(moved as f64 * 1_000.0 / ms as f64)
}

fn dead_letters(settings: &Settings) -> Outcome<DeadLetters> {
    let topic = &settings.names.dead_letters;
    let ends = extents(&settings.connection()?, topic, settings.question())?;
    let share = DEAD_LETTERS_MAX / i64::try_from(ends.len().max(1)).unwrap_or(1);
    let starts: Vec<i64> = ends
        .iter()
        .map(|extent| extent.start.max(extent.end.saturating_sub(share.max(1))))
        .collect();
    let mut found = DeadLetters::default();
    let mut newest: Option<(i64, Record)> = None;
    let counted = backlog::count(settings, topic, &starts, &BTreeMap::new(), |record| {
        let at = record.timestamp_ms.unwrap_or(0);
        if newest.as_ref().is_none_or(|(newest, _)| at >= *newest) {
            newest = Some((at, record.clone()));
        }
    })?;
    found.count = counted.iter().map(|w| w.records).sum();
    let whole = ends.iter().zip(&starts).all(|(e, start)| e.start == *start);
    found.is_exact = whole && counted.iter().all(|w| w.is_exact);
    if let Some((at, record)) = newest {
        found.newest_ms = Some(at);
        found.newest_reason = record.header(headers::REASON);
        found.newest_id = Some(format!("{}/{}", record.partition, record.offset));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_what_moved() {
        let before = Positions {
            at_ms: 1_000,
            by_topic: BTreeMap::from([("j".to_owned(), vec![Some(10), None, Some(5)])]),
        };
        let now = [Some(30), Some(7), Some(5)];
        assert_eq!(rate(&before, 3_000, "j", &now), Some(10.0));
        assert_eq!(rate(&before, 1_000, "j", &now), None);
        assert_eq!(rate(&before, 3_000, "k", &now), None);
    }
}
