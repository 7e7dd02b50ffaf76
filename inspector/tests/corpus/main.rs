//! `./dev corpus`: every disk image of the corpus against the answers of reference tools, as one table.
//!
//! A program of its own, not a list of tests: it prints a table by container and file system and ends
//! with failure when a row is wrong, when too few are identical, or when a corrupt one takes too long.

#![allow(clippy::unwrap_used)] // a test program

mod answers;
mod check;
#[allow(dead_code)] // shared with tests/it, which uses more of it
#[path = "../it/support.rs"]
mod support;

use check::Verdict;
use guestkit_inspector::clock;
use guestkit_inspector::layers;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;
use support::{Plain, Row, corpus, decompress, manifest, open_alone, walk};

/// Wall time that any image may take (issue: corrupt rows end within 20 s).
const WALL: Duration = Duration::from_secs(20);
/// Memory that reading all of them may take, in KiB: each runs in this one process.
const MEMORY_KIB_MAX: u64 = 512 << 10;
/// Rows of a hundred that have to be identical.
const IDENTICAL_PERCENT: usize = 97;

/// What may stay unread. Anything else that is unsupported was read before: a step back.
const UNREAD: [&str; 5] = ["OVA without a disk", "apfs", "cloop", "dmg", "hfsplus"];

#[derive(Default)]
struct Line {
    identical: usize,
    unsupported: usize,
    wrong: usize,
}

fn main() -> ExitCode {
    // `cargo test NAME` asks every test program; without a match there is nothing to do here.
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--list")
        || words
            .iter()
            .any(|w| !w.starts_with('-') && !"corpus".contains(w.as_str()))
    {
        return ExitCode::SUCCESS;
    }
    let Some(dir) = corpus("the table of the corpus") else {
        return ExitCode::SUCCESS;
    };
    let answers = answers::Answers::load(&dir);
    let mut table: BTreeMap<(String, String, String), Line> = BTreeMap::new();
    let mut features: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut corrupt = Corrupt::default();
    for row in manifest(&dir) {
        if row.kind.starts_with("corrupt") {
            corrupt.read(&dir, &row);
            continue;
        }
        let Some(answer) = answers.of(&dir, &row) else {
            continue;
        };
        let verdict = check::row(&dir, &row, &answer);
        let key = (
            row.container.clone(),
            row.partitioning.clone(),
            row.filesystem.clone(),
        );
        let line = table.entry(key).or_default();
        match verdict {
            Verdict::Identical => line.identical += 1,
            Verdict::Unsupported(feature) => {
                line.unsupported += 1;
                *features.entry(feature).or_default() += 1;
            }
            Verdict::Wrong(why) => {
                line.wrong += 1;
                wrong.push(format!("{}: {why}", row.path));
            }
        }
    }
    report(&table, &features, &wrong, &corrupt)
}

fn report(
    table: &BTreeMap<(String, String, String), Line>,
    features: &BTreeMap<String, usize>,
    wrong: &[String],
    corrupt: &Corrupt,
) -> ExitCode {
    println!(
        "{:<24} {:<8} {:<28} {:>9} {:>11} {:>5}",
        "CONTAINER", "VOLUME", "FILE SYSTEM", "IDENTICAL", "UNSUPPORTED", "WRONG"
    );
    let mut sum = Line::default();
    for ((container, volume, filesystem), line) in table {
        println!(
            "{container:<24} {volume:<8} {filesystem:<28} {:>9} {:>11} {:>5}",
            line.identical, line.unsupported, line.wrong
        );
        sum.identical += line.identical;
        sum.unsupported += line.unsupported;
        sum.wrong += line.wrong;
    }
    let all = sum.identical + sum.unsupported + sum.wrong;
    println!(
        "{:<62} {:>9} {:>11} {:>5}   of {all}",
        "", sum.identical, sum.unsupported, sum.wrong
    );
    for (feature, count) in features {
        println!("unsupported: {feature} ({count})");
    }
    for why in wrong {
        println!("WRONG {why}");
    }
    let memory = peak_kib();
    println!(
        "corrupt images: {} read whole, {} in part, {} refused; slowest {:.1} s ({}); peak memory of all {} MiB",
        corrupt.whole,
        corrupt.partial,
        corrupt.refused,
        corrupt.slowest.as_secs_f64(),
        corrupt.slowest_path,
        memory >> 10,
    );
    let enough = sum.identical * 100 >= all * IDENTICAL_PERCENT;
    let lost = features
        .keys()
        .any(|feature| !UNREAD.contains(&feature.as_str()));
    let failures = [
        (!wrong.is_empty(), "rows are wrong"),
        (lost, "a feature that was read is unsupported"),
        (!enough, "too few rows are identical"),
        (
            corrupt.slowest > WALL + Duration::from_secs(1),
            "a corrupt row took too long",
        ),
        (memory > MEMORY_KIB_MAX, "too much memory"),
    ];
    let failed: Vec<&str> = failures.iter().filter(|f| f.0).map(|f| f.1).collect();
    for why in &failed {
        println!("FAILED: {why}");
    }
    println!(
        "\ncorpus: {} passed, {} failed",
        sum.identical + sum.unsupported,
        failed.len().max(wrong.len())
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What became of the images that are damaged on purpose.
#[derive(Default)]
struct Corrupt {
    whole: u32,
    partial: u32,
    refused: u32,
    slowest: Duration,
    slowest_path: String,
}

impl Corrupt {
    fn read(&mut self, dir: &std::path::Path, row: &Row) {
        if row.container == "-" || row.container.starts_with("text") || row.container == "hive" {
            return;
        }
        let Some(file) = decompress(&dir.join(&row.path)) else {
            return;
        };
        let clock = clock::monotonic();
        let outcome = open_alone(Plain::layer(file), WALL).and_then(|c| layers::examine(&c));
        match outcome {
            Err(_) => self.refused += 1,
            Ok(examined) if examined.mountable.is_empty() => self.refused += 1,
            Ok(examined) => {
                let damaged = examined
                    .mountable
                    .iter()
                    .any(|m| !walk(m.reader.as_ref(), true).1.is_empty());
                if damaged {
                    self.partial += 1;
                } else {
                    self.whole += 1;
                }
            }
        }
        let time = clock();
        if time > self.slowest {
            self.slowest = time;
            self.slowest_path.clone_from(&row.path);
        }
    }
}

/// High-water mark of this process' memory (proc(5), VmHWM).
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(u64::MAX)
}
