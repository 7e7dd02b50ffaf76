//! `send <topic>`: the span that creates a job's trace, or goes on with the one its document names.

use crate::clock;
use crate::settings::Settings;
use guestkit_kafka::Fault;
use guestkit_kafka::produce::Outgoing;
use guestkit_kafka::trace::{self, Span, SpanKind, Spans};
use guestkit_protocol::{JobEnvelope, TraceContext, headers};
use std::sync::Arc;
use std::time::Duration;

/// How long the end of a command waits for a collector to take its spans.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// The spans of jobs on their way.
pub(crate) struct Sending {
    spans: Arc<Spans>,
    begun: Vec<Begun>,
}

struct Begun {
    own: TraceContext,
    parent: Option<TraceContext>,
    start_ms: i64,
}

impl Sending {
    /// Gives each job a span and writes it into its document; nothing without a collector.
    ///
    /// A job's own ids are its parent's; else `TRACEPARENT` is, with which a build or script says where it
    /// stands.
    pub(crate) fn begin(
        settings: &Settings,
        jobs: &mut [JobEnvelope],
    ) -> Result<Option<Self>, Fault> {
        let Some(spans) = settings.spans()? else {
            return Ok(None);
        };
        let ours = settings.traceparent();
        let begun = jobs.iter_mut().map(|job| {
            let parent = TraceContext::of_document(&job.observability).or(ours);
            let own = spans.begin(parent);
            own.write_to(&mut job.observability, parent);
            Begun {
                own,
                parent,
                start_ms: clock::now().as_millis(),
            }
        });
        let begun = begun.collect();
        Ok(Some(Self { spans, begun }))
    }

    /// What a document cannot say: whether the trace is recorded.
    pub(crate) fn mark(&self, records: &mut [Outgoing]) {
        for (record, begun) in records.iter_mut().zip(&self.begun) {
            let header = record
                .headers
                .iter_mut()
                .find(|(name, _)| name == headers::TRACEPARENT);
            if let Some((_, value)) = header {
                *value = Some(begun.own.to_string().into_bytes());
            }
        }
    }

    /// The record is queued now.
    pub(crate) fn queued(&mut self, number: usize) {
        if let Some(begun) = self.begun.get_mut(number) {
            begun.start_ms = clock::now().as_millis();
        }
    }

    /// The broker answered.
    pub(crate) fn answered(
        &self,
        number: usize,
        job_id: &str,
        topic: &str,
        outcome: &Result<(i32, i64), Fault>,
    ) {
        let Some(begun) = self.begun.get(number) else {
            return;
        };
        let mut attributes = trace::messaging("send", "send", topic);
        attributes.push(trace::message(job_id));
        let error = match outcome {
            Ok((partition, offset)) => {
                attributes.extend(trace::place(
                    u32::try_from(*partition).unwrap_or(0),
                    *offset,
                ));
                None
            }
            Err(fault) => {
                attributes.push(trace::error_type("delivery"));
                Some(fault.to_string())
            }
        };
        self.spans.emit(Span {
            context: begun.own,
            parent: begun.parent,
            parent_is_remote: begun.parent.is_some(),
            link: None,
            name: format!("send {topic}"),
            kind: SpanKind::Producer,
            start_ms: begun.start_ms,
            end_ms: clock::now().as_millis(),
            attributes,
            error,
        });
    }

    /// Sends what is left.
    pub(crate) fn close(&self) {
        self.spans.close(CLOSE_MAX);
        let counts = self.spans.counts();
        let lost = counts.dropped() + counts.failed();
        if lost > 0 {
            eprintln!("{lost} spans were not taken by the collector; the jobs are not affected");
        }
    }
}
