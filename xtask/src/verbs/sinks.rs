//! The recipes of `examples/sinks/`, run where their system can be had: Kafka Connect and Flink from
//! Maven Central, ClickHouse's and Spark's engines from PyPI. Hundreds of megabytes, so no part of
//! `./dev test`.

use crate::fleet::{self, Fleet, IMAGE, Results};
use crate::interrupt;
use crate::packages::maven_libraries;
use crate::python;
use crate::steps::{Steps, run_within};
use crate::verbs::test::Services;
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use xtask::clock::Deadline;
use xtask::cluster::{check_prerequisites, free_port, process, provision};
use xtask::workspace::root;

/// Longest time for one system: each takes less than a minute on an idle machine, and Spark minutes on a busy one.
const SYSTEM: Duration = Duration::from_secs(600);
/// Longest time for a connector that was told to end.
const STOP: Duration = Duration::from_secs(20);
/// Jobs that are published, each with one result: an inspection, an echo, an image that is missing.
const RESULTS: usize = 3;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this system; repeat for more
    #[arg(long, value_name = "SYSTEM")]
    only: Vec<System>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum System {
    /// Kafka Connect, with JSON and with Avro
    Connect,
    /// ClickHouse's engine
    Clickhouse,
    /// Flink SQL
    Flink,
    /// Spark
    Spark,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    interrupt::install()?;
    check_prerequisites()?;
    let mut steps = Steps::default();
    let systems = match options.only.as_slice() {
        [] => System::value_variants(),
        only => only,
    };
    if steps.run("build", fleet::build).is_some() {
        let services = steps.run("Kafka and schema registry", || {
            provision()?;
            Services::start()
        });
        if let Some(services) = services {
            check(&mut steps, &services, systems);
        }
    }
    Ok(steps.finish())
}

fn check(steps: &mut Steps, services: &Services, systems: &[System]) {
    let mut fleet = |results: Results| {
        let framing = results.framing();
        steps.run(&format!("results, {framing}"), || {
            let fleet = Fleet::start(services, &format!("sinks-{framing}"), results)?;
            publish(&fleet)?;
            Ok(fleet)
        })
    };
    let (Some(avro), Some(json)) = (fleet(Results::Confluent), fleet(Results::Json)) else {
        return;
    };
    steps.run("ksqldb, columns", || {
        let mut check = Command::new("python3");
        check.arg("-B").arg(root().join("interop/sinks/columns.py"));
        run_within(&mut check, SYSTEM)
    });
    for system in systems {
        match system {
            System::Connect => {
                steps.run("connect, JSON", || connect(&json, "json"));
                steps.run("connect, Avro", || connect(&avro, "avro"));
            }
            System::Clickhouse => {
                steps.run("clickhouse", || clickhouse(&avro));
            }
            System::Flink => {
                steps.run("flink", || flink(&avro));
            }
            System::Spark => {
                steps.run("spark", || spark(&avro));
            }
        }
    }
}

/// Two jobs that complete, and one that fails.
fn publish(fleet: &Fleet) -> Result<()> {
    run_within(
        fleet.jobs()?.args(["inspect", IMAGE, "--wait"]),
        Duration::from_secs(60),
    )?;
    for job in [
        &["echo", "{\"greeting\": \"hello\"}"][..],
        &["inspect", "missing.qcow2"],
    ] {
        run_within(fleet.jobs()?.args(job), Duration::from_secs(60))?;
    }
    Ok(())
}

/// A standalone Connect worker with one connector, until its file has all results.
fn connect(fleet: &Fleet, form: &str) -> Result<()> {
    let recipe = root().join("examples/sinks/connect");
    let libraries = maven_libraries("sinks/connect", &recipe.join("pom.xml"))?;
    let home = tempfile::Builder::new()
        .prefix("guestkit-connect-")
        .tempdir()?;
    let log = home.path().join("log");
    let mut java = java(&libraries);
    java.arg("org.apache.kafka.connect.cli.ConnectStandalone")
        .arg(recipe.join("worker.properties"))
        .arg(recipe.join(format!("results-{form}.properties")))
        .envs(fleet.environment())
        .env("GUESTKIT_APICURIO_URL", fleet.apicurio_url())
        .env("GUESTKIT_CONNECT_DIR", home.path())
        .env("GUESTKIT_CONNECT_PORT", free_port().to_string())
        .stdin(Stdio::null())
        .stdout(File::create(&log)?)
        .stderr(File::options().append(true).open(&log)?)
        .process_group(0);
    let mut worker = process::spawn(java).context("start Kafka Connect")?;
    let file = home.path().join(match form {
        "json" => "results.jsonl",
        _ => "results.txt",
    });
    let deadline = Deadline::after(SYSTEM);
    let lines = loop {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let ended = process::wait_at_most(&mut worker, Duration::from_millis(200))?;
        if text.lines().count() >= RESULTS {
            break text;
        }
        if ended.is_some() || deadline.passed() || interrupt::asked() {
            process::end_group(&mut worker, Duration::ZERO)?;
            let log = fs::read_to_string(&log)?;
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            bail!("no {RESULTS} lines in the file\n{}", tail.join("\n"));
        }
    };
    process::end_group(&mut worker, STOP)?;
    let lines: Vec<&str> = lines.lines().collect();
    ensure!(lines.len() == RESULTS, "{} lines", lines.len());
    let completed = lines
        .iter()
        .filter(|line| match form {
            "json" => serde_json::from_str::<Value>(line)
                .is_ok_and(|result| result["status"] == "completed"),
            _ => line.starts_with("Struct{job_id=") && line.contains(",status=completed,"),
        })
        .count();
    println!("{} lines, {completed} completed", lines.len());
    ensure!(
        completed == RESULTS - 1,
        "{completed} completed:\n{}",
        lines.join("\n")
    );
    Ok(())
}

fn clickhouse(fleet: &Fleet) -> Result<()> {
    let folder = root().join("interop/sinks");
    let python = python::environment(
        "sinks/clickhouse",
        &folder.join("clickhouse-requirements.txt"),
    )?;
    let mut check = Command::new(python);
    check
        .arg("-B")
        .arg(folder.join("clickhouse.py"))
        .arg(RESULTS.to_string())
        .envs(fleet.environment());
    run_within(&mut check, SYSTEM)
}

/// The recipe's own query, over what is there: it ends.
fn flink(fleet: &Fleet) -> Result<()> {
    let folder = root().join("interop/sinks/flink");
    let libraries = maven_libraries("sinks/flink", &folder.join("pom.xml"))?;
    let printed = tempfile::NamedTempFile::new()?;
    let out = File::create(printed.path())?;
    let mut java = java(&libraries);
    java.arg(folder.join("RunSql.java"))
        .arg(root().join("examples/sinks/flink/results.sql"));
    for (name, value) in [
        ("kafka", fleet.servers()),
        ("registry", fleet.registry_url()),
        ("prefix", fleet.prefix()),
    ] {
        java.arg(format!("{name}={value}"));
    }
    let ran = run_within(java.stdout(out.try_clone()?).stderr(out), SYSTEM);
    let text = fs::read_to_string(printed.path())?;
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("| +I |"))
        .collect();
    println!("{}", rows.join("\n"));
    ran.with_context(|| text.clone())?;
    ensure!(rows.len() == RESULTS, "{} rows:\n{text}", rows.len());
    ensure!(text.contains("Debian GNU/Linux"), "no system in\n{text}");
    ensure!(text.contains("IMAGE_NOT_FOUND"), "no error in\n{text}");
    Ok(())
}

fn spark(fleet: &Fleet) -> Result<()> {
    let folder = root().join("interop/sinks");
    let python = python::environment("sinks/spark", &folder.join("spark-requirements.txt"))?;
    let libraries = maven_libraries("sinks/spark-libraries", &folder.join("spark-pom.xml"))?;
    let mut check = Command::new(python);
    check
        .arg("-B")
        .arg(folder.join("spark.py"))
        .arg(libraries)
        .arg(RESULTS.to_string())
        .envs(fleet.environment());
    run_within(&mut check, SYSTEM)
}

fn java(libraries: &Path) -> Command {
    let mut java = process::dies_with_us("java");
    java.args([
        "-Xmx512m",
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-Dlog4j2.level=WARN",
    ])
    .arg("-cp")
    .arg(PathBuf::from(libraries).join("*"));
    java
}
