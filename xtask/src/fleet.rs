//! A small fleet for programs that are no Rust tests: topics of its own on a shared broker, their
//! schemas, one worker, as a user starts them.

use crate::dependencies::target_directory;
use crate::steps::{Steps, cargo, run as run_command, run_within};
use crate::verbs::test::Services;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use xtask::cluster::process;
use xtask::workspace::root;

/// Few, so that a reader has all of them soon.
const PARTITIONS: &str = "3";
/// Longest time for a command of `guestkit-jobs`: creating topics takes a second or two.
const COMMAND: Duration = Duration::from_secs(60);
/// The guest that examples inspect, under the name that schemas/examples has for it.
const GUEST: &str = "inspector/tests/data/guests/deb12-gpt-ext4/deb12-gpt-ext4.qcow2";
/// What it is called in the fleet.
pub(crate) const IMAGE: &str = "debian-12.qcow2";

/// What the results of a fleet look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Results {
    /// With a registry.
    Confluent,
    /// Without a registry.
    SingleObject,
    /// With a registry for the jobs.
    Json,
}

/// A worker and its topics. Dropped, the worker is killed.
pub(crate) struct Fleet {
    results: Results,
    prefix: String,
    servers: String,
    registry: Option<String>,
    worker: Child,
    home: TempDir,
}

/// Builds what a fleet runs, with the features of all other builds of `./dev`.
pub(crate) fn build() -> Result<()> {
    run_command(&mut cargo(&[
        "build",
        "-p",
        "guestkit-worker",
        "-p",
        "guestkit-jobs",
        "--all-features",
        "--bins",
    ]))
}

/// Three fleets on one broker, one for each look of results.
pub(crate) fn of_all_results(steps: &mut Steps, services: &Services, name: &str) -> Vec<Fleet> {
    [Results::Confluent, Results::SingleObject, Results::Json]
        .into_iter()
        .filter_map(|results| {
            let framing = results.framing();
            steps.run(&format!("fleet with {framing} results"), || {
                Fleet::start(services, &format!("{name}-{framing}"), results)
            })
        })
        .collect()
}

impl Results {
    /// How programs name it.
    pub(crate) fn framing(self) -> &'static str {
        match self {
            Self::Confluent => "confluent",
            Self::SingleObject => "single-object",
            Self::Json => "json",
        }
    }
}

impl Fleet {
    /// Creates the topics, registers the schemas and starts the worker, which is ready soon after.
    pub(crate) fn start(services: &Services, name: &str, results: Results) -> Result<Self> {
        let home = tempfile::Builder::new()
            .prefix("guestkit-fleet-")
            .tempdir()?;
        let disks = home.path().join("disks");
        fs::create_dir(&disks)?;
        let guest = root().join(GUEST);
        fs::copy(&guest, disks.join(IMAGE)).with_context(|| format!("copy {}", guest.display()))?;
        // A user's own broker may have the topics of an earlier run.
        let prefix = format!("{name}-{}", std::process::id());
        let servers = services.bootstrap_servers();
        let registry = (results != Results::SingleObject).then(|| services.registry_url());

        let create = ["topics", "create", "--partitions", PARTITIONS];
        quiet(jobs_command(&servers, registry.as_deref(), &prefix)?.args(create))?;
        if registry.is_some() {
            let register = ["schemas", "register"];
            quiet(jobs_command(&servers, registry.as_deref(), &prefix)?.args(register))?;
        }
        let log = File::create(home.path().join("worker.log"))?;
        let mut worker = process::dies_with_us(program("guestkit-worker")?);
        without_the_users_own(&mut worker);
        worker
            .args(["run", "--bootstrap-servers", &servers])
            .args(["--topic-prefix", &prefix, "--group-id", &prefix])
            .args(["--concurrency", "4", "--disk-root"])
            .arg(disks);
        if let Some(registry) = &registry {
            worker.args(["--schema-registry-url", registry]);
        }
        if results == Results::Json {
            worker.args(["--result-format", "json"]);
        }
        worker
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        std::os::unix::process::CommandExt::process_group(&mut worker, 0);
        let worker = process::spawn(worker).context("start guestkit-worker")?;
        Ok(Self {
            results,
            prefix,
            servers,
            registry,
            worker,
            home,
        })
    }

    /// What its results look like.
    pub(crate) fn results(&self) -> Results {
        self.results
    }

    /// First part of its topics' names.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `HOST:PORT,…`
    pub(crate) fn servers(&self) -> &str {
        &self.servers
    }

    /// The root of Confluent's API; empty without a registry.
    pub(crate) fn registry_url(&self) -> &str {
        self.registry.as_deref().unwrap_or_default()
    }

    /// The root of the registry's own API.
    pub(crate) fn apicurio_url(&self) -> String {
        self.registry_url()
            .replace("/apis/ccompat/v7", "/apis/registry/v2")
    }

    /// `guestkit-jobs`, connected.
    pub(crate) fn jobs(&self) -> Result<Command> {
        jobs_command(&self.servers, self.registry.as_deref(), &self.prefix)
    }

    /// What a program finds the fleet by.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = vec![
            ("GUESTKIT_BOOTSTRAP_SERVERS", self.servers.clone()),
            ("GUESTKIT_TOPIC_PREFIX", self.prefix.clone()),
            (
                "GUESTKIT_SCHEMAS",
                root().join("schemas/avro").display().to_string(),
            ),
        ];
        if let Some(registry) = &self.registry {
            environment.push(("GUESTKIT_SCHEMA_REGISTRY_URL", registry.clone()));
        }
        environment
    }

    /// Fails, with the end of its log, when the worker has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        const TAIL: usize = 20;
        let Some(status) = self.worker.try_wait()? else {
            return Ok(());
        };
        let log = fs::read_to_string(self.home.path().join("worker.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
        bail!("the worker ended: {status}\n{tail}")
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // Nobody is left to tell; without us the kernel ends it.
        drop(process::end_group(&mut self.worker, Duration::ZERO));
    }
}

/// A registry, a password or a setting of librdkafka in the user's environment is not the fleet's.
fn without_the_users_own(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("GUESTKIT_") || text.starts_with("KAFKA_") {
            command.env_remove(&name);
        }
    }
}

fn program(name: &str) -> Result<PathBuf> {
    Ok(target_directory()?.join("debug").join(name))
}

fn jobs_command(servers: &str, registry: Option<&str>, prefix: &str) -> Result<Command> {
    let mut command = Command::new(program("guestkit-jobs")?);
    without_the_users_own(&mut command);
    command.args(["--bootstrap-servers", servers, "--topic-prefix", prefix]);
    if let Some(registry) = registry {
        command.args(["--schema-registry-url", registry]);
    }
    Ok(command)
}

/// Runs a command whose output nobody needs unless it fails.
fn quiet(command: &mut Command) -> Result<()> {
    let log = tempfile::NamedTempFile::new()?;
    let out = File::create(log.path())?;
    let result = run_within(command.stdout(out.try_clone()?).stderr(out), COMMAND);
    result.with_context(|| fs::read_to_string(log.path()).unwrap_or_default())
}
