//! What jobs do: one file per job kind, [`registry`] lists them.
//!
//! A handler is synchronous, runs on a thread of its own and asks [`Context::cancelled`] now and
//! then. It may run more than once for one job (execution is at least once): one that writes uses
//! a temporary name and the fencing token in [`Context`].

mod capability_probe;
mod echo;
mod health_check;
mod inspect;

pub(crate) use inspect::INSPECTOR_CRASHED;

use crate::engine::outcome::{ArtifactFile, Cost, Failure};
use guestkit_inspector::isolate::Isolation;
use guestkit_protocol::JobEnvelope;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a handler gives back when it succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// The result's data, as JSON text.
    pub data: Option<String>,
    /// Files it wrote.
    pub artifacts: Vec<ArtifactFile>,
    /// What it cost.
    pub cost: Cost,
}

/// Why a handler did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandlerError {
    /// It was told to stop, and did.
    Cancelled,
    /// The job cannot be done; the failure says whether another attempt may succeed.
    Failed(Box<Failure>, Cost),
}

impl From<Failure> for HandlerError {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure), Cost::default())
    }
}

/// A progress report of a handler.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Part of the work.
    pub phase: String,
    /// 0 to 100, where it is known.
    pub percent: Option<f64>,
    /// For a person.
    pub message: Option<String>,
}

/// Where progress goes.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

/// What a handler is given beside its job.
pub struct Context {
    /// Attempt, from 1.
    pub attempt: u32,
    /// Run, from 1.
    pub run: u32,
    /// The process life: with job id and run, the fencing token of what the handler writes.
    pub incarnation: Arc<str>,
    pub(crate) cancelled: Arc<AtomicBool>,
    pub(crate) progress: ProgressSink,
    pub(crate) settings: Arc<Settings>,
}

impl Context {
    /// Whether to stop: the outcome no longer counts.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Reports progress. Throttled; never waits.
    pub fn progress(&self, phase: &str, percent: Option<f64>, message: Option<String>) {
        (self.progress)(Progress {
            phase: phase.to_owned(),
            percent,
            message,
        });
    }
}

/// What handlers need of the worker's configuration.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Who this is.
    pub worker_id: Arc<str>,
    /// Directories beneath which images may be opened.
    pub disk_roots: Vec<PathBuf>,
    /// How disk images are read.
    pub isolation: Isolation,
    /// Whether `system.echo` obeys `crash`.
    pub allow_test_faults: bool,
    /// Jobs that run at the same time.
    pub concurrency: usize,
    /// Pool of this worker, if not the default one.
    pub pool: Option<String>,
}

/// One kind of job.
pub trait Handler: Send + Sync {
    /// Does the work.
    ///
    /// # Errors
    /// See [`HandlerError`].
    fn run(&self, job: &JobEnvelope, context: &Context) -> Result<Output, HandlerError>;

    /// What it can, beyond its operation's name: for advertisement and constraints.
    fn features(&self) -> Vec<String> {
        Vec::new()
    }

    /// Disk formats it reads.
    fn disk_formats(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Handlers by operation. Sorted, so that what a worker says of itself is stable.
pub type Registry = BTreeMap<&'static str, Arc<dyn Handler>>;

/// All handlers of this worker.
#[must_use]
pub fn registry() -> Registry {
    let handlers: [(&'static str, Arc<dyn Handler>); 4] = [
        ("guestkit.inspect", Arc::new(inspect::Inspect)),
        (
            "system.capability-probe",
            Arc::new(capability_probe::CapabilityProbe),
        ),
        ("system.echo", Arc::new(echo::Echo)),
        ("system.health-check", Arc::new(health_check::HealthCheck)),
    ];
    handlers.into_iter().collect()
}

/// Reads the payload of a job as a handler's own type; unknown fields are kept out of its way.
pub(crate) fn payload<T: serde::de::DeserializeOwned>(
    job: &JobEnvelope,
) -> Result<T, HandlerError> {
    job.payload.data.read().map_err(|error| {
        Failure::lasting(
            "INVALID_JOB",
            format!("payload.data of {} job: {error}", job.operation),
        )
        .into()
    })
}

/// Encodes a result's data.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, HandlerError> {
    serde_json::to_string(value).map_err(|error| {
        Failure::lasting("INTERNAL", format!("the result has no json form: {error}")).into()
    })
}
