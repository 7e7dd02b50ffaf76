//! How an execution ended, before anything is published.

use super::ledger::FinalStatus;
use super::record::Millis;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Why a job did not succeed: the `error` of its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One of `interface.md`'s codes, or a handler's own.
    pub code: Cow<'static, str>,
    /// For a person: what was wrong, and where.
    pub message: String,
    /// Part of the work in which it failed.
    pub phase: Option<String>,
    /// Further facts, as text.
    pub details: BTreeMap<String, String>,
    /// Whether another attempt may succeed.
    pub recoverable: bool,
}

impl Failure {
    /// A failure that another attempt would repeat.
    #[must_use]
    pub fn lasting(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            phase: None,
            details: BTreeMap::new(),
            recoverable: false,
        }
    }
}

/// What a handler's work cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Bytes read from disk images.
    pub disk_read_bytes: u64,
    /// Bytes written.
    pub disk_write_bytes: u64,
    /// Peak memory in bytes, where it can be told.
    pub peak_memory_bytes: u64,
    /// Processor time in milliseconds, where it can be told.
    pub cpu_ms: u64,
}

/// A file that holds what is too large for a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactFile {
    /// What it is: `result`.
    pub name: String,
    /// Where it is: path or URL.
    pub location: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// SHA-256, in hex.
    pub sha256: String,
    /// Media type.
    pub content_type: String,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Final status.
    pub status: FinalStatus,
    /// When the handler began.
    pub started_at: Millis,
    /// When it ended.
    pub finished_at: Millis,
    /// The result's data, as JSON text.
    pub data: Option<String>,
    /// Files beside the result.
    pub artifacts: Vec<ArtifactFile>,
    /// What went wrong.
    pub failure: Option<Failure>,
    /// What it cost.
    pub cost: Cost,
}

impl Outcome {
    /// An outcome that ran no handler, or whose handler's answer does not count.
    #[must_use]
    pub fn unsuccessful(status: FinalStatus, failure: Failure, at: Millis) -> Self {
        Self {
            status,
            started_at: at,
            finished_at: at,
            data: None,
            artifacts: Vec::new(),
            failure: Some(failure),
            cost: Cost::default(),
        }
    }

    /// Bytes it holds in memory, roughly.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.as_ref().map_or(0, String::len)
    }
}
