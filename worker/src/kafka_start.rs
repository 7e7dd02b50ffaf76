//! From a configuration to a running Kafka worker: connects, checks the topics, wires the parts.

use crate::broker::Topics;
use crate::capabilities;
use crate::clock::now_ms;
use crate::codec::{Codec, Framings};
use crate::config::{Config, Transport};
use crate::engine::index::HashSeed;
use crate::handlers::Settings;
use crate::http;
use crate::kafka_worker::{KafkaWorker, Setup};
use crate::results::Artifacts;
use crate::status::Status;
use guestkit_protocol::{Framing, NoRegistry, SchemaSource};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::sync::Arc;
use std::time::Duration;

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot work.
    #[error("{0}")]
    Config(String),
    /// Kafka or the registry cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl StartError {
    /// Exit code (interface.md).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Other(_) => 1,
        }
    }
}

/// How long the first contact may take before the worker gives up: an orchestrator restarts it.
const CONTACT_MAX: Duration = Duration::from_secs(30);

/// Runs a Kafka worker until a signal ends it.
///
/// # Errors
/// See [`StartError`].
pub async fn run(config: &Config) -> Result<(), StartError> {
    // First of all: an orchestrator may change its mind while we still connect.
    let stop = crate::signals::listen().map_err(anyhow::Error::from)?;
    let setup = prepare(config)?;
    tracing::info!(
        worker_id = %setup.settings.worker_id,
        slots = setup.topics.slots,
        group = setup.connection.get("group.id"),
        "worker starts"
    );
    let status = setup.status.clone();
    if let Some(address) = config.http_listen {
        let status = status.clone();
        tokio::spawn(async move {
            if let Err(error) = http::serve(address, status).await {
                tracing::error!(%address, %error, "http endpoint");
            }
        });
    }
    let worker = KafkaWorker::start(setup)?;
    worker.run(stop).await;
    Ok(())
}

/// The configuration in words, without secrets.
///
/// # Errors
/// When it cannot work.
pub fn describe(config: &Config) -> anyhow::Result<String> {
    Ok(format!("{config:#?}"))
}

fn prepare(config: &Config) -> Result<Setup, StartError> {
    let Transport::Kafka {
        bootstrap_servers, ..
    } = &config.transport
    else {
        return Err(StartError::Config("no bootstrap-servers".to_owned()));
    };
    let random: u32 = rand::random();
    let worker_id: Arc<str> = match &config.worker_id {
        Some(id) => id.as_str().into(),
        None => format!("{}-{:08x}", host_name(), random).into(),
    };
    let incarnation: Arc<str> = format!("{worker_id}-{:08x}", rand::random::<u32>()).into();
    let suffix = config
        .pool
        .as_ref()
        .map_or_else(String::new, |pool| format!(".{pool}"));
    let prefix = &config.topic_prefix;
    let group = format!("{}{suffix}", config.group_id);
    let mut connection = ClientConfig::new();
    connection
        .set("bootstrap.servers", bootstrap_servers)
        .set("group.id", &group)
        .set("client.id", &*worker_id)
        .set("session.timeout.ms", "10000")
        .set("heartbeat.interval.ms", "3000")
        .set("compression.type", "lz4")
        .set("message.max.bytes", "2097152");
    for (key, value) in &config.kafka {
        connection.set(key, value);
    }
    let jobs = format!("{prefix}.jobs{suffix}");
    let ledger = format!("{prefix}.ledger{suffix}");
    let slots = count_slots(&connection, &jobs, &ledger)?;
    let topics = Topics {
        jobs,
        ledger,
        results: format!("{prefix}.results"),
        progress: format!("{prefix}.progress"),
        dead_letters: format!("{prefix}.dead-letters"),
        slots,
    };
    let settings = Settings {
        worker_id: worker_id.clone(),
        disk_roots: config.disk_roots.clone(),
        allow_test_faults: config.allow_test_faults,
        concurrency: config.concurrency,
        pool: config.pool.clone(),
    };
    let schemas: Arc<dyn SchemaSource> = Arc::new(NoRegistry);
    let framing = if config.json_results {
        Framing::Json
    } else {
        Framing::SingleObject
    };
    let framings = Framings {
        results: framing,
        progress: framing,
    };
    Ok(Setup {
        transactional_id: format!("{prefix}.{group}.{worker_id}.0").into(),
        artifacts: Artifacts::new(config.artifact_dir.clone(), &incarnation),
        incarnation,
        seed: HashSeed(rand::random(), rand::random()),
        codec: Codec::new(worker_id, framings, now_ms),
        schemas,
        admission: capabilities::admission(&settings),
        settings,
        topics,
        connection,
        drain_timeout: config.drain_timeout,
        status: Arc::new(Status::default()),
    })
}

/// N: the partition count of the ledger. Fewer jobs partitions cannot work.
fn count_slots(connection: &ClientConfig, jobs: &str, ledger: &str) -> Result<u32, StartError> {
    let consumer: BaseConsumer = connection
        .create()
        .map_err(|error| StartError::Config(format!("librdkafka: {error}")))?;
    let count = |topic: &str| -> Result<u32, StartError> {
        let metadata = consumer
            .fetch_metadata(Some(topic), CONTACT_MAX)
            .map_err(|error| StartError::Unreachable(format!("cannot reach Kafka: {error}")))?;
        let count = metadata
            .topics()
            .iter()
            .find(|found| found.name() == topic && found.error().is_none())
            .map_or(0, |found| found.partitions().len());
        if count == 0 {
            return Err(StartError::Config(format!(
                "topic {topic} does not exist: run `guestkit-jobs topics create`"
            )));
        }
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    };
    let (jobs_count, slots) = (count(jobs)?, count(ledger)?);
    if jobs_count < slots {
        return Err(StartError::Config(format!(
            "topic {jobs} has {jobs_count} partitions and its ledger {ledger} has {slots}: give the jobs topic at least as many (kafka-topics --alter --partitions {slots})"
        )));
    }
    Ok(slots)
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "worker".to_owned())
}
