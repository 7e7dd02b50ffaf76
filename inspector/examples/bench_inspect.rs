//! `./dev bench inspect`: what an inspection costs, process start and sandbox included, beside other tools.
//!
//! Prints a table and asserts nothing about time: machines are shared and noisy.

use anyhow_free::{Failure, fail};
use guestkit_inspector::budget::{Budget, Limits};
use guestkit_inspector::source::{HostOpener, HostRoots, Reading};
use guestkit_inspector::{clock, container, guest, layers};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The example's errors are sentences for the person who started it.
mod anyhow_free {
    pub(crate) type Failure = Box<dyn std::error::Error>;
    pub(crate) fn fail(text: String) -> Failure {
        text.into()
    }
}

/// Processes started for one row, after three that warm the page cache.
const RUNS: usize = 41;
const WARM_UP: usize = 3;
/// Configuration files that a compliance profile reads.
const PROFILE_FILES: usize = 450;
/// Inspections in a row by one worker.
const IN_A_ROW: usize = 1_000;
/// Another tool may take this long.
const OTHERS_LIMIT: Duration = Duration::from_secs(120);

fn main() -> Result<(), Failure> {
    let folder = std::env::current_exe()?;
    let folder = folder
        .parent()
        .and_then(Path::parent)
        .ok_or_else(|| fail("no target directory".into()))?
        .to_owned();
    let command = folder.join("guestkit-inspect");
    if !command.is_file() {
        return Err(fail(format!("{} is missing", command.display())));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let debian = root.join("inspector/tests/data/guests/deb12-gpt-ext4/deb12-gpt-ext4.qcow2");
    println!(
        "{:<40} {:>8} {:>8} {:>8} {:>9} {:>6} {:>9}",
        "one process each", "min ms", "median", "max", "KiB read", "reads", "peak MiB"
    );
    let mut isolation = String::new();
    for (name, image, more) in rows(&root, &debian) {
        if image.is_file() {
            measure(&command, &name, &image, &more, &mut isolation)?;
        } else {
            println!("{name:<40} not measured: no {}", image.display());
        }
    }
    println!("isolation: {isolation}\n");
    profile(&debian)?;
    in_a_row(&folder, &debian)?;
    others(&debian)
}

type Row = (String, PathBuf, Vec<String>);

fn rows(root: &Path, debian: &Path) -> Vec<Row> {
    let corpus = std::env::var_os("GUESTKIT_CORPUS_DIR")
        .map_or_else(|| root.join("../shared/data/disks"), PathBuf::from)
        .join("guests");
    let row = |name: &str, image: PathBuf, more: &[&str]| {
        let more = more.iter().map(|word| (*word).to_owned()).collect();
        (name.to_owned(), image, more)
    };
    let fedora = "fedora40-gpt-btrfs/fedora40-gpt-btrfs-streamOptimized.vmdk";
    let windows = "win11-mbr-ntfs/win11-mbr-ntfs-streamOptimized.vmdk";
    vec![
        row("Debian 12, qcow2, ext4", debian.to_owned(), &[]),
        row(
            "  its layers alone",
            debian.to_owned(),
            &["--section", "os"],
        ),
        row("  deep scan, all inodes", debian.to_owned(), &["--deep"]),
        row("Fedora 40, vmdk, btrfs", corpus.join(fedora), &[]),
        row("Windows 11, vmdk, NTFS", corpus.join(windows), &[]),
        row(
            "Ubuntu layout, raw, ext4 on LVM",
            root.join(".dev/guests/ubuntu-lvm/disk.img"),
            &[],
        ),
        row(
            "Arch, raw, XFS",
            root.join(".dev/guests/arch/disk.img"),
            &[],
        ),
        row(
            "SLES layout, raw, btrfs with snapshots",
            root.join(".dev/guests/sles-snapshots/disk.img"),
            &[],
        ),
    ]
}

fn measure(
    command: &Path,
    name: &str,
    image: &Path,
    more: &[String],
    isolation: &mut String,
) -> Result<(), Failure> {
    let mut times = Vec::new();
    let mut metrics = serde_json::Value::Null;
    for run in 0..WARM_UP + RUNS {
        let clock = clock::monotonic();
        let output = Command::new(command)
            .args(["--output", "json"])
            .args(more)
            .arg(image)
            .stdin(Stdio::null())
            .output()?;
        let time = clock();
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            println!("{name:<40} failed: {}", why.trim());
            return Ok(());
        }
        if run >= WARM_UP {
            times.push(time);
        }
        let last = String::from_utf8_lossy(&output.stderr);
        metrics = serde_json::from_str(last.lines().last().unwrap_or_default())?;
    }
    times.sort_unstable();
    let ms = |n: usize| times.get(n).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    println!(
        "{name:<40} {:>8.1} {:>8.1} {:>8.1} {:>9} {:>6} {:>9.1}",
        ms(0),
        ms(RUNS / 2),
        ms(RUNS - 1),
        metrics["bytes_read"].as_u64().unwrap_or(0) / 1024,
        metrics["reads"],
        metrics["peak_memory_bytes"].as_f64().unwrap_or(0.0) / (1 << 20) as f64,
    );
    if let Some(level) = metrics["isolation"].as_str() {
        *isolation = level.to_owned();
    }
    Ok(())
}

/// As a compliance profile reads: many small files, by path, in this process.
fn profile(image: &Path) -> Result<(), Failure> {
    let (roots, name) = beneath(image)?;
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..9 {
        let budget = Budget::new(
            Limits::default(),
            clock::monotonic(),
            Arc::new(AtomicBool::new(false)),
        );
        let reading = Reading::new(Arc::clone(&budget));
        let opener = HostOpener {
            roots: &roots,
            path: &name,
            reading: &reading,
        };
        let clock = clock::monotonic();
        let container = container::open(&opener, None)?;
        let examined = layers::examine(&container)?;
        let root = guest::main_root(&examined)?.ok_or_else(|| fail("no root".into()))?;
        let mut todo = vec!["/etc".to_owned(), "/usr/lib/systemd".to_owned()];
        let mut read = 0;
        while let Some(folder) = todo.pop() {
            for name in root.list(&folder)? {
                let path = format!("{folder}/{}", name.text());
                let Some(found) = root.find_link(&path)? else {
                    continue;
                };
                match found.metadata()?.kind {
                    guestkit_inspector::fs::NodeKind::Directory => todo.push(path),
                    guestkit_inspector::fs::NodeKind::File if read < PROFILE_FILES => {
                        root.read(&path, 1 << 20)?;
                        read += 1;
                    }
                    _ => {}
                }
            }
        }
        times.push(clock());
        bytes = budget.spent().bytes_read;
        if read < PROFILE_FILES {
            println!("only {read} files");
        }
    }
    times.sort_unstable();
    println!(
        "{PROFILE_FILES} configuration files by path: median {:.1} ms, {} KiB read",
        times[times.len() / 2].as_secs_f64() * 1e3,
        bytes / 1024
    );
    Ok(())
}

fn beneath(image: &Path) -> Result<(HostRoots, PathBuf), Failure> {
    let image = image.canonicalize()?;
    let folder = image.parent().unwrap_or(Path::new("/"));
    Ok((HostRoots::new([folder])?, image))
}

/// One worker with the file transport: jobs in a folder, results in another.
fn in_a_row(folder: &Path, image: &Path) -> Result<(), Failure> {
    let worker = folder.join("guestkit-worker");
    if !worker.is_file() {
        println!(
            "{IN_A_ROW} inspections by one worker: not measured, no {}",
            worker.display()
        );
        return Ok(());
    }
    let scratch = tempfile::tempdir()?;
    let jobs = scratch.path().join("jobs");
    let results = scratch.path().join("results");
    std::fs::create_dir_all(&jobs)?;
    std::fs::create_dir_all(&results)?;
    let image = image.canonicalize()?;
    for n in 0..IN_A_ROW {
        let job = serde_json::json!({
            "version": "1.0", "job_id": format!("bench-{n:08}"), "created_at": "2026-11-25T00:00:00Z",
            "kind": "VMOperation", "operation": "guestkit.inspect",
            "payload": {"type": "guestkit.inspect.v1", "data": {"image": {"path": image}}},
        });
        std::fs::write(jobs.join(format!("{n:08}.json")), job.to_string())?;
    }
    let mut child = Command::new(worker)
        .arg("run")
        .arg("--jobs-dir")
        .arg(&jobs)
        .arg("--results-dir")
        .arg(&results)
        .arg("--disk-root")
        .arg(image.parent().unwrap_or(Path::new("/")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let clock = clock::monotonic();
    let count = || {
        std::fs::read_dir(&results).map_or(0, |entries| {
            entries
                .flatten()
                .filter(|e| e.file_name().to_string_lossy().ends_with("-result.json"))
                .count()
        })
    };
    let mut done = count();
    while done < IN_A_ROW && clock() < OTHERS_LIMIT {
        std::thread::sleep(Duration::from_millis(20));
        done = count();
    }
    let time = clock();
    child.kill()?;
    child.wait()?;
    println!(
        "{done} inspections in a row by one worker: {:.1} s, {:.0} a second",
        time.as_secs_f64(),
        done as f64 / time.as_secs_f64()
    );
    Ok(())
}

/// The same image by other tools, where they are installed.
fn others(image: &Path) -> Result<(), Failure> {
    println!("\nother tools, the same image, one run after one that warms");
    let raw = tempfile::Builder::new().suffix(".raw").tempfile()?;
    let has = |name: &str| {
        std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
        })
    };
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let image_text = image.canonicalize()?.display().to_string();
    let mut tools: Vec<(&str, Vec<String>)> = vec![
        ("virt-inspector", words("--format=qcow2 -a")),
        ("target-info", Vec::new()),
        ("guestfish", words("--ro -i -a")),
    ];
    if has("qemu-img") && has("fls") {
        let status = Command::new("qemu-img")
            .args(["convert", "-O", "raw", &image_text])
            .arg(raw.path())
            .status()?;
        if status.success() {
            // Partition 2 begins at sector 133120; names alone.
            tools.push(("fls", words("-r -p -o 133120")));
        }
    }
    for (tool, mut arguments) in tools {
        if !has(tool) {
            println!("{tool:<20} not installed");
            continue;
        }
        arguments.push(if tool == "fls" {
            raw.path().display().to_string()
        } else {
            image_text.clone()
        });
        if tool == "guestfish" {
            arguments.extend(words("cat /etc/os-release"));
        }
        let mut last = Duration::ZERO;
        let mut good = true;
        for _ in 0..2 {
            let clock = clock::monotonic();
            let mut child = Command::new(tool)
                .args(&arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            good = loop {
                match child.try_wait()? {
                    Some(status) => break status.success(),
                    None if clock() > OTHERS_LIMIT => {
                        child.kill()?;
                        child.wait()?;
                        break false;
                    }
                    None => std::thread::sleep(Duration::from_millis(2)),
                }
            };
            last = clock();
            if !good {
                break;
            }
        }
        let note = if good { "" } else { "  (failed)" };
        println!("{tool:<20} {:.2} s{note}", last.as_secs_f64());
    }
    Ok(())
}
