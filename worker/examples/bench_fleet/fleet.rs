//! The worker under the bench.

use crate::cluster::{Cluster, Topics, client};
use guestkit_kafka::trace::Spans;
use guestkit_protocol::NoRegistry;
use guestkit_worker::capabilities::admission;
use guestkit_worker::clock::now_ms;
use guestkit_worker::codec::{Codec, Framings};
use guestkit_worker::engine::index::HashSeed;
use guestkit_worker::handlers::Settings;
use guestkit_worker::kafka_worker::{KafkaWorker, Setup};
use guestkit_worker::registration::Parts;
use guestkit_worker::results::Artifacts;
use guestkit_worker::spans::JobSpans;
use guestkit_worker::status::Status;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

pub(crate) fn setup(bootstrap: &str, topics: &Topics, id: &str, concurrency: usize) -> Setup {
    let mut connection = client(bootstrap);
    connection
        .set("group.id", format!("{}-workers", topics.prefix))
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "1000")
        .set("compression.type", "lz4");
    let settings = Settings {
        worker_id: id.into(),
        concurrency,
        ..Settings::default()
    };
    let registration = Parts::new(
        format!("{}.workers", topics.prefix),
        &settings,
        id,
        id,
        None,
    );
    // With OTEL_EXPORTER_OTLP_ENDPOINT set, what tracing costs is measured too.
    let environment = std::env::vars().collect();
    let spans = Spans::start("bench", id, None, &environment).expect("OTEL_ variables make sense");
    Setup {
        connection,
        topics: topics.names(),
        transactional_id: format!("{}.{id}.0", topics.prefix).into(),
        incarnation: format!("{id}-1").into(),
        seed: HashSeed(1, 2),
        codec: Codec::new(id.into(), Framings::default(), now_ms),
        schemas: Arc::new(NoRegistry),
        admission: admission(&settings),
        settings,
        artifacts: Artifacts::default(),
        drain_timeout: Duration::from_secs(5),
        status: Arc::new(Status::new("default").expect("metrics")),
        registration: Some(registration),
        spans: spans.map(|spans| {
            let group = format!("{}-workers", topics.prefix);
            Arc::new(JobSpans::new(spans, &topics.names().jobs, &group, id))
        }),
    }
}

/// Runs a worker in this process until told to stop.
pub(crate) fn start(
    setup: Setup,
) -> (
    Arc<Status>,
    watch::Sender<bool>,
    std::thread::JoinHandle<()>,
) {
    let status = setup.status.clone();
    let (stop, told) = watch::channel(false);
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let worker = KafkaWorker::start(setup).expect("the worker starts");
        runtime.block_on(worker.run(told));
        runtime.shutdown_background();
    });
    (status, stop, thread)
}

/// Jobs a second between 5 % and 95 % of `count`.
pub(crate) fn throughput(
    cluster: &Cluster,
    topics: &Topics,
    count: usize,
    concurrency: usize,
) -> f64 {
    let (status, stop, thread) = start(setup(&cluster.bootstrap, topics, "bench", concurrency));
    let (low, high) = (count as u64 / 20, count as u64 * 19 / 20);
    let mut first = None;
    let rate = loop {
        std::thread::sleep(Duration::from_millis(20));
        let page = status.page();
        let executed = page.counters.executed;
        if executed >= low && first.is_none() {
            first = Some((page.at_ms, executed));
        }
        if executed >= high
            && let Some((at, before)) = first
        {
            let ms = (page.at_ms - at).max(1) as f64;
            break (executed - before) as f64 / ms * 1_000.0;
        }
    };
    if std::env::var_os("BENCH_VERBOSE").is_some() {
        println!("{:?}", status.page().counters);
    }
    stop.send(true).expect("the worker listens");
    thread.join().expect("the worker ends");
    rate
}

/// A worker process of its own, to be killed.
pub(crate) fn serve(bootstrap: &str, prefix: &str) {
    let topics = Topics {
        bootstrap: bootstrap.to_owned(),
        prefix: prefix.to_owned(),
        partitions: 12,
    };
    let id = format!("process-{}", std::process::id());
    let (_, stop, thread) = start(setup(bootstrap, &topics, &id, 16));
    thread.join().expect("the worker ends");
    drop(stop);
}
