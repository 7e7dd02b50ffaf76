//! The end of a child: waited for with a limit, killed when it is late, never left as a zombie.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io;
use std::process::{Child, ExitStatus};
use std::time::Duration;

/// A killed process ends at once, unless it hangs in the kernel (a dead network disk).
const KILLED_WITHIN: Duration = Duration::from_secs(2);

/// A child that is reaped whatever happens.
pub(super) struct Reaped {
    child: Option<Child>,
}

/// How a child ended.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) cpu_ms: u64,
}

impl Reaped {
    pub(super) fn new(child: Child) -> Self {
        Self { child: Some(child) }
    }

    /// Waits so long, then kills. `None`: not even that ended it; a thread goes on waiting.
    pub(super) fn end(mut self, patience: Duration) -> io::Result<Option<Ended>> {
        match self.child.take() {
            Some(child) => end(child, patience),
            None => Ok(None),
        }
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            // Nothing is left to do with a failure here.
            drop(end(child, Duration::ZERO));
        }
    }
}

fn end(mut child: Child, patience: Duration) -> io::Result<Option<Ended>> {
    if !ended(&mut child, patience)? {
        child.kill()?;
        if !ended(&mut child, KILLED_WITHIN)? {
            std::thread::Builder::new()
                .name("reaper".to_owned())
                .spawn(move || drop(child.wait()))?;
            return Ok(None);
        }
    }
    let cpu_ms = cpu_ms(child.id());
    let status = child.wait()?;
    Ok(Some(Ended { status, cpu_ms }))
}

/// Whether it ended within a time; does not reap it.
fn ended(child: &mut Child, patience: Duration) -> io::Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("a process without a number"))?;
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    wait(&handle, PollFlags::IN, patience)
}

/// Waits for a file to be ready.
pub(super) fn wait(
    file: &impl std::os::fd::AsFd,
    flags: PollFlags,
    patience: Duration,
) -> io::Result<bool> {
    let mut files = [PollFd::new(file, flags)];
    let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
    match poll(&mut files, Some(&patience)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Processor time of an ended child that is not reaped yet: fields 14 and 15 of `/proc/PID/stat`
/// (proc(5)). 0 where that cannot be read.
fn cpu_ms(pid: u32) -> u64 {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return 0;
    };
    // The name may hold anything; the fields are counted behind it.
    let Some((_, rest)) = text.rsplit_once(") ") else {
        return 0;
    };
    let ticks: u64 = rest
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .fold(0, u64::saturating_add);
    let per_second = rustix::param::clock_ticks_per_second();
    ticks
        .saturating_mul(1_000)
        .checked_div(per_second)
        .unwrap_or(0)
}
