//! Worker processes on a real Kafka that are killed, paused and joined by others while they work.

use crate::steps::{cargo, run as run_command};
use anyhow::Result;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// On a Kafka with TLS, passwords and access rules
    #[arg(long)]
    secure: bool,
    /// Chooses jobs and faults; the run prints it
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let test = if options.secure {
        "chaos::the_same_holds_with_tls_passwords_and_access_rules"
    } else {
        "chaos::three_workers_through_kills_and_pauses_answer_every_job_exactly_once"
    };
    let mut command = cargo(&["test", "-p", "guestkit-worker", "--test", "it"]);
    command.args(["--", "--exact", test, "--nocapture"]);
    command.env("GUESTKIT_CHAOS", "whole");
    if let Some(seed) = options.seed {
        command.env("GUESTKIT_CHAOS_SEED", seed.to_string());
    }
    run_command(&mut command)?;
    Ok(ExitCode::SUCCESS)
}
