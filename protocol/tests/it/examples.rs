//! The examples, and the JSON Schemas.

use crate::{for_each_document, random};
use guestkit_protocol::*;
use jsonschema::Validator;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn schemas() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas")
}

fn validator(file: &str) -> Validator {
    let text = std::fs::read_to_string(schemas().join(format!("json/{file}.schema.json"))).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    assert!(jsonschema::meta::is_valid(&schema), "{file}");
    jsonschema::validator_for(&schema).unwrap()
}

fn complaints(validator: &Validator, document: &Value) -> Vec<String> {
    validator
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path))
        .collect()
}

#[test]
fn every_example_is_a_valid_job() {
    let validator = validator("job_envelope");
    let mut names = Vec::new();
    for file in std::fs::read_dir(schemas().join("examples")).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read(&path).unwrap();
        let job = decode_job(&text, &NoRegistry)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(job.validate(), Ok(Vec::new()), "{}", path.display());
        let given: Value = serde_json::from_slice(&text).unwrap();
        let written = serde_json::to_value(&job).unwrap();
        for document in [&given, &written] {
            assert_eq!(
                complaints(&validator, document),
                [""; 0],
                "{}",
                path.display()
            );
        }
        assert_eq!(given["payload"], written["payload"]);
        let avro = encode(&job, Framing::SingleObject).unwrap();
        assert_eq!(decode_job(&avro, &NoRegistry).unwrap(), job);
        names.push(path.file_stem().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    let expected = [
        "compare",
        "convert",
        "echo",
        "fix-offline",
        "inspect-full",
        "inspect-minimal",
        "profile-security",
    ];
    assert_eq!(names, expected);
}

fn agrees<D: Document>(file: &str) {
    let validator = validator(file);
    for seed in 2000..2100 {
        let given = random::document::<D>(seed).replace("1e400", "1e300");
        let read: D = decode(given.as_bytes(), &NoRegistry).unwrap();
        for document in [
            serde_json::from_str(&given).unwrap(),
            serde_json::to_value(&read).unwrap(),
        ] {
            assert_eq!(
                complaints(&validator, &document),
                [""; 0],
                "{file} seed {seed}: {document}"
            );
        }
    }
    assert!(!validator.is_valid(&json!({})), "{file}");
    assert!(!validator.is_valid(&json!([])), "{file}");
}

#[test]
fn random_documents_keep_to_the_json_schemas() {
    for_each_document!(agrees);
}

#[test]
fn the_json_schema_refuses_what_validation_refuses() {
    let validator = validator("job_envelope");
    let good = serde_json::to_value(crate::job()).unwrap();
    assert!(validator.is_valid(&good));
    for (path, value) in [
        ("/version", json!("2.0")),
        ("/job_id", json!("short")),
        ("/kind", json!("Other")),
        ("/operation", json!("inspect")),
        ("/payload/type", json!("guestkit.inspect")),
        ("/execution/priority", json!(0)),
        ("/execution/priority", json!(11)),
        ("/execution/attempt", json!(0)),
        ("/execution/idempotency_key", json!("")),
        ("/execution/timeout_seconds", json!("1h")),
        ("/created_at", json!(7)),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(path).unwrap() = value;
        assert!(!validator.is_valid(&bad), "{path}");
        assert!(
            decode_job(bad.to_string().as_bytes(), &NoRegistry).is_err(),
            "{path}"
        );
    }
}

/// What kcat publishes was encoded by fastavro; it must stay the example's document.
#[test]
fn the_encoded_example_is_the_json_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let json = std::fs::read(root.join("schemas/examples/inspect-minimal.json")).unwrap();
    let record = std::fs::read(root.join("examples/kcat/inspect-minimal.single-object")).unwrap();
    let job = decode_job(&json, &NoRegistry).unwrap();
    let mut encoded = decode_job(&record, &NoRegistry).unwrap();
    assert_eq!(encode(&encoded, Framing::SingleObject).unwrap(), record);
    assert_eq!(encoded.payload_hash(), job.payload_hash());
    // The data keeps its white space, which is not the same in both files.
    encoded.payload.data = job.payload.data.clone();
    assert_eq!(encoded, job);
}
