//! The schema files: the rules of the protocol, agreement with the code, compatibility with what is released.

use crate::for_each_document;
use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use apache_avro::schema_compatibility::SchemaCompatibility;
use guestkit_protocol::shape_text::{avro_schema, json_schema, rules};
use guestkit_protocol::{Document, Framing, NAMESPACE, WriterSchema, encode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn schemas() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas")
}

fn agrees<D: Document>(file: &str) {
    let hint =
        "run `cargo run -p guestkit-protocol --example write_schemas` and look at the difference";
    assert_eq!(D::SCHEMA, avro_schema::<D>(), "{file}.avsc: {hint}");
    let json = std::fs::read_to_string(schemas().join(format!("json/{file}.schema.json"))).unwrap();
    assert_eq!(json, json_schema::<D>(&rules), "{file}.schema.json: {hint}");
    let avro = std::fs::read_to_string(schemas().join(format!("avro/{file}.avsc"))).unwrap();
    assert_eq!(avro, D::SCHEMA);
}

#[test]
fn the_files_say_what_the_code_does() {
    for_each_document!(agrees);
}

/// The rules of protocol.md, "On the wire", over one schema.
struct Rules {
    named: BTreeSet<String>,
    open: Vec<String>,
}

impl Rules {
    fn record(&mut self, record: &Value, path: &str) {
        let name = record["name"].as_str().unwrap();
        assert!(
            name.starts_with(|c: char| c.is_ascii_uppercase()) && !name.contains('.'),
            "{path}: {name}"
        );
        assert!(
            !record["doc"].as_str().unwrap_or("").is_empty(),
            "{path}: no doc"
        );
        assert!(
            self.named.insert(name.to_owned()),
            "{path}: {name} is defined twice"
        );
        self.open.push(name.to_owned());
        for field in record["fields"].as_array().unwrap() {
            let field_name = field["name"].as_str().unwrap();
            let path = format!("{path}.{field_name}");
            assert!(
                field_name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{path}: not snake_case"
            );
            assert!(
                field["doc"].as_str().is_some_and(|doc| doc.len() > 3),
                "{path}: no doc"
            );
            self.field(&field["type"], field.get("default"), &path);
        }
        self.open.pop();
    }

    fn field(&mut self, kind: &Value, default: Option<&Value>, path: &str) {
        match kind {
            Value::Array(branches) => {
                assert_eq!(branches.len(), 2, "{path}: a union of several branches");
                assert_eq!(branches[0], "null", "{path}: null is not first");
                assert_eq!(default, Some(&Value::Null), "{path}: default is not null");
                let inner = branches[1]["type"].as_str().unwrap_or("");
                assert!(
                    !["array", "map"].contains(&inner),
                    "{path}: nullable {inner}"
                );
                self.plain(&branches[1], path);
            }
            other => {
                match other["type"].as_str() {
                    Some("array") => assert_eq!(default, Some(&json!([])), "{path}"),
                    Some("map") => assert_eq!(default, Some(&json!({})), "{path}"),
                    _ => {}
                }
                self.plain(other, path);
            }
        }
    }

    fn plain(&mut self, kind: &Value, path: &str) {
        match kind {
            Value::String(name) => {
                let primitive = ["string", "bytes", "boolean", "int", "long", "double"]
                    .contains(&name.as_str());
                if !primitive {
                    let short = name.strip_prefix(&format!("{NAMESPACE}.")).unwrap_or(name);
                    assert!(self.named.contains(short), "{path}: {name} is not defined");
                    assert!(
                        !self.open.iter().any(|open| open == short),
                        "{path}: {name} is recursive"
                    );
                }
            }
            Value::Object(object) => match object["type"].as_str().unwrap() {
                "record" => self.record(kind, path),
                "array" => {
                    let items = &object["items"];
                    let record = items["type"] == "record" || items.as_str().is_some();
                    assert!(record, "{path}: items are neither texts nor named records");
                    self.plain(items, path);
                }
                "map" => assert_eq!(
                    object["values"], "string",
                    "{path}: a map of other than strings"
                ),
                "long" => assert_eq!(object["logicalType"], "timestamp-millis", "{path}"),
                other => panic!("{path}: {other} is not allowed (enum, fixed, …)"),
            },
            other => panic!("{path}: {other}"),
        }
    }
}

#[test]
fn every_schema_keeps_the_rules_that_all_readers_need() {
    let mut files = 0;
    for file in std::fs::read_dir(schemas().join("avro")).unwrap() {
        let path = file.unwrap().path();
        let schema: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(schema["type"], "record");
        assert_eq!(schema["namespace"], NAMESPACE);
        Rules {
            named: BTreeSet::new(),
            open: Vec::new(),
        }
        .record(&schema, &path.display().to_string());
        files += 1;
    }
    assert_eq!(files, 7);
}

#[test]
fn the_envelope_and_each_of_its_records_have_extensions() {
    let text = std::fs::read_to_string(schemas().join("avro/job_envelope.avsc")).unwrap();
    let records = text.matches("\"type\": \"record\"").count();
    assert_eq!(records, 9);
    assert_eq!(text.matches("\"name\": \"extensions\"").count(), records);
    assert!(text.contains("\"name\": \"schema_uri\"") && !text.contains("\"name\": \"$schema\""));
}

fn is_transitive<D: Document>(file: &str) {
    let ours = Schema::parse_str(D::SCHEMA).unwrap();
    for (version, text) in D::RELEASED {
        let path = schemas().join(format!("released/v{version}/{file}.avsc"));
        assert_eq!(std::fs::read_to_string(path).unwrap(), *text);
        let released = Schema::parse_str(text).unwrap();
        for (writer, reader, way) in [
            (&released, &ours, "backward"),
            (&ours, &released, "forward"),
        ] {
            SchemaCompatibility::can_read(writer, reader).unwrap_or_else(|error| {
                panic!("{file} is not {way} compatible with v{version}: {error}")
            });
        }
    }
    // Every released folder is in the list.
    let folders = std::fs::read_dir(schemas().join("released"))
        .unwrap()
        .count();
    assert_eq!(folders, D::RELEASED.len());
}

#[test]
fn compatibility_is_full_transitive() {
    for_each_document!(is_transitive);
}

/// The check above must be able to fail.
#[test]
fn an_incompatible_change_would_be_seen() {
    let ours = Schema::parse_str(guestkit_protocol::JobControl::SCHEMA).unwrap();
    let text = guestkit_protocol::JobControl::SCHEMA.replacen(
        "\"fields\": [",
        "\"fields\": [ { \"name\": \"added\", \"type\": \"string\" },",
        1,
    );
    let changed = Schema::parse_str(&text).unwrap();
    assert!(SchemaCompatibility::can_read(&ours, &changed).is_err());
    assert!(SchemaCompatibility::can_read(&changed, &ours).is_ok());
}

fn is_ours<D: Document>(_: &str) {
    let schema = WriterSchema::parse(D::SCHEMA).unwrap();
    assert!(schema.is_ours());
    assert_eq!(schema.document(), D::NAME);
    // doc, order of keys, space and Java's string property make no other schema.
    let mut json: Value = serde_json::from_str(D::SCHEMA).unwrap();
    json["doc"] = "other".into();
    json["fields"][0]["aliases"] = json!(["former"]);
    let text = json.to_string().replace(
        r#""string""#,
        r#"{"type":"string","avro.java.string":"String"}"#,
    );
    assert!(WriterSchema::parse(&text).unwrap().is_ours(), "{text}");
}

#[test]
fn our_own_schemas_are_recognised_in_any_spelling() {
    for_each_document!(is_ours);
}

/// The constants are fastavro 1.13's for the released files: another implementation.
#[test]
fn the_single_object_fingerprint_is_crc_64_avro_of_the_canonical_form() {
    use guestkit_protocol::{JobControl, NoRegistry, Timestamp, decode, decode_job};
    let job = encode(&crate::job(), Framing::SingleObject).unwrap();
    let control = JobControl::cancel("inspect-0001", Timestamp::default());
    let control_record = encode(&control, Framing::SingleObject).unwrap();
    assert_eq!(hex::encode(&job[2..10]), "eb5d3bb96438736e");
    assert_eq!(hex::encode(&control_record[2..10]), "17ba3d0ecf759d74");

    // apache-avro 0.22 and Python's avro have another canonical form for logical types: read as well.
    let schema = Schema::parse_str(JobControl::SCHEMA).unwrap();
    let theirs = schema.fingerprint::<Rabin>().bytes;
    assert_eq!(hex::encode(&theirs), "32f5ee7a3d596e50");
    let record = [&[0xC3, 0x01], &theirs[..], &control_record[10..]].concat();
    assert_eq!(decode::<JobControl>(&record, &NoRegistry).unwrap(), control);
    assert_eq!(decode_job(&job, &NoRegistry).unwrap(), crate::job());
}
