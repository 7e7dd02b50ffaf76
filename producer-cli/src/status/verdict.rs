//! From what was found to one line: is it all right?

use super::age_ms;
use super::collect::{Fleet, Pool};
use crate::workers::brief;
use guestkit_protocol::WorkerState;
use std::time::Duration;

/// A dead letter needs a person; for so long it is news.
const DEAD_LETTER_NEWS: Duration = Duration::from_secs(3600);
/// Jobs that wait this long while no worker has anything to do are stuck: a rebalance and a restore are over by
/// then.
const STUCK: Duration = Duration::from_secs(30);

/// What is wrong, and what is worth a word.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Somebody should look.
    pub(crate) problems: Vec<String>,
    /// Nobody has to.
    pub(crate) notes: Vec<String>,
}

/// Judges a fleet. Pure.
pub(crate) fn judge(fleet: &Fleet, wait_max: Duration) -> Verdict {
    let mut verdict = Verdict::default();
    for pool in &fleet.pools {
        judge_pool(fleet, pool, wait_max, &mut verdict);
    }
    let letters = &fleet.dead_letters;
    if let Some(at) = letters.newest_ms {
        let age = age_ms(at, fleet.at.as_millis());
        let reason = letters.newest_reason.as_deref().unwrap_or("no reason");
        let id = letters.newest_id.as_deref().unwrap_or_default();
        let text = format!("dead letter {id} ({reason}) {} ago", brief(age));
        match age <= DEAD_LETTER_NEWS {
            true => verdict.problems.push(text),
            false => verdict.notes.push(text),
        }
    }
    let vanished = fleet
        .workers
        .iter()
        .filter(|worker| worker.is_vanished && crate::workers::is_current(worker, fleet.at));
    for worker in vanished {
        verdict.notes.push(format!(
            "worker {} vanished {} ago",
            worker.advertisement.worker_id,
            brief(worker.age(fleet.at))
        ));
    }
    if let Some(reason) = &fleet.no_directory {
        verdict.notes.push(format!("no worker directory: {reason}"));
    }
    verdict
}

fn judge_pool(fleet: &Fleet, pool: &Pool, wait_max: Duration, verdict: &mut Verdict) {
    let name = &pool.name;
    let oldest = pool.oldest_ms().map(|at| age_ms(at, fleet.at.as_millis()));
    let members: Vec<_> = fleet
        .workers
        .iter()
        .filter(|worker| worker.is_alive() && worker.pool() == name)
        .collect();
    let waiting = pool.waiting();
    if let Some(reason) = &pool.no_group {
        verdict.notes.push(format!("pool {name}: {reason}"));
    } else if pool.is_rebalancing {
        verdict
            .notes
            .push(format!("pool {name}: its group is rebalancing"));
    } else {
        let free = pool.without_owner();
        let nobody = free.len() == pool.partitions.len();
        match (nobody, free.is_empty(), waiting) {
            // Scaled to zero.
            (true, _, 0) => verdict
                .notes
                .push(format!("pool {name}: no worker serves it")),
            (true, _, _) => verdict
                .problems
                .push(format!("pool {name}: jobs wait and no worker serves it")),
            (false, false, _) => verdict.problems.push(format!(
                "pool {name}: {} of {} partitions have no owner",
                free.len(),
                pool.partitions.len()
            )),
            (false, true, _) => {}
        }
    }
    let Some(oldest) = oldest else { return };
    let running: u32 = members
        .iter()
        .map(|worker| worker.advertisement.status.current_jobs)
        .sum();
    let idle = !members.is_empty()
        && running == 0
        && members
            .iter()
            .any(|worker| worker.state == WorkerState::Ready);
    if idle && oldest > STUCK && pool.rate == Some(0.0) {
        verdict.problems.push(format!(
            "pool {name}: a job has waited for {} and its workers have nothing to do",
            brief(oldest)
        ));
    } else if oldest > wait_max {
        verdict.problems.push(format!(
            "pool {name}: a job has waited for {}",
            brief(oldest)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::super::backlog::Waiting;
    use super::super::collect::{DeadLetters, Partition, Positions};
    use super::*;
    use guestkit_kafka::directory::ListedWorker;
    use guestkit_kafka::metadata::Extent;
    use guestkit_protocol::{Timestamp, WorkerAdvertisement, WorkerStatus};

    const NOW: i64 = 100_000_000;

    fn partition(owner: bool, waiting: u64, age_ms: i64) -> Partition {
        Partition {
            extent: Extent { start: 0, end: 10 },
            committed: Some(9),
            waiting: Waiting {
                records: waiting,
                is_exact: true,
                oldest_ms: (waiting > 0).then_some(NOW - age_ms),
            },
            owner: owner.then(|| "w".to_owned()),
        }
    }

    fn fleet(partitions: Vec<Partition>, running: u32) -> Fleet {
        let at = Timestamp::from_millis(NOW);
        let status = WorkerStatus::new(WorkerState::Ready, running, at);
        let said = WorkerAdvertisement::new("w", "0.1.0", at, status);
        Fleet {
            at,
            pools: vec![Pool {
                name: "default".to_owned(),
                topic: "t.jobs".to_owned(),
                group: "g".to_owned(),
                slots: 2,
                partitions,
                is_rebalancing: false,
                no_group: None,
                rate: Some(0.0),
            }],
            workers: vec![ListedWorker::judge(said, at, at)],
            no_directory: None,
            owned: Default::default(),
            dead_letters: DeadLetters::default(),
            positions: Positions::default(),
        }
    }

    fn problems(fleet: &Fleet) -> Vec<String> {
        judge(fleet, Duration::from_secs(900)).problems
    }

    #[test]
    fn an_idle_fleet_is_all_right_whatever_its_lag() {
        let found = fleet(vec![partition(true, 0, 0), partition(true, 0, 0)], 0);
        assert_eq!(judge(&found, Duration::ZERO), Verdict::default());
        assert_eq!(found.pools[0].lag(), 2);
        // Scaled to zero with nothing to do is worth a word only.
        let zero = fleet(vec![partition(false, 0, 0)], 0);
        assert_eq!(problems(&zero), [""; 0]);
        assert_eq!(judge(&zero, Duration::ZERO).notes.len(), 1);
    }

    #[test]
    fn each_trouble_is_named() {
        let alone = fleet(vec![partition(false, 3, 10)], 0);
        assert!(problems(&alone)[0].contains("no worker serves it"));
        let half = fleet(vec![partition(true, 0, 0), partition(false, 0, 0)], 0);
        assert!(problems(&half)[0].contains("1 of 2 partitions have no owner"));
        let stuck = fleet(vec![partition(true, 3, 31_000)], 0);
        assert!(problems(&stuck)[0].contains("nothing to do"));
        let slow = fleet(vec![partition(true, 3, 31_000)], 4);
        assert_eq!(problems(&slow), [""; 0]);
        let late = fleet(vec![partition(true, 3, 901_000)], 4);
        assert!(problems(&late)[0].contains("has waited for 15m"));
        let mut rebalancing = fleet(vec![partition(false, 3, 10)], 0);
        rebalancing.pools[0].is_rebalancing = true;
        assert_eq!(problems(&rebalancing), [""; 0]);
        let mut letter = fleet(vec![partition(true, 0, 0)], 0);
        letter.dead_letters.newest_ms = Some(NOW - 60_000);
        letter.dead_letters.newest_reason = Some("INVALID_JOB".to_owned());
        assert!(problems(&letter)[0].contains("INVALID_JOB"));
        letter.dead_letters.newest_ms = Some(NOW - 4_000_000);
        assert_eq!(problems(&letter), [""; 0]);
    }
}
