//! A worker that was paused and replaced commits nothing: whatever it had in memory, and whatever
//! of it was still in the network.

use crate::agreement::{Jobs, Published, judge};
use crate::fleet::{Fleet, Worker, by_job, echo, wait_until};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use xtask::cluster::process::{sigcont, sigstop};
use xtask::cluster::{KafkaNode, TcpProxy, api};

const LIMIT: Duration = Duration::from_secs(90);
const JOBS: usize = 4;
/// Long enough that the pause comes in the middle, on a slow machine too.
const SLEEP_MS: u64 = 5_000;

fn publish(fleet: &Fleet, sleep_ms: u64) -> Jobs {
    let mut jobs = Jobs::new();
    for n in 0..JOBS {
        let (id, key) = (format!("job-{n:06}"), format!("key-{n}"));
        let data = format!(r#"{{"n":{n},"sleep_ms":{sleep_ms},"progress_steps":2}}"#);
        fleet.publish(Some(n as i32 % 2), None, &echo(&id, Some(&key), &data));
        jobs.insert(id, Published { key, data });
    }
    fleet.flush();
    jobs
}

/// The heir answers everything; then the zombie wakes, and nothing of it is ever visible.
fn answers_alone(fleet: &Fleet, jobs: &Jobs, zombie: &mut Worker, wake: impl FnOnce()) {
    let mut heir = fleet.worker(&["--concurrency", "4"]);
    let results = fleet.results(jobs.len(), LIMIT);
    let only_the_heirs = |results| {
        let answered = by_job(results);
        assert_eq!(answered.len(), jobs.len());
        for seen in answered.values() {
            assert_eq!(seen.result.worker_id.as_deref(), Some(heir.id()));
        }
    };
    only_the_heirs(&results);
    wake();
    sigcont(zombie.pid()).unwrap();
    // Its handlers end, its outcomes have no taker, what it sends is refused.
    wait_until("the zombie learns of its loss", LIMIT, || {
        zombie.log().contains("partition revoked")
    });
    std::thread::sleep(Duration::from_secs(SLEEP_MS / 1_000));
    judge(fleet, jobs);
    only_the_heirs(&fleet.results(jobs.len(), LIMIT));
    assert!(
        zombie.is_running(),
        "a stale generation is no reason to exit"
    );
    // It is a worker again.
    assert_eq!(heir.terminate(), 0);
    fleet.publish(None, None, &echo("afterwards1", None, "{}"));
    fleet.flush();
    assert_eq!(fleet.results(jobs.len() + 1, LIMIT).len(), jobs.len() + 1);
    assert_eq!(zombie.terminate(), 0);
}

#[test]
fn a_worker_paused_in_the_middle_of_its_jobs_and_replaced_commits_nothing_when_it_wakes() {
    let fleet = Fleet::new("zombie", 2);
    let mut zombie = fleet.worker(&["--concurrency", "4"]);
    let jobs = publish(&fleet, SLEEP_MS);
    let started = |seen: &[crate::fleet::Seen]| {
        let ids: std::collections::BTreeSet<_> = seen.iter().map(|seen| &seen.key).collect();
        ids.len() == JOBS
    };
    let seen = fleet.read("progress", LIMIT, started);
    assert!(started(&seen), "all jobs run in the zombie");
    sigstop(zombie.pid()).unwrap();
    answers_alone(&fleet, &jobs, &mut zombie, || {});
}

/// Holds requests of a kind in the network until it is opened.
#[derive(Default)]
struct Gate {
    held: Mutex<(u32, bool)>,
    changed: Condvar,
}

impl Gate {
    fn before(proxy: &TcpProxy, kind: i16) -> Arc<Self> {
        let gate = Arc::new(Self::default());
        let at = gate.clone();
        proxy.watch(move |frame| {
            if frame.api_key == kind {
                let mut state = at.held.lock().unwrap();
                state.0 += 1;
                at.changed.notify_all();
                while !state.1 {
                    state = at.changed.wait(state).unwrap();
                }
            }
        });
        gate
    }

    fn wait_held(&self) {
        let (held, timeout) = self
            .changed
            .wait_timeout_while(self.held.lock().unwrap(), LIMIT, |state| state.0 == 0)
            .unwrap();
        drop(held);
        assert!(!timeout.timed_out(), "no such request came");
    }

    fn open(&self) {
        self.held.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

fn held_in_the_network(name: &str, kind: i16) {
    let (node, proxy) = KafkaNode::builder().start_behind_proxy().unwrap();
    let fleet = Fleet::at(node.bootstrap(), name, 2);
    let gate = Gate::before(&proxy, kind);
    let mut zombie = fleet.worker_at(&proxy.bootstrap(), &["--concurrency", "4"]);
    let jobs = publish(&fleet, 0);
    gate.wait_held();
    sigstop(zombie.pid()).unwrap();
    // What it had sent arrives only now, when the heir has answered everything.
    answers_alone(&fleet, &jobs, &mut zombie, || {
        gate.open();
        std::thread::sleep(Duration::from_secs(1));
    });
}

#[test]
fn offsets_that_arrive_after_the_worker_was_replaced_are_refused() {
    held_in_the_network("zombie-offsets", api::TXN_OFFSET_COMMIT);
}

#[test]
fn a_commit_that_arrives_after_the_worker_was_replaced_is_refused() {
    held_in_the_network("zombie-commit", api::END_TXN);
}
