//! What the crates are made of: licences, bans and sources as deny.toml has them, and the edges
//! between our own crates.

use crate::steps::cargo;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The only edges between our crates (ARCHITECTURE.md). xtask serves their tests.
const EDGES: &[(&str, &[&str])] = &[
    ("guestkit-protocol", &[]),
    ("guestkit-inspector", &[]),
    ("guestkit-kafka", &["guestkit-protocol"]),
    (
        "guestkit-worker",
        &["guestkit-kafka", "guestkit-protocol", "guestkit-inspector"],
    ),
    ("guestkit-jobs", &["guestkit-kafka", "guestkit-protocol"]),
    ("xtask", &[]),
];

/// What a crate must not contain, as its users build it: default features, no tests.
const NEVER: &[(&str, &[&str])] = &[
    ("guestkit-protocol", &["tokio", "rdkafka"]),
    ("guestkit-inspector", &["tokio", "rdkafka"]),
    ("guestkit-worker", &["noida-db"]),
    ("guestkit-jobs", &["noida-db", "guestkit-worker"]),
];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    /// Names of what it depends on outside its tests.
    edges: BTreeSet<String>,
}

/// All rules; every breach is named.
pub(crate) fn check() -> Result<()> {
    let packages = packages()?;
    let deny = xtask::workspace::root().join("deny.toml");
    let deny = std::fs::read_to_string(deny).context("read deny.toml")?;
    let deny: toml::Table = deny.parse().context("deny.toml")?;
    let mut breaches = licences(&packages, &deny)?;
    breaches.extend(bans(&packages, &deny));
    breaches.extend(sources(&packages));
    breaches.extend(edges(&packages));
    for (package, never) in NEVER {
        let tree = tree(package)?;
        for banned in never.iter().filter(|banned| tree.contains(**banned)) {
            breaches.push(format!("{package} contains {banned}"));
        }
    }
    for breach in &breaches {
        println!("{breach}");
    }
    ensure!(breaches.is_empty(), "{} breaches", breaches.len());
    println!("{} packages", packages.len());
    Ok(())
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let metadata = metadata(&["--no-deps"])?;
    let directory = metadata["target_directory"].as_str();
    Ok(directory.context("no target_directory")?.into())
}

fn metadata(arguments: &[&str]) -> Result<Value> {
    let mut command = cargo(&["metadata", "--format-version", "1"]);
    let output = command
        .args(arguments)
        .output()
        .context("start cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("cargo metadata")
}

fn packages() -> Result<Vec<Package>> {
    let metadata = metadata(&["--all-features"])?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut names = BTreeMap::new();
    for package in list(&metadata["packages"]) {
        let id = text(&package["id"]).unwrap_or_default();
        names.insert(id, text(&package["name"]).unwrap_or_default());
    }
    for node in list(&metadata["resolve"]["nodes"]) {
        let targets = list(&node["deps"])
            .into_iter()
            .filter(|dep| {
                list(&dep["dep_kinds"])
                    .iter()
                    .any(|kind| kind["kind"] != "dev")
            })
            .filter_map(|dep| names.get(dep["pkg"].as_str()?).cloned())
            .collect();
        edges.insert(text(&node["id"]).unwrap_or_default(), targets);
    }
    let packages: Vec<Package> = list(&metadata["packages"])
        .iter()
        .map(|package| {
            let id = text(&package["id"]).unwrap_or_default();
            Package {
                edges: edges.remove(&id).unwrap_or_default(),
                id,
                name: text(&package["name"]).unwrap_or_default(),
                version: text(&package["version"]).unwrap_or_default(),
                license: text(&package["license"]),
                source: text(&package["source"]),
            }
        })
        .collect();
    ensure!(!packages.is_empty(), "cargo metadata has no packages");
    Ok(packages)
}

fn licences(packages: &[Package], deny: &toml::Table) -> Result<Vec<String>> {
    let licenses = deny.get("licenses").context("deny.toml: no [licenses]")?;
    let allowed = strings(licenses.get("allow"));
    ensure!(!allowed.is_empty(), "deny.toml: nothing in licenses.allow");
    let exceptions = tables(licenses.get("exceptions"));
    let mut breaches = Vec::new();
    for package in packages {
        let mut allowed = allowed.clone();
        for exception in &exceptions {
            if exception.get("crate").and_then(toml::Value::as_str) == Some(&package.name) {
                allowed.extend(strings(exception.get("allow")));
            }
        }
        let expression = package.license.as_deref().unwrap_or_default();
        let verdict = satisfied(expression, &allowed);
        if !verdict.unwrap_or(false) {
            let Package { name, version, .. } = package;
            breaches.push(format!(
                "{name} {version}: licence {expression:?} is not in deny.toml"
            ));
        }
    }
    Ok(breaches)
}

/// `bans.deny`: nobody but the wrappers may depend on the crate.
fn bans(packages: &[Package], deny: &toml::Table) -> Vec<String> {
    let mut breaches = Vec::new();
    for ban in tables(deny.get("bans").and_then(|bans| bans.get("deny"))) {
        let Some(banned) = ban.get("crate").and_then(toml::Value::as_str) else {
            breaches.push(format!("deny.toml: a ban without a crate: {ban}"));
            continue;
        };
        let wrappers = strings(ban.get("wrappers"));
        for package in packages {
            if package.edges.contains(banned) && !wrappers.contains(&package.name) {
                breaches.push(format!(
                    "{} depends on {banned}, which is banned",
                    package.name
                ));
            }
        }
    }
    breaches
}

fn sources(packages: &[Package]) -> Vec<String> {
    let foreign = |package: &&Package| {
        package
            .source
            .as_deref()
            .is_some_and(|source| source != CRATES_IO)
    };
    let breaches = packages.iter().filter(foreign);
    breaches
        .map(|package| {
            format!(
                "{} does not come from crates.io: {}",
                package.name, package.id
            )
        })
        .collect()
}

fn edges(packages: &[Package]) -> Vec<String> {
    let ours: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let mut breaches = Vec::new();
    for package in packages.iter().filter(|package| package.source.is_none()) {
        let Some(allowed) = ours.get(package.name.as_str()) else {
            breaches.push(format!("{} is not in the map of crates", package.name));
            continue;
        };
        for edge in &package.edges {
            if ours.contains_key(edge.as_str()) && !allowed.contains(&edge.as_str()) {
                breaches.push(format!("{} may not depend on {edge}", package.name));
            }
        }
    }
    breaches
}

/// The names in a crate's tree, as its users build it.
fn tree(package: &str) -> Result<BTreeSet<String>> {
    let mut command = cargo(&[
        "tree",
        "-p",
        package,
        "-e",
        "normal,build",
        "--prefix",
        "none",
    ]);
    let output = command.output().context("start cargo tree")?;
    ensure!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let names: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect();
    ensure!(
        names.contains(package),
        "cargo tree does not name {package}"
    );
    Ok(names)
}

/// Whether the allowed licences satisfy an SPDX expression.
fn satisfied(expression: &str, allowed: &[String]) -> Result<bool> {
    // `MIT/Apache-2.0`, as it was written once.
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let result = any(&mut words, allowed)?;
    ensure!(words.next().is_none(), "unreadable licence {expression:?}");
    Ok(result)
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &[String]) -> Result<bool> {
    let mut result = all(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        result |= all(words, allowed)?;
    }
    Ok(result)
}

fn all(words: &mut Words<'_>, allowed: &[String]) -> Result<bool> {
    let mut result = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        result &= one(words, allowed)?;
    }
    Ok(result)
}

fn one(words: &mut Words<'_>, allowed: &[String]) -> Result<bool> {
    match words.next() {
        Some("(") => {
            let result = any(words, allowed)?;
            ensure!(words.next() == Some(")"), "missing )");
            Ok(result)
        }
        None | Some(")" | "OR" | "AND" | "WITH") => bail!("a licence is missing"),
        Some(id) => {
            let mut id = id.to_owned();
            if words.next_if_eq(&"WITH").is_some() {
                id = format!("{id} WITH {}", words.next().unwrap_or_default());
            }
            Ok(allowed.contains(&id))
        }
    }
}

fn strings(value: Option<&toml::Value>) -> Vec<String> {
    let array = value.and_then(toml::Value::as_array);
    let strings = array.into_iter().flatten().filter_map(toml::Value::as_str);
    strings.map(str::to_owned).collect()
}

fn tables(value: Option<&toml::Value>) -> Vec<toml::Table> {
    let array = value.and_then(toml::Value::as_array);
    let tables = array
        .into_iter()
        .flatten()
        .filter_map(toml::Value::as_table);
    tables.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expressions() {
        let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
        let verdict = |text| satisfied(text, &allowed).unwrap();
        assert!(verdict("MIT"));
        assert!(verdict("GPL-3.0 OR MIT"));
        assert!(verdict("GPL-3.0/MIT"));
        assert!(verdict("(GPL-3.0 OR MIT) AND ISC"));
        assert!(verdict("Apache-2.0 WITH LLVM-exception OR GPL-3.0"));
        assert!(!verdict("Apache-2.0"));
        assert!(!verdict("MIT AND GPL-3.0"));
        assert!(!verdict("GPL-3.0 OR MIT AND BSD-3-Clause"));
        assert!(satisfied("", &allowed).is_err());
        assert!(satisfied("(MIT", &allowed).is_err());
        assert!(satisfied("MIT MIT", &allowed).is_err());
    }

    fn package(name: &str, source: Option<&str>, edges: &[&str]) -> Package {
        Package {
            id: name.to_owned(),
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: Some("MIT".to_owned()),
            source: source.map(str::to_owned),
            edges: edges.iter().map(|edge| (*edge).to_owned()).collect(),
        }
    }

    #[test]
    fn every_rule_can_fail() {
        let deny: toml::Table = "[licenses]\nallow = [\"ISC\"]\n[bans]\ndeny = [{ crate = \"bad\", wrappers = [\"demo\"] }]"
            .parse()
            .unwrap();
        let packages = [
            package("demo", Some(CRATES_IO), &["bad"]),
            package("other", Some("git+elsewhere"), &["bad"]),
            package("guestkit-protocol", None, &["guestkit-worker"]),
            package("new", None, &[]),
        ];
        assert_eq!(licences(&packages, &deny).unwrap().len(), 4);
        assert_eq!(
            bans(&packages, &deny),
            ["other depends on bad, which is banned"]
        );
        assert_eq!(sources(&packages).len(), 1);
        assert_eq!(edges(&packages).len(), 2);
    }
}
