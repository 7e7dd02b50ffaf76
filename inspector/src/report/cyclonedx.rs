//! CycloneDX 1.6 in JSON (ECMA-424): operating systems, and what is installed in them.
//!
//! Matchers take the distribution from the component of type `operating-system` (its name is the
//! `ID` of os-release, its version `VERSION_ID`) and packages by their package URL.

use super::sbom::{Names, TOOL, cpe, line, systems, uuid};
use super::{InspectReport, Os, Package};
use serde_json::{Value, json};

/// Renders a report. `timestamp` is RFC 3339 text; without it the document says no time, and is the
/// same on every run.
#[must_use]
pub fn render(report: &InspectReport, timestamp: Option<&str>) -> Value {
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    let mut incomplete = Vec::new();
    let mut names = Names::new();
    for (n, found) in systems(report).into_iter().enumerate() {
        let reference = format!("os-{n}");
        components.push(system(found.os, &reference));
        let mut contained = Vec::new();
        for package in found.packages {
            let name = names.unique(format!("{reference}/{}", package.purl));
            components.push(component(package, &name));
            contained.push(Value::from(name));
        }
        if found.incomplete {
            incomplete.push(Value::from(reference.clone()));
        }
        dependencies.push(json!({"ref": reference, "dependsOn": contained}));
    }
    let content = Value::from(components.clone()).to_string();
    let mut metadata = json!({
        "tools": {"components": [{
            "type": "application", "name": TOOL, "version": env!("CARGO_PKG_VERSION"),
        }]},
    });
    put(&mut metadata, "timestamp", timestamp.map(Value::from));
    let mut out = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", uuid(&content)),
        "version": 1,
        "metadata": metadata,
        "components": components,
        "dependencies": dependencies,
    });
    if !incomplete.is_empty() {
        let said = json!([{"aggregate": "incomplete", "dependencies": incomplete}]);
        put(&mut out, "compositions", Some(said));
    }
    out
}

fn system(os: &Os, reference: &str) -> Value {
    let mut out = json!({
        "type": "operating-system", "bom-ref": reference, "name": os.distro,
    });
    put(&mut out, "version", os.version.clone().map(Value::from));
    put(
        &mut out,
        "description",
        os.pretty_name.clone().map(Value::from),
    );
    put(&mut out, "cpe", cpe(os).map(Value::from));
    out
}

fn component(package: &Package, reference: &str) -> Value {
    let kind = match package.manager {
        "windows" | "windows_update" => "application",
        _ => "library",
    };
    let mut properties = vec![
        json!({"name": "guestkit:manager", "value": package.manager}),
        json!({"name": "guestkit:architecture", "value": package.arch}),
    ];
    for (name, value) in [
        ("guestkit:source", &package.source),
        ("guestkit:source_version", &package.source_version),
    ] {
        properties.extend(
            value
                .as_ref()
                .map(|value| json!({"name": name, "value": value})),
        );
    }
    let mut out = json!({
        "type": kind, "bom-ref": reference, "name": package.name, "properties": properties,
    });
    // Without a name there is no package URL.
    let url = Some(&package.purl).filter(|_| !package.name.is_empty());
    put(&mut out, "purl", url.map(|url| json!(url)));
    let version = Some(&package.full_version).filter(|version| !version.is_empty());
    put(&mut out, "version", version.map(|text| json!(text)));
    let vendor = package.vendor.as_deref().and_then(line);
    put(
        &mut out,
        "supplier",
        vendor.map(|name| json!({"name": name})),
    );
    // Texts of package managers are seldom SPDX expressions: they are names here.
    let license = package.license.as_deref().and_then(line);
    let license = license.map(|name| json!([{"license": {"name": name}}]));
    put(&mut out, "licenses", license);
    out
}

fn put(object: &mut Value, key: &str, value: Option<Value>) {
    if let (Some(map), Some(value)) = (object.as_object_mut(), value) {
        map.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sbom::tests::report;

    /// The schema itself is asked by `tests/sbom/validate.py`.
    #[test]
    fn systems_contain_packages_under_names_of_their_own() {
        let report = report();
        let found = render(&report, None);
        assert_eq!(found, render(&report, None));
        assert_eq!(found["metadata"]["timestamp"], Value::Null);
        let components = found["components"].as_array().unwrap();
        assert_eq!(components[0]["type"], "operating-system");
        assert_eq!(
            (&components[0]["name"], &components[0]["version"]),
            (&json!("debian"), &json!("12"))
        );
        let names: Vec<_> = components[1..].iter().map(|c| &c["bom-ref"]).collect();
        let purl = "os-0/pkg:deb/debian/a@1?arch=amd64";
        assert_eq!(names, [purl, &format!("{purl}#2"), "os-0/pkg:deb/debian/b"]);
        assert_eq!(
            found["dependencies"][0]["dependsOn"]
                .as_array()
                .unwrap()
                .len(),
            3
        );
        assert_eq!(components[3].get("version"), None);
        let late = render(&report, Some("2026-01-02T03:04:05Z"));
        assert_eq!(late["metadata"]["timestamp"], "2026-01-02T03:04:05Z");
        assert_eq!(late["serialNumber"], found["serialNumber"]);
    }

    #[test]
    fn packages_that_may_be_missing_are_told() {
        let mut report = report();
        assert_eq!(render(&report, None).get("compositions"), None);
        let coverage = &mut report.sections.coverage;
        coverage.insert("packages", crate::report::Coverage::Partial);
        assert_eq!(
            render(&report, None)["compositions"],
            json!([{"aggregate": "incomplete", "dependencies": ["os-0"]}])
        );
    }
}
