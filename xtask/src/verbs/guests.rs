//! Guests built from distribution packages, compared with the answers of the kernel and of reference
//! tools. Needs root, Python with `venv`, PyPI on the first run, and Debian's packages;
//! `inspector/guests/make.sh` names what is missing.

use crate::python;
use crate::steps::{cargo, run as run_command};
use anyhow::Result;
use std::process::{Command, ExitCode};
use xtask::workspace::root;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Compares what an earlier run built
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    crate::interrupt::install()?;
    run_command(&mut cargo(&[
        "build",
        "--release",
        "-p",
        "guestkit-inspector",
        "--bins",
    ]))?;
    let scripts = root().join("inspector/guests");
    let folder = root().join(".dev/guests");
    if !options.keep {
        let python = python::environment("guests-reference", &scripts.join("requirements.txt"))?;
        let mut make = Command::new(scripts.join("make.sh"));
        run_command(make.arg(&folder).env("PYTHON", python))?;
    }
    let command = crate::dependencies::target_directory()?.join("release/guestkit-inspect");
    let mut compare = Command::new("python3");
    compare
        .arg(scripts.join("compare.py"))
        .arg(command)
        .arg(folder);
    run_command(&mut compare)?;
    Ok(ExitCode::SUCCESS)
}
