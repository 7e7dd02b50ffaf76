//! Runs handlers on threads of their own.
//!
//! One queue, `concurrency` threads. A thread that takes a job wakes at most one more, so that many
//! tiny jobs keep few threads busy and long ones soon occupy all. A panicking handler is one failed
//! job: its thread goes on.

use crate::clock::now_ms;
use crate::engine::keys::ExecId;
use crate::engine::ledger::FinalStatus;
use crate::engine::outcome::{Failure, Outcome};
use crate::engine::record::Job;
use crate::handlers::{Context, HandlerError, Output, Progress, Registry, Settings, registry};
use crate::results::Artifacts;
use guestkit_protocol::{TraceContext, error_code};
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Stack of a handler thread: parsers recurse, but boundedly.
const STACK_BYTES: usize = 4 << 20;
/// Longest part of a panic's message that a result repeats.
const PANIC_MAX: usize = 1_000;

/// A job to run.
pub struct Task {
    /// Number of the execution.
    pub exec: ExecId,
    /// The job.
    pub job: Arc<Job>,
    /// Attempt, from 1.
    pub attempt: u32,
    /// Run, from 1.
    pub run: u32,
}

/// Where outcomes and progress go.
pub trait Reports: Send + Sync + 'static {
    /// A handler ran; told on its thread, before [`Reports::ended`].
    fn ran(&self, _task: &Task, _outcome: &Outcome) {}
    /// An execution ended.
    fn ended(&self, exec: ExecId, outcome: Outcome);
    /// A handler reported progress.
    fn progress(&self, task: &Task, progress: Progress);
}

struct Queue {
    waiting: VecDeque<Task>,
    running: BTreeMap<ExecId, Arc<AtomicBool>>,
    idle: usize,
    waking: bool,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    handlers: Registry,
    settings: Arc<Settings>,
    incarnation: Arc<str>,
    artifacts: Artifacts,
}

/// The handler threads of a worker.
pub struct Executor {
    shared: Arc<Shared>,
}

impl Executor {
    /// Starts `settings.concurrency` threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start<R: Reports>(
        settings: Arc<Settings>,
        incarnation: Arc<str>,
        artifacts: Artifacts,
        reports: &Arc<R>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                running: BTreeMap::new(),
                idle: 0,
                waking: false,
                closed: false,
            }),
            changed: Condvar::new(),
            handlers: registry(),
            settings: settings.clone(),
            incarnation,
            artifacts,
        });
        for n in 0..settings.concurrency.max(1) {
            let (shared, reports) = (shared.clone(), reports.clone());
            std::thread::Builder::new()
                .name(format!("handler-{n}"))
                .stack_size(STACK_BYTES)
                .spawn(move || work(&shared, &reports))?;
        }
        Ok(Self { shared })
    }

    /// Queues a job. Never waits.
    pub fn submit(&self, task: Task) {
        let mut queue = lock(&self.shared);
        queue.waiting.push_back(task);
        wake_one(&self.shared, &mut queue);
    }

    /// Tells a job to stop.
    pub fn stop(&self, exec: ExecId) {
        let queue = lock(&self.shared);
        if let Some(cancelled) = queue.running.get(&exec) {
            cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Lets the threads go once they are idle; told to stop, what runs ends soon.
    pub fn close(&self) {
        let mut queue = lock(&self.shared);
        queue.closed = true;
        for cancelled in queue.running.values() {
            cancelled.store(true, Ordering::Relaxed);
        }
        self.shared.changed.notify_all();
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Queue> {
    // Handlers run outside the lock, so a panic cannot have torn the queue.
    shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake_one(shared: &Shared, queue: &mut Queue) {
    if queue.idle > 0 && !queue.waking && !queue.waiting.is_empty() {
        queue.waking = true;
        shared.changed.notify_one();
    }
}

fn work<R: Reports>(shared: &Shared, reports: &Arc<R>) {
    let mut queue = lock(shared);
    loop {
        let Some(task) = queue.waiting.pop_front() else {
            if queue.closed {
                return;
            }
            queue.idle += 1;
            queue = shared
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
            queue.waking = false;
            continue;
        };
        let exec = task.exec;
        let cancelled = Arc::new(AtomicBool::new(queue.closed));
        queue.running.insert(exec, cancelled.clone());
        wake_one(shared, &mut queue);
        drop(queue);
        let outcome = execute(shared, reports, task, cancelled);
        reports.ended(exec, outcome);
        queue = lock(shared);
        queue.running.remove(&exec);
    }
}

fn execute<R: Reports>(
    shared: &Shared,
    reports: &Arc<R>,
    task: Task,
    cancelled: Arc<AtomicBool>,
) -> Outcome {
    let started_at = now_ms();
    let task = Arc::new(task);
    let context = Context {
        attempt: task.attempt,
        run: task.run,
        incarnation: shared.incarnation.clone(),
        cancelled,
        progress: {
            let (reports, task) = (reports.clone(), task.clone());
            Arc::new(move |progress| reports.progress(&task, progress))
        },
        settings: shared.settings.clone(),
    };
    let envelope = &task.job.envelope;
    // What is logged while the job runs can be found by its trace.
    let _entered = log_span(&task).entered();
    let ran = match shared.handlers.get(envelope.operation.as_str()) {
        Some(handler) => catch_unwind(AssertUnwindSafe(|| handler.run(envelope, &context))),
        None => Ok(Err(Failure::lasting(
            error_code::HANDLER_NOT_FOUND,
            format!("no handler for operation {:?}", envelope.operation),
        )
        .into())),
    };
    let result = ran.unwrap_or_else(|panic| Err(panicked(&*panic).into()));
    let result = result.and_then(|output| shared.artifacts.fit(&task.job, task.run, output));
    let outcome = outcome(result, started_at);
    reports.ran(&task, &outcome);
    let code = outcome.failure.as_ref().map(|failure| &*failure.code);
    tracing::debug!(job_id = %task.job.job_id, status = ?outcome.status, code, "job ended");
    outcome
}

fn log_span(task: &Task) -> tracing::Span {
    let job = &task.job;
    let context = job.traceparent.as_deref().and_then(TraceContext::parse);
    match context.filter(|context| context.is_sampled()) {
        Some(context) => tracing::info_span!(
            "job",
            job_id = %job.job_id,
            trace_id = context.trace_id_text(),
            span_id = context.span_id_text(),
        ),
        // A span costs more than a tiny job is worth when nobody records it.
        None => tracing::Span::none(),
    }
}

fn outcome(result: Result<Output, HandlerError>, started_at: i64) -> Outcome {
    let finished_at = now_ms();
    match result {
        Ok(output) => Outcome {
            status: FinalStatus::Completed,
            started_at,
            finished_at,
            data: output.data,
            artifacts: output.artifacts,
            failure: None,
            cost: output.cost,
        },
        Err(HandlerError::Cancelled) => {
            let failure = Failure::lasting(error_code::CANCELLED, "told to stop");
            let mut outcome = Outcome::unsuccessful(FinalStatus::Cancelled, failure, finished_at);
            outcome.started_at = started_at;
            outcome
        }
        Err(HandlerError::Failed(failure, cost)) => {
            let mut outcome = Outcome::unsuccessful(FinalStatus::Failed, *failure, finished_at);
            outcome.started_at = started_at;
            outcome.cost = cost;
            outcome
        }
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let words = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    let end = words.floor_char_boundary(PANIC_MAX);
    Failure::lasting(
        error_code::HANDLER_PANIC,
        format!("the handler panicked: {}", &words[..end]),
    )
}
