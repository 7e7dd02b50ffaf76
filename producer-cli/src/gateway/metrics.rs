//! What Prometheus may know of the gateway.

use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
    process_collector::ProcessCollector,
};

/// Media type of the text format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// From a look into memory to a look-up that runs out of time.
const BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// The counters.
pub(crate) struct Metrics {
    registry: Registry,
    /// Requests by route, method and status.
    pub(crate) requests: IntCounterVec,
    /// Seconds by route.
    pub(crate) duration: HistogramVec,
    /// Jobs by what became of them.
    pub(crate) jobs: IntCounterVec,
    /// Look-ups in the topics by outcome.
    pub(crate) lookups: IntCounterVec,
    /// Open connections.
    pub(crate) connections: IntGauge,
    recent_jobs: IntGauge,
    recent_bytes: IntGauge,
}

impl Metrics {
    /// Registers all of them.
    pub(crate) fn new() -> prometheus::Result<Self> {
        let name = |rest: &str| format!("guestkit_gateway_{rest}");
        let metrics = Self {
            registry: Registry::new(),
            requests: IntCounterVec::new(
                Opts::new(name("http_requests_total"), "HTTP requests answered."),
                &["route", "method", "status"],
            )?,
            duration: HistogramVec::new(
                HistogramOpts::new(
                    name("http_request_duration_seconds"),
                    "Time from the head of a request to the head of its answer.",
                )
                .buckets(BUCKETS.to_vec()),
                &["route"],
            )?,
            jobs: IntCounterVec::new(
                Opts::new(
                    name("jobs_total"),
                    "Jobs by outcome: published, known (already there), conflict, failed.",
                ),
                &["outcome"],
            )?,
            lookups: IntCounterVec::new(
                Opts::new(
                    name("lookups_total"),
                    "Look-ups of jobs that are not in memory, by outcome: found, unknown, failed.",
                ),
                &["outcome"],
            )?,
            connections: IntGauge::new(name("connections"), "Open connections.")?,
            recent_jobs: IntGauge::new(name("recent_jobs"), "Jobs in memory.")?,
            recent_bytes: IntGauge::new(
                name("recent_jobs_bytes"),
                "Bytes that the jobs in memory take, about.",
            )?,
        };
        let collectors: [Box<dyn Collector>; 8] = [
            Box::new(metrics.requests.clone()),
            Box::new(metrics.duration.clone()),
            Box::new(metrics.jobs.clone()),
            Box::new(metrics.lookups.clone()),
            Box::new(metrics.connections.clone()),
            Box::new(metrics.recent_jobs.clone()),
            Box::new(metrics.recent_bytes.clone()),
            Box::new(ProcessCollector::for_self()),
        ];
        for collector in collectors {
            metrics.registry.register(collector)?;
        }
        for outcome in ["published", "known", "conflict", "failed"] {
            metrics.jobs.with_label_values(&[outcome]);
        }
        Ok(metrics)
    }

    /// The text for Prometheus.
    pub(crate) fn render(&self, recent: (usize, usize)) -> prometheus::Result<String> {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.recent_jobs.set(number(recent.0));
        self.recent_bytes.set(number(recent.1));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

/// The route of a path, of a fixed set: labels must not grow with jobs.
pub(crate) fn route(path: &str) -> &'static str {
    let path = path.strip_prefix("/v1").unwrap_or(path);
    match path {
        "/" => "/",
        "/app.js" | "/style.css" => "/page",
        "/openapi.json" => "/openapi.json",
        "/healthz" | "/readyz" => "/health",
        "/metrics" => "/metrics",
        "/jobs" => "/v1/jobs",
        "/workers" => "/v1/workers",
        "/dead-letters" => "/v1/dead-letters",
        _ if path.starts_with("/jobs/") && path.ends_with("/events") => "/v1/jobs/{job_id}/events",
        _ if path.starts_with("/jobs/") => "/v1/jobs/{job_id}",
        _ => "other",
    }
}

/// The method, of a fixed set.
pub(crate) fn method(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "HEAD" => "HEAD",
        _ => "other",
    }
}
