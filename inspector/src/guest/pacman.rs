//! Arch's package database, `/var/lib/pacman/local/*/desc`: `%FIELD%` and its lines up to a blank
//! one (libalpm, be_local.c).

use super::dpkg::split_version;
use super::purl::{self, Purl};
use super::{PACKAGES_MAX, Scope, clean};
use crate::error::Result;
use crate::report::{Os, Package};
use std::collections::BTreeMap;

const DIR: &str = "/var/lib/pacman/local";

pub(super) fn read(scope: &mut Scope<'_>) -> Result<Option<Vec<Package>>> {
    if !scope.root.exists(DIR)? {
        return Ok(None);
    }
    let mut packages = Vec::new();
    for name in scope.names(DIR) {
        if name == "ALPM_DB_VERSION" {
            continue;
        }
        if packages.len() >= PACKAGES_MAX {
            scope.warn(
                "over_budget",
                DIR,
                format!("more than {PACKAGES_MAX} packages"),
            );
            break;
        }
        let path = format!("{DIR}/{name}/desc");
        let Some(text) = scope.text(&path) else {
            continue;
        };
        match package(&text, scope.os) {
            Some(package) => packages.push(package),
            None => scope.warn("malformed", &path, "a package without name or version"),
        }
    }
    Ok(Some(packages))
}

fn package(text: &str, os: &Os) -> Option<Package> {
    let mut fields: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut field = None;
    for line in text.lines().map(str::trim_end) {
        let name = line
            .strip_prefix('%')
            .and_then(|rest| rest.strip_suffix('%'));
        if line.is_empty() {
            field = None;
        } else if let (None, Some(name)) = (field, name) {
            field = Some(name);
        } else if let Some(name) = field {
            fields.entry(name).or_default().push(line);
        }
    }
    let get = |name| fields.get(name)?.first().map(|value| clean(value));
    let name = get("NAME")?;
    let full_version = get("VERSION")?;
    let arch = get("ARCH").unwrap_or_default();
    let (epoch, version, release) = split_version(&full_version);
    let source = get("BASE").filter(|base| *base != name);
    let namespace = if os.distro.is_empty() {
        "arch"
    } else {
        &os.distro
    };
    let purl = Purl::of("alpm", namespace, &name, &full_version)
        .with("arch", Some(&arch))
        .with("distro", purl::distro(os).as_deref())
        .with("upstream", source.as_deref())
        .text();
    Some(Package {
        name,
        full_version,
        manager: "pacman",
        epoch,
        version,
        release,
        arch,
        source,
        source_version: None,
        purl,
        size: get("SIZE").and_then(|bytes| bytes.parse().ok()),
        status: "installed".to_owned(),
        license: fields
            .get("LICENSE")
            .map(|licenses| clean(&licenses.join(" AND "))),
        vendor: None,
        install_time: get("INSTALLDATE").and_then(|seconds| seconds.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_becomes_a_package() {
        let os = Os {
            distro: "arch".to_owned(),
            ..Os::default()
        };
        let text = "%NAME%\nlibgawk\n\n%VERSION%\n1:5.3.1-1\n\n%BASE%\ngawk\n\n%ARCH%\nx86_64\n\n%INSTALLDATE%\n1700000000\n\n%LICENSE%\nGPL\nMIT\n\n";
        let found = package(text, &os).unwrap();
        assert_eq!(found.epoch, Some(1));
        assert_eq!(found.license.as_deref(), Some("GPL AND MIT"));
        assert_eq!(found.install_time, Some(1_700_000_000));
        assert_eq!(
            found.purl,
            "pkg:alpm/arch/libgawk@1:5.3.1-1?arch=x86_64&distro=arch&upstream=gawk"
        );
        assert_eq!(package("%NAME%\n\n%VERSION%\n1\n", &os), None);
    }
}
