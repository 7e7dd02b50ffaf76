//! Tells the fleet that this worker is there: its advertisement in the worker directory.
//!
//! Written at start, as a heartbeat, when the state changes, and when the worker leaves. The loop only hands
//! over what changes, and only when something is due; the rest happens on a thread of its own, since a file
//! system may take its time to say how full it is. What cannot be written is counted and logged: no job
//! depends on it.

use crate::broker::plain::Plain;
use crate::capabilities;
use crate::clock::now_ms;
use crate::codec::Codec;
use crate::engine::record::Millis;
use crate::handlers::Settings;
use crate::host;
use guestkit_kafka::directory::HEARTBEAT;
use guestkit_protocol::{
    RunningJob, Timestamp, WorkerAdvertisement, WorkerCapabilities, WorkerConfiguration,
    WorkerResources, WorkerState, WorkerStatus,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// A state is told at most this often: a worker at the edge of its permits is busy and ready many times a
/// second, and nobody wants to know.
const STATE_MS: Millis = 1_000;
/// Advertisements on their way to the thread. It takes microseconds for one; more than these means that it
/// hangs in a file system.
const QUEUE_MAX: usize = 4;
/// How long leaving waits for the last one to be handed to the producer.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// What an advertisement says that never changes.
pub struct Parts {
    /// The worker directory.
    pub topic: String,
    /// The advertisement, without what changes.
    pub constant: WorkerAdvertisement,
    /// Where large results go: how much room it has is told.
    pub work_dir: Option<PathBuf>,
}

impl Parts {
    /// Describes this process.
    #[must_use]
    pub fn new(
        topic: String,
        settings: &Settings,
        incarnation: &str,
        transactional_id: &str,
        work_dir: Option<PathBuf>,
    ) -> Self {
        let described = capabilities::describe(settings);
        let now = Timestamp::from_millis(now_ms());
        let status = WorkerStatus::new(WorkerState::Ready, 0, now);
        let mut constant = WorkerAdvertisement::new(
            settings.worker_id.to_string(),
            described.version,
            now,
            status,
        );
        constant.incarnation = incarnation.to_owned();
        constant.transactional_ids = vec![transactional_id.to_owned()];
        constant.hostname = host::name().unwrap_or_default();
        constant.capabilities = WorkerCapabilities {
            operations: described.operations,
            features: described.features,
            disk_formats: described.disk_formats,
            ..WorkerCapabilities::default()
        };
        constant.resources = WorkerResources {
            max_concurrent_jobs: u32::try_from(settings.concurrency).unwrap_or(u32::MAX),
            cpu_cores: host::cores(),
            memory_gb: host::memory_bytes().map(host::gigabytes),
            ..WorkerResources::default()
        };
        constant.configuration = WorkerConfiguration {
            worker_pool: settings.pool.clone(),
            ..WorkerConfiguration::default()
        };
        Self {
            topic,
            constant,
            work_dir,
        }
    }
}

/// What changes.
#[derive(Debug, PartialEq)]
struct Now {
    at: Millis,
    state: WorkerState,
    running: Vec<RunningJob>,
}

/// What was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    at: Millis,
    state: WorkerState,
    is_idle: bool,
}

/// The worker's place in the directory.
pub struct Registration {
    thread: SyncSender<Now>,
    ended: Receiver<()>,
    permits: usize,
    is_draining: bool,
    told: Option<Told>,
    lost: Arc<AtomicU64>,
}

impl Registration {
    /// Starts the thread; the first [`Registration::beat`] writes.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        parts: Parts,
        permits: usize,
        plain: Arc<Plain>,
        codec: Arc<Codec>,
    ) -> std::io::Result<Self> {
        let (thread, incoming) = sync_channel(QUEUE_MAX);
        // Dropped with the thread: leaving waits for that.
        let (ending, ended) = sync_channel::<()>(0);
        std::thread::Builder::new()
            .name("registration".to_owned())
            .spawn(move || {
                let _ending = ending;
                while let Ok(now) = incoming.recv() {
                    write(&parts, now, &plain, &codec);
                }
            })?;
        Ok(Self {
            thread,
            ended,
            permits,
            is_draining: false,
            told: None,
            lost: Arc::new(AtomicU64::new(0)),
        })
    }

    /// The worker begins to leave.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Called each round of the loop; writes when something is due. `running` says what runs, when asked.
    pub fn beat<'a, I>(&mut self, now: Millis, count: usize, running: impl FnOnce() -> I)
    where
        I: Iterator<Item = &'a str>,
    {
        let state = if self.is_draining {
            WorkerState::Draining
        } else if count >= self.permits {
            WorkerState::Busy
        } else {
            WorkerState::Ready
        };
        if is_due(self.told, now, state, count == 0) {
            self.tell(
                now,
                state,
                running().map(|id| RunningJob::new(id, 1)).collect(),
            );
        }
    }

    /// The last word: offline. Waits until it is with the producer, which the caller flushes.
    pub fn leave(mut self, now: Millis) {
        self.tell(now, WorkerState::Offline, Vec::new());
        let Self { thread, ended, .. } = self;
        drop(thread);
        // The other end is dropped with the thread; a thread that hangs is left behind.
        if ended.recv_timeout(LEAVE_MAX) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the worker directory was not told in time that this worker left");
        }
    }

    fn tell(&mut self, at: Millis, state: WorkerState, running: Vec<RunningJob>) {
        let is_idle = running.is_empty();
        let now = Now { at, state, running };
        if self.thread.try_send(now).is_err() {
            let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::warn!(
                lost,
                "advertisement not written: the one before still waits"
            );
        }
        // A lost one is made up for by the next heartbeat.
        self.told = Some(Told { at, state, is_idle });
    }
}

/// Whether anything runs is part of the state: else an idle fleet would look busy for a heartbeat.
fn is_due(told: Option<Told>, now: Millis, state: WorkerState, is_idle: bool) -> bool {
    let Some(told) = told else {
        return true;
    };
    let silent = now.saturating_sub(told.at);
    let heartbeat = Millis::try_from(HEARTBEAT.as_millis()).unwrap_or(Millis::MAX);
    let has_changed = (state, is_idle) != (told.state, told.is_idle);
    silent >= heartbeat || (has_changed && silent >= STATE_MS)
}

fn write(parts: &Parts, now: Now, plain: &Plain, codec: &Codec) {
    let mut advertisement = parts.constant.clone();
    let current = u32::try_from(now.running.len()).unwrap_or(u32::MAX);
    let at = Timestamp::from_millis(now.at);
    advertisement.status = WorkerStatus::new(now.state, current, at);
    advertisement.running = now.running;
    if let Some(directory) = &parts.work_dir {
        let free = host::free_bytes(directory);
        advertisement.resources.available_disk_gb = free.map(|bytes| bytes / host::GIGABYTE);
    }
    match codec.encode_advertisement(&advertisement) {
        Ok(encoded) => plain.write_advertisement(&parts.topic, &advertisement.worker_id, &encoded),
        Err(error) => tracing::warn!(%error, "advertisement not encoded"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_and_changes_are_due_but_no_flicker() {
        use WorkerState::{Busy, Draining, Ready};
        assert!(is_due(None, 0, Ready, true));
        let told = Some(Told {
            at: 50_000,
            state: Ready,
            is_idle: true,
        });
        assert!(!is_due(told, 59_999, Ready, true));
        assert!(is_due(told, 60_000, Ready, true));
        assert!(!is_due(told, 50_999, Busy, false));
        assert!(is_due(told, 51_000, Busy, false));
        assert!(is_due(told, 51_000, Ready, false));
        assert!(is_due(told, 51_000, Draining, true));
    }

    #[test]
    fn what_is_said_is_true() {
        let settings = Settings {
            worker_id: "w-1".into(),
            concurrency: 3,
            ..Settings::default()
        };
        let parts = Parts::new("t".to_owned(), &settings, "w-1-x", "t.g.w-1.0", None);
        let said = &parts.constant;
        assert_eq!(said.resources.max_concurrent_jobs, 3);
        assert!(said.resources.cpu_cores.is_some_and(|cores| cores > 0));
        assert!(
            said.resources
                .memory_gb
                .is_some_and(|gb| gb > 0.1 && gb < 1e6)
        );
        assert!(
            said.capabilities
                .operations
                .contains(&"guestkit.inspect".to_owned())
        );
        assert!(said.capabilities.disk_formats.contains(&"qcow2".to_owned()));
        assert_eq!(said.hostname, host::name().unwrap());
    }
}
