//! From a configuration to a running Kafka worker: connects, checks the topics, wires the parts.

use crate::broker::{Topics, permissions};
use crate::capabilities;
use crate::clock::now_ms;
use crate::codec::{Codec, Framings};
use crate::config::{Config, Transport};
use crate::engine::index::HashSeed;
use crate::handlers::Settings;
use crate::http;
use crate::kafka_worker::{KafkaWorker, Setup};
use crate::registration;
use crate::results::Artifacts;
use crate::spans::JobSpans;
use crate::status::Status;
use guestkit_kafka::acls::{Operation, Permission};
use guestkit_kafka::connection::{Sources, is_secret};
use guestkit_kafka::metadata::Cluster;
use guestkit_kafka::registry::{Patience, RegistrySchemas};
use guestkit_kafka::trace::Spans;
use guestkit_kafka::{
    Connection, Fault, Properties, REDACTED, TopicNames, metadata, without_userinfo,
};
use guestkit_protocol::{
    DEFAULT_POOL, Document, Framing, JobProgress, JobResult, NoRegistry, SchemaSource,
    WorkerAdvertisement,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

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

impl From<Fault> for StartError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unreachable { .. } | Fault::Unauthenticated { .. } => {
                Self::Unreachable(fault.to_string())
            }
            Fault::Denied { .. } | Fault::Config(_) => Self::Config(fault.to_string()),
            Fault::Other { .. } => Self::Other(anyhow::anyhow!(fault)),
        }
    }
}

/// How long the first contact may take before the worker gives up: an orchestrator restarts it.
const CONTACT_MAX: Duration = Duration::from_secs(30);

/// Pause before the registry is asked again at start.
const REGISTRY_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause between two questions about a schema: a registry that is back is noticed soon.
const REGISTRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long leaving waits for a collector to take the last spans.
const SPANS_MAX: Duration = Duration::from_secs(5);

/// Runs a Kafka worker until a signal ends it.
///
/// # Errors
/// See [`StartError`].
pub async fn run(config: Arc<Config>) -> Result<(), StartError> {
    // First of all: an orchestrator may change its mind while we still connect.
    let stop = crate::signals::listen().map_err(anyhow::Error::from)?;
    let preparing = {
        let (config, stop) = (config.clone(), stop.clone());
        tokio::task::spawn_blocking(move || prepare(&config, &stop))
    };
    let Some(setup) = preparing.await.map_err(anyhow::Error::from)?? else {
        return Ok(());
    };
    tracing::info!(
        worker_id = %setup.settings.worker_id,
        slots = setup.topics.slots,
        group = setup.connection.get("group.id"),
        "worker starts"
    );
    let status = setup.status.clone();
    let spans = setup.spans.clone();
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
    if let Some(spans) = spans {
        let closing = tokio::task::spawn_blocking(move || spans.close(SPANS_MAX));
        closing.await.map_err(anyhow::Error::from)?;
    }
    Ok(())
}

/// The configuration in words, without secrets.
///
/// # Errors
/// When it cannot work.
pub fn describe(config: &Config) -> Result<String, StartError> {
    let mut shown = config.clone();
    shown.otlp_endpoint = config.otlp_endpoint.as_deref().map(without_userinfo);
    for (name, value) in &mut shown.kafka {
        *value = if is_secret(name) {
            REDACTED.to_owned()
        } else {
            without_userinfo(value)
        };
    }
    if let Transport::Kafka {
        bootstrap_servers, ..
    } = &config.transport
    {
        shown.kafka = connect(config, bootstrap_servers)?.redacted();
        if let Transport::Kafka {
            schema_registry_url: Some(url),
            ..
        } = &mut shown.transport
        {
            *url = without_userinfo(url);
        }
    }
    Ok(format!("{shown:#?}"))
}

/// The environment; what is not UTF-8 is nobody's configuration.
fn environment() -> Properties {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn connect(config: &Config, bootstrap_servers: &str) -> Result<Connection, StartError> {
    let environment = environment();
    Ok(Connection::new(
        bootstrap_servers,
        Sources {
            file: &config.kafka,
            environment: &environment,
            read_file: &|path| std::fs::read_to_string(path),
        },
    )?)
}

/// `None`: told to stop meanwhile.
fn prepare(config: &Config, stop: &watch::Receiver<bool>) -> Result<Option<Setup>, StartError> {
    let Transport::Kafka {
        bootstrap_servers,
        schema_registry_url,
    } = &config.transport
    else {
        return Err(StartError::Config("no bootstrap-servers".to_owned()));
    };
    let connection = connect(config, bootstrap_servers)?;
    let names = TopicNames::new(&config.topic_prefix, config.pool.as_deref())?;
    let cluster = look_around(&connection, &names)?;
    let slots = count_slots(&cluster, &names)?;
    let Some((schemas, framings)) = schemas(config, schema_registry_url.as_deref(), &names, stop)?
    else {
        return Ok(None);
    };
    let worker_id: Arc<str> = match &config.worker_id {
        Some(id) => id.as_str().into(),
        None => {
            let host = crate::host::name().unwrap_or_else(|| "worker".to_owned());
            format!("{host}-{:08x}", rand::random::<u32>()).into()
        }
    };
    let incarnation: Arc<str> = format!("{worker_id}-{:08x}", rand::random::<u32>()).into();
    let settings = Settings {
        worker_id: worker_id.clone(),
        disk_roots: config.disk_roots.clone(),
        isolation: config.isolation.clone(),
        allow_test_faults: config.allow_test_faults,
        concurrency: config.concurrency,
        pool: config.pool.clone(),
    };
    let transactional_id: Arc<str> = names
        .transactional_id(&config.group_id, &worker_id, 0)
        .into();
    let group = names.group(&config.group_id);
    let client = client(&connection, &group, &worker_id);
    permissions::check(&client, &names.jobs, &names.ledger, &transactional_id)?;
    let spans = Spans::start(
        "guestkit-worker",
        &worker_id,
        config.otlp_endpoint.as_deref(),
        &environment(),
    )?;
    Ok(Some(Setup {
        registration: directory(&cluster, &names).then(|| {
            registration::Parts::new(
                names.workers.clone(),
                &settings,
                &incarnation,
                &transactional_id,
                config.artifact_dir.clone(),
            )
        }),
        spans: spans.map(|spans| Arc::new(JobSpans::new(spans, &names.jobs, &group, &worker_id))),
        connection: client,
        transactional_id,
        topics: Topics {
            jobs: names.jobs,
            ledger: names.ledger,
            results: names.results,
            progress: names.progress,
            dead_letters: names.dead_letters,
            slots,
        },
        artifacts: Artifacts::new(config.artifact_dir.clone(), &incarnation),
        incarnation,
        seed: HashSeed(rand::random(), rand::random()),
        codec: Codec::new(worker_id, framings, now_ms),
        schemas,
        admission: capabilities::admission(&settings),
        settings,
        drain_timeout: config.drain_timeout,
        status: Arc::new(status(config.pool.as_deref())?),
    }))
}

/// Whether there is a worker directory. Jobs need none, so an older fleet goes on without.
fn directory(cluster: &Cluster, names: &TopicNames) -> bool {
    let exists = cluster.partitions(&names.workers).is_ok();
    if !exists {
        // An authorizer hides a topic from who may not use it.
        let needed = Permission::topic(Operation::Write, &names.workers);
        tracing::warn!(
            "no worker directory, this worker will not be listed: run `guestkit-jobs topics create`, or {needed}"
        );
    }
    exists
}

fn status(pool: Option<&str>) -> Result<Status, StartError> {
    Status::new(pool.unwrap_or(DEFAULT_POOL))
        .map_err(|error| StartError::Other(anyhow::anyhow!(error).context("metrics")))
}

/// What every client of this worker starts from; the user's properties win over these defaults.
fn client(connection: &Connection, group: &str, worker_id: &str) -> rdkafka::ClientConfig {
    let user = connection.client_config();
    let mut config = user.clone();
    for (key, value) in [
        ("client.id", worker_id),
        ("session.timeout.ms", "10000"),
        ("heartbeat.interval.ms", "3000"),
        ("compression.type", "lz4"),
        ("message.max.bytes", "2097152"),
    ] {
        if user.get(key).is_none() {
            config.set(key, value);
        }
    }
    config.set("group.id", group);
    config
}

type Schemas = (Arc<dyn SchemaSource>, Framings);

/// Where writer schemas come from, and how we write. A registry that is down is waited for: starting
/// without it would mean to write what nobody expects.
fn schemas(
    config: &Config,
    url: Option<&str>,
    names: &TopicNames,
    stop: &watch::Receiver<bool>,
) -> Result<Option<Schemas>, StartError> {
    let mut framings = Framings::default();
    if config.json_results {
        framings.results = Framing::Json;
        framings.progress = Framing::Json;
        framings.workers = Framing::Json;
    }
    let Some(url) = url else {
        return Ok(Some((Arc::new(NoRegistry), framings)));
    };
    let registry = RegistrySchemas::with(
        url,
        &config.schema_registry,
        Patience {
            unknown: config.schema_unknown_after,
            pause_max: REGISTRY_PAUSE_MAX,
            ..Patience::default()
        },
    )?;
    if !config.json_results {
        let resolve = |topic: &str, schema: &str| resolve(&registry, topic, schema, stop);
        let Some(results) = resolve(&names.results, JobResult::SCHEMA)? else {
            return Ok(None);
        };
        let Some(progress) = resolve(&names.progress, JobProgress::SCHEMA)? else {
            return Ok(None);
        };
        match resolve(&names.workers, WorkerAdvertisement::SCHEMA) {
            Ok(Some(schema_id)) => framings.workers = Framing::Confluent { schema_id },
            Ok(None) => return Ok(None),
            // Registered by an earlier release, which had no use for it: no reason to stand still.
            Err(StartError::Config(reason)) => {
                tracing::warn!(reason, "advertisements are single-object Avro");
            }
            Err(error) => return Err(error),
        }
        framings.results = Framing::Confluent { schema_id: results };
        framings.progress = Framing::Confluent {
            schema_id: progress,
        };
    }
    Ok(Some((Arc::new(registry), framings)))
}

/// The id of a schema that was registered ahead; `None` when told to stop while waiting.
fn resolve(
    registry: &RegistrySchemas,
    topic: &str,
    schema: &str,
    stop: &watch::Receiver<bool>,
) -> Result<Option<u32>, StartError> {
    let subject = format!("{topic}-value");
    while !*stop.borrow() {
        match registry.resolve(&subject, schema) {
            Ok(Some(id)) => return Ok(Some(id)),
            Ok(None) => {
                return Err(StartError::Config(format!(
                    "the schema registry has no such schema for {subject}: run `guestkit-jobs schemas register`"
                )));
            }
            Err(
                fault @ (Fault::Config(_) | Fault::Denied { .. } | Fault::Unauthenticated { .. }),
            ) => return Err(fault.into()),
            Err(fault) => {
                tracing::warn!(%fault, "waiting for the schema registry");
                std::thread::sleep(REGISTRY_PAUSE);
            }
        }
    }
    Ok(None)
}

/// The cluster as this worker sees it; a permission that it lacks is named.
fn look_around(connection: &Connection, names: &TopicNames) -> Result<Cluster, StartError> {
    let wanted = [
        Permission::topic(Operation::Read, &names.jobs),
        Permission::topic(Operation::Read, &names.ledger),
        Permission::topic(Operation::Write, &names.results),
        Permission::topic(Operation::Write, &names.progress),
        Permission::topic(Operation::Write, &names.dead_letters),
    ];
    Ok(metadata::cluster_with(connection, &wanted, CONTACT_MAX)?)
}

/// N: the partition count of the ledger. Fewer jobs partitions cannot work.
fn count_slots(cluster: &Cluster, names: &TopicNames) -> Result<u32, StartError> {
    for topic in [&names.results, &names.progress, &names.dead_letters] {
        cluster.partitions(topic)?;
    }
    let (jobs, slots) = (
        cluster.partitions(&names.jobs)?,
        cluster.partitions(&names.ledger)?,
    );
    if jobs < slots {
        return Err(StartError::Config(format!(
            "topic {} has {jobs} partitions and its ledger {} has {slots}: give the jobs topic at least as many (kafka-topics --alter --partitions {slots})",
            names.jobs, names.ledger
        )));
    }
    Ok(slots)
}
