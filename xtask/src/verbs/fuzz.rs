//! Fuzzes the readers of the inspector.
//!
//! Coverage instrumentation is plain code generation options, so a stable toolchain does; what
//! `cargo fuzz` adds is an address sanitizer, of little use to safe Rust. Its layout is kept: `cargo
//! +nightly fuzz run TARGET` works on the same targets and folders.

use crate::steps::{cargo, run as run_command};
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use xtask::workspace::root;

/// The readers that face the most complicated bytes, or crates that nobody but us tests.
const RISKIEST: [&str; 8] = [
    "ntfs",
    "btrfs",
    "xfs",
    "hive-system",
    "rpm-bdb",
    "vhdx",
    "squashfs",
    "ext",
];

/// What `-fsanitize=fuzzer-no-link` is to clang.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Longest input of a target that changes an image: some 450 changes, more than any reader looks at.
const CHANGES_MAX: usize = 4 << 10;
/// Longest input that is a whole file: the seeds are no longer.
const FILE_MAX: usize = 512 << 10;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long each target runs
    #[arg(long, default_value_t = 1)]
    minutes: u64,
    /// A target; may be given several times [default: the eight riskiest]
    #[arg(long = "target", value_name = "NAME")]
    targets: Vec<String>,
    /// All targets
    #[arg(long, conflicts_with = "targets")]
    all: bool,
    /// Names the targets, runs nothing
    #[arg(long)]
    list: bool,
    /// How many run at the same time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

struct Outcome {
    target: String,
    executions: u64,
    ok: bool,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let folder = root().join("fuzz");
    let known = names(&folder)?;
    if options.list {
        println!("{}", known.join("\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let targets: Vec<String> = if options.all {
        known.clone()
    } else if options.targets.is_empty() {
        RISKIEST.map(str::to_owned).to_vec()
    } else {
        options.targets.clone()
    };
    for target in &targets {
        ensure!(
            known.contains(target),
            "no target {target:?}; --list names them"
        );
    }
    crate::interrupt::install()?;
    run_command(
        cargo(&[
            "test",
            "-q",
            "-p",
            "guestkit-inspector",
            "--test",
            "it",
            "--",
        ])
        .args(["--ignored", "--exact", "regressions::write_seeds"])
        .env("GUESTKIT_FUZZ_DIR", &folder),
    )?;
    build(&folder, &targets)?;
    let mut outcomes = Vec::new();
    for some in targets.chunks(options.jobs.max(1)) {
        if crate::interrupt::asked() {
            break;
        }
        let running: Vec<_> = some
            .iter()
            .map(|target| Ok((target, start(&folder, target, options.minutes)?)))
            .collect::<Result<_>>()?;
        for (target, (mut child, log)) in running {
            let ok = child.wait()?.success();
            let text = fs::read_to_string(&log)?;
            let executions = text
                .lines()
                .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
                .and_then(|number| number.trim().parse().ok())
                .unwrap_or(0);
            println!(
                "{target:<16} {executions:>12} executions  {}",
                if ok {
                    "nothing found"
                } else {
                    "FOUND SOMETHING"
                }
            );
            if !ok {
                println!("    {}", log.display());
            }
            outcomes.push(Outcome {
                target: target.clone(),
                executions,
                ok,
            });
        }
    }
    if let Some(bad) = outcomes.iter().find(|outcome| !outcome.ok) {
        bail!(
            "{} after {} executions: the input lies in fuzz/artifacts/{0}; once fixed, keep it in inspector/tests/regressions/{0}",
            bad.target,
            bad.executions
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Targets that `fuzz/Cargo.toml` lists.
fn names(folder: &Path) -> Result<Vec<String>> {
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).context("fuzz/Cargo.toml")?;
    let (_, binaries) = manifest
        .split_once("[[bin]]")
        .context("fuzz/Cargo.toml lists no target")?;
    Ok(binaries
        .lines()
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        .map(str::to_owned)
        .collect())
}

fn triple() -> Result<String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .context("rustc -vV")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

fn build(folder: &Path, targets: &[String]) -> Result<()> {
    let mut build = cargo(&["build", "--release", "--manifest-path", "fuzz/Cargo.toml"]);
    // A target of its own, so that build scripts and macros are not instrumented.
    build
        .args(["--target", &triple()?])
        .env("RUSTFLAGS", COVERAGE);
    build.env("CARGO_TARGET_DIR", folder.join("target"));
    for target in targets {
        build.args(["--bin", target]);
    }
    run_command(&mut build)
}

fn start(folder: &Path, target: &str, minutes: u64) -> Result<(std::process::Child, PathBuf)> {
    let artifacts = folder.join("artifacts").join(target);
    let logs = folder.join("logs");
    fs::create_dir_all(&artifacts)?;
    fs::create_dir_all(&logs)?;
    let log = logs.join(format!("{target}.log"));
    let program = folder
        .join("target")
        .join(triple()?)
        .join("release")
        .join(target);
    let is_change = folder.join("bases").join(target).is_dir();
    let longest = if is_change { CHANGES_MAX } else { FILE_MAX };
    let child = Command::new(&program)
        .arg(folder.join("corpus").join(target))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(format!("-max_total_time={}", minutes.saturating_mul(60)))
        .arg(format!("-max_len={longest}"))
        // What an inspection may take: 20 s, 512 MiB. The fuzzer's own inputs count among them.
        .args(["-timeout=20", "-rss_limit_mb=512"])
        // Seeds are long enough to begin with.
        .args(["-len_control=0", "-print_final_stats=1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log)?)
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    Ok((child, log))
}
