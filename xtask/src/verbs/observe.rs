//! Metrics, alerts and dashboard as an operator meets them: a running fleet before a real
//! Prometheus. Every query of the dashboard and every selector of an alert has to find something.

use crate::interrupt;
use crate::observed::{Fleet, Worker, job, sum};
use crate::prometheus::{DASHBOARD, RULES, Server, Tools, dashboard, names, selectors};
use crate::steps::{cargo, run as run_command, seconds};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;
use xtask::clock;
use xtask::cluster::KafkaNode;
use xtask::workspace::root;

/// Rounds of jobs, one a second: rates need several scrapes between which something happened.
const ROUNDS: u32 = 12;
const ROUND: Duration = Duration::from_secs(1);
/// Jobs of a round that do nothing but be there.
const ECHOES: u32 = 20;
/// Scrapes after the last job.
const SETTLE: Duration = Duration::from_secs(3);

/// Queries that find nothing in a healthy fleet that is a few seconds old, and why that is right.
const EMPTY: [(&str, &str); 1] = [(
    "guestkit_backlog_jobs offset 15m",
    "nothing is 15 minutes old here; promtool's rule tests cover it",
)];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leaves everything running until Ctrl-C, to look at
    #[arg(long)]
    keep_running: bool,
    /// Only what `./dev test` does: the files and the page of one worker
    #[arg(long, conflicts_with = "keep_running")]
    quick: bool,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    interrupt::install()?;
    let start = clock::now();
    let packages = ["-p", "guestkit-worker", "-p", "guestkit-jobs", "--bins"];
    run_command(cargo(&["build"]).args(packages))?;
    let kafka = KafkaNode::builder().start().context("Kafka")?;
    if options.quick {
        check(kafka.bootstrap())?;
        return Ok(ExitCode::SUCCESS);
    }
    let tools = Tools::provide()?;
    tools.check_files()?;
    check_runbook()?;
    println!(
        "Kafka on {} after {}",
        kafka.bootstrap(),
        seconds(start.elapsed())
    );
    let fleet = Fleet::new(kafka.bootstrap(), "observe", 4)?;
    let mut workers = [fleet.worker("observed-1")?, fleet.worker("observed-2")?];
    for worker in &mut workers {
        worker.wait("being ready", |page| {
            sum(page, "guestkit_worker_ready", &[]) == 1.0
        })?;
    }
    let addresses: Vec<SocketAddr> = workers.iter().map(Worker::http).collect();
    let server = Server::start(&tools, &addresses)?;
    println!(
        "two workers on {addresses:?}, Prometheus on http://{} after {}",
        server.address(),
        seconds(start.elapsed())
    );
    let mut run = 0;
    load(&fleet, run)?;
    for worker in &mut workers {
        let page = worker.wait("an empty backlog", |page| {
            sum(page, "guestkit_backlog_jobs", &[]) == 0.0
        })?;
        tools.check_metrics(&page)?;
    }
    std::thread::sleep(SETTLE);
    println!("jobs are done after {}", seconds(start.elapsed()));
    ask(&server)?;
    println!("everything was asked after {}", seconds(start.elapsed()));
    if options.keep_running {
        println!("running until Ctrl-C: http://{}/graph", server.address());
        while !interrupt::asked() {
            // A load to look at; an interruption ends the command that publishes, too.
            run += 1;
            if let Err(error) = load(&fleet, run) {
                println!("{error:#}");
            }
        }
    }
    for worker in workers {
        worker.end()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Some of everything: jobs that end well, fail, panic; disks that are read; duplicates, conflicts,
/// repeats, dead letters.
fn load(fleet: &Fleet, run: u32) -> Result<()> {
    for round in 0..ROUNDS {
        let next = clock::now();
        let mut jobs = Vec::new();
        let mut add = |operation: &str, name: &str, key: &str, data: &str| {
            let id = format!("{name}-{run}-{round}");
            jobs.push(job(operation, &id, &format!("{key}-{run}-{round}"), data));
        };
        for n in 0..ECHOES {
            let name = format!("echo{n}");
            add(
                "system.echo",
                &name,
                &name,
                &format!(r#"{{"sleep_ms":{}}}"#, n * 10),
            );
        }
        // The same key and payload under another id; another payload; the same id once more; the
        // same id with another payload, which is a dead letter.
        add("system.echo", "duplicate", "echo0", r#"{"sleep_ms":0}"#);
        add("system.echo", "conflict1", "echo0", r#"{"sleep_ms":1}"#);
        add("system.echo", "duplicate", "echo0", r#"{"sleep_ms":0}"#);
        add("system.echo", "duplicate", "echo0", r#"{"sleep_ms":2}"#);
        let fail = r#"{"fail":{"code":"DISK_ON_FIRE","message":"as asked","recoverable":false,"times":0}}"#;
        add("system.echo", "failing1", "failing", fail);
        add(
            "system.echo",
            "panicking",
            "panicking",
            r#"{"crash":"panic"}"#,
        );
        add(
            "guestkit.inspect",
            "missing1",
            "missing",
            r#"{"image":{"path":"none.qcow2"}}"#,
        );
        if round % 4 == 0 {
            let image = r#"{"image":{"path":"deb12-gpt-ext4/deb12-gpt-ext4.qcow2"}}"#;
            add("guestkit.inspect", "inspect1", "inspect", image);
        }
        fleet.publish(&jobs)?;
        std::thread::sleep(ROUND.saturating_sub(next.elapsed()));
    }
    Ok(())
}

fn ask(server: &Server) -> Result<()> {
    let text = fs::read_to_string(root().join(DASHBOARD)).context(DASHBOARD)?;
    let queries = dashboard(&text)?;
    let mut wrong = Vec::new();
    for query in &queries {
        let answer = server
            .query(&query.expression)
            .with_context(|| format!("panel {:?}: {}", query.panel, query.expression))?;
        if answer.numbers == 0 {
            wrong.push(format!(
                "panel {:?}: {} samples, no number: {}",
                query.panel, answer.samples, query.written
            ));
        }
    }
    let alerts = server.alerts()?;
    let mut selected = BTreeSet::new();
    for (name, expression) in &alerts {
        let answer = server
            .query(expression)
            .with_context(|| format!("alert {name}: {expression}"))?;
        if answer.samples > 0 {
            println!("{name} has {} reason(s) to fire", answer.samples);
        }
        selected.extend(selectors(expression));
    }
    for selector in &selected {
        if server.query(selector)?.numbers == 0 {
            wrong.push(format!("an alert looks at nothing: {selector}"));
        }
    }
    for (query, why) in EMPTY {
        println!("expected to be empty: {query}: {why}");
        ensure!(
            alerts
                .iter()
                .any(|(_, expression)| expression.contains(query)),
            "no alert asks for {query} any more: take it off the list"
        );
    }
    for line in &wrong {
        println!("{line}");
    }
    ensure!(wrong.is_empty(), "{} queries find nothing", wrong.len());
    println!(
        "{} queries of the dashboard, {} alerts with {} selectors: each has data",
        queries.len(),
        alerts.len(),
        selected.len()
    );
    Ok(())
}

/// Every alert says where to read on, and there is such a heading.
fn check_runbook() -> Result<()> {
    const LINK: &str = "runbook_url: docs/operations.md#";
    let read = |file: &str| fs::read_to_string(root().join(file)).context(file.to_owned());
    let (rules, guide) = (read(RULES)?, read("docs/operations.md")?);
    let headings: BTreeSet<String> = guide
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches(['#', ' ']).to_lowercase())
        .collect();
    let links: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix(LINK))
        .collect();
    let alerts = rules.matches("- alert: ").count();
    ensure!(
        links.len() == alerts,
        "{alerts} alerts, {} links",
        links.len()
    );
    for link in links {
        ensure!(
            headings.contains(link),
            "docs/operations.md has no heading {link}"
        );
    }
    Ok(())
}

/// The part of it for every day: the files, one worker's page, and that dashboard and alerts name
/// nothing that no worker shows.
pub(crate) fn check(bootstrap: &str) -> Result<()> {
    let tools = Tools::provide()?;
    tools.check_files()?;
    check_runbook()?;
    let fleet = Fleet::new(bootstrap, "observe-check", 2)?;
    let mut worker = fleet.worker("observed")?;
    // Its clients report every five seconds.
    let page = worker.wait("showing everything", |page| {
        page.contains("guestkit_kafka_brokers_up{client=\"writer\"")
            && page.contains("guestkit_jobs_partitions")
    })?;
    worker.end()?;
    tools.check_metrics(&page)?;
    // HELP may speak of anything.
    let samples: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
    let samples = samples.join("\n");
    let shown = names(&samples);
    for file in [DASHBOARD, RULES] {
        let text = fs::read_to_string(root().join(file)).context(file)?;
        let unknown: Vec<&str> = names(&text).difference(&shown).copied().collect();
        if !unknown.is_empty() {
            bail!(
                "{file} asks for what no worker shows: {}",
                unknown.join(", ")
            );
        }
    }
    println!("{} names on the page, none unknown", shown.len());
    Ok(())
}
