//! Workers that are looked at: the binaries of this workspace on a real Kafka.

use crate::dependencies::target_directory;
use crate::interrupt;
use crate::steps::run as run_command;
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;
use tempfile::TempDir;
use xtask::clock;
use xtask::cluster::process::{dies_with_us, sigterm, spawn, wait_at_most};
use xtask::cluster::{free_port, http_get};
use xtask::workspace::root;

/// Longest time until a worker takes jobs, or has done what was expected of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest orderly end.
const LEAVE: Duration = Duration::from_secs(40);
const LOOK: Duration = Duration::from_millis(200);

/// Topics of one run, and the programs.
pub(crate) struct Fleet {
    bootstrap: String,
    prefix: String,
    binaries: PathBuf,
    dir: TempDir,
}

/// Dropped, it is killed.
pub(crate) struct Worker {
    child: Child,
    http: SocketAddr,
    log: PathBuf,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A job to publish, as JSON.
pub(crate) fn job(operation: &str, id: &str, key: &str, data: &str) -> String {
    format!(
        r#"{{"version":"1.0","job_id":"{id}","created_at":"2026-11-24T14:20:00Z","kind":"VMOperation","operation":"{operation}","payload":{{"type":"{operation}.v1","data":{data}}},"execution":{{"idempotency_key":"{key}"}}}}"#
    )
}

impl Fleet {
    /// Creates the topics.
    pub(crate) fn new(bootstrap: &str, prefix: &str, partitions: u32) -> Result<Self> {
        let fleet = Self {
            bootstrap: bootstrap.to_owned(),
            prefix: format!("{prefix}-{}", std::process::id()),
            binaries: target_directory()?.join("debug"),
            dir: tempfile::Builder::new()
                .prefix("guestkit-fleet-")
                .tempdir()?,
        };
        let partitions = partitions.to_string();
        run_command(&mut fleet.jobs(&[
            "topics",
            "create",
            "--partitions",
            &partitions,
            "--replication-factor",
            "1",
        ]))?;
        Ok(fleet)
    }

    fn program(&self, name: &str) -> Command {
        let mut command = dies_with_us(self.binaries.join(name));
        command
            .env("GUESTKIT_BOOTSTRAP_SERVERS", &self.bootstrap)
            .env("GUESTKIT_TOPIC_PREFIX", &self.prefix)
            .env("GUESTKIT_GROUP_ID", format!("{}-workers", self.prefix));
        command
    }

    fn jobs(&self, arguments: &[&str]) -> Command {
        let mut command = self.program("guestkit-jobs");
        command.args(arguments);
        command
    }

    /// Publishes jobs, in order.
    pub(crate) fn publish(&self, jobs: &[String]) -> Result<()> {
        let file = self.dir.path().join("jobs.jsonl");
        let mut lines = String::new();
        for job in jobs {
            writeln!(lines, "{job}")?;
        }
        fs::write(&file, lines)?;
        let mut publish = self.jobs(&["publish"]);
        run_command(publish.arg(file).stdout(std::process::Stdio::null()))
    }

    /// Starts a worker that may open the images of the inspector's tests.
    pub(crate) fn worker(&self, id: &str) -> Result<Worker> {
        let http = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let log = self.dir.path().join(format!("{id}.log"));
        let mut command = self.program("guestkit-worker");
        command
            .args(["run", "--worker-id", id, "--concurrency", "4"])
            .args(["--allow-test-faults", "--http-listen", &http.to_string()])
            .arg("--disk-root")
            .arg(root().join("inspector/tests/data/guests"))
            .stdin(std::process::Stdio::null())
            .stderr(fs::File::create(&log)?);
        let child = spawn(command).context("start guestkit-worker")?;
        Ok(Worker { child, http, log })
    }
}

impl Worker {
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    /// What `/metrics` shows.
    pub(crate) fn page(&self) -> Result<String> {
        let answer = http_get(self.http, "/metrics")?;
        ensure!(answer.status == 200, "/metrics: {}", answer.status);
        String::from_utf8(answer.body).context("/metrics")
    }

    /// Waits until the page of metrics says so.
    pub(crate) fn wait(&mut self, what: &str, is: impl Fn(&str) -> bool) -> Result<String> {
        let start = clock::now();
        loop {
            if let Ok(page) = self.page()
                && is(&page)
            {
                return Ok(page);
            }
            ensure!(!interrupt::asked(), "interrupted");
            let ended = self.child.try_wait()?;
            ensure!(
                ended.is_none() && start.elapsed() < PATIENCE,
                "the worker does not come to {what}; its log:\n{}",
                fs::read_to_string(&self.log).unwrap_or_default()
            );
            std::thread::sleep(LOOK);
        }
    }

    /// Lets it drain.
    pub(crate) fn end(mut self) -> Result<()> {
        sigterm(self.child.id())?;
        let ended = wait_at_most(&mut self.child, LEAVE)?;
        let left = ended.is_some_and(|status| status.success());
        ensure!(
            left,
            "the worker does not leave; its log:\n{}",
            fs::read_to_string(&self.log).unwrap_or_default()
        );
        Ok(())
    }
}

/// Sum of a metric's samples on a page whose labels contain all of `parts`.
pub(crate) fn sum(page: &str, name: &str, parts: &[&str]) -> f64 {
    page.lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(name))
        .filter(|line| parts.iter().all(|part| line.contains(part)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}
