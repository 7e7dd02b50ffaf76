//! One encoded record per document and released schema version: what was written once stays readable.

use guestkit_protocol::*;
use serde_json::Value;
use std::path::Path;

fn check<D: Document + PartialEq + std::fmt::Debug>(version: &Path, name: &str) {
    let avro = std::fs::read(version.join(format!("{name}.avro"))).unwrap();
    let json = std::fs::read(version.join(format!("{name}.json"))).unwrap();
    let read: D = decode(&avro, &NoRegistry).unwrap_or_else(|error| panic!("{name}: {error}"));
    let expected: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), expected, "{name}");
    assert_eq!(decode::<D>(&json, &NoRegistry).unwrap(), read, "{name}");
}

#[test]
fn every_released_record_is_readable() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let v1 = fixtures.join("v1");
    check::<JobEnvelope>(&v1, "job_envelope");
    check::<JobResult>(&v1, "job_result");
    check::<JobProgress>(&v1, "job_progress");
    check::<LedgerEntry>(&v1, "ledger_entry_done");
    check::<LedgerEntry>(&v1, "ledger_entry_open");
    check::<LedgerEntry>(&v1, "ledger_entry_slot");
    check::<LedgerEntry>(&v1, "ledger_entry_mark");
    check::<JobOutcome>(&v1, "job_outcome");
    check::<WorkerAdvertisement>(&v1, "worker_advertisement");
    check::<JobControl>(&v1, "job_control");
    let files = std::fs::read_dir(&v1).unwrap().count();
    assert_eq!(files, 20, "a fixture that no test reads");
    assert_eq!(
        std::fs::read_dir(&fixtures).unwrap().count(),
        1,
        "a version that no test reads"
    );
}
