//! Finding a job that is not in memory any more: bounded reads of its partition.
//!
//! The id of a gateway says which partition. An id that a client chose is its own key in most cases, so the
//! partition of that key is read first; where it stood beside another key, all partitions share the bound.
//! First the results, then the jobs. Answers are kept for a short time, that there is none too, so that a
//! client which polls costs one read and not many.

use crate::clock::uptime;
use crate::gateway::follow::document;
use crate::gateway::index::{Entry, Index, Place};
use crate::gateway::job_ids::GatewayId;
use guestkit_kafka::reader::Record;
use guestkit_kafka::scan::{Scanned, Scanner};
use guestkit_kafka::{Connection, Fault, TopicNames};
use guestkit_protocol::{JobEnvelope, JobResult, SchemaSource, decode_job, headers, slot_of};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// The newest records of a topic that one look-up reads, over all partitions that it reads.
const RECORDS_MAX: i64 = 100_000;
/// How long one look-up may take.
const TIME_MAX: Duration = Duration::from_secs(5);
/// How long one question to the cluster may take.
const QUESTION: Duration = Duration::from_secs(3);
/// Look-ups at a time: each reads at the speed of the network, and two cores decode.
const AT_ONCE: usize = 4;
/// How long a request waits for its turn.
const TURN_MAX: Duration = Duration::from_secs(2);
/// Answers that are kept; each has at most one result of 64 KiB.
const ANSWERS_MAX: usize = 256;
/// How long "there is none" and "not done yet" count: one poll of a patient client.
const FRESH: Duration = Duration::from_secs(2);
/// How long an ending is kept: it does not change.
const ENDED: Duration = Duration::from_secs(600);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failed {
    /// Too many look-ups at a time.
    Busy,
    /// Too much to read.
    OutOfTime,
    /// The cluster.
    Fault(Fault),
}

/// See the module.
pub(crate) struct Lookups {
    connection: Connection,
    names: TopicNames,
    slots: u32,
    schemas: Arc<dyn SchemaSource>,
    turns: Semaphore,
    idle: Mutex<Vec<Scanner>>,
    answers: Mutex<HashMap<String, (Duration, Option<Entry>)>>,
}

impl Lookups {
    /// Makes no connection yet.
    pub(crate) fn new(
        connection: Connection,
        names: TopicNames,
        slots: u32,
        schemas: Arc<dyn SchemaSource>,
    ) -> Self {
        Self {
            connection,
            names,
            slots,
            schemas,
            turns: Semaphore::new(AT_ONCE),
            idle: Mutex::default(),
            answers: Mutex::default(),
        }
    }

    /// What the topics say of a job; `None`: nothing.
    pub(crate) async fn find(self: &Arc<Self>, job_id: &str) -> Result<Option<Entry>, Failed> {
        if let Some((until, answer)) = self.answers().get(job_id)
            && uptime() < *until
        {
            return Ok(answer.clone());
        }
        let partitions = self.partitions(job_id);
        if partitions.is_empty() {
            return Ok(None);
        }
        let wanted = job_id.to_owned();
        let found = self
            .with_scanner(move |lookups, scanner| lookups.search(scanner, &wanted, &partitions))
            .await?;
        let is_ended = found.as_ref().is_some_and(|entry| entry.ending.is_some());
        let mut answers = self.answers();
        if answers.len() >= ANSWERS_MAX {
            let now = uptime();
            answers.retain(|_, (until, _)| now < *until);
            if answers.len() >= ANSWERS_MAX {
                answers.clear();
            }
        }
        let until = uptime() + if is_ended { ENDED } else { FRESH };
        answers.insert(job_id.to_owned(), (until, found.clone()));
        Ok(found)
    }

    /// The result at a place, as JSON text; `None`: it is gone, or another one.
    pub(crate) async fn result_at(
        self: &Arc<Self>,
        job_id: &str,
        place: Place,
    ) -> Result<Option<String>, Failed> {
        let wanted = job_id.to_owned();
        self.with_scanner(move |lookups, scanner| {
            let mut found = None;
            let stretch = place.offset..place.offset.saturating_add(1);
            let topic = &lookups.names.results;
            scanner
                .read(topic, place.partition, stretch, TIME_MAX, |record| {
                    found = lookups.result(&record, &wanted);
                    false
                })
                .map_err(Failed::Fault)?;
            Ok(found.and_then(|(result, _)| serde_json::to_string(&result).ok()))
        })
        .await
    }

    fn partitions(&self, job_id: &str) -> Vec<i32> {
        let number = |slot: u32| i32::try_from(slot).ok();
        if let Some(id) = GatewayId::parse(job_id) {
            return number(id.slot)
                .filter(|_| id.slot < self.slots)
                .into_iter()
                .collect();
        }
        let first = slot_of(job_id, self.slots);
        let rest = (0..self.slots).filter(|slot| *slot != first);
        std::iter::once(first)
            .chain(rest)
            .filter_map(number)
            .collect()
    }

    async fn with_scanner<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self, &Scanner) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, Failed> {
        let turn = tokio::time::timeout(TURN_MAX, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(Failed::Busy);
        };
        let lookups = self.clone();
        let work = tokio::task::spawn_blocking(move || {
            let idle = lookups.idle().pop();
            let scanner = match idle {
                Some(scanner) => scanner,
                None => Scanner::new(&lookups.connection).map_err(Failed::Fault)?,
            };
            let outcome = work(&lookups, &scanner);
            // One that failed may be in any state: the next look-up makes a new one.
            if outcome.is_ok() {
                lookups.idle().push(scanner);
            }
            outcome
        });
        work.await.unwrap_or_else(|error| {
            Err(Failed::Fault(Fault::Other {
                what: "look a job up".to_owned(),
                reason: error.to_string(),
            }))
        })
    }

    fn search(
        &self,
        scanner: &Scanner,
        job_id: &str,
        partitions: &[i32],
    ) -> Result<Option<Entry>, Failed> {
        let mut index = Index::new(1, usize::MAX);
        let end = uptime() + TIME_MAX;
        let mut note = |partition: i32, topic: &str| -> Result<ControlFlow<()>, Failed> {
            let share = RECORDS_MAX / i64::try_from(partitions.len()).unwrap_or(RECORDS_MAX);
            let extent = scanner
                .extent(topic, partition, QUESTION)
                .map_err(Failed::Fault)?;
            let stretch = extent.start.max(extent.end - share)..extent.end;
            let left = end.saturating_sub(uptime());
            let scanned = scanner
                .read(topic, partition, stretch, left, |record| {
                    let at = record.timestamp_ms.unwrap_or(0);
                    let is_result = topic == self.names.results;
                    if is_result && let Some((result, text)) = self.result(&record, job_id) {
                        let place = Place {
                            partition,
                            offset: record.offset,
                        };
                        index.result(&result, text, place, at);
                        return false;
                    }
                    if !is_result
                        && let Some(job) = self.job(&record, job_id)
                        && let Ok(payload) = job.payload_hash()
                    {
                        index.job(&job, payload, at);
                        return false;
                    }
                    true
                })
                .map_err(Failed::Fault)?;
            match scanned {
                Scanned::All => Ok(ControlFlow::Continue(())),
                Scanned::Stopped => Ok(ControlFlow::Break(())),
                Scanned::OutOfTime => Err(Failed::OutOfTime),
            }
        };
        for topic in [&self.names.results, &self.names.jobs] {
            for partition in partitions {
                if note(*partition, topic)?.is_break() {
                    return Ok(index.get(job_id).cloned());
                }
            }
        }
        Ok(None)
    }

    fn result(&self, record: &Record, job_id: &str) -> Option<(JobResult, String)> {
        // The key is the job id: most records need not be decoded.
        if record.key.as_deref() != Some(job_id.as_bytes()) {
            return None;
        }
        let result: JobResult = document(record, &*self.schemas)?;
        let text = serde_json::to_string(&result).ok()?;
        Some((result, text))
    }

    fn job(&self, record: &Record, job_id: &str) -> Option<JobEnvelope> {
        let value = record.value.as_deref()?;
        // Strings stand as they are in all three framings, and ids need no escapes.
        let has_id = record.header(headers::CE_ID).as_deref() == Some(job_id)
            || value
                .windows(job_id.len())
                .any(|part| part == job_id.as_bytes());
        let job = has_id.then(|| decode_job(value, &*self.schemas).ok())??;
        (job.job_id == job_id).then_some(job)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Scanner>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<String, (Duration, Option<Entry>)>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
