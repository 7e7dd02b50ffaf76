//! What operators see of a worker: health, status and metrics, on a real Kafka.

use crate::fleet::{Fleet, Worker, echo, now, wait_until};
use guestkit_protocol::{NoRegistry, SchemaFault, SchemaSource, WriterSchema};
use guestkit_worker::broker::Topics;
use guestkit_worker::broker::member::Member;
use guestkit_worker::broker::ownership::Ownership;
use guestkit_worker::capabilities::admission;
use guestkit_worker::clock::now_ms;
use guestkit_worker::codec::{Codec, Framings};
use guestkit_worker::engine::index::HashSeed;
use guestkit_worker::handlers::Settings;
use guestkit_worker::health::Health;
use guestkit_worker::kafka_worker::{KafkaWorker, Setup};
use guestkit_worker::results::Artifacts;
use guestkit_worker::status::Status;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use xtask::cluster::process::{sigcont, sigstop};
use xtask::cluster::{KafkaNode, http_get};

const LIMIT: Duration = Duration::from_secs(60);
/// A stuck loop turns health red within this.
const RED: Duration = Duration::from_secs(10);
const HTTP: [&str; 2] = ["--http-listen", "127.0.0.1:0"];

/// Where a worker's log says that it listens.
fn address(worker: &Worker) -> SocketAddr {
    let find = || {
        let log = worker.log();
        let line = log.lines().find(|line| line.contains("http endpoint"))?;
        line.split("address=").nth(1)?.trim().parse().ok()
    };
    wait_until("the worker listens", LIMIT, || find().is_some());
    find().unwrap()
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = http_get(address, path).unwrap();
    (answer.status, String::from_utf8(answer.body).unwrap())
}

fn status(address: SocketAddr) -> Value {
    serde_json::from_str(&get(address, "/status").1).unwrap()
}

/// Sum of the samples whose name and labels contain all of `parts`; none: there is no such series.
fn sample(address: SocketAddr, name: &str, parts: &[&str]) -> Option<f64> {
    let text = get(address, "/metrics").1;
    text.lines()
        .filter(|line| {
            let named = line.split(['{', ' ']).next() == Some(name);
            named && parts.iter().all(|part| line.contains(part))
        })
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .reduce(|sum, value| sum + value)
}

fn metric(address: SocketAddr, name: &str, parts: &[&str]) -> f64 {
    sample(address, name, parts).unwrap_or_else(|| panic!("there is no {name} {parts:?}"))
}

/// A backlog of nothing, in the end, whatever markers forwards and transactions left behind; before
/// that, what is really there.
#[test]
fn the_backlog_is_what_nobody_has_answered() {
    let fleet = Fleet::new("backlog", 2);
    let slow = r#"{"sleep_ms":15000}"#;
    fleet.publish(Some(0), None, &echo("slow-job-1", None, slow));
    fleet.flush();
    let mut worker =
        fleet.worker(&[&HTTP[..], &["--concurrency", "1", "--drain-timeout", "1s"]].concat());
    let http = address(&worker);
    wait_until("the first job runs", LIMIT, || {
        get(http, "/readyz").0 == 200 && metric(http, "guestkit_jobs_running", &[]) == 1.0
    });
    // Half of them lie on a partition that is not their slot's, and are forwarded.
    for n in 0..20 {
        let id = format!("behind-{n:06}");
        fleet.publish(Some(n % 2), None, &echo(&id, None, "{}"));
    }
    fleet.flush();
    let backlog = || metric(http, "guestkit_backlog_jobs", &[]);
    wait_until("20 wait and one runs", LIMIT, || backlog() == 21.0);
    wait_until("the oldest is a second old", LIMIT, || {
        metric(http, "guestkit_oldest_waiting_job_age_seconds", &[]) > 1.0
    });
    assert!(metric(http, "guestkit_records_decided_total", &["forward"]) > 0.0);
    assert_eq!(backlog(), 21.0, "a forward is no further job");
    assert_eq!(metric(http, "guestkit_permits", &[]), 1.0);
    worker.kill();

    let mut heir = fleet.worker(&[&HTTP[..], &["--concurrency", "64"]].concat());
    let http = address(&heir);
    let backlog = || metric(http, "guestkit_backlog_jobs", &[]);
    wait_until("all but the slow one are done", LIMIT, || {
        get(http, "/readyz").0 == 200
            && metric(http, "guestkit_jobs_total", &["system.echo", "completed"]) == 20.0
    });
    wait_until("one is left", LIMIT, || backlog() == 1.0);
    assert_eq!(
        metric(http, "guestkit_oldest_waiting_job_age_seconds", &[]),
        0.0,
        "it runs"
    );
    assert_eq!(
        metric(http, "guestkit_job_run_seconds_count", &["system.echo"]),
        20.0
    );
    assert_eq!(metric(http, "guestkit_partitions", &["running"]), 2.0);
    assert_eq!(metric(http, "guestkit_restore_seconds_count", &[]), 2.0);
    wait_until("the topic was counted", LIMIT, || {
        get(http, "/metrics").1.contains("guestkit_jobs_partitions")
    });
    assert_eq!(metric(http, "guestkit_jobs_partitions", &[]), 2.0);
    wait_until("librdkafka has reported", LIMIT, || {
        get(http, "/metrics")
            .1
            .contains("guestkit_kafka_brokers_up{client=\"writer\"")
    });
    assert_eq!(metric(http, "guestkit_kafka_brokers_up", &["fetcher"]), 1.0);
    // No job is left: every partition shows zero, and the end of each is a transaction's marker.
    wait_until("nothing is left", LIMIT, || backlog() == 0.0);
    assert_eq!(heir.terminate(), 0);
}

/// A broker that is gone for longer than a stuck loop may take, and a job that outlasts both: the
/// worker is well.
#[test]
fn neither_a_lost_broker_nor_a_long_job_is_ill_health() {
    let (node, proxy) = KafkaNode::builder().start_behind_proxy().unwrap();
    let fleet = Fleet::at(node.bootstrap(), "health", 2);
    let worker = fleet.worker_at(&proxy.bootstrap(), &HTTP);
    let http = address(&worker);
    fleet.publish(
        None,
        None,
        &echo("long-job-1", None, r#"{"sleep_ms":14000}"#),
    );
    fleet.flush();
    wait_until("it runs", LIMIT, || {
        metric(http, "guestkit_jobs_running", &[]) == 1.0
    });
    proxy.cut();
    let end = now() + Duration::from_secs(13);
    while now() < end {
        let (code, body) = get(http, "/healthz");
        assert_eq!(code, 200, "{body}");
        std::thread::sleep(Duration::from_millis(250));
    }
    proxy.heal();
    assert_eq!(fleet.results(1, LIMIT).len(), 1);
    assert_eq!(get(http, "/healthz").0, 200);
}

/// Closed, whoever passes waits for ever.
#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn close(&self) {
        *self.closed.lock().unwrap() = true;
    }

    fn open(&self) {
        *self.closed.lock().unwrap() = false;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let closed = self.closed.lock().unwrap();
        drop(self.opened.wait_while(closed, |closed| *closed).unwrap());
    }
}

struct GatedSchemas(Arc<Gate>);

impl SchemaSource for GatedSchemas {
    fn writer_schema(&self, id: u32) -> Result<Arc<WriterSchema>, SchemaFault> {
        self.0.pass();
        NoRegistry.writer_schema(id)
    }
}

/// A worker in this process, with a gate in its engine loop and one in its fetch loop.
struct Gated {
    http: SocketAddr,
    engine: Arc<Gate>,
    fetch: Arc<Gate>,
    stop: tokio::sync::watch::Sender<bool>,
    thread: std::thread::JoinHandle<()>,
}

fn gated(fleet: &Fleet) -> Gated {
    let settings = Settings {
        worker_id: "gated".into(),
        concurrency: 2,
        ..Settings::default()
    };
    let mut connection = crate::fleet::client(&fleet.bootstrap);
    connection.set("group.id", fleet.group());
    let (engine, fetch) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    let admit = admission(&settings);
    let gate = engine.clone();
    let setup = Setup {
        connection,
        topics: Topics {
            jobs: fleet.topic("jobs"),
            ledger: fleet.topic("ledger"),
            results: fleet.topic("results"),
            progress: fleet.topic("progress"),
            dead_letters: fleet.topic("dead-letters"),
            slots: fleet.partitions as u32,
        },
        transactional_id: format!("{}.gated.0", fleet.prefix).into(),
        incarnation: "gated-1".into(),
        seed: HashSeed(1, 2),
        codec: Codec::new("gated".into(), Framings::default(), now_ms),
        schemas: Arc::new(GatedSchemas(fetch.clone())),
        admission: Box::new(move |job| {
            gate.pass();
            admit(job)
        }),
        settings,
        artifacts: Artifacts::default(),
        drain_timeout: Duration::from_secs(5),
        status: Arc::new(Status::new("default").unwrap()),
        registration: None,
        spans: None,
    };
    let http = SocketAddr::from(([127, 0, 0, 1], xtask::cluster::free_port()));
    let (stop, told) = tokio::sync::watch::channel(false);
    let thread = std::thread::spawn(move || {
        // As many threads as the real worker has: one stuck loop must not take the endpoint along.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(guestkit_worker::http::serve(http, setup.status.clone()));
        let worker = KafkaWorker::start(setup).unwrap();
        let running = runtime.spawn(worker.run(told));
        runtime.block_on(running).unwrap();
        runtime.shutdown_background();
    });
    wait_until("it listens", LIMIT, || {
        http_get(http, "/readyz").is_ok_and(|a| a.status == 200)
    });
    Gated {
        http,
        engine,
        fetch,
        stop,
        thread,
    }
}

/// Health is green, red within ten seconds of `stick`, and green again after `free`.
fn turns_red_and_green(http: SocketAddr, name: &str, stick: impl FnOnce(), free: impl FnOnce()) {
    assert_eq!(get(http, "/healthz").0, 200);
    stick();
    wait_until(&format!("health is red for {name}"), RED, || {
        let (code, body) = get(http, "/healthz");
        code == 503 && body.contains(name)
    });
    assert!(metric(http, "guestkit_loop_age_seconds", &[name]) >= 8.0);
    assert_eq!(metric(http, "guestkit_worker_alive", &[]), 0.0);
    free();
    wait_until("health is green again", LIMIT, || {
        get(http, "/healthz").0 == 200
    });
}

#[test]
fn a_stuck_engine_or_fetch_loop_turns_health_red_within_ten_seconds() {
    let fleet = Fleet::new("stuck", 2);
    let worker = gated(&fleet);
    let http = worker.http;
    turns_red_and_green(
        http,
        "engine",
        || {
            worker.engine.close();
            fleet.publish(None, None, &echo("stuck-engine-1", None, "{}"));
            fleet.flush();
        },
        || worker.engine.open(),
    );
    assert_eq!(fleet.results(1, LIMIT).len(), 1);
    turns_red_and_green(
        http,
        "fetch",
        || {
            worker.fetch.close();
            // Confluent framing: the decoder asks for schema 7.
            fleet.publish(None, None, &[0, 0, 0, 0, 7, 1, 2, 3]);
            fleet.flush();
        },
        || worker.fetch.open(),
    );
    worker.stop.send(true).unwrap();
    worker.thread.join().unwrap();
}

/// The member's callback waits for room in the engine's queue that never comes.
#[test]
fn a_stuck_member_thread_turns_health_red_within_ten_seconds() {
    let fleet = Fleet::new("stuck-member", 2);
    let mut connection = crate::fleet::client(&fleet.bootstrap);
    connection.set("group.id", fleet.group());
    let (events, mut incoming) = tokio::sync::mpsc::channel(1);
    let ownership = Arc::new(Ownership::default());
    let member = Member::join(&connection, &fleet.topic("jobs"), ownership, events).unwrap();
    let health = Health::default();
    health.watch("member", member.heart());
    // Two partitions come, the queue takes one.
    wait_until("the assignment comes", LIMIT, || member.rebalances() > 0);
    let began = now();
    wait_until("health is red", RED, || {
        health
            .stuck(now_ms())
            .iter()
            .any(|(name, _)| *name == "member")
    });
    assert!(
        now() - began > Duration::from_secs(5),
        "not before it is sure"
    );
    let drain = std::thread::spawn(move || while incoming.blocking_recv().is_some() {});
    wait_until("health is green again", LIMIT, || {
        health.stuck(now_ms()).is_empty()
    });
    member.leave();
    drop(member);
    drain.join().unwrap();
}

/// Retention or a person deletes what a paused worker was about to read. That slot stops, counts and
/// says so; the other goes on; nothing skips the gap until a person resets the offset.
#[test]
fn a_slot_whose_next_record_was_deleted_stops_until_a_person_resets_it() {
    let fleet = Fleet::new("gone", 2);
    let mut worker = fleet.worker_with(
        &fleet.bootstrap,
        &HTTP,
        "\"session.timeout.ms\" = \"30000\"\n",
    );
    let http = address(&worker);
    // On the partition of its own slot each, whichever that is.
    let publish = |ids: std::ops::Range<u32>| {
        for n in ids {
            let id = format!("deleted-{n:06}");
            let slot = guestkit_protocol::slot_of(&id, 2);
            fleet.publish(Some(slot as i32), None, &echo(&id, None, "{}"));
        }
        fleet.flush();
    };
    publish(0..8);
    assert_eq!(fleet.results(8, LIMIT).len(), 8);
    fleet.wait_no_lag(LIMIT);
    sigstop(worker.pid()).unwrap();
    // A fetch that waits at the broker comes back empty, and does not see what follows.
    std::thread::sleep(Duration::from_millis(500));
    publish(8..24);
    let cut = delete_all(&fleet, 0);
    sigcont(worker.pid()).unwrap();
    wait_until("the slot stops", LIMIT, || {
        status(http)["partitions"][0]["state"] == "stopped"
    });
    let page = status(http);
    let reason = page["partitions"][0]["reason"].as_str().unwrap();
    assert!(
        reason.contains(&format!("before the log's start {cut}")) && reason.contains("operations"),
        "{reason}"
    );
    assert_eq!(page["partitions"][1]["state"], "running");
    let partition = |n: u32| format!("partition=\"{n}\"");
    assert_eq!(
        metric(http, "guestkit_partition_stopped", &[&partition(0)]),
        1.0
    );
    assert_eq!(
        metric(http, "guestkit_partition_stopped", &[&partition(1)]),
        0.0
    );
    assert_eq!(
        metric(http, "guestkit_slot_stops_total", &["offset_gone"]),
        1.0
    );

    // Newer records of that slot are not taken, and its offset stays before the gap.
    let stuck = fleet.lag()[&0];
    publish(24..40);
    let on = |partition: u32| {
        let is =
            move |n: &u32| guestkit_protocol::slot_of(&format!("deleted-{n:06}"), 2) == partition;
        move |range: std::ops::Range<u32>| range.filter(is).count()
    };
    let answered = 8 + on(1)(8..40);
    assert_eq!(fleet.results(answered, LIMIT).len(), answered);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(fleet.lag()[&0], stuck + on(0)(24..40) as i64);
    assert_eq!(worker.terminate(), 0);

    // A restart changes nothing.
    let mut heir = fleet.worker(&HTTP);
    let http = address(&heir);
    wait_until("the slot is stopped at once", LIMIT, || {
        status(http)["partitions"][0]["state"] == "stopped"
    });
    assert_eq!(
        metric(http, "guestkit_slot_stops_total", &["unrestored"]),
        1.0
    );
    wait_until("its backlog is known all the same", LIMIT, || {
        let unread = sample(http, "guestkit_backlog_jobs", &[&partition(0), "unread"]);
        unread == Some(on(0)(24..40) as f64)
    });
    assert_eq!(heir.terminate(), 0);

    // A person resets the offset on purpose: what is there is done.
    reset(&fleet, 0, cut);
    let mut last = fleet.worker(&[]);
    let all = answered + on(0)(24..40);
    assert_eq!(fleet.results(all, LIMIT).len(), all);
    fleet.wait_no_lag(LIMIT);
    assert_eq!(last.terminate(), 0);
}

/// Deletes everything in a partition of the jobs topic; answers where its log begins then.
fn delete_all(fleet: &Fleet, partition: i32) -> i64 {
    let admin: AdminClient<DefaultClientContext> =
        crate::fleet::client(&fleet.bootstrap).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&fleet.topic("jobs"), partition, Offset::End)
        .unwrap();
    let deleted = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(admin.delete_records(&list, &AdminOptions::new()))
        .unwrap();
    match deleted.elements()[0].offset() {
        Offset::Offset(start) => start,
        other => panic!("no low watermark: {other:?}"),
    }
}

/// What `kafka-consumer-groups --reset-offsets --to-offset` does to a group without members.
fn reset(fleet: &Fleet, partition: i32, offset: i64) {
    let consumer: BaseConsumer = crate::fleet::client(&fleet.bootstrap)
        .set("group.id", fleet.group())
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&fleet.topic("jobs"), partition, Offset::Offset(offset))
        .unwrap();
    consumer.commit(&list, CommitMode::Sync).unwrap();
}
