//! Why one Avro schema can't read what another wrote, with the names of the fields.
//!
//! Follows the specification's "Schema Resolution". Registries and apache-avro say that much too, but not
//! where: they count fields, or stop at the union around a record.

use crate::schema_audit::audit;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Breaches that are named; one is enough to refuse a schema.
const BREACHES_MAX: usize = 20;

/// What keeps a reader with one schema from reading records that were written with the other; empty when
/// nothing does. Each breach begins with the path of its field.
///
/// # Errors
/// A text that is no record schema, is recursive or is too large to be walked.
pub fn breaches(writer: &str, reader: &str) -> Result<Vec<String>, String> {
    let (writer, reader) = (parse(writer)?, parse(reader)?);
    let mut walk = Walk {
        writer: Names::of(&writer),
        reader: Names::of(&reader),
        found: Vec::new(),
    };
    walk.types(&writer, &reader, "");
    walk.found.truncate(BREACHES_MAX);
    Ok(walk.found)
}

fn parse(text: &str) -> Result<Value, String> {
    let schema = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    // No recursion and a bounded size, so that the walk below ends.
    audit(&schema)?;
    Ok(schema)
}

/// The types of a schema by their last name: all our records have one namespace.
struct Names<'s>(HashMap<&'s str, &'s Value>);

impl<'s> Names<'s> {
    fn of(schema: &'s Value) -> Self {
        let mut names = Self(HashMap::new());
        names.add(schema);
        names
    }

    fn add(&mut self, schema: &'s Value) {
        match schema {
            Value::Array(branches) => branches.iter().for_each(|branch| self.add(branch)),
            Value::Object(object) => {
                if let Some(name) = object.get("name").and_then(Value::as_str) {
                    self.0.insert(last(name), schema);
                }
                for field in fields(object) {
                    self.add(&field["type"]);
                }
                for inner in ["type", "items", "values"] {
                    if let Some(inner @ (Value::Object(_) | Value::Array(_))) = object.get(inner) {
                        self.add(inner);
                    }
                }
            }
            _ => {}
        }
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let named = schema
            .as_str()
            .and_then(|name| self.0.get(last(name)).copied());
        named.unwrap_or(schema)
    }
}

struct Walk<'s> {
    writer: Names<'s>,
    reader: Names<'s>,
    found: Vec<String>,
}

impl Walk<'_> {
    fn types(&mut self, writer: &Value, reader: &Value, path: &str) {
        if self.found.len() >= BREACHES_MAX {
            return;
        }
        if let Value::Array(branches) = writer {
            for branch in branches {
                self.types(branch, reader, path);
            }
            return;
        }
        let (theirs, ours) = (
            self.writer.resolve(writer).clone(),
            self.reader.resolve(reader).clone(),
        );
        if let Value::Array(branches) = &ours {
            let branches: Vec<_> = branches
                .iter()
                .map(|branch| self.reader.resolve(branch).clone())
                .collect();
            match branches.iter().find(|branch| matches(&theirs, branch)) {
                Some(branch) => self.types(&theirs, branch, path),
                None => self.note(path, &format!("no branch reads {}", described(&theirs))),
            }
            return;
        }
        if !matches(&theirs, &ours) {
            let reason = format!(
                "{} can't be read as {}",
                described(&theirs),
                described(&ours)
            );
            self.note(path, &reason);
            return;
        }
        if let (Value::Object(theirs), Value::Object(ours)) = (&theirs, &ours) {
            self.within(theirs, ours, path);
        }
    }

    /// Two types of one kind, for example two records.
    fn within(&mut self, theirs: &Map<String, Value>, ours: &Map<String, Value>, path: &str) {
        for field in fields(ours) {
            let name = field["name"].as_str().unwrap_or_default();
            let path = if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            };
            let aliases = field["aliases"].as_array().into_iter().flatten();
            let mut known = aliases.filter_map(Value::as_str).chain([name]);
            let written = known.find_map(|name| fields(theirs).find(|field| field["name"] == name));
            match written {
                Some(written) => self.types(&written["type"], &field["type"], &path),
                None if field.get("default").is_none() => {
                    self.note(&path, "records without it exist, and it has no default");
                }
                None => {}
            }
        }
        for inner in ["items", "values"] {
            if let (Some(theirs), Some(ours)) = (theirs.get(inner), ours.get(inner)) {
                self.types(theirs, ours, &format!("{path}[]"));
            }
        }
        if let (Some(theirs), Some(ours)) = (theirs.get("symbols"), ours.get("symbols")) {
            let ours = ours.as_array().map(Vec::as_slice).unwrap_or_default();
            let lost = theirs.as_array().into_iter().flatten();
            for symbol in lost.filter(|symbol| !ours.contains(symbol)) {
                self.note(path, &format!("the symbol {symbol} is gone"));
            }
        }
        if theirs.get("size") != ours.get("size") {
            self.note(path, "its fixed size is another");
        }
    }

    fn note(&mut self, path: &str, reason: &str) {
        let path = if path.is_empty() { "the record" } else { path };
        self.found.push(format!("{path}: {reason}"));
    }
}

/// Whether the outermost types fit, as far as that can be seen without their parts.
fn matches(writer: &Value, reader: &Value) -> bool {
    let (theirs, ours) = (kind(writer), kind(reader));
    let promoted = match theirs {
        "int" => ["long", "float", "double"].contains(&ours),
        "long" => ["float", "double"].contains(&ours),
        "float" => ours == "double",
        "string" => ours == "bytes",
        "bytes" => ours == "string",
        _ => false,
    };
    let name = |schema: &Value| schema["name"].as_str().map(last).map(str::to_owned);
    promoted || theirs == ours && name(writer) == name(reader)
}

fn kind(schema: &Value) -> &str {
    match schema {
        Value::String(name) => name,
        // A type may be wrapped for its logical type or for a property of some library.
        Value::Object(object) => object.get("type").map_or("", kind),
        _ => "",
    }
}

fn described(schema: &Value) -> String {
    match schema["name"].as_str() {
        Some(name) => format!("{} {name}", kind(schema)),
        None => kind(schema).to_owned(),
    }
}

fn fields(record: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    record
        .get("fields")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Document, JobEnvelope};
    use serde_json::json;

    fn envelope(change: impl FnOnce(&mut Vec<Value>)) -> String {
        let mut schema: Value = serde_json::from_str(JobEnvelope::SCHEMA).unwrap();
        change(schema["fields"].as_array_mut().unwrap());
        schema.to_string()
    }

    fn field<'a>(fields: &'a mut [Value], name: &str) -> &'a mut Value {
        fields
            .iter_mut()
            .find(|field| field["name"] == name)
            .unwrap()
    }

    fn execution(fields: &mut [Value]) -> &mut Vec<Value> {
        field(fields, "execution")["type"][1]["fields"]
            .as_array_mut()
            .unwrap()
    }

    #[test]
    fn what_follows_the_rules_has_no_breach() {
        let ours = JobEnvelope::SCHEMA;
        assert_eq!(breaches(ours, ours), Ok(Vec::new()));
        let added = json!({"name": "tenant", "type": ["null", "string"], "default": null});
        let later = envelope(|fields| {
            execution(fields).push(added.clone());
            fields.reverse();
        });
        assert_eq!(breaches(&later, ours), Ok(Vec::new()));
        assert_eq!(breaches(ours, &later), Ok(Vec::new()));
    }

    #[test]
    fn every_breach_names_its_field() {
        let ours = JobEnvelope::SCHEMA;
        let required = json!({"name": "retries", "type": "int"});
        let nested = envelope(|fields| execution(fields).push(required));
        assert_eq!(breaches(&nested, ours), Ok(Vec::new()));
        assert_eq!(
            breaches(ours, &nested).unwrap(),
            ["execution.retries: records without it exist, and it has no default"]
        );
        let retyped = envelope(|fields| field(fields, "operation")["type"] = "long".into());
        assert_eq!(
            breaches(&retyped, ours).unwrap(),
            ["operation: long can't be read as string"]
        );
        let narrowed = envelope(|fields| {
            field(execution(fields), "deadline")["type"] = json!(["null", "string"]);
        });
        assert_eq!(
            breaches(&narrowed, ours).unwrap(),
            ["execution.deadline: no branch reads string"]
        );
        let renamed = JobEnvelope::SCHEMA.replace("\"JobEnvelope\"", "\"Order\"");
        assert_eq!(
            breaches(&renamed, ours).unwrap(),
            ["the record: record Order can't be read as record JobEnvelope"]
        );
        let map = envelope(|fields| {
            field(fields, "extensions")["type"]["values"] = "long".into();
        });
        assert_eq!(
            breaches(&map, ours).unwrap(),
            ["extensions[]: long can't be read as string"]
        );
    }

    #[test]
    fn what_cannot_be_walked_is_refused() {
        let recursive = json!({"type": "record", "name": "Node", "fields": [
            {"name": "next", "type": ["null", "Node"], "default": null}]});
        for text in ["", "{}", "\"string\"", &recursive.to_string()] {
            assert!(breaches(text, JobEnvelope::SCHEMA).is_err(), "{text}");
        }
    }
}
