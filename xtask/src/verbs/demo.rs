//! The product at work, without anything around it.

use crate::dependencies::target_directory;
use crate::steps::{become_command, cargo, run as run_command, run_within};
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::process::{Command, ExitCode};
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Passed to `guestkit-jobs demo`; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let mut demo = build()?;
    become_command(demo.args(&options.arguments))
}

/// Runs it many times, as it was built with the tests: a demo that fails now and then is worse
/// than none.
pub(crate) fn run_many(times: u32) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(120);
    let log = tempfile::NamedTempFile::new()?;
    for number in 1..=times {
        let mut demo = demo_command()?;
        let output = File::create(log.path())?;
        let errors = output.try_clone()?;
        let start = xtask::clock::now();
        let result = run_within(demo.stdout(output).stderr(errors), LIMIT);
        let shown = fs::read_to_string(log.path()).unwrap_or_default();
        if let Err(error) = result {
            println!("{shown}");
            return Err(error).context(format!("run {number} of {times}"));
        }
        ensure!(!shown.trim().is_empty(), "the demo showed nothing");
        let time = crate::steps::seconds(start.elapsed());
        println!("demo {number} of {times}: ok, {time}");
    }
    Ok(())
}

/// Builds worker and command into one directory, where the demo looks for its worker.
fn build() -> Result<Command> {
    run_command(&mut cargo(&[
        "build",
        "-p",
        "guestkit-worker",
        "-p",
        "guestkit-jobs",
        "--features",
        "guestkit-jobs/demo",
    ]))?;
    demo_command()
}

fn demo_command() -> Result<Command> {
    let mut command = Command::new(target_directory()?.join("debug/guestkit-jobs"));
    command.arg("demo");
    Ok(command)
}
