//! Bad input: each kind gets its outcome with a message that names the field or byte, its bytes are
//! kept, and the partition goes on.

use crate::fleet::{Fleet, by_job, echo, job};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// No text: headers are bytes and stay so.
const RAW_HEADER: [u8; 4] = [0xff, 0x00, 0xfe, 0x0a];

struct Case {
    name: &'static str,
    value: Vec<u8>,
    /// Reason of the dead letter and a part of its message, if there is one.
    letter: Option<(&'static str, &'static str)>,
    /// Job id, code and a part of the message of the failed result, if there is one.
    result: Option<(&'static str, &'static str, &'static str)>,
}

fn cases() -> Vec<Case> {
    let truncated = {
        let job = guestkit_protocol::decode_job(
            &echo("truncated01", None, "{}"),
            &guestkit_protocol::NoRegistry,
        )
        .unwrap();
        let mut bytes =
            guestkit_protocol::encode(&job, guestkit_protocol::Framing::SingleObject).unwrap();
        bytes.truncate(40);
        bytes
    };
    let json = |text: &str| text.as_bytes().to_vec();
    vec![
        Case {
            name: "empty",
            value: Vec::new(),
            letter: Some(("INVALID_JOB", "empty")),
            result: None,
        },
        Case {
            name: "random bytes",
            value: vec![0x9f, 0x12, 0x00, 0x55, 0xfe],
            letter: Some(("INVALID_JOB", "9f12")),
            result: None,
        },
        Case {
            name: "truncated avro",
            value: truncated,
            letter: Some(("INVALID_JOB", "byte")),
            // Its job id is among the bytes that are there.
            result: Some(("truncated01", "INVALID_JOB", "byte")),
        },
        Case {
            name: "wrong type",
            value: json(
                r#"{"version":"1.0","job_id":"wrongtype01","created_at":"2026-11-24T15:00:00Z","kind":"VMOperation","operation":"system.echo","payload":{"type":"system.echo.v1","data":{}},"execution":{"priority":"high"}}"#,
            ),
            letter: Some(("INVALID_JOB", "priority")),
            result: Some(("wrongtype01", "INVALID_JOB", "priority")),
        },
        Case {
            name: "unsupported version",
            value: json(
                r#"{"version":"2.0","job_id":"version-001","created_at":"2026-11-24T15:00:00Z","kind":"VMOperation","operation":"system.echo","payload":{"type":"system.echo.v1","data":{}}}"#,
            ),
            letter: Some(("UNSUPPORTED_VERSION", "2.0")),
            result: Some(("version-001", "UNSUPPORTED_VERSION", "2.0")),
        },
        Case {
            name: "unknown operation",
            value: job("nobody.knows", "unknown-001", None, "{}"),
            letter: None,
            result: Some(("unknown-001", "HANDLER_NOT_FOUND", "nobody.knows")),
        },
        Case {
            name: "crash without leave",
            value: echo("crash-00001", None, r#"{"crash":"abort"}"#),
            letter: None,
            result: Some(("crash-00001", "INVALID_JOB", "--allow-test-faults")),
        },
        Case {
            name: "result over the inline limit",
            value: echo("toolarge-01", None, r#"{"result_bytes":3000000}"#),
            letter: None,
            result: Some(("toolarge-01", "RESULT_TOO_LARGE", "--artifact-dir")),
        },
        Case {
            name: "result over the topic's limit",
            value: echo("toolarge-02", None, r#"{"result_bytes":400000}"#),
            letter: None,
            result: Some(("toolarge-02", "RESULT_TOO_LARGE", "max.message.bytes")),
        },
        Case {
            name: "unconstrained",
            value: json(
                r#"{"version":"1.0","job_id":"constrain01","created_at":"2026-11-24T15:00:00Z","kind":"VMOperation","operation":"system.echo","payload":{"type":"system.echo.v1","data":{}},"constraints":{"required_features":["quantum"]}}"#,
            ),
            letter: None,
            result: Some(("constrain01", "CONSTRAINT_UNSATISFIED", "quantum")),
        },
        Case {
            name: "deadline passed",
            value: json(
                r#"{"version":"1.0","job_id":"deadline-01","created_at":"2026-11-24T15:00:00Z","kind":"VMOperation","operation":"system.echo","payload":{"type":"system.echo.v1","data":{}},"execution":{"deadline":"2020-01-01T00:00:00Z"}}"#,
            ),
            letter: None,
            result: Some(("deadline-01", "DEADLINE_EXCEEDED", "deadline")),
        },
        Case {
            name: "missing image",
            value: job(
                "guestkit.inspect",
                "missing-001",
                None,
                r#"{"image":{"path":"nowhere.qcow2"}}"#,
            ),
            letter: None,
            result: Some(("missing-001", "IMAGE_NOT_FOUND", "nowhere.qcow2")),
        },
        Case {
            name: "image outside the roots",
            value: job(
                "guestkit.inspect",
                "outside-001",
                None,
                r#"{"image":{"path":"/etc/passwd"}}"#,
            ),
            letter: None,
            result: Some(("outside-001", "IMAGE_DENIED", "/etc/passwd")),
        },
        Case {
            name: "no image",
            value: job(
                "guestkit.inspect",
                "noimage-001",
                None,
                r#"{"image":{"path":"text.img"}}"#,
            ),
            letter: None,
            result: Some(("noimage-001", "IMAGE_INVALID", "")),
        },
    ]
}

#[test]
fn each_kind_of_bad_input_gets_its_outcome_and_the_partition_goes_on() {
    let bootstrap = xtask::cluster::bootstrap_servers().unwrap();
    let fleet = Fleet::with_topics(bootstrap, "bad-input", 3, |topic| match topic {
        "results" => vec![("max.message.bytes", "200000")],
        _ => Vec::new(),
    });
    let disks = fleet.dir.path().join("disks");
    std::fs::create_dir(&disks).unwrap();
    std::fs::write(
        disks.join("text.img"),
        "this is no disk image\n".repeat(400),
    )
    .unwrap();
    let mut worker = fleet.worker(&["--disk-root", disks.to_str().unwrap()]);
    let cases = cases();
    for case in &cases {
        let headers: [(&str, &[u8]); 2] = [("case", case.name.as_bytes()), ("raw", &RAW_HEADER)];
        // All on one partition: each must let the next one pass.
        fleet.publish_with(Some(1), Some(b"some key"), &case.value, &headers);
    }
    fleet.publish(Some(1), None, &echo("good-job-01", None, "{\"ok\":true}"));
    fleet.flush();
    let letters_wanted = cases.iter().filter(|case| case.letter.is_some()).count();
    let results_wanted = cases.iter().filter(|case| case.result.is_some()).count() + 1;
    let letters = fleet.dead_letters(letters_wanted, LIMIT);
    let results = by_job(&fleet.results(results_wanted, LIMIT));
    for case in &cases {
        let letter = letters.iter().find(|seen| seen.header("case") == case.name);
        match (&case.letter, letter) {
            (None, None) => {}
            (Some((reason, part)), Some(seen)) => {
                assert_eq!(seen.header("guestkit_reason"), *reason, "{}", case.name);
                let message = seen.header("guestkit_error");
                assert!(message.contains(part), "{}: {message}", case.name);
                assert_eq!(
                    seen.value.as_deref().unwrap_or_default(),
                    case.value,
                    "{}",
                    case.name
                );
                assert_eq!(seen.key.as_deref(), Some(&b"some key"[..]), "{}", case.name);
                assert_eq!(seen.headers["raw"], RAW_HEADER, "{}", case.name);
                assert_eq!(seen.header("guestkit_source_topic"), fleet.topic("jobs"));
                // Where a job id can be read, its slot's owner dead-letters it.
                let home = case
                    .result
                    .map_or(1, |(id, ..)| guestkit_protocol::slot_of(id, 3));
                let source = seen.header("guestkit_source_partition");
                assert_eq!(source, home.to_string(), "{}", case.name);
            }
            (wanted, found) => panic!("{}: wanted {wanted:?}, found {found:?}", case.name),
        }
        let Some((job_id, code, part)) = case.result else {
            continue;
        };
        let seen = results
            .get(job_id)
            .unwrap_or_else(|| panic!("{}: no result", case.name));
        assert_eq!(
            seen.error_code(),
            Some(code),
            "{}: {}",
            case.name,
            seen.error_message()
        );
        assert!(
            seen.error_message().contains(part),
            "{}: {}",
            case.name,
            seen.error_message()
        );
    }
    assert_eq!(letters.len(), letters_wanted);
    assert_eq!(results.len(), results_wanted);
    assert_eq!(results["good-job-01"].error_code(), None);
    fleet.wait_no_lag(LIMIT);
    assert_eq!(worker.terminate(), 0);
}

#[test]
fn a_panicking_handler_is_one_failed_job_and_a_large_result_becomes_an_artifact() {
    let fleet = Fleet::new("panic", 2);
    let artifacts = fleet.dir.path().join("artifacts");
    let mut worker = fleet.worker(&[
        "--allow-test-faults",
        "--artifact-dir",
        artifacts.to_str().unwrap(),
    ]);
    fleet.publish(
        None,
        None,
        &echo("panic-00001", None, r#"{"crash":"panic"}"#),
    );
    fleet.publish(
        None,
        None,
        &echo("large-00001", None, r#"{"result_bytes":3000000}"#),
    );
    fleet.publish(
        None,
        None,
        &echo("timeout-001", None, r#"{"sleep_ms":60000}"#).to_vec(),
    );
    fleet.publish(None, None, &echo("good-job-01", None, "{}"));
    fleet.flush();
    let results = by_job(&fleet.results(3, LIMIT));
    assert_eq!(results["panic-00001"].error_code(), Some("HANDLER_PANIC"));
    assert_eq!(results["good-job-01"].error_code(), None);
    let large = &results["large-00001"].result;
    assert!(large.data.is_none());
    let artifact = large.outputs.as_ref().unwrap().primary.as_ref().unwrap();
    let bytes = std::fs::read(&artifact.path).unwrap();
    assert_eq!(artifact.size_bytes, Some(bytes.len() as u64));
    let sum = {
        use sha2::{Digest, Sha256};
        format!("sha256:{}", hex::encode(Sha256::digest(&bytes)))
    };
    assert_eq!(artifact.checksum.as_deref(), Some(sum.as_str()));
    worker.kill();
}
