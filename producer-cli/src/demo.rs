//! `guestkit-jobs demo`: a Kafka endpoint in this process, one real worker, real disks, one table.
//!
//! The endpoint shows how things go together and proves nothing about guarantees: those are shown on Apache
//! Kafka by `./dev test`. Its load is small on purpose.

use crate::clock::{self, Deadline};
use crate::failure::{Failure, Outcome};
use crate::output::{self, Bar};
use crate::publish::record;
use crate::{jobs, watch};
use clap::Args;
use guestkit_kafka::produce::{Outgoing, Producer};
use guestkit_kafka::reader::{Reader, Start, Step, Until};
use guestkit_kafka::{Connection, TopicNames, topics};
use guestkit_protocol::{Framing, JobEnvelope, JobResult, JobStatus, NoRegistry, error_code};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SLOTS: u32 = 4;
const QUESTION: Duration = Duration::from_secs(10);
/// All of it takes a few seconds on a small machine.
const LIMIT: Duration = Duration::from_secs(90);

/// Options of the demo.
#[derive(Debug, Args)]
pub(crate) struct DemoOptions {
    /// Disk image to inspect; repeat for more [default: those in the repository]
    #[arg(long = "disk", value_name = "IMAGE")]
    disks: Vec<PathBuf>,
    /// Leave endpoint and worker running at the end, until Ctrl-C
    #[arg(long)]
    keep_running: bool,
}

/// A job of the demo with what must come of it.
struct Planned {
    job: JobEnvelope,
    disk: String,
    expected: Expected,
    /// Published beside its slot, as any other client might: the worker forwards it.
    stray: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Run,
    Duplicate,
    Conflict,
}

/// Runs the demo.
pub(crate) fn run(options: &DemoOptions) -> Outcome {
    let stopped = Arc::new(AtomicBool::new(false));
    let seen = stopped.clone();
    ctrlc::set_handler(move || seen.store(true, Ordering::SeqCst)).map_err(Failure::error)?;
    let disks = disks(options)?;
    let address = noida::kafka::spawn("127.0.0.1:0")
        .map_err(|error| Failure::error(format!("cannot open a port on this machine: {error}")))?;
    let address = address.to_string();
    let connection = Connection::plain(&address)?;
    let names = TopicNames::new("vm-operations", None)?;
    topics::create(&connection, &names, SLOTS, None, QUESTION)?;
    eprintln!("kafka endpoint {address} (in this process), {SLOTS} slots");
    let scratch = tempfile::tempdir()?;
    let mut worker = Worker::start(&address, &disks, scratch.path())?;
    eprintln!("worker {} started", worker.child.id());
    let planned = plan(&disks)?;
    let results = show(&connection, &names, &planned, &mut worker, &stopped)
        .map_err(|failure| worker.explain(failure))?;
    summary(&planned, &results)?;
    let verdict = judge(&planned, &results);
    if options.keep_running && verdict.is_ok() {
        eprintln!("\nstill running; for example, in another terminal:");
        eprintln!(
            "  guestkit-jobs --bootstrap-servers {address} inspect {} --wait",
            disks[0].display()
        );
        eprintln!("Ctrl-C ends it");
        while !stopped.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    worker.stop();
    verdict
}

/// The disks that were asked for, else those in the repository.
fn disks(options: &DemoOptions) -> Outcome<Vec<PathBuf>> {
    let mut disks = options.disks.clone();
    if disks.is_empty() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../inspector/tests/data/guests");
        find_images(&folder, FOLDERS_DEEP, &mut disks)?;
        disks.sort();
        if disks.is_empty() {
            return Err(Failure::usage(format!(
                "there are no disk images in {}; name some with --disk IMAGE",
                folder.display()
            )));
        }
    }
    disks
        .into_iter()
        .map(|disk| {
            disk.canonicalize()
                .map_err(|error| Failure::usage(format!("{}: {error}", disk.display())))
        })
        .collect()
}

/// Images of the repository: a folder a guest, variants of it one deeper.
const FOLDERS_DEEP: u32 = 3;

fn find_images(folder: &Path, deeper: u32, found: &mut Vec<PathBuf>) -> Outcome {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && deeper > 0 {
            find_images(&path, deeper - 1, found)?;
        } else if path
            .extension()
            .is_some_and(|end| end == "qcow2" || end == "vmdk")
        {
            found.push(path);
        }
    }
    Ok(())
}

fn plan(disks: &[PathBuf]) -> Outcome<Vec<Planned>> {
    let mut planned = Vec::new();
    let mut add = |id: String, disk: &Path, deep: bool, expected: Expected| -> Outcome {
        let path = disk.display().to_string();
        let name = disk
            .file_name()
            .map_or_else(|| path.clone(), |name| name.to_string_lossy().into_owned());
        let (_, builder) = jobs::inspect(&path, deep);
        let job = builder
            .job_id(&id)
            .created_at(clock::now())
            .idempotency_key(format!("demo {path}"))
            .build()
            .map_err(Failure::usage)?;
        let stray = expected == Expected::Duplicate;
        planned.push(Planned {
            job,
            disk: name,
            expected,
            stray,
        });
        Ok(())
    };
    for (at, disk) in disks.iter().enumerate() {
        let number = at + 1;
        add(format!("demo-inspect-{number}"), disk, false, Expected::Run)?;
        // A few are enough to see what happens.
        if at < 2 {
            add(
                format!("demo-again-{number}"),
                disk,
                false,
                Expected::Duplicate,
            )?;
        }
    }
    if let Some(disk) = disks.first() {
        add("demo-conflict-1".to_owned(), disk, true, Expected::Conflict)?;
    }
    Ok(planned)
}

fn publish(connection: &Connection, names: &TopicNames, planned: &[Planned]) -> Outcome {
    let producer = Producer::new(connection, QUESTION)?;
    let send = |outgoing: &Outgoing| -> Outcome {
        producer.send(outgoing, 0)?;
        for delivery in producer.finish() {
            delivery.outcome?;
        }
        Ok(())
    };
    for Planned { job, stray, .. } in planned {
        let mut outgoing = record(job, &names.jobs, SLOTS, Framing::Json)?;
        if *stray {
            outgoing.partition = (outgoing.partition + 1) % i32::try_from(SLOTS).unwrap_or(1);
            outgoing.key = None;
        }
        // One by one: a copy must not overtake its original, or it would be the one that runs.
        if *stray || job.job_id.starts_with("demo-conflict") {
            std::thread::sleep(Duration::from_millis(200));
        }
        send(&outgoing)?;
    }
    send(&Outgoing {
        topic: names.jobs.clone(),
        partition: 0,
        value: Some(b"this is no job".to_vec()),
        ..Outgoing::default()
    })
}

/// Publishes everything and follows it to its end.
fn show(
    connection: &Connection,
    names: &TopicNames,
    planned: &[Planned],
    worker: &mut Worker,
    stopped: &AtomicBool,
) -> Outcome<BTreeMap<String, JobResult>> {
    let open = |topic: &str| {
        Reader::open(
            connection,
            topic,
            &Start::Beginning,
            Until::Follow,
            QUESTION,
        )
    };
    let mut results = open(&names.results)?;
    let mut progress = open(&names.progress)?;
    let mut dead = open(&names.dead_letters)?;
    publish(connection, names, planned)?;
    eprintln!(
        "{} jobs published, and one record that is none",
        planned.len()
    );
    let deadline = Deadline::of(Some(LIMIT));
    let mut found: BTreeMap<String, JobResult> = BTreeMap::new();
    let mut letters = 0;
    let mut bar = Bar::new();
    let mut note = String::new();
    while found.len() < planned.len() || letters == 0 {
        bar.show(found.len(), planned.len(), &note);
        if let Step::Record(record) = results.next(Duration::from_millis(20))?
            && let Some(result) = watch::decode_result(&record, &NoRegistry)
        {
            bar.clear();
            eprintln!("result {}: {}", result.job_id, result.status);
            if found.insert(result.job_id.clone(), result).is_some() {
                return Err(Failure::error("a job has two results"));
            }
        }
        if let Step::Record(record) = progress.next(Duration::ZERO)?
            && let Some(event) = watch::decode_progress(&record, &NoRegistry)
        {
            note = format!("{}: {}", event.job_id, watch::progress_words(&event));
        }
        if let Step::Record(record) = dead.next(Duration::ZERO)? {
            bar.clear();
            letters += 1;
            let reason = record.header(guestkit_protocol::headers::REASON);
            eprintln!(
                "dead letter {}/{}: {}",
                record.partition,
                record.offset,
                output::clean(&reason.unwrap_or_default())
            );
        }
        if stopped.load(Ordering::SeqCst) {
            bar.clear();
            return Err(Failure::error("stopped"));
        }
        if let Some(status) = worker.child.try_wait()? {
            bar.clear();
            return Err(Failure::error(format!("the worker ended early ({status})")));
        }
        if deadline.has_passed() {
            bar.clear();
            return Err(Failure::out_of_time(format!(
                "{} of {} results and {letters} of 1 dead letters came in {} s",
                found.len(),
                planned.len(),
                LIMIT.as_secs()
            )));
        }
    }
    bar.clear();
    Ok(found)
}

fn summary(planned: &[Planned], results: &BTreeMap<String, JobResult>) -> Outcome {
    let rows: Vec<Vec<String>> = planned
        .iter()
        .map(|planned| {
            let id = &planned.job.job_id;
            let Some(result) = results.get(id) else {
                return vec![id.clone(), planned.disk.clone(), "missing".to_owned()];
            };
            let document: serde_json::Value = result
                .data
                .as_ref()
                .and_then(|data| data.read().ok())
                .unwrap_or_default();
            let ran = result.duplicate_of.is_none() && result.status == JobStatus::Completed;
            let os = ["pretty_name", "product_name", "distro"]
                .iter()
                .find_map(|name| document.pointer(&format!("/os/0/{name}"))?.as_str());
            let packages = document
                .get("packages")
                .and_then(|packages| packages.as_array());
            let time = result
                .execution_summary
                .as_ref()
                .and_then(|summary| summary.duration);
            let why = result.error.as_ref().map(|error| error.code.clone());
            let shown =
                |text: Option<String>| text.filter(|_| ran).unwrap_or_else(|| "-".to_owned());
            vec![
                id.clone(),
                planned.disk.clone(),
                why.unwrap_or_else(|| result.status.to_string()),
                shown(os.map(str::to_owned)),
                shown(packages.map(|packages| packages.len().to_string())),
                shown(time.map(|seconds| format!("{:.0} ms", seconds * 1000.0))),
                result
                    .duplicate_of
                    .clone()
                    .unwrap_or_else(|| "-".to_owned()),
            ]
        })
        .collect();
    output::line("")?;
    let head = [
        "JOB",
        "DISK",
        "STATUS",
        "OS",
        "PACKAGES",
        "TIME",
        "DUPLICATE OF",
    ];
    output::table(&head, &rows)
}

/// Whether everything came as planned.
fn judge(planned: &[Planned], results: &BTreeMap<String, JobResult>) -> Outcome {
    for Planned { job, expected, .. } in planned {
        let id = &job.job_id;
        let Some(result) = results.get(id) else {
            return Err(Failure::error(format!("job {id} has no result")));
        };
        let code = result.error.as_ref().map(|error| error.code.as_str());
        let good = match expected {
            Expected::Run => result.status == JobStatus::Completed && result.duplicate_of.is_none(),
            Expected::Duplicate => result.duplicate_of.is_some(),
            Expected::Conflict => code == Some(error_code::IDEMPOTENCY_CONFLICT),
        };
        if !good {
            let why = result.error.as_ref().map_or_else(String::new, |error| {
                format!(": {}: {}", error.code, error.message)
            });
            return Err(Failure::error(format!(
                "job {id} did not end as it should: {}{why}",
                result.status
            )));
        }
    }
    Ok(())
}

/// The worker process; ended with this program.
struct Worker {
    child: Child,
    log: PathBuf,
}

impl Worker {
    fn start(address: &str, disks: &[PathBuf], scratch: &Path) -> Outcome<Self> {
        let own = std::env::current_exe()?;
        let program =
            own.with_file_name(format!("guestkit-worker{}", std::env::consts::EXE_SUFFIX));
        if !program.is_file() {
            return Err(Failure::usage(format!(
                "{} is missing: `./dev demo` builds it",
                program.display()
            )));
        }
        let log = scratch.join("worker.log");
        let mut command = Command::new(program);
        command.args(["run", "--bootstrap-servers", address]);
        let mut roots: Vec<&Path> = disks.iter().filter_map(|disk| disk.parent()).collect();
        roots.sort_unstable();
        roots.dedup();
        for root in roots {
            command.arg("--disk-root").arg(root);
        }
        // The user's own settings are for another cluster.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("GUESTKIT_") || text.starts_with("KAFKA_") {
                command.env_remove(&name);
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .spawn()?;
        Ok(Self { child, log })
    }

    /// The failure with the end of the worker's log.
    fn explain(&self, failure: Failure) -> Failure {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("the worker's last words:");
        for line in lines.iter().skip(lines.len().saturating_sub(15)) {
            eprintln!("  {}", output::clean(line));
        }
        failure
    }

    /// Lets it drain, for a while.
    fn stop(&mut self) {
        // std can only kill; the shell's kill is everywhere.
        let told = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -TERM {}", self.child.id()))
            .status();
        if told.is_ok_and(|status| status.success()) {
            for _ in 0..50 {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        self.kill();
    }

    fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}
