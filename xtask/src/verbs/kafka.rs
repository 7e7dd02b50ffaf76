//! A broker and a registry that stay until they are told to go.

use anyhow::{Context, Result, bail};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use xtask::clock::Deadline;
use xtask::cluster::{Jvm, KafkaNode, Registry, process};
use xtask::workspace::dev_dir;

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Starts both and prints their addresses; does nothing to those that run
    Start {
        /// The port of Kafka
        #[arg(long, default_value_t = 9092)]
        port: u16,
        /// The port of the schema registry
        #[arg(long, default_value_t = 8081)]
        registry_port: u16,
    },
    /// Stops both; topics and schemas stay
    Stop {
        /// Removes topics and schemas too
        #[arg(long)]
        delete: bool,
    },
    /// Says what runs; exit code 3 if something does not
    Status,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let kafka = Service::new("Kafka", "kafka");
    let registry = Service::new("Schema registry", "registry");
    match options.action {
        Action::Start {
            port,
            registry_port,
        } => {
            kafka.start(port, || {
                let node = KafkaNode::builder()
                    .detached()
                    .data_dir(&kafka.home)
                    .port(port)
                    .jvm(Jvm::Throughput)
                    .start()?;
                Ok(node.pid())
            })?;
            registry.start(registry_port, || {
                let registry = Registry::builder()
                    .detached()
                    .data_dir(&registry.home)
                    .port(registry_port)
                    .start()?;
                Ok(registry.pid())
            })?;
            print_next(&kafka, &registry);
        }
        Action::Stop { delete } => {
            for service in [&registry, &kafka] {
                service.stop()?;
                if delete && service.home.exists() {
                    fs::remove_dir_all(&service.home)
                        .with_context(|| format!("remove {}", service.home.display()))?;
                }
            }
        }
        Action::Status => {
            let services = [&kafka, &registry];
            for service in services {
                match service.running() {
                    Some((pid, port)) => {
                        println!("{}: running on 127.0.0.1:{port}, pid {pid}", service.name);
                    }
                    None => println!("{}: not running", service.name),
                }
            }
            if services.iter().any(|service| service.running().is_none()) {
                return Ok(ExitCode::from(3));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_next(kafka: &Service, registry: &Service) {
    let port = |service: &Service| service.running().map_or(0, |(_, port)| port);
    let bootstrap = format!("127.0.0.1:{}", port(kafka));
    let url = format!("http://127.0.0.1:{}/apis/ccompat/v7", port(registry));
    println!(
        "\
Kafka            {bootstrap}
Schema registry  {url}
Logs             {}
                 {}

Next, in this order:
  export GUESTKIT_BOOTSTRAP_SERVERS={bootstrap} GUESTKIT_SCHEMA_REGISTRY_URL={url}
  cargo run -p guestkit-jobs -- topics create
  cargo run -p guestkit-jobs -- schemas register
  cargo run -p guestkit-worker -- run
And at the end:
  ./dev kafka stop            (--delete: topics and schemas too)",
        kafka.home.join("kafka.log").display(),
        registry.home.join("registry.log").display(),
    );
}

/// A detached process; it wrote the file `pid`: process id and port.
struct Service {
    name: &'static str,
    home: PathBuf,
}

impl Service {
    fn new(name: &'static str, directory: &str) -> Self {
        Self {
            name,
            home: dev_dir().join("run").join(directory),
        }
    }

    fn start(&self, port: u16, start: impl FnOnce() -> Result<Option<u32>>) -> Result<()> {
        if let Some((pid, running)) = self.running() {
            if running != port {
                bail!(
                    "{} runs on port {running} (pid {pid}): ./dev kafka stop first",
                    self.name
                );
            }
            println!("{}: already running, pid {pid}", self.name);
            return Ok(());
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
            bail!(
                "port {port} for {} is taken by another program: choose one with --port or --registry-port",
                self.name
            );
        }
        let pid = start()?.context("it ended at once")?;
        println!("{}: started, pid {pid}", self.name);
        Ok(())
    }

    fn stop(&self) -> Result<()> {
        let Some((pid, _)) = self.running() else {
            println!("{}: not running", self.name);
            return Ok(());
        };
        process::sigterm(pid)?;
        let deadline = Deadline::after(Duration::from_secs(30));
        while self.running().is_some() {
            if deadline.passed() {
                process::sigkill(pid)?;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        fs::remove_file(self.pid_file()).context("remove the pid file")?;
        println!("{}: stopped", self.name);
        Ok(())
    }

    /// Process id and port, if that process still is ours: ids are used again.
    fn running(&self) -> Option<(u32, u16)> {
        let text = fs::read_to_string(self.pid_file()).ok()?;
        let (pid, port) = text.trim().split_once(' ')?;
        let (pid, port) = (pid.parse().ok()?, port.parse().ok()?);
        (process::is_alive(pid) && belongs_to(pid, &self.home)).then_some((pid, port))
    }

    fn pid_file(&self) -> PathBuf {
        self.home.join("pid")
    }
}

/// Kafka's directory stands in its command line, the registry's in its environment.
fn belongs_to(pid: u32, home: &Path) -> bool {
    let home = home.display().to_string();
    ["cmdline", "environ"].iter().any(|file| {
        let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(&home)
    })
}
