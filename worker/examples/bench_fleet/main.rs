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
/// Rounds of them: one says little on a shared machine.
const NO_OP_ROUNDS: u32 = 2;
/// Jobs of 10 ms.
const SLOW_JOBS: usize = 60_000;

/// One line of the table at the end.
struct Row {
    what: &'static str,
    target: &'static str,
    reached: String,
}

/// A part of the bench, and its lines.
type Part = fn(&Cluster) -> Vec<Row>;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, bootstrap, prefix] = arguments.as_slice()
        && flag == "--as-worker"
    {
        fleet::serve(bootstrap, prefix);
        return;
    }
    let parts: [(&str, Part); 6] = [
        ("noop", no_op),
        ("lanes", lanes),
        ("slow", slow),
        ("latency", latency::run),
        ("takeover", takeover::run),
        ("restore", restore::run),
    ];
    let wanted = &arguments[1..];
    if let Some(unknown) = wanted
        .iter()
        .find(|name| parts.iter().all(|(part, _)| part != name))
    {
        let names = parts.map(|(name, _)| name).join(", ");
        eprintln!("bench_fleet: no part {unknown:?}; there are {names}; none named means all");
        std::process::exit(2);
    }
    let cluster = Cluster::find();
    let mut table = Vec::new();
    for (name, run) in parts {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            table.extend(run(&cluster));
        }
    }
    println!("\n{:<46} {:<26} reached", "what", "target");
    for row in table {
        println!("{:<46} {:<26} {}", row.what, row.target, row.reached);
    }
}

fn no_op(cluster: &Cluster) -> Vec<Row> {
    println!("== no-op jobs, {NO_OP_JOBS} of 700 bytes, 12 partitions");
    let (mut bares, mut ours) = (0.0, 0.0);
    for round in 1..=NO_OP_ROUNDS {
        let topics = cluster.topics(&format!("bare-{round}"), 12);
        topics.publish(NO_OP_JOBS, "");
        let bare = bare::throughput(cluster, &topics, NO_OP_JOBS, 1);
        let topics = cluster.topics(&format!("noop-{round}"), 12);
        topics.publish(NO_OP_JOBS, "");
        let worker = fleet::throughput(cluster, &topics, NO_OP_JOBS, 64);
        println!(
            "round {round}: bare loop {bare:>9.0} jobs/s   worker {worker:>9.0} jobs/s   {:>5.1} %",
            worker / bare * 100.0
        );
        bares += bare / f64::from(NO_OP_ROUNDS);
        ours += worker / f64::from(NO_OP_ROUNDS);
    }
    vec![Row {
        what: "no-op jobs, worker beside bare loop",
        target: ">= 70 %",
        reached: format!(
            "{:.1} % ({ours:.0} of {bares:.0} jobs/s)",
            ours / bares * 100.0
        ),
    }]
}

/// What several producers would bring: the bare loop with two and with four of them.
fn lanes(cluster: &Cluster) -> Vec<Row> {
    println!("== no-op jobs, bare loops with a producer each, {NO_OP_JOBS} jobs");
    let rates: Vec<String> = [1, 2, 4]
        .into_iter()
        .map(|lanes| {
            let topics = cluster.topics(&format!("lanes-{lanes}"), 12);
            topics.publish(NO_OP_JOBS, "");
            let rate = bare::throughput(cluster, &topics, NO_OP_JOBS, lanes);
            println!("{lanes} producers {rate:>9.0} jobs/s");
            format!("{rate:.0}")
        })
        .collect();
    vec![Row {
        what: "bare loop with 1, 2, 4 producers",
        target: "for information",
        reached: format!("{} jobs/s", rates.join(", ")),
    }]
}

fn slow(cluster: &Cluster) -> Vec<Row> {
    println!("== jobs of 10 ms, {SLOW_JOBS}, 64 slots: at most 6400 jobs/s");
    let topics = cluster.topics("slow", 12);
    topics.publish(SLOW_JOBS, r#","sleep_ms":10"#);
    let rate = fleet::throughput(cluster, &topics, SLOW_JOBS, 64);
    let reached = format!("{:.1} % ({rate:.0} jobs/s)", rate / 6_400.0 * 100.0);
    println!("worker {reached}");
    vec![Row {
        what: "jobs of 10 ms at 64 slots",
        target: ">= 95 % of 6400 jobs/s",
        reached,
    }]
}
