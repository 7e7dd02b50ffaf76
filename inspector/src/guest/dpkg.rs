//! Debian's package database: `/var/lib/dpkg/status`, and `status.d` of distroless images
//! (deb-control(5), deb-version(7)).

use super::{Scope, clean};
use crate::error::{DiskError, Result};
use crate::report::{Os, Package};
use std::collections::BTreeMap;

/// Largest database that is read: Debian's whole archive has 60 MiB.
const STATUS_MAX: u64 = 64 << 20;
/// Packages that are reported.
const PACKAGES_MAX: usize = 200_000;

pub(super) fn read(scope: &mut Scope<'_>) -> Result<Vec<Package>> {
    let mut texts = Vec::new();
    if let Some(text) = scope.root.text("/var/lib/dpkg/status", STATUS_MAX)? {
        texts.push(text);
    }
    for name in scope.names("/var/lib/dpkg/status.d") {
        if !name.ends_with(".md5sums") {
            texts.extend(scope.text(&format!("/var/lib/dpkg/status.d/{name}")));
        }
    }
    if texts.is_empty() {
        return Err(DiskError::Unsupported {
            feature: other_manager(scope).to_owned(),
        });
    }
    let mut packages = Vec::new();
    for text in &texts {
        for paragraph in text.split("\n\n") {
            if packages.len() >= PACKAGES_MAX {
                scope.warn(
                    "over_budget",
                    "/var/lib/dpkg/status",
                    format!("more than {PACKAGES_MAX} packages"),
                );
                break;
            }
            packages.extend(package(paragraph, scope.os));
        }
    }
    packages.sort_unstable();
    Ok(packages)
}

fn other_manager(scope: &mut Scope<'_>) -> &'static str {
    for (path, name) in [
        ("/var/lib/rpm", "rpm"),
        ("/usr/lib/sysimage/rpm", "rpm"),
        ("/lib/apk/db/installed", "apk"),
        ("/var/lib/pacman/local", "pacman"),
    ] {
        if scope.exists(path) {
            return name;
        }
    }
    "no known package manager"
}

fn package(paragraph: &str, os: &Os) -> Option<Package> {
    let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
    for line in paragraph.lines() {
        // Continued lines belong to fields that are not needed here.
        if line.starts_with([' ', '\t']) {
            continue;
        }
        if let Some((name, value)) = line.split_once(':') {
            fields.entry(name).or_insert(value.trim());
        }
    }
    let name = clean(fields.get("Package")?);
    let full_version = clean(fields.get("Version")?);
    // Distroless images have no status: what is there is installed.
    let status = clean(fields.get("Status").unwrap_or(&"install ok installed"));
    let state = status.rsplit(' ').next().unwrap_or_default();
    if matches!(state, "config-files" | "not-installed") {
        return None;
    }
    let arch = clean(fields.get("Architecture").unwrap_or(&"all"));
    let (epoch, version, release) = split_version(&full_version);
    let (source, source_version) = match fields.get("Source") {
        None => (None, None),
        Some(source) => match source.split_once(" (") {
            None => (Some(clean(source)), None),
            Some((name, version)) => (
                Some(clean(name)),
                Some(clean(version.trim_end_matches(')'))),
            ),
        },
    };
    Some(Package {
        purl: purl(os, &name, &full_version, &arch),
        manager: "dpkg",
        epoch,
        version,
        release,
        source,
        source_version,
        size: fields
            .get("Installed-Size")
            .and_then(|kib| kib.parse::<u64>().ok())
            .map(|kib| kib.saturating_mul(1_024)),
        status,
        license: None,
        arch,
        name,
        full_version,
    })
}

/// `[epoch:]upstream[-revision]`: the first colon and the last hyphen count.
fn split_version(full: &str) -> (Option<u32>, String, Option<String>) {
    let (epoch, rest) = match full.split_once(':') {
        Some((epoch, rest)) => match epoch.parse() {
            Ok(epoch) => (Some(epoch), rest),
            Err(_) => (None, full),
        },
        None => (None, full),
    };
    match rest.rsplit_once('-') {
        Some((version, release)) => (epoch, version.to_owned(), Some(release.to_owned())),
        None => (epoch, rest.to_owned(), None),
    }
}

/// `pkg:deb/debian/name@version?arch=…&distro=debian-12` (package-url specification, type deb).
fn purl(os: &Os, name: &str, version: &str, arch: &str) -> String {
    let distro = match &os.version {
        Some(version) => format!("{}-{version}", os.distro),
        None => os.distro.clone(),
    };
    format!(
        "pkg:deb/{}/{}@{}?arch={}&distro={}",
        encode(&os.distro),
        encode(&name.to_lowercase()),
        encode(version),
        encode(arch),
        encode(&distro)
    )
}

/// Percent-encodes what the specification does not leave plain.
fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '~' | ':') {
            out.push(c);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debian() -> Os {
        Os {
            distro: "debian".to_owned(),
            version: Some("12".to_owned()),
            ..Os::default()
        }
    }

    #[test]
    fn a_paragraph_becomes_a_package() {
        let text = "Package: fdisk\nStatus: install ok installed\nInstalled-Size: 10\nArchitecture: amd64\nSource: util-linux (2.38.1-5+deb12u3)\nVersion: 1:2.38.1-5+deb12u3\nDescription: x\n Version: 9\n";
        let found = package(text, &debian()).unwrap();
        assert_eq!(found.epoch, Some(1));
        assert_eq!(found.version, "2.38.1");
        assert_eq!(found.release.as_deref(), Some("5+deb12u3"));
        assert_eq!(found.source.as_deref(), Some("util-linux"));
        assert_eq!(found.source_version.as_deref(), Some("2.38.1-5+deb12u3"));
        assert_eq!(found.size, Some(10_240));
        assert_eq!(
            found.purl,
            "pkg:deb/debian/fdisk@1:2.38.1-5%2Bdeb12u3?arch=amd64&distro=debian-12"
        );
    }

    #[test]
    fn what_is_removed_is_no_package() {
        let text = "Package: x\nStatus: deinstall ok config-files\nVersion: 1\n";
        assert_eq!(package(text, &debian()), None);
        assert_eq!(package("Package: x\n", &debian()), None);
    }
}
