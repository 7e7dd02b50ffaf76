//! Debian's package database: `/var/lib/dpkg/status`, and `status.d` of distroless images
//! (deb-control(5), deb-version(7)); opkg writes the same form.

use super::purl::{self, Purl};
use super::{PACKAGE_DB_MAX, PACKAGES_MAX, Scope, clean};
use crate::error::Result;
use crate::report::{Os, Package};
use std::collections::BTreeMap;

/// Largest copyright file that is read in a deep scan.
const COPYRIGHT_MAX: u64 = 1 << 20;
/// Licences of one package that are named.
const LICENSES_MAX: usize = 32;

pub(super) fn read(scope: &mut Scope<'_>) -> Result<Option<Vec<Package>>> {
    let mut texts = Vec::new();
    for path in ["/var/lib/dpkg/status", "/usr/lib/dpkg/status"] {
        texts.extend(scope.root.text(path, PACKAGE_DB_MAX)?);
    }
    for dir in ["/var/lib/dpkg/status.d", "/usr/lib/dpkg/status.d"] {
        for name in scope.names(dir) {
            let is_script = [".md5sums", ".preinst", ".postinst", ".prerm", ".postrm"];
            if !is_script.iter().any(|ending| name.ends_with(ending)) {
                texts.extend(scope.text(&format!("{dir}/{name}")));
            }
        }
    }
    let Some(mut packages) = all(scope, &texts, "dpkg") else {
        return Ok(None);
    };
    install_times(scope, &mut packages);
    if scope.deep {
        licenses(scope, &mut packages);
    }
    Ok(Some(packages))
}

/// OpenWrt's and Yocto's opkg.
pub(super) fn read_opkg(scope: &mut Scope<'_>) -> Result<Option<Vec<Package>>> {
    let mut texts = Vec::new();
    for path in ["/var/lib/opkg/status", "/usr/lib/opkg/status"] {
        texts.extend(scope.root.text(path, PACKAGE_DB_MAX)?);
    }
    Ok(all(scope, &texts, "opkg"))
}

fn all(scope: &mut Scope<'_>, texts: &[String], manager: &'static str) -> Option<Vec<Package>> {
    let mut packages = Vec::new();
    for text in texts {
        for paragraph in text.split("\n\n") {
            if packages.len() >= PACKAGES_MAX {
                let problem = format!("more than {PACKAGES_MAX} packages");
                scope.warn("over_budget", "/var/lib/dpkg/status", problem);
                break;
            }
            packages.extend(package(paragraph, scope.os, manager));
        }
    }
    (!texts.is_empty()).then_some(packages)
}

/// dpkg notes no time, but writes a package's list of files when it unpacks it.
fn install_times(scope: &mut Scope<'_>, packages: &mut [Package]) {
    let dir = "/var/lib/dpkg/info";
    let entries = match scope.root.entries(dir) {
        Ok(entries) => entries,
        Err(error) => return scope.warn(super::code_of(&error), dir, error.to_string()),
    };
    let lists: BTreeMap<&[u8], _> = entries
        .iter()
        .filter_map(|(name, found)| Some((name.strip_suffix(b".list")?, found)))
        .collect();
    for package in packages {
        let with_arch = format!("{}:{}", package.name, package.arch);
        let list = lists
            .get(package.name.as_bytes())
            .or_else(|| lists.get(with_arch.as_bytes()));
        package.install_time = list.and_then(|list| Some(list.metadata().ok()?.mtime));
    }
}

/// Licence names of machine-readable copyright files (Debian's copyright-format 1.0).
fn licenses(scope: &mut Scope<'_>, packages: &mut [Package]) {
    for package in packages {
        let path = format!("/usr/share/doc/{}/copyright", package.name);
        let Ok(Some(text)) = scope.root.text(&path, COPYRIGHT_MAX) else {
            continue;
        };
        let mut names: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("License:"))
            .map(str::trim)
            .filter(|name| !name.is_empty() && name.len() < 128)
            .collect();
        names.sort_unstable();
        names.dedup();
        names.truncate(LICENSES_MAX);
        package.license = Some(clean(&names.join(" AND "))).filter(|names| !names.is_empty());
    }
}

fn package(paragraph: &str, os: &Os, manager: &'static str) -> Option<Package> {
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
    let upstream = match (&source, &source_version) {
        (Some(source), Some(version)) => Some(format!("{source}@{version}")),
        (source, _) => source.clone(),
    };
    let (kind, namespace) = match manager {
        "opkg" => ("opkg", ""),
        _ if os.distro.is_empty() => ("deb", "debian"),
        _ => ("deb", os.distro.as_str()),
    };
    let purl = Purl::of(kind, namespace, &name.to_lowercase(), &full_version)
        .with("arch", Some(&arch))
        .with("distro", purl::distro(os).as_deref())
        .with("upstream", upstream.as_deref())
        .text();
    Some(Package {
        purl,
        manager,
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
        vendor: None,
        install_time: None,
        arch,
        name,
        full_version,
    })
}

/// `[epoch:]upstream[-revision]`: the first colon and the last hyphen count.
pub(super) fn split_version(full: &str) -> (Option<u32>, String, Option<String>) {
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
        let found = package(text, &debian(), "dpkg").unwrap();
        assert_eq!(found.epoch, Some(1));
        assert_eq!(found.version, "2.38.1");
        assert_eq!(found.release.as_deref(), Some("5+deb12u3"));
        assert_eq!(found.source.as_deref(), Some("util-linux"));
        assert_eq!(found.source_version.as_deref(), Some("2.38.1-5+deb12u3"));
        assert_eq!(found.size, Some(10_240));
        assert_eq!(
            found.purl,
            "pkg:deb/debian/fdisk@1:2.38.1-5%2Bdeb12u3?arch=amd64&distro=debian-12&upstream=util-linux%402.38.1-5%2Bdeb12u3"
        );
    }

    #[test]
    fn what_is_removed_is_no_package() {
        let text = "Package: x\nStatus: deinstall ok config-files\nVersion: 1\n";
        assert_eq!(package(text, &debian(), "dpkg"), None);
        assert_eq!(package("Package: x\n", &debian(), "dpkg"), None);
    }
}
