//! What a list shows of an inspection: the operating system and how many packages.

use guestkit_protocol::JobResult;
use serde::{Deserialize, Serialize};

/// The longest text that a list shows, in characters: names of systems come from disks.
const TEXT_MAX: usize = 200;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Highlights {
    /// The first operating system's name and version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) os: Option<String>,
    /// Installed packages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) packages: Option<usize>,
}

/// The few fields of the document that are read; all others are passed over.
#[derive(Deserialize)]
struct Report {
    #[serde(default)]
    os: Option<Vec<Os>>,
    #[serde(default)]
    packages: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
struct Os {
    #[serde(default)]
    pretty_name: Option<String>,
    #[serde(default)]
    product_name: Option<String>,
    #[serde(default)]
    distro: Option<String>,
    #[serde(default)]
    version: Option<String>,
}

impl Highlights {
    /// Of a result; `None` for what is no inspection.
    pub(crate) fn of(result: &JobResult) -> Option<Self> {
        if result.operation.as_deref() != Some("guestkit.inspect") {
            return None;
        }
        let report: Report = result.data.as_ref()?.read().ok()?;
        let os = report.os.and_then(|all| all.into_iter().next());
        let os = os.and_then(|os| {
            let name = os.product_name.or(os.distro);
            match (os.pretty_name, name, os.version) {
                (Some(pretty), _, _) => Some(pretty),
                (None, Some(name), Some(version)) => Some(format!("{name} {version}")),
                (None, name, version) => name.or(version),
            }
        });
        Some(Self {
            os: os.map(|os| shorten(&os)),
            packages: report.packages.map(|all| all.len()),
        })
    }
}

/// So much of a foreign text as a list shows.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use guestkit_protocol::{JobStatus, JsonText};

    #[test]
    fn systems_and_packages_are_read_from_the_report() {
        let mut result = JobResult::new("inspect-0001", JobStatus::Completed);
        assert_eq!(Highlights::of(&result), None);
        result.operation = Some("guestkit.inspect".to_owned());
        let text = r#"{"os":[{"distro":"debian","version":"12","pretty_name":"Debian \"12\""}],"packages":[{},{}]}"#;
        result.data = Some(JsonText::new(text).unwrap());
        let found = Highlights::of(&result).unwrap();
        assert_eq!(found.os.as_deref(), Some("Debian \"12\""));
        assert_eq!(found.packages, Some(2));
        result.data = Some(JsonText::new(r#"{"os":[],"packages":null}"#).unwrap());
        assert_eq!(Highlights::of(&result), Some(Highlights::default()));
    }
}
