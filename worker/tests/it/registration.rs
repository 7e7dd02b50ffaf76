//! The worker directory: who is there, how they are, and who is gone.

use crate::fleet::{Fleet, echo, wait_until};
use guestkit_kafka::Connection;
use guestkit_kafka::directory::{self, ListedWorker, silence_max};
use guestkit_protocol::{NoRegistry, Timestamp, WorkerState};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// The workers as somebody sees them who looks `later` after the last heartbeat of the last one.
fn workers(fleet: &Fleet, later: Duration) -> Vec<ListedWorker> {
    let connection = Connection::plain(&fleet.bootstrap).unwrap();
    let list = |now| {
        let topic = fleet.topic("workers");
        let found = directory::list(&connection, &topic, &NoRegistry, now, LIMIT).unwrap();
        assert_eq!(found.unreadable, [""; 0]);
        found.workers
    };
    let first = list(Timestamp::from_millis(0));
    let newest = first.iter().map(|worker| worker.last_seen.as_millis());
    let newest = newest.max().unwrap_or(0);
    let later = i64::try_from(later.as_millis()).unwrap();
    list(Timestamp::from_millis(newest + later))
}

#[test]
fn workers_say_how_they_are_and_the_vanished_are_found_out() {
    let fleet = Fleet::new("directory", 2);
    let mut worker = fleet.worker(&["--concurrency", "2"]);
    let state = |wanted: WorkerState| {
        wait_until(&format!("it is {wanted}"), LIMIT, || {
            workers(&fleet, Duration::ZERO).iter().any(|listed| {
                listed.advertisement.worker_id == worker.id() && listed.state == wanted
            })
        });
    };
    state(WorkerState::Ready);
    let listed = workers(&fleet, Duration::ZERO).remove(0);
    let said = &listed.advertisement;
    assert_eq!(said.resources.max_concurrent_jobs, 2);
    assert!(
        said.capabilities
            .operations
            .contains(&"system.echo".to_owned())
    );
    assert!(said.resources.memory_gb.is_some() && said.resources.cpu_cores.is_some());
    assert!(said.transactional_ids[0].contains(worker.id()));
    assert_eq!(listed.pool(), "default");

    for number in 0..2 {
        let id = format!("long-job-{number}");
        fleet.publish(Some(number), None, &echo(&id, None, r#"{"sleep_ms":4000}"#));
    }
    fleet.flush();
    state(WorkerState::Busy);
    let busy = workers(&fleet, Duration::ZERO).remove(0).advertisement;
    let mut running: Vec<_> = busy.running.iter().map(|job| &*job.job_id).collect();
    running.sort_unstable();
    assert_eq!(running, ["long-job-0", "long-job-1"]);
    assert_eq!(busy.status.current_jobs, 2);

    // It drains while they run, then it is gone, and said so.
    assert_eq!(worker.terminate(), 0);
    assert_eq!(fleet.results_now().len(), 2);
    let left = workers(&fleet, silence_max() * 2).remove(0);
    assert_eq!(
        (left.state, left.is_vanished),
        (WorkerState::Offline, false)
    );

    // This one cannot say so.
    let mut other = fleet.worker(&[]);
    wait_until("the other is there", LIMIT, || {
        workers(&fleet, Duration::ZERO).len() == 2
    });
    other.kill();
    let seen = |later| {
        let all = workers(&fleet, later).into_iter();
        let mut all = all.filter(|listed| listed.advertisement.worker_id == other.id());
        all.next()
            .map(|found| (found.is_alive(), found.is_vanished))
            .unwrap()
    };
    assert_eq!(seen(silence_max()), (true, false));
    assert_eq!(
        seen(silence_max() + Duration::from_millis(1)),
        (false, true)
    );
}

#[test]
fn a_fleet_without_a_directory_works() {
    let fleet = Fleet::without_directory("no-directory", 1);
    let mut worker = fleet.worker(&[]);
    fleet.publish(None, None, &echo("any-job-1", None, "{}"));
    fleet.flush();
    assert_eq!(fleet.results(1, LIMIT).len(), 1);
    assert!(worker.log().contains("no worker directory"));
    assert_eq!(worker.terminate(), 0);
}
