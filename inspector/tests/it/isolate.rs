//! The box: what a confined child cannot do, and what becomes of one that ends badly.

use crate::support::unpack_fixtures;
use guestkit_inspector::budget::Limits;
use guestkit_inspector::inspect::Request;
use guestkit_inspector::isolate::{Attempt, CrashCause, Failure, Isolation, Outcome, RefusalKind};
use guestkit_inspector::source::HostRoots;
use guestkit_inspector::task::{Form, Task};
use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The command, which knows how to be a child; this test's own program does not.
pub(crate) fn boxed() -> Isolation {
    Isolation {
        program: Some(PathBuf::from(env!("CARGO_BIN_EXE_guestkit-inspect"))),
        ..Isolation::default()
    }
}

fn layers() -> Task {
    Task::Layers { form: Form::Json }
}

/// Runs a task; the answer, and the phases that were told.
fn run(
    isolation: &Isolation,
    root: &Path,
    name: &str,
    limits: Limits,
    cancelled: &Arc<AtomicBool>,
) -> (Result<Vec<u8>, Failure>, Vec<String>) {
    let roots = HostRoots::new([root]).unwrap();
    let request = Request {
        roots: &roots,
        path: Path::new(name),
        further: &[],
        format: None,
        limits,
        cancelled: Arc::clone(cancelled),
    };
    let phases = RefCell::new(Vec::new());
    let mut out = Vec::new();
    let told = isolation.answer(&request, &layers(), &mut out, &|phase| {
        phases.borrow_mut().push(phase.to_owned());
    });
    (told.map(|_| out), phases.into_inner())
}

fn plain(isolation: &Isolation, root: &Path, name: &str) -> Result<Vec<u8>, Failure> {
    run(isolation, root, name, Limits::default(), &Arc::default()).0
}

/// Tests that count the children of this process run one after the other.
static COUNTING: Mutex<()> = Mutex::new(());

fn counting() -> MutexGuard<'static, ()> {
    COUNTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fake children of ours that ended and wait to be reaped, or still run.
fn children_left() -> Vec<String> {
    let own = std::process::id().to_string();
    let mut left = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let rest = stat.rsplit_once(") ").unwrap().1;
        if rest.split(' ').nth(1) == Some(&own)
            && (stat.contains("(fake-") || stat.contains("(sleep)"))
        {
            left.push(stat);
        }
    }
    left
}

#[test]
fn nothing_outside_can_be_reached() {
    let isolation = boxed();
    let level = isolation.level().unwrap();
    assert!(
        level.contains("seccomp") && level.contains("rlimits"),
        "{level}"
    );
    for attempt in Attempt::FORBIDDEN {
        let outcome = isolation.attempt(attempt, true).unwrap();
        let expected = match attempt {
            Attempt::Environment | Attempt::Inherited => {
                matches!(outcome, Outcome::Refused(_))
            }
            _ => outcome == Outcome::Killed,
        };
        assert!(expected, "{attempt:?}: {outcome:?}");
    }
}

#[test]
fn landlock_and_limits_hold_without_seccomp() {
    let isolation = boxed();
    let level = isolation.level().unwrap();
    let Some(abi) = level.strip_prefix("landlock-abi-") else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{level}");
        return eprintln!("not run: landlock alone: this kernel has none");
    };
    let abi: u32 = abi.split('+').next().unwrap().parse().unwrap();
    let mut attempts = vec![
        Attempt::Open,
        Attempt::OpenMemory,
        Attempt::Create,
        Attempt::List,
        Attempt::Exec,
        Attempt::Ptrace,
    ];
    if abi >= 4 {
        attempts.push(Attempt::Connect);
    }
    if abi >= 6 {
        attempts.push(Attempt::Kill);
    }
    for attempt in attempts {
        let outcome = isolation.attempt(attempt, false).unwrap();
        let Outcome::Refused(reason) = outcome else {
            panic!("{attempt:?}: {outcome:?}");
        };
        assert!(
            reason.contains("ermission denied")
                || reason.contains("EPERM")
                || reason.contains("os error 1"),
            "{attempt:?}: {reason}"
        );
    }
}

#[test]
fn what_is_open_in_the_parent_is_not_open_in_the_child() {
    // A file that an exec would pass on.
    let leaky = fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
    let outcome = boxed().attempt(Attempt::Inherited, true).unwrap();
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    drop(leaky);
}

#[test]
fn each_bad_end_has_its_name() {
    let isolation = boxed();
    for (attempt, name) in [
        (Attempt::Memory, "memory"),
        (Attempt::Cpu, "cpu"),
        (Attempt::Hang, "hang"),
        (Attempt::Panic, "panic"),
        (Attempt::Overflow, "panic"),
        (Attempt::Exit, "exit"),
    ] {
        let Err(Failure::Crashed(crash)) = isolation.attempt(attempt, true) else {
            panic!("{attempt:?} did not crash");
        };
        assert_eq!(crash.cause.name(), name, "{attempt:?}: {crash}");
        assert_eq!(crash.phase, "attempt");
        if attempt == Attempt::Cpu {
            assert!(crash.cpu_ms >= 900, "{crash:?}");
        }
    }
}

#[test]
fn the_answer_is_the_one_that_an_unconfined_reader_gives() {
    let dir = unpack_fixtures("qcow2");
    let open = Isolation {
        sandbox: false,
        ..Isolation::default()
    };
    for name in ["chain-top.qcow2", "base.raw"] {
        let ours = plain(&open, dir.path(), name);
        assert_eq!(ours, plain(&boxed(), dir.path(), name), "{name}");
    }
    let missing = plain(&boxed(), dir.path(), "missing");
    assert!(
        matches!(
            &missing,
            Err(Failure::Image {
                kind: RefusalKind::NotFound,
                ..
            })
        ),
        "{missing:?}"
    );
}

/// A program in place of the child that says `frames` and then does `end`.
fn fake(dir: &Path, frames: &str, end: &str) -> Isolation {
    let program = dir.join(format!("fake-{}", fs::read_dir(dir).unwrap().count()));
    fs::write(&program, format!("#!/bin/sh\nprintf '{frames}'\n{end}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    Isolation {
        program: Some(program),
        ..Isolation::default()
    }
}

type Right = fn(&CrashCause) -> bool;

const PACKAGES: &str = "p\\010\\000\\000\\000packages";

#[test]
fn a_child_that_dies_or_lies_is_one_failure_that_names_the_section() {
    let _turn = counting();
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path();
    fs::write(dir.join("disk"), vec![0; 4096]).unwrap();
    let cases: [(&str, &str, Right); 6] = [
        (PACKAGES, "kill -SEGV $$", |c| *c == CrashCause::Signal(11)),
        (PACKAGES, "kill -SYS $$", |c| *c == CrashCause::Forbidden),
        (PACKAGES, "exit 3", |c| *c == CrashCause::Exit(3)),
        (PACKAGES, "exit 0", |c| *c == CrashCause::Exit(0)),
        ("p\\010\\000\\000\\000packages?....", "sleep 60", |c| {
            matches!(c, CrashCause::Protocol(_))
        }),
        (
            "p\\010\\000\\000\\000packageso\\377\\377\\377\\377",
            "sleep 60",
            |c| matches!(c, CrashCause::Protocol(_)),
        ),
    ];
    for (frames, end, right) in cases {
        let start = now();
        let (result, phases) = run(
            &fake(dir, frames, end),
            dir,
            "disk",
            Limits::default(),
            &Arc::default(),
        );
        let Err(Failure::Crashed(crash)) = result else {
            panic!("{end}: {result:?}");
        };
        assert!(right(&crash.cause), "{end}: {crash}");
        assert_eq!(crash.phase, "packages");
        assert_eq!(phases, ["open", "packages"]);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(children_left(), Vec::<String>::new());
}

#[test]
fn a_child_that_hangs_is_killed_and_so_is_a_cancelled_one() {
    let _turn = counting();
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path();
    fs::write(dir.join("disk"), vec![0; 4096]).unwrap();
    let hangs = fake(dir, PACKAGES, "exec sleep 60");
    let short = Limits {
        wall: Duration::ZERO,
        ..Limits::default()
    };
    let start = now();
    let (result, _) = run(&hangs, dir, "disk", short, &Arc::default());
    let Err(Failure::Crashed(crash)) = result else {
        panic!("{result:?}");
    };
    assert!(matches!(crash.cause, CrashCause::Hang(5_000)), "{crash}");
    assert_eq!(crash.phase, "packages");
    assert!(start.elapsed() < Duration::from_secs(40));

    let cancelled = Arc::new(AtomicBool::new(false));
    let later = Arc::clone(&cancelled);
    let start = now();
    let canceller = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        later.store(true, Ordering::Relaxed);
    });
    let (result, _) = run(&hangs, dir, "disk", Limits::default(), &cancelled);
    assert_eq!(result, Err(Failure::Cancelled));
    assert!(start.elapsed() < Duration::from_secs(30));
    canceller.join().unwrap();
    assert_eq!(children_left(), Vec::<String>::new());
}

#[test]
fn the_child_does_not_outlive_its_parent() {
    // The command as parent of a child that hangs; then the parent is killed.
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path();
    let ready = dir.join("ready");
    let mut parent = std::process::Command::new(env!("CARGO_BIN_EXE_guestkit-inspect"))
        .args(["self-check", "--hang"])
        .stdout(fs::File::create(&ready).unwrap())
        .spawn()
        .unwrap();
    let child = loop {
        let children = format!("/proc/{0}/task/{0}/children", parent.id());
        let text = fs::read_to_string(children).unwrap();
        if let Some(pid) = text.split_whitespace().next() {
            break pid.to_owned();
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    // Confined by then: it has said so to its parent.
    std::thread::sleep(Duration::from_millis(300));
    parent.kill().unwrap();
    parent.wait().unwrap();
    let end = now() + Duration::from_secs(5);
    let gone = || match fs::read_to_string(format!("/proc/{child}/stat")) {
        Ok(stat) => stat.rsplit_once(") ").unwrap().1.starts_with('Z'),
        Err(_) => true,
    };
    while !gone() {
        assert!(now() < end, "process {child} is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[allow(clippy::disallowed_methods)] // a test may look at the clock
fn now() -> Instant {
    Instant::now()
}
