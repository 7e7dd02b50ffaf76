//! The Apicurio schema registry, which speaks Confluent's API.

use super::error::{Context, Error};
use super::java::{Heap, Jvm};
use super::jvm_process::JvmProcess;
use super::{free_port, http_get, process, provision};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Where Confluent's API begins.
pub(crate) const API: &str = "/apis/ccompat/v7";

/// How a registry is to be started.
#[derive(Clone, Debug)]
pub struct RegistryBuilder {
    port: Option<u16>,
    heap_mb: Heap,
    data_dir: Option<PathBuf>,
    detached: bool,
}

impl RegistryBuilder {
    /// Default: a free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Default: 96 MiB.
    #[must_use]
    pub fn heap_mb(mut self, heap_mb: Heap) -> Self {
        self.heap_mb = heap_mb;
        self
    }

    /// Keeps schemas and log there. Default: a temporary directory, removed on drop.
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// The registry outlives this process; the file `pid` beside its log has process id and port.
    #[must_use]
    pub fn detached(mut self) -> Self {
        self.detached = true;
        self
    }

    /// Starts the registry and waits until it serves.
    pub fn start(self) -> Result<Registry, Error> {
        let parts = provision()?;
        let (home, temporary) = match &self.data_dir {
            Some(dir) => (dir.clone(), None),
            None => {
                let dir = tempfile::Builder::new()
                    .prefix("guestkit-registry-")
                    .tempdir()
                    .context(|| "temporary directory".to_owned())?;
                (dir.path().to_owned(), Some(dir))
            }
        };
        fs::create_dir_all(&home).context(|| format!("create {}", home.display()))?;
        let port = self.port.unwrap_or_else(free_port);
        let log = home.join("registry.log");
        let mut process = JvmProcess::new("schema registry", port, log, self.detached);
        process.arguments = Jvm::Small
            .flags(self.heap_mb)
            .iter()
            .map(Into::into)
            .collect();
        process.arguments.push("-jar".into());
        process.arguments.push(parts.registry_jar.into_os_string());
        // In memory it would forget its schemas at every restart.
        let database = home.join("db");
        process.environment = vec![
            ("QUARKUS_HTTP_HOST", "127.0.0.1".to_owned()),
            ("QUARKUS_HTTP_PORT", port.to_string()),
            (
                "REGISTRY_DATASOURCE_URL",
                format!("jdbc:h2:file:{};DB_CLOSE_ON_EXIT=FALSE", database.display()),
            ),
        ];
        process.spawn()?;
        let registry = Registry {
            port,
            url: format!("http://127.0.0.1:{port}{API}"),
            process,
            temporary,
        };
        registry.wait_ready()?;
        Ok(registry)
    }
}

/// A running registry, or one that was stopped and can be started again. Dropped, it is killed.
pub struct Registry {
    port: u16,
    url: String,
    process: JvmProcess,
    temporary: Option<TempDir>,
}

impl Registry {
    #[must_use]
    pub fn builder() -> RegistryBuilder {
        RegistryBuilder {
            port: None,
            heap_mb: 96,
            data_dir: None,
            detached: false,
        }
    }

    /// One with all defaults.
    pub fn start() -> Result<Self, Error> {
        Self::builder().start()
    }

    /// `http://127.0.0.1:PORT/apis/ccompat/v7`
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// `None` while it is down.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.process.log
    }

    /// SIGTERM, then waits.
    pub fn stop(&self) -> Result<(), Error> {
        self.process.stop()
    }

    /// SIGKILL.
    pub fn kill(&self) -> Result<(), Error> {
        self.process.kill()
    }

    /// Freezes it (SIGSTOP).
    pub fn pause(&self) -> Result<(), Error> {
        self.pid().map_or(Ok(()), process::sigstop)
    }

    /// Undoes [`Self::pause`].
    pub fn resume(&self) -> Result<(), Error> {
        self.pid().map_or(Ok(()), process::sigcont)
    }

    /// Starts it again on the same port and schemas, stopping it first if it runs.
    pub fn restart(&self) -> Result<(), Error> {
        self.stop()?;
        self.process.spawn()?;
        self.wait_ready()
    }

    fn wait_ready(&self) -> Result<(), Error> {
        let subjects = format!("{API}/subjects");
        self.process.wait_ready(|_| {
            http_get(self.address(), &subjects).is_ok_and(|answer| answer.status == 200)
        })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.temporary.take()
        {
            let dir = dir.keep();
            eprintln!(
                "xtask: the registry's log and data stay in {}",
                dir.display()
            );
        }
    }
}
