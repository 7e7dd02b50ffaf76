//! JSON form and Avro form are the same document: nothing is lost on the way there and back.

use crate::{confluent, datum, for_each_document, random};
use guestkit_protocol::{Document, Framing, JobEnvelope, NoRegistry, decode, decode_job, encode};
use serde_json::Value;
use std::fmt::Debug;

fn means_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        // The one default that a random document meets in a record that is left out with it.
        Value::Bool(value) => !value,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(means_nothing),
        _ => false,
    }
}

/// Every member of `given` is in `written`, except what means nothing: null, and what is empty.
fn contains(written: Option<&Value>, given: &Value, path: &str) {
    match (written, given) {
        (None, given) if means_nothing(given) => {}
        (Some(Value::Object(written)), Value::Object(given)) => {
            for (name, value) in given {
                contains(written.get(name), value, &format!("{path}.{name}"));
            }
        }
        (Some(Value::Array(written)), Value::Array(given)) => {
            assert_eq!(written.len(), given.len(), "{path}");
            for (index, (written, given)) in written.iter().zip(given).enumerate() {
                contains(Some(written), given, &format!("{path}[{index}]"));
            }
        }
        (Some(written), given) => assert_eq!(written, given, "{path}"),
        (None, given) => panic!("{path} is lost; it was {given}"),
    }
}

/// serde_json refuses numbers beyond the double, which are lawful in free-form data: quoted, they compare.
fn comparable(text: &str) -> Value {
    serde_json::from_str(&text.replace("1e400", "\"1e400\"")).unwrap()
}

fn there_and_back<D: Document + PartialEq + Debug>(_: &str, seeds: u64) {
    let schema = crate::OneSchema::of(D::SCHEMA);
    for seed in 0..seeds {
        let given = random::document::<D>(seed);
        let context = format!("{} with seed {seed}: {given}", D::NAME);
        let document: D =
            decode(given.as_bytes(), &NoRegistry).unwrap_or_else(|e| panic!("{context}: {e}"));

        for record in [
            encode(&document, Framing::SingleObject).unwrap(),
            confluent(&datum(&document)),
        ] {
            let read: D = decode(&record, &schema).unwrap_or_else(|e| panic!("{context}: {e}"));
            assert_eq!(read, document, "{context}");
            let json = encode(&read, Framing::Json).unwrap();
            let text = std::str::from_utf8(&json).unwrap();
            assert!(!text.contains('\n'), "{context}: one line");
            contains(Some(&comparable(text)), &comparable(&given), D::NAME);
            assert_eq!(
                decode::<D>(&json, &NoRegistry).unwrap(),
                document,
                "{context}"
            );
        }
    }
}

#[test]
fn random_documents() {
    for_each_document!(there_and_back, 300);
}

#[test]
fn numbers_and_order_of_the_payload_keep_their_text() {
    let data = r#"{"z": 1.50, "a": [1E+2, 12345678901234567890123, -0], "b": "\u0061"}"#;
    let text = format!(
        r#"{{"version":"1.0","job_id":"job-00000001","created_at":"2026-11-24T14:20:00Z","kind":"VMOperation",
            "operation":"a.b","payload":{{"type":"a.b.v1","data":{data}}},"x":{data},
            "execution":{{"x":{data}}}}}"#
    );
    let job = decode_job(text.as_bytes(), &NoRegistry).unwrap();
    let job = decode_job(&encode(&job, Framing::SingleObject).unwrap(), &NoRegistry).unwrap();
    assert_eq!(job.payload.data.as_str(), data);
    let written = String::from_utf8(encode(&job, Framing::Json).unwrap()).unwrap();
    assert_eq!(written.matches(data).count(), 3, "{written}");
}

#[test]
fn unknown_fields_come_back_at_their_own_place() {
    let mut text = String::from_utf8(encode(&crate::job(), Framing::Json).unwrap()).unwrap();
    text = text.replacen('{', r#"{"future":{"a":1},"#, 1);
    text = text.replacen(r#""execution":{"#, r#""execution":{"backoff":"2x","#, 1);
    text = text.replacen(r#""payload":{"#, r#""payload":{"encoding":null,"#, 1);
    let job: JobEnvelope = decode(text.as_bytes(), &NoRegistry).unwrap();
    assert_eq!(
        job.extensions.get("future").map(|value| value.as_str()),
        Some(r#"{"a":1}"#)
    );
    assert_eq!(
        job.execution
            .extensions
            .get("backoff")
            .map(|value| value.as_str()),
        Some(r#""2x""#)
    );

    let back: JobEnvelope = decode(
        &confluent(&datum(&job)),
        &crate::OneSchema::of(JobEnvelope::SCHEMA),
    )
    .unwrap();
    let written: Value = serde_json::to_value(&back).unwrap();
    assert_eq!(written["future"]["a"], 1);
    assert_eq!(written["execution"]["backoff"], "2x");
    assert_eq!(written["payload"].get("encoding"), Some(&Value::Null));
}

#[test]
fn a_pretty_printed_payload_is_written_on_one_line() {
    let data = "{\n  \"a\": \"line\\nbreak\",\r\n  \"b\": 1.0\n}";
    let mut job = crate::job();
    job.payload.data = guestkit_protocol::JsonText::new(data).unwrap();
    let json = String::from_utf8(encode(&job, Framing::Json).unwrap()).unwrap();
    assert!(!json.contains(['\n', '\r']), "{json}");
    assert!(
        json.contains(r#"{  "a": "line\nbreak",  "b": 1.0}"#),
        "{json}"
    );
    let avro = encode(&job, Framing::SingleObject).unwrap();
    assert_eq!(
        decode_job(&avro, &NoRegistry)
            .unwrap()
            .payload
            .data
            .as_str(),
        data
    );
}
