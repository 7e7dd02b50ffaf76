//! What a confined child must not be able to do, tried from inside it.
//!
//! `guestkit-inspect self-check` runs them all, for whoever wants to know whether the box holds on
//! his kernel; so do the tests. Each runs in a child of its own: the right end of most is its death.

use super::parent::ALLOCATOR;
use nix::sys::ptrace;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::{Condvar, Mutex, PoisonError};

/// A thing to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attempt {
    /// Read a file of the host.
    Open,
    /// Read the memory of the parent.
    OpenMemory,
    /// Make a file.
    Create,
    /// List a directory.
    List,
    /// Make a UDP socket.
    Socket,
    /// Connect to a TCP port.
    Connect,
    /// Connect to a Unix socket.
    ConnectUnix,
    /// Run a program.
    Exec,
    /// Start a thread: the call that also forks.
    Clone,
    /// Attach to the parent as a debugger.
    Ptrace,
    /// Send a signal to the parent.
    Kill,
    /// Read the environment of whoever started it.
    Environment,
    /// Use a file that was open in the parent.
    Inherited,
    /// Use more memory than there is.
    Memory,
    /// Use more processor time than there is.
    Cpu,
    /// Never answer.
    Hang,
    /// Panic.
    Panic,
    /// Overflow the stack.
    Overflow,
    /// End without an answer.
    Exit,
}

impl Attempt {
    /// Those that reach for something outside, as opposed to those that end badly.
    pub const FORBIDDEN: [Self; 13] = [
        Self::Open,
        Self::OpenMemory,
        Self::Create,
        Self::List,
        Self::Socket,
        Self::Connect,
        Self::ConnectUnix,
        Self::Exec,
        Self::Clone,
        Self::Ptrace,
        Self::Kill,
        Self::Environment,
        Self::Inherited,
    ];
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It worked: the box leaks.
    Succeeded(String),
    /// The operating system refused.
    Refused(String),
    /// The child was killed for it.
    Killed,
}

/// Tries it. Ends the process, or answers.
pub(super) fn attempt(what: Attempt, parent: u32, inherited: &[i32]) -> Outcome {
    let parent_pid = i32::try_from(parent).ok().and_then(Pid::from_raw);
    let gone = || io::Error::other("the parent has no number");
    let result: io::Result<String> = match what {
        Attempt::Open => File::open("/etc/passwd").map(said),
        Attempt::OpenMemory => File::open(format!("/proc/{parent}/mem")).map(said),
        Attempt::Create => File::create("/tmp/guestkit-isolate-attempt").map(said),
        Attempt::List => fs::read_dir("/").map(said),
        Attempt::Socket => UdpSocket::bind("127.0.0.1:0").map(said),
        Attempt::Connect => TcpStream::connect("127.0.0.1:9").map(said),
        Attempt::ConnectUnix => UnixStream::connect("/run/guestkit-isolate-attempt").map(said),
        Attempt::Exec => Command::new("/bin/true").spawn().map(said),
        Attempt::Clone => std::thread::Builder::new().spawn(|| ()).map(said),
        Attempt::Ptrace => i32::try_from(parent)
            .map_err(io::Error::other)
            .and_then(|pid| {
                Ok(ptrace::seize(
                    nix::unistd::Pid::from_raw(pid),
                    ptrace::Options::empty(),
                )?)
            })
            .map(said),
        Attempt::Kill => parent_pid
            .ok_or_else(gone)
            .and_then(|pid| Ok(rustix::process::test_kill_process(pid)?))
            .map(said),
        Attempt::Environment => environment(),
        Attempt::Inherited => match inherited.first() {
            Some(number) => Ok(format!("file {number} is open")),
            None => Err(io::Error::other("nothing is open")),
        },
        Attempt::Memory => Ok(hoard()),
        Attempt::Cpu => spin(),
        Attempt::Hang => Ok(sleep()),
        #[expect(clippy::panic, reason = "a panic is what was asked for")]
        Attempt::Panic => panic!("a panic was asked for"),
        Attempt::Overflow => Ok(deeper(0).to_string()),
        Attempt::Exit => std::process::exit(7),
    };
    match result {
        Ok(text) => Outcome::Succeeded(text),
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

fn said<T>(_: T) -> String {
    "it worked".to_owned()
}

fn environment() -> io::Result<String> {
    let ours =
        |name: &OsStr, value: &OsStr| ALLOCATOR.iter().any(|(n, v)| name == *n && value == *v);
    match std::env::vars_os().find(|(name, value)| !ours(name, value)) {
        Some((name, _)) => Ok(name.to_string_lossy().into_owned()),
        None => Err(io::Error::other("the environment holds nothing of theirs")),
    }
}

fn hoard() -> String {
    let mut hoard: Vec<Vec<u8>> = Vec::new();
    while hoard.len() < 1_024 {
        // The limit is one of addresses: to fill them all would take the processor time instead.
        let mut piece = std::hint::black_box(Vec::with_capacity(16 << 20));
        piece.push(1);
        hoard.push(piece);
    }
    format!("{} pieces of 16 MiB", hoard.len())
}

fn spin() -> io::Result<String> {
    let clock = crate::clock::monotonic();
    while clock().as_secs() < 60 {
        std::hint::spin_loop();
    }
    Ok("a minute".to_owned())
}

fn sleep() -> String {
    let (lock, bell) = (Mutex::new(()), Condvar::new());
    let mut guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        guard = bell.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
}

#[expect(unconditional_recursion, reason = "an overflow is what was asked for")]
fn deeper(n: u64) -> u64 {
    std::hint::black_box(deeper(std::hint::black_box(n).wrapping_add(1))).wrapping_add(1)
}
