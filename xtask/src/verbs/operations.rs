//! What the operations guide says, done: recovery procedures, and a run under the autoscaler. Both start a Kafka of
//! their own. Needs Python with `venv`, and PyPI on the first run.

use crate::dependencies::target_directory;
use crate::python;
use crate::steps::{cargo, run as run_command, run_within};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use xtask::cluster::{KafkaNode, provision};
use xtask::workspace::root;

/// Longest time for all drills; they take a minute.
const DRILLS: Duration = Duration::from_secs(600);
/// Longest time for a recorded run; it ends by itself after 40 minutes at most.
const RECORD: Duration = Duration::from_secs(3000);

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// The procedures of docs/operations.md, "Disaster recovery": lost records, offsets and ledger
    Drills(Programs),
    /// Half an hour of real workers under the autoscaler's arithmetic, recorded for ./dev manifests
    Record {
        #[command(flatten)]
        programs: Programs,
        /// Where the record goes
        #[arg(long, default_value = "deploy/autoscaler/recorded-run.json")]
        output: PathBuf,
    },
}

/// Programs to run instead of those of this checkout.
#[derive(clap::Args)]
struct Programs {
    /// A guestkit-worker
    #[arg(long, requires = "jobs")]
    worker: Option<PathBuf>,
    /// A guestkit-jobs
    #[arg(long, requires = "worker")]
    jobs: Option<PathBuf>,
}

impl Programs {
    /// Both, built when none were named.
    fn find(&self) -> Result<(PathBuf, PathBuf)> {
        if let (Some(worker), Some(jobs)) = (&self.worker, &self.jobs) {
            return Ok((absolute(worker)?, absolute(jobs)?));
        }
        let arguments = ["build", "-p", "guestkit-worker", "-p", "guestkit-jobs"];
        run_command(&mut cargo(&arguments))?;
        let folder = target_directory()?.join("debug");
        Ok((folder.join("guestkit-worker"), folder.join("guestkit-jobs")))
    }
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    crate::interrupt::install()?;
    let scripts = root().join("deploy/drills");
    let python = python::environment("py-operations", &scripts.join("requirements.txt"))?;
    let (Action::Drills(programs) | Action::Record { programs, .. }) = &options.action;
    let (worker, jobs) = programs.find()?;
    provision()?;
    let kafka = KafkaNode::builder().heap_mb(768).start();
    let kafka = kafka.context("Kafka")?;
    let mut command = Command::new(python);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let (script, last, limit) = match &options.action {
        Action::Drills(_) => {
            let logs = root().join(".dev/drills");
            std::fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
            println!("logs of the worker: {}", logs.display());
            (scripts.join("main.py"), logs, DRILLS)
        }
        Action::Record { output, .. } => {
            let script = root().join("deploy/autoscaler/record.py");
            (script, absolute(output)?, RECORD)
        }
    };
    command.arg(script).arg(kafka.bootstrap());
    command.arg(worker).arg(jobs).arg(last);
    run_within(&mut command, limit)?;
    Ok(ExitCode::SUCCESS)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{}", path.display()))
}
