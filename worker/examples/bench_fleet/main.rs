//! What the fleet costs beside a bare consume → transactional produce loop, in one run on one
//! broker. Prints tables; asserts nothing about time. `./dev bench fleet` runs it.

mod bare;
mod cluster;
mod fleet;
mod latency;
mod restore;
mod takeover;

use cluster::Cluster;

/// No-op jobs of the throughput runs.
const NO_OP_JOBS: usize = 400_000;
/// Jobs of 10 ms.
const SLOW_JOBS: usize = 60_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, bootstrap, prefix] = arguments.as_slice()
        && flag == "--as-worker"
    {
        fleet::serve(bootstrap, prefix);
        return;
    }
    let only = arguments.get(1).map(String::as_str);
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    let cluster = Cluster::find();
    if wanted("noop") {
        no_op(&cluster);
    }
    if wanted("slow") {
        slow(&cluster);
    }
    if wanted("latency") {
        latency::run(&cluster);
    }
    if wanted("takeover") {
        takeover::run(&cluster);
    }
    if wanted("restore") {
        restore::run(&cluster);
    }
}

fn no_op(cluster: &Cluster) {
    println!("== no-op jobs, {NO_OP_JOBS} of 700 bytes, 12 partitions");
    for round in 1..=2 {
        let topics = cluster.topics(&format!("bare-{round}"), 12);
        topics.publish(NO_OP_JOBS, "");
        let bare = bare::throughput(cluster, &topics, NO_OP_JOBS);
        let topics = cluster.topics(&format!("noop-{round}"), 12);
        topics.publish(NO_OP_JOBS, "");
        let ours = fleet::throughput(cluster, &topics, NO_OP_JOBS, 64);
        println!(
            "round {round}: bare loop {bare:>9.0} jobs/s   worker {ours:>9.0} jobs/s   {:>5.1} %",
            ours / bare * 100.0
        );
    }
}

fn slow(cluster: &Cluster) {
    println!("== jobs of 10 ms, {SLOW_JOBS}, 64 slots: at most 6400 jobs/s");
    let topics = cluster.topics("slow", 12);
    topics.publish(SLOW_JOBS, r#","sleep_ms":10"#);
    let rate = fleet::throughput(cluster, &topics, SLOW_JOBS, 64);
    println!(
        "worker {rate:>9.0} jobs/s   {:>5.1} %",
        rate / 6_400.0 * 100.0
    );
}
