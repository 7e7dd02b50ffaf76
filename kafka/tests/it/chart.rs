//! The Helm chart's topics are those that `topics create` makes, its users' rights those of `topics acls`. No broker
//! needed.

use guestkit_kafka::TopicNames;
use guestkit_kafka::acls::{Role, least};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn the_charts_topics_are_those_that_we_create() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../deploy/helm/guestkit/files/topics.json"
    );
    let written: BTreeMap<String, Value> =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let names = TopicNames::new("p", Some("gpu")).unwrap();
    let created: BTreeMap<String, Value> = names
        .all()
        .into_iter()
        .map(|(kind, name)| {
            let name = name.strip_prefix("p.").unwrap();
            let pooled = name.strip_suffix(".gpu");
            let config: serde_json::Map<String, Value> = kind
                .settings()
                .into_iter()
                .map(|(setting, value)| (setting.to_owned(), Value::String(value)))
                .collect();
            let topic = serde_json::json!({
                "pooled": pooled.is_some(),
                "partitioned": kind.is_partitioned(),
                "config": config,
            });
            (pooled.unwrap_or(name).to_owned(), topic)
        })
        .collect();
    assert_eq!(created, written);
}

#[test]
fn the_charts_rights_are_the_least_that_each_role_needs() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../deploy/helm/guestkit/files/acls.json"
    );
    let text = std::fs::read_to_string(path)
        .unwrap()
        .replace("{prefix}", "p")
        .replace("{pool}", ".gpu")
        .replace("{group}", "g");
    // The chart knows one role more: the autoscaler, which is no program of ours.
    let chart: BTreeMap<String, Vec<Value>> = serde_json::from_str(&text).unwrap();
    let names = TopicNames::new("p", Some("gpu")).unwrap();
    for role in Role::ALL {
        let ours: BTreeSet<String> = least(role, &names, "g", None)
            .iter()
            .map(|rule| {
                let mut operations: Vec<_> = rule.operations.iter().map(|o| o.name()).collect();
                operations.sort_unstable();
                json!({
                    "resource": rule.resource.name(),
                    "name": rule.name,
                    "pattern": rule.pattern(),
                    "operations": operations,
                })
                .to_string()
            })
            .collect();
        let theirs: BTreeSet<String> = chart[role.name()].iter().map(Value::to_string).collect();
        assert_eq!(theirs, ours, "{}", role.name());
    }
}
