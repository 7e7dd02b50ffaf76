//! Duplicates of all four kinds: on one partition and on several, at the same instant, after a
//! restart, across two workers.

use crate::agreement::{Jobs, Published, judge};
use crate::fleet::{Fleet, SeenResult, by_job, echo};
use guestkit_protocol::{Framing, JobStatus, NoRegistry, decode_job, encode};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Copies of one key's jobs: all on one partition, which is not even its slot, or each on its own.
struct Copies {
    key: &'static str,
    spread: bool,
    jobs: Jobs,
}

impl Copies {
    fn new(key: &'static str, spread: bool) -> Self {
        Self {
            key,
            spread,
            jobs: Jobs::new(),
        }
    }

    fn id(&self, name: &str) -> String {
        format!("{}-{name}", self.key)
    }

    fn publish(&mut self, fleet: &Fleet, nth: i32, name: &str, data: &str) -> Vec<u8> {
        let id = self.id(name);
        let json = echo(&id, Some(self.key), data);
        // Every second one in another framing: it is the same payload all the same.
        let value = if nth % 2 == 1 {
            let job = decode_job(&json, &NoRegistry).unwrap();
            encode(&job, Framing::SingleObject).unwrap()
        } else {
            json
        };
        let partition = if self.spread { nth % 4 } else { 1 };
        fleet.publish(Some(partition), None, &value);
        self.jobs.entry(id).or_insert_with(|| Published {
            key: self.key.to_owned(),
            data: data.to_owned(),
        });
        value
    }
}

const SLOW: &str = r#"{"n":1,"sleep_ms":1500}"#;

#[test]
fn every_kind_of_duplicate_gets_its_answer_on_any_partition_and_after_a_restart() {
    let fleet = Fleet::new("duplicates", 4);
    let mut worker = fleet.worker(&[]);
    let mut copies = [Copies::new("together", false), Copies::new("apart", true)];
    // At the same instant; the first one still runs when the others come.
    for copies in &mut copies {
        copies.publish(&fleet, 0, "original", SLOW);
        copies.publish(&fleet, 1, "running-1", SLOW);
        copies.publish(&fleet, 2, "running-2", SLOW);
        copies.publish(&fleet, 3, "conflict-1", r#"{"n":2}"#);
        // A producer's retry while the key is active.
        copies.publish(&fleet, 3, "running-1", SLOW);
    }
    fleet.flush();
    let first = by_job(&fleet.results(8, LIMIT));
    assert_eq!(first.len(), 8);
    assert!(
        first[&copies[0].id("original")].is_executed(),
        "the first on its partition"
    );

    // The key is done, and another process answers: the same payload, another one, and a
    // producer's retry of each, which is dropped.
    assert_eq!(worker.terminate(), 0);
    let mut second = fleet.worker(&[]);
    for copies in &mut copies {
        let original = executed(&first, copies.key);
        let payload = copies.jobs[&original].data.clone();
        copies.publish(&fleet, 0, "afterwards-1", &payload);
        copies.publish(&fleet, 1, "conflict-2", r#"{"n":3}"#);
        copies.publish(&fleet, 2, "afterwards-1", &payload);
        copies.publish(&fleet, 3, "conflict-2", r#"{"n":3}"#);
        copies.publish(&fleet, 1, "original", SLOW);
        copies.publish(&fleet, 2, "conflict-1", r#"{"n":2}"#);
    }
    fleet.flush();
    assert_eq!(by_job(&fleet.results(12, LIMIT)).len(), 12);
    // An id that was answered, with another payload: no second answer, and nothing is lost.
    let reused = copies
        .each_mut()
        .map(|copies| copies.publish(&fleet, 3, "afterwards-1", r#"{"n":4}"#));
    fleet.flush();
    let letters = fleet.dead_letters(2, LIMIT);
    assert_eq!(letters.len(), 2);
    for (letter, value) in [(&letters[0], 0), (&letters[1], 1)] {
        assert_eq!(letter.header("guestkit_reason"), "JOB_ID_REUSED");
        let kept = letter.value.as_deref().unwrap();
        assert!(reused.iter().any(|value| value == kept), "letter {value}");
    }

    let jobs: Jobs = copies
        .iter()
        .flat_map(|copies| copies.jobs.clone())
        .collect();
    let verdict = judge(&fleet, &jobs);
    assert_eq!((verdict.executed, jobs.len()), (2, 12));
    let answers = by_job(&fleet.results(12, LIMIT));
    for copies in &copies {
        let original = executed(&answers, copies.key);
        let repeated = &answers[&copies.id("afterwards-1")].result;
        assert_eq!(repeated.status, JobStatus::Completed);
        let pointer = repeated.original.as_ref().unwrap();
        assert_eq!(pointer.topic, fleet.topic("results"));
        assert_eq!(pointer.job_id, original);
        assert_eq!(answers[&original].partition, pointer.partition);
        let conflict = &answers[&copies.id("conflict-2")];
        assert!(conflict.error_message().contains(&original));
    }
    assert_eq!(second.terminate(), 0);
}

/// The job that was executed under a key.
fn executed(answers: &BTreeMap<String, SeenResult>, key: &str) -> String {
    let mut executed = answers
        .values()
        .filter(|seen| seen.is_executed() && seen.key() == Some(key));
    let job_id = executed.next().unwrap().result.job_id.clone();
    assert!(executed.next().is_none());
    job_id
}

#[test]
fn all_kinds_of_duplicates_meet_across_two_workers_of_which_one_is_replaced() {
    let fleet = Fleet::new("across", 6);
    let mut workers = [fleet.worker(&[]), fleet.worker(&[])];
    let mut jobs = Jobs::new();
    for n in 0..450 {
        let (id, key) = (format!("job-{n:06}"), format!("key-{}", n % 100));
        // The third hundred has another payload.
        let data = format!("{{\"n\":{}}}", n % 100 + i32::from(n / 100 == 2) * 1_000);
        let job = echo(&id, Some(&key), &data);
        fleet.publish(Some(n % 6), None, &job);
        if n % 7 == 0 {
            fleet.publish(Some((n + 1) % 6), None, &job);
        }
        jobs.insert(id, Published { key, data });
        if n == 199 {
            fleet.flush();
            assert_eq!(by_job(&fleet.results(200, LIMIT)).len(), 200);
            workers[0].kill();
            workers[0] = fleet.worker(&[]);
        }
    }
    fleet.flush();
    let verdict = judge(&fleet, &jobs);
    assert_eq!((verdict.executed, verdict.conflicts), (100, 100));
    let busy: BTreeSet<Option<String>> = fleet
        .results(450, LIMIT)
        .iter()
        .map(|seen| seen.result.worker_id.clone())
        .collect();
    assert!(busy.len() >= 2, "both workers answered: {busy:?}");
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
