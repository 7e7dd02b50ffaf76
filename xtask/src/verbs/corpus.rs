//! The inspector against the corpus of disk images. `./dev test` runs the same program.

use crate::steps::{become_command, cargo};
use anyhow::Result;
use std::process::ExitCode;

pub(crate) fn run() -> Result<ExitCode> {
    become_command(&mut cargo(&[
        "test",
        "-p",
        "guestkit-inspector",
        "--test",
        "corpus",
    ]))
}
