//! The gateway under load, under a fuzzer of its OpenAPI document, and in a browser.

use crate::dependencies::target_directory;
use crate::python;
use crate::steps::{Steps, cargo, run as run_command, run_within};
use anyhow::{Context, Result, ensure};
use std::process::{Command, ExitCode};
use std::time::Duration;
use xtask::cluster::{KafkaNode, check_prerequisites, process, provision};
use xtask::workspace::root;

/// Ten times what it takes.
const LIMIT: Duration = Duration::from_secs(1800);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only one of the checks
    #[arg(long)]
    only: Option<Check>,
    /// Jobs of the load
    #[arg(long, default_value_t = 10_000)]
    jobs: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Check {
    /// 100 clients while gateways and a worker are killed
    Soak,
    /// schemathesis against the live OpenAPI document
    Openapi,
    /// The page in Chromium
    Page,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    crate::interrupt::install()?;
    check_prerequisites()?;
    let wanted = |check| options.only.is_none_or(|only| only == check);
    let mut steps = Steps::default();
    // As the tests build it: what they made is used again.
    let built = steps.run("build", || {
        run_command(&mut cargo(&[
            "build",
            "-p",
            "guestkit-worker",
            "-p",
            "guestkit-jobs",
            "--bins",
            "--example",
            "gateway_checks",
        ]))
    });
    let kafka = steps.run("Kafka", || {
        provision()?;
        KafkaNode::builder().heap_mb(768).start().context("Kafka")
    });
    if let (Some(()), Some(kafka)) = (built, kafka) {
        let check = |arguments: &[String]| -> Result<()> {
            let mut command =
                Command::new(target_directory()?.join("debug/examples/gateway_checks"));
            command
                .args(arguments)
                .current_dir(root())
                .env("GUESTKIT_TEST_BOOTSTRAP_SERVERS", kafka.bootstrap());
            run_within(&mut command, LIMIT)
        };
        if wanted(Check::Soak) {
            let jobs = options.jobs.to_string();
            steps.run("load and restarts", || {
                check(&["soak", "--jobs", &jobs].map(str::to_owned))
            });
        }
        if wanted(Check::Openapi) {
            steps.run("schemathesis", || {
                let folder = root().join("producer-cli/tests/openapi");
                let python = python::environment("py-gateway", &folder.join("requirements.txt"))?;
                let program = python.with_file_name("schemathesis").display().to_string();
                let config = folder.join("schemathesis.toml");
                check(&[
                    "with".to_owned(),
                    program,
                    "--config-file".to_owned(),
                    config.display().to_string(),
                    "run".to_owned(),
                    "{url}/openapi.json".to_owned(),
                    "--url".to_owned(),
                    "{url}".to_owned(),
                ])
            });
        }
        if wanted(Check::Page) {
            steps.run("page in Chromium", || {
                for program in ["chromium", "chromedriver"] {
                    ensure!(
                        process::on_path(program),
                        "{program} is missing: apt-get install chromium chromium-driver"
                    );
                }
                let picture = root().join("docs/images/gateway.png");
                check(&[
                    "page".to_owned(),
                    "--screenshot".to_owned(),
                    picture.display().to_string(),
                ])
            });
        }
    }
    Ok(steps.finish())
}
