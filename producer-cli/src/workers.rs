//! `workers`: who is in the fleet, and how they are.

use crate::cli::Output;
use crate::clock;
use crate::failure::Outcome;
use crate::output;
use crate::settings::Settings;
use guestkit_kafka::directory::{self, Directory, ListedWorker};
use guestkit_kafka::group::{self, Group};
use guestkit_kafka::{Fault, TopicNames};
use guestkit_protocol::{DEFAULT_POOL, Timestamp};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Workers that have been offline for longer are shown on demand only: their successors have other names.
const OFFLINE_SHOWN: Duration = Duration::from_secs(3600);

/// The directory as it is now.
pub(crate) fn directory(settings: &Settings, now: Timestamp) -> Outcome<Directory> {
    Ok(directory::list(
        &settings.connection()?,
        &settings.names.workers,
        &*settings.schemas()?,
        now,
        settings.question(),
    )?)
}

/// Whether a worker is shown without being asked for.
pub(crate) fn is_current(worker: &ListedWorker, now: Timestamp) -> bool {
    worker.is_alive() || worker.age(now) <= OFFLINE_SHOWN
}

/// The partitions of each worker of some pools, by client id. A pool whose group can't be read has none.
pub(crate) fn partitions(
    settings: &Settings,
    pools: &BTreeSet<String>,
) -> Outcome<BTreeMap<String, Vec<u32>>> {
    let connection = settings.connection()?;
    let mut found = BTreeMap::new();
    for pool in pools {
        let names = TopicNames::new(&settings.names.prefix, Some(pool))?;
        let group = names.group(&settings.group_id);
        match group::describe(&connection, &group, settings.question()) {
            Ok(group) => found.extend(owned(&group, &names.jobs)),
            // A user who may list workers need not be allowed to look into groups.
            Err(Fault::Denied { .. }) => {}
            Err(fault) => return Err(fault.into()),
        }
    }
    Ok(found)
}

/// What each member has of a topic.
pub(crate) fn owned(group: &Group, jobs: &str) -> BTreeMap<String, Vec<u32>> {
    let members = group.members.iter();
    members
        .map(|member| {
            let mut theirs = member.assigned.get(jobs).cloned().unwrap_or_default();
            theirs.sort_unstable();
            (member.client_id.clone(), theirs)
        })
        .collect()
}

/// `workers`.
pub(crate) fn list(settings: &Settings, all: bool) -> Outcome {
    let now = clock::now();
    let directory = directory(settings, now)?;
    for reason in &directory.unreadable {
        eprintln!(
            "an advertisement is not readable: {}",
            output::clean(reason)
        );
    }
    let shown: Vec<&ListedWorker> = directory
        .workers
        .iter()
        .filter(|worker| all || is_current(worker, now))
        // A pool that is named is meant.
        .filter(|worker| {
            let wanted = settings.names.pool.as_deref();
            wanted.is_none_or(|wanted| wanted == worker.pool())
        })
        .collect();
    let alive = shown.iter().filter(|worker| worker.is_alive());
    let pools = alive.map(|worker| worker.pool().to_owned()).collect();
    let partitions = partitions(settings, &pools)?;
    if settings.output == Output::Json {
        for worker in &shown {
            output::json_line(&document(worker, &partitions, now))?;
        }
        return Ok(());
    }
    if shown.is_empty() {
        eprintln!("no worker has advertised itself");
        return Ok(());
    }
    let rows: Vec<_> = shown.iter().map(|w| row(w, &partitions, now)).collect();
    output::table(&HEAD, &rows)?;
    let hidden = directory.workers.len() - shown.len();
    if hidden > 0 && settings.names.pool.is_none() {
        eprintln!(
            "{hidden} that have been offline for over an hour are not shown: --all shows them"
        );
    }
    Ok(())
}

const HEAD: [&str; 8] = [
    "WORKER",
    "STATE",
    "POOL",
    "JOBS",
    "PARTITIONS",
    "VERSION",
    "SEEN",
    "CAPABILITIES",
];

fn row(
    worker: &ListedWorker,
    partitions: &BTreeMap<String, Vec<u32>>,
    now: Timestamp,
) -> Vec<String> {
    let said = &worker.advertisement;
    let load = format!(
        "{}/{}",
        said.status.current_jobs, said.resources.max_concurrent_jobs
    );
    let theirs = partitions
        .get(&said.worker_id)
        .filter(|_| worker.is_alive());
    let mut capabilities = said.capabilities.operations.clone();
    capabilities.extend(said.capabilities.features.iter().cloned());
    vec![
        said.worker_id.clone(),
        state(worker),
        worker.pool().to_owned(),
        if worker.is_alive() {
            load
        } else {
            "-".to_owned()
        },
        theirs.map_or_else(|| "-".to_owned(), |theirs| ranges(theirs)),
        said.version.clone(),
        format!("{} ago", brief(worker.age(now))),
        capabilities.join(" "),
    ]
}

/// Its state; one that vanished says so.
pub(crate) fn state(worker: &ListedWorker) -> String {
    match worker.is_vanished {
        true => "offline (vanished)".to_owned(),
        false => worker.state.to_string(),
    }
}

/// The advertisement, with what the reader adds at `state`, `vanished`, `last_seen` and `partitions`.
pub(crate) fn document(
    worker: &ListedWorker,
    partitions: &BTreeMap<String, Vec<u32>>,
    now: Timestamp,
) -> Value {
    let said = &worker.advertisement;
    let theirs = partitions
        .get(&said.worker_id)
        .filter(|_| worker.is_alive());
    json!({
        "worker_id": said.worker_id,
        "state": worker.state,
        "vanished": worker.is_vanished,
        "pool": worker.pool(),
        "current_jobs": said.status.current_jobs,
        "max_concurrent_jobs": said.resources.max_concurrent_jobs,
        "partitions": theirs,
        "version": said.version,
        "last_seen": worker.last_seen,
        "seconds_since_seen": worker.age(now).as_secs(),
        "advertisement": said,
    })
}

/// `0-3 7`.
fn ranges(sorted: &[u32]) -> String {
    let mut text: Vec<String> = Vec::new();
    let mut rest = sorted;
    while let Some(first) = rest.first() {
        let run = rest
            .iter()
            .zip(u64::from(*first)..)
            .take_while(|(found, expected)| u64::from(**found) == *expected)
            .count();
        let (head, tail) = rest.split_at(run);
        text.push(match head.last() {
            Some(last) if last != first => format!("{first}-{last}"),
            _ => first.to_string(),
        });
        rest = tail;
    }
    if text.is_empty() {
        return "none".to_owned();
    }
    text.join(" ")
}

/// A duration in one unit: `4s`, `7m`, `3h`, `2d`.
pub(crate) fn brief(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A pool's name where none is set.
pub(crate) fn pool_name(names: &TopicNames) -> &str {
    names.pool.as_deref().unwrap_or(DEFAULT_POOL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_ranges() {
        assert_eq!(ranges(&[]), "none");
        assert_eq!(ranges(&[3]), "3");
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2 5 7-8");
        assert_eq!(ranges(&[u32::MAX]), u32::MAX.to_string());
    }

    #[test]
    fn times_are_brief() {
        let brief = |seconds| brief(Duration::from_secs(seconds));
        assert_eq!(
            [brief(4), brief(150), brief(7_300), brief(200_000)],
            ["4s", "2m", "2h", "2d"]
        );
    }
}
