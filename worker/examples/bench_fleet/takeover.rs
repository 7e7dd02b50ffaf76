//! A worker killed under load: how long its partitions stand still.

use crate::Row;
use crate::cluster::{Cluster, Topics, client};
use guestkit_worker::clock::now_ms;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// `session.timeout.ms` of the workers here.
const SESSION_MS: i64 = 6_000;
const ROUNDS: usize = 4;

fn spawn(cluster: &Cluster, prefix: &str) -> Child {
    let me = std::env::current_exe().expect("this program");
    Command::new(me)
        .args(["--as-worker", &cluster.bootstrap, prefix])
        .spawn()
        .expect("a worker process")
}

pub(crate) fn run(cluster: &Cluster) -> Vec<Row> {
    println!(
        "== a worker killed under load: longest gap of a partition's results, session {SESSION_MS} ms"
    );
    let topics = cluster.topics("takeover", 12);
    let mut workers = [
        spawn(cluster, &topics.prefix),
        spawn(cluster, &topics.prefix),
    ];
    let stop = Arc::new(AtomicBool::new(false));
    let load = {
        let (stop, bootstrap) = (stop.clone(), cluster.bootstrap.clone());
        let topics = Topics {
            bootstrap,
            prefix: topics.prefix.clone(),
            partitions: topics.partitions,
        };
        std::thread::spawn(move || {
            let producer: BaseProducer = client(&topics.bootstrap).create().expect("a producer");
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..40 {
                    topics.send(&producer, n, "");
                    n += 1;
                }
                producer.poll(Duration::ZERO);
                std::thread::sleep(Duration::from_millis(20));
            }
            producer.flush(Duration::from_secs(10)).expect("published");
        })
    };
    let consumer: BaseConsumer = client(&cluster.bootstrap)
        .set("group.id", "takeover-reader")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..12 {
        list.add_partition_offset(&topics.names().results, partition, Offset::Beginning)
            .expect("an offset");
    }
    consumer.assign(&list).expect("assigned");
    watch(&consumer, 8_000);
    let mut gaps = Vec::new();
    for round in 1..=ROUNDS {
        let victim = round % 2;
        workers[victim].kill().expect("killed");
        workers[victim].wait().expect("reaped");
        let inside = left_open(cluster, &topics);
        let gap = watch(&consumer, 14_000);
        println!(
            "kill {round}: {gap:>6} ms   session timeout {:+} ms   {}",
            gap - SESSION_MS,
            if inside {
                "inside a transaction"
            } else {
                "between transactions"
            }
        );
        gaps.push((gap, inside));
        workers[victim] = spawn(cluster, &topics.prefix);
        watch(&consumer, 6_000);
    }
    stop.store(true, Ordering::Relaxed);
    load.join().expect("the load ends");
    for mut worker in workers {
        worker.kill().expect("killed");
        worker.wait().expect("reaped");
    }
    let longest = gaps.iter().map(|(gap, _)| *gap).max().unwrap_or(0);
    let inside = gaps.iter().filter(|(_, inside)| *inside).count();
    vec![Row {
        what: "killed worker: longest gap of a partition",
        target: "<= session timeout + 2 s",
        reached: format!(
            "session timeout {:+} ms ({inside} of {ROUNDS} kills inside a transaction)",
            longest - SESSION_MS
        ),
    }]
}

/// Whether the dead one left a transaction open: the end of some partition's results stands still
/// below its high watermark. Those of the living end within a few ten milliseconds.
fn left_open(cluster: &Cluster, topics: &Topics) -> bool {
    let ends = |isolation: &str| -> Vec<i64> {
        let consumer: BaseConsumer = client(&cluster.bootstrap)
            .set("group.id", "takeover-looker")
            .set("isolation.level", isolation)
            .create()
            .expect("a consumer");
        let end = |partition| {
            consumer
                .fetch_watermarks(&topics.names().results, partition, Duration::from_secs(5))
                .expect("an end")
                .1
        };
        (0..12).map(end).collect()
    };
    let before = ends("read_committed");
    std::thread::sleep(Duration::from_millis(300));
    let (stable, high) = (ends("read_committed"), ends("read_uncommitted"));
    (0..12).any(|p| stable[p] == before[p] && stable[p] < high[p])
}

/// Reads for a while; answers with the longest time that any partition gave nothing.
fn watch(consumer: &BaseConsumer, ms: i64) -> i64 {
    let start = now_ms();
    let mut last = [start; 12];
    let mut longest = 0;
    while now_ms() - start < ms {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) {
            let now = now_ms();
            let place = usize::try_from(message.partition()).expect("few partitions");
            longest = longest.max(now - last[place]);
            last[place] = now;
        }
    }
    let now = now_ms();
    last.iter()
        .fold(longest, |longest, at| longest.max(now - at))
}
