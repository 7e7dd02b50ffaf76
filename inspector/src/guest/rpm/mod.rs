//! rpm's package database in its three forms: SQLite with its log, NDB, Berkeley DB.
//!
//! One damaged header costs one package; a damaged tree costs what comes after it.

mod bdb;
mod header;
mod ndb;
mod sqlite;
mod wal;

use super::purl::Purl;
use super::{Scope, clean};
use crate::error::{DiskError, Result};
use crate::report::{Os, Package};
use crate::vfs::FileLayer;
use header::Header;

/// Where the database lies; the first that is there counts. rpm-ostree keeps it in /usr/share.
const PLACES: [&str; 3] = ["/var/lib/rpm", "/usr/lib/sysimage/rpm", "/usr/share/rpm"];
/// Manifests of Mariner's and Azure Linux' distroless images, which have no database.
const MANIFEST: &str = "/var/lib/rpmmanifest/container-manifest-2";
/// Largest header of a package: big ones with 100,000 files have some 20 MiB.
const BLOB_MAX: usize = 64 << 20;
/// Packages that are reported.
const PACKAGES_MAX: usize = 200_000;
/// Damaged headers that are told of one by one.
const TOLD_MAX: usize = 16;

/// Collects packages from header blobs.
pub(super) struct Blobs<'a> {
    os: &'a Os,
    packages: Vec<Package>,
    problems: Vec<(&'static str, String)>,
    left_out: usize,
}

impl Blobs<'_> {
    fn take(&mut self, blob: &[u8]) -> Result<()> {
        if self.packages.len() >= PACKAGES_MAX {
            return Err(DiskError::OverBudget {
                budget: format!("{PACKAGES_MAX} packages"),
            });
        }
        match header::parse(blob) {
            Ok(header) => match package(header, self.os) {
                Some(package) => self.packages.push(package),
                None => self.problem("malformed", "a header without name or version".to_owned()),
            },
            Err(error) => self.problem("damaged", error.to_string()),
        }
        Ok(())
    }

    fn skip(&mut self, length: usize) {
        self.problem("over_budget", format!("a header of {length} bytes"));
    }

    fn problem(&mut self, code: &'static str, message: String) {
        if self.problems.len() < TOLD_MAX {
            self.problems.push((code, message));
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }
}

/// Packages of a system that has an rpm database; `None` for one that has none.
pub(super) fn read(scope: &mut Scope<'_>) -> Result<Option<Vec<Package>>> {
    for place in PLACES {
        if let Some(found) = database(scope, place)? {
            return Ok(Some(found));
        }
    }
    Ok(scope.text(MANIFEST).map(|text| {
        let rows = text.lines().filter_map(|line| manifest_row(line, scope.os));
        rows.take(PACKAGES_MAX).collect()
    }))
}

fn database(scope: &mut Scope<'_>, place: &str) -> Result<Option<Vec<Package>>> {
    let open = |path: &str| -> Result<Option<FileLayer>> {
        match scope.root.find(path)? {
            Some(found) => found.layer(),
            None => Ok(None),
        }
    };
    for name in ["rpmdb.sqlite", "Packages.db", "Packages"] {
        let path = format!("{place}/{name}");
        let Some(layer) = open(&path)? else {
            continue;
        };
        if crate::read_at::ReadAt::is_empty(&layer) {
            continue;
        }
        let log = open(&format!("{path}-wal"))?;
        let journal = open(&format!("{path}-journal"))?;
        let mut blobs = Blobs {
            os: scope.os,
            packages: Vec::new(),
            problems: Vec::new(),
            left_out: 0,
        };
        let result = backend(&layer, log.as_ref(), &mut blobs);
        if journal.is_some_and(|journal| !crate::read_at::ReadAt::is_empty(&journal)) {
            blobs.problem("unsupported", "a rollback journal is not read".to_owned());
        }
        if let Err(error) = result {
            // What came before the damage is worth telling.
            blobs.problem(super::code_of(&error), error.to_string());
        }
        if blobs.left_out > 0 {
            let more = format!("{} more problems", blobs.left_out);
            blobs.problems.push(("damaged", more));
        }
        let Blobs {
            packages, problems, ..
        } = blobs;
        for (code, message) in problems {
            scope.warn(code, &path, message);
        }
        return Ok(Some(packages));
    }
    Ok(None)
}

fn backend(layer: &FileLayer, log: Option<&FileLayer>, blobs: &mut Blobs<'_>) -> Result<()> {
    let head = crate::bytes::read_upto(layer, 0, 32)?;
    if sqlite::is_sqlite(&head) {
        let log = log.map(|log| {
            let log: &dyn crate::read_at::ReadAt = log;
            log
        });
        sqlite::read(layer, log, blobs)
    } else if ndb::is_ndb(&head) {
        ndb::read(layer, blobs)
    } else if bdb::is_bdb(&head) {
        bdb::read(layer, blobs)
    } else {
        Err(DiskError::Unsupported {
            feature: "this form of rpm database".to_owned(),
        })
    }
}

fn package(header: Header, os: &Os) -> Option<Package> {
    let name = header.name?;
    let version = header.version?;
    let release = header.release;
    let arch = header.arch.unwrap_or_default();
    // rpm leaves a source field out of packages built from none, and writes "(none)" in some.
    let source_rpm = header.source_rpm.filter(|source| source != "(none)");
    let evr = match &release {
        Some(release) => format!("{version}-{release}"),
        None => version.clone(),
    };
    let full_version = match header.epoch {
        Some(epoch) => format!("{epoch}:{evr}"),
        None => evr.clone(),
    };
    let (source, source_version) = match source_rpm.as_deref().and_then(source_of) {
        Some((source, version)) => (Some(source), Some(version)),
        None => (None, None),
    };
    let purl = Purl::of("rpm", &namespace(os), &name, &evr)
        .with("arch", Some(&arch))
        .with("distro", super::purl::distro(os).as_deref())
        .with(
            "epoch",
            header.epoch.map(|epoch| epoch.to_string()).as_deref(),
        )
        .with("rpmmod", header.modularity.as_deref())
        .with("upstream", source_rpm.as_deref())
        .text();
    Some(Package {
        name,
        full_version,
        manager: "rpm",
        epoch: header.epoch,
        version,
        release,
        arch,
        source,
        source_version,
        purl,
        size: header.size,
        status: "installed".to_owned(),
        license: header.license,
        vendor: header.vendor,
        install_time: header.install_time.map(i64::from),
    })
}

/// `name-version-release.src.rpm`.
fn source_of(file: &str) -> Option<(String, String)> {
    let stem = file
        .strip_suffix(".src.rpm")
        .or_else(|| file.strip_suffix(".nosrc.rpm"))?;
    let (rest, release) = stem.rsplit_once('-')?;
    let (name, version) = rest.rsplit_once('-')?;
    Some((name.to_owned(), format!("{version}-{release}")))
}

/// Vendor as package URLs name it (purl-spec, type rpm).
fn namespace(os: &Os) -> String {
    match os.distro.as_str() {
        "rhel" => "redhat".to_owned(),
        id if id.starts_with("opensuse") => "opensuse".to_owned(),
        id if id == "sled" || id.starts_with("sles") => "suse".to_owned(),
        id => id.to_owned(),
    }
}

/// Name, version-release, install time, build time, vendor, epoch, size, arch, epoch number, source,
/// by tabs.
fn manifest_row(line: &str, os: &Os) -> Option<Package> {
    let fields: Vec<String> = line.split('\t').map(clean).collect();
    let [
        name,
        evr,
        installed,
        _,
        vendor,
        _,
        size,
        arch,
        epoch,
        source,
        ..,
    ] = fields.as_slice()
    else {
        return None;
    };
    let (version, release) = match evr.rsplit_once('-') {
        Some((version, release)) => (version, Some(release.to_owned())),
        None => (evr.as_str(), None),
    };
    package(
        Header {
            name: Some(name.clone()),
            version: Some(version.to_owned()),
            release,
            epoch: epoch.parse().ok().filter(|epoch| *epoch != 0),
            install_time: installed.parse().ok(),
            size: size.parse().ok(),
            vendor: Some(vendor.clone()).filter(|vendor| vendor != "(none)"),
            license: None,
            arch: Some(arch.clone()),
            source_rpm: Some(source.clone()),
            modularity: None,
        },
        os,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fedora() -> Os {
        Os {
            distro: "fedora".to_owned(),
            version: Some("40".to_owned()),
            ..Os::default()
        }
    }

    #[test]
    fn a_header_becomes_a_package() {
        let blob = header::tests::blob(
            &[
                (1_000, "zlib-ng"),
                (1_001, "2.1"),
                (1_002, "3.fc40"),
                (1_022, "x86_64"),
                (1_044, "zlib-ng-2.1-3.fc40.src.rpm"),
            ],
            &[(1_003, 1), (1_008, 1_700_000_000)],
        );
        let found = package(header::parse(&blob).unwrap(), &fedora()).unwrap();
        assert_eq!(found.full_version, "1:2.1-3.fc40");
        assert_eq!(found.source.as_deref(), Some("zlib-ng"));
        assert_eq!(found.source_version.as_deref(), Some("2.1-3.fc40"));
        assert_eq!(found.install_time, Some(1_700_000_000));
        assert_eq!(
            found.purl,
            "pkg:rpm/fedora/zlib-ng@2.1-3.fc40?arch=x86_64&distro=fedora-40&epoch=1&upstream=zlib-ng-2.1-3.fc40.src.rpm"
        );
    }

    #[test]
    fn manifests_of_distroless_images_are_read() {
        let row = "zlib\t1.2.12-1.cm2\t1653816591\t1653753130\tMicrosoft Corporation\t(none)\t189542\tx86_64\t0\tzlib-1.2.12-1.cm2.src.rpm";
        let found = manifest_row(row, &fedora()).unwrap();
        assert_eq!(
            (found.name.as_str(), found.full_version.as_str()),
            ("zlib", "1.2.12-1.cm2")
        );
        assert_eq!(found.epoch, None);
        assert_eq!(manifest_row("zlib\t1", &fedora()), None);
    }
}
