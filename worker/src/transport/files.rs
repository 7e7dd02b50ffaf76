//! The file transport: the same engine over two directories, without Kafka.
//!
//! One process a directory. State is an append-only log beneath the results directory; the entry of
//! a transaction holds its whole results and *is* the commit. Result files and the moves of job
//! files are made from it after, and made again at start: kill -9 at any point leaves exactly one
//! result per key.

use super::log::{Log, LogError};
use super::spool::{JOB_BYTES_MAX, JobFile, Move, Spool, named};
use crate::capabilities;
use crate::clock::now_ms;
use crate::codec::{self, Codec, Framings};
use crate::config::Config;
use crate::engine::events::LedgerAnswer;
use crate::engine::index::{HashSeed, KeyHash};
use crate::engine::keys::ExecId;
use crate::engine::ledger::{LedgerKind, Restoration};
use crate::engine::outcome::Outcome;
use crate::engine::record::{Content, Invalid, RawRecord, Record};
use crate::engine::transaction::{Decision, Epoch, Transaction, TxOutcome};
use crate::engine::{Action, Config as EngineConfig, Engine, Event, Restored, WINDOW_MAX};
use crate::executor::{Executor, Reports, Task};
use crate::handlers::{Progress, Settings};
use crate::results::Artifacts;
use guestkit_protocol::{LedgerEntry, NoRegistry, error_code};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::watch;

/// The only partition.
const PARTITION: u32 = 0;
const EPOCH: Epoch = 1;
/// How often the jobs directory is looked at.
const SCAN: Duration = Duration::from_millis(100);
/// Answers of one entry are numbered below this in a ledger offset.
const ANSWERS_MAX: i64 = 1 << 16;

/// One entry of the log.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Entry {
    /// Offset that the next job file gets.
    #[serde(default)]
    next_offset: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    done: Vec<DoneLine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    results: Vec<ResultLine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    moves: Vec<Move>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<LedgerEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct DoneLine {
    /// Ledger record key, in hex: it may begin with a zero byte.
    key: String,
    entry: LedgerEntry,
}

#[derive(Debug, Serialize, Deserialize)]
struct ResultLine {
    job_id: String,
    document: Box<serde_json::value::RawValue>,
}

/// Why the file transport stopped.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A directory or file that cannot be used.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The log cannot be used.
    #[error("{0}")]
    Log(String),
    /// Somebody else works here.
    #[error("{0} is in use by another worker: one process a directory")]
    InUse(String),
}

impl From<LogError> for FilesError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Io(error) => Self::Io(error),
            other => Self::Log(other.to_string()),
        }
    }
}

struct Sink(mpsc::Sender<Event>);

impl Reports for Sink {
    fn ended(&self, exec: ExecId, outcome: Outcome) {
        if self.0.send(Event::Ended { exec, outcome }).is_err() {
            tracing::debug!(exec, "the engine is gone; an outcome has no taker");
        }
    }

    fn progress(&self, task: &Task, progress: Progress) {
        tracing::info!(
            job_id = %task.job.job_id,
            phase = progress.phase,
            percent = progress.percent,
            message = progress.message,
            "progress"
        );
    }
}

struct FileWorker {
    engine: Engine,
    codec: Codec,
    executor: Executor,
    events: mpsc::Sender<Event>,
    incoming: mpsc::Receiver<Event>,
    log: Log,
    spool: Spool,
    seed: HashSeed,
    /// Job files that are being worked on, by offset.
    files: BTreeMap<i64, (String, String)>,
    next_offset: i64,
    restored: Option<Restored>,
    _lock: File,
}

/// Serves two directories until told to stop.
///
/// # Errors
/// See [`FilesError`].
pub fn run(
    config: &Config,
    jobs_dir: &Path,
    results_dir: &Path,
    stop: &watch::Receiver<bool>,
) -> Result<(), FilesError> {
    let mut worker = FileWorker::open(config, jobs_dir, results_dir)?;
    worker.act(Event::Assigned {
        partition: PARTITION,
        epoch: EPOCH,
    })?;
    while !*stop.borrow() {
        worker.step(true)?;
    }
    worker.act(Event::Drain)?;
    let deadline = now_ms() + i64::try_from(config.drain_timeout.as_millis()).unwrap_or(i64::MAX);
    while now_ms() < deadline && !worker.engine.is_quiet() {
        worker.step(false)?;
    }
    worker.executor.close();
    Ok(())
}

impl FileWorker {
    fn open(config: &Config, jobs_dir: &Path, results_dir: &Path) -> Result<Self, FilesError> {
        let spool = Spool::open(jobs_dir, results_dir)?;
        let state = results_dir.join(".guestkit");
        std::fs::create_dir_all(&state).map_err(|error| named(&state, error))?;
        let lock = File::create(state.join("lock"))?;
        if lock.try_lock().is_err() {
            return Err(FilesError::InUse(results_dir.display().to_string()));
        }
        let worker_id: Arc<str> = config.worker_id.as_deref().unwrap_or("files").into();
        let incarnation: Arc<str> = format!("{worker_id}-{:08x}", rand::random::<u32>()).into();
        let settings = Arc::new(Settings {
            worker_id: worker_id.clone(),
            disk_roots: config.disk_roots.clone(),
            isolation: config.isolation.clone(),
            allow_test_faults: config.allow_test_faults,
            concurrency: config.concurrency,
            pool: config.pool.clone(),
        });
        let seed = HashSeed(rand::random(), rand::random());
        let mut restoration = Restoration::default();
        let mut next_offset = 0;
        let mut last = None;
        let log = Log::open(&state.join("log"), |position, entry: Entry| {
            for (n, line) in entry.done.iter().enumerate() {
                let key = hex::decode(&line.key).unwrap_or_default();
                restoration.feed(seed, place(position, n), &key, LedgerKind::Done, Some(&[]));
            }
            if entry.mark.is_none() {
                next_offset = entry.next_offset;
                last = Some(entry);
            }
        })?;
        let (index, rejected) = restoration.into_index();
        let (events, incoming) = mpsc::channel();
        let executor = Executor::start(
            settings.clone(),
            incarnation.clone(),
            Artifacts::new(config.artifact_dir.clone(), &incarnation),
            &Arc::new(Sink(events.clone())),
        )?;
        let worker = Self {
            engine: Engine::new(EngineConfig {
                slots: 1,
                incarnation: incarnation.clone(),
                transactional_id: incarnation,
                results_topic: results_dir.to_string_lossy().into(),
                concurrency: config.concurrency,
                seed,
                window_max: WINDOW_MAX,
                admission: capabilities::admission(&settings),
            }),
            codec: Codec::new(worker_id, Framings::default(), now_ms),
            executor,
            events,
            incoming,
            log,
            spool,
            seed,
            files: BTreeMap::new(),
            next_offset,
            restored: Some(Restored {
                partition: PARTITION,
                epoch: EPOCH,
                committed: Some(next_offset),
                log_start: 0,
                slot: None,
                index,
                rejected,
            }),
            _lock: lock,
        };
        // Only the last transaction can have been cut short behind its commit.
        if let Some(entry) = last {
            worker.publish(&entry)?;
        }
        Ok(worker)
    }

    fn step(&mut self, take_new: bool) -> Result<(), FilesError> {
        let event = match self.incoming.recv_timeout(SCAN) {
            Ok(event) => event,
            Err(_) => Event::Tick,
        };
        self.act(event)?;
        while let Ok(event) = self.incoming.try_recv() {
            self.act(event)?;
        }
        if take_new {
            self.take_new()?;
        }
        Ok(())
    }

    fn take_new(&mut self) -> Result<(), FilesError> {
        if self.engine.waiting() >= WINDOW_MAX {
            return Ok(());
        }
        let files = &self.files;
        let found = self.spool.scan(now_ms(), |name| {
            files.values().any(|(known, _)| known == name)
        })?;
        let mut records = Vec::new();
        for file in found {
            let offset = self.next_offset;
            self.next_offset += 1;
            records.push(record(offset, &file));
            self.files.insert(offset, (file.name, file.sha256));
        }
        if records.is_empty() {
            return Ok(());
        }
        self.act(Event::Records {
            partition: PARTITION,
            epoch: EPOCH,
            records,
        })
    }

    fn act(&mut self, event: Event) -> Result<(), FilesError> {
        for action in self.engine.apply(event, now_ms()) {
            self.execute(action)?;
        }
        Ok(())
    }

    fn tell(&self, event: Event) {
        if self.events.send(event).is_err() {
            tracing::error!("the engine's queue is gone");
        }
    }

    fn execute(&mut self, action: Action) -> Result<(), FilesError> {
        match action {
            Action::Restore { .. } => {
                if let Some(restored) = self.restored.take() {
                    self.tell(Event::Restored(Box::new(restored)));
                }
            }
            Action::WriteMark(write) => {
                let entry = Entry {
                    mark: codec::decode_ledger(&self.codec.encode_mark(&write.mark)).ok(),
                    ..Entry::default()
                };
                self.log.append(&entry)?;
                self.tell(Event::MarkAcked {
                    partition: write.partition,
                    epoch: write.epoch,
                    number: write.number,
                });
            }
            Action::Start {
                exec,
                job,
                attempt,
                run,
            } => self.executor.submit(Task {
                exec,
                job,
                attempt,
                run,
            }),
            Action::Stop { exec } => self.executor.stop(exec),
            Action::ReadLedger { lookups, .. } => self.look_up(&lookups)?,
            Action::Commit(transaction) => self.commit(&transaction)?,
            // There is no group that could take the partition away, and the window holds all files.
            Action::Consume { .. }
            | Action::Pause { .. }
            | Action::Resume { .. }
            | Action::Released { .. } => {}
        }
        Ok(())
    }

    fn look_up(&self, lookups: &[(KeyHash, i64)]) -> Result<(), FilesError> {
        let mut found = Vec::new();
        for (hash, offset) in lookups {
            let (position, n) = (offset / ANSWERS_MAX, offset % ANSWERS_MAX);
            let entry: Option<Entry> = self.log.read(u64::try_from(position).unwrap_or(0))?;
            let line =
                entry.and_then(|entry| entry.done.into_iter().nth(usize::try_from(n).unwrap_or(0)));
            let answer = line.and_then(|line| {
                let key = hex::decode(&line.key).ok()?;
                let done = codec::own_done(line.entry).ok()?;
                (self.seed.hash(&key) == *hash).then_some(LedgerAnswer { key, done })
            });
            found.push((*hash, answer));
        }
        self.tell(Event::LedgerRead {
            partition: PARTITION,
            epoch: EPOCH,
            found,
        });
        Ok(())
    }

    /// Appends the transaction as one entry, which is the commit; then makes it visible.
    fn commit(&mut self, transaction: &Transaction) -> Result<(), FilesError> {
        let mut entry = Entry {
            next_offset: self.next_offset,
            ..Entry::default()
        };
        for part in &transaction.partitions {
            for (key, done) in &part.done {
                let value = self.codec.encode_done(done);
                let ledger = codec::decode_ledger(&value).map_err(FilesError::Log)?;
                entry.done.push(DoneLine {
                    key: hex::encode(key),
                    entry: ledger,
                });
            }
            for (offset, decision) in part.decisions.iter() {
                self.add(&mut entry, *offset, decision)?;
            }
        }
        let position = self.log.append(&entry)?;
        self.publish(&entry)?;
        for part in &transaction.partitions {
            for (offset, _) in part.decisions.iter() {
                self.files.remove(offset);
            }
        }
        let offsets = (0..entry.done.len()).map(|n| place(position, n)).collect();
        self.tell(Event::TxEnded {
            id: transaction.id,
            outcome: TxOutcome::Committed {
                ledger_offsets: vec![offsets],
            },
        });
        Ok(())
    }

    fn add(&self, entry: &mut Entry, offset: i64, decision: &Decision) -> Result<(), FilesError> {
        let (result, reason) = match decision {
            Decision::Drop | Decision::Forward(..) => (None, None),
            Decision::Answer(result) => (Some(result), None),
            Decision::DeadLetter(letter) => (None, Some(letter)),
            Decision::Reject(letter, result) => (Some(result), Some(letter)),
        };
        if let Some(result) = result {
            let document = self.codec.result(result, PARTITION, now_ms());
            let document = serde_json::value::to_raw_value(&document)
                .map_err(|error| FilesError::Log(error.to_string()))?;
            entry.results.push(ResultLine {
                job_id: result.job_id().to_string(),
                document,
            });
        }
        if let Some((file, sha256)) = self.files.get(&offset) {
            entry.moves.push(Move {
                file: file.clone(),
                sha256: sha256.clone(),
                reason: reason.map(|letter| format!("{}: {}", letter.reason, letter.message)),
            });
        }
        Ok(())
    }

    fn publish(&self, entry: &Entry) -> Result<(), FilesError> {
        for result in &entry.results {
            self.spool
                .write_result(&result.job_id, result.document.get())?;
        }
        for to in &entry.moves {
            self.spool.settle(to)?;
        }
        Ok(())
    }
}

fn place(position: u64, n: usize) -> i64 {
    let position = i64::try_from(position).unwrap_or(i64::MAX / ANSWERS_MAX - 1);
    position * ANSWERS_MAX + i64::try_from(n).unwrap_or(0)
}

fn record(offset: i64, file: &JobFile) -> Record {
    let raw = RawRecord {
        key: None,
        value: Some(file.bytes.clone()),
        headers: Vec::new(),
        timestamp: now_ms(),
    };
    let too_large = file.bytes.len() as u64 > JOB_BYTES_MAX;
    let content = if too_large {
        Err(format!(
            "the file has more than {JOB_BYTES_MAX} bytes: a job is at most 1 MiB"
        ))
    } else {
        codec::decode_record(&raw, None, &NoRegistry)
            .map_err(|fault| format!("{fault}: a job file holds json"))
    };
    let content = content.unwrap_or_else(|message| {
        Content::Invalid(Arc::new(Invalid {
            code: error_code::INVALID_JOB,
            message,
            job_id: None,
            key: None,
            operation: None,
        }))
    });
    Record {
        offset,
        raw: Arc::new(raw),
        content,
    }
}
