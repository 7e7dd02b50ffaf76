//! The deterministic simulation.

use crate::steps::{become_command, cargo};
use anyhow::Result;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many seeds
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed: a failed run prints its own
    #[arg(long, default_value_t = 0)]
    first: u64,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let mut command = cargo(&[
        "test",
        "-p",
        "guestkit-worker",
        "--test",
        "sim",
        "runs::",
        "--",
        "--nocapture",
    ]);
    command
        .env("GUESTKIT_SIM_SEEDS", options.seeds.to_string())
        .env("GUESTKIT_SIM_FIRST_SEED", options.first.to_string());
    become_command(&mut command)
}
