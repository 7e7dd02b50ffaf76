//! `guestkit-inspect`: one disk image, no Kafka.

mod cli;
mod self_check;

use clap::Parser;
use cli::{Cli, Common, Output, PlaceArguments, PlainOutput, Verb};
use guestkit_inspector::budget::Limits;
use guestkit_inspector::error::DiskError;
use guestkit_inspector::guest::InspectOptions;
use guestkit_inspector::inspect::Request;
use guestkit_inspector::isolate::{self, Failure, Isolation, RefusalKind};
use guestkit_inspector::report::InspectMetrics;
use guestkit_inspector::source::HostRoots;
use guestkit_inspector::task::{Form, Place, Task};
use std::io::{BufWriter, IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Exit code of wrong usage.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // A child that reads an image for another process of this program.
    if let Some(code) = isolate::child_main() {
        return code;
    }
    let cli = Cli::parse();
    if let Some(Verb::SelfCheck { hang }) = cli.verb {
        return self_check::run(hang);
    }
    let (task, image, common) = match question(cli) {
        Ok(question) => question,
        Err(message) => {
            eprintln!("guestkit-inspect: {message}");
            return ExitCode::from(USAGE);
        }
    };
    match run(&task, &image, &common) {
        Ok(metrics) => {
            if let Task::Report { form, .. } = task {
                say(form, &metrics);
            }
            ExitCode::SUCCESS
        }
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guestkit-inspect: {}: {error}", image.display());
            if let Some(hint) = hint(&error) {
                eprintln!("  {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

/// What is asked, of which image.
fn question(cli: Cli) -> Result<(Task, PathBuf, Common), String> {
    Ok(match cli.verb {
        None => {
            let report = cli.report;
            let image = report.image.ok_or("no image is named")?;
            let mut options = if report.sections.is_empty() {
                InspectOptions::default()
            } else {
                InspectOptions::only(&report.sections)?
            };
            options.deep_scan = report.deep;
            let form = match report.output {
                Output::Json => Form::Json,
                Output::CycloneDx => Form::CycloneDx,
                Output::Spdx => Form::Spdx,
                Output::Table => people(),
            };
            if form.is_sbom() && !options.packages {
                return Err("a bill of materials needs the section packages".to_owned());
            }
            (Task::Report { form, options }, image, report.common)
        }
        Some(Verb::Layers {
            image,
            output,
            common,
        }) => {
            let form = plain(output);
            (Task::Layers { form }, image, common)
        }
        Some(Verb::Ls(arguments)) => {
            let form = plain(arguments.output);
            let (place, image, common) = place(arguments);
            (Task::List { form, place }, image, common)
        }
        Some(Verb::Cat(arguments)) => {
            let (place, image, common) = place(arguments);
            (Task::Cat { place }, image, common)
        }
        Some(Verb::Tree {
            sha256,
            place: arguments,
        }) => {
            let form = plain(arguments.output);
            let (place, image, common) = place(arguments);
            let task = Task::Tree {
                form,
                place,
                sha256,
            };
            (task, image, common)
        }
        Some(Verb::SelfCheck { .. }) => return Err("self-check takes no image".to_owned()),
    })
}

fn place(arguments: PlaceArguments) -> (Place, PathBuf, Common) {
    let place = Place {
        device: arguments.device,
        path: arguments.path,
    };
    (place, arguments.image, arguments.common)
}

fn people() -> Form {
    let colour = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if colour { Form::Colour } else { Form::Table }
}

fn plain(output: PlainOutput) -> Form {
    match output {
        PlainOutput::Json => Form::Json,
        PlainOutput::Table => people(),
    }
}

fn run(task: &Task, image: &Path, common: &Common) -> Result<InspectMetrics, Failure> {
    // The user names the image: where it really lies is the first root.
    let path = image.canonicalize().map_err(|error| DiskError::NotFound {
        what: error.to_string(),
    })?;
    let mut further = Vec::new();
    for image in &common.further {
        further.push(image.canonicalize().map_err(|error| DiskError::NotFound {
            what: format!("{}: {error}", image.display()),
        })?);
    }
    let folder_of = |path: &PathBuf| path.parent().unwrap_or(Path::new("/")).to_owned();
    let folders = std::iter::once(&path).chain(&further).map(folder_of);
    let roots = HostRoots::new(folders.chain(common.roots.iter().cloned()))?
        .with_devices(common.allow_devices);
    let request = Request {
        roots: &roots,
        path: &path,
        further: &further,
        format: common.format.as_deref(),
        limits: Limits {
            bytes: common.read_limit.saturating_mul(1 << 20),
            reads: u64::MAX,
            steps: u64::MAX,
            wall: Duration::from_secs(common.timeout),
            cpu: Duration::from_secs(common.timeout),
            output: match task {
                // As long as the guest's own files and directories: streamed, not kept.
                Task::Cat { .. } | Task::Tree { .. } => u64::MAX,
                _ => Limits::default().output,
            },
            ..Limits::default()
        },
        cancelled: Arc::new(AtomicBool::new(false)),
    };
    let mut out = BufWriter::with_capacity(64 << 10, stdout().lock());
    let isolation = Isolation {
        sandbox: !common.no_sandbox,
        require: common.require_sandbox,
        program: None,
    };
    let metrics = isolation.answer(&request, task, &mut out, &|_| {})?;
    out.flush().map_err(|error| DiskError::Io {
        position: 0,
        message: format!("write the answer: {error}"),
    })?;
    Ok(metrics)
}

/// What it cost, beside the document and never in it.
fn say(form: Form, metrics: &InspectMetrics) {
    if form == Form::Json {
        if let Ok(text) = serde_json::to_string(metrics) {
            eprintln!("{text}");
        }
        return;
    }
    eprintln!(
        "{} KiB read in {} reads, {:.1} ms, isolation: {}",
        metrics.bytes_read.div_ceil(1024),
        metrics.reads,
        metrics.milliseconds,
        metrics.isolation
    );
}

/// `guestkit-inspect tree … | head` is no failure.
fn is_closed_pipe(error: &Failure) -> bool {
    matches!(error, Failure::Image { message, kind: RefusalKind::Io } if message.contains("Broken pipe"))
}

fn hint(error: &Failure) -> Option<&'static str> {
    match error {
        Failure::Image {
            kind: RefusalKind::Denied,
            message: reason,
        } if reason.contains("out of the allowed root")
            || reason.contains("beneath no allowed root") =>
        {
            Some("a further directory is allowed by --root DIR")
        }
        Failure::Image {
            kind: RefusalKind::OverBudget,
            ..
        } => Some("--timeout and --read-limit raise what it may cost"),
        _ => None,
    }
}
