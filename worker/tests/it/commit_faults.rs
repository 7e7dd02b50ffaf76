//! The network breaks in the worst moments of a commit: nothing is lost, nothing doubled.

use crate::fleet::{Fleet, by_job, echo, executed_keys, wait_until};
use std::time::Duration;
use xtask::cluster::{Fault, KafkaNode, api};

const LIMIT: Duration = Duration::from_secs(90);
const JOBS: usize = 60;

fn survives(name: &str, api_key: i16, fault: Fault) {
    let (node, proxy) = KafkaNode::builder().start_behind_proxy().unwrap();
    let fleet = Fleet::at(node.bootstrap(), name, 3);
    let mut worker = fleet.worker_at(&proxy.bootstrap(), &[]);
    wait_until("the worker restores", LIMIT, || {
        worker.log().contains("slot restored")
    });
    let mut armed = Vec::new();
    for n in 0..JOBS {
        let key = format!("key-{}", n % 40);
        let job = echo(
            &format!("job-{n:06}"),
            Some(&key),
            &format!("{{\"n\":{}}}", n % 40),
        );
        fleet.publish(None, Some(&n.to_string()), &job);
        fleet.flush();
        if n % 20 == 5 {
            armed.push(proxy.on(api_key, fault));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for fault in &armed {
        assert!(fault.wait(LIMIT), "the fault struck");
    }
    let results = fleet.results(JOBS, LIMIT);
    assert_eq!(by_job(&results).len(), JOBS, "{}", worker.log());
    assert_eq!(executed_keys(&results).len(), 40);
    fleet.wait_no_lag(LIMIT);
    assert!(worker.is_running());
    assert_eq!(worker.terminate(), 0);
}

#[test]
fn the_answer_to_a_commit_is_lost() {
    survives("lost-answer", api::END_TXN, Fault::CutBeforeResponse);
}

#[test]
fn a_commit_never_arrives() {
    survives("lost-commit", api::END_TXN, Fault::CutBeforeRequest);
}

#[test]
fn the_answer_to_sent_offsets_is_lost() {
    survives(
        "lost-offsets",
        api::TXN_OFFSET_COMMIT,
        Fault::CutBeforeResponse,
    );
}

#[test]
fn the_answer_to_a_produce_is_lost() {
    survives("lost-produce", api::PRODUCE, Fault::CutBeforeResponse);
}
