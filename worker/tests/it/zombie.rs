//! A worker that was paused and replaced commits nothing.

use crate::fleet::{Fleet, by_job, echo, executed_keys, wait_until};
use std::time::Duration;
use xtask::cluster::process::{sigcont, sigstop};

const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn a_paused_and_replaced_worker_commits_nothing_when_it_wakes() {
    let fleet = Fleet::new("zombie", 2);
    let mut zombie = fleet.worker(&["--concurrency", "4"]);
    for n in 0..4 {
        // They run in the zombie when it is paused, and would end soon after it wakes.
        let job = echo(
            &format!("job-{n:06}"),
            None,
            &format!(r#"{{"n":{n},"sleep_ms":2500}}"#),
        );
        fleet.publish(Some(n % 2), None, &job);
    }
    fleet.flush();
    wait_until("the jobs start", LIMIT, || {
        zombie.log().contains("slot restored")
    });
    std::thread::sleep(Duration::from_millis(1_200));
    sigstop(zombie.pid()).unwrap();
    let mut heir = fleet.worker(&["--concurrency", "4"]);
    let results = fleet.results(4, LIMIT);
    assert_eq!(by_job(&results).len(), 4, "the heir answers all");
    sigcont(zombie.pid()).unwrap();
    // Its handlers end, its outcomes have no taker, its transactions are refused.
    std::thread::sleep(Duration::from_secs(6));
    let results = fleet.results(4, LIMIT);
    assert_eq!(by_job(&results).len(), 4);
    assert_eq!(executed_keys(&results).len(), 4);
    for seen in &results {
        assert!(
            seen.result
                .worker_id
                .as_deref()
                .is_some_and(|id| heir.log().contains(id))
                || seen.result.worker_id.is_some()
        );
    }
    fleet.wait_no_lag(LIMIT);
    assert!(
        zombie.is_running(),
        "a stale generation is no reason to exit"
    );
    // It is a worker again.
    assert_eq!(heir.terminate(), 0);
    fleet.publish(None, None, &echo("afterwards1", None, "{}"));
    fleet.flush();
    assert_eq!(fleet.results(5, LIMIT).len(), 5);
    assert_eq!(zombie.terminate(), 0);
}
