//! What this worker can do: for admission, `capabilities` and the capability probe.

use crate::engine::Admission;
use crate::engine::outcome::Failure;
use crate::engine::record::Job;
use crate::handlers::{Settings, registry};
use guestkit_protocol::{Capabilities, error_code};
use serde::Serialize;
use std::collections::BTreeSet;

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Description {
    /// Its version.
    pub version: &'static str,
    /// Operations it has a handler for.
    pub operations: Vec<String>,
    /// Features of its handlers.
    pub features: Vec<String>,
    /// Disk formats it reads.
    pub disk_formats: Vec<String>,
    /// Jobs that run at the same time.
    pub max_concurrent_jobs: usize,
    /// Its pool.
    pub worker_pool: String,
}

/// Describes a worker with these settings.
#[must_use]
pub fn describe(settings: &Settings) -> Description {
    let capabilities = capabilities(settings);
    Description {
        version: env!("CARGO_PKG_VERSION"),
        operations: capabilities.operations.into_iter().collect(),
        features: capabilities.features.into_iter().collect(),
        disk_formats: capabilities.disk_formats.into_iter().collect(),
        max_concurrent_jobs: settings.concurrency,
        worker_pool: capabilities
            .worker_pool
            .unwrap_or_else(|| guestkit_protocol::DEFAULT_POOL.to_owned()),
    }
}

fn capabilities(settings: &Settings) -> Capabilities {
    let handlers = registry();
    let features: BTreeSet<String> = handlers.values().flat_map(|h| h.features()).collect();
    let disk_formats: BTreeSet<String> = handlers.values().flat_map(|h| h.disk_formats()).collect();
    Capabilities {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        operations: handlers.keys().map(|name| (*name).to_owned()).collect(),
        features,
        disk_formats,
        max_disk_size_gb: None,
        privileged: false,
        worker_pool: settings.pool.clone(),
    }
}

/// Refuses a job that no worker of this pool can run: pools are homogeneous, so waiting or
/// forwarding would not help (decisions.md).
#[must_use]
pub fn admission(settings: &Settings) -> Admission {
    let capabilities = capabilities(settings);
    Box::new(move |job: &Job| {
        if !capabilities.operations.contains(&job.envelope.operation) {
            return Err(Failure::lasting(
                error_code::HANDLER_NOT_FOUND,
                format!(
                    "no handler for operation {:?}; this pool has {}",
                    job.envelope.operation,
                    capabilities
                        .operations
                        .iter()
                        .map(String::as_str)
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            ));
        }
        job.envelope
            .check_constraints(&capabilities)
            .map_err(|unmet| {
                let reasons: Vec<String> = unmet.iter().map(ToString::to_string).collect();
                Failure::lasting(
                    error_code::CONSTRAINT_UNSATISFIED,
                    format!("constraints: {}", reasons.join("; ")),
                )
            })
    })
}
