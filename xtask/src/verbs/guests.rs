//! Guests built from distribution packages, compared with the answers of the kernel and of reference
//! tools. Needs root and Debian's packages; `inspector/guests/make.sh` names what is missing.

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
        run_command(Command::new(scripts.join("make.sh")).arg(&folder))?;
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
