//! What dashboard and alerts ask for.

use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeSet;

/// Grafana's variables, as a fleet seen for a few seconds has them.
const VARIABLES: [(&str, &str); 3] = [("$__rate_interval", "10s"), ("$job", ".*"), ("$pool", ".*")];

/// A panel's query.
pub(crate) struct Query {
    pub(crate) panel: String,
    /// As it stands in the dashboard.
    pub(crate) written: String,
    /// With values for the variables.
    pub(crate) expression: String,
}

/// All queries of a dashboard.
pub(crate) fn dashboard(text: &str) -> Result<Vec<Query>> {
    let dashboard: Value = serde_json::from_str(text).context("dashboard")?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let mut queries = Vec::new();
    for panel in panels {
        let title = panel["title"].as_str().context("a panel has no title")?;
        for target in panel["targets"].as_array().into_iter().flatten() {
            let written = target["expr"]
                .as_str()
                .with_context(|| format!("panel {title:?}: a target has no expr"))?;
            let mut expression = written.to_owned();
            for (name, value) in VARIABLES {
                expression = expression.replace(name, value);
            }
            queries.push(Query {
                panel: title.to_owned(),
                written: written.to_owned(),
                expression,
            });
        }
    }
    Ok(queries)
}

/// Names of our metrics in any text.
pub(crate) fn names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("guestkit_") && !word.ends_with('_'))
        .collect()
}

/// The selectors of an expression, without ranges and offsets: `name` or `name{labels}`.
pub(crate) fn selectors(expression: &str) -> Vec<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = expression[at..].find(is_name).map(|start| at + start) {
        let length = expression[start..].find(|c| !is_name(c));
        let mut end = length.map_or(expression.len(), |length| start + length);
        let name = &expression[start..end];
        if name == "up" || name.starts_with("guestkit_") {
            if expression[end..].starts_with('{') {
                let labels = expression[end..].find('}').map_or(0, |close| close + 1);
                end += labels;
            }
            found.push(&expression[start..end]);
        }
        at = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_found_without_what_is_done_to_them() {
        let expression = r#"sum by (job) (increase(guestkit_a_total{x=~"b|c"}[5m])) > 0.1 * max(guestkit_d offset 15m) and up == 0"#;
        assert_eq!(
            selectors(expression),
            [r#"guestkit_a_total{x=~"b|c"}"#, "guestkit_d", "up"]
        );
    }

    #[test]
    fn variables_get_values() {
        let text = r#"{"panels":[{"title":"row"},{"title":"p","targets":[{"expr":"rate(guestkit_a{pool=~\"$pool\"}[$__rate_interval])"}]}]}"#;
        let queries = dashboard(text).unwrap();
        assert_eq!(
            queries[0].expression,
            r#"rate(guestkit_a{pool=~".*"}[10s])"#
        );
        assert_eq!(names(&queries[0].written), BTreeSet::from(["guestkit_a"]));
    }
}
