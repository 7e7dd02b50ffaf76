//! The worker advertisement: who is there and what it can do; also the heartbeat.

use crate::document::document;
use crate::record::{default_or, default_text, json_name, record, words};
use crate::timestamp::Timestamp;

words! {
    /// `status.state` of a worker.
    pub enum WorkerState {
        /// Takes jobs.
        Ready = "ready",
        /// Has no permit left.
        Busy = "busy",
        /// Finishes what it has and leaves.
        Draining = "draining",
        /// Gone.
        Offline = "offline",
    }
}

record! {
    /// A worker: what it can do and how it is. Its heartbeats renew the leases of what it runs.
    plain pub struct WorkerAdvertisement {
        /// The worker; also the record key.
        worker_id: String,
        /// The process life: the worker id and a random number.
        incarnation: String,
        /// The transactional ids of its producers.
        transactional_ids: Vec<String>,
        /// Its version, a semantic version.
        version: String,
        /// Its host.
        hostname: String,
        /// When this process began.
        registered_at: Timestamp,
        /// What it can do.
        capabilities: WorkerCapabilities,
        /// What it has.
        resources: WorkerResources,
        /// How it is set up.
        configuration: WorkerConfiguration,
        /// How it is.
        status: WorkerStatus,
        /// The jobs that it runs, those of slots it no longer owns among them.
        running: Vec<RunningJob>,
    }
}
document!(WorkerAdvertisement, "worker_advertisement");

record! {
    /// What a worker can do.
    nullable pub struct WorkerCapabilities {
        /// Operations that it has a handler for.
        operations: Vec<String>,
        /// Features, for example lvm or sandbox.
        features: Vec<String>,
        /// Disk formats that it reads, for example qcow2.
        disk_formats: Vec<String>,
    }
}

record! {
    /// What a worker has.
    nullable pub struct WorkerResources {
        /// How many jobs run at once.
        max_concurrent_jobs: u32 = 1,
        /// The largest disk it takes, in GB; absent means any.
        max_disk_size_gb: Option<u64>,
        /// Free space for its work, in GB.
        available_disk_gb: Option<u64>,
        /// Processor cores.
        cpu_cores: Option<u32>,
        /// Memory in GB.
        memory_gb: Option<f64>,
    }
}

record! {
    /// How a worker is set up.
    nullable pub struct WorkerConfiguration {
        /// Whether it is privileged.
        privileged: bool = false,
        /// Its pool; absent means the default pool.
        worker_pool: Option<String>,
        /// Where its disks are near.
        data_locality: Vec<String>,
    }
}

record! {
    /// How a worker is.
    plain pub struct WorkerStatus {
        /// One of ready, busy, draining, offline.
        state: WorkerState,
        /// How many jobs run.
        current_jobs: u32 = 0,
        /// When it said so.
        last_heartbeat: Timestamp,
    }
}

record! {
    /// A job that a worker runs: what its heartbeat renews.
    plain pub struct RunningJob {
        /// The job.
        job_id: String,
        /// The run.
        run: u32,
    }
}

impl WorkerAdvertisement {
    /// An advertisement with the fields that are always there.
    pub fn new(
        worker_id: impl Into<String>,
        version: impl Into<String>,
        registered_at: Timestamp,
        status: WorkerStatus,
    ) -> Self {
        Self {
            worker_id: worker_id.into(),
            incarnation: String::new(),
            transactional_ids: Vec::new(),
            version: version.into(),
            hostname: String::new(),
            registered_at,
            capabilities: WorkerCapabilities::default(),
            resources: WorkerResources::default(),
            configuration: WorkerConfiguration::default(),
            status,
            running: Vec::new(),
            extensions: Default::default(),
        }
    }
}

impl RunningJob {
    /// A run of a job.
    pub fn new(job_id: impl Into<String>, run: u32) -> Self {
        Self {
            job_id: job_id.into(),
            run,
            extensions: Default::default(),
        }
    }
}

impl WorkerStatus {
    /// A status at a time.
    pub fn new(state: WorkerState, current_jobs: u32, last_heartbeat: Timestamp) -> Self {
        Self {
            state,
            current_jobs,
            last_heartbeat,
            extensions: Default::default(),
        }
    }
}
