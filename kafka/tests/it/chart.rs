//! The Helm chart's topics are those that `topics create` makes. No broker needed.

use guestkit_kafka::TopicNames;
use serde_json::Value;
use std::collections::BTreeMap;

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
