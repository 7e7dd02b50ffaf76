//! `guestkit-jobs gateway`: jobs over HTTP, and a page for people.
//!
//! **Stateless.** What a gateway knows comes from the topics, so any number may run side by side, and one that
//! was killed knows after its restart what it knew before. Each follows jobs, results, progress and dead
//! letters (read_committed) from their newest records on and keeps the recent ones in memory, bounded in number
//! and bytes ([`index`]). Most questions are about recent jobs and cost a look into a map; following costs one
//! sequential read of the topics, however many clients poll. A job that left the memory is looked up by a
//! bounded read of one partition, at most a few at a time ([`lookup`]).
//!
//! **The same request is one job.** Job ids follow from tenant, key and payload ([`job_ids`]): a client that
//! got no answer sends the request again, to any gateway. If the job is known, nothing is published; if not, the
//! worker drops the second record, because its id was answered. A known key with another payload is refused
//! here; where two gateways take both at the same instant, the fleet answers one of them with
//! `IDEMPOTENCY_CONFLICT`.
//!
//! **A 202 means that the brokers have it**: the answer waits for the acknowledgement of all in-sync replicas.

mod board;
mod bodies;
mod dead_letters;
mod events;
mod follow;
mod highlights;
mod index;
mod job_ids;
mod limits;
mod lookup;
mod metrics;
mod negotiation;
mod openapi;
pub(crate) mod options;
mod page;
mod problem;
mod publisher;
mod routes;
mod server;
mod submission;
mod tenants;
mod tls;
mod views;
mod workers;

use crate::clock::{self, uptime};
use crate::failure::{Failure, Outcome};
use crate::publish::{framing, record};
use crate::settings::Settings;
use board::Board;
use bodies::Bodies;
use dead_letters::{DeadLetter, DeadLetters, LETTERS_MAX};
use follow::{Pulse, document};
use guestkit_kafka::TopicNames;
use guestkit_kafka::metadata::cluster;
use guestkit_protocol::{
    DecodeError, Framing, JobEnvelope, JobProgress, JobResult, JobStatus, Timestamp,
    WorkerAdvertisement, decode_job,
};
use index::{Entry, Place};
use limits::{Counted, RateLimit};
use lookup::{Failed, Lookups};
use metrics::Metrics;
use options::{GatewayOptions, LogFormat};
use problem::Problem;
use publisher::{Publisher, Refusal};
use server::Server;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use submission::Submission;
use tenants::Tokens;
use tls::Tls;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use workers::Directory;

/// How often tokens and certificates are looked at for changes.
const RELOAD_LOOK: Duration = Duration::from_secs(5);
/// Threads of the runtime: the work is short, and decoding has threads of its own.
const RUNTIME_THREADS: usize = 2;

/// What all routes share.
pub(crate) struct Gateway {
    names: TopicNames,
    slots: u32,
    framing: Framing,
    body_limit: usize,
    bodies: Bodies,
    board: Arc<Board>,
    letters: Arc<DeadLetters>,
    workers: Arc<Directory>,
    lookups: Arc<Lookups>,
    publisher: Publisher,
    pulses: Vec<Arc<Pulse>>,
    tokens: RwLock<Option<Arc<Tokens>>>,
    limit: Mutex<RateLimit>,
    metrics: Metrics,
    draining: watch::Receiver<bool>,
}

/// Runs until SIGTERM or SIGINT and a drain.
pub(crate) fn run(settings: &Settings, options: &GatewayOptions) -> Outcome {
    let drain = options.check()?;
    start_logs(options.log_format);
    let tls = match (&options.tls_cert, &options.tls_key) {
        (Some(certificate), Some(key)) => Some(Arc::new(Tls::new(certificate, key)?)),
        _ => None,
    };
    let tokens = match &options.tokens_file {
        Some(path) => Some(Arc::new(Tokens::read(path)?)),
        None => None,
    };
    if tokens.is_none() && !options.listen.ip().is_loopback() {
        tracing::warn!("no tokens file: everybody who reaches this address may publish and read");
    }
    let (stop, draining) = watch::channel(false);
    let gateway = Arc::new(Gateway::start(settings, options, tokens, draining.clone())?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(serve(&gateway, options, tls, drain, stop));
    for pulse in &gateway.pulses {
        pulse.stop();
    }
    // Look-ups in blocking threads end by their own bound; nobody waits for them any more.
    runtime.shutdown_background();
    outcome
}

async fn serve(
    gateway: &Arc<Gateway>,
    options: &GatewayOptions,
    tls: Option<Arc<Tls>>,
    drain: Duration,
    stop: watch::Sender<bool>,
) -> Outcome {
    let listener = tokio::net::TcpListener::bind(options.listen)
        .await
        .map_err(|error| Failure::error(format!("cannot listen on {}: {error}", options.listen)))?;
    let address = listener.local_addr()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    tracing::info!(url = %format_args!("{scheme}://{address}"), slots = gateway.slots, "gateway listens");
    let mut ends = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    ];
    tokio::spawn(reload(gateway.clone(), options.clone(), tls.clone()));
    let server = Server {
        listener,
        tls,
        router: routes::router(gateway.clone()),
        connections_max: usize::try_from(options.max_connections).unwrap_or(usize::MAX),
        connections: gateway.metrics.connections.clone(),
        drain,
    };
    let mut serving = tokio::spawn(server.run(gateway.draining.clone()));
    let [terminate, interrupt] = &mut ends;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = &mut serving => return ended.map_err(Failure::error),
    }
    stop.send_replace(true);
    tokio::select! {
        ended = serving => ended.map_err(Failure::error),
        _ = terminate.recv() => Err(Failure::error("a second signal: open requests were left")),
        _ = interrupt.recv() => Err(Failure::error("a second signal: open requests were left")),
    }
}

/// Reads tokens and certificates again when their files change. What cannot be read changes nothing.
async fn reload(gateway: Arc<Gateway>, options: GatewayOptions, tls: Option<Arc<Tls>>) {
    let look = |gateway: &Gateway| {
        let tokens = gateway.tokens().and(options.tokens_file.as_deref());
        (
            tokens.and_then(tls::modified),
            tls.as_ref().map(|tls| tls.changed()),
        )
    };
    let mut seen = look(&gateway);
    loop {
        tokio::time::sleep(RELOAD_LOOK).await;
        let now = look(&gateway);
        if now.0 != seen.0
            && let Some(path) = &options.tokens_file
        {
            match Tokens::read(path) {
                Ok(tokens) => {
                    tracing::info!(?tokens, "tokens read again");
                    *gateway
                        .tokens
                        .write()
                        .unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(tokens));
                }
                Err(error) => tracing::warn!(error = error.message, "the old tokens stay"),
            }
        }
        if now.1 != seen.1
            && let Some(tls) = &tls
        {
            match tls.reload() {
                Ok(()) => tracing::info!("certificate read again"),
                Err(error) => tracing::warn!(error = error.message, "the old certificate stays"),
            }
        }
        seen = now;
    }
}

fn start_logs(format: LogFormat) {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("GUESTKIT_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,hyper=warn,reqwest=warn"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Colours are for people: a file or a collector gets plain text.
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
}

impl Gateway {
    /// Asks the cluster for the topics and starts all threads.
    fn start(
        settings: &Settings,
        options: &GatewayOptions,
        tokens: Option<Arc<Tokens>>,
        draining: watch::Receiver<bool>,
    ) -> Outcome<Self> {
        let connection = settings.connection()?;
        let names = settings.names.clone();
        let cluster = cluster(&connection, settings.question())?;
        let slots = cluster.partitions(&names.ledger)?;
        let jobs = cluster.partitions(&names.jobs)?;
        if jobs < slots {
            return Err(Failure::usage(format!(
                "topic {} has {jobs} partitions, its ledger {slots}: see `guestkit-jobs topics check`",
                names.jobs
            )));
        }
        let board = Arc::new(Board::new(
            usize::try_from(options.recent_jobs).unwrap_or(usize::MAX),
        ));
        let letters = Arc::new(DeadLetters::default());
        let workers = Arc::new(Directory::default());
        let recent = Some(options.recent_jobs);
        let few = u32::try_from(LETTERS_MAX).ok();
        let mut pulses = Vec::new();
        for (topic, recent, sink) in [
            (&names.jobs, recent, jobs_sink(board.clone())),
            (&names.results, recent, results_sink(board.clone())),
            (&names.progress, recent, progress_sink(board.clone())),
            (&names.dead_letters, few, letters_sink(letters.clone())),
            (&names.workers, None, workers_sink(workers.clone())),
        ] {
            cluster.partitions(topic)?;
            pulses.push(follow::start(settings, &connection, topic, recent, sink)?);
        }
        Ok(Self {
            slots,
            framing: framing::<JobEnvelope>(settings, options.framing, &names.jobs)?,
            body_limit: options.body_limit,
            bodies: Bodies::new(),
            board,
            letters,
            workers,
            lookups: Arc::new(Lookups::new(
                connection.clone(),
                names.clone(),
                slots,
                settings.schemas()?.into(),
            )),
            publisher: Publisher::start(connection)?,
            pulses,
            tokens: RwLock::new(tokens),
            limit: Mutex::new(RateLimit::new(options.rate_limit)),
            metrics: Metrics::new().map_err(Failure::error)?,
            names,
            draining,
        })
    }

    fn tokens(&self) -> Option<Arc<Tokens>> {
        self.tokens
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn count(&self, who: Counted) -> Result<(), u64> {
        self.limit
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .admit(who, uptime())
    }

    fn is_alive(&self) -> bool {
        self.pulses.iter().all(|pulse| pulse.is_alive())
    }

    /// Why it should get no requests; `None`: it may.
    fn unready(&self) -> Option<&'static str> {
        if *self.draining.borrow() {
            Some("draining")
        } else if !self.pulses.iter().all(|pulse| pulse.is_caught_up()) {
            Some("the newest records are not read yet")
        } else if !self.publisher.has_room() {
            Some("too many jobs wait for the brokers")
        } else {
            None
        }
    }

    /// Publishes a job unless it is known. Its status, and whether it was known.
    async fn submit(&self, submission: &Submission) -> Result<(JobStatus, bool), Box<Problem>> {
        let job = &submission.job;
        let key = job.idempotency_key();
        let outcome = |name: &str| self.metrics.jobs.with_label_values(&[name]).inc();
        let (conflict, known) = self.board.read(|index| {
            let entry = index.get(&job.job_id);
            let same_id = entry.and_then(|entry| entry.payload);
            let conflict = match (same_id, index.of_key(key)) {
                (Some(payload), _) if payload != submission.payload => Some(job.job_id.clone()),
                (_, Some((other, payload))) if payload != submission.payload => {
                    Some(other.to_owned())
                }
                _ => None,
            };
            (
                conflict,
                entry.filter(|_| same_id.is_some()).map(Entry::status),
            )
        });
        if let Some(other) = conflict {
            outcome("conflict");
            return Err(Problem::key_conflict(&other));
        }
        if let Some(status) = known {
            outcome("known");
            return Ok((status, true));
        }
        let outgoing = record(job, &self.names.jobs, self.slots, self.framing)
            .map_err(|failure| Problem::too_large(failure.message))?;
        match self.publisher.publish(outgoing).await {
            Ok(_) => {
                outcome("published");
                let now = clock::now().as_millis();
                self.board.job(job, submission.payload, now);
                Ok((JobStatus::Pending, false))
            }
            Err(refusal) => {
                outcome("failed");
                let detail = match refusal {
                    Refusal::Busy => {
                        "too many jobs wait for the brokers; nothing was published".to_owned()
                    }
                    Refusal::Failed(fault) => {
                        tracing::warn!(%fault, job_id = job.job_id, "not published");
                        "the brokers did not confirm the job; send it again with the same idempotency key"
                            .to_owned()
                    }
                };
                Err(Problem::unavailable(detail).with_key(&submission.client_key))
            }
        }
    }

    /// What is known of a job: in memory, else in the topics.
    async fn entry(&self, job_id: &str) -> Result<Option<Entry>, Box<Problem>> {
        if let Some(entry) = self.board.get(job_id) {
            return Ok(Some(entry));
        }
        let found = self.lookups.find(job_id).await;
        let outcome = match &found {
            Ok(Some(_)) => "found",
            Ok(None) => "unknown",
            Err(_) => "failed",
        };
        self.metrics.lookups.with_label_values(&[outcome]).inc();
        found.map_err(lookup_problem)
    }

    /// The result of an entry as JSON text, if it has ended.
    async fn result_text(
        &self,
        job_id: &str,
        entry: &Entry,
    ) -> Result<Option<Arc<str>>, Box<Problem>> {
        let Some(ending) = &entry.ending else {
            return Ok(None);
        };
        if let Some(text) = &ending.text {
            return Ok(Some(text.clone()));
        }
        let text = self.lookups.result_at(job_id, ending.place).await;
        Ok(text.map_err(lookup_problem)?.map(Into::into))
    }
}

fn lookup_problem(failed: Failed) -> Box<Problem> {
    Problem::unavailable(match failed {
        Failed::Busy => "too many look-ups at a time".to_owned(),
        Failed::OutOfTime => "the look-up took too long".to_owned(),
        Failed::Fault(fault) => {
            tracing::warn!(%fault, "look-up");
            "the cluster does not answer".to_owned()
        }
    })
}

/// The record's time: the broker's, or ours where it has none.
fn time(at: Option<i64>) -> i64 {
    at.unwrap_or_else(|| clock::now().as_millis())
}

fn jobs_sink(board: Arc<Board>) -> follow::Sink {
    Box::new(move |record, schemas| {
        let Some(value) = record.value.as_deref() else {
            return;
        };
        match decode_job(value, schemas) {
            Ok(job) => {
                if let Ok(payload) = job.payload_hash() {
                    board.job(&job, payload, time(record.timestamp_ms));
                }
            }
            Err(DecodeError::Temporary(error)) => tracing::warn!(%error, "decode a job"),
            // The workers dead-letter it.
            Err(error) => tracing::debug!(%error, "decode a job"),
        }
    })
}

fn results_sink(board: Arc<Board>) -> follow::Sink {
    Box::new(move |record, schemas| {
        let Some(result) = document::<JobResult>(&record, schemas) else {
            return;
        };
        if let Ok(text) = serde_json::to_string(&result) {
            let place = Place {
                partition: record.partition,
                offset: record.offset,
            };
            board.result(&result, text, place, time(record.timestamp_ms));
        }
    })
}

fn progress_sink(board: Arc<Board>) -> follow::Sink {
    Box::new(move |record, schemas| {
        if let Some(event) = document::<JobProgress>(&record, schemas) {
            board.progress(event, time(record.timestamp_ms));
        }
    })
}

fn letters_sink(letters: Arc<DeadLetters>) -> follow::Sink {
    Box::new(move |record, _| letters.add(DeadLetter::of(&record)))
}

fn workers_sink(workers: Arc<Directory>) -> follow::Sink {
    Box::new(move |record, schemas| {
        let key = record.key.clone().unwrap_or_default();
        if record.value.is_none() {
            workers.update(key, None);
        } else if let Some(worker) = document::<WorkerAdvertisement>(&record, schemas) {
            let seen = record
                .timestamp_ms
                .map_or(worker.status.last_heartbeat, Timestamp::from_millis);
            workers.update(key, Some((worker, seen)));
        }
    })
}
