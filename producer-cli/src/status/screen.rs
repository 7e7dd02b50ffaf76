//! The screen, for people and for programs.

use super::age_ms;
use super::collect::{Fleet, Pool};
use super::verdict::Verdict;
use crate::output::{clean, rows};
use crate::workers::{brief, document as worker_document, is_current};
use guestkit_protocol::WorkerState;
use serde_json::{Value, json};

/// Most problems and notes that are listed one by one.
const LISTED_MAX: usize = 10;

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// For people; with colour only where somebody said that it may be.
pub(crate) fn text(fleet: &Fleet, verdict: &Verdict, colour: bool) -> String {
    let mut lines = Vec::new();
    let (word, paint) = match verdict.problems.first() {
        None => ("all right".to_owned(), GREEN),
        Some(first) => (format!("not all right: {}", clean(first)), RED),
    };
    lines.push(match colour {
        true => format!("{paint}{word}{PLAIN}"),
        false => word,
    });
    for (mark, list) in [
        ("!", verdict.problems.get(1..).unwrap_or_default()),
        ("-", &verdict.notes[..]),
    ] {
        for text in list.iter().take(LISTED_MAX) {
            lines.push(format!("{mark} {}", clean(text)));
        }
        if list.len() > LISTED_MAX {
            lines.push(format!("{mark} {} more", list.len() - LISTED_MAX));
        }
    }
    lines.push(String::new());
    let head = [
        "POOL",
        "WAITING",
        "OLDEST",
        "DECIDED/S",
        "READY",
        "BUSY",
        "DRAINING",
        "OFFLINE",
        "JOBS",
        "PARTITIONS",
        "NO OWNER",
    ];
    let table: Vec<_> = fleet
        .pools
        .iter()
        .map(|pool| pool_row(fleet, pool))
        .collect();
    lines.extend(rows(&head, &table));
    let letters = &fleet.dead_letters;
    lines.push(String::new());
    let at_least = if letters.is_exact { "" } else { "≥" };
    let newest = match (letters.newest_ms, &letters.newest_reason) {
        (Some(at), reason) => format!(
            ", newest {} ago: {}",
            brief(age_ms(at, fleet.at.as_millis())),
            clean(reason.as_deref().unwrap_or("no reason"))
        ),
        (None, _) => String::new(),
    };
    lines.push(format!("dead letters: {at_least}{}{newest}", letters.count));
    lines.join("\n")
}

fn states(fleet: &Fleet, pool: &Pool) -> [usize; 4] {
    use WorkerState::{Busy, Draining, Offline, Ready};
    let theirs = || {
        fleet
            .workers
            .iter()
            .filter(|worker| worker.pool() == pool.name && is_current(worker, fleet.at))
    };
    [Ready, Busy, Draining, Offline]
        .map(|state| theirs().filter(|worker| worker.state == state).count())
}

/// Jobs that run, and permits, of the living.
fn load(fleet: &Fleet, pool: &Pool) -> (u64, u64) {
    let alive = fleet
        .workers
        .iter()
        .filter(|worker| worker.is_alive() && worker.pool() == pool.name);
    alive.fold((0, 0), |(running, permits), worker| {
        let said = &worker.advertisement;
        (
            running + u64::from(said.status.current_jobs),
            permits + u64::from(said.resources.max_concurrent_jobs),
        )
    })
}

fn pool_row(fleet: &Fleet, pool: &Pool) -> Vec<String> {
    let at_least = if pool.is_exact() { "" } else { "≥" };
    let now = fleet.at.as_millis();
    let oldest = pool.oldest_ms().map(|at| brief(age_ms(at, now)));
    let rate = pool.rate.map(|rate| format!("{rate:.1}"));
    let (running, permits) = load(fleet, pool);
    let dash = || "-".to_owned();
    let mut cells = vec![
        pool.name.clone(),
        format!("{at_least}{}", pool.waiting()),
        oldest.unwrap_or_else(dash),
        rate.unwrap_or_else(dash),
    ];
    cells.extend(states(fleet, pool).map(|count| count.to_string()));
    cells.push(format!("{running}/{permits}"));
    cells.push(pool.partitions.len().to_string());
    cells.push(match (&pool.no_group, pool.is_rebalancing) {
        (Some(_), _) => "?".to_owned(),
        (None, true) => "rebalancing".to_owned(),
        (None, false) => pool.without_owner().len().to_string(),
    });
    cells
}

/// For programs.
pub(crate) fn document(fleet: &Fleet, verdict: &Verdict) -> Value {
    let now = fleet.at.as_millis();
    let letters = &fleet.dead_letters;
    let workers: Vec<Value> = fleet
        .workers
        .iter()
        .filter(|worker| is_current(worker, fleet.at))
        .map(|worker| worker_document(worker, &fleet.owned, fleet.at))
        .collect();
    json!({
        "at": fleet.at,
        "ok": verdict.problems.is_empty(),
        "problems": verdict.problems,
        "notes": verdict.notes,
        "waiting": fleet.pools.iter().map(Pool::waiting).sum::<u64>(),
        "lag": fleet.pools.iter().map(Pool::lag).sum::<i64>(),
        "pools": fleet.pools.iter().map(|pool| pool_document(fleet, pool)).collect::<Vec<_>>(),
        "workers": workers,
        "dead_letters": {
            "count": letters.count,
            "is_exact": letters.is_exact,
            "newest": letters.newest_ms.map(|at| json!({
                "id": letters.newest_id,
                "reason": letters.newest_reason,
                "seconds_ago": age_ms(at, now).as_secs(),
            })),
        },
    })
}

fn pool_document(fleet: &Fleet, pool: &Pool) -> Value {
    let now = fleet.at.as_millis();
    let seconds = |at: i64| age_ms(at, now).as_secs_f64();
    let [ready, busy, draining, offline] = states(fleet, pool);
    let (running, permits) = load(fleet, pool);
    let partitions: Vec<Value> = pool
        .partitions
        .iter()
        .enumerate()
        .map(|(at, partition)| {
            json!({
                "partition": at,
                "log_start": partition.extent.start,
                "committed": partition.committed,
                "end": partition.extent.end,
                "lag": partition.lag(),
                "waiting": partition.waiting.records,
                "is_exact": partition.waiting.is_exact,
                "oldest_waiting_seconds": partition.waiting.oldest_ms.map(seconds),
                "owner": partition.owner,
            })
        })
        .collect();
    json!({
        "pool": pool.name,
        "topic": pool.topic,
        "group": pool.group,
        "slots": pool.slots,
        "waiting": pool.waiting(),
        "is_exact": pool.is_exact(),
        "lag": pool.lag(),
        "oldest_waiting_seconds": pool.oldest_ms().map(seconds),
        "decided_per_second": pool.rate,
        "workers": {"ready": ready, "busy": busy, "draining": draining, "offline": offline},
        "running": running,
        "permits": permits,
        "rebalancing": pool.is_rebalancing,
        "without_owner": pool.no_group.is_none().then(|| pool.without_owner()),
        "partitions": partitions,
    })
}
