//! A job's trace from a Python service through a worker to another, with a real collector. Needs Python with
//! `venv`, and PyPI on the first run.

use crate::python;
use crate::steps::{cargo, run as run_command, run_within};
use anyhow::{Context, Result};
use std::process::{Command, ExitCode};
use std::time::Duration;
use xtask::cluster::KafkaNode;
use xtask::workspace::root;

/// Longest time for all of it; it takes ten seconds.
const LIMIT: Duration = Duration::from_secs(180);
/// A guest with packages.
const IMAGE: &str = "inspector/tests/data/guests/deb12-gpt-ext4/deb12-gpt-ext4.qcow2";

pub(crate) fn run() -> Result<ExitCode> {
    crate::interrupt::install()?;
    run_command(&mut cargo(&[
        "build",
        "-p",
        "guestkit-worker",
        "-p",
        "guestkit-jobs",
    ]))?;
    let kafka = KafkaNode::builder().start().context("Kafka")?;
    check(kafka.bootstrap())?;
    Ok(ExitCode::SUCCESS)
}

/// The check alone, on a Kafka that runs, with the programs as they are built.
pub(crate) fn check(bootstrap: &str) -> Result<()> {
    let folder = root().join("examples/tracing");
    let python = python::environment("py-tracing", &folder.join("requirements.txt"))?;
    let programs = crate::dependencies::target_directory()?.join("debug");
    let mut check = Command::new(python);
    check
        .arg(folder.join("check.py"))
        .arg(bootstrap)
        .arg(programs)
        .arg(root().join(IMAGE))
        // What the caller's shell says of telemetry is not what is tested.
        .env_remove("TRACEPARENT")
        .env_remove("OTEL_TRACES_SAMPLER");
    run_within(&mut check, LIMIT)
}
