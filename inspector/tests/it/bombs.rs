//! Images that are small on disk and want to be endless: bounded time and memory, a partial report
//! where there is one, and the reason in it.

use crate::isolate::boxed;
use guestkit_inspector::budget::Limits;
use guestkit_inspector::guest::InspectOptions;
use guestkit_inspector::inspect::Request;
use guestkit_inspector::isolate::Failure;
use guestkit_inspector::report::InspectMetrics;
use guestkit_inspector::source::HostRoots;
use guestkit_inspector::task::{Form, Place, Task};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The bound of the issue: any hostile image ends within 20 s and 512 MiB.
const WALL: Duration = Duration::from_secs(20);
const MEMORY: u64 = 512 << 20;

pub(crate) struct Ran {
    pub(crate) answer: Result<(Vec<u8>, InspectMetrics), Failure>,
}

pub(crate) fn ask(dir: &Path, name: &str, task: &Task, limits: Limits) -> Ran {
    let roots = HostRoots::new([dir]).unwrap();
    let request = Request {
        roots: &roots,
        further: &[],
        path: Path::new(name),
        format: None,
        limits,
        cancelled: Arc::default(),
    };
    let mut out = Vec::new();
    #[allow(clippy::disallowed_methods)] // a test may look at the clock
    let start = Instant::now();
    let answer = boxed().answer(&request, task, &mut out, &|_| {});
    assert!(start.elapsed() < WALL, "{name}: {:?}", start.elapsed());
    if let Ok(metrics) = &answer {
        let peak = metrics.peak_memory_bytes.unwrap();
        assert!(peak < MEMORY, "{name}: {peak} bytes");
        println!(
            "{name}: {:?}, {} MiB, {} reads",
            start.elapsed(),
            peak >> 20,
            metrics.reads
        );
    }
    Ran {
        answer: answer.map(|metrics| (out, metrics)),
    }
}

pub(crate) fn report(dir: &Path, name: &str) -> Ran {
    let task = Task::Report {
        form: Form::Json,
        options: InspectOptions::default(),
    };
    ask(dir, name, &task, Limits::default())
}

impl Ran {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.answer.as_ref().unwrap().0).unwrap()
    }

    /// Neither a crash nor a hang, whatever else.
    pub(crate) fn is_civil(&self) -> bool {
        matches!(self.answer, Ok(_) | Err(Failure::Image { .. }))
    }
}

/// `mke2fs -d` of a folder; tells when the tool is not there.
pub(crate) fn ext4(dir: &Path, name: &str, size: &str, more: &[&str]) -> bool {
    let tree = dir.join("tree");
    let made = Command::new("mke2fs")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(["-q", "-F", "-t", "ext4", "-m", "0"])
        .args(more)
        .arg("-d")
        .arg(&tree)
        .arg(dir.join(name))
        .arg(size)
        .stdin(Stdio::null())
        .status();
    match made {
        Ok(status) => {
            assert!(status.success(), "mke2fs: {status}");
            true
        }
        Err(error) => {
            let line = format!("not run: bombs on ext4: mke2fs: {error}");
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{line}");
            eprintln!("{line}");
            false
        }
    }
}

pub(crate) fn guest(dir: &Path) {
    let tree = dir.join("tree");
    for folder in ["etc", "bin", "var/lib/dpkg", "usr/lib/systemd/system"] {
        fs::create_dir_all(tree.join(folder)).unwrap();
    }
    fs::write(tree.join("etc/os-release"), "ID=debian\nVERSION_ID=12\n").unwrap();
    fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    fs::write(
        tree.join("var/lib/dpkg/status"),
        "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n",
    )
    .unwrap();
}

#[test]
fn a_sparse_gigabyte_of_passwd_costs_the_users_and_nothing_else() {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path();
    guest(dir);
    let passwd = File::create(dir.join("tree/etc/passwd")).unwrap();
    passwd.set_len(1 << 30).unwrap();
    let status = File::options()
        .append(true)
        .open(dir.join("tree/var/lib/dpkg/status"))
        .unwrap();
    drop(status);
    if !ext4(dir, "sparse.img", "64M", &[]) {
        return;
    }
    let report = report(dir, "sparse.img").json();
    let coverage = &report["coverage"];
    assert_eq!(coverage["packages"], "ok", "{coverage}");
    assert!(
        coverage["users"] == "partial" || coverage["users"] == "over_budget",
        "{coverage}"
    );
    let warnings = report["warnings"].as_array().unwrap();
    assert!(
        warnings
            .iter()
            .any(|w| w["code"] == "over_budget" && w["section"] == "users"),
        "{warnings:?}"
    );
}

#[test]
fn a_sparse_gigabyte_of_packages_costs_the_packages_and_nothing_else() {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path();
    guest(dir);
    let status = File::create(dir.join("tree/var/lib/dpkg/status")).unwrap();
    status.set_len(1 << 30).unwrap();
    if !ext4(dir, "sparse.img", "64M", &[]) {
        return;
    }
    let report = report(dir, "sparse.img").json();
    assert_eq!(report["coverage"]["users"], "ok", "{}", report["coverage"]);
    assert_eq!(
        report["coverage"]["packages"], "over_budget",
        "{}",
        report["coverage"]
    );
}

#[test]
fn links_in_circles_and_deep_paths_end() {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path();
    guest(dir);
    let tree = dir.join("tree");
    std::os::unix::fs::symlink("fstab", tree.join("etc/fstab")).unwrap();
    std::os::unix::fs::symlink("..", tree.join("etc/ssh")).unwrap();
    std::os::unix::fs::symlink("/../../../../../../etc/shadow", tree.join("etc/shadow")).unwrap();
    let mut deep = tree.join("deep");
    for _ in 0..600 {
        deep.push("d");
    }
    // Longer than a path may be: made step by step.
    let mut at =
        rustix::fs::open(&tree, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..600 {
        let mode = rustix::fs::Mode::from_raw_mode(0o755);
        rustix::fs::mkdirat(&at, "d", mode).unwrap();
        at = rustix::fs::openat(
            &at,
            "d",
            rustix::fs::OFlags::PATH,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
    }
    if !ext4(dir, "deep.img", "32M", &[]) {
        return;
    }
    let found = report(dir, "deep.img").json();
    assert_eq!(found["coverage"]["packages"], "ok");
    let text = found.to_string();
    let shadow = fs::read_to_string("/etc/shadow").unwrap_or_default();
    let secret = shadow.split(':').nth(1).unwrap_or("*");
    assert!(
        secret.len() < 8 || !text.contains(secret),
        "the host's shadow is in the report"
    );
    let walk = Task::Tree {
        form: Form::Json,
        place: Place {
            device: None,
            path: "/".to_owned(),
        },
        sha256: true,
    };
    let ran = ask(dir, "deep.img", &walk, Limits::default());
    assert!(ran.is_civil(), "{:?}", ran.answer.err());
}

/// A directory of 200,000 names; a million take mke2fs minutes, and the reader's bounds are the same.
#[test]
fn a_directory_without_end_is_listed_within_bounds() {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path();
    guest(dir);
    if !ext4(
        dir,
        "wide.img",
        "256M",
        &["-O", "^has_journal,^metadata_csum", "-N", "4096"],
    ) {
        return;
    }
    // The directory claims eight million blocks, all of them the same: an extent a piece.
    let image = File::options()
        .read(true)
        .write(true)
        .open(dir.join("wide.img"))
        .unwrap();
    let debugfs = Command::new("debugfs")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args([
            "-w",
            "-R",
            "set_inode_field /usr/lib/systemd/system size 0x7fffffff000",
        ])
        .arg(dir.join("wide.img"))
        .stderr(Stdio::null())
        .status();
    drop(image);
    assert!(debugfs.unwrap().success());
    let ran = report(dir, "wide.img");
    assert!(ran.is_civil(), "{:?}", ran.answer.err());
    let found = ran.json();
    assert_eq!(found["coverage"]["packages"], "ok", "{}", found["coverage"]);
}

/// Directories that contain themselves.
#[test]
fn a_directory_inside_itself_ends() {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path();
    guest(dir);
    fs::create_dir_all(dir.join("tree/loop/inner")).unwrap();
    if !ext4(dir, "loop.img", "32M", &["-O", "^metadata_csum"]) {
        return;
    }
    let linked = Command::new("debugfs")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(["-w", "-R", "link /loop /loop/inner/again"])
        .arg(dir.join("loop.img"))
        .stderr(Stdio::null())
        .status();
    assert!(linked.unwrap().success());
    assert!(report(dir, "loop.img").is_civil());
    let walk = Task::Tree {
        form: Form::Table,
        place: Place {
            device: None,
            path: "/".to_owned(),
        },
        sha256: false,
    };
    let ran = ask(dir, "loop.img", &walk, Limits::default());
    assert!(
        matches!(ran.answer, Err(Failure::Image { .. })),
        "a tree without end was listed"
    );
}

/// qcow2 version 2 with an L1 table whose every cluster is the same compressed one.
fn compressed_bomb(virtual_size: u64) -> Vec<u8> {
    let mut image = vec![0_u8; 64 << 10];
    image[..4].copy_from_slice(b"QFI\xfb");
    image[4..8].copy_from_slice(&2_u32.to_be_bytes());
    image[20..24].copy_from_slice(&16_u32.to_be_bytes());
    image[24..32].copy_from_slice(&virtual_size.to_be_bytes());
    let l1_entries = virtual_size.div_ceil(512 << 20).min(8_192);
    image[36..40].copy_from_slice(&(l1_entries as u32).to_be_bytes());
    image[40..48].copy_from_slice(&0x1_0000_u64.to_be_bytes());
    image[48..56].copy_from_slice(&0x1_0000_u64.to_be_bytes());
    image[56..60].copy_from_slice(&1_u32.to_be_bytes());
    // L1 at 64 KiB, every entry the L2 at 128 KiB, every entry the cluster at 192 KiB.
    image.resize(0x3_0000, 0);
    for entry in 0..l1_entries as usize {
        image[0x1_0000 + entry * 8..][..8].copy_from_slice(&(0x2_0000_u64 | 1 << 63).to_be_bytes());
    }
    for entry in 0..8_192 {
        image[0x2_0000 + entry * 8..][..8].copy_from_slice(&(0x3_0000_u64 | 1 << 62).to_be_bytes());
    }
    let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut deflate, &[0x55_u8; 64 << 10]).unwrap();
    image.extend(deflate.finish().unwrap());
    image.resize(image.len().next_multiple_of(512), 0);
    image
}

#[test]
fn compressed_clusters_and_impossible_sizes_end() {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path();
    for (name, size) in [
        ("terabytes.qcow2", 4_u64 << 40),
        ("exbibytes.qcow2", 1 << 63),
        ("all-ones.qcow2", u64::MAX),
    ] {
        fs::write(dir.join(name), compressed_bomb(size)).unwrap();
        let ran = report(dir, name);
        assert!(ran.is_civil(), "{name}: {:?}", ran.answer.err());
    }
    // A raw disk as long as a file can be.
    let huge = File::create(dir.join("huge.raw")).unwrap();
    if huge.set_len(1 << 43).is_ok() {
        huge.write_all_at(&[0x55, 0xaa], 510).unwrap();
        huge.write_all_at(
            &[
                0x80, 0, 0, 0, 0x83, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
            ],
            446,
        )
        .unwrap();
        let ran = report(dir, "huge.raw");
        assert!(ran.is_civil(), "huge.raw: {:?}", ran.answer.err());
    }
}

#[test]
fn an_answer_is_not_without_end() {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path();
    guest(dir);
    File::create(dir.join("tree/big"))
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    if !ext4(dir, "big.img", "32M", &[]) {
        return;
    }
    let cat = Task::Cat {
        place: Place {
            device: None,
            path: "/big".to_owned(),
        },
    };
    let Err(Failure::Image { message, .. }) = ask(dir, "big.img", &cat, Limits::default()).answer
    else {
        panic!("a gigabyte came out");
    };
    assert!(message.contains("longer than 33554432 bytes"), "{message}");
}

#[test]
fn a_budget_that_runs_out_in_one_section_leaves_the_others_their_share() {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path();
    guest(dir);
    // 40 MiB of real packages, with a budget of 24 MiB.
    let paragraph =
        "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\nDescription: ";
    let mut text = String::new();
    for n in 0..40 {
        text.push_str(paragraph);
        text.push_str(&format!("{n}{}\n\n", "x".repeat(1 << 20)));
    }
    fs::write(dir.join("tree/var/lib/dpkg/status"), text).unwrap();
    if !ext4(dir, "share.img", "96M", &[]) {
        return;
    }
    let task = Task::Report {
        form: Form::Json,
        options: InspectOptions::default(),
    };
    let limits = Limits {
        bytes: 24 << 20,
        ..Limits::default()
    };
    let found = ask(dir, "share.img", &task, limits).json();
    assert_eq!(
        found["coverage"]["packages"], "over_budget",
        "{}",
        found["coverage"]
    );
    assert_eq!(found["coverage"]["users"], "ok", "{}", found["coverage"]);
    assert_eq!(found["coverage"]["services"], "ok", "{}", found["coverage"]);
}

/// However little may be read, there is a report that says what is missing; only an image that cannot
/// even be opened for want of a budget is an error.
#[test]
fn a_budget_that_runs_out_before_a_system_is_found_is_told() {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path();
    guest(dir);
    if !ext4(dir, "small.img", "16M", &[]) {
        return;
    }
    let task = Task::Report {
        form: Form::Json,
        options: InspectOptions::default(),
    };
    let mut seen = std::collections::BTreeSet::new();
    let few = (1..4)
        .chain((4..60).step_by(4))
        .chain((60..900).step_by(60));
    for steps in few.chain([2_000, 20_000]) {
        let limits = Limits {
            steps,
            ..Limits::default()
        };
        let ran = ask(dir, "small.img", &task, limits);
        if let Err(Failure::Image { message, .. }) = &ran.answer {
            assert!(message.contains("over budget"), "{steps} steps: {message}");
            seen.insert("error");
            continue;
        }
        let found = ran.json();
        let coverage = &found["coverage"];
        let warned = |section: &str| {
            let warnings = found["warnings"].as_array().unwrap();
            warnings
                .iter()
                .any(|w| w["section"] == section && w["code"] == "over_budget")
        };
        if coverage["disk"] == "over_budget" {
            assert!(warned("disk"), "{steps} steps: {found:#}");
            assert_ne!(coverage["os"], "ok", "{steps} steps: {coverage}");
            seen.insert("disk");
        } else if coverage["os"] == "over_budget" {
            assert!(warned("os"), "{steps} steps: {found:#}");
            seen.insert("os");
        } else {
            assert_eq!(coverage["os"], "ok", "{steps} steps: {coverage}");
            assert_eq!(found["os"][0]["distro"], "debian", "{steps} steps");
            seen.insert("found");
        }
    }
    // Each of the outcomes was met, else the steps above are the wrong ones.
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        ["disk", "error", "found", "os"]
    );
}
