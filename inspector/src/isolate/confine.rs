//! The steps by which a child gives up what it could do.

use super::syscalls;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, Ruleset,
    RulesetAttr, RulesetStatus, Scope,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::fs;
use std::io;

/// The level of a task that runs in the process of its caller.
pub const NONE: &str = "none";

/// Standard input, output, error, and what this module holds while it works.
const OTHER_FILES: u64 = 8;

/// How confined this process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// `landlock-abi-7+seccomp+rlimits`, with the missing parts named.
    pub text: String,
    /// Whether nothing is missing.
    pub full: bool,
}

/// What a child may use.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// Memory in bytes.
    pub memory: u64,
    /// Processor time in seconds.
    pub cpu_s: u64,
    /// Files of the image.
    pub files: usize,
}

/// First step, before anything is read: the child dies with its parent, nobody may look into it,
/// and no file is open that it was not meant to have.
///
/// # Errors
/// When the kernel refuses one of them, or `/proc` is not there to list the open files.
pub fn leave_parent() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    close_inherited()
}

/// Everything in this workspace opens files close-on-exec; what a parent's parent left open, or a C
/// library, is closed here. There is no safe wrapper of `close_range` yet.
fn close_inherited() -> io::Result<()> {
    for number in open_files()? {
        nix::unistd::close(number)?;
    }
    Ok(())
}

/// Numbers of the open files behind standard input, output and error.
pub(super) fn open_files() -> io::Result<Vec<i32>> {
    let list = "/proc/self/fd";
    let mut open = Vec::new();
    for entry in fs::read_dir(list)? {
        if let Ok(number) = entry?.file_name().to_string_lossy().parse::<i32>()
            && number > 2
        {
            open.push(number);
        }
    }
    // The directory that was just listed is among them, and closed by now.
    open.retain(|number| fs::symlink_metadata(format!("{list}/{number}")).is_ok());
    Ok(open)
}

/// Last step before the image is read: gives up the rest. `seccomp`: only [`super::Attempt`] does
/// without, to see that the other parts hold on their own.
pub fn confine(allowance: Allowance, seccomp: bool) -> Level {
    let capabilities = drop_capabilities();
    let privileges = no_new_privs();
    let landlock = landlock();
    let limits = limit(allowance);
    // The last: it forbids what the others need.
    let filtered = seccomp.then(filter);
    let mut level = Level {
        text: String::new(),
        full: true,
    };
    level.note("capabilities", capabilities, |()| String::new());
    level.note("no-new-privs", privileges, |()| String::new());
    level.note("landlock", landlock, |abi| format!("landlock-abi-{abi}"));
    if let Some(filtered) = filtered {
        level.note("seccomp", filtered, |()| "seccomp".to_owned());
    }
    level.note("rlimits", limits, |()| "rlimits".to_owned());
    level
}

impl Level {
    fn note<T>(&mut self, part: &str, result: Result<T, String>, say: impl FnOnce(T) -> String) {
        let text = match result {
            Ok(value) => say(value),
            Err(reason) => {
                self.full = false;
                format!("no-{part} ({reason})")
            }
        };
        if !text.is_empty() {
            if !self.text.is_empty() {
                self.text.push('+');
            }
            self.text.push_str(&text);
        }
    }
}

fn drop_capabilities() -> Result<(), String> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none).map_err(|e| e.to_string())
}

fn no_new_privs() -> Result<(), String> {
    rustix::thread::set_no_new_privs(true).map_err(|e| e.to_string())
}

/// Denies everything that the kernel's Landlock knows. Older ABIs know less (no network before 4, no
/// signals before 6): seccomp forbids all of that as well, so any ABI counts as whole.
fn landlock() -> Result<i32, String> {
    const NEWEST: ABI = ABI::V7;
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .map_err(|e| e.to_string())?;
    let status = ruleset.restrict_self().map_err(|e| e.to_string())?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err("the kernel has none".to_owned());
    }
    match status.landlock {
        LandlockStatus::Available {
            effective_abi,
            kernel_abi,
        } => Ok(kernel_abi.unwrap_or_else(|| number(effective_abi))),
        _ => Err("the kernel has none".to_owned()),
    }
}

fn number(abi: ABI) -> i32 {
    const KNOWN: [ABI; 11] = [
        ABI::Unsupported,
        ABI::V1,
        ABI::V2,
        ABI::V3,
        ABI::V4,
        ABI::V5,
        ABI::V6,
        ABI::V7,
        ABI::V8,
        ABI::V9,
        ABI::V10,
    ];
    let place = KNOWN.iter().position(|known| *known == abi);
    place.and_then(|n| i32::try_from(n).ok()).unwrap_or(0)
}

fn limit(allowance: Allowance) -> Result<(), String> {
    let files = u64::try_from(allowance.files).unwrap_or(u64::MAX);
    let files = files.saturating_add(OTHER_FILES);
    for (resource, limit) in [
        (Resource::As, allowance.memory),
        (Resource::Data, allowance.memory),
        (Resource::Cpu, allowance.cpu_s),
        (Resource::Fsize, 0),
        (Resource::Nofile, files),
        (Resource::Nproc, 0),
        (Resource::Core, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
    ] {
        // A limit that the parent lives under may be lower already.
        let known = rustix::process::getrlimit(resource).maximum;
        let limit = known.map_or(limit, |known| known.min(limit));
        // At the soft limit of processor time comes a signal that tells why, at the hard one KILL.
        let hard = match resource {
            Resource::Cpu => limit.saturating_add(1).min(known.unwrap_or(u64::MAX)),
            _ => limit,
        };
        let both = Rlimit {
            current: Some(limit),
            maximum: Some(hard),
        };
        rustix::process::setrlimit(resource, both).map_err(|e| format!("{resource:?}: {e}"))?;
    }
    Ok(())
}

fn filter() -> Result<(), String> {
    let program = syscalls::filter(std::process::id())?;
    seccompiler::apply_filter(&program).map_err(|e| e.to_string())
}
