//! The checks that run nothing.

use crate::dependencies;
use crate::steps::{Steps, cargo, run as run_command};
use anyhow::Result;
use std::process::ExitCode;

pub(crate) fn run() -> Result<ExitCode> {
    crate::interrupt::install()?;
    let mut steps = Steps::default();
    check(&mut steps);
    Ok(steps.finish())
}

/// Cheapest first.
pub(crate) fn check(steps: &mut Steps) {
    steps.run("format", || {
        run_command(&mut cargo(&["fmt", "--all", "--check"]))
    });
    steps.run("dependencies", dependencies::check);
    steps.run("clippy", || {
        run_command(&mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-D",
            "warnings",
        ]))
    });
    // Default features and no tests, unlike all other steps: what users build compiles too.
    steps.run("documentation", || {
        let mut doc = cargo(&["doc", "--workspace", "--no-deps"]);
        run_command(doc.env("RUSTDOCFLAGS", "-D warnings"))
    });
}
