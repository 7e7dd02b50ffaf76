//! One Apache Kafka broker in KRaft mode: broker and controller in one process.

use super::error::{Context, Error};
use super::java::{Heap, Jvm};
use super::jvm_process::JvmProcess;
use super::provision::{Provisioned, format_storage, provision};
use super::{TcpProxy, free_port, process, wire};
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What a test broker needs and the defaults of a fleet do not give.
const SETTINGS: &[(&str, &str)] = &[
    ("auto.create.topics.enable", "false"),
    ("controller.listener.names", "CONTROLLER"),
    ("inter.broker.listener.name", "PLAINTEXT"),
    ("process.roles", "broker,controller"),
    // Groups form at once, and short session timeouts are allowed.
    ("group.initial.rebalance.delay.ms", "0"),
    ("group.min.session.timeout.ms", "100"),
    ("group.consumer.min.session.timeout.ms", "100"),
    ("group.consumer.min.heartbeat.interval.ms", "100"),
    // Few partitions of the internal topics: each costs files and start time.
    ("offsets.topic.num.partitions", "4"),
    ("transaction.state.log.num.partitions", "4"),
    ("share.coordinator.state.topic.num.partitions", "1"),
    // Small.
    ("num.network.threads", "2"),
    ("num.io.threads", "4"),
    ("log.cleaner.dedupe.buffer.size", "8388608"),
    ("log.cleaner.backoff.ms", "1000"),
    // A broker back from kill -9 is let in again when its old session has ended; the default is 9 s.
    ("broker.session.timeout.ms", "3000"),
    ("broker.heartbeat.interval.ms", "500"),
];

/// Settings whose value is the number of copies.
const REPLICATION: &[&str] = &[
    "default.replication.factor",
    "offsets.topic.replication.factor",
    "transaction.state.log.replication.factor",
    "share.coordinator.state.topic.replication.factor",
];
/// Settings whose value is the number of copies that a write waits for.
const MIN_ISR: &[&str] = &[
    "min.insync.replicas",
    "transaction.state.log.min.isr",
    "share.coordinator.state.topic.min.isr",
];

/// How a broker is to be started.
#[derive(Clone, Debug)]
pub struct KafkaBuilder {
    port: Option<u16>,
    heap_mb: Heap,
    jvm: Jvm,
    properties: BTreeMap<String, String>,
    data_dir: Option<PathBuf>,
    proxies: Vec<u16>,
    detached: bool,
    node_id: u32,
    /// (node id, controller port) of all nodes; empty: this one alone.
    voters: Vec<(u32, u16)>,
    /// Users of SCRAM-SHA-512 with their passwords; with some, no listener is expected to be plain.
    scram: Vec<(String, String)>,
}

impl KafkaBuilder {
    fn new() -> Self {
        Self {
            port: None,
            heap_mb: 512,
            jvm: Jvm::Small,
            properties: BTreeMap::new(),
            data_dir: None,
            proxies: Vec::new(),
            detached: false,
            node_id: 1,
            voters: Vec::new(),
            scram: Vec::new(),
        }
    }

    /// The port for clients; default: a free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Default: 512 MiB.
    #[must_use]
    pub fn heap_mb(mut self, heap_mb: Heap) -> Self {
        self.heap_mb = heap_mb;
        self
    }

    #[must_use]
    pub fn jvm(mut self, jvm: Jvm) -> Self {
        self.jvm = jvm;
        self
    }

    /// Any setting of server.properties; wins over ours.
    #[must_use]
    pub fn property(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.properties.insert(name.into(), value.to_string());
        self
    }

    /// A user that SCRAM-SHA-512 knows from the first start on.
    #[must_use]
    pub(crate) fn scram_user(mut self, name: &str, password: &str) -> Self {
        self.scram.push((name.to_owned(), password.to_owned()));
        self
    }

    /// Keeps data, settings and log there. Default: a temporary directory, removed on drop.
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// A further listener whose advertised address is `127.0.0.1:proxy_port`: clients that come
    /// in through a [`TcpProxy`] stay behind it. May be called for several proxies.
    #[must_use]
    pub fn proxied(mut self, proxy_port: u16) -> Self {
        self.proxies.push(proxy_port);
        self
    }

    /// The broker outlives this process; the file `pid` beside its log has process id and port.
    #[must_use]
    pub fn detached(mut self) -> Self {
        self.detached = true;
        self
    }

    /// Starts the broker and waits until it serves.
    pub fn start(self) -> Result<KafkaNode, Error> {
        let node = self.spawn()?;
        node.wait_ready()?;
        Ok(node)
    }

    /// Starts the broker and a proxy before it. Clients bootstrap at [`TcpProxy::address`] and
    /// everything they do goes through the proxy; those at [`KafkaNode::bootstrap`] go past it.
    pub fn start_behind_proxy(self) -> Result<(KafkaNode, TcpProxy), Error> {
        let index = self.proxies.len();
        let port = free_port();
        let node = self.proxied(port).start()?;
        let proxy = TcpProxy::kafka(port, node.proxied_target(index))?;
        Ok((node, proxy))
    }

    fn spawn(self) -> Result<KafkaNode, Error> {
        let parts = provision()?;
        let (home, temporary) = match &self.data_dir {
            Some(dir) => (dir.clone(), None),
            None => {
                let dir = tempfile::Builder::new()
                    .prefix("guestkit-kafka-")
                    .tempdir()
                    .context(|| "temporary directory".to_owned())?;
                (dir.path().to_owned(), Some(dir))
            }
        };
        fs::create_dir_all(&home).context(|| format!("create {}", home.display()))?;
        let port = self.port.unwrap_or_else(free_port);
        let targets: Vec<u16> = self.proxies.iter().map(|_| free_port()).collect();
        let data = home.join("data");
        let properties = home.join("server.properties");
        fs::write(&properties, self.properties_text(port, &targets, &data))
            .context(|| format!("write {}", properties.display()))?;
        self.format(&parts, &properties, &data)?;

        let log = home.join("kafka.log");
        let mut process = JvmProcess::new("Kafka", port, log, self.detached);
        let mut class_path = parts.kafka_libs.into_os_string();
        class_path.push("/*");
        let log4j = format!("-Dlog4j2.configurationFile={}", parts.log4j.display());
        process.arguments = self
            .jvm
            .flags(self.heap_mb)
            .iter()
            .map(Into::into)
            .collect();
        process.arguments.extend([
            log4j.into(),
            "-cp".into(),
            class_path,
            "kafka.Kafka".into(),
            properties.into_os_string(),
        ]);
        process.spawn()?;
        Ok(KafkaNode {
            port,
            bootstrap: format!("127.0.0.1:{port}"),
            targets,
            process,
            temporary,
            is_plain: self.scram.is_empty(),
        })
    }

    fn properties_text(&self, port: u16, targets: &[u16], data: &Path) -> String {
        let alone;
        let voters = if self.voters.is_empty() {
            alone = [(self.node_id, free_port())];
            &alone[..]
        } else {
            &self.voters
        };
        let controller = voters
            .iter()
            .find(|(id, _)| *id == self.node_id)
            .map_or(0, |(_, port)| *port);
        let mut listeners = format!("PLAINTEXT://127.0.0.1:{port}");
        let mut protocols = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".to_owned();
        let mut advertised = listeners.clone();
        for (index, (target, proxy)) in targets.iter().zip(&self.proxies).enumerate() {
            listeners += &format!(",PROXY{index}://127.0.0.1:{target}");
            advertised += &format!(",PROXY{index}://127.0.0.1:{proxy}");
            protocols += &format!(",PROXY{index}:PLAINTEXT");
        }
        let quorum: Vec<String> = voters
            .iter()
            .map(|(id, port)| format!("{id}@127.0.0.1:{port}"))
            .collect();

        let mut all: BTreeMap<&str, String> = SETTINGS
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        let copies = voters.len();
        all.extend(REPLICATION.iter().map(|name| (*name, copies.to_string())));
        let min_isr = copies.div_ceil(2).max(1);
        all.extend(MIN_ISR.iter().map(|name| (*name, min_isr.to_string())));
        all.insert("node.id", self.node_id.to_string());
        all.insert("log.dirs", data.display().to_string());
        all.insert(
            "listeners",
            format!("{listeners},CONTROLLER://127.0.0.1:{controller}"),
        );
        all.insert("advertised.listeners", advertised);
        all.insert("listener.security.protocol.map", protocols);
        all.insert("controller.quorum.voters", quorum.join(","));
        for (name, value) in &self.properties {
            all.insert(name, value.clone());
        }
        let lines: Vec<String> = all
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        lines.concat()
    }

    fn format(&self, parts: &Provisioned, properties: &Path, data: &Path) -> Result<(), Error> {
        if data.join("meta.properties").exists() {
            return Ok(());
        }
        if self.node_id != 1 || !self.voters.is_empty() || !self.scram.is_empty() {
            let (libs, log4j) = (&parts.kafka_libs, &parts.log4j);
            return format_storage(libs, log4j, properties, &self.scram);
        }
        fs::create_dir_all(data).context(|| format!("create {}", data.display()))?;
        let formatted = &parts.kafka_formatted;
        for entry in fs::read_dir(formatted).context(|| format!("read {}", formatted.display()))? {
            let entry = entry.context(|| format!("read {}", formatted.display()))?;
            fs::copy(entry.path(), data.join(entry.file_name()))
                .context(|| format!("copy {}", entry.path().display()))?;
        }
        Ok(())
    }
}

/// A running broker, or one that was killed and can be started again. Dropped, it is killed.
pub struct KafkaNode {
    port: u16,
    bootstrap: String,
    targets: Vec<u16>,
    process: JvmProcess,
    temporary: Option<TempDir>,
    /// Whether the listener answers who brings no credentials.
    is_plain: bool,
}

impl KafkaNode {
    #[must_use]
    pub fn builder() -> KafkaBuilder {
        KafkaBuilder::new()
    }

    /// `127.0.0.1:PORT`, for `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Where the proxy of the `index`-th [`KafkaBuilder::proxied`] has to connect to.
    ///
    /// # Panics
    /// When there were fewer of them.
    #[must_use]
    pub fn proxied_target(&self, index: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.targets[index]).into()
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

    /// SIGTERM, then waits; Kafka writes everything out.
    pub fn stop(&self) -> Result<(), Error> {
        self.process.stop()
    }

    /// SIGKILL.
    pub fn kill(&self) -> Result<(), Error> {
        self.process.kill()
    }

    /// Freezes the broker (SIGSTOP): connections stay open, nothing answers.
    pub fn pause(&self) -> Result<(), Error> {
        self.pid().map_or(Ok(()), process::sigstop)
    }

    /// Undoes [`Self::pause`].
    pub fn resume(&self) -> Result<(), Error> {
        self.pid().map_or(Ok(()), process::sigcont)
    }

    /// Starts it again on the same port and data, stopping it first if it runs.
    pub fn restart(&self) -> Result<(), Error> {
        self.stop()?;
        self.process.spawn()?;
        self.wait_ready()
    }

    fn wait_ready(&self) -> Result<(), Error> {
        self.process.wait_ready(|log| {
            log.contains("Kafka Server started")
                && (!self.is_plain || wire::is_kafka(self.address()))
        })
    }
}

impl Drop for KafkaNode {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.temporary.take()
        {
            let dir = dir.keep();
            eprintln!("xtask: the broker's log and data stay in {}", dir.display());
        }
    }
}

/// A cluster of three with replication factor 3 and two copies for every write.
pub fn three_nodes(
    configure: impl Fn(KafkaBuilder) -> KafkaBuilder,
) -> Result<Vec<KafkaNode>, Error> {
    let voters: Vec<(u32, u16)> = (1..=3).map(|id| (id, free_port())).collect();
    let mut nodes = Vec::new();
    for (id, _) in &voters {
        let mut builder = configure(KafkaNode::builder());
        builder.node_id = *id;
        builder.voters.clone_from(&voters);
        nodes.push(builder.spawn()?);
    }
    for node in &nodes {
        node.wait_ready()?;
    }
    Ok(nodes)
}
