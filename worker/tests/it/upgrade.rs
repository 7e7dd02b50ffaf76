//! A rolling upgrade: this release goes on where the one before was killed, and writes nothing that the one
//! before could not read.
//!
//! `tests/fixtures/<release>/` holds what a worker of that release left in the topics. Its `README.md` says how
//! it was recorded; the recording itself is a test here, so that it can be done for every release.

use crate::fleet::{Fleet, Seen, by_job, echo, wait_until};
use guestkit_protocol::slot_of;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(90);
const PARTITIONS: i32 = 2;
const RECORDED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/0.1.0/records.jsonl"
);
const TOPICS: [&str; 4] = ["jobs", "ledger", "results", "dead-letters"];
/// Length of a single-object header: marker and fingerprint of the writer's schema.
const FINGERPRINT_END: usize = 10;

/// A key whose slot is this partition: published there, it is never forwarded, and the jobs topic has no
/// control records, whose offsets a replay could not repeat.
fn key_on(partition: i32, name: &str) -> String {
    let slots = PARTITIONS.unsigned_abs();
    (0..)
        .map(|n| format!("{name}-{n}"))
        .find(|key| slot_of(key, slots) == partition.unsigned_abs())
        .unwrap()
}

fn publish(fleet: &Fleet, partition: i32, job_id: &str, key: &str, data: &str) {
    let value = echo(job_id, Some(key), data);
    fleet.publish(Some(partition), Some(key), &value);
}

/// Lets a worker of this release leave one of everything behind, then kills it: answers, a failure, a
/// duplicate, a conflict, a dead letter, a job that runs, jobs answered behind it, jobs never read.
fn record(fleet: &Fleet) -> Vec<Value> {
    let mut worker = fleet.worker(&["--concurrency", "4"]);
    for partition in 0..PARTITIONS {
        let key = |name: &str| key_on(partition, name);
        let publish = |id: &str, key: &str, data: &str| {
            publish(fleet, partition, &format!("{id}-{partition}"), key, data);
        };
        publish("first-job", &key("first"), r#"{"n":1}"#);
        let failing =
            r#"{"fail":{"code":"BROKEN","message":"on request","recoverable":false,"times":0}}"#;
        publish("failing-job", &key("failing"), failing);
        // Runs until the worker is killed.
        publish("running-job", &key("running"), r#"{"sleep_ms":6000}"#);
        publish("behind-it", &key("behind"), r#"{"n":2}"#);
        publish("duplicate", &key("first"), r#"{"n":1}"#);
        publish("conflict", &key("first"), r#"{"n":7}"#);
        fleet.publish(Some(partition), Some("k"), b"no job at all");
    }
    fleet.flush();
    let settled = 5 * PARTITIONS as usize;
    assert_eq!(by_job(&fleet.results(settled, LIMIT)).len(), settled);
    worker.kill();
    for partition in 0..PARTITIONS {
        let key = key_on(partition, "unread");
        publish(
            fleet,
            partition,
            &format!("unread-job-{partition}"),
            &key,
            "{}",
        );
    }
    fleet.flush();
    dump(fleet)
}

/// Everything in the topics, and the group's offsets, one document each.
fn dump(fleet: &Fleet) -> Vec<Value> {
    let mut lines = Vec::new();
    for topic in TOPICS {
        let mut records = fleet.read_all(topic, LIMIT);
        // Partitions come interleaved; each keeps its order.
        records.sort_by_key(|record| record.partition);
        for record in records {
            let headers: BTreeMap<&String, String> = record
                .headers
                .iter()
                .map(|(name, value)| (name, hex::encode(value)))
                .collect();
            lines.push(json!({
                "topic": topic,
                "partition": record.partition,
                "key": record.key.map(hex::encode),
                "value": record.value.map(hex::encode),
                "headers": headers,
            }));
        }
    }
    for (partition, next_offset) in fleet.committed() {
        lines.push(json!({"committed": next_offset, "partition": partition}));
    }
    lines
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    value.as_str().map(|text| hex::decode(text).unwrap())
}

/// Puts a recording into a fleet's topics, offsets of jobs and of the group as they were.
fn replay(fleet: &Fleet, lines: &[Value]) {
    let mut offsets = TopicPartitionList::new();
    for line in lines {
        let partition = i32::try_from(line["partition"].as_i64().unwrap()).unwrap();
        if let Some(next_offset) = line["committed"].as_i64() {
            offsets
                .add_partition_offset(&fleet.topic("jobs"), partition, Offset::Offset(next_offset))
                .unwrap();
            continue;
        }
        let headers: Vec<(String, Vec<u8>)> = line["headers"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.clone(), bytes(value).unwrap()))
            .collect();
        let headers: Vec<(&str, &[u8])> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
            .collect();
        crate::fleet::publish_by(
            &fleet.producer,
            &fleet.topic(line["topic"].as_str().unwrap()),
            Some(partition),
            bytes(&line["key"]).as_deref(),
            &bytes(&line["value"]).unwrap(),
            &headers,
        );
    }
    fleet.flush();
    let group: BaseConsumer = fleet
        .client()
        .set("group.id", fleet.group())
        .create()
        .unwrap();
    group.commit(&offsets, CommitMode::Sync).unwrap();
}

fn recorded() -> Vec<Value> {
    let text = std::fs::read_to_string(RECORDED).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The schemas that ledger records were written with.
fn fingerprints<'a>(values: impl Iterator<Item = &'a [u8]>) -> BTreeSet<Vec<u8>> {
    values
        .map(|value| value[..FINGERPRINT_END.min(value.len())].to_vec())
        .collect()
}

fn ledger_kinds(lines: &[Value]) -> BTreeSet<String> {
    lines
        .iter()
        .filter(|line| line["topic"] == "ledger")
        .map(|line| {
            let kind = bytes(&line["headers"]["guestkit_kind"]).unwrap_or_default();
            String::from_utf8(kind).unwrap()
        })
        .collect()
}

/// With `GUESTKIT_RECORD_RELEASE=DIR` the recording is kept there, for a fixture.
#[test]
fn what_a_killed_worker_leaves_can_be_recorded() {
    let fleet = Fleet::new("record", PARTITIONS);
    let lines = record(&fleet);
    let kinds = ledger_kinds(&lines);
    for kind in ["done", "slot", "mark"] {
        assert!(kinds.contains(kind), "no {kind} in {kinds:?}");
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    if let Ok(dir) = std::env::var("GUESTKIT_RECORD_RELEASE") {
        let dir = Path::new(&dir);
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("records.jsonl"), text).unwrap();
    }
}

#[test]
fn a_fleet_of_this_release_goes_on_where_the_last_one_was_killed() {
    let lines = recorded();
    let fleet = Fleet::new("upgrade", PARTITIONS);
    replay(&fleet, &lines);
    let before = by_job(&fleet.results_now());
    assert_eq!(before.len(), 5 * PARTITIONS as usize);
    let ledger_before = fleet.read_all("ledger", LIMIT).len();

    // One worker of the new release, then a second: slots move between them as in a rolling upgrade.
    let mut first = fleet.worker(&[]);
    wait_until("the first worker serves", LIMIT, || {
        fleet.count("ledger") > i64::try_from(ledger_before).unwrap()
    });
    let mut second = fleet.worker(&[]);
    for partition in 0..PARTITIONS {
        let again = format!("again-job-{partition}");
        publish(
            &fleet,
            partition,
            &again,
            &key_on(partition, "first"),
            r#"{"n":1}"#,
        );
        let other = format!("other-job-{partition}");
        publish(
            &fleet,
            partition,
            &other,
            &key_on(partition, "behind"),
            r#"{"n":9}"#,
        );
        let fresh = format!("fresh-job-{partition}");
        publish(&fleet, partition, &fresh, &key_on(partition, "fresh"), "{}");
    }
    fleet.flush();
    // Of each partition: the running one, the unread one, and the three of just now.
    let count = before.len() + 5 * PARTITIONS as usize;
    let after = by_job(&fleet.results(count, LIMIT));
    let answered: Vec<&String> = after.keys().collect();
    assert_eq!(after.len(), count, "only {answered:?} are answered");
    for partition in 0..PARTITIONS {
        let result = |name: &str| &after[&format!("{name}-{partition}")];
        assert_eq!(
            result("again-job").result.duplicate_of.as_deref(),
            Some(format!("first-job-{partition}").as_str()),
            "an answer of the last release is known"
        );
        assert_eq!(
            result("other-job").error_code(),
            Some("IDEMPOTENCY_CONFLICT")
        );
        for name in ["running-job", "unread-job", "fresh-job"] {
            assert!(
                result(name).is_executed() && result(name).error_code().is_none(),
                "{name}"
            );
        }
    }
    // What was answered before is as it was.
    for (id, seen) in &before {
        assert_eq!(after[id].result, seen.result, "{id}");
    }
    fleet.wait_no_lag(LIMIT);
    assert_eq!(
        fleet.dead_letters(PARTITIONS as usize, LIMIT).len(),
        PARTITIONS as usize,
        "no dead letter comes twice"
    );
    crate::guarantees::assert_all(&fleet, &guestkit_protocol::NoRegistry);

    // The way back: a worker of the last release reads only what has the schemas that it knows.
    let known: Vec<Vec<u8>> = lines
        .iter()
        .filter(|line| line["topic"] == "ledger")
        .filter_map(|line| bytes(&line["value"]))
        .collect();
    let known = fingerprints(known.iter().map(Vec::as_slice));
    let ledger: Vec<Seen> = fleet.read_all("ledger", LIMIT);
    assert!(ledger.len() > ledger_before);
    let written = fingerprints(ledger.iter().filter_map(|seen| seen.value.as_deref()));
    assert_eq!(
        written, known,
        "the ledger is written in a schema that the release before can read: bring a new one out as readable first"
    );
    let kinds: BTreeSet<String> = ledger
        .iter()
        .map(|seen| seen.header("guestkit_kind"))
        .collect();
    let known: BTreeSet<String> = ["done", "mark", "slot"].map(str::to_owned).into();
    assert_eq!(kinds, known, "and of kinds that the release before knows");
    assert_eq!((first.terminate(), second.terminate()), (0, 0));
}
