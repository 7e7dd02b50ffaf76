//! What a whole fleet owes its clients, judged from the outside: the jobs that were published, the
//! results and the ledger as a read_committed client sees them, the offsets of the group.

use crate::fleet::{Fleet, SeenResult, by_job, echo, executed_keys};
use guestkit_protocol::{NoRegistry, decode_job};
use guestkit_worker::codec::decode_done;
use guestkit_worker::engine::ledger::{Done, FinalStatus, Fingerprint};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long results may take once all faults are over, and the offsets after the results.
const LIMIT: Duration = Duration::from_secs(180);

/// A job that a client published under an idempotency key.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) key: String,
    pub(crate) data: String,
}

/// What was published, by job id; repeats of one record count once.
pub(crate) type Jobs = BTreeMap<String, Published>;

/// What the verdict was made of.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) executed: usize,
    pub(crate) duplicates: usize,
    pub(crate) conflicts: usize,
}

/// Waits until every job has its answer, then holds everything against everything: exactly one
/// execution for each key, each further job id answered as duplicate or conflict by its payload,
/// the ledger in agreement, nothing left to read.
pub(crate) fn judge(fleet: &Fleet, jobs: &Jobs) -> Verdict {
    let results = fleet.results(jobs.len(), LIMIT);
    fleet.wait_no_lag(LIMIT);
    let answered = by_job(&results);
    let missing: Vec<&String> = jobs
        .keys()
        .filter(|id| !answered.contains_key(*id))
        .collect();
    assert!(
        missing.is_empty(),
        "{} jobs have no answer, the first {:?}",
        missing.len(),
        missing.first()
    );
    assert_eq!(answered.len(), jobs.len(), "nobody published the rest");
    let executed = executed_keys(&results);
    let keys: BTreeSet<String> = jobs.values().map(|job| job.key.clone()).collect();
    assert_eq!(executed, keys, "exactly one execution for every key");

    let originals: BTreeMap<&str, &SeenResult> = results
        .iter()
        .filter(|seen| seen.is_executed())
        .filter_map(|seen| Some((seen.key()?, seen)))
        .collect();
    let (mut duplicates, mut conflicts) = (0, 0);
    for (id, job) in jobs {
        let seen = &answered[id];
        let original = originals[job.key.as_str()];
        let original_id = &original.result.job_id;
        assert_eq!(seen.key(), Some(job.key.as_str()));
        assert_eq!(seen.partition, original.partition, "{id}: not on its slot");
        if id == original_id {
            continue;
        }
        if jobs[original_id].data == job.data {
            assert_eq!(seen.result.duplicate_of.as_ref(), Some(original_id), "{id}");
            assert_eq!(seen.result.status, original.result.status);
            duplicates += 1;
        } else {
            assert_eq!(seen.error_code(), Some("IDEMPOTENCY_CONFLICT"), "{id}");
            conflicts += 1;
        }
    }
    assert_eq!(executed.len() + duplicates + conflicts, jobs.len());
    agree(&ledger(fleet), &originals, jobs);
    Verdict {
        executed: executed.len(),
        duplicates,
        conflicts,
    }
}

/// The newest DONE of each key, with its ledger partition.
pub(crate) fn ledger(fleet: &Fleet) -> BTreeMap<String, (i32, Done)> {
    let mut newest = BTreeMap::new();
    for record in fleet.read_all("ledger", LIMIT) {
        if record.header("guestkit_kind") != "done" {
            continue;
        }
        let key = String::from_utf8(record.key.unwrap()).unwrap();
        let done = decode_done(record.value.as_deref().unwrap()).unwrap();
        newest.insert(key, (record.partition, done));
    }
    newest
}

fn agree(
    ledger: &BTreeMap<String, (i32, Done)>,
    originals: &BTreeMap<&str, &SeenResult>,
    jobs: &Jobs,
) {
    let in_ledger: BTreeSet<&str> = ledger.keys().map(String::as_str).collect();
    let executed: BTreeSet<&str> = originals.keys().copied().collect();
    assert_eq!(
        in_ledger, executed,
        "a DONE for each executed result, and no other"
    );
    for (key, (partition, done)) in ledger {
        let original = originals[key.as_str()];
        assert_eq!(*done.job_id, *original.result.job_id, "{key}");
        assert_eq!(*partition, original.partition, "{key}");
        assert_eq!(
            i64::from(done.result.partition),
            i64::from(original.partition)
        );
        assert_eq!(
            done.status == FinalStatus::Completed,
            original.error_code().is_none(),
            "{key}"
        );
    }
    for (id, job) in jobs {
        let (_, done) = &ledger[&job.key];
        if *done.job_id == **id {
            assert_eq!(done.payload_hash, payload_hash(id, job));
        } else {
            let answer = Fingerprint::of(id, &payload_hash(id, job));
            assert!(done.answered.contains(&answer), "{id} is not in its DONE");
        }
    }
}

fn payload_hash(id: &str, job: &Published) -> [u8; 32] {
    let json = echo(id, Some(&job.key), &job.data);
    let hash = decode_job(&json, &NoRegistry).unwrap().payload_hash();
    *hash.unwrap().as_bytes()
}
