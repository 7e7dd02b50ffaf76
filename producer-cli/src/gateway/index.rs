//! What this process knows of recent jobs: pure, bounded in number and bytes.
//!
//! Facts come in any order and more than once (a result before its job, a job again after a restart): a
//! result is never undone, progress never goes back. Oldest jobs are forgotten first; whoever asks for one of
//! them reads the topics.

use crate::gateway::highlights::{Highlights, shorten};
use guestkit_protocol::{JobEnvelope, JobProgress, JobResult, JobStatus, PayloadHash, error_code};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// Progress events kept of a job: an event stream that begins late, or again, starts with these.
const PROGRESS_MAX: usize = 16;
/// A result above this size, in bytes, is not kept: it is read again from where it is.
const RESULT_KEPT_MAX: usize = 64 * 1024;
/// What an entry costs beside its texts, in bytes, about: maps, strings' headers, allocator.
const ENTRY_COST: usize = 700;
/// What a progress event costs, in bytes, about.
const PROGRESS_COST: usize = 500;

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// How a job ended.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    pub(crate) status: JobStatus,
    /// The result as JSON text, unless it is large.
    pub(crate) text: Option<Arc<str>>,
    pub(crate) place: Place,
    /// `code` and `message` of its error, shortened.
    pub(crate) error: Option<(String, String)>,
    pub(crate) duplicate_of: Option<String>,
    pub(crate) worker_id: Option<String>,
    pub(crate) highlights: Option<Highlights>,
    /// When it was written, milliseconds since 1970.
    pub(crate) at_ms: i64,
}

impl Ending {
    /// Whether the fleet said that the key belongs to another payload.
    fn lost_its_key(&self) -> bool {
        let code = self.error.as_ref().map(|(code, _)| code.as_str());
        code == Some(error_code::IDEMPOTENCY_CONFLICT)
    }
}

/// What is known of a job.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    pub(crate) operation: Option<String>,
    /// The key as the fleet knows it, with the tenant's prefix.
    pub(crate) key: Option<String>,
    pub(crate) payload: Option<PayloadHash>,
    /// What the job is about, for people: its name or image.
    pub(crate) title: Option<String>,
    pub(crate) submitted_ms: Option<i64>,
    pub(crate) progress: VecDeque<Arc<JobProgress>>,
    pub(crate) ending: Option<Ending>,
    cost: usize,
}

impl Entry {
    /// Pending, running, or how it ended.
    pub(crate) fn status(&self) -> JobStatus {
        match &self.ending {
            Some(ending) => ending.status,
            None if self.progress.is_empty() => JobStatus::Pending,
            None => JobStatus::Running,
        }
    }

    fn price(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let ending = self.ending.as_ref().map_or(0, |ending| {
            ending.text.as_ref().map_or(0, |text| text.len())
        });
        ENTRY_COST
            + text(&self.operation)
            + text(&self.key) * 2
            + text(&self.title)
            + self.progress.len() * PROGRESS_COST
            + ending
    }
}

/// Sorts events of a job: run, attempt, sequence.
pub(crate) fn position(event: &JobProgress) -> (u32, u32, u64) {
    (event.run, event.attempt, event.sequence)
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Index {
    entries: HashMap<Arc<str>, Entry>,
    /// By when they were seen first; the number tells equal times apart.
    order: BTreeMap<(i64, u64), Arc<str>>,
    numbers: HashMap<Arc<str>, (i64, u64)>,
    /// The first job of each key.
    keys: HashMap<String, Arc<str>>,
    next_number: u64,
    bytes: usize,
    entries_max: usize,
    bytes_max: usize,
}

impl Index {
    /// An empty one with its bounds.
    pub(crate) fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            numbers: HashMap::new(),
            keys: HashMap::new(),
            next_number: 0,
            bytes: 0,
            entries_max,
            bytes_max,
        }
    }

    /// A job.
    pub(crate) fn get(&self, job_id: &str) -> Option<&Entry> {
        self.entries.get(job_id)
    }

    /// The job that had this key first, with its payload.
    pub(crate) fn of_key(&self, key: &str) -> Option<(&str, PayloadHash)> {
        let id = self.keys.get(key)?;
        Some((id, self.entries.get(id)?.payload?))
    }

    /// Jobs, newest first.
    pub(crate) fn newest(&self) -> impl Iterator<Item = (&str, &Entry)> {
        let ids = self.order.values().rev();
        ids.filter_map(move |id| Some((&**id, self.entries.get(id)?)))
    }

    /// Jobs and about how many bytes they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    /// A job was published.
    pub(crate) fn job(&mut self, job: &JobEnvelope, payload: PayloadHash, at_ms: i64) {
        let key = job.idempotency_key().to_owned();
        let id = self.change(&job.job_id, at_ms, |entry| {
            // A job id that comes again with another payload has its answer already.
            if entry.payload.is_none() {
                entry.operation = Some(job.operation.clone());
                entry.key = Some(key.clone());
                entry.payload = Some(payload);
                entry.title = title(job);
            }
            entry.submitted_ms.get_or_insert(at_ms);
        });
        let claims = |entry: &Entry| !entry.ending.as_ref().is_some_and(Ending::lost_its_key);
        if let Some(id) = id
            && self.entries.get(&id).is_some_and(claims)
        {
            self.keys.entry(key).or_insert(id);
        }
    }

    /// A job reported progress.
    pub(crate) fn progress(&mut self, event: JobProgress, at_ms: i64) {
        let job_id = event.job_id.clone();
        self.change(&job_id, at_ms, |entry| {
            let is_new = entry
                .progress
                .back()
                .is_none_or(|last| position(last) < position(&event));
            if is_new && entry.ending.is_none() {
                if entry.progress.len() >= PROGRESS_MAX {
                    entry.progress.pop_front();
                }
                entry.progress.push_back(Arc::new(event));
            }
        });
    }

    /// A job ended. The first result of an id counts: there is no second one.
    pub(crate) fn result(&mut self, result: &JobResult, text: String, place: Place, at_ms: i64) {
        self.change(&result.job_id, at_ms, |entry| {
            if entry.ending.is_some() {
                return;
            }
            let summary = result.execution_summary.as_ref();
            if entry.operation.is_none() {
                entry.operation.clone_from(&result.operation);
            }
            if entry.key.is_none() {
                entry.key = summary.and_then(|summary| summary.idempotency_key.clone());
            }
            entry.ending = Some(Ending {
                status: result.status,
                text: (text.len() <= RESULT_KEPT_MAX).then(|| text.into()),
                place,
                error: result
                    .error
                    .as_ref()
                    .map(|error| (shorten(&error.code), shorten(&error.message))),
                duplicate_of: result.duplicate_of.clone(),
                worker_id: result.worker_id.clone(),
                highlights: Highlights::of(result),
                at_ms,
            });
        });
        // The key is another job's, one that was here before this memory begins.
        if let Some(entry) = self.entries.get(&*result.job_id)
            && entry.ending.as_ref().is_some_and(Ending::lost_its_key)
            && let Some(key) = &entry.key
            && self.keys.get(key).is_some_and(|id| **id == *result.job_id)
        {
            self.keys.remove(key);
        }
    }

    /// Changes an entry, made where there is none, and keeps the bounds. `None`: it was forgotten at once.
    fn change(
        &mut self,
        job_id: &str,
        at_ms: i64,
        how: impl FnOnce(&mut Entry),
    ) -> Option<Arc<str>> {
        let id = match self.entries.get_key_value(job_id) {
            Some((id, _)) => id.clone(),
            None => {
                let id: Arc<str> = job_id.into();
                self.entries.insert(id.clone(), Entry::default());
                let number = (at_ms, self.next_number);
                self.next_number += 1;
                self.order.insert(number, id.clone());
                self.numbers.insert(id.clone(), number);
                id
            }
        };
        let entry = self.entries.get_mut(&id)?;
        how(entry);
        let price = entry.price() + id.len() * 2;
        self.bytes = self.bytes - entry.cost + price;
        entry.cost = price;
        while self.entries.len() > self.entries_max || self.bytes > self.bytes_max {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            self.numbers.remove(&oldest);
            let Some(entry) = self.entries.remove(&oldest) else {
                continue;
            };
            self.bytes -= entry.cost;
            if let Some(key) = &entry.key
                && self.keys.get(key).is_some_and(|first| *first == oldest)
            {
                self.keys.remove(key);
            }
        }
        self.entries.contains_key(&id).then_some(id)
    }
}

/// What a list shows of a job: its name, else the image it is about.
fn title(job: &JobEnvelope) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Image {
        path: String,
    }
    #[derive(serde::Deserialize)]
    struct Data {
        image: Image,
    }
    let name = job.metadata.name.clone();
    let image = || {
        let data: Data = job.payload.data.read().ok()?;
        Some(data.image.path)
    };
    name.or_else(image).map(|text| shorten(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use guestkit_protocol::{Timestamp, echo_job};

    const PLACE: Place = Place {
        partition: 0,
        offset: 0,
    };

    fn job(id: &str, key: &str, data: u32) -> (JobEnvelope, PayloadHash) {
        let builder = echo_job(&data).job_id(id).idempotency_key(key);
        let job = builder.build().unwrap();
        let hash = job.payload_hash().unwrap();
        (job, hash)
    }

    fn event(id: &str, sequence: u64) -> JobProgress {
        JobProgress::new(id, Timestamp::default(), sequence, "work")
    }

    fn done(id: &str) -> JobResult {
        JobResult::new(id, JobStatus::Completed)
    }

    #[test]
    fn facts_may_come_in_any_order() {
        let mut index = Index::new(10, 1 << 20);
        let (first, hash) = job("job-00001", "k", 1);
        index.result(&done("job-00001"), "{}".to_owned(), PLACE, 5);
        index.progress(event("job-00001", 9), 6);
        index.job(&first, hash, 4);
        let entry = index.get("job-00001").unwrap();
        assert_eq!(entry.status(), JobStatus::Completed);
        assert!(entry.progress.is_empty(), "progress after the end is none");
        assert_eq!(entry.operation.as_deref(), Some("system.echo"));
        assert_eq!(index.of_key("k"), Some(("job-00001", hash)));
    }

    #[test]
    fn progress_goes_forward_and_is_bounded() {
        let mut index = Index::new(10, 1 << 20);
        for sequence in [1, 2, 2, 1, 3] {
            index.progress(event("job-00001", sequence), 0);
        }
        let seen = |index: &Index| -> Vec<u64> {
            let entry = index.get("job-00001").unwrap();
            entry.progress.iter().map(|event| event.sequence).collect()
        };
        assert_eq!(seen(&index), [1, 2, 3]);
        assert_eq!(index.get("job-00001").unwrap().status(), JobStatus::Running);
        for sequence in 4..100 {
            index.progress(event("job-00001", sequence), 0);
        }
        assert_eq!(seen(&index).len(), PROGRESS_MAX);
        assert_eq!(seen(&index).last(), Some(&99));
    }

    #[test]
    fn the_first_payload_of_a_key_stays_its_own() {
        let mut index = Index::new(10, 1 << 20);
        let (first, hash) = job("job-00001", "k", 1);
        let (second, other) = job("job-00002", "k", 2);
        index.job(&first, hash, 1);
        index.job(&second, other, 2);
        assert_eq!(index.of_key("k"), Some(("job-00001", hash)));
        let newest: Vec<_> = index.newest().map(|(id, _)| id).collect();
        assert_eq!(newest, ["job-00002", "job-00001"]);
    }

    #[test]
    fn a_conflict_does_not_hold_its_key() {
        use guestkit_protocol::JobError;
        let refused = |id: &str| {
            let error = JobError::new(error_code::IDEMPOTENCY_CONFLICT, "taken");
            JobResult::failed(id, Timestamp::default(), error)
        };
        // The first job of the key is older than this memory.
        for result_first in [false, true] {
            let mut index = Index::new(10, 1 << 20);
            let (job, hash) = job("job-00002", "k", 2);
            if result_first {
                index.result(&refused("job-00002"), "{}".to_owned(), PLACE, 2);
            }
            index.job(&job, hash, 1);
            assert_eq!(index.of_key("k").is_none(), result_first);
            index.result(&refused("job-00002"), "{}".to_owned(), PLACE, 2);
            assert_eq!(index.of_key("k"), None);
        }
    }

    #[test]
    fn the_oldest_are_forgotten_by_number_and_by_size() {
        let mut index = Index::new(3, 1 << 20);
        for number in 0..10 {
            let (job, hash) = job(&format!("job-0000{number}"), &format!("k{number}"), 1);
            index.job(&job, hash, number);
        }
        assert_eq!(index.size().0, 3);
        assert!(index.get("job-00006").is_none() && index.of_key("k6").is_none());
        assert!(index.get("job-00007").is_some() && index.of_key("k7").is_some());
        assert_eq!(
            (index.keys.len(), index.order.len(), index.numbers.len()),
            (3, 3, 3)
        );

        let mut index = Index::new(1000, 200_000);
        for number in 0..100 {
            let text = "x".repeat(30_000);
            index.result(&done(&format!("job-{number:05}")), text, PLACE, number);
            assert!(index.size().1 <= 200_000);
        }
        assert!((3..10).contains(&index.size().0), "{:?}", index.size());
        // A large result is known by its place only.
        index.result(
            &done("job-large"),
            "x".repeat(RESULT_KEPT_MAX + 1),
            PLACE,
            200,
        );
        let ending = index.get("job-large").unwrap().ending.as_ref().unwrap();
        assert!(ending.text.is_none());
    }
}
