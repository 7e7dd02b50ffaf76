//! The OpenAPI document: written by hand in `openapi.json`, with the schemas of the contract put in.

use serde_json::{Map, Value, json};

const DOCUMENT: &str = include_str!("openapi.json");
/// Schemas of the contract that the document refers to.
const SCHEMAS: &[(&str, &str)] = &[
    (
        "JobEnvelope",
        include_str!("../../../schemas/json/job_envelope.schema.json"),
    ),
    (
        "JobResult",
        include_str!("../../../schemas/json/job_result.schema.json"),
    ),
    (
        "JobProgress",
        include_str!("../../../schemas/json/job_progress.schema.json"),
    ),
];

/// The document as text; with tokens it says that they are needed.
pub(crate) fn text(with_tokens: bool) -> serde_json::Result<String> {
    let mut document: Value = serde_json::from_str(DOCUMENT)?;
    document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    if with_tokens {
        document["components"]["securitySchemes"] =
            json!({"bearer": {"type": "http", "scheme": "bearer"}});
        let paths = document["paths"].as_object_mut();
        for (_, item) in paths
            .into_iter()
            .flatten()
            .filter(|(path, _)| path.starts_with("/v1/"))
        {
            for operation in item.as_object_mut().into_iter().flat_map(Map::values_mut) {
                if operation.is_object() {
                    operation["security"] = json!([{"bearer": []}]);
                }
            }
        }
    }
    for (name, text) in SCHEMAS {
        let mut schema: Value = serde_json::from_str(text)?;
        let parts = schema.as_object_mut().and_then(|schema| {
            schema.remove("$schema");
            schema.remove("$id");
            schema.remove("$defs")
        });
        for (part, mut definition) in parts
            .and_then(|parts| parts.as_object().cloned())
            .into_iter()
            .flatten()
        {
            point_here(&mut definition);
            document["components"]["schemas"][part] = definition;
        }
        point_here(&mut schema);
        document["components"]["schemas"][*name] = schema;
    }
    submitted(&mut document["components"]["schemas"]);
    serde_json::to_string(&document)
}

/// The envelope as it may be sent: what the gateway fills in may be missing.
fn submitted(schemas: &mut Value) {
    let mut schema = schemas["JobEnvelope"].take();
    schema["required"] = json!(["version", "operation", "payload"]);
    for name in ["job_id", "created_at", "kind"] {
        let property = schema["properties"][name].take();
        schema["properties"][name] = json!({"anyOf": [{"type": "null"}, property]});
    }
    if let Some(schemas) = schemas.as_object_mut() {
        schemas.remove("JobEnvelope");
        schemas.insert("SubmittedJob".to_owned(), schema);
    }
}

/// `#/$defs/X` of a schema of its own is `#/components/schemas/X` here.
fn point_here(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if name == "$ref" => {
                        if let Some(part) = text.strip_prefix("#/$defs/") {
                            *text = format!("#/components/schemas/{part}");
                        }
                    }
                    other => point_here(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(point_here),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn document(with_tokens: bool) -> Value {
        serde_json::from_str(&text(with_tokens).unwrap()).unwrap()
    }

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    match value {
                        Value::String(text) if name == "$ref" => {
                            found.insert(text.clone());
                        }
                        other => references(other, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document(true);
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn no_two_schemas_share_a_name_and_differ() {
        let mut seen = std::collections::BTreeMap::new();
        for (name, text) in SCHEMAS {
            let schema: Value = serde_json::from_str(text).unwrap();
            for (part, definition) in schema["$defs"].as_object().unwrap() {
                let first = seen
                    .entry(part.clone())
                    .or_insert_with(|| definition.clone());
                assert_eq!(first, definition, "{part} of {name}");
            }
        }
    }

    #[test]
    fn tokens_are_asked_for_where_they_are_needed() {
        let guarded = document(true);
        assert_eq!(
            guarded["paths"]["/v1/jobs"]["post"]["security"],
            json!([{"bearer": []}])
        );
        assert!(
            guarded["paths"]["/healthz"]["get"]
                .get("security")
                .is_none()
        );
        assert!(
            document(false)["paths"]["/v1/jobs"]["post"]
                .get("security")
                .is_none()
        );
    }
}
