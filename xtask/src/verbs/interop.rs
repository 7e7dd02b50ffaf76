//! The programs of `examples/`, each as its README says, against a real broker and registry: every
//! one publishes a job and reads its result in each framing.

use crate::fleet::{self, Fleet, IMAGE, Results};
use crate::interrupt;
use crate::packages::{INSTALL, need, npm_ci};
use crate::python;
use crate::steps::{Steps, run_within};
use crate::verbs::test::Services;
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde_json::Value;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;
use xtask::cluster::{check_prerequisites, provision};
use xtask::workspace::{dev_dir, root};

/// Longest time for one program; its own patience is a minute.
const PROGRAM: Duration = Duration::from_secs(120);
/// A result's framing is that of the job, for clients that can read it.
const FRAMINGS: [Results; 3] = [Results::Confluent, Results::SingleObject, Results::Json];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this client; repeat for more
    #[arg(long, value_name = "CLIENT")]
    only: Vec<Client>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Client {
    Python,
    Java,
    Go,
    Node,
    Kcat,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    interrupt::install()?;
    check_prerequisites()?;
    let mut steps = Steps::default();
    let clients = match options.only.as_slice() {
        [] => Client::value_variants(),
        only => only,
    };
    if steps.run("build", fleet::build).is_some() {
        let services = steps.run("Kafka and schema registry", || {
            provision()?;
            Services::start()
        });
        if let Some(services) = services {
            let mut fleets = fleet::of_all_results(&mut steps, &services, "interop");
            check(&mut steps, &mut fleets, clients);
        }
    }
    Ok(steps.finish())
}

/// A step for each client and framing.
pub(crate) fn check(steps: &mut Steps, fleets: &mut [Fleet], clients: &[Client]) {
    for client in clients {
        let name = client.name();
        if steps
            .run(&format!("{name}: install"), || client.install())
            .is_none()
        {
            continue;
        }
        for framing in FRAMINGS {
            let results = client.results(framing);
            steps.run(&format!("{name}: {}", framing.framing()), || {
                let fleet = fleets.iter_mut().find(|fleet| fleet.results() == results);
                let fleet = fleet.context("its fleet did not start")?;
                let checked = client.answered(framing.framing(), fleet);
                fleet.check()?;
                checked
            });
        }
    }
}

impl Client {
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn folder(self) -> PathBuf {
        root().join("examples").join(self.name())
    }

    /// What the client's result looks like when it publishes in a framing.
    fn results(self, framing: Results) -> Results {
        match self {
            // It reads text only, whatever it writes.
            Self::Kcat => Results::Json,
            _ => framing,
        }
    }

    fn install(self) -> Result<()> {
        let folder = self.folder();
        match self {
            Self::Python => {
                python::environment("interop/python", &folder.join("requirements.txt"))?;
            }
            Self::Java => {
                need("mvn", "apt-get install -y maven")?;
                let mut build = Command::new("mvn");
                build
                    .args(["-q", "-B", "-C", "-f"])
                    .arg(folder.join("pom.xml"))
                    .arg("package");
                run_within(&mut build, INSTALL)?;
            }
            Self::Go => {
                need("go", "1.26 or newer, from https://go.dev/dl")?;
                let mut build = Command::new("go");
                build.args(["build", "-o"]).arg(go_program()).arg(".");
                run_within(build.current_dir(&folder), INSTALL)?;
            }
            Self::Node => npm_ci(&folder)?,
            Self::Kcat => {
                need("kcat", "apt-get install -y kcat")?;
                need("curl", "apt-get install -y curl")?;
            }
        }
        Ok(())
    }

    fn command(self, framing: &str) -> Command {
        let folder = self.folder();
        let mut command = match self {
            Self::Python => {
                let mut command = Command::new(dev_dir().join("interop/python/bin/python"));
                command.arg("-B").arg(folder.join("job.py"));
                command
            }
            Self::Java => {
                let target = folder.join("target");
                let (classes, libraries) = (target.join("classes"), target.join("lib/*"));
                let mut command = Command::new("java");
                command
                    .arg("-cp")
                    .arg(format!("{}:{}", classes.display(), libraries.display()))
                    .arg("io.guestkit.example.Job");
                command
            }
            Self::Go => Command::new(go_program()),
            Self::Node => {
                let mut command = Command::new("node");
                command.arg(folder.join("job.js"));
                command
            }
            Self::Kcat => Command::new(folder.join("job.sh")),
        };
        command.args([framing, IMAGE]);
        command
    }

    /// Runs the program, and looks at the result that it printed.
    fn answered(self, framing: &str, fleet: &Fleet) -> Result<()> {
        let printed = tempfile::NamedTempFile::new()?;
        let mut command = self.command(framing);
        command
            .envs(fleet.environment())
            .stdout(File::create(printed.path())?);
        run_within(&mut command, PROGRAM)?;
        let text = fs::read_to_string(printed.path())?;
        let result: Value = serde_json::from_str(text.trim())
            .with_context(|| format!("it printed {:.300}", text.trim()))?;
        ensure!(
            result["status"] == "completed",
            "{}: {}",
            result["status"],
            result["error"]
        );
        // The whole way: the example's guest, read by the worker, decoded by the client.
        let name = &result["data"]["os"][0]["pretty_name"];
        match (result["job_id"].as_str(), name.as_str()) {
            (Some(job), Some(name)) if name.contains("Debian") => {
                println!("{job}: {name}");
                Ok(())
            }
            other => bail!("not the result of the guest: job and system are {other:?}"),
        }
    }
}

fn go_program() -> PathBuf {
    dev_dir().join("interop/go-job")
}

/// What the quick part of `./dev test` runs: the client that needs the least.
pub(crate) const QUICK: &[Client] = &[Client::Python];
