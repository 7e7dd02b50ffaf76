//! Why a task has no answer.

use crate::error::DiskError;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a task has no answer, told apart by what the caller can do about it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// The image, or a policy about it: another try answers the same.
    #[error("{message}")]
    Image {
        /// What kind.
        kind: RefusalKind,
        /// In words, as [`DiskError`] has them.
        message: String,
    },
    /// The child that read the image died or hung.
    #[error("{0}")]
    Crashed(Crash),
    /// The kernel gives less confinement than is required, or no child can be started.
    #[error("the sandbox is not available: {reason}")]
    Unavailable {
        /// Which part, and why.
        reason: String,
    },
    /// The caller told it to stop.
    #[error("told to stop")]
    Cancelled,
}

/// The kinds of [`DiskError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// Damaged or hostile.
    Corrupt,
    /// A format or feature that is not read.
    Unsupported,
    /// Policy forbids it.
    Denied,
    /// A read past the end of a layer.
    OutOfBounds,
    /// A budget is used up.
    OverBudget,
    /// The operating system failed to read, or the answer could not be written.
    Io,
    /// No such image, or no such path in it.
    NotFound,
}

impl From<&DiskError> for RefusalKind {
    fn from(error: &DiskError) -> Self {
        match error {
            DiskError::Corrupt { .. } => Self::Corrupt,
            DiskError::Unsupported { .. } => Self::Unsupported,
            DiskError::Denied { .. } => Self::Denied,
            DiskError::OutOfBounds { .. } => Self::OutOfBounds,
            DiskError::OverBudget { .. } => Self::OverBudget,
            DiskError::Io { .. } => Self::Io,
            DiskError::NotFound { .. } => Self::NotFound,
        }
    }
}

impl From<DiskError> for Failure {
    fn from(error: DiskError) -> Self {
        Self::Image {
            kind: RefusalKind::from(&error),
            message: error.to_string(),
        }
    }
}

/// How a child came to its end without an answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the inspector {cause} in phase {phase}")]
pub struct Crash {
    /// How.
    pub cause: CrashCause,
    /// The last phase that it reported: `open`, `layers`, or a section.
    pub phase: String,
    /// Processor time it took, as far as the kernel tells.
    pub cpu_ms: u64,
}

/// How a child came to its end without an answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CrashCause {
    /// A bug of ours that the image found.
    #[error("panicked ({0})")]
    Panic(String),
    /// It wanted more memory than it may have.
    #[error("ran out of memory ({0})")]
    Memory(String),
    /// It used more processor time than it may.
    #[error("used up its processor time")]
    Cpu,
    /// It called the system for something that it may not do.
    #[error("was killed for a forbidden system call")]
    Forbidden,
    /// Another signal.
    #[error("was killed by signal {0}")]
    Signal(i32),
    /// It ended by itself without an answer.
    #[error("ended with status {0} and no answer")]
    Exit(i32),
    /// It gave no answer in time, and was killed.
    #[error("gave no answer within {0} ms and was killed")]
    Hang(u128),
    /// What it said is no answer.
    #[error("broke the protocol ({0})")]
    Protocol(String),
    /// It could not be started.
    #[error("could not be started ({0})")]
    Start(String),
}

impl CrashCause {
    /// A short name, for machines.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Panic(_) => "panic",
            Self::Memory(_) => "memory",
            Self::Cpu => "cpu",
            Self::Forbidden => "forbidden",
            Self::Signal(_) => "signal",
            Self::Exit(_) => "exit",
            Self::Hang(_) => "hang",
            Self::Protocol(_) => "protocol",
            Self::Start(_) => "start",
        }
    }
}
