//! SPDX 2.3 in JSON (ISO/IEC 5962 and its successor): operating systems, and what is installed in
//! them.

use super::sbom::{System, TOOL, cpe, line, systems, uuid};
use super::{InspectReport, Package};
use serde_json::{Value, json};

/// SPDX demands a time of making (section 6.9). A document without one must say something that is
/// the same on every run.
const NO_TIME: &str = "1970-01-01T00:00:00Z";
const NO_ASSERTION: &str = "NOASSERTION";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";

/// Renders a report. `timestamp` is text of the form `2026-01-02T03:04:05Z`.
#[must_use]
pub fn render(report: &InspectReport, timestamp: Option<&str>) -> Value {
    let mut packages = Vec::new();
    let mut relations = Vec::new();
    for (n, found) in systems(report).into_iter().enumerate() {
        let system_id = format!("SPDXRef-os-{n}");
        packages.push(system(&found, &system_id));
        relations.push(relation(DOCUMENT, "DESCRIBES", &system_id));
        for (m, package) in found.packages.iter().enumerate() {
            let id = format!("{system_id}-package-{m}");
            packages.push(one(package, &id));
            relations.push(relation(&system_id, "CONTAINS", &id));
        }
    }
    if packages.is_empty() {
        // A document that describes nothing has to say so: NONE may stand here (section 11.1).
        relations.push(relation(DOCUMENT, "DESCRIBES", "NONE"));
    }
    let name = report.os.first().and_then(|os| os.pretty_name.clone());
    let content = Value::from(packages.clone()).to_string();
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT,
        "name": name.unwrap_or_else(|| "disk image".to_owned()),
        "documentNamespace": format!("https://guestkit.invalid/spdx/{}", uuid(&content)),
        "creationInfo": {
            "created": timestamp.unwrap_or(NO_TIME),
            "creators": [format!("Tool: {TOOL}-{}", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages,
        "relationships": relations,
    })
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to})
}

fn base(id: &str, name: &str, purpose: &str) -> serde_json::Map<String, Value> {
    [
        ("SPDXID", json!(id)),
        ("name", json!(name)),
        ("downloadLocation", json!(NO_ASSERTION)),
        ("filesAnalyzed", json!(false)),
        ("licenseConcluded", json!(NO_ASSERTION)),
        ("licenseDeclared", json!(NO_ASSERTION)),
        ("copyrightText", json!(NO_ASSERTION)),
        ("primaryPackagePurpose", json!(purpose)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into_iter()
    .collect()
}

fn system(found: &System<'_>, id: &str) -> Value {
    let os = found.os;
    let mut out = base(id, &os.distro, "OPERATING-SYSTEM");
    if let Some(version) = &os.version {
        out.insert("versionInfo".to_owned(), json!(version));
    }
    if let Some(pretty) = &os.pretty_name {
        out.insert("description".to_owned(), json!(pretty));
    }
    if let Some(cpe) = cpe(os) {
        let reference = reference("SECURITY", "cpe23Type", cpe);
        out.insert("externalRefs".to_owned(), json!([reference]));
    }
    if found.incomplete {
        let comment = "the list of its packages is incomplete";
        out.insert("comment".to_owned(), json!(comment));
    }
    Value::Object(out)
}

fn one(package: &Package, id: &str) -> Value {
    let purpose = match package.manager {
        "windows" | "windows_update" => "APPLICATION",
        _ => "LIBRARY",
    };
    let mut out = base(id, &package.name, purpose);
    if !package.full_version.is_empty() {
        out.insert("versionInfo".to_owned(), json!(package.full_version));
    }
    if let Some(vendor) = package.vendor.as_deref().and_then(line) {
        // Parentheses would begin an e-mail address (section 7.5).
        let vendor = vendor.replace('(', "[").replace(')', "]");
        out.insert(
            "supplier".to_owned(),
            json!(format!("Organization: {vendor}")),
        );
    }
    if let Some(license) = package.license.as_deref().and_then(line) {
        // Texts of package managers are seldom SPDX expressions.
        let comment = format!("the package says: {license}");
        out.insert("licenseComments".to_owned(), json!(comment));
    }
    let source = package.source.as_ref().map(|source| {
        let version = package.source_version.as_deref().unwrap_or_default();
        format!("built from {source} {version}")
            .trim_end()
            .to_owned()
    });
    if let Some(source) = source {
        out.insert("sourceInfo".to_owned(), json!(source));
    }
    // Without a name there is no package URL.
    if !package.name.is_empty() {
        let reference = reference("PACKAGE-MANAGER", "purl", &package.purl);
        out.insert("externalRefs".to_owned(), json!([reference]));
    }
    Value::Object(out)
}

fn reference(category: &str, kind: &str, locator: &str) -> Value {
    json!({"referenceCategory": category, "referenceType": kind, "referenceLocator": locator})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sbom::tests::report;

    /// The specification's own rules are asked by `tests/sbom/validate.py`.
    #[test]
    fn documents_describe_systems_that_contain_packages() {
        let found = render(&report(), None);
        assert_eq!(found, render(&report(), None));
        assert_eq!(found["packages"].as_array().unwrap().len(), 4);
        assert_eq!(found["relationships"].as_array().unwrap().len(), 4);
        assert_eq!(
            found["relationships"][0],
            relation(DOCUMENT, "DESCRIBES", "SPDXRef-os-0")
        );
        assert_eq!(found["packages"][1]["supplier"], "Organization: Maker [x]");
        assert_eq!(found["creationInfo"]["created"], NO_TIME);
        assert_eq!(found["packages"][3].get("versionInfo"), None);
        assert_eq!(found["packages"][0].get("comment"), None);
        let mut report = report();
        report.sections.coverage.clear();
        let comment = "the list of its packages is incomplete";
        assert_eq!(render(&report, None)["packages"][0]["comment"], comment);
        report.os.clear();
        assert_eq!(
            render(&report, None)["relationships"],
            json!([relation(DOCUMENT, "DESCRIBES", "NONE")])
        );
    }
}
