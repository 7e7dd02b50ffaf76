//! Drafts schema files from the description of the documents.
//!
//! The committed files are the contract; a test compares them with these drafts.

use crate::document::{Document, NAMESPACE};
use crate::shape::{FieldShape, RecordShape, Shape};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write;

/// The Avro schema of a document.
pub fn avro_schema<D: Document>() -> String {
    let mut text = String::new();
    let mut named = BTreeSet::new();
    avro_record(&D::document_shape(), &mut named, 0, &mut text);
    text.push('\n');
    text
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn line(out: &mut String, level: usize, text: &str) {
    out.push('\n');
    out.push_str(&"  ".repeat(level));
    out.push_str(text);
}

fn avro_record(
    record: &RecordShape,
    named: &mut BTreeSet<&'static str>,
    level: usize,
    out: &mut String,
) {
    let outermost = named.is_empty();
    if !named.insert(record.name) {
        out.push_str(&quoted(&format!("{NAMESPACE}.{}", record.name)));
        return;
    }
    out.push('{');
    line(out, level + 1, "\"type\": \"record\",");
    line(
        out,
        level + 1,
        &format!("\"name\": {},", quoted(record.name)),
    );
    if outermost {
        line(
            out,
            level + 1,
            &format!("\"namespace\": {},", quoted(NAMESPACE)),
        );
    }
    line(
        out,
        level + 1,
        &format!("\"doc\": {},", quoted(&record.doc)),
    );
    line(out, level + 1, "\"fields\": [");
    for (index, field) in record.fields.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        line(out, level + 2, "{");
        line(
            out,
            level + 3,
            &format!("\"name\": {},", quoted(field.name)),
        );
        line(out, level + 3, &format!("\"doc\": {},", quoted(&field.doc)));
        line(out, level + 3, "\"type\": ");
        avro_type(&field.shape, named, level + 3, out);
        if let Some(default) = avro_default(field) {
            out.push(',');
            line(out, level + 3, &format!("\"default\": {default}"));
        }
        line(out, level + 2, "}");
    }
    line(out, level + 1, "]");
    line(out, level, "}");
}

fn avro_default(field: &FieldShape) -> Option<String> {
    match &field.shape {
        Shape::Optional(_) => Some("null".to_owned()),
        Shape::Array(_) => Some("[]".to_owned()),
        Shape::Map | Shape::Extensions => Some("{}".to_owned()),
        _ => field.default.clone(),
    }
}

fn avro_type(shape: &Shape, named: &mut BTreeSet<&'static str>, level: usize, out: &mut String) {
    match shape {
        Shape::Text | Shape::JsonText | Shape::Words(_) => out.push_str("\"string\""),
        Shape::Bytes => out.push_str("\"bytes\""),
        Shape::Boolean => out.push_str("\"boolean\""),
        Shape::Int { .. } => out.push_str("\"int\""),
        Shape::Long { .. } => out.push_str("\"long\""),
        Shape::Double => out.push_str("\"double\""),
        Shape::Timestamp => {
            out.push_str("{ \"type\": \"long\", \"logicalType\": \"timestamp-millis\" }");
        }
        Shape::Map | Shape::Extensions => {
            out.push_str("{ \"type\": \"map\", \"values\": \"string\" }");
        }
        Shape::Optional(inner) => {
            out.push_str("[\"null\", ");
            avro_type(inner, named, level, out);
            out.push(']');
        }
        Shape::Array(inner) => {
            out.push_str("{ \"type\": \"array\", \"items\": ");
            avro_type(inner, named, level, out);
            out.push_str(" }");
        }
        Shape::Record(record) => avro_record(record, named, level, out),
    }
}

/// The JSON Schema (2020-12) of a document. `rules` gives what types do not say: for a record's name and a
/// field's JSON name further members, such as `"pattern": "…"`.
pub fn json_schema<D: Document>(rules: &dyn Fn(&str, &str) -> Option<&'static str>) -> String {
    let root = D::document_shape();
    let mut definitions = Vec::new();
    collect(&root, &mut definitions);
    let mut out = String::from("{");
    line(
        &mut out,
        1,
        "\"$schema\": \"https://json-schema.org/draft/2020-12/schema\",",
    );
    line(
        &mut out,
        1,
        &format!("\"$id\": \"urn:{NAMESPACE}:{}\",", root.name),
    );
    line(&mut out, 1, &format!("\"title\": {},", quoted(root.name)));
    json_record(&root, rules, 1, &mut out);
    if !definitions.is_empty() {
        out.push(',');
        line(&mut out, 1, "\"$defs\": {");
        for (index, record) in definitions.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            line(&mut out, 2, &format!("{}: {{", quoted(record.name)));
            json_record(record, rules, 3, &mut out);
            line(&mut out, 2, "}");
        }
        line(&mut out, 1, "}");
    }
    out.push_str("\n}\n");
    out
}

/// All records below one, each once.
fn collect<'a>(record: &'a RecordShape, into: &mut Vec<&'a RecordShape>) {
    for field in &record.fields {
        let mut shape = &field.shape;
        while let Shape::Optional(inner) | Shape::Array(inner) = shape {
            shape = inner;
        }
        if let Shape::Record(inner) = shape
            && !into.iter().any(|known| known.name == inner.name)
        {
            into.push(inner);
            collect(inner, into);
        }
    }
}

fn json_record(
    record: &RecordShape,
    rules: &dyn Fn(&str, &str) -> Option<&'static str>,
    level: usize,
    out: &mut String,
) {
    line(
        out,
        level,
        &format!("\"description\": {},", quoted(&record.doc)),
    );
    line(out, level, "\"type\": \"object\",");
    let fields: Vec<_> = record
        .fields
        .iter()
        .filter(|field| field.shape != Shape::Extensions)
        .collect();
    let required: Vec<_> = fields
        .iter()
        .filter(|field| avro_default(field).is_none() && field.name != "answered")
        .map(|field| quoted(field.json_name))
        .collect();
    if !required.is_empty() {
        line(
            out,
            level,
            &format!("\"required\": [{}],", required.join(", ")),
        );
    }
    line(out, level, "\"properties\": {");
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        line(out, level + 1, &format!("{}: {{ ", quoted(field.json_name)));
        write!(out, "\"description\": {}", quoted(&field.doc)).ok();
        let default = field.default.as_deref();
        let may_be_null = avro_default(field).is_some();
        let kind = json_type(&field.shape, may_be_null);
        let rule = rules(record.name, field.json_name);
        // A rule's bounds replace those of the type: strict readers refuse a name that stands twice.
        let bounded = rule.is_some_and(|rule| rule.starts_with("\"minimum\""));
        let kind = match kind.split_once(", \"minimum\"") {
            Some((kind, _)) if bounded => kind,
            _ => &kind,
        };
        if !kind.is_empty() {
            write!(out, ", {kind}").ok();
        }
        if let Some(rule) = rule {
            write!(out, ", {rule}").ok();
        }
        if let Some(default) = default {
            write!(out, ", \"default\": {default}").ok();
        }
        out.push_str(" }");
    }
    line(out, level, "}");
}

/// Members that describe a type; null is accepted where absence is.
fn json_type(shape: &Shape, null: bool) -> String {
    let kind = |name: &str| {
        if null {
            format!("\"type\": [{}, \"null\"]", quoted(name))
        } else {
            format!("\"type\": {}", quoted(name))
        }
    };
    match shape {
        Shape::Optional(inner) => json_type(inner, true),
        Shape::Text => kind("string"),
        Shape::JsonText | Shape::Extensions => String::new(),
        Shape::Words(words) => {
            let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
            format!("{}, \"enum\": [{}]", kind("string"), words.join(", "))
        }
        Shape::Bytes => format!("{}, \"pattern\": \"^([0-9a-fA-F]{{2}})*$\"", kind("string")),
        Shape::Boolean => kind("boolean"),
        Shape::Int { minimum } => {
            format!(
                "{}, \"minimum\": {minimum}, \"maximum\": {}",
                kind("integer"),
                i32::MAX
            )
        }
        Shape::Long { minimum } => {
            format!(
                "{}, \"minimum\": {minimum}, \"maximum\": {}",
                kind("integer"),
                crate::wire::LONG_MAX
            )
        }
        Shape::Double => kind("number"),
        Shape::Timestamp => format!("{}, \"format\": \"date-time\"", kind("string")),
        Shape::Map => format!(
            "{}, \"additionalProperties\": {{ \"type\": \"string\" }}",
            kind("object")
        ),
        Shape::Array(inner) => {
            format!(
                "{}, \"items\": {{ {} }}",
                kind("array"),
                json_type(inner, false)
            )
        }
        Shape::Record(record) => {
            let reference = format!("\"$ref\": \"#/$defs/{}\"", record.name);
            if null {
                format!("\"anyOf\": [{{ \"type\": \"null\" }}, {{ {reference} }}]")
            } else {
                reference
            }
        }
    }
}

/// The rules of the envelope that JSON Schema can express.
pub fn rules(record: &str, field: &str) -> Option<&'static str> {
    Some(match (record, field) {
        ("JobEnvelope", "version") => r#""pattern": "^1\\.[0-9]{1,9}(\\.[0-9]{1,9})*$""#,
        (_, "job_id") => r#""pattern": "^[A-Za-z0-9._:-]{8,128}$""#,
        ("JobEnvelope", "kind") => r#""const": "VMOperation""#,
        ("JobEnvelope", "operation") => {
            r#""maxLength": 256, "pattern": "^[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)+$""#
        }
        ("Payload", "type") => r#""pattern": "^[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)+\\.v[0-9]{1,9}$""#,
        ("Execution", "idempotency_key") => r#""minLength": 1, "maxLength": 512"#,
        ("Execution", "attempt" | "max_attempts") => r#""exclusiveMinimum": 0"#,
        ("Execution", "timeout_seconds") => r#""exclusiveMinimum": 0"#,
        ("Execution", "priority") => r#""minimum": 1, "maximum": 10"#,
        ("Routing", "worker_pool") => r#""minLength": 1"#,
        ("JobProgress", "progress_percent") => r#""minimum": 0, "maximum": 100"#,
        _ => return None,
    })
}
