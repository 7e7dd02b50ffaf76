//! The network breaks in the worst moments of a commit: nothing is lost, nothing doubled.

use crate::agreement::{Jobs, Published, judge};
use crate::fleet::{Fleet, Worker, client, echo, wait_until};
use guestkit_kafka::TopicNames;
use guestkit_protocol::slot_of;
use rdkafka::producer::{BaseProducer, Producer};
use std::time::Duration;
use xtask::cluster::{Fault, KafkaNode, api};

const LIMIT: Duration = Duration::from_secs(90);
const JOBS: usize = 60;

fn publish(fleet: &Fleet, jobs: &mut Jobs, n: usize) {
    let (id, key) = (format!("job-{n:06}"), format!("key-{}", n % 40));
    let data = format!(r#"{{"n":{}}}"#, n % 40);
    // To its slot: the first transaction that speaks of it is the one with its result.
    let slot = slot_of(&key, fleet.partitions as u32) as i32;
    fleet.publish(Some(slot), None, &echo(&id, Some(&key), &data));
    fleet.flush();
    jobs.insert(id, Published { key, data });
}

/// A connection ends in the middle of a commit, three times. Answers with the worker's log.
fn survives(name: &str, api_key: i16, fault: Fault) -> String {
    let (node, proxy) = KafkaNode::builder().start_behind_proxy().unwrap();
    let fleet = Fleet::at(node.bootstrap(), name, 3);
    let mut worker = fleet.worker_at(&proxy.bootstrap(), &[]);
    wait_until("the worker restores", LIMIT, || {
        worker.log().contains("slot restored")
    });
    let mut armed = Vec::new();
    let mut jobs = Jobs::new();
    for n in 0..JOBS {
        publish(&fleet, &mut jobs, n);
        if n % 20 == 5 {
            armed.push(proxy.on(api_key, fault));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for fault in &armed {
        assert!(fault.wait(LIMIT), "the fault struck");
    }
    judge(&fleet, &jobs);
    assert!(worker.is_running());
    assert_eq!(worker.terminate(), 0);
    worker.log()
}

/// librdkafka asks again over a new connection and gets its answer: the commit succeeds, and still
/// the producer has to be renewed before the next one (engine.md, rule 5b).
#[test]
fn the_answer_to_a_commit_is_lost_and_the_next_transaction_has_a_new_producer() {
    let log = survives("lost-answer", api::END_TXN, Fault::CutBeforeResponse);
    let renewed = log
        .matches("a connection broke during a transaction")
        .count();
    assert!(renewed >= 3, "renewed {renewed} times:\n{log}");
}

#[test]
fn a_commit_never_arrives() {
    let log = survives("lost-commit", api::END_TXN, Fault::CutBeforeRequest);
    assert!(log.contains("a connection broke during a transaction"));
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

/// The network is gone in the moment of the commit, and somebody fences the writer before it is
/// back: librdkafka asks again and hears that it is fenced, which says nothing of the outcome
/// (engine.md, "Commit", step 5). The worker keeps its membership, so that it has to find out itself.
fn unknown_until_read_back(name: &str, fault: Fault, is_applied: bool) {
    let (node, proxy) = KafkaNode::builder().start_behind_proxy().unwrap();
    let fleet = Fleet::at(node.bootstrap(), name, 3);
    let mut worker = fleet.worker_with(
        &proxy.bootstrap(),
        &[],
        "\"session.timeout.ms\" = \"60000\"\n\"max.poll.interval.ms\" = \"120000\"\n",
    );
    let mut jobs = Jobs::new();
    for n in 0..20 {
        publish(&fleet, &mut jobs, n);
    }
    judge(&fleet, &jobs);
    let armed = proxy.on(api::END_TXN, fault);
    publish(&fleet, &mut jobs, 20);
    assert!(armed.wait(LIMIT), "the network breaks in the commit");
    // These are decided after it, and wait for its outcome.
    for n in 21..50 {
        publish(&fleet, &mut jobs, n);
    }
    fence(&fleet, &worker);
    let patience = if is_applied {
        LIMIT
    } else {
        Duration::from_secs(4)
    };
    let visible = fleet.results(21, patience).len();
    assert_eq!(visible, if is_applied { 21 } else { 20 });
    proxy.heal();
    judge(&fleet, &jobs);
    let log = worker.log();
    assert!(log.contains("transaction outcome unknown"), "{log}");
    let found = format!("applied={is_applied}");
    let mut read_back = log
        .lines()
        .filter(|line| line.contains("transaction read back"));
    assert!(read_back.any(|line| line.contains(&found)), "{log}");
    assert!(worker.is_running());
    assert_eq!(worker.terminate(), 0);
}

/// What a successor does whose restore hangs: takes the writer's transactional id.
fn fence(fleet: &Fleet, worker: &Worker) {
    let names = TopicNames::new(&fleet.prefix, None).unwrap();
    let producer: BaseProducer = client(&fleet.bootstrap)
        .set(
            "transactional.id",
            names.transactional_id(&fleet.group(), worker.id(), 0),
        )
        .create()
        .unwrap();
    producer.init_transactions(LIMIT).unwrap();
}

#[test]
fn a_commit_of_unknown_outcome_that_was_applied_is_not_repeated() {
    unknown_until_read_back("unknown-done", Fault::IsolateBeforeResponse, true);
}

#[test]
fn a_commit_of_unknown_outcome_that_was_not_applied_is_not_lost() {
    unknown_until_read_back("unknown-lost", Fault::IsolateBeforeRequest, false);
}
