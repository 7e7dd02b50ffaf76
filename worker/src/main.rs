//! `guestkit-worker`: loads the configuration, wires the parts, runs, maps errors to an exit code.

use clap::{Parser, Subcommand};
use guestkit_inspector::isolate;
use guestkit_worker::config::{Config, Options, Transport};
use guestkit_worker::handlers::Settings;
use guestkit_worker::transport::files;
use guestkit_worker::{capabilities, kafka_start};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Inspects virtual machine disks: claims jobs from Kafka, publishes exactly one result per key.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  guestkit-worker run --bootstrap-servers localhost:9092 --disk-root /srv/images
  guestkit-worker run --jobs-dir jobs --results-dir results --disk-root .
  guestkit-worker check-config --config worker.toml
  GUESTKIT_BOOTSTRAP_SERVERS=kafka:9092 KAFKA_SECURITY_PROTOCOL=SSL guestkit-worker run

Exit codes: 0 done, 1 an error, 2 wrong usage or configuration, 3 Kafka cannot be reached.";

#[derive(Subcommand)]
enum Command {
    /// Serve jobs until told to stop (SIGTERM and SIGINT drain; a second one leaves at once)
    Run(Source),
    /// Say what this worker can do
    Capabilities {
        /// How to say it: table or json
        #[arg(long, default_value = "table", value_parser = ["table", "json"])]
        output: String,
    },
    /// Check the configuration, print it without secrets, exit
    CheckConfig(Source),
}

#[derive(clap::Args)]
struct Source {
    #[command(flatten)]
    options: Box<Options>,
    /// TOML file with the same names as the flags; [kafka] holds librdkafka properties
    #[arg(long, env = "GUESTKIT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Source {
    fn resolve(self) -> anyhow::Result<Config> {
        let file = match &self.config {
            Some(path) => Options::from_file(path)?,
            None => Options::default(),
        };
        Ok(self.options.over(file).resolve()?)
    }
}

fn main() -> ExitCode {
    // A child that reads a disk image for a worker.
    if let Some(code) = isolate::child_main() {
        return code;
    }
    let cli = Cli::parse();
    match cli.command {
        Command::Capabilities { output } => say_capabilities(&output),
        Command::CheckConfig(source) => match source.resolve() {
            Ok(config) => match kafka_start::describe(&config) {
                Ok(text) => {
                    println!("{text}");
                    ExitCode::SUCCESS
                }
                Err(error) => fail(&error.into(), 2),
            },
            Err(error) => fail(&error, 2),
        },
        Command::Run(source) => match source.resolve() {
            Ok(config) => run(config),
            Err(error) => fail(&error, 2),
        },
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("guestkit-worker: {error:#}");
    ExitCode::from(code)
}

fn say_capabilities(output: &str) -> ExitCode {
    let settings = Settings {
        concurrency: 1,
        ..Settings::default()
    };
    let description = capabilities::describe(&settings);
    if output == "json" {
        match serde_json::to_string(&description) {
            Ok(text) => println!("{text}"),
            Err(error) => return fail(&error.into(), 1),
        }
    } else {
        println!("version       {}", description.version);
        println!("operations    {}", description.operations.join(", "));
        println!("disk formats  {}", description.disk_formats.join(", "));
        println!("features      {}", description.features.join(", "));
    }
    ExitCode::SUCCESS
}

fn run(config: Config) -> ExitCode {
    start_logs(config.json_logs);
    match config.isolation.level() {
        Ok(isolation) => tracing::info!(isolation, "disk images are read in confined processes"),
        Err(error @ isolate::Failure::Unavailable { .. }) => return fail(&error.into(), 2),
        Err(error) => return fail(&error.into(), 1),
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into(), 1),
    };
    let config = Arc::new(config);
    let result = match &config.transport {
        Transport::Kafka { .. } => runtime.block_on(kafka_start::run(config.clone())),
        Transport::Files {
            jobs_dir,
            results_dir,
        } => {
            let told = runtime.block_on(async { guestkit_worker::signals::listen() });
            told.map_err(anyhow::Error::from)
                .and_then(|stop| Ok(files::run(&config, jobs_dir, results_dir, &stop)?))
                .map_err(kafka_start::StartError::Other)
        }
    };
    // Threads that wait for a cluster that is gone must not hold the process up.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error.exit_code();
            fail(&error.into(), code)
        }
    }
}

fn start_logs(json: bool) {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("GUESTKIT_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,hyper=warn,reqwest=warn,opentelemetry=error"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Colours are for people: a file or a collector gets plain text.
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if json {
        logs.json().init();
    } else {
        logs.init();
    }
}
