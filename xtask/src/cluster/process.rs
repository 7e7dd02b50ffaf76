//! Processes that die with us, and signals to them.

use super::error::{Context, Error};
use crate::clock::Deadline;
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};
use std::ffi::OsStr;
use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

type Reply = Sender<io::Result<Child>>;

/// Kills at once: what a power cut does to the process.
pub fn sigkill(pid: u32) -> Result<(), Error> {
    signal(pid, Signal::KILL)
}

/// Asks the process to end.
pub fn sigterm(pid: u32) -> Result<(), Error> {
    signal(pid, Signal::TERM)
}

/// Freezes the process: its connections stay open and nothing answers.
pub fn sigstop(pid: u32) -> Result<(), Error> {
    signal(pid, Signal::STOP)
}

/// Undoes [`sigstop`].
pub fn sigcont(pid: u32) -> Result<(), Error> {
    signal(pid, Signal::CONT)
}

/// Whether a process of this id lives.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    raw(pid).is_some_and(|pid| test_kill_process(pid).is_ok())
}

/// Ends the process group that `child` leads: SIGTERM first unless `grace` is zero, then SIGKILL.
pub fn end_group(child: &mut Child, grace: Duration) -> io::Result<ExitStatus> {
    if let Some(group) = raw(child.id()) {
        if !grace.is_zero() && kill_process_group(group, Signal::TERM).is_ok() {
            wait_at_most(child, grace)?;
        }
        // The leader may be gone and others of the group not: no answer is an error here.
        kill_process_group(group, Signal::KILL).ok();
    }
    child.wait()
}

/// `None`: it still runs.
pub fn wait_at_most(child: &mut Child, time: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Deadline::after(time);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if deadline.passed() {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A command for `program` that the kernel kills when this process ends, however it ends.
/// The process is `program` itself, so signals to its id reach it. Start it with [`spawn`].
#[must_use]
pub fn dies_with_us(program: impl AsRef<OsStr>) -> Command {
    if !on_path("setpriv") {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Starts a command from a thread that lives as long as this process: the kernel's "parent died"
/// is about the thread that started the child, and test threads end with their test.
pub fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<(Command, Reply)>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, receiver) = channel::<(Command, Reply)>();
        std::thread::spawn(move || {
            for (mut command, reply) in receiver {
                // Whoever asked may be gone; then the child is dropped and dies with us.
                drop(reply.send(command.spawn()));
            }
        });
        sender
    });
    let gone = || io::Error::other("the thread that starts processes is gone");
    let (reply, child) = channel();
    spawner.send((command, reply)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

/// Whether `program` is in one of the directories of `PATH`.
#[must_use]
pub fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

fn raw(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

fn signal(pid: u32, signal: Signal) -> Result<(), Error> {
    raw(pid)
        .ok_or(io::ErrorKind::InvalidInput)
        .map_err(io::Error::from)
        .and_then(|pid| kill_process(pid, signal).map_err(io::Error::from))
        .context(|| format!("signal {signal:?} to process {pid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_survives_the_thread_that_asked_for_it() {
        let mut child = std::thread::spawn(|| {
            let mut command = dies_with_us("sleep");
            command.arg("60");
            spawn(command).unwrap()
        })
        .join()
        .unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert!(child.try_wait().unwrap().is_none());
        // setpriv replaced itself: the id is that of the program.
        let name = std::fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap();
        assert_eq!(name.trim(), "sleep");
        sigkill(child.id()).unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
