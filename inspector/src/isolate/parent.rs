//! The parent: opens, starts, watches, reaps.

use super::attempt::{Attempt, Outcome};
use super::child::MARK;
use super::failure::{Crash, CrashCause, Failure};
use super::reap::{Reaped, wait};
use super::wire::{self, Frame, Frames, Order, Work, words};
use super::{Isolation, files};
use crate::budget::Limits;
use crate::bytes::wide;
use crate::container;
use crate::inspect::Request;
use crate::report::InspectMetrics;
use crate::source::Link;
use crate::task::Task;
use rustix::event::PollFlags;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ChildStderr, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A child keeps its own time; one that is so late does not.
const GRACE: Duration = Duration::from_secs(5);
/// Setting up and saying so takes less than a millisecond.
const LEVEL_WALL: Duration = Duration::from_secs(10);
/// How soon a cancelled task ends.
const LOOK: Duration = Duration::from_millis(20);
/// A child that closed its pipe has nothing left to do.
const LAST_STEPS: Duration = Duration::from_secs(1);
/// What is kept of its last words.
const LAST_WORDS_MAX: u64 = 2_000;
const READ: usize = 64 << 10;
/// All that stands in the child's environment: settings of glibc's allocator, for which there is no
/// other way without unsafe code. Memory comes in huge pages where the kernel gives them on request
/// and is kept until the end, which saves most of the page faults of so short a life. Other C
/// libraries ignore it.
pub(super) const ALLOCATOR: [(&str, &str); 1] = [(
    "GLIBC_TUNABLES",
    "glibc.malloc.hugetlb=1:glibc.malloc.top_pad=8388608:glibc.malloc.trim_threshold=67108864:\
     glibc.malloc.mmap_threshold=33554432",
)];

struct Running {
    child: Reaped,
    answers: ChildStdout,
    errors: ChildStderr,
    phase: String,
    level: String,
}

/// The last frame of a child.
enum Last {
    Nothing,
    Done(InspectMetrics),
    Attempted(Outcome),
}

pub(super) fn answer(
    isolation: &Isolation,
    request: &Request<'_>,
    task: &Task,
    out: &mut dyn Write,
    progress: &dyn Fn(&str),
) -> Result<InspectMetrics, Failure> {
    progress("open");
    let mut chain = container::open_chain(request.roots, request.path, request.format)?;
    let mut disks = vec![chain.len()];
    for path in request.further {
        let more = container::open_chain(request.roots, path, None)?;
        disks.push(more.len());
        chain.extend(more);
    }
    if request.cancelled.load(Ordering::Relaxed) {
        return Err(Failure::Cancelled);
    }
    let files: Vec<BorrowedFd<'_>> = chain.iter().map(|one| one.file.file.as_fd()).collect();
    let links = chain.iter().map(|one| one.link.clone()).collect();
    let work = Work::Task {
        task: Box::new(task.clone()),
        disks,
        format: request.format.map(str::to_owned),
        limits: request.limits.into(),
    };
    let mut running = Running::start(isolation, request.limits, work, links, &files)?;
    let mut left = request.limits.output;
    let last = running.follow(
        request.limits.wall.saturating_add(GRACE),
        &request.cancelled,
        &mut |frame| match frame {
            Frame::Phase(phase) => {
                // `open` was said already.
                if phase != "open" {
                    progress(phase);
                }
                Ok(())
            }
            Frame::Output(bytes) => {
                left = left
                    .checked_sub(wide(bytes.len()))
                    .ok_or_else(|| Failure::from(protocol("more output than was allowed")))?;
                out.write_all(bytes)
                    .map_err(|error| Failure::from(crate::task::not_written(&error)))
            }
            _ => Ok(()),
        },
    )?;
    match running.finish(last)? {
        (Last::Done(metrics), _) => Ok(metrics),
        (_, crash) => Err(Failure::Crashed(crash)),
    }
}

pub(super) fn level(isolation: &Isolation) -> Result<String, Failure> {
    let mut running = Running::start(isolation, Limits::default(), Work::Level, Vec::new(), &[])?;
    running.follow(LEVEL_WALL, &AtomicBool::new(false), &mut |_| Ok(()))?;
    let level = std::mem::take(&mut running.level);
    let (_, crash) = running.finish(Last::Nothing)?;
    if level.is_empty() {
        return Err(Failure::Crashed(crash));
    }
    Ok(level)
}

pub(super) fn attempt(
    isolation: &Isolation,
    attempt: Attempt,
    seccomp: bool,
) -> Result<Outcome, Failure> {
    let limits = Limits {
        cpu: Duration::from_secs(1),
        ..Limits::default()
    };
    let work = Work::Attempt { attempt, seccomp };
    let mut running = Running::start(isolation, limits, work, Vec::new(), &[])?;
    let wall = Duration::from_secs(5);
    let last = running.follow(wall, &AtomicBool::new(false), &mut |_| Ok(()))?;
    match running.finish(last)? {
        (Last::Attempted(outcome), _) => Ok(outcome),
        (_, crash) if crash.cause == CrashCause::Forbidden => Ok(Outcome::Killed),
        (_, crash) => Err(Failure::Crashed(crash)),
    }
}

impl Running {
    fn start(
        isolation: &Isolation,
        limits: Limits,
        work: Work,
        links: Vec<Link>,
        files: &[BorrowedFd<'_>],
    ) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            Failure::Crashed(Crash {
                cause: CrashCause::Start(error.to_string()),
                phase: "start".to_owned(),
                cpu_ms: 0,
            })
        };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let program = isolation.program.as_deref();
        let mut command = Command::new(program.unwrap_or(Path::new("/proc/self/exe")));
        command
            .arg0("guestkit-isolated")
            .arg(MARK)
            .env_clear()
            .envs(ALLOCATOR)
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        // Holds the child's end of the socket.
        drop(command);
        let (answers, errors) = (child.stdout.take(), child.stderr.take());
        let child = Reaped::new(child);
        let (Some(answers), Some(errors)) = (answers, errors) else {
            return Err(failed(io::Error::other("no pipe")));
        };
        let order = Order {
            parent: std::process::id(),
            links,
            require: isolation.require,
            memory: limits.memory,
            cpu_s: limits.cpu.as_secs().max(1),
            work,
        };
        // A child that is dead already says more by its status than this error does.
        if let Err(error) = wire::send(&mut &ours, &order).and_then(|()| files::send(&ours, files))
            && !matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            )
        {
            return Err(failed(error));
        }
        Ok(Self {
            child,
            answers,
            errors,
            phase: "start".to_owned(),
            level: String::new(),
        })
    }

    /// Reads frames until the pipe ends, the time is up or the caller cancels. Dropping `self` kills.
    fn follow(
        &mut self,
        wall: Duration,
        cancelled: &AtomicBool,
        take: &mut dyn FnMut(&Frame) -> Result<(), Failure>,
    ) -> Result<Last, Failure> {
        let clock = crate::clock::monotonic();
        let mut frames = Frames::default();
        let mut buffer = vec![0; READ];
        let mut last = Last::Nothing;
        loop {
            if cancelled.load(Ordering::Relaxed) {
                return Err(Failure::Cancelled);
            }
            let left = wall.saturating_sub(clock());
            if left.is_zero() {
                return Err(self.crash(CrashCause::Hang(wall.as_millis())));
            }
            let ready = wait(&self.answers, PollFlags::IN, left.min(LOOK))
                .map_err(|error| self.crash(CrashCause::Protocol(error.to_string())))?;
            if !ready {
                continue;
            }
            let length = match self.answers.read(&mut buffer) {
                Ok(0) => return Ok(last),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.crash(CrashCause::Protocol(error.to_string()))),
            };
            frames.push(buffer.get(..length).unwrap_or_default());
            while let Some(frame) = frames
                .next()
                .map_err(|error| self.crash(CrashCause::Protocol(error)))?
            {
                match &frame {
                    Frame::Level(level) => self.level.clone_from(level),
                    Frame::Phase(phase) => self.phase = phase.chars().take(64).collect(),
                    Frame::Unavailable(reason) => {
                        return Err(Failure::Unavailable {
                            reason: reason.clone(),
                        });
                    }
                    Frame::Refused(kind, message) => {
                        return Err(Failure::Image {
                            kind: *kind,
                            message: message.clone(),
                        });
                    }
                    Frame::Panicked(message) => {
                        return Err(self.crash(CrashCause::Panic(message.clone())));
                    }
                    Frame::Attempted(outcome) => last = Last::Attempted(outcome.clone()),
                    Frame::Done(metrics) => last = Last::Done(metrics.clone()),
                    Frame::Output(_) => {}
                }
                take(&frame)?;
            }
        }
    }

    fn crash(&self, cause: CrashCause) -> Failure {
        Failure::Crashed(Crash {
            cause,
            phase: self.phase.clone(),
            cpu_ms: 0,
        })
    }

    /// Reaps it, and says how it ended for the case that there is no answer.
    fn finish(mut self, last: Last) -> Result<(Last, Crash), Failure> {
        let lost = |error: io::Error, phase: &str| {
            Failure::Crashed(Crash {
                cause: CrashCause::Start(error.to_string()),
                phase: phase.to_owned(),
                cpu_ms: 0,
            })
        };
        let ended = self
            .child
            .end(LAST_STEPS)
            .map_err(|error| lost(error, &self.phase))?;
        let Some(ended) = ended else {
            let crash = Crash {
                cause: CrashCause::Hang(LAST_STEPS.as_millis()),
                phase: self.phase,
                cpu_ms: 0,
            };
            return Ok((last, crash));
        };
        // Nobody writes any more, so this ends.
        let mut said = Vec::new();
        drop(
            (&mut self.errors)
                .take(LAST_WORDS_MAX)
                .read_to_end(&mut said),
        );
        let said = words(&said);
        let cause = match (ended.status.signal(), ended.status.code()) {
            _ if said.contains("memory allocation of") => CrashCause::Memory(said),
            _ if said.contains("overflowed its stack") => {
                CrashCause::Panic("stack overflow".to_owned())
            }
            (Some(libc::SIGSYS), _) => CrashCause::Forbidden,
            (Some(libc::SIGXCPU), _) => CrashCause::Cpu,
            (Some(signal), _) => CrashCause::Signal(signal),
            (None, Some(0)) => CrashCause::Exit(0),
            (None, code) if said.is_empty() => CrashCause::Exit(code.unwrap_or(-1)),
            (None, _) => CrashCause::Start(said),
        };
        let crash = Crash {
            cause,
            phase: self.phase,
            cpu_ms: ended.cpu_ms,
        };
        Ok((last, crash))
    }
}

fn protocol(problem: &str) -> Crash {
    Crash {
        cause: CrashCause::Protocol(problem.to_owned()),
        phase: "answer".to_owned(),
        cpu_ms: 0,
    }
}

impl From<Crash> for Failure {
    fn from(crash: Crash) -> Self {
        Self::Crashed(crash)
    }
}
