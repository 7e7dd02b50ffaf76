//! A worker under hostile jobs mixed with good ones: every good one is answered rightly, its memory
//! stays flat, and no process is left behind.
//!
//! `GUESTKIT_HOSTILE_JOBS` says how many of each kind.

use crate::fleet::{job, wait_until};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(600);
/// What the worker's own memory may grow by between a fifth of the jobs and the end: caches of the
/// allocator and one line a key, not images.
const GROWTH_MAX: u64 = 24 << 20;

fn disk() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../inspector/tests/data/guests/deb12-gpt-ext4/deb12-gpt-ext4.qcow2")
}

fn jobs() -> usize {
    std::env::var("GUESTKIT_HOSTILE_JOBS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000)
}

/// Images that want to break the reader, read the host's files, or take for ever.
fn hostile_images(dir: &Path) -> Vec<String> {
    let good = fs::read(disk()).unwrap();
    let mut names = Vec::new();
    let mut add = |name: String, bytes: &[u8]| {
        fs::write(dir.join(&name), bytes).unwrap();
        names.push(name);
    };
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for n in 0..16_usize {
        let mut bad = good.clone();
        // Some change the header alone, others every table and file.
        let within = if n % 4 == 0 { 512 } else { bad.len() };
        for _ in 0..1 << (n % 12) {
            let at = usize::try_from(random()).unwrap_or(0) % within;
            bad[at] = random().to_le_bytes()[0];
        }
        add(format!("flipped-{n}.qcow2"), &bad);
    }
    add("cut.qcow2".to_owned(), &good[..good.len() / 3]);
    add("empty.qcow2".to_owned(), b"");
    add("text.qcow2".to_owned(), &b"no image at all\n".repeat(1_000));
    for (n, backing) in [
        "/etc/passwd",
        "../../../../etc/passwd",
        "json:{}",
        "nbd://h/x",
    ]
    .iter()
    .enumerate()
    {
        let mut leaky = good.clone();
        leaky[8..16].copy_from_slice(&400_u64.to_be_bytes());
        leaky[16..20].copy_from_slice(&u32::try_from(backing.len()).unwrap().to_be_bytes());
        leaky[400..400 + backing.len()].copy_from_slice(backing.as_bytes());
        add(format!("leaky-{n}.qcow2"), &leaky);
    }
    let huge = File::create(dir.join("huge.raw")).unwrap();
    huge.set_len(1 << 42).unwrap();
    huge.write_all_at(&[0x55, 0xaa], 510).unwrap();
    names.push("huge.raw".to_owned());
    names.push("missing.qcow2".to_owned());
    names.push("/etc/passwd".to_owned());
    names
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .unwrap();
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap();
    kib * 1_024
}

fn children(pid: u32) -> String {
    let mut children = String::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        children += &fs::read_to_string(task.path().join("children")).unwrap_or_default();
    }
    children
}

fn results(dir: &Path) -> usize {
    let found = fs::read_dir(dir.join("results")).unwrap().flatten();
    found
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .ends_with("-result.json")
        })
        .count()
}

#[test]
fn good_jobs_are_answered_rightly_among_hostile_ones() {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path();
    for folder in ["jobs", "results", "disks", "staged"] {
        fs::create_dir(dir.join(folder)).unwrap();
    }
    let hostile = hostile_images(&dir.join("disks"));
    fs::copy(disk(), dir.join("disks/good.qcow2")).unwrap();
    let count = jobs();
    let submit = |id: &str, image: &str| {
        let data = format!(r#"{{"image":{{"path":"{image}"}}}}"#);
        let hidden = dir.join("staged").join(id);
        fs::write(&hidden, job("guestkit.inspect", id, None, &data)).unwrap();
        fs::rename(hidden, dir.join(format!("jobs/{id}.json"))).unwrap();
    };
    for n in 0..count {
        submit(&format!("good-{n:06}"), "good.qcow2");
        submit(&format!("evil-{n:06}"), &hostile[n % hostile.len()]);
    }
    let mut worker = Command::new(env!("CARGO_BIN_EXE_guestkit-worker"))
        .arg("run")
        .arg("--jobs-dir")
        .arg(dir.join("jobs"))
        .arg("--results-dir")
        .arg(dir.join("results"))
        .arg("--disk-root")
        .arg(dir.join("disks"))
        .args(["--concurrency", "4"])
        .env("GUESTKIT_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(dir.join("log")).unwrap())
        .spawn()
        .unwrap();
    let total = count * 2;
    wait_until("a fifth of the jobs", LIMIT, || results(dir) >= total / 5);
    let early = resident(worker.id());
    wait_until("all jobs", LIMIT, || results(dir) == total);
    let late = resident(worker.id());
    assert_eq!(children(worker.id()), "", "a process is left");
    xtask::cluster::process::sigterm(worker.id()).unwrap();
    assert!(worker.wait().unwrap().success());
    println!(
        "{total} jobs; resident {} KiB, then {} KiB",
        early >> 10,
        late >> 10
    );
    assert!(late < early + GROWTH_MAX, "{early} bytes grew to {late}");

    let read = |id: &str| -> serde_json::Value {
        let path = dir.join(format!("results/{id}-result.json"));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let expected = read("good-000000");
    assert_eq!(expected["status"], "completed", "{expected}");
    let text = expected.to_string();
    assert!(text.contains("debian"), "{text}");
    for n in 0..count {
        let good = read(&format!("good-{n:06}"));
        assert_eq!(good["status"], "completed", "good-{n}: {}", good["error"]);
        assert_eq!(good["data"], expected["data"], "good-{n} differs");
        let evil = read(&format!("evil-{n:06}")).to_string();
        assert!(
            !evil.contains("root:x:0:0:root:/root"),
            "a host file came out: {evil}"
        );
    }
    let crashed = (0..count)
        .map(|n| read(&format!("evil-{n:06}")))
        .filter(|evil| evil["error"]["code"] == "INSPECTOR_CRASHED")
        .map(|evil| evil["error"].to_string())
        .next();
    assert_eq!(crashed, None, "a reader has a bug");
}
