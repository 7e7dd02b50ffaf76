//! Publish → result visible to a read_committed reader, at a low rate.

use crate::Row;
use crate::bare::Bare;
use crate::cluster::{Cluster, Topics, client};
use crate::fleet;
use guestkit_worker::clock::now_ms;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const JOBS: usize = 1_000;
const PAUSE: Duration = Duration::from_millis(20);
const WARM: usize = 100;

pub(crate) fn run(cluster: &Cluster) -> Vec<Row> {
    println!("== publish → result visible, 50 jobs/s, {JOBS} jobs");
    let topics = cluster.topics("latency-bare", 12);
    let stop = Arc::new(AtomicBool::new(false));
    let bare = Bare::new(cluster, &topics, 0, 1);
    let thread = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                bare.round(Duration::from_millis(20));
            }
        })
    };
    let bare = summary("bare loop", measure(cluster, &topics));
    stop.store(true, Ordering::Relaxed);
    thread.join().expect("the loop ends");

    let topics = cluster.topics("latency", 12);
    let (_, stop, thread) = fleet::start(fleet::setup(&cluster.bootstrap, &topics, "bench", 8));
    let worker = summary("worker", measure(cluster, &topics));
    stop.send(true).expect("the worker listens");
    thread.join().expect("the worker ends");
    vec![Row {
        what: "publish -> visible at 50 jobs/s, p50 / p99",
        target: "<= 12 ms / <= 40 ms",
        reached: format!("{worker} (bare loop {bare})"),
    }]
}

fn summary(name: &str, mut times: Vec<i64>) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{name:<10} p50 {:>4} ms   p90 {:>4} ms   p99 {:>4} ms   max {:>4} ms",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
    format!("{} / {} ms", at(0.5), at(0.99))
}

fn measure(cluster: &Cluster, topics: &Topics) -> Vec<i64> {
    std::thread::sleep(Duration::from_secs(4));
    let sent: Arc<Mutex<BTreeMap<String, i64>>> = Arc::default();
    let reader = {
        let (bootstrap, results, sent) = (
            cluster.bootstrap.clone(),
            topics.names().results,
            sent.clone(),
        );
        let partitions = topics.partitions;
        std::thread::spawn(move || read(&bootstrap, &results, partitions, &sent))
    };
    let producer: BaseProducer = client(&cluster.bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .create()
        .expect("a producer");
    std::thread::sleep(Duration::from_secs(1));
    for n in 0..JOBS {
        sent.lock()
            .expect("unpoisoned")
            .insert(format!("job-{n:08}"), now_ms());
        topics.send(&producer, n, "");
        producer.poll(Duration::ZERO);
        std::thread::sleep(PAUSE);
    }
    producer.flush(Duration::from_secs(10)).expect("published");
    reader.join().expect("the reader ends")
}

fn read(
    bootstrap: &str,
    results: &str,
    partitions: u32,
    sent: &Mutex<BTreeMap<String, i64>>,
) -> Vec<i64> {
    let consumer: BaseConsumer = client(bootstrap)
        .set("group.id", "latency-reader")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "100")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        let partition = i32::try_from(partition).expect("few partitions");
        list.add_partition_offset(results, partition, Offset::Beginning)
            .expect("an offset");
    }
    consumer.assign(&list).expect("assigned");
    let mut times = Vec::new();
    let mut seen = 0;
    while seen < JOBS {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(500)) else {
            continue;
        };
        let now = now_ms();
        let id = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
        if let Some(at) = sent.lock().expect("unpoisoned").get(&id) {
            seen += 1;
            if seen > WARM {
                times.push(now - at);
            }
        }
    }
    times
}
