//! Every check of the project. `.ci/run` calls exactly this.

use super::{contracts, demo, interop, lint, manifests, observe, trace};
use crate::fleet;
use crate::interrupt;
use crate::steps::{Steps, cargo, run as run_command};
use anyhow::{Context, Result};
use std::process::ExitCode;
use std::thread;
use xtask::cluster::{KafkaNode, Registry, check_prerequisites, provision};

const BOOTSTRAP: &str = "GUESTKIT_TEST_BOOTSTRAP_SERVERS";
const REGISTRY: &str = "GUESTKIT_TEST_REGISTRY_URL";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How often the demo has to succeed
    #[arg(long, default_value_t = 20)]
    demo_runs: u32,
    /// Passed to `cargo test` after `--workspace`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// What the tests find in their environment. The processes end when this is dropped.
pub(crate) struct Services {
    environment: Vec<(&'static str, String)>,
    _kafka: Option<KafkaNode>,
    _registry: Option<Registry>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    interrupt::install()?;
    // Tests start brokers of their own to kill, whatever broker the user named.
    check_prerequisites()?;
    // The download runs beside the first builds.
    let download = thread::spawn(provision);
    let mut steps = Steps::default();

    lint::check(&mut steps);
    steps.run("manifests", || manifests::check(false));
    // With the features that clippy had: what build scripts and macros made is used again. The
    // binaries of the demo are among it.
    let built = steps.run("build", || {
        run_command(&mut cargo(&[
            "build",
            "--workspace",
            "--all-targets",
            "--all-features",
        ]))
    });
    let services = steps.run("Kafka and schema registry", || {
        download
            .join()
            .map_err(|_| anyhow::anyhow!("the download panicked"))??;
        Services::start()
    });
    if let (true, Some(services)) = (built.is_some(), &services) {
        steps.run("tests", || {
            let mut test = cargo(&["test", "--workspace", "--all-features", "--no-fail-fast"]);
            test.args(&options.arguments);
            run_command(test.envs(services.environment.iter().map(|(k, v)| (k, v))))
        });
        let mut fleets = fleet::of_all_results(&mut steps, services, "test");
        contracts::check(&mut steps, &mut fleets);
        // `./dev interop` has the other clients.
        interop::check(&mut steps, &mut fleets, interop::QUICK);
        steps.run("trace", || trace::check(&services.bootstrap_servers()));
        steps.run("prometheus", || {
            observe::check(&services.bootstrap_servers())
        });
    }
    if built.is_some() && options.demo_runs > 0 {
        steps.run("demo", || demo::run_many(options.demo_runs));
    }
    Ok(steps.finish())
}

impl Services {
    /// The user's own where he named them, else ours.
    pub(crate) fn start() -> Result<Self> {
        let set = |name| std::env::var(name).is_ok_and(|value| !value.is_empty());
        let mut services = Self {
            environment: Vec::new(),
            _kafka: None,
            _registry: None,
        };
        if set(BOOTSTRAP) {
            println!("the broker of {BOOTSTRAP}");
        } else {
            let kafka = KafkaNode::builder().heap_mb(768).start();
            let kafka = kafka.context("Kafka")?;
            println!("Kafka on {}", kafka.bootstrap());
            services
                .environment
                .push((BOOTSTRAP, kafka.bootstrap().to_owned()));
            services._kafka = Some(kafka);
        }
        if set(REGISTRY) {
            println!("the schema registry of {REGISTRY}");
        } else {
            let registry = Registry::start().context("schema registry")?;
            println!("schema registry on {}", registry.url());
            services
                .environment
                .push((REGISTRY, registry.url().to_owned()));
            services._registry = Some(registry);
        }
        Ok(services)
    }

    /// `HOST:PORT,…`
    pub(crate) fn bootstrap_servers(&self) -> String {
        self.address(BOOTSTRAP)
    }

    /// The root of Confluent's API.
    pub(crate) fn registry_url(&self) -> String {
        self.address(REGISTRY)
    }

    fn address(&self, name: &str) -> String {
        let ours = self.environment.iter().find(|(ours, _)| *ours == name);
        ours.map_or_else(
            || std::env::var(name).unwrap_or_default(),
            |(_, address)| address.clone(),
        )
    }
}
