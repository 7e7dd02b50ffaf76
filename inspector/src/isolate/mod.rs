//! Hostile images stay in a box: one confined child process for each task.
//!
//! The parent opens the image and every further file of its chain, starts its own executable again
//! with an empty environment, and hands over nothing but the open files and the task. The child
//! confines itself before it reads the first byte of the image ([`confine`]): no capability, no new
//! privilege, small resource limits, no file system and no network (Landlock), and the few system
//! calls that reading needs (seccomp). It answers in frames on a pipe. Whatever becomes of it (a
//! crash, a hang, too much memory) is one failed task in the parent, which always reaps it.
//!
//! A program that runs tasks calls [`child_main`] first thing in its `main`.

mod attempt;
mod child;
pub mod confine;
mod failure;
mod files;
mod parent;
mod reap;
mod syscalls;
mod wire;

pub use attempt::{Attempt, Outcome};
pub use child::child_main;
pub use failure::{Crash, CrashCause, Failure, RefusalKind};

use crate::inspect::{self, Request};
use crate::report::InspectMetrics;
use crate::task::Task;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// How tasks are kept apart from the process that asks for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolation {
    /// Whether a confined child reads the image. If not, this process does.
    pub sandbox: bool,
    /// Whether to refuse when the kernel does not give the child every part of its confinement.
    pub require: bool,
    /// The executable that is started as the child; its `main` calls [`child_main`]. Without it,
    /// the one that is running.
    pub program: Option<PathBuf>,
}

impl Default for Isolation {
    fn default() -> Self {
        Self {
            sandbox: true,
            require: false,
            program: None,
        }
    }
}

impl Isolation {
    /// Answers a task about an image; the answer goes to `out` as it comes. `progress` is told each
    /// phase as it begins.
    ///
    /// # Errors
    /// See [`Failure`]. When it fails, `out` may hold a part of the answer.
    pub fn answer(
        &self,
        request: &Request<'_>,
        task: &Task,
        out: &mut dyn Write,
        progress: &dyn Fn(&str),
    ) -> Result<InspectMetrics, Failure> {
        if self.sandbox {
            return parent::answer(self, request, task, out, progress);
        }
        if self.require {
            return Err(Failure::Unavailable {
                reason: "the sandbox is switched off and required at the same time".to_owned(),
            });
        }
        let mut out = files::Capped::new(out, request.limits.output);
        match inspect::answer(request, task, &mut out, &|phase| progress(phase)) {
            Ok(metrics) => Ok(metrics),
            Err(_) if request.cancelled.load(Ordering::Relaxed) => Err(Failure::Cancelled),
            Err(error) => Err(error.into()),
        }
    }

    /// The confinement that a child reaches on this machine, for example
    /// `landlock-abi-7+seccomp+rlimits`.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] when it is less than this policy asks for, [`Failure::Crashed`] when
    /// no child can be started.
    pub fn level(&self) -> Result<String, Failure> {
        if !self.sandbox {
            return Ok(confine::NONE.to_owned());
        }
        parent::level(self)
    }

    /// Has a confined child try what it must not be able to do.
    ///
    /// # Errors
    /// [`Failure::Crashed`] when no child can be started.
    pub fn attempt(&self, attempt: Attempt, seccomp: bool) -> Result<Outcome, Failure> {
        parent::attempt(self, attempt, seccomp)
    }
}
