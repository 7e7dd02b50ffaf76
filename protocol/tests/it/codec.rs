//! Framings, faults and what can be read of an invalid job.

use crate::{Broken, OneSchema, confluent, datum, job};
use guestkit_protocol::*;

fn invalid(bytes: &[u8], schemas: &dyn SchemaSource) -> Invalid {
    match decode_job(bytes, schemas).unwrap_err() {
        DecodeError::Invalid(invalid) => *invalid,
        other => panic!("{other:?} is not final"),
    }
}

fn json(job: &JobEnvelope) -> String {
    String::from_utf8(encode(job, Framing::Json).unwrap()).unwrap()
}

#[test]
fn three_framings_and_one_job_with_one_hash() {
    let job = job();
    let source = OneSchema::of(JobEnvelope::SCHEMA);
    let records = [
        encode(
            &job,
            Framing::Confluent {
                schema_id: 0x0102_0304,
            },
        )
        .unwrap(),
        encode(&job, Framing::SingleObject).unwrap(),
        encode(&job, Framing::Json).unwrap(),
        [b"\xEF\xBB\xBF \r\n\t".as_slice(), json(&job).as_bytes()].concat(),
        format!("{}\n", json(&job).replace(r#""path""#, r#" "pa\u0074h" "#)).into_bytes(),
    ];
    assert_eq!(records[0][..5], [0, 1, 2, 3, 4]);
    assert_eq!(records[1][..2], [0xC3, 1]);
    let hash = job.payload_hash().unwrap();
    for record in records {
        let read = decode_job(&record, &source).unwrap();
        assert_eq!(read.job_id, job.job_id);
        assert_eq!(
            read.payload_hash().unwrap(),
            hash,
            "{}",
            String::from_utf8_lossy(&record)
        );
    }
    assert_eq!(Framing::SingleObject.content_type(), "application/avro");
    assert_eq!(Framing::Json.content_type(), "application/json");
}

#[test]
fn what_is_no_framing_says_so() {
    for (bytes, words) in [
        (&b""[..], "empty"),
        (b"\0", "at least 5 bytes"),
        (b"\0\0\0", "at least 5 bytes"),
        (b"\xC3\x01\0\0", "at least 10 bytes"),
        (b"[{}]", "not a list"),
        (b"hello", "begins with 68656c6c"),
        (b"\xC3\x02aaaa", "begins with c3026161"),
        (b"   ", "begins with"),
        (b"{\xff}", "not UTF-8 at byte 1"),
    ] {
        let found = invalid(bytes, &NoRegistry);
        assert!(found.reason.contains(words), "{bytes:?}: {}", found.reason);
        assert_eq!(found.code, error_code::INVALID_JOB);
        assert_eq!(found.identity, JobIdentity::default());
    }
    let large = vec![b'{'; RECORD_MAX + 1];
    assert!(invalid(&large, &NoRegistry).reason.contains("at most"));
}

#[test]
fn a_registry_fault_waits_or_is_final() {
    let record = confluent(&datum(&job()));
    let unavailable = SchemaFault::Unavailable {
        reason: "503".to_owned(),
    };
    assert_eq!(
        decode_job(&record, &Broken(unavailable.clone())).unwrap_err(),
        DecodeError::Temporary(unavailable)
    );
    assert!(
        invalid(&record, &Broken(SchemaFault::Unknown { id: 7 }))
            .reason
            .contains("schema id 7 is unknown")
    );
    let unsuitable = SchemaFault::Unsuitable {
        id: 7,
        reason: "it is recursive".to_owned(),
    };
    assert!(
        invalid(&record, &Broken(unsuitable))
            .reason
            .contains("recursive")
    );
    assert!(
        invalid(&record, &NoRegistry)
            .reason
            .contains("no schema registry is configured")
    );
}

#[test]
fn schema_id_0_is_apicurios_long_id() {
    let record = [&[0, 0, 0, 0, 0, 0, 0, 0, 7], &datum(&job())[..]].concat();
    let reason = invalid(&record, &OneSchema::of(JobEnvelope::SCHEMA)).reason;
    assert!(reason.contains("as-confluent=true"), "{reason}");
}

#[test]
fn an_unknown_fingerprint_is_named() {
    let mut record = encode(&job(), Framing::SingleObject).unwrap();
    record[2] ^= 1;
    let reason = invalid(&record, &NoRegistry).reason;
    assert!(reason.contains(&hex::encode(&record[2..10])), "{reason}");
}

#[test]
fn another_document_is_refused() {
    let result = JobResult::completed("inspect-0001", Timestamp::default());
    let record = encode(&result, Framing::SingleObject).unwrap();
    let reason = invalid(&record, &NoRegistry).reason;
    assert!(
        reason.contains("describes a JobResult, but a JobEnvelope belongs here"),
        "{reason}"
    );
}

#[test]
fn bytes_after_the_datum_are_a_fault() {
    let mut record = encode(&job(), Framing::SingleObject).unwrap();
    let end = record.len() - 10;
    record.push(0);
    let reason = invalid(&record, &NoRegistry).reason;
    assert!(
        reason.contains(&format!(
            "1 bytes follow the end of the record at byte {end}"
        )),
        "{reason}"
    );
}

#[test]
fn a_wrong_type_names_the_field_and_keeps_the_identity() {
    for (from, to, field) in [
        (
            r#""priority":5"#,
            r#""priority":"high""#,
            "execution.priority: invalid type: string \"high\", expected u32",
        ),
        (
            r#""priority":5"#,
            r#""priority":5.5"#,
            "execution.priority: invalid type: floating point",
        ),
        (
            r#""attempt":1"#,
            r#""attempt":-1"#,
            "execution.attempt: invalid value: integer `-1`",
        ),
        (
            r#""created_at":"2026-11-24T14:20:00Z""#,
            r#""created_at":"tomorrow""#,
            "created_at: \"tomorrow\" is no time",
        ),
        (
            r#""created_at":"2026-11-24T14:20:00Z","#,
            "",
            "created_at: the field is missing",
        ),
        (
            r#""type":"guestkit.inspect.v1","#,
            "",
            "payload.type: the field is missing",
        ),
        (
            r#""kind":"VMOperation""#,
            r#""kind":[1]"#,
            "kind: invalid type: sequence",
        ),
    ] {
        let text = json(&job());
        assert!(text.contains(from), "{text}");
        let found = invalid(text.replacen(from, to, 1).as_bytes(), &NoRegistry);
        assert!(found.reason.starts_with(field), "{}", found.reason);
        assert_eq!(found.code, error_code::INVALID_JOB);
        assert_eq!(found.identity.job_id.as_deref(), Some("inspect-0001"));
        assert_eq!(
            found.identity.idempotency_key.as_deref(),
            Some("inspect/debian-12")
        );
        assert_eq!(
            found.identity.operation.as_deref(),
            Some("guestkit.inspect")
        );
    }
}

#[test]
fn names_that_come_twice_are_refused_at_every_level() {
    let text = json(&job());
    for (from, to) in [
        (r#""kind":"#, r#""kind":"VMOperation","kind":"#),
        (r#""priority":"#, r#""priority":1,"priority":"#),
        (r#""path":"#, r#""path":"a","path":"#),
        (r#""metadata":"#, r#""metadata":"#),
        ("{", r#"{"x":1,"x":2,"#),
        ("{", r#"{"metadata":{"labels":{"a":"1","a":"2"}},"#),
    ] {
        let changed = text.replacen(from, to, 1);
        if changed != text {
            let reason = invalid(changed.as_bytes(), &NoRegistry).reason;
            assert!(reason.contains("twice"), "{changed}: {reason}");
        }
    }
    // serde alone, without the codec, sees it in the records too.
    let changed = text.replacen(r#""priority":"#, r#""priority":1,"priority":"#, 1);
    let error = serde_json::from_str::<JobEnvelope>(&changed)
        .unwrap_err()
        .to_string();
    assert!(error.contains("\"priority\" comes twice"), "{error}");
}

#[test]
fn another_major_version_is_told_apart_even_when_its_fields_differ() {
    let text = json(&job()).replacen(r#""version":"1.0""#, r#""version":"2.0""#, 1);
    for text in [
        text.clone(),
        text.replacen(r#""priority":5"#, r#""priority":{"class":"urgent"}"#, 1),
    ] {
        let found = invalid(text.as_bytes(), &NoRegistry);
        assert_eq!(
            found.code,
            error_code::UNSUPPORTED_VERSION,
            "{}",
            found.reason
        );
        assert!(
            found.reason.contains("\"2.0\" is not supported"),
            "{}",
            found.reason
        );
        assert_eq!(found.identity.job_id.as_deref(), Some("inspect-0001"));
    }
    let mut other = job();
    other.version = "2.0".to_owned();
    let found = invalid(&encode(&other, Framing::SingleObject).unwrap(), &NoRegistry);
    assert_eq!(found.code, error_code::UNSUPPORTED_VERSION);
    for (version, lawful) in [
        ("1.0", true),
        ("1.17", true),
        ("1.2.3", true),
        ("1", false),
        ("1.", false),
        ("1.x", false),
        ("", false),
        ("10.0", false),
        ("01.0", false),
    ] {
        other.version = version.to_owned();
        assert_eq!(other.validate().is_ok(), lawful, "{version}");
    }
}

#[test]
fn a_job_that_breaks_rules_names_the_fields() {
    let mut job = job();
    job.execution.priority = 11;
    job.kind = "Other".to_owned();
    for framing in [Framing::SingleObject, Framing::Json] {
        let found = invalid(&encode(&job, framing).unwrap(), &NoRegistry);
        let fields: Vec<_> = found.fields.iter().map(|error| error.field).collect();
        assert_eq!(fields, ["kind", "execution.priority"]);
        assert!(
            found
                .reason
                .contains("execution.priority: 11 is not between 1 and 10"),
            "{}",
            found.reason
        );
        assert_eq!(
            found.identity.idempotency_key.as_deref(),
            Some("inspect/debian-12")
        );
    }
}

#[test]
fn truncated_avro_gives_what_came_before_the_cut() {
    let record = encode(&job(), Framing::SingleObject).unwrap();
    let found = invalid(&record[..record.len() - 3], &NoRegistry);
    assert_eq!(found.identity.job_id.as_deref(), Some("inspect-0001"));
    assert_eq!(
        found.identity.idempotency_key.as_deref(),
        Some("inspect/debian-12")
    );
    // Cut inside the payload: whether there is a key is not known, so it is not guessed.
    let at = record.windows(5).position(|w| w == b"image").unwrap();
    let found = invalid(&record[..at], &NoRegistry);
    assert_eq!(found.identity.job_id.as_deref(), Some("inspect-0001"));
    assert_eq!(
        found.identity.operation.as_deref(),
        Some("guestkit.inspect")
    );
    assert_eq!(found.identity.idempotency_key, None);
    assert!(
        found.reason.contains("payload.data: ") && found.reason.contains(" at byte "),
        "{}",
        found.reason
    );
}

#[test]
fn truncated_json_gives_what_came_before_the_cut() {
    let text = json(&job());
    let found = invalid(&text.as_bytes()[..text.len() - 1], &NoRegistry);
    assert_eq!(
        found.identity.idempotency_key.as_deref(),
        Some("inspect/debian-12")
    );
    // Cut inside the payload: there might be a key behind it.
    let found = invalid(&text.as_bytes()[..text.find("image").unwrap()], &NoRegistry);
    assert_eq!(found.identity.job_id.as_deref(), Some("inspect-0001"));
    assert_eq!(found.identity.idempotency_key, None);
    // A name that comes twice says nothing.
    let twice = text.replacen(r#""job_id":"#, r#""job_id":"inspect-0002","job_id":"#, 1);
    let found = invalid(twice.as_bytes(), &NoRegistry);
    assert_eq!(found.identity.job_id, None);
    assert_eq!(
        found.identity.idempotency_key.as_deref(),
        Some("inspect/debian-12")
    );
}

#[test]
fn an_identity_that_breaks_its_own_rule_is_not_readable() {
    let mut other = job();
    other.job_id = "short".to_owned();
    other.execution.idempotency_key = None;
    let found = invalid(&encode(&other, Framing::Json).unwrap(), &NoRegistry);
    assert_eq!(
        (found.identity.job_id, found.identity.idempotency_key),
        (None, None)
    );
    other.execution.idempotency_key = Some("a\u{7}b".to_owned());
    other.job_id = "long-enough".to_owned();
    let found = invalid(&encode(&other, Framing::SingleObject).unwrap(), &NoRegistry);
    assert_eq!(found.identity.job_id.as_deref(), Some("long-enough"));
    assert_eq!(found.identity.idempotency_key, None);
}

#[test]
fn without_a_key_the_job_id_is_the_key() {
    let mut other = job();
    other.execution.idempotency_key = None;
    other.execution.priority = 0;
    assert_eq!(other.idempotency_key(), "inspect-0001");
    for framing in [Framing::Json, Framing::SingleObject] {
        let found = invalid(&encode(&other, framing).unwrap(), &NoRegistry);
        assert_eq!(
            found.identity.idempotency_key.as_deref(),
            Some("inspect-0001")
        );
    }
    // Also when the record is not readable as a whole.
    let text = json(&other).replacen(r#""priority":0"#, r#""priority":null,"deadline":7"#, 1);
    let found = invalid(text.as_bytes(), &NoRegistry);
    assert_eq!(
        found.identity.idempotency_key.as_deref(),
        Some("inspect-0001"),
        "{}",
        found.reason
    );
    // An execution of the wrong type might have held one.
    let found = invalid(
        json(&other)
            .replacen(r#""execution":{"#, r#""execution":[{"#, 1)
            .replacen("}", "}]", 99)
            .as_bytes(),
        &NoRegistry,
    );
    assert_eq!(found.identity.idempotency_key, None, "{}", found.reason);
}

#[test]
fn an_extension_must_not_repeat_a_field() {
    let mut other = job();
    other
        .execution
        .extensions
        .insert("priority", JsonText::new("9").unwrap());
    let found = invalid(&encode(&other, Framing::SingleObject).unwrap(), &NoRegistry);
    assert!(
        found
            .reason
            .contains("execution.extensions.priority: an extension repeats a field"),
        "{}",
        found.reason
    );
}

#[test]
fn what_readers_would_not_keep_is_not_written() {
    let mut progress = JobProgress::new("inspect-0001", Timestamp::default(), 1 << 53, "read");
    assert!(encode(&progress, Framing::SingleObject).is_ok());
    progress.sequence += 1;
    assert_eq!(
        encode(&progress, Framing::SingleObject),
        Err(EncodeError::NumberTooLarge {
            value: (1 << 53) + 1
        })
    );
    let mut result = JobResult::completed("inspect-0001", Timestamp::default());
    result.data = Some(JsonText::new(format!("\"{}\"", "x".repeat(RECORD_MAX))).unwrap());
    for framing in [
        Framing::SingleObject,
        Framing::Json,
        Framing::Confluent { schema_id: 1 },
    ] {
        assert!(matches!(
            encode(&result, framing),
            Err(EncodeError::TooLarge { .. })
        ));
    }
}

#[test]
fn the_four_kinds_of_ledger_entry() {
    let hash = job().payload_hash().unwrap();
    let pointer = ResultPointer::new("vm-operations.results", 3, "inspect-0001");
    let done = DoneEntry::new("inspect-0001", hash, JobStatus::Completed, pointer);
    assert_eq!(
        done.answered.payload_of("inspect-0001"),
        Some(hash.fingerprint())
    );
    let mut open = OpenEntry::new(
        "inspect-0001",
        hash,
        encode(&job(), Framing::SingleObject).unwrap(),
    );
    open.waiters.push(Waiter::of(&job()));
    open.errors
        .push(AttemptError::new(1, 1, "INTERNAL", &"ö".repeat(400)));
    assert_eq!(open.errors[0].message.len(), AttemptError::MESSAGE_MAX);
    let range = OffsetRange { first: 7, last: 9 };
    let entries = [
        LedgerEntry::Done(done),
        LedgerEntry::Open(Box::new(open)),
        LedgerEntry::Slot(SlotEntry {
            partition_count: 12,
            next_offset: 5,
            settled: vec![range],
            writer: "vm-operations.workers.w-1.0".to_owned(),
            released: true,
            extensions: Extensions::default(),
        }),
        LedgerEntry::Mark(MarkEntry {
            incarnation: "w-1.5".to_owned(),
            transactional_id: "vm-operations.workers.w-1.0".to_owned(),
            offsets: vec![
                range,
                OffsetRange {
                    first: 11,
                    last: 11,
                },
            ],
            extensions: Extensions::default(),
        }),
    ];
    for (entry, kind) in entries.into_iter().zip(LedgerKind::ALL) {
        assert_eq!(entry.kind(), *kind);
        for framing in [Framing::SingleObject, Framing::Json] {
            let record = encode(&entry, framing).unwrap();
            assert_eq!(decode::<LedgerEntry>(&record, &NoRegistry).unwrap(), entry);
        }
    }
    for text in [
        r#"{"kind":"done"}"#,
        r#"{"kind":"other"}"#,
        r#"{"kind":"slot","mark":{"incarnation":"a","transactional_id":"b"}}"#,
    ] {
        assert!(
            decode::<LedgerEntry>(text.as_bytes(), &NoRegistry).is_err(),
            "{text}"
        );
    }
    assert!(!is_idempotency_key(std::str::from_utf8(SLOT_KEY).unwrap()));
    assert!(!is_idempotency_key(std::str::from_utf8(MARK_KEY).unwrap()));
}
