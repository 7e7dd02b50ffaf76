//! Alpine's package database, `lib/apk/db/installed`: one letter a field, a blank line between
//! packages (apk-package(5), "installed database").

use super::purl::{self, Purl};
use super::{PACKAGE_DB_MAX, PACKAGES_MAX, Scope, clean};
use crate::error::Result;
use crate::report::{Os, Package};
use std::collections::BTreeMap;

/// Newer systems have merged /lib into /usr/lib.
const PATHS: [&str; 2] = ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"];

pub(super) fn read(scope: &mut Scope<'_>) -> Result<Option<Vec<Package>>> {
    for path in PATHS {
        if let Some(text) = scope.root.text(path, PACKAGE_DB_MAX)? {
            let found: Vec<Package> = text
                .split("\n\n")
                .filter_map(|paragraph| package(paragraph, scope.os))
                .take(PACKAGES_MAX)
                .collect();
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn package(paragraph: &str, os: &Os) -> Option<Package> {
    let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
    for line in paragraph.lines() {
        match line.split_once(':') {
            // Files follow, and their fields mean something else.
            Some(("F", _)) => break,
            Some((name, value)) => {
                fields.entry(name).or_insert(value.trim());
            }
            None => {}
        }
    }
    let get = |name| {
        let value: &&str = fields.get(name)?;
        Some(clean(value)).filter(|value| !value.is_empty())
    };
    let name = get("P")?;
    let full_version = get("V")?;
    let arch = get("A").unwrap_or_default();
    let (version, release) = match full_version.rsplit_once("-r") {
        Some((version, release)) if release.bytes().all(|byte| byte.is_ascii_digit()) => {
            (version.to_owned(), Some(format!("r{release}")))
        }
        _ => (full_version.clone(), None),
    };
    let source = get("o").filter(|source| *source != name);
    let namespace = if os.distro.is_empty() {
        "alpine"
    } else {
        &os.distro
    };
    let purl = Purl::of("apk", namespace, &name, &full_version)
        .with("arch", Some(&arch))
        .with("distro", purl::distro(os).as_deref())
        .with("upstream", source.as_deref())
        .text();
    Some(Package {
        name,
        full_version,
        manager: "apk",
        epoch: None,
        version,
        release,
        arch,
        source,
        source_version: None,
        purl,
        size: fields.get("I").and_then(|bytes| bytes.parse().ok()),
        status: "installed".to_owned(),
        license: get("L"),
        vendor: None,
        install_time: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_becomes_a_package() {
        let os = Os {
            distro: "alpine".to_owned(),
            version: Some("3.18.4".to_owned()),
            ..Os::default()
        };
        let text = "C:Q1x\nP:musl-utils\nV:1.2.4-r1\nA:x86_64\nI:77824\nL:MIT AND BSD-2-Clause\no:musl\nF:etc\nV:9\n";
        let found = package(text, &os).unwrap();
        assert_eq!(
            (&*found.version, found.release.as_deref()),
            ("1.2.4", Some("r1"))
        );
        assert_eq!(found.source.as_deref(), Some("musl"));
        assert_eq!(found.size, Some(77_824));
        assert_eq!(
            found.purl,
            "pkg:apk/alpine/musl-utils@1.2.4-r1?arch=x86_64&distro=alpine-3.18.4&upstream=musl"
        );
        assert_eq!(package("P:x\n", &os), None);
    }
}
