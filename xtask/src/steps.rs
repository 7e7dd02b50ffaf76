//! Checks one after the other: all of them run, then a table says which failed.

use crate::interrupt;
use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write as _;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use xtask::clock;
use xtask::cluster::process;

/// What has run so far.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<Step>,
}

struct Step {
    name: String,
    time: Duration,
    failure: Option<String>,
}

impl Steps {
    /// Runs a check under its header. After an interruption nothing runs any more.
    pub(crate) fn run<T>(&mut self, name: &str, check: impl FnOnce() -> Result<T>) -> Option<T> {
        if interrupt::asked() {
            return None;
        }
        println!("\n=== {name}");
        let start = clock::now();
        let result = check();
        let time = start.elapsed();
        let failure = result.as_ref().err().map(|error| format!("{error:#}"));
        match &failure {
            None => println!("--- {name}: ok, {}", seconds(time)),
            Some(failure) => println!("--- {name}: FAILED, {}: {failure}", seconds(time)),
        }
        self.done.push(Step {
            name: name.to_owned(),
            time,
            failure,
        });
        result.ok()
    }

    /// The table, and what the process exits with.
    pub(crate) fn finish(&self) -> ExitCode {
        let width = self.done.iter().map(|step| step.name.len()).max();
        let mut table = String::new();
        for step in &self.done {
            let (mark, reason) = match &step.failure {
                None => ("ok    ", ""),
                Some(reason) => ("FAILED", reason.lines().next().unwrap_or_default()),
            };
            let (name, time) = (&step.name, seconds(step.time));
            let width = width.unwrap_or(0);
            // Writing to a String cannot fail.
            writeln!(table, "{name:width$}  {time:>8}  {mark}  {reason}").ok();
        }
        let failed = self
            .done
            .iter()
            .filter(|step| step.failure.is_some())
            .count();
        let passed = self.done.len() - failed;
        println!("\n{table}\nsteps: {passed} passed, {failed} failed");
        if interrupt::asked() {
            println!("interrupted: not everything ran");
            return ExitCode::from(130);
        }
        if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// The cargo that runs us, in the workspace, for a named command.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(arguments)
        .current_dir(xtask::workspace::root());
    command
}

/// Runs a command to its end, in a process group of its own, so that an interruption ends all of it.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    run_within(command, Duration::MAX)
}

/// [`run`] for commands that may hang.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(100);
    let text = describe(command);
    let start = clock::now();
    let mut child = command
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {text}"))?;
    loop {
        if let Some(status) = process::wait_at_most(&mut child, LOOK)? {
            ensure!(status.success(), "{text}: {status}");
            return Ok(());
        }
        let late = start.elapsed() > limit;
        if late || interrupt::asked() {
            process::end_group(&mut child, Duration::from_secs(5))?;
            if late {
                bail!("{text}: not done after {}", seconds(limit));
            }
            bail!("{text}: interrupted");
        }
    }
}

/// Replaces this process by the command: it has the terminal and its exit code is ours.
pub(crate) fn become_command(command: &mut Command) -> Result<ExitCode> {
    let error = command.exec();
    Err(error).with_context(|| format!("start {}", describe(command)))
}

pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn describe(command: &Command) -> String {
    let name = std::path::Path::new(command.get_program());
    let name = name.file_name().unwrap_or(command.get_program());
    let mut text = name.to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}
