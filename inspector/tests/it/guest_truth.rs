//! Guest facts against what the guests' own tools said of them.

use crate::support::corpus;
use guestkit_inspector::budget::Limits;
use guestkit_inspector::guest::InspectOptions;
use guestkit_inspector::inspect::{Request, inspect};
use guestkit_inspector::report::{Coverage, InspectReport};
use guestkit_inspector::source::HostRoots;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn report(root: &Path, name: &str) -> InspectReport {
    let roots = HostRoots::new([root]).unwrap();
    let options = InspectOptions::default();
    let request = Request {
        roots: &roots,
        path: Path::new(name),
        further: &[],
        format: None,
        limits: Limits::default(),
        cancelled: Arc::new(AtomicBool::new(false)),
    };
    let (report, metrics) = inspect(&request, &options, &|_| {}).unwrap();
    println!(
        "{name}: {} bytes in {} reads, {:.1} ms",
        metrics.bytes_read, metrics.reads, metrics.milliseconds
    );
    let again = inspect(&request, &options, &|_| {}).unwrap().0;
    assert_eq!(
        serde_json::to_string(&report).unwrap(),
        serde_json::to_string(&again).unwrap(),
        "two runs differ"
    );
    report
}

fn read(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join("truth").join(name)).unwrap()
}

/// Compares as multisets and shows only what differs.
fn same_rows<'a>(found: Vec<String>, truth: impl Iterator<Item = &'a str>) {
    let mut rest = found;
    let missing: Vec<&str> = truth
        .filter(|row| match rest.iter().position(|found| found == row) {
            Some(at) => {
                rest.remove(at);
                false
            }
            None => true,
        })
        .collect();
    assert!(
        missing.is_empty() && rest.is_empty(),
        "missing {missing:#?}, too much {rest:#?}"
    );
}

fn users_and_mounts(report: &InspectReport, guest: &Path) {
    let found: BTreeSet<String> = report
        .sections
        .users
        .as_ref()
        .unwrap()
        .iter()
        .map(|u| {
            let (name, uid, gid) = (&u.name, u.uid, u.gid);
            format!("{name}:x:{uid}:{gid}:{}:{}:{}", u.gecos, u.home, u.shell)
        })
        .collect();
    let truth = read(guest, "passwd");
    assert_eq!(found, truth.lines().map(str::to_owned).collect());
    let found: Vec<String> = report
        .sections
        .mounts
        .as_ref()
        .unwrap()
        .iter()
        .map(|m| {
            let options = m.options.join(",");
            let (spec, target) = (&m.spec, &m.target);
            format!(
                "{spec} {target} {} {options} {} {}",
                m.fs_type, m.dump, m.pass
            )
        })
        .collect();
    let truth = read(guest, "fstab");
    assert_eq!(found, truth.lines().collect::<Vec<_>>());
}

fn debian(name: &str) {
    let Some(dir) = corpus("the Debian guest's facts") else {
        return;
    };
    let guest = dir.join("guests/deb12-gpt-ext4");
    let report = report(&guest, name);
    let sections = &report.sections;
    let packages = sections.packages.as_ref().unwrap();
    let found: Vec<String> = packages
        .iter()
        .map(|p| {
            let source = match (&p.source, &p.source_version) {
                (Some(source), Some(version)) => format!("{source} ({version})"),
                (Some(source), None) => source.clone(),
                (None, _) => String::new(),
            };
            let status = p.status.as_str();
            format!(
                "{}\t{}\t{}\t{source}\t{status}",
                p.name, p.full_version, p.arch
            )
        })
        .collect();
    let truth = read(&guest, "packages.tsv");
    // What is removed but for its configuration is not installed.
    let is_row = |row: &&str| !row.starts_with('#') && !row.ends_with("config-files");
    same_rows(found, truth.lines().filter(is_row));
    for package in packages {
        let start = format!("pkg:deb/debian/{}@", package.name.replace('+', "%2B"));
        assert!(package.purl.starts_with(&start), "{}", package.purl);
        assert!(package.purl.contains("distro=debian-12"));
    }
    users_and_mounts(&report, &guest);
    let mounts = sections.mounts.as_ref().unwrap();
    let devices: Vec<_> = mounts.iter().map(|m| m.device.as_deref()).collect();
    let [root, efi, swap] = ["/dev/sda2", "/dev/sda1", "/dev/sda3"].map(Some);
    assert_eq!(devices, [root, efi, swap, None]);
    let [os] = report.os.as_slice() else {
        panic!("{} systems", report.os.len());
    };
    assert_eq!(os.distro, "debian");
    assert_eq!((os.major, os.minor), (Some(12), Some(15)));
    assert_eq!(os.codename.as_deref(), Some("bookworm"));
    assert_eq!(os.arch.as_deref(), Some("amd64"));
    assert_eq!(os.hostname.as_deref(), Some("deb12-web01"));
    assert_eq!(os.init.as_deref(), Some("systemd"));
    for (section, coverage) in &sections.coverage {
        assert_eq!(
            *coverage,
            Coverage::Ok,
            "{section}: {:?}",
            sections.warnings
        );
    }
    let json = serde_json::to_string(&report).unwrap();
    assert!(!json.contains("$6$") && !json.contains("$y$"), "a hash");
}

#[test]
fn every_fact_of_the_debian_guest() {
    debian("deb12-gpt-ext4.qcow2");
}

#[test]
fn every_fact_of_the_debian_guest_through_an_overlay() {
    debian("variants/overlay.qcow2");
}

#[test]
fn every_fact_of_the_fedora_guest() {
    let Some(dir) = corpus("the Fedora guest's facts") else {
        return;
    };
    let guest = dir.join("guests/fedora40-gpt-btrfs");
    let report = report(&guest, "fedora40-gpt-btrfs-streamOptimized.vmdk");
    let [os] = report.os.as_slice() else {
        panic!("{} systems: {:?}", report.os.len(), report.os);
    };
    assert_eq!((&*os.distro, os.version.as_deref()), ("fedora", Some("40")));
    assert_eq!(os.variant.as_deref(), Some("server"));
    assert_eq!(os.subvolume.as_deref(), Some("root"));
    assert_eq!(os.hostname.as_deref(), Some("fedora40-app01"));
    let cpe = "cpe:2.3:o:fedoraproject:fedora:40:*:*:*:*:*:*:*";
    assert_eq!(os.cpe.as_deref(), Some(cpe));
    let or_none = |value: Option<&str>| value.unwrap_or("(none)").to_owned();
    let found: Vec<String> = report
        .sections
        .packages
        .as_ref()
        .unwrap()
        .iter()
        .map(|p| {
            let part = |key: &str| p.purl.split(key).nth(1)?.split('&').next();
            let arch = Some(p.arch.as_str()).filter(|arch| !arch.is_empty());
            [
                p.name.clone(),
                or_none(p.epoch.map(|epoch| epoch.to_string()).as_deref()),
                p.version.clone(),
                or_none(p.release.as_deref()),
                or_none(arch),
                or_none(part("upstream=")),
                or_none(part("rpmmod=")),
            ]
            .join("\t")
        })
        .collect();
    let truth = read(&guest, "packages.tsv");
    // An absent epoch is written as 0 or as nothing at all.
    let plain = |row: &str| {
        let mut fields: Vec<&str> = row.split('\t').collect();
        if matches!(fields.get(1), Some(&"0" | &"")) {
            fields[1] = "(none)";
        }
        fields.join("\t").trim_end().to_owned()
    };
    let rows: Vec<String> = truth
        .lines()
        .filter(|row| !row.starts_with('#'))
        .map(plain)
        .collect();
    same_rows(
        found.iter().map(|row| plain(row)).collect(),
        rows.iter().map(String::as_str),
    );
    users_and_mounts(&report, &guest);
    let mounts = report.sections.mounts.as_ref().unwrap();
    let devices: Vec<_> = mounts.iter().map(|m| m.device.as_deref()).collect();
    assert!(devices.iter().all(Option::is_some), "{devices:?}");
    for (section, coverage) in &report.sections.coverage {
        let warnings = &report.sections.warnings;
        assert_eq!(*coverage, Coverage::Ok, "{section}: {warnings:?}");
    }
}
