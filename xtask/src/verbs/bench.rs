//! Measurements; each is an example of the crate that it measures.

use crate::steps::{become_command, cargo, run as run_command};
use anyhow::{Context, Result};
use std::process::ExitCode;
use xtask::workspace::root;

#[derive(clap::Args)]
pub(crate) struct Options {
    what: Bench,
    /// Passed on; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Bench {
    /// Workers on a real Kafka, beside a bare loop that does the same work
    Fleet,
    /// Reading disk images
    Inspect,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    crate::interrupt::install()?;
    let (package, example) = match options.what {
        Bench::Fleet => ("guestkit-worker", "bench_fleet"),
        Bench::Inspect => ("guestkit-inspector", "bench_inspect"),
    };
    if let Bench::Inspect = options.what {
        // It measures the programs that users run.
        run_command(&mut cargo(&[
            "build",
            "--release",
            "-p",
            "guestkit-inspector",
            "-p",
            "guestkit-worker",
            "--bins",
        ]))?;
    }
    let mut command = cargo(&["run", "--release", "-p", package, "--example", example]);
    // Paths among the arguments are the user's: relative to where he is.
    let here = std::env::current_dir().context("current directory")?;
    command
        .arg("--manifest-path")
        .arg(root().join("Cargo.toml"));
    command.arg("--").args(&options.arguments).current_dir(here);
    become_command(&mut command)
}
