//! What a job's trace says about this worker: `process <topic>` with queue wait, attempts, sections of the
//! handler and `commit <topic>` beneath it.
//!
//! The process span gets its ids when the record is decoded and is exported when its transaction is
//! committed, so results, progress and log lines can name it all the time. It belongs to its creator's trace
//! and links to it as well: it may run hours after the creator is gone. All of this happens at the edge; the
//! engine carries [`JobTrace`] without looking at it. Without an endpoint none of it runs.

use crate::engine::keys::ExecId;
use crate::engine::ledger::FinalStatus;
use crate::engine::outcome::Outcome;
use crate::engine::record::{Content, Job, JobTrace, Millis, RawRecord, Record};
use crate::engine::transaction::{
    Decision, PartitionCommit, Resolution, ResultRecord, Transaction,
};
use guestkit_kafka::trace::{self, KeyValue, Span, SpanKind, Spans};
use guestkit_protocol::{TraceContext, headers};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Sections of one attempt that become spans: the inspector has ten, and a handler that reports hundreds of
/// phases does not mean sections.
const SECTIONS_MAX: usize = 64;

/// An attempt that runs.
struct Attempt {
    job: Arc<Job>,
    trace: Arc<JobTrace>,
    attempt: u32,
    run: u32,
    sections: Vec<(String, Millis)>,
}

/// See the module.
pub struct JobSpans {
    spans: Arc<Spans>,
    topic: String,
    group: String,
    client_id: String,
    running: Mutex<BTreeMap<ExecId, Attempt>>,
}

impl JobSpans {
    /// For the jobs of a topic.
    #[must_use]
    pub fn new(spans: Arc<Spans>, topic: &str, group: &str, client_id: &str) -> Self {
        Self {
            spans,
            topic: topic.to_owned(),
            group: group.to_owned(),
            client_id: client_id.to_owned(),
            running: Mutex::new(BTreeMap::new()),
        }
    }

    /// Sends what is left, for at most `limit`.
    pub fn close(&self, limit: std::time::Duration) {
        self.spans.close(limit);
    }

    /// What became of the spans so far.
    #[must_use]
    pub fn counts(&self) -> &trace::Counts {
        self.spans.counts()
    }

    /// A record was decoded: its job gets a span.
    pub fn received(&self, record: &mut Record, now: Millis) {
        let appended = record.raw.timestamp;
        if let Content::Job(job) = &mut record.content
            // Nobody else has it yet.
            && let Some(job) = Arc::get_mut(job)
        {
            let creator = job.traceparent.as_deref().and_then(TraceContext::parse);
            let own = self.spans.begin(creator);
            // What nobody records goes through as it came, and costs nothing.
            if !own.is_sampled() {
                return;
            }
            job.traceparent = Some(own.to_string().into());
            job.trace = Some(Arc::new(JobTrace {
                own,
                creator,
                appended: appended.min(now),
                received: now,
            }));
        }
    }

    /// An attempt starts.
    pub fn started(&self, exec: ExecId, job: &Arc<Job>, attempt: u32, run: u32) {
        let Some(trace) = &job.trace else {
            return;
        };
        let running = Attempt {
            job: job.clone(),
            trace: trace.clone(),
            attempt,
            run,
            sections: Vec::new(),
        };
        self.lock().insert(exec, running);
    }

    /// A handler told its phase.
    pub fn section(&self, exec: ExecId, phase: &str, now: Millis) {
        if let Some(attempt) = self.lock().get_mut(&exec)
            && attempt.sections.len() < SECTIONS_MAX
            && attempt
                .sections
                .last()
                .is_none_or(|(last, _)| last != phase)
        {
            attempt.sections.push((phase.to_owned(), now));
        }
    }

    /// An attempt is over: what is known of it by now goes out.
    pub fn ended(&self, exec: ExecId, outcome: &Outcome) {
        let Some(attempt) = self.lock().remove(&exec) else {
            return;
        };
        let Attempt { job, trace, .. } = &attempt;
        let (start, end) = (outcome.started_at, outcome.finished_at);
        let mut queue = Span::within(trace.own, "queue", trace.received, start);
        // The wait in the broker came before, and is not this process' to show as a span.
        let waited = start.saturating_sub(trace.appended).max(0);
        queue.attributes = vec![
            trace::message(&job.job_id),
            KeyValue::new("guestkit.queue.wait_ms", waited),
        ];
        self.spans.emit(queue);
        let mut tried = Span::within(trace.own, "attempt", start, end);
        tried.attributes = vec![
            trace::message(&job.job_id),
            KeyValue::new("guestkit.operation", job.envelope.operation.clone()),
            KeyValue::new("guestkit.attempt", i64::from(attempt.attempt)),
            KeyValue::new("guestkit.run", i64::from(attempt.run)),
            KeyValue::new("guestkit.status", status(outcome.status)),
        ];
        fail(&mut tried, outcome);
        let context = tried.context;
        let sections = attempt.sections.iter();
        let ends = sections.clone().skip(1).map(|(_, at)| *at);
        for ((phase, at), until) in sections.zip(ends.chain([end])) {
            self.spans
                .emit(Span::within(context, phase.clone(), *at, until));
        }
        self.spans.emit(tried);
    }

    /// A transaction ended. Its jobs' spans go out if it was committed, and what the commit took, however it
    /// ended.
    pub fn committed(
        &self,
        transaction: &Transaction,
        began: Millis,
        now: Millis,
        ended: &Ended<'_>,
    ) {
        for part in &transaction.partitions {
            for (offset, decision) in part.decisions.iter() {
                let error = match ended {
                    Ended::Committed => None,
                    Ended::Failed(reason) => Some((*reason).to_owned()),
                    Ended::ReadBack(resolutions) => {
                        let found = resolutions.iter().find(|r| r.partition == part.partition);
                        let settled = found.is_some_and(|found| found.settles(*offset));
                        (!settled).then(|| "not committed".to_owned())
                    }
                };
                self.decided(part, *offset, decision, (began, now), error);
            }
        }
    }

    fn decided(
        &self,
        part: &PartitionCommit,
        offset: i64,
        decision: &Decision,
        (began, now): (Millis, Millis),
        error: Option<String>,
    ) {
        let (Decision::Answer(result) | Decision::Reject(_, result)) = decision else {
            if let (Decision::DeadLetter(letter), None) = (decision, &error) {
                self.dead_letter(part, offset, &letter.raw, letter.reason, (began, now));
            }
            return;
        };
        let job = match result {
            ResultRecord::Executed { job, .. }
            | ResultRecord::Duplicate { job, .. }
            | ResultRecord::Conflict { job, .. } => job,
            ResultRecord::Rejected { invalid, .. } => {
                if let (Decision::Reject(letter, _), None) = (decision, &error) {
                    self.dead_letter(part, offset, &letter.raw, invalid.code, (began, now));
                }
                return;
            }
        };
        let Some(trace) = &job.trace else {
            return;
        };
        let mut commit = Span::within(trace.own, format!("commit {}", self.topic), began, now);
        commit.kind = SpanKind::Client;
        commit.attributes = self.attributes("commit", "settle", part.partition, offset);
        commit.attributes.push(trace::message(&job.job_id));
        commit.error = error;
        let is_committed = commit.error.is_none();
        self.spans.emit(commit);
        // Else it is decided again, and ends then.
        if !is_committed {
            return;
        }
        let mut span = self.process(trace.own, trace.creator, trace.received, now);
        span.attributes = self.attributes("process", "process", part.partition, offset);
        span.attributes.extend([
            trace::message(&job.job_id),
            KeyValue::new("guestkit.operation", job.envelope.operation.clone()),
        ]);
        match result {
            ResultRecord::Executed { outcome, .. } => {
                let status = status(outcome.status);
                span.attributes
                    .push(KeyValue::new("guestkit.status", status));
                fail(&mut span, outcome);
            }
            ResultRecord::Duplicate { original, .. } => {
                let original = original.job_id.to_string();
                let duplicate = KeyValue::new("guestkit.duplicate_of", original);
                span.attributes.push(duplicate);
            }
            ResultRecord::Conflict { .. } | ResultRecord::Rejected { .. } => {
                let code = guestkit_protocol::error_code::IDEMPOTENCY_CONFLICT;
                span.attributes.push(trace::error_type(code));
                span.error = Some(code.to_owned());
            }
        }
        self.spans.emit(span);
    }

    /// A record that is no job has no span until it is out of the way.
    fn dead_letter(
        &self,
        part: &PartitionCommit,
        offset: i64,
        raw: &RawRecord,
        reason: &str,
        (began, now): (Millis, Millis),
    ) {
        let header = raw
            .headers
            .iter()
            .find(|(name, _)| name == headers::TRACEPARENT);
        let creator = header
            .and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok())
            .and_then(TraceContext::parse);
        let mut span = self.process(self.spans.begin(creator), creator, began, now);
        span.attributes = self.attributes("process", "process", part.partition, offset);
        span.attributes.push(trace::error_type(reason));
        span.error = Some(format!("dead letter: {reason}"));
        self.spans.emit(span);
    }

    fn process(
        &self,
        own: TraceContext,
        creator: Option<TraceContext>,
        start_ms: Millis,
        end_ms: Millis,
    ) -> Span {
        Span {
            context: own,
            parent: creator,
            parent_is_remote: creator.is_some(),
            link: creator,
            name: format!("process {}", self.topic),
            kind: SpanKind::Consumer,
            start_ms,
            end_ms,
            attributes: Vec::new(),
            error: None,
        }
    }

    fn attributes(
        &self,
        operation: &'static str,
        kind: &'static str,
        partition: u32,
        offset: i64,
    ) -> Vec<KeyValue> {
        let mut attributes = trace::messaging(operation, kind, &self.topic);
        attributes.extend(trace::place(partition, offset));
        attributes.push(trace::group(&self.group));
        attributes.push(trace::client(&self.client_id));
        attributes
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ExecId, Attempt>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a transaction ended.
pub enum Ended<'a> {
    /// Committed.
    Committed,
    /// Not committed.
    Failed(&'a str),
    /// Read back after an unknown outcome.
    ReadBack(&'a [Resolution]),
}

fn status(status: FinalStatus) -> &'static str {
    match status {
        FinalStatus::Completed => "completed",
        FinalStatus::Failed => "failed",
        FinalStatus::Cancelled => "cancelled",
        FinalStatus::Timeout => "timeout",
    }
}

fn fail(span: &mut Span, outcome: &Outcome) {
    if let Some(failure) = &outcome.failure {
        span.attributes
            .push(trace::error_type(failure.code.as_ref()));
        span.error = Some(failure.message.clone());
    }
}
