//! Guest facts of trees in memory: package databases and os-release files of other projects.

use crate::support::{corpus, decompress, open_alone};
use guestkit_inspector::fs::memory::MemoryTree;
use guestkit_inspector::guest::{InspectOptions, describe};
use guestkit_inspector::layer::Memory;
use guestkit_inspector::layers::{self, Mountable};
use guestkit_inspector::report::{InspectReport, Package};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The report of a tree, as if it were the one file system of a disk.
pub(crate) fn report(tree: MemoryTree, options: &InspectOptions) -> InspectReport {
    let empty = open_alone(Arc::new(Memory(vec![0; 1 << 16])), Duration::from_secs(9)).unwrap();
    let mut examined = layers::examine(&empty).unwrap();
    examined.mountable.push(Mountable {
        device: "/dev/sda1".to_owned(),
        partition: Some(1),
        partuuid: None,
        partlabel: None,
        reader: Arc::new(tree),
    });
    describe(examined, options, &|_| {})
}

fn bytes(path: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    decompress(path).unwrap().read_to_end(&mut out).unwrap();
    out
}

fn packages(files: &[(&str, Vec<u8>)]) -> (Vec<Package>, Vec<String>) {
    let mut tree = MemoryTree::of(&[("/etc/os-release", "ID=fedora\nVERSION_ID=40\n")]);
    tree.link("/var/lib/rpm", "../../usr/lib/sysimage/rpm");
    for (name, content) in files {
        tree.file(&format!("/usr/lib/sysimage/rpm/{name}"), content.clone());
    }
    let options = InspectOptions::only(&["packages".to_owned()]).unwrap();
    let report = report(tree, &options);
    let warnings = report.sections.warnings;
    (
        report.sections.packages.unwrap(),
        warnings.into_iter().map(|w| w.message).collect(),
    )
}

/// As `rpm -qa` with name, epochnum, version, release, arch, sourcerpm, size, license, vendor,
/// modularity.
fn row(package: &Package) -> String {
    let or_none = |value: &str| if value.is_empty() { "(none)" } else { value }.to_owned();
    let source = package.purl.split("upstream=").nth(1).unwrap_or_default();
    let source = source.replace("%2B", "+");
    let module = package.purl.split("rpmmod=").nth(1).unwrap_or_default();
    let module = module.split('&').next().unwrap_or_default();
    [
        package.name.clone(),
        package.epoch.unwrap_or(0).to_string(),
        package.version.clone(),
        package.release.clone().unwrap_or_default(),
        or_none(&package.arch),
        or_none(&source),
        package.size.unwrap_or(0).to_string(),
        or_none(package.license.as_deref().unwrap_or_default()),
        or_none(package.vendor.as_deref().unwrap_or_default()),
        or_none(module),
    ]
    .join("\t")
}

fn agrees(dir: &Path, database: &str, expected: &[&str]) {
    let name = Path::new(database).file_name().unwrap().to_str().unwrap();
    let name = name.trim_end_matches(".zst");
    let (found, warnings) = packages(&[(name, bytes(&dir.join(database)))]);
    assert_eq!(warnings, Vec::<String>::new(), "{database}");
    let mut found: Vec<String> = found.iter().map(row).collect();
    found.sort();
    for expected in expected {
        let text = std::fs::read_to_string(dir.join("expected/rpmdb").join(expected)).unwrap();
        let mut rows: Vec<&str> = text.lines().collect();
        rows.sort_unstable();
        for (found, expected) in found.iter().zip(&rows) {
            assert_eq!(found, expected, "{database}");
        }
        assert_eq!(found.len(), rows.len(), "{database}");
    }
}

#[test]
fn every_package_of_every_rpm_database() {
    let Some(dir) = corpus("rpm databases") else {
        return;
    };
    for (database, expected) in [
        (
            "go-rpmdb/debian-2021/centos5-plain/Packages.zst",
            &[
                "go-rpmdb-centos5-plain.peer.tsv",
                "go-rpmdb-centos5-plain.rpm-qa.tsv",
            ][..],
        ),
        (
            "go-rpmdb/debian-2021/centos6-plain/Packages.zst",
            &[
                "go-rpmdb-centos6-plain.peer.tsv",
                "go-rpmdb-centos6-plain.rpm-qa.tsv",
            ],
        ),
        (
            "go-rpmdb/github-7e39c90/cbl-mariner-2.0/rpmdb.sqlite.zst",
            &["go-rpmdb-cbl-mariner-2.0.rpm-qa.tsv"],
        ),
        (
            "go-rpmdb/github-7e39c90/libuuid/Packages.zst",
            &["go-rpmdb-libuuid.rpm-qa.tsv"],
        ),
        (
            "go-rpmdb/github-7e39c90/sle15-bci/Packages.db.zst",
            &["go-rpmdb-sle15-bci.peer.tsv"],
        ),
    ] {
        agrees(&dir, database, expected);
    }
}

#[test]
fn the_log_of_an_rpm_database_counts() {
    let Some(dir) = corpus("an rpm database with a log") else {
        return;
    };
    let dir = dir.join("guests/rpmdb-uncheckpointed-wal");
    let main = bytes(&dir.join("rpmdb.sqlite"));
    let log = bytes(&dir.join("rpmdb.sqlite-wal"));
    let names = |files: &[(&str, Vec<u8>)]| -> Vec<String> {
        let (found, warnings) = packages(files);
        assert_eq!(warnings, Vec::<String>::new());
        found.into_iter().map(|package| package.name).collect()
    };
    let alone = names(&[("rpmdb.sqlite", main.clone())]);
    assert_eq!(alone.len(), 9);
    let both = names(&[
        ("rpmdb.sqlite", main.clone()),
        ("rpmdb.sqlite-wal", log.clone()),
    ]);
    assert_eq!(both.len(), 10);
    assert!(
        both.contains(&"late-arrival".to_owned()) && !alone.contains(&"late-arrival".to_owned())
    );
    // What was never committed does not count: one byte of the last frame is wrong.
    let mut torn = log;
    let last = torn.len() - 1;
    torn[last] ^= 1;
    let (found, _) = packages(&[("rpmdb.sqlite", main), ("rpmdb.sqlite-wal", torn)]);
    assert!(found.len() < 10);
}

/// Flipped bytes cost packages, never the report, and never more than a moment.
#[test]
fn damaged_rpm_databases_end_in_warnings() {
    let Some(dir) = corpus("damaged rpm databases") else {
        return;
    };
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for database in [
        "go-rpmdb/github-7e39c90/cbl-mariner-2.0/rpmdb.sqlite.zst",
        "go-rpmdb/github-7e39c90/libuuid/Packages.zst",
        "go-rpmdb/github-7e39c90/sle15-bci/Packages.db.zst",
    ] {
        let whole = bytes(&dir.join(database));
        let name = Path::new(database).file_stem().unwrap().to_str().unwrap();
        let (all, _) = packages(&[(name, whole.clone())]);
        let mut differed = 0;
        for _ in 0..60 {
            let mut damaged = whole.clone();
            for _ in 0..200 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                // Half of the flips go to the first pages, where the structure is.
                let reach = if state & 1 == 0 { damaged.len() } else { 8_192 };
                let at = (state >> 8) as usize % reach.min(damaged.len());
                damaged[at] = (state >> 48) as u8;
            }
            let (found, warnings) = packages(&[(name, damaged)]);
            assert!(found.len() <= all.len() * 2);
            if found != all || !warnings.is_empty() {
                differed += 1;
            }
        }
        assert!(differed > 30, "{database}: {differed}");
    }
}

/// Puts a folder's files into a tree.
fn load(tree: &mut MemoryTree, dir: &Path, at: &str) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{at}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            load(tree, &entry.path(), &path);
        } else {
            tree.file(&path, std::fs::read(entry.path()).unwrap());
        }
    }
}

#[test]
fn every_os_release_of_the_corpus() {
    let Some(dir) = corpus("os-release files") else {
        return;
    };
    let text = std::fs::read_to_string(dir.join("expected/os-release.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    let options = InspectOptions::only(&[]).unwrap();
    let mut compared = BTreeSet::new();
    for (name, row) in expected.as_object().unwrap() {
        let folder = dir.join(name);
        if !folder.is_dir() {
            // A row about one file is told by its folder; some rows name files that are not here.
            continue;
        }
        let mut tree = MemoryTree::default();
        load(&mut tree, &folder, "");
        let report = report(tree, &options);
        let os = report
            .os
            .first()
            .unwrap_or_else(|| panic!("{name}: nothing found"));
        let want = |key: &str| row.get(key).and_then(|value| value.as_str());
        assert_eq!(Some(&*os.distro), want("ID"), "{name}");
        // The version to report is os-release's; syft adds Debian's point release to it.
        let version = match (os.distro.as_str(), os.version.as_deref(), os.minor) {
            ("debian", Some(version), Some(minor)) if !version.contains('.') => {
                Some(format!("{version}.{minor}"))
            }
            (_, version, _) => version.map(str::to_owned),
        };
        assert_eq!(version.as_deref(), want("VersionID"), "{name}");
        if name.contains("os/centos") || name.contains("from-redhat-release") {
            // Without os-release syft makes up names; ours are the words of the file.
        } else {
            assert_eq!(os.product_name.as_deref(), want("Name"), "{name}");
            assert_eq!(os.pretty_name.as_deref(), want("PrettyName"), "{name}");
        }
        assert_eq!(os.build.as_deref(), want("BuildID"), "{name}");
        if let Some(codename) = want("VersionCodename") {
            assert_eq!(os.codename.as_deref(), Some(codename), "{name}");
        }
        if let Some(variant) = want("VariantID") {
            assert_eq!(os.variant.as_deref(), Some(variant), "{name}");
        }
        if let Some(cpe) = want("CPEName") {
            let start = cpe.replace("cpe:/", "cpe:2.3:").replace("::", ":*:");
            assert!(
                os.cpe.as_ref().unwrap().starts_with(&start),
                "{name} {:?}",
                os.cpe
            );
        }
        compared.insert(name.clone());
    }
    println!("{} os-release rows agree", compared.len());
    assert!(compared.len() >= 27, "{compared:?}");
}
