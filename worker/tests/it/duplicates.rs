//! Duplicates of all four kinds: on one partition and on several, at the same instant, after a
//! restart, across two workers.

use crate::fleet::{Fleet, by_job, echo, executed_keys};
use guestkit_protocol::{Framing, JobStatus, NoRegistry, decode_job, encode};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn every_kind_of_duplicate_gets_its_answer_on_any_partition_and_after_a_restart() {
    let fleet = Fleet::new("duplicates", 4);
    let mut worker = fleet.worker(&[]);
    // At the same instant, on different partitions, in different framings; one still runs.
    let slow = r#"{"n":1,"sleep_ms":1500}"#;
    fleet.publish(Some(0), None, &echo("original-01", Some("same"), slow));
    fleet.publish(Some(1), None, &echo("running-001", Some("same"), slow));
    let job = decode_job(&echo("running-002", Some("same"), slow), &NoRegistry).unwrap();
    fleet.publish(Some(2), None, &encode(&job, Framing::SingleObject).unwrap());
    fleet.publish(
        Some(3),
        None,
        &echo("conflict-01", Some("same"), r#"{"n":2}"#),
    );
    fleet.flush();
    let first = by_job(&fleet.results(4, LIMIT));
    assert_eq!(first.len(), 4);
    let executed = executed_keys(&fleet.results(4, LIMIT));
    assert_eq!(executed.len(), 1);
    let original = first
        .values()
        .find(|seen| seen.is_executed())
        .unwrap()
        .result
        .job_id
        .clone();

    // The key is done: the same payload again, another payload, and both after a restart too.
    assert_eq!(worker.terminate(), 0);
    let mut second = fleet.worker(&[]);
    let payload = if original == "conflict-01" {
        r#"{"n":2}"#
    } else {
        slow
    };
    fleet.publish(None, Some("x"), &echo("afterwards1", Some("same"), payload));
    fleet.publish(
        None,
        Some("y"),
        &echo("conflict-02", Some("same"), r#"{"n":3}"#),
    );
    // A producer's retry of each: the same id, the same payload.
    fleet.publish(Some(3), None, &echo("afterwards1", Some("same"), payload));
    fleet.publish(
        Some(2),
        None,
        &echo("conflict-02", Some("same"), r#"{"n":3}"#),
    );
    fleet.publish(Some(1), None, &echo("original-01", Some("same"), slow));
    fleet.flush();
    assert_eq!(by_job(&fleet.results(6, LIMIT)).len(), 6);
    // An id that was answered, with another payload: no second answer, and nothing is lost.
    let reused = echo("afterwards1", Some("same"), r#"{"n":4}"#);
    fleet.publish(Some(0), None, &reused);
    fleet.flush();
    let letters = fleet.dead_letters(1, LIMIT);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].header("guestkit_reason"), "JOB_ID_REUSED");
    assert_eq!(letters[0].value.as_deref(), Some(reused.as_slice()));
    fleet.wait_no_lag(LIMIT);
    let all = fleet.results(6, LIMIT);
    let all_by_job = by_job(&all);
    assert_eq!(all_by_job.len(), 6);
    assert_eq!(executed_keys(&all).len(), 1);
    let repeated = &all_by_job["afterwards1"].result;
    assert_eq!(repeated.status, JobStatus::Completed);
    assert_eq!(repeated.duplicate_of.as_deref(), Some(original.as_str()));
    let pointer = repeated.original.as_ref().unwrap();
    assert_eq!(pointer.topic, fleet.topic("results"));
    let target = &all_by_job[&pointer.job_id];
    assert_eq!(target.partition, pointer.partition);
    let conflict = &all_by_job["conflict-02"];
    assert_eq!(conflict.error_code(), Some("IDEMPOTENCY_CONFLICT"));
    assert!(conflict.error_message().contains(&original));
    assert_eq!(second.terminate(), 0);
}

#[test]
fn duplicates_meet_across_two_workers() {
    let fleet = Fleet::new("across", 6);
    let workers = [fleet.worker(&[]), fleet.worker(&[])];
    for n in 0..300 {
        let data = format!("{{\"n\":{}}}", n % 100);
        let job = echo(
            &format!("job-{n:06}"),
            Some(&format!("key-{}", n % 100)),
            &data,
        );
        fleet.publish(Some(n % 6), None, &job);
    }
    fleet.flush();
    let results = fleet.results(300, LIMIT);
    assert_eq!(by_job(&results).len(), 300);
    assert_eq!(executed_keys(&results).len(), 100);
    for seen in &results {
        assert_eq!(seen.result.status, JobStatus::Completed);
    }
    fleet.wait_no_lag(LIMIT);
    for mut worker in workers {
        assert!(worker.is_running());
        assert_eq!(worker.terminate(), 0);
    }
}

#[test]
fn a_rejected_job_id_is_answered_once() {
    let fleet = Fleet::new("rejected", 3);
    let _worker = fleet.worker(&[]);
    let broken = br#"{"version":"1.0","job_id":"broken-001","created_at":"2026-11-24T15:00:00Z","kind":"VMOperation","operation":"noformat","payload":{"type":"x","data":{}}}"#;
    fleet.publish(Some(0), None, broken);
    fleet.publish(Some(1), None, broken);
    fleet.flush();
    assert_eq!(fleet.dead_letters(2, LIMIT).len(), 2);
    // The same id, mended: it has its answer, so it is kept among the dead letters.
    fleet.publish(Some(2), None, &echo("broken-001", None, "{}"));
    fleet.flush();
    let letters = fleet.dead_letters(3, LIMIT);
    assert_eq!(letters.len(), 3);
    let results = fleet.results(1, LIMIT);
    assert_eq!(by_job(&results).len(), 1);
    assert_eq!(results[0].error_code(), Some("INVALID_JOB"));
    fleet.wait_no_lag(LIMIT);
}
