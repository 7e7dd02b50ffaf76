//! Whether the box holds on this machine.

use guestkit_inspector::isolate::{Attempt, Failure, Isolation, Outcome};
use std::process::ExitCode;

/// Prints a line an attempt; fails when one of them succeeds.
pub(crate) fn run(hang: bool) -> ExitCode {
    let isolation = Isolation::default();
    if hang {
        return match isolation.attempt(Attempt::Hang, true) {
            Err(Failure::Crashed(_)) => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        };
    }
    let level = match isolation.level() {
        Ok(level) => level,
        Err(error) => {
            eprintln!("guestkit-inspect: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("isolation     {level}");
    let mut holds = true;
    for attempt in Attempt::FORBIDDEN {
        let outcome = match isolation.attempt(attempt, true) {
            Ok(Outcome::Killed) => "killed".to_owned(),
            Ok(Outcome::Refused(reason)) => format!("refused: {reason}"),
            Ok(Outcome::Succeeded(what)) => {
                holds = false;
                format!("LEAKS: {what}")
            }
            Err(error) => {
                holds = false;
                format!("cannot tell: {error}")
            }
        };
        println!("{:<13} {outcome}", format!("{attempt:?}").to_lowercase());
    }
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
