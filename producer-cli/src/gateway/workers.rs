//! The worker directory: the newest advertisement of each worker.

use guestkit_kafka::directory::ListedWorker;
use guestkit_protocol::{Timestamp, WorkerAdvertisement, WorkerState};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Workers that are kept: far beyond any group that Kafka would balance.
const WORKERS_MAX: usize = 10_000;
/// A worker that is offline for so long is of no interest any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// A worker as clients see it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct WorkerView {
    worker_id: String,
    /// What it said last, or offline when its heartbeats stopped.
    state: WorkerState,
    /// When it said so, by the broker's clock.
    last_seen: Timestamp,
    version: String,
    hostname: String,
    pool: String,
    current_jobs: u32,
    max_concurrent_jobs: u32,
    operations: Vec<String>,
    features: Vec<String>,
    disk_formats: Vec<String>,
    registered_at: Timestamp,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Directory(Mutex<BTreeMap<Vec<u8>, (WorkerAdvertisement, Timestamp)>>);

impl Directory {
    /// A record of the topic: an advertisement, or none any more.
    pub(crate) fn update(&self, key: Vec<u8>, worker: Option<(WorkerAdvertisement, Timestamp)>) {
        let mut workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match worker {
            None => {
                workers.remove(&key);
            }
            Some(worker) => {
                if workers.len() < WORKERS_MAX || workers.contains_key(&key) {
                    workers.insert(key, worker);
                }
            }
        }
    }

    /// All workers as they are at `now`.
    pub(crate) fn list(&self, now: Timestamp) -> Vec<WorkerView> {
        let workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        workers
            .values()
            .map(|(worker, last_seen)| ListedWorker::judge(worker.clone(), *last_seen, now))
            .filter(|worker| worker.is_alive() || worker.age(now) < FORGOTTEN_AFTER)
            .map(view)
            .collect()
    }
}

fn view(listed: ListedWorker) -> WorkerView {
    let pool = listed.pool().to_owned();
    let worker = listed.advertisement;
    WorkerView {
        worker_id: worker.worker_id,
        state: listed.state,
        last_seen: listed.last_seen,
        version: worker.version,
        hostname: worker.hostname,
        pool,
        current_jobs: worker.status.current_jobs,
        max_concurrent_jobs: worker.resources.max_concurrent_jobs,
        operations: worker.capabilities.operations,
        features: worker.capabilities.features,
        disk_formats: worker.capabilities.disk_formats,
        registered_at: worker.registered_at,
    }
}
