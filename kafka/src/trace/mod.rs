//! Spans and where they go: what worker and command line share of tracing.
//!
//! A job's span begins in one process and thread and ends in another, often hours later, so spans are values
//! here: whoever knows when something began and ended makes one and hands it to [`Spans`], which samples,
//! queues and exports. Without an endpoint there is no [`Spans`], and nothing of this runs.

mod export;
mod sampling;

pub use export::{Counts, Spans};
pub use opentelemetry::KeyValue;
pub use opentelemetry::trace::SpanKind;

use guestkit_protocol::TraceContext;
use opentelemetry_semantic_conventions::attribute as names;

/// A span that is over.
#[derive(Debug, Clone)]
pub struct Span {
    /// Its own ids.
    pub context: TraceContext,
    /// What it is part of.
    pub parent: Option<TraceContext>,
    /// Whether the parent is in another process.
    pub parent_is_remote: bool,
    /// What brought it about, where that may be long over.
    pub link: Option<TraceContext>,
    /// Its name.
    pub name: String,
    /// Its role in an exchange of messages.
    pub kind: SpanKind,
    /// Milliseconds since 1970.
    pub start_ms: i64,
    /// Milliseconds since 1970.
    pub end_ms: i64,
    /// What is known of it.
    pub attributes: Vec<KeyValue>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl Span {
    /// A span inside this process.
    #[must_use]
    pub fn within(
        parent: TraceContext,
        name: impl Into<String>,
        start_ms: i64,
        end_ms: i64,
    ) -> Self {
        Self {
            context: child_of(parent),
            parent: Some(parent),
            parent_is_remote: false,
            link: None,
            name: name.into(),
            kind: SpanKind::Internal,
            start_ms,
            end_ms,
            attributes: Vec::new(),
            error: None,
        }
    }
}

/// A new span of the same trace.
#[must_use]
pub fn child_of(parent: TraceContext) -> TraceContext {
    new_in(parent.trace_id(), parent.is_sampled())
}

fn new_in(trace_id: u128, is_sampled: bool) -> TraceContext {
    loop {
        // Zero is the only number that is no id.
        if let Some(context) = TraceContext::new(trace_id, rand::random(), is_sampled) {
            return context;
        }
    }
}

/// What every messaging span says (OpenTelemetry's conventions for Kafka).
#[must_use]
pub fn messaging(operation: &'static str, kind: &'static str, topic: &str) -> Vec<KeyValue> {
    vec![
        KeyValue::new(names::MESSAGING_SYSTEM, "kafka"),
        KeyValue::new(names::MESSAGING_OPERATION_NAME, operation),
        KeyValue::new(names::MESSAGING_OPERATION_TYPE, kind),
        KeyValue::new(names::MESSAGING_DESTINATION_NAME, topic.to_owned()),
    ]
}

/// Where the message is.
#[must_use]
pub fn place(partition: u32, offset: i64) -> [KeyValue; 2] {
    [
        KeyValue::new(
            names::MESSAGING_DESTINATION_PARTITION_ID,
            partition.to_string(),
        ),
        KeyValue::new(names::MESSAGING_KAFKA_OFFSET, offset),
    ]
}

/// The consumer group.
#[must_use]
pub fn group(name: &str) -> KeyValue {
    KeyValue::new(names::MESSAGING_CONSUMER_GROUP_NAME, name.to_owned())
}

/// The client.
#[must_use]
pub fn client(id: &str) -> KeyValue {
    KeyValue::new(names::MESSAGING_CLIENT_ID, id.to_owned())
}

/// The message, by its job.
#[must_use]
pub fn message(job_id: &str) -> KeyValue {
    KeyValue::new(names::MESSAGING_MESSAGE_ID, job_id.to_owned())
}

/// The class of an error.
#[must_use]
pub fn error_type(code: &str) -> KeyValue {
    KeyValue::new(names::ERROR_TYPE, code.to_owned())
}
