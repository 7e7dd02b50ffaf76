//! The child: confines itself, answers one task, ends.

use super::attempt;
use super::confine::{self, Allowance, Level};
use super::failure::RefusalKind;
use super::files::{self, Capped};
use super::wire::{self, Frame, Work, write_output};
use crate::budget::Limits;
use crate::container;
use crate::inspect;
use crate::source::{ChainFile, ChainOpener, HostFile, Reading};
use crate::task::Task;
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

/// The one argument of a child. Nobody else uses it: it needs a parent at its standard input.
pub(super) const MARK: &str = "--isolated-child";

/// Bytes of an answer that are sent at once.
const PIECE: usize = 64 << 10;
/// Longest `/proc/self/status`.
const STATUS_MAX: usize = 8 << 10;

/// The child's side: answers `None` at once in a process that is no child. First thing in `main` of
/// each program that uses [`super::Isolation`]:
///
/// ```no_run
/// # use std::process::ExitCode;
/// fn main() -> ExitCode {
///     if let Some(code) = guestkit_inspector::isolate::child_main() {
///         return code;
///     }
///     // …
/// #   ExitCode::SUCCESS
/// }
/// ```
pub fn child_main() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != MARK || arguments.next().is_some() {
        return None;
    }
    Some(match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("isolated child: {error}");
            ExitCode::FAILURE
        }
    })
}

/// What the last panic said.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

fn serve() -> io::Result<()> {
    confine::leave_parent()?;
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let order = wire::receive(&mut socket)?;
    let own_parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if own_parent.and_then(|pid| u32::try_from(pid).ok()) != Some(order.parent) {
        return Err(io::Error::other("the parent is gone"));
    }
    let mut inherited = Vec::new();
    if matches!(order.work, Work::Attempt { .. }) {
        inherited = confine::open_files()?;
        inherited.retain(|number| *number != socket.as_raw_fd());
    }
    // What they are is asked now: later it is a forbidden call.
    let mut files = Vec::new();
    for (file, link) in files::receive(&socket, order.links.len())?
        .into_iter()
        .zip(order.links)
    {
        let file = HostFile::from_file(file).map_err(io::Error::other)?;
        files.push(ChainFile { file, link });
    }
    drop(socket);
    // Opened now, read at the end: there is no other honest figure. `getrusage` counts what the
    // parent had in memory before the child's own program was loaded.
    let status = File::open("/proc/self/status").ok();
    // The first call looks for the kernel's clock page, by calls that are forbidden later.
    cpu_ms();
    let answers = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let answers = RefCell::new(BufWriter::with_capacity(PIECE, answers));
    std::panic::set_hook(Box::new(|panic| {
        let mut said = PANIC.lock().unwrap_or_else(PoisonError::into_inner);
        *said = Some(panic.to_string());
    }));
    let seccomp = !matches!(order.work, Work::Attempt { seccomp: false, .. });
    let allowance = Allowance {
        memory: order.memory,
        cpu_s: order.cpu_s,
        files: files.len(),
    };
    let level = confine::confine(allowance, seccomp);
    say(&answers, &Frame::Level(level.text.clone()))?;
    if order.require && !level.full {
        return say(&answers, &Frame::Unavailable(level.text));
    }
    let ran = catch_unwind(AssertUnwindSafe(|| match order.work {
        Work::Level => Ok(None),
        Work::Attempt { attempt, .. } => {
            say(&answers, &Frame::Phase("attempt".to_owned()))?;
            let outcome = attempt::attempt(attempt, order.parent, &inherited);
            Ok(Some(Frame::Attempted(outcome)))
        }
        Work::Task {
            task,
            disks,
            format,
            limits,
        } => answer(
            files,
            &disks,
            &task,
            format.as_deref(),
            limits.into(),
            &answers,
            &level,
        )
        .map(Some),
    }));
    let last = match ran {
        Ok(frame) => frame?,
        Err(_) => {
            let said = PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
            Some(Frame::Panicked(said.unwrap_or_default()))
        }
    };
    match last {
        Some(Frame::Done(mut metrics)) => {
            metrics.peak_memory_bytes = status.as_ref().and_then(peak);
            metrics.cpu_ms = Some(cpu_ms());
            say(&answers, &Frame::Done(metrics))
        }
        Some(frame) => say(&answers, &frame),
        None => Ok(()),
    }
}

fn say(answers: &RefCell<BufWriter<File>>, frame: &Frame) -> io::Result<()> {
    let mut answers = answers.borrow_mut();
    frame.write(&mut *answers)?;
    answers.flush()
}

fn answer(
    files: Vec<ChainFile>,
    disks: &[usize],
    task: &Task,
    format: Option<&str>,
    limits: Limits,
    answers: &RefCell<BufWriter<File>>,
    level: &Level,
) -> io::Result<Frame> {
    let mut broken = None;
    let broken_pipe = RefCell::new(&mut broken);
    let progress = |phase: &'static str| {
        if let Err(error) = say(answers, &Frame::Phase(phase.to_owned())) {
            **broken_pipe.borrow_mut() = Some(error);
        }
    };
    let mut out = Pieces {
        answers,
        piece: Vec::with_capacity(PIECE),
    };
    let mut capped = Capped::new(&mut out, limits.output);
    let result =
        inspect::answer_within(limits, task, &mut capped, &progress, |reading: &Reading| {
            let mut files = files.into_iter();
            let mut containers = Vec::new();
            for count in disks {
                let opener = ChainOpener {
                    files: files.by_ref().take(*count).collect(),
                    reading,
                };
                let format = format.filter(|_| containers.is_empty());
                containers.push(container::open(&opener, format)?);
            }
            Ok(containers)
        });
    out.flush()?;
    if let Some(error) = broken {
        return Err(error);
    }
    Ok(match result {
        Ok(metrics) => {
            let mut metrics = metrics;
            metrics.isolation.clone_from(&level.text);
            Frame::Done(metrics)
        }
        Err(error) => Frame::Refused(RefusalKind::from(&error), error.to_string()),
    })
}

/// Gathers an answer into pieces worth a frame.
struct Pieces<'a> {
    answers: &'a RefCell<BufWriter<File>>,
    piece: Vec<u8>,
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut answers = self.answers.borrow_mut();
        write_output(&mut *answers, &self.piece)?;
        self.piece.clear();
        answers.flush()
    }
}

/// `VmHWM` of `/proc/self/status` (proc(5)).
fn peak(status: &File) -> Option<u64> {
    let mut text = vec![0; STATUS_MAX];
    let length = status.read_at(&mut text, 0).ok()?;
    let text = String::from_utf8_lossy(text.get(..length)?).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

fn cpu_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    // Rounded up: what ran took some.
    seconds
        .saturating_mul(1_000)
        .saturating_add(nanos.div_ceil(1_000_000))
}
