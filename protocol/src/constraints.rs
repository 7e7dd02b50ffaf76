//! The capability check: whether a worker can satisfy a job's constraints.

use crate::document::envelope::JobEnvelope;
use crate::document::worker::WorkerAdvertisement;
use semver::Version;
use std::collections::BTreeSet;
use std::fmt;

/// The name of the pool of jobs that name none.
pub const DEFAULT_POOL: &str = "default";

/// What a worker can do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Its version, a semantic version.
    pub version: String,
    /// Operations that it has a handler for.
    pub operations: BTreeSet<String>,
    /// Its features.
    pub features: BTreeSet<String>,
    /// Disk formats that it reads.
    pub disk_formats: BTreeSet<String>,
    /// The largest disk it takes, in GB; `None` means any.
    pub max_disk_size_gb: Option<u64>,
    /// Whether it is privileged.
    pub privileged: bool,
    /// Its pool; `None` means [`DEFAULT_POOL`].
    pub worker_pool: Option<String>,
}

impl From<&WorkerAdvertisement> for Capabilities {
    fn from(worker: &WorkerAdvertisement) -> Self {
        let set = |list: &[String]| list.iter().cloned().collect();
        Self {
            version: worker.version.clone(),
            operations: set(&worker.capabilities.operations),
            features: set(&worker.capabilities.features),
            disk_formats: set(&worker.capabilities.disk_formats),
            max_disk_size_gb: worker.resources.max_disk_size_gb,
            privileged: worker.configuration.privileged,
            worker_pool: worker.configuration.worker_pool.clone(),
        }
    }
}

/// A constraint that a worker does not satisfy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmet {
    /// It lists no such operation, feature or disk format.
    Capability(String),
    /// It lacks the feature.
    Feature(String),
    /// It is older.
    Version {
        /// What the job wants.
        minimum: String,
        /// What the worker is.
        worker: String,
    },
    /// Its disks may not be so large, in GB.
    DiskSize {
        /// What the job wants.
        wanted: u64,
        /// What the worker takes.
        worker: u64,
    },
    /// It is not privileged.
    Privileged,
    /// It is in another pool.
    Pool {
        /// The pools that may take the job.
        allowed: Vec<String>,
        /// The worker's.
        worker: String,
    },
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capability(name) => write!(f, "the worker lacks the capability {name:?}"),
            Self::Feature(name) => write!(f, "the worker lacks the feature {name:?}"),
            Self::Version { minimum, worker } => {
                write!(
                    f,
                    "the worker has version {worker}, the job needs {minimum}"
                )
            }
            Self::DiskSize { wanted, worker } => {
                write!(
                    f,
                    "the worker takes disks of {worker} GB, the job needs {wanted} GB"
                )
            }
            Self::Privileged => f.write_str("the worker is not privileged"),
            Self::Pool { allowed, worker } => {
                write!(
                    f,
                    "the worker is in the pool {worker:?}, the job allows {}",
                    allowed.join(", ")
                )
            }
        }
    }
}

impl JobEnvelope {
    /// Whether the job belongs to a pool's topic: it names this pool, or none. A job that names another pool
    /// than that of the topic it was found on is invalid.
    pub fn is_for_pool(&self, pool: &str) -> bool {
        self.routing
            .worker_pool
            .as_deref()
            .is_none_or(|named| named == pool)
    }

    /// Checks the job's constraints against a worker.
    ///
    /// # Errors
    /// All that are not met. A minimum version that is no semantic version is never met.
    pub fn check_constraints(&self, worker: &Capabilities) -> Result<(), Vec<Unmet>> {
        let wanted = &self.constraints;
        let mut unmet = Vec::new();
        for name in &wanted.required_capabilities {
            let lists = [&worker.operations, &worker.features, &worker.disk_formats];
            if !lists.iter().any(|list| list.contains(name)) {
                unmet.push(Unmet::Capability(name.clone()));
            }
        }
        for name in &wanted.required_features {
            if !worker.features.contains(name) {
                unmet.push(Unmet::Feature(name.clone()));
            }
        }
        if let Some(minimum) = &wanted.minimum_worker_version {
            let new_enough = match (Version::parse(minimum), Version::parse(&worker.version)) {
                (Ok(minimum), Ok(version)) => version >= minimum,
                _ => false,
            };
            if !new_enough {
                let (minimum, worker) = (minimum.clone(), worker.version.clone());
                unmet.push(Unmet::Version { minimum, worker });
            }
        }
        if let (Some(wanted), Some(worker)) = (wanted.maximum_disk_size_gb, worker.max_disk_size_gb)
            && wanted > worker
        {
            unmet.push(Unmet::DiskSize { wanted, worker });
        }
        if wanted.require_privileged && !worker.privileged {
            unmet.push(Unmet::Privileged);
        }
        let pool = worker.worker_pool.as_deref().unwrap_or(DEFAULT_POOL);
        if !wanted.allowed_worker_pools.is_empty()
            && !wanted
                .allowed_worker_pools
                .iter()
                .any(|allowed| allowed == pool)
        {
            let allowed = wanted.allowed_worker_pools.clone();
            unmet.push(Unmet::Pool {
                allowed,
                worker: pool.to_owned(),
            });
        }
        if unmet.is_empty() { Ok(()) } else { Err(unmet) }
    }
}
