//! Records of other schema versions, and schemas that are refused.

use crate::{OneSchema, confluent, datum, from_avro_datum, job, to_avro_datum};
use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use guestkit_protocol::*;
use serde_json::{Value, json};

fn envelope_schema() -> Value {
    serde_json::from_str(JobEnvelope::SCHEMA).unwrap()
}

fn field<'a>(record: &'a mut Value, name: &str) -> &'a mut Value {
    let fields = record["fields"].as_array_mut().unwrap();
    fields
        .iter_mut()
        .find(|field| field["name"] == name)
        .unwrap()
}

fn remove(record: &mut Value, name: &str) {
    record["fields"]
        .as_array_mut()
        .unwrap()
        .retain(|field| field["name"] != name);
}

fn add(record: &mut Value, at: usize, field: Value) {
    record["fields"].as_array_mut().unwrap().insert(at, field);
}

/// Sets a field of an apache-avro record; the path leads through nullable records.
fn set(value: &mut Avro, path: &[&str], to: Avro) {
    match value {
        Avro::Union(_, inner) => set(inner, path, to),
        Avro::Record(fields) => {
            let inner = &mut fields
                .iter_mut()
                .find(|(name, _)| name == path[0])
                .unwrap()
                .1;
            if path.len() == 1 {
                *inner = to
            } else {
                set(inner, &path[1..], to)
            }
        }
        other => panic!("{path:?} in {other:?}"),
    }
}

/// The job, written by apache-avro with another version of the schema.
fn written_with(schema: &Value, job: &JobEnvelope, change: impl Fn(&mut Avro)) -> Vec<u8> {
    let ours = Schema::parse_str(JobEnvelope::SCHEMA).unwrap();
    let theirs = Schema::parse(schema).unwrap();
    let mut value = from_avro_datum(&ours, &datum(job), Some(&theirs));
    change(&mut value);
    to_avro_datum(&theirs, value)
}

fn optional(inner: Value) -> Value {
    json!(["null", inner])
}

#[test]
fn a_later_version_is_read_and_its_fields_are_kept() {
    let mut schema = envelope_schema();
    add(
        &mut schema,
        0,
        json!({"name": "tenant", "type": optional(json!("string")), "default": null}),
    );
    let estimate = json!({"type": "record", "name": "Estimate", "fields": [
        {"name": "cost", "type": "double"}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "steps", "type": {"type": "array", "items": "string"}}]});
    let execution = &mut field(&mut schema, "execution")["type"][1];
    add(
        execution,
        2,
        json!({"name": "estimate", "type": optional(estimate), "default": null}),
    );
    add(
        execution,
        9,
        json!({"name": "never_set", "type": optional(json!("long")), "default": null}),
    );
    let source = OneSchema::of(&schema.to_string());

    let mut job = job();
    job.extensions.insert("x", JsonText::new("[1.50]").unwrap());
    let record = confluent(&written_with(&schema, &job, |value| {
        set(
            value,
            &["tenant"],
            Avro::Union(1, Box::new(Avro::String("acme \"1\"".to_owned()))),
        );
        let estimate = Avro::Record(vec![
            ("cost".to_owned(), Avro::Double(2.5)),
            (
                "at".to_owned(),
                Avro::TimestampMicros(1_795_530_000_000_123),
            ),
            (
                "steps".to_owned(),
                Avro::Array(vec![
                    Avro::String("a".to_owned()),
                    Avro::String("b".to_owned()),
                ]),
            ),
        ]);
        set(
            value,
            &["execution", "estimate"],
            Avro::Union(1, Box::new(estimate)),
        );
    }));
    let read = decode_job(&record, &source).unwrap();
    assert_eq!(
        read.extensions.get("tenant").unwrap().as_str(),
        r#""acme \"1\"""#
    );
    assert_eq!(read.extensions.get("x").unwrap().as_str(), "[1.50]");
    assert_eq!(
        read.execution.extensions.get("estimate").unwrap().as_str(),
        r#"{"cost":2.5,"at":"2026-11-24T14:20:00Z","steps":["a","b"]}"#
    );
    assert_eq!(read.execution.extensions.len(), 1);
    assert_eq!(read.payload_hash(), job.payload_hash());

    // What we write from it gives the same document again.
    assert_eq!(
        decode_job(&encode(&read, Framing::SingleObject).unwrap(), &NoRegistry).unwrap(),
        read
    );
    let mut known = read;
    known.extensions = job.extensions.clone();
    known.execution.extensions = Extensions::default();
    assert_eq!(known, job);
}

#[test]
fn an_earlier_version_gets_our_defaults() {
    let mut schema = envelope_schema();
    for name in ["schema_uri", "audit", "routing", "extensions"] {
        remove(&mut schema, name);
    }
    let execution = &mut field(&mut schema, "execution")["type"][1];
    for name in [
        "attempt",
        "max_attempts",
        "timeout_seconds",
        "priority",
        "cancellable",
        "deadline",
        "extensions",
    ] {
        remove(execution, name);
    }
    let source = OneSchema::of(&schema.to_string());
    let record = confluent(&written_with(&schema, &job(), |_| {}));
    assert_eq!(decode_job(&record, &source).unwrap(), job());
}

#[test]
fn order_promotions_and_microseconds() {
    let mut schema = envelope_schema();
    schema["fields"].as_array_mut().unwrap().reverse();
    field(&mut schema, "created_at")["type"]["logicalType"] = "timestamp-micros".into();
    let payload = &mut field(&mut schema, "payload")["type"];
    field(payload, "data")["type"] = "bytes".into();
    let execution = &mut field(&mut schema, "execution")["type"][1];
    field(execution, "timeout_seconds")["type"] = "int".into();
    let micros = WriterSchema::parse(&schema.to_string());
    let Ok(micros) = micros else {
        panic!("refused: {}", micros.unwrap_err());
    };
    assert!(!micros.is_ours());
    let theirs = Schema::parse(&schema).unwrap();
    let mut job = job();
    job.created_at = Timestamp::from_millis(1_795_530_000_123);
    job.execution.timeout_seconds = 77;
    let ours = Schema::parse_str(JobEnvelope::SCHEMA).unwrap();
    let Avro::Record(mut fields) = from_avro_datum(&ours, &datum(&job), None) else {
        panic!("no record")
    };
    fields.reverse();
    let mut value = Avro::Record(fields);
    set(
        &mut value,
        &["created_at"],
        Avro::TimestampMicros(1_795_530_000_123_999),
    );
    set(
        &mut value,
        &["payload", "data"],
        Avro::Bytes(job.payload.data.as_str().as_bytes().to_vec()),
    );
    set(&mut value, &["execution", "timeout_seconds"], Avro::Int(77));
    let record = confluent(&to_avro_datum(&theirs, value));
    assert_eq!(
        decode_job(&record, &OneSchema::of(&schema.to_string())).unwrap(),
        job
    );
}

/// Milliseconds and microseconds have the same parsing canonical form: it must not decide.
#[test]
fn microseconds_are_not_taken_for_milliseconds() {
    let mut schema = envelope_schema();
    field(&mut schema, "created_at")["type"]["logicalType"] = "timestamp-micros".into();
    let ours = Schema::parse_str(JobEnvelope::SCHEMA).unwrap();
    let theirs = Schema::parse(&schema).unwrap();
    assert_eq!(ours.canonical_form(), theirs.canonical_form());
    assert!(!WriterSchema::parse(&schema.to_string()).unwrap().is_ours());
}

#[test]
fn a_truncated_record_of_another_version_is_a_fault_at_every_length() {
    let mut schema = envelope_schema();
    add(
        &mut schema,
        14,
        json!({"name": "last", "type": optional(json!("string")), "default": null}),
    );
    let source = OneSchema::of(&schema.to_string());
    let whole = written_with(&schema, &job(), |_| {});
    assert!(decode_job(&confluent(&whole), &source).is_ok());
    for length in 0..whole.len() {
        let error = decode_job(&confluent(&whole[..length]), &source).unwrap_err();
        assert!(
            error.to_string().contains("schema id 7"),
            "{length}: {error}"
        );
        let identity = &error.invalid().unwrap().identity;
        assert_eq!(
            identity.job_id.is_some(),
            length >= 18,
            "{length}: {identity:?}"
        );
        let key = identity.idempotency_key.as_deref();
        assert!(
            key.is_none() || key == Some("inspect/debian-12"),
            "{length}: {key:?}"
        );
        assert_eq!(
            key.is_some(),
            length >= whole.len() - 6,
            "{length} of {}",
            whole.len()
        );
    }
}

#[test]
fn schemas_that_are_refused() {
    let nested = |depth: usize| {
        let mut schema = json!("string");
        for _ in 0..depth {
            schema = json!({"type": "array", "items": schema});
        }
        schema
    };
    let with = |kind: Value| {
        let mut schema = envelope_schema();
        add(&mut schema, 3, json!({"name": "extra", "type": kind}));
        schema.to_string()
    };
    let renamed = |name: &str, namespace: &str| {
        let mut schema = envelope_schema();
        schema["name"] = name.into();
        schema["namespace"] = namespace.into();
        schema.to_string()
    };
    // Each record twice the one before: 2^40 fields, and with null in them not one byte of data.
    let mut doubling =
        json!({"type": "record", "name": "D0", "fields": [{"name": "a", "type": "null"}]});
    for level in 1..40 {
        doubling = json!({"type": "record", "name": format!("D{level}"), "fields": [
            {"name": "a", "type": doubling}, {"name": "b", "type": format!("D{}", level - 1)}]});
    }
    let recursive = json!({"type": "record", "name": "Node", "fields": [
        {"name": "next", "type": ["null", "Node"], "default": null}]});
    let mut missing = envelope_schema();
    remove(&mut missing, "job_id");
    let mut wrong = envelope_schema();
    field(&mut wrong, "job_id")["type"] = "long".into();
    let mut own_recursion = envelope_schema();
    field(&mut own_recursion, "payload")["type"] = "JobEnvelope".into();
    for (text, words) in [
        ("".to_owned(), "no JSON"),
        ("{".repeat(100_000), "no JSON"),
        ("[".repeat(100_000), "no JSON"),
        (" ".repeat(SCHEMA_TEXT_MAX + 1), "bytes"),
        ("\"string\"".to_owned(), "no record"),
        ("{}".to_owned(), "no record"),
        (
            renamed("Order", "com.acme"),
            "com.acme.Order, which is none of our records",
        ),
        (
            renamed("JobEnvelope", "io.guestkit.v2"),
            "io.guestkit.v2.JobEnvelope",
        ),
        (renamed("JobEnvelope", ""), "JobEnvelope, which is none"),
        (with(recursive), "recursive"),
        (own_recursion.to_string(), "recursive"),
        (with(doubling), "expands"),
        (with(nested(70)), "deeper"),
        (with(nested(40)), ""),
        (
            with(json!({"type": "array", "items": "null"})),
            "take no bytes",
        ),
        (
            with(json!({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}})),
            "take no bytes",
        ),
        (with(json!("Missing")), "not defined"),
        (
            missing.to_string(),
            "can't be read as io.guestkit.v1.JobEnvelope",
        ),
        (
            wrong.to_string(),
            "can't be read as io.guestkit.v1.JobEnvelope",
        ),
    ] {
        match WriterSchema::parse(&text) {
            Ok(_) => assert_eq!(words, "", "{}", &text[..text.len().min(300)]),
            Err(reason) => assert!(
                !words.is_empty() && reason.contains(words),
                "{words}: {reason}"
            ),
        }
    }
}
