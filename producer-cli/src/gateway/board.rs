//! The index shared by all parts of the gateway, and who waits for news of a job.

use crate::gateway::index::{Entry, Index, Place};
use guestkit_protocol::{JobEnvelope, JobProgress, JobResult, PayloadHash};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Bytes of jobs that are kept: a pod of 256 MiB has room for it beside its Kafka clients.
const INDEX_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Event streams at a time; each holds a connection anyway.
pub(crate) const WATCHERS_MAX: usize = 1_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Board {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    index: Index,
    watched: HashMap<String, Watched>,
    watchers: usize,
}

#[derive(Debug)]
struct Watched {
    news: watch::Sender<()>,
    count: usize,
}

impl Board {
    /// Room for so many jobs.
    pub(crate) fn new(jobs_max: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                index: Index::new(jobs_max, INDEX_BYTES_MAX),
                watched: HashMap::new(),
                watchers: 0,
            }),
        }
    }

    /// What is known of a job.
    pub(crate) fn get(&self, job_id: &str) -> Option<Entry> {
        self.lock().index.get(job_id).cloned()
    }

    /// Looks at the whole index.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&self.lock().index)
    }

    /// A job was published.
    pub(crate) fn job(&self, job: &JobEnvelope, payload: PayloadHash, at_ms: i64) {
        let mut inner = self.lock();
        inner.index.job(job, payload, at_ms);
        inner.tell(&job.job_id);
    }

    /// A job reported progress.
    pub(crate) fn progress(&self, event: JobProgress, at_ms: i64) {
        let mut inner = self.lock();
        let job_id = event.job_id.clone();
        inner.index.progress(event, at_ms);
        inner.tell(&job_id);
    }

    /// A job ended.
    pub(crate) fn result(&self, result: &JobResult, text: String, place: Place, at_ms: i64) {
        let mut inner = self.lock();
        inner.index.result(result, text, place, at_ms);
        inner.tell(&result.job_id);
    }

    /// Waits for news of a job; `None` when too many do.
    pub(crate) fn watch(self: &Arc<Self>, job_id: &str) -> Option<Watcher> {
        let mut inner = self.lock();
        if inner.watchers >= WATCHERS_MAX {
            return None;
        }
        inner.watchers += 1;
        let watched = inner
            .watched
            .entry(job_id.to_owned())
            .or_insert_with(|| Watched {
                news: watch::channel(()).0,
                count: 0,
            });
        watched.count += 1;
        Some(Watcher {
            news: watched.news.subscribe(),
            board: self.clone(),
            job_id: job_id.to_owned(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The index keeps its own bounds on every path; a panic elsewhere cannot have torn it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tell(&self, job_id: &str) {
        if let Some(watched) = self.watched.get(job_id) {
            watched.news.send_replace(());
        }
    }
}

/// Learns that there is news of a job; what it is stands on the board.
#[derive(Debug)]
pub(crate) struct Watcher {
    news: watch::Receiver<()>,
    board: Arc<Board>,
    job_id: String,
}

impl Watcher {
    /// Returns when there was news since the last time.
    pub(crate) async fn changed(&mut self) {
        // The sender lives as long as this watcher is counted.
        self.news.changed().await.ok();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut inner = self.board.lock();
        inner.watchers = inner.watchers.saturating_sub(1);
        if let Some(watched) = inner.watched.get_mut(&self.job_id) {
            watched.count -= 1;
            if watched.count == 0 {
                inner.watched.remove(&self.job_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guestkit_protocol::Timestamp;

    #[test]
    fn watchers_hear_of_their_job_only_and_leave_nothing() {
        let board = Arc::new(Board::new(10));
        let mut mine = board.watch("job-00001").unwrap();
        let other = board.watch("job-00002").unwrap();
        board.progress(
            JobProgress::new("job-00001", Timestamp::default(), 1, "work"),
            0,
        );
        assert!(mine.news.has_changed().unwrap());
        assert!(!other.news.has_changed().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(mine.changed());
        let many: Vec<_> = (0..WATCHERS_MAX)
            .map_while(|_| board.watch("job-00003"))
            .collect();
        assert_eq!(many.len(), WATCHERS_MAX - 2);
        drop((mine, other, many));
        let inner = board.lock();
        assert!(inner.watched.is_empty() && inner.watchers == 0);
    }
}
