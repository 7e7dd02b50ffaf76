//! A bounded queue and a thread that sends what is in it to a collector (OTLP over HTTP).
//!
//! Whoever makes spans never waits: with the queue full, they are dropped and counted. A collector that is
//! slow or away costs spans, not jobs.

use super::sampling::Sampling;
use super::{Span, new_in};
use crate::clock::Moment;
use crate::connection::Properties;
use crate::fault::Fault;
use guestkit_protocol::TraceContext;
use opentelemetry::trace::{Link, SpanContext, Status, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _, SpanLinks};
use opentelemetry_semantic_conventions::attribute as names;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Spans between their makers and the collector: a second of a busy worker, some 10 MB.
const QUEUE_MAX: usize = 8_192;
/// Spans in one request: well below what collectors take (4 MB by default).
const BATCH_MAX: usize = 512;
/// How long a span waits for others to go with: what is looked at by people may be a second old.
const LINGER: Duration = Duration::from_secs(1);

/// What became of spans.
#[derive(Debug, Default)]
pub struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    /// Taken by the collector.
    #[must_use]
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }
    /// Dropped, since the queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
    /// Sent, and not taken.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// See the module.
pub struct Spans {
    queue: Mutex<Option<SyncSender<Span>>>,
    ended: Mutex<Receiver<()>>,
    sampling: Sampling,
    counts: Arc<Counts>,
}

impl std::fmt::Debug for Spans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spans")
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

/// Where spans go, if anywhere: `endpoint` is a base address as in `OTEL_EXPORTER_OTLP_ENDPOINT`.
fn address(endpoint: Option<&str>, environment: &Properties) -> Option<String> {
    let set = |name: &str| {
        environment
            .get(name)
            .map(String::as_str)
            .filter(|v| !v.is_empty())
    };
    if set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || set("OTEL_TRACES_EXPORTER") == Some("none")
    {
        return None;
    }
    let traces = |base: &str| format!("{}/v1/traces", base.trim_end_matches('/'));
    match endpoint.filter(|endpoint| !endpoint.is_empty()) {
        Some(base) => Some(traces(base)),
        // The one for traces alone is a whole address.
        None => set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            .map(str::to_owned)
            .or_else(|| set("OTEL_EXPORTER_OTLP_ENDPOINT").map(traces)),
    }
}

impl Spans {
    /// Starts exporting, if there is where to. `endpoint` wins over the environment's standard variables, which
    /// also give headers, time limit, sampler and further resource attributes.
    ///
    /// # Errors
    /// [`Fault::Config`] when they make no sense.
    pub fn start(
        service: &'static str,
        instance: &str,
        endpoint: Option<&str>,
        environment: &Properties,
    ) -> Result<Option<Arc<Self>>, Fault> {
        let Some(address) = address(endpoint, environment) else {
            return Ok(None);
        };
        let set = |name: &str| environment.get(name).map(String::as_str);
        let sampling = Sampling::new(set("OTEL_TRACES_SAMPLER"), set("OTEL_TRACES_SAMPLER_ARG"))?;
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(&address)
            .build()
            .map_err(|error| Fault::Config(format!("otlp endpoint {address}: {error}")))?;
        let mut resource = Resource::builder()
            .with_attribute(KeyValue::new(
                names::SERVICE_VERSION,
                env!("CARGO_PKG_VERSION"),
            ))
            .with_attribute(KeyValue::new(
                names::SERVICE_INSTANCE_ID,
                instance.to_owned(),
            ));
        if set("OTEL_SERVICE_NAME").is_none_or(str::is_empty) {
            resource = resource.with_service_name(service);
        }
        exporter.set_resource(&resource.build());
        let (queue, waiting) = sync_channel(QUEUE_MAX);
        // Dropped with the thread: closing waits for that.
        let (ending, ended) = sync_channel::<()>(0);
        let counts = Arc::new(Counts::default());
        let (scope, counted) = (scope(service), counts.clone());
        std::thread::Builder::new()
            .name("otlp-export".to_owned())
            .spawn(move || {
                let _ending = ending;
                export(&waiting, &exporter, &scope, &counted);
            })
            .map_err(|error| Fault::other("start the export of spans", error))?;
        Ok(Some(Arc::new(Self {
            queue: Mutex::new(Some(queue)),
            ended: Mutex::new(ended),
            sampling,
            counts,
        })))
    }

    /// The context of a new span beneath `parent`, or of a new trace.
    #[must_use]
    pub fn begin(&self, parent: Option<TraceContext>) -> TraceContext {
        let trace_id = match parent {
            Some(parent) => parent.trace_id(),
            None => rand::random::<u128>().max(1),
        };
        let said = parent.map(TraceContext::is_sampled);
        new_in(trace_id, self.sampling.records(trace_id, said))
    }

    /// Hands a span over, if its trace is recorded. Never waits.
    pub fn emit(&self, span: Span) {
        if !span.context.is_sampled() {
            return;
        }
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = &*queue else { return };
        if let Err(TrySendError::Full(_)) = queue.try_send(span) {
            let dropped = self.counts.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            // One line for each doubling: a slow collector must not fill the log.
            if dropped.is_power_of_two() {
                tracing::warn!(dropped, "spans dropped: the collector is slow or away");
            }
        }
    }

    /// What became of spans so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Sends what is left, for at most `limit`. Spans handed over later are lost.
    pub fn close(&self, limit: Duration) {
        let queue = self
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if queue.is_none() {
            return;
        }
        drop(queue);
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(?limit, "spans left behind: the collector is slow or away");
        }
    }
}

fn scope(service: &'static str) -> InstrumentationScope {
    InstrumentationScope::builder(service)
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(opentelemetry_semantic_conventions::SCHEMA_URL)
        .build()
}

fn export(
    waiting: &Receiver<Span>,
    exporter: &SpanExporter,
    scope: &InstrumentationScope,
    counts: &Counts,
) {
    let mut is_reached = true;
    while let Ok(first) = waiting.recv() {
        let mut batch = vec![span_data(first, scope)];
        let end = Moment::now().after(LINGER);
        while batch.len() < BATCH_MAX
            && let Some(left) = end.since(Moment::now())
            && let Ok(span) = waiting.recv_timeout(left)
        {
            batch.push(span_data(span, scope));
        }
        let number = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        match futures_executor::block_on(exporter.export(batch)) {
            Ok(()) => {
                counts.exported.fetch_add(number, Ordering::Relaxed);
                is_reached = true;
            }
            Err(error) => {
                counts.failed.fetch_add(number, Ordering::Relaxed);
                // Once for each time that it is away.
                if is_reached {
                    tracing::warn!(%error, "spans not exported");
                }
                is_reached = false;
            }
        }
    }
    tracing::debug!(
        exported = counts.exported(),
        dropped = counts.dropped(),
        failed = counts.failed(),
        "spans"
    );
}

fn span_context(context: TraceContext, is_remote: bool) -> SpanContext {
    let flags = match context.is_sampled() {
        true => TraceFlags::SAMPLED,
        false => TraceFlags::NOT_SAMPLED,
    };
    SpanContext::new(
        TraceId::from_bytes(context.trace_id().to_be_bytes()),
        SpanId::from_bytes(context.span_id().to_be_bytes()),
        flags,
        is_remote,
        TraceState::NONE,
    )
}

fn time(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn span_data(span: Span, scope: &InstrumentationScope) -> SpanData {
    let parent = span.parent.map(|parent| parent.span_id().to_be_bytes());
    let mut links = SpanLinks::default();
    links.links = span
        .link
        .map(|link| Link::with_context(span_context(link, true)))
        .into_iter()
        .collect();
    SpanData {
        span_context: span_context(span.context, false),
        parent_span_id: parent.map_or(SpanId::INVALID, SpanId::from_bytes),
        parent_span_is_remote: span.parent_is_remote,
        span_kind: span.kind,
        name: span.name.into(),
        start_time: time(span.start_ms),
        end_time: time(span.end_ms.max(span.start_ms)),
        attributes: span.attributes,
        dropped_attributes_count: 0,
        events: Default::default(),
        links,
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: scope.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Properties {
        let pairs = pairs.iter();
        pairs
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn it_is_off_unless_somebody_says_where_to() {
        fn to(endpoint: Option<&str>, pairs: &[(&str, &str)]) -> Option<String> {
            address(endpoint, &environment(pairs))
        }
        assert_eq!(to(None, &[]), None);
        assert_eq!(to(Some(""), &[]), None);
        let base = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/")];
        assert_eq!(to(None, &base).unwrap(), "http://c:4318/v1/traces");
        let flag = to(Some("http://d:1"), &base).unwrap();
        assert_eq!(flag, "http://d:1/v1/traces");
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://e/spans");
        assert_eq!(to(None, &[base[0], whole]).unwrap(), "http://e/spans");
        for off in [
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ] {
            assert_eq!(to(Some("http://d:1"), &[off]), None);
        }
    }

    #[test]
    fn a_collector_that_hangs_costs_spans_and_no_time() {
        // It listens and never answers.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let spans = Spans::start("test", "t", Some(&endpoint), &Properties::new())
            .unwrap()
            .unwrap();
        let root = spans.begin(None);
        let start = Moment::now();
        let sent = 2 * QUEUE_MAX as u64;
        for _ in 0..sent {
            spans.emit(Span::within(root, "s", 0, 1));
        }
        spans.close(Duration::from_millis(100));
        let took = Moment::now().since(start).unwrap_or_default();
        assert!(took < Duration::from_secs(5), "{took:?}");
        let dropped = spans.counts().dropped();
        let kept = (QUEUE_MAX + BATCH_MAX) as u64;
        assert!(
            (sent - kept..=sent - QUEUE_MAX as u64).contains(&dropped),
            "{dropped}"
        );
        // Closed: nothing is taken, nothing breaks.
        spans.emit(Span::within(root, "s", 0, 1));
    }

    #[test]
    fn a_span_keeps_its_trace_and_a_root_begins_one() {
        let spans = Spans::start("test", "t", Some("http://127.0.0.1:1"), &Properties::new())
            .unwrap()
            .unwrap();
        let root = spans.begin(None);
        let child = spans.begin(Some(root));
        assert_eq!(child.trace_id(), root.trace_id());
        assert_ne!(child.span_id(), root.span_id());
        let quiet = TraceContext::new(5, 6, false).unwrap();
        assert!(root.is_sampled() && child.is_sampled());
        assert!(!spans.begin(Some(quiet)).is_sampled());
    }
}
