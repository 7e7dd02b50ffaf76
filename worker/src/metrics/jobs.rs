//! What handlers do and what becomes of jobs.
//!
//! Seen on the handler threads (each run) and on the writer's (each committed answer). Both meet
//! tens of thousands of jobs a second, so every series is looked up once, at start.

use super::buckets;
use crate::engine::ledger::FinalStatus;
use crate::engine::outcome::Outcome;
use crate::engine::record::Job;
use crate::engine::transaction::{Decision, Resolution, ResultRecord, Transaction};
use crate::handlers::INSPECTOR_CRASHED;
use guestkit_protocol::error_code;
use prometheus::core::Collector;
use prometheus::{Counter, Histogram, IntCounter, IntCounterVec, Opts, Registry};

/// Stands for every operation that has no handler here, and for every error code of a handler's own:
/// what clients write must not make series.
const OTHER: &str = "other";

const STATUSES: [(FinalStatus, &str); 4] = [
    (FinalStatus::Completed, "completed"),
    (FinalStatus::Failed, "failed"),
    (FinalStatus::Cancelled, "cancelled"),
    (FinalStatus::Timeout, "timeout"),
];

/// Error codes that have a series each.
const CODES: [&str; 15] = [
    INSPECTOR_CRASHED,
    error_code::CANCELLED,
    error_code::CONSTRAINT_UNSATISFIED,
    error_code::DEADLINE_EXCEEDED,
    error_code::HANDLER_NOT_FOUND,
    error_code::HANDLER_PANIC,
    error_code::IMAGE_DENIED,
    error_code::IMAGE_INVALID,
    error_code::IMAGE_NOT_FOUND,
    error_code::INTERNAL,
    error_code::INVALID_JOB,
    error_code::RESULT_TOO_LARGE,
    error_code::TIMEOUT,
    error_code::UNSUPPORTED,
    error_code::WORKER_LOST,
];

/// Reasons of dead letters that are shown before there is one.
const REASONS: [&str; 3] = [
    error_code::INVALID_JOB,
    error_code::UNSUPPORTED_VERSION,
    "JOB_ID_REUSED",
];

/// The series of one operation.
#[derive(Debug)]
struct Operation {
    name: &'static str,
    attempts: IntCounter,
    queue_wait: Histogram,
    run: Histogram,
    /// In the order of [`STATUSES`].
    ended: [IntCounter; STATUSES.len()],
}

/// Series about jobs.
#[derive(Debug)]
pub struct Jobs {
    /// One for each handler, sorted by name, then the one for everything else.
    operations: Vec<Operation>,
    failures: IntCounterVec,
    dead_letters: IntCounterVec,
    child_crashes: IntCounter,
    read_bytes: IntCounter,
    cpu_seconds: Counter,
    peak_memory: Histogram,
}

impl Jobs {
    pub(super) fn new(
        registry: &Registry,
        handlers: impl Iterator<Item = &'static str>,
    ) -> prometheus::Result<Self> {
        let add = |metric: Box<dyn Collector>| registry.register(metric);
        let ended = IntCounterVec::new(
            Opts::new(
                "guestkit_jobs_total",
                "Jobs that ran or were refused and whose result is committed, by operation and status; duplicates and conflicts ran nothing and are in guestkit_records_decided_total.",
            ),
            &["operation", "status"],
        )?;
        let attempts = IntCounterVec::new(
            Opts::new(
                "guestkit_job_attempts_total",
                "Runs of a handler that ended, whatever became of their outcome.",
            ),
            &["operation"],
        )?;
        let queue_wait = buckets::seconds_by(
            "guestkit_job_queue_wait_seconds",
            "Time from a job's record timestamp (the broker's clock) to the start of its handler.",
            &["operation"],
        )?;
        let run = buckets::seconds_by(
            "guestkit_job_run_seconds",
            "Time that a handler took.",
            &["operation"],
        )?;
        let mut names: Vec<&'static str> = handlers.collect();
        names.sort_unstable();
        names.push(OTHER);
        let operations = names
            .into_iter()
            .map(|name| Operation {
                name,
                attempts: attempts.with_label_values(&[name]),
                queue_wait: queue_wait.with_label_values(&[name]),
                run: run.with_label_values(&[name]),
                ended: STATUSES.map(|(_, status)| ended.with_label_values(&[name, status])),
            })
            .collect();
        let failures = IntCounterVec::new(
            Opts::new(
                "guestkit_job_failures_total",
                "Jobs with a committed result that is not completed, by error code; codes of a handler's own are \"other\".",
            ),
            &["code"],
        )?;
        let dead_letters = IntCounterVec::new(
            Opts::new(
                "guestkit_dead_letters_total",
                "Records committed to the dead letters, by reason.",
            ),
            &["reason"],
        )?;
        let child_crashes = IntCounter::new(
            "guestkit_child_crashes_total",
            "Confined processes of handlers that ended without an answer.",
        )?;
        let read_bytes = IntCounter::new(
            "guestkit_disk_read_bytes_total",
            "Bytes that handlers read from disk images.",
        )?;
        let cpu_seconds = Counter::new(
            "guestkit_handler_cpu_seconds_total",
            "Processor time of handlers that can tell it.",
        )?;
        let peak_memory = buckets::bytes(
            "guestkit_handler_peak_memory_bytes",
            "Peak memory of a handler's confined process, one observation a job that can tell it.",
        )?;
        for code in CODES.into_iter().chain([OTHER]) {
            failures.with_label_values(&[code]);
        }
        for reason in REASONS {
            dead_letters.with_label_values(&[reason]);
        }
        add(Box::new(ended))?;
        add(Box::new(attempts))?;
        add(Box::new(queue_wait))?;
        add(Box::new(run))?;
        add(Box::new(failures.clone()))?;
        add(Box::new(dead_letters.clone()))?;
        add(Box::new(child_crashes.clone()))?;
        add(Box::new(read_bytes.clone()))?;
        add(Box::new(cpu_seconds.clone()))?;
        add(Box::new(peak_memory.clone()))?;
        Ok(Self {
            operations,
            failures,
            dead_letters,
            child_crashes,
            read_bytes,
            cpu_seconds,
            peak_memory,
        })
    }

    /// A handler ran.
    pub fn ran(&self, job: &Job, outcome: &Outcome) {
        let Some(operation) = self.operations.get(self.place(&job.envelope.operation)) else {
            return;
        };
        operation.attempts.inc();
        if job.published > 0 {
            let waited = outcome.started_at - job.published;
            operation.queue_wait.observe(super::seconds(waited));
        }
        let took = outcome.finished_at - outcome.started_at;
        operation.run.observe(super::seconds(took));
        let cost = &outcome.cost;
        if cost.disk_read_bytes > 0 {
            self.read_bytes.inc_by(cost.disk_read_bytes);
        }
        if cost.cpu_ms > 0 {
            self.cpu_seconds.inc_by(cost.cpu_ms as f64 / 1e3);
        }
        if cost.peak_memory_bytes > 0 {
            self.peak_memory.observe(cost.peak_memory_bytes as f64);
        }
        let code = outcome.failure.as_ref().map(|failure| &*failure.code);
        if code == Some(INSPECTOR_CRASHED) {
            self.child_crashes.inc();
        }
    }

    /// A transaction committed.
    pub fn committed(&self, transaction: &Transaction) {
        self.count(transaction, |_, _| true);
    }

    /// A transaction of unknown outcome was read back.
    pub fn resolved(&self, transaction: &Transaction, resolutions: &[Resolution]) {
        self.count(transaction, |partition, offset| {
            resolutions
                .iter()
                .any(|found| found.partition == partition && found.settles(offset))
        });
    }

    fn count(&self, transaction: &Transaction, is_settled: impl Fn(u32, i64) -> bool) {
        // Summed up here, so that a transaction costs a few atomic additions and a job none.
        let mut ended = vec![[0_u64; STATUSES.len()]; self.operations.len()];
        for part in &transaction.partitions {
            for (offset, decision) in part.decisions.iter() {
                if !is_settled(part.partition, *offset) {
                    continue;
                }
                match decision {
                    Decision::DeadLetter(letter) | Decision::Reject(letter, _) => {
                        self.dead_letters.with_label_values(&[letter.reason]).inc();
                    }
                    Decision::Answer(ResultRecord::Executed { job, outcome, .. }) => {
                        let status = STATUSES.iter().position(|(s, _)| *s == outcome.status);
                        let place = self.place(&job.envelope.operation);
                        if let (Some(row), Some(status)) = (ended.get_mut(place), status)
                            && let Some(count) = row.get_mut(status)
                        {
                            *count += 1;
                        }
                        if let Some(failure) = &outcome.failure {
                            self.failures
                                .with_label_values(&[known_code(&failure.code)])
                                .inc();
                        }
                    }
                    Decision::Answer(_) | Decision::Drop | Decision::Forward(..) => {}
                }
            }
        }
        for (operation, counts) in self.operations.iter().zip(ended) {
            for (counter, count) in operation.ended.iter().zip(counts) {
                if count > 0 {
                    counter.inc_by(count);
                }
            }
        }
    }

    fn place(&self, name: &str) -> usize {
        let handlers = self.operations.len().saturating_sub(1);
        let known = self.operations.get(..handlers).unwrap_or_default();
        known
            .binary_search_by(|operation| operation.name.cmp(name))
            .unwrap_or(handlers)
    }
}

fn known_code(code: &str) -> &'static str {
    CODES
        .into_iter()
        .find(|known| *known == code)
        .unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_write_makes_no_series() {
        let registry = Registry::new();
        let jobs = Jobs::new(&registry, ["b.two", "a.one"].into_iter()).unwrap();
        assert_eq!(jobs.operations.len(), 3);
        assert_eq!(jobs.operations[jobs.place("a.one")].name, "a.one");
        assert_eq!(jobs.operations[jobs.place("b.two")].name, "b.two");
        for foreign in ["", "a", "zzz", "other"] {
            assert_eq!(jobs.operations[jobs.place(foreign)].name, OTHER);
        }
        assert_eq!(known_code("TIMEOUT"), "TIMEOUT");
        assert_eq!(known_code("MY_OWN"), OTHER);
    }
}
