//! The Kafka transport: threads around the engine, and the loop that joins them.
//!
//! One task owns the engine: it waits for events, applies them, executes the actions. Whatever
//! takes time has a thread of its own and answers by an event; the loop itself never waits for one
//! of them, except to hand a transaction to the writer, of which there is one at a time.

use crate::broker::fetcher::{Fetcher, FetcherParts, Load, Order};
use crate::broker::ledger_reader::{LedgerReader, RestoreError};
use crate::broker::log_ends::{self, LogEnds};
use crate::broker::member::{Events, Member};
use crate::broker::ownership::Ownership;
use crate::broker::plain::Plain;
use crate::broker::writer::Writer;
use crate::broker::{BrokerError, Topics};
use crate::clock::now_ms;
use crate::codec::Codec;
use crate::engine::events::RestoreFailure;
use crate::engine::index::{HashSeed, KeyHash};
use crate::engine::keys::ExecId;
use crate::engine::outcome::Outcome;
use crate::engine::transaction::{Epoch, PartitionCommit, Resolution, Transaction, TxOutcome};
use crate::engine::{Action, Admission, Config, Engine, Event, WINDOW_MAX};
use crate::executor::{Executor, Reports, Task};
use crate::handlers::{Progress, Settings};
use crate::health::Heart;
use crate::registration::{self, Registration};
use crate::results::Artifacts;
use crate::spans::{self, JobSpans};
use crate::status::{Status, Surroundings};
use crate::throttle::Throttle;
use guestkit_protocol::{JobProgress, SchemaSource, Timestamp};
use rdkafka::ClientConfig;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::Duration;
use tokio::sync::mpsc as queue;

/// Events on their way to the engine. Each is a batch of records or one answer; full means that
/// the fetch thread waits, not that memory grows.
const EVENTS_MAX: usize = 4_096;
/// Events applied before the actions are executed.
const STEP_MAX: usize = 512;
/// Longest time without a look at the clock.
const TICK: Duration = Duration::from_millis(200);
/// Slots restored at the same time: each takes two connections.
const RESTORERS: usize = 2;
/// Pause before a restore or look-up that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How often the writer's client is served while there is nothing to commit.
const IDLE: Duration = Duration::from_secs(1);
/// How often the status page is brought up to date.
const STATUS_MS: i64 = 250;

/// Everything a Kafka worker is made of, resolved and checked.
pub struct Setup {
    /// Connection, with `group.id` and the user's properties.
    pub connection: ClientConfig,
    /// Topics.
    pub topics: Topics,
    /// This process' `transactional.id`.
    pub transactional_id: Arc<str>,
    /// Worker id and a random number.
    pub incarnation: Arc<str>,
    /// Secret of the key hashes.
    pub seed: HashSeed,
    /// Codec.
    pub codec: Codec,
    /// Writer schemas.
    pub schemas: Arc<dyn SchemaSource>,
    /// Who may run here.
    pub admission: Admission,
    /// For handlers.
    pub settings: Settings,
    /// For large results.
    pub artifacts: Artifacts,
    /// How long a drain waits for what runs.
    pub drain_timeout: Duration,
    /// What health checks and people read.
    pub status: Arc<Status>,
    /// What the worker directory is told, if there is one.
    pub registration: Option<registration::Parts>,
    /// Spans of jobs, where they are exported.
    pub spans: Option<Arc<JobSpans>>,
}

struct Sink {
    events: Events,
    plain: Arc<Plain>,
    codec: Arc<Codec>,
    slots: u32,
    worker_id: Arc<str>,
    throttles: Mutex<BTreeMap<ExecId, Throttle>>,
    status: Arc<Status>,
    spans: Option<Arc<JobSpans>>,
}

impl Reports for Sink {
    fn ran(&self, task: &Task, outcome: &Outcome) {
        self.status.metrics().jobs.ran(&task.job, outcome);
    }

    fn ended(&self, exec: ExecId, outcome: Outcome) {
        self.throttles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&exec);
        if let Some(spans) = &self.spans {
            spans.ended(exec, &outcome);
        }
        if self
            .events
            .blocking_send(Event::Ended { exec, outcome })
            .is_err()
        {
            tracing::debug!(exec, "the engine is gone; an outcome has no taker");
        }
    }

    fn progress(&self, task: &Task, progress: Progress) {
        let now = now_ms();
        if let Some(spans) = &self.spans {
            spans.section(task.exec, &progress.phase, now);
        }
        let admitted = self
            .throttles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(task.exec)
            .or_default()
            .admit(&progress, now);
        let Some(sequence) = admitted else {
            return;
        };
        let job = &task.job;
        let mut event = JobProgress::new(
            job.job_id.to_string(),
            Timestamp::from_millis(now),
            sequence,
            progress.phase,
        );
        event.attempt = task.attempt;
        event.run = task.run;
        event.progress_percent = progress.percent;
        event.message = progress.message;
        event.observability = crate::codec::observability(job);
        event.worker_id = Some(self.worker_id.to_string());
        let slot = guestkit_protocol::slot_of(&job.key, self.slots);
        match self
            .codec
            .encode_progress(&event, job.traceparent.as_deref())
        {
            Ok(encoded) => self.plain.write_progress(slot, &job.job_id, &encoded),
            Err(error) => tracing::debug!(job_id = %job.job_id, %error, "progress not encoded"),
        }
    }
}

/// A queue of restores, shared by the restore threads.
#[derive(Default)]
struct Restores {
    waiting: Mutex<Vec<(u32, Epoch)>>,
    changed: Condvar,
    closed: AtomicBool,
}

impl Restores {
    fn push(&self, partition: u32, epoch: Epoch) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push((partition, epoch));
        self.changed.notify_one();
    }

    fn next(&self) -> Option<(u32, Epoch)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.closed.load(Ordering::Acquire) {
                return None;
            }
            if let Some(next) = waiting.pop() {
                return Some(next);
            }
            waiting = self
                .changed
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.changed.notify_all();
    }
}

/// A running Kafka worker.
pub struct KafkaWorker {
    engine: Engine,
    events: Events,
    incoming: queue::Receiver<Event>,
    /// Answers that were there at once; for the next step.
    deferred: Vec<Event>,
    member: Arc<Member>,
    fetcher: Fetcher,
    plain: Arc<Plain>,
    executor: Executor,
    transactions: mpsc::Sender<Box<Transaction>>,
    lookups: mpsc::Sender<Lookup>,
    restores: Arc<Restores>,
    load: Arc<Load>,
    status: Arc<Status>,
    status_at: i64,
    observed: Observed,
    drain_timeout: Duration,
    registration: Option<Registration>,
    spans: Option<Arc<JobSpans>>,
}

impl KafkaWorker {
    /// Starts all threads and joins the group.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration or the system gives no thread.
    pub fn start(setup: Setup) -> anyhow::Result<Self> {
        let (events, incoming) = queue::channel(EVENTS_MAX);
        let topics = Arc::new(setup.topics);
        let codec = Arc::new(setup.codec);
        let load = Arc::new(Load::default());
        let settings = Arc::new(setup.settings);
        let plain = Arc::new(Plain::new(
            &setup.connection,
            topics.clone(),
            codec.clone(),
            events.clone(),
        )?);
        let sink = Arc::new(Sink {
            events: events.clone(),
            plain: plain.clone(),
            codec: codec.clone(),
            slots: topics.slots,
            worker_id: settings.worker_id.clone(),
            throttles: Mutex::new(BTreeMap::new()),
            status: setup.status.clone(),
            spans: setup.spans.clone(),
        });
        let executor = Executor::start(
            settings.clone(),
            setup.incarnation.clone(),
            setup.artifacts,
            &sink,
        )?;
        let engine = Engine::new(Config {
            slots: topics.slots,
            incarnation: setup.incarnation,
            transactional_id: setup.transactional_id.clone(),
            results_topic: topics.results.as_str().into(),
            concurrency: settings.concurrency,
            seed: setup.seed,
            window_max: WINDOW_MAX,
            admission: setup.admission,
        });
        let ownership = Arc::new(Ownership::default());
        let reader = || {
            LedgerReader::new(
                &setup.connection,
                topics.clone(),
                setup.seed,
                setup.transactional_id.clone(),
            )
        };
        let restores = Arc::new(Restores::default());
        for n in 0..RESTORERS {
            restore_thread(
                n,
                reader()?,
                restores.clone(),
                ownership.clone(),
                events.clone(),
                setup.status.clone(),
            )?;
        }
        let lookups = lookup_thread(reader()?, ownership.clone(), events.clone())?;
        let fetcher = Fetcher::start(FetcherParts {
            connection: setup.connection.clone(),
            topics: topics.clone(),
            pool: settings.pool.clone(),
            schemas: setup.schemas,
            events: events.clone(),
            load: load.clone(),
            spans: setup.spans.clone(),
            now: now_ms,
        })?;
        let permits = settings.concurrency;
        let registration = setup
            .registration
            .map(|parts| Registration::start(parts, permits, plain.clone(), codec.clone()))
            .transpose()?;
        let writer = Writer::new(
            &setup.connection,
            &setup.transactional_id,
            topics.clone(),
            codec,
        );
        let clients = &setup.status.metrics().clients;
        clients.watch("writer", writer.figures());
        let (jobs, owned) = (&topics.jobs, ownership.clone());
        let member = Member::join(&setup.connection, jobs, ownership, events.clone())?;
        let observed = Observed::start(
            &setup.connection,
            jobs,
            owned,
            &fetcher,
            settings.concurrency,
        )?;
        let transactions = writer_thread(
            writer,
            reader()?,
            member.clone(),
            events.clone(),
            setup.status.clone(),
            setup.spans.clone(),
        )?;
        clients.watch("member", member.figures());
        clients.watch("fetcher", fetcher.figures());
        clients.watch("plain", plain.figures());
        let health = setup.status.health();
        health.watch("engine", observed.heart.clone());
        health.watch("member", member.heart());
        health.watch("fetch", fetcher.heart());
        Ok(Self {
            engine,
            events,
            incoming,
            deferred: Vec::new(),
            member,
            fetcher,
            plain,
            executor,
            transactions,
            lookups,
            restores,
            load,
            status: setup.status,
            status_at: 0,
            observed,
            drain_timeout: setup.drain_timeout,
            registration,
            spans: setup.spans,
        })
    }

    /// Runs until `stop` is told, then drains and leaves the group.
    pub async fn run(mut self, mut stop: tokio::sync::watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = self.step() => {}
                changed = stop.changed() => {
                    if changed.is_err() || *stop.borrow() {
                        break;
                    }
                }
            }
        }
        self.drain().await;
    }

    /// One round: wait for events, apply them, execute the actions.
    async fn step(&mut self) {
        let now = now_ms();
        let wake = self
            .engine
            .next_wake(now)
            .and_then(|at| u64::try_from(at - now).ok())
            .map_or(TICK, |ms| Duration::from_millis(ms.max(1)).min(TICK));
        let wake = if self.deferred.is_empty() {
            wake
        } else {
            Duration::ZERO
        };
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            _ = self.incoming.recv_many(&mut batch, STEP_MAX) => {}
            () = tokio::time::sleep(wake) => batch.push(Event::Tick),
        }
        // Only now: this future may be dropped while it waits.
        batch.append(&mut self.deferred);
        let lost: Vec<(u32, Epoch)> = batch
            .iter()
            .filter_map(|event| match event {
                Event::Lost { partition, epoch } => Some((*partition, *epoch)),
                _ => None,
            })
            .collect();
        let actions = self.engine.apply_all(batch, now_ms());
        for (partition, epoch) in lost {
            self.fetcher.order(Order::Drop(partition, epoch));
        }
        for action in actions {
            self.execute(action);
        }
        self.report();
    }

    fn execute(&mut self, action: Action) {
        match action {
            Action::Restore { partition, epoch } => {
                let restores = &self.status.metrics().restores;
                restores.begun(partition, epoch, now_ms());
                self.restores.push(partition, epoch);
            }
            Action::Consume {
                partition,
                epoch,
                offset,
            } => {
                tracing::info!(partition, offset, "slot restored");
                self.fetcher.order(Order::Consume {
                    partition,
                    epoch,
                    offset,
                });
            }
            Action::Pause { partition, epoch } => {
                self.fetcher.order(Order::Pause(partition, epoch))
            }
            Action::Resume { partition, epoch } => {
                self.fetcher.order(Order::Resume(partition, epoch));
            }
            Action::WriteMark(write) => {
                self.deferred.extend(self.plain.write_mark(&write));
            }
            Action::Start {
                exec,
                job,
                attempt,
                run,
            } => {
                if let Some(spans) = &self.spans {
                    spans.started(exec, &job, attempt, run);
                }
                self.executor.submit(Task {
                    exec,
                    job,
                    attempt,
                    run,
                });
            }
            Action::Stop { exec } => self.executor.stop(exec),
            Action::ReadLedger {
                partition,
                epoch,
                lookups,
            } => {
                if self.lookups.send((partition, epoch, lookups)).is_err() {
                    tracing::error!("the look-up thread is gone");
                }
            }
            Action::Commit(transaction) => {
                if self.transactions.send(transaction).is_err() {
                    tracing::error!("the writer thread is gone");
                }
            }
            Action::Released { partition, epoch } => self.member.releases().tell(partition, epoch),
        }
    }

    fn report(&mut self) {
        self.load
            .waiting
            .store(self.engine.waiting(), Ordering::Relaxed);
        self.load
            .held_bytes
            .store(self.engine.held_bytes(), Ordering::Relaxed);
        self.observed.heart.beat();
        let now = now_ms();
        if let Some(registration) = &mut self.registration {
            let engine = &self.engine;
            registration.beat(now, engine.running(), || engine.running_jobs());
        }
        if now - self.status_at >= STATUS_MS {
            self.status_at = now;
            let around = Surroundings {
                permits: self.observed.permits,
                rebalances: self.member.rebalances(),
                progress_lost: self.plain.progress_lost(),
                schema_waits: self.fetcher.schema_waits(),
                log_ends: &self.observed.log_ends,
            };
            self.status.update(now, &self.engine, around);
        }
    }

    /// Claims nothing new, waits for what runs, leaves the group at once.
    async fn drain(&mut self) {
        self.status.drain();
        if let Some(registration) = &mut self.registration {
            registration.drain();
        }
        tracing::info!(running = self.engine.running(), "draining");
        let deadline = now_ms() + i64::try_from(self.drain_timeout.as_millis()).unwrap_or(i64::MAX);
        self.apply(Event::Drain);
        while now_ms() < deadline && !self.engine.is_quiet() {
            self.step().await;
        }
        let member = self.member.clone();
        let left = Arc::new(AtomicBool::new(false));
        let leaving = {
            let left = left.clone();
            std::thread::spawn(move || {
                member.leave();
                left.store(true, Ordering::Release);
            })
        };
        // The revoke needs the engine: it goes on until the group is left.
        while !left.load(Ordering::Acquire) {
            self.step().await;
        }
        if leaving.join().is_err() {
            tracing::error!("leaving the group panicked");
        }
        self.restores.close();
        self.executor.close();
        self.incoming.close();
        self.fetcher.stop();
        if let Some(registration) = self.registration.take() {
            registration.leave(now_ms());
        }
        self.plain.flush(Duration::from_secs(2));
        tracing::info!("left the group");
    }

    fn apply(&mut self, event: Event) {
        for action in self.engine.apply(event, now_ms()) {
            self.execute(action);
        }
    }

    /// The engine's queue, for tests that inject events.
    #[must_use]
    pub fn events(&self) -> Events {
        self.events.clone()
    }
}

/// What the status page is made of beside the engine.
struct Observed {
    heart: Arc<Heart>,
    permits: usize,
    log_ends: Arc<LogEnds>,
    /// While it is held, ends are asked for.
    _asking: mpsc::Sender<()>,
}

impl Observed {
    fn start(
        connection: &ClientConfig,
        jobs: &str,
        ownership: Arc<Ownership>,
        fetcher: &Fetcher,
        permits: usize,
    ) -> Result<Self, BrokerError> {
        let log_ends = fetcher.log_ends();
        Ok(Self {
            heart: Arc::default(),
            permits: permits.max(1),
            _asking: log_ends::ask_always(connection, jobs, ownership, log_ends.clone())?,
            log_ends,
        })
    }
}

fn send(events: &Events, event: Event) {
    if events.blocking_send(event).is_err() {
        tracing::debug!("the engine is gone; an answer has no taker");
    }
}

fn restore_thread(
    n: usize,
    reader: LedgerReader,
    restores: Arc<Restores>,
    ownership: Arc<Ownership>,
    events: Events,
    status: Arc<Status>,
) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name(format!("restore-{n}"))
        .spawn(move || {
            while let Some((partition, epoch)) = restores.next() {
                let is_ours = || ownership.epoch(partition) == Some(epoch);
                let observed = &status.metrics().restores;
                match reader.restore(partition, epoch, &is_ours) {
                    Ok(restored) => {
                        observed.done(partition, epoch, now_ms());
                        send(&events, Event::Restored(Box::new(restored)));
                    }
                    Err(RestoreError::Cancelled) => observed.given_up(partition, epoch),
                    Err(RestoreError::Final(reason)) => {
                        observed.given_up(partition, epoch);
                        tracing::error!(partition, reason, "slot starts nothing");
                        let failure = RestoreFailure {
                            partition,
                            epoch,
                            reason,
                        };
                        send(&events, Event::RestoreFailed(failure));
                    }
                    Err(RestoreError::Broker(error)) => {
                        tracing::warn!(partition, %error, "slot not restored; trying again");
                        observed.fault();
                        std::thread::sleep(RETRY);
                        if is_ours() {
                            restores.push(partition, epoch);
                        } else {
                            observed.given_up(partition, epoch);
                        }
                    }
                }
            }
        })
        .map(drop)
}

type Lookup = (u32, Epoch, Vec<(KeyHash, i64)>);

fn lookup_thread(
    reader: LedgerReader,
    ownership: Arc<Ownership>,
    events: Events,
) -> std::io::Result<mpsc::Sender<Lookup>> {
    let (sender, receiver) = mpsc::channel::<Lookup>();
    std::thread::Builder::new()
        .name("ledger-lookup".to_owned())
        .spawn(move || {
            while let Ok((partition, epoch, lookups)) = receiver.recv() {
                while ownership.epoch(partition) == Some(epoch) {
                    match reader.look_up(partition, &lookups) {
                        Ok(found) => {
                            let event = Event::LedgerRead {
                                partition,
                                epoch,
                                found,
                            };
                            send(&events, event);
                            break;
                        }
                        Err(error) => {
                            tracing::warn!(partition, %error, "answers not looked up; trying again");
                            std::thread::sleep(RETRY);
                        }
                    }
                }
            }
        })?;
    Ok(sender)
}

fn writer_thread(
    mut writer: Writer,
    reader: LedgerReader,
    member: Arc<Member>,
    events: Events,
    status: Arc<Status>,
    spans: Option<Arc<JobSpans>>,
) -> std::io::Result<mpsc::Sender<Box<Transaction>>> {
    let (sender, receiver) = mpsc::channel::<Box<Transaction>>();
    std::thread::Builder::new()
        .name("kafka-writer".to_owned())
        .spawn(move || {
            if let Err(error) = writer.open() {
                tracing::warn!(%error, "the writer is not open yet");
            }
            let metrics = status.metrics();
            loop {
                let transaction = match receiver.recv_timeout(IDLE) {
                    Ok(transaction) => transaction,
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        writer.idle();
                        continue;
                    }
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                };
                let id = transaction.id;
                metrics.transactions.begun(now_ms());
                let began = now_ms();
                let trace = |ended: spans::Ended<'_>| {
                    if let Some(spans) = &spans {
                        spans.committed(&transaction, began, now_ms(), &ended);
                    }
                };
                let outcome = writer.commit(&transaction, &member);
                let unknown = matches!(outcome, TxOutcome::Unknown { .. });
                match &outcome {
                    TxOutcome::Committed { .. } => {
                        metrics.jobs.committed(&transaction);
                        trace(spans::Ended::Committed);
                    }
                    TxOutcome::Aborted(reason) => {
                        tracing::info!(id, ?reason, "transaction aborted");
                        trace(spans::Ended::Failed("aborted"));
                    }
                    TxOutcome::Unknown { reason } => {
                        tracing::warn!(id, reason, "transaction outcome unknown; reading back");
                    }
                }
                if !unknown {
                    metrics.transactions.ended(now_ms());
                }
                send(&events, Event::TxEnded { id, outcome });
                if unknown {
                    let resolutions = resolve(&mut writer, &reader, &member, &transaction);
                    log_read_back(&transaction, &resolutions);
                    metrics.jobs.resolved(&transaction, &resolutions);
                    metrics.transactions.ended(now_ms());
                    trace(spans::Ended::ReadBack(&resolutions));
                    send(&events, Event::TxResolved { id, resolutions });
                }
            }
        })?;
    Ok(sender)
}

fn resolve(
    writer: &mut Writer,
    reader: &LedgerReader,
    member: &Member,
    transaction: &Transaction,
) -> Vec<Resolution> {
    loop {
        let is_owned =
            |part: &PartitionCommit| member.ownership().epoch(part.partition) == Some(part.epoch);
        match writer.resolve(transaction, reader, is_owned) {
            Ok(resolutions) => return resolutions,
            Err(error) => {
                report_unresolved(&error);
                std::thread::sleep(RETRY);
            }
        }
    }
}

fn log_read_back(transaction: &Transaction, resolutions: &[Resolution]) {
    let found = |partition| resolutions.iter().find(|r| r.partition == partition);
    // Partitions lost meanwhile are their next owner's affair.
    let applied = transaction.partitions.iter().all(|part| {
        found(part.partition)
            .is_none_or(|found| part.decisions.iter().all(|(at, _)| found.settles(*at)))
    });
    tracing::info!(
        id = transaction.id,
        partitions = resolutions.len(),
        applied,
        "transaction read back"
    );
}

fn report_unresolved(error: &BrokerError) {
    tracing::warn!(%error, "transaction not resolved yet; trying again");
}
