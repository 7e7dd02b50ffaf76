//! `guestkit.inspect`: a thin handler over the inspector.

use super::{Context, Handler, HandlerError, Output, payload};
use crate::engine::outcome::{Cost, Failure};
use guestkit_inspector::budget::Limits;
use guestkit_inspector::error::DiskError;
use guestkit_inspector::guest;
use guestkit_inspector::inspect::Request;
use guestkit_inspector::isolate::{self, RefusalKind};
use guestkit_inspector::report::InspectMetrics;
use guestkit_inspector::source::HostRoots;
use guestkit_inspector::task::{Form, Task};
use guestkit_protocol::payload::{ImageRef, InspectOptions, InspectPayload};
use guestkit_protocol::{JobEnvelope, error_code};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::Path;

pub(super) struct Inspect;

/// Phases in the order in which the inspector tells them; their place gives the percentage.
const PHASES: [&str; 10] = [
    "open", "layers", "os", "mounts", "packages", "users", "services", "network", "security",
    "write",
];
/// Read at a time while an image is summed.
const SUM_CHUNK: usize = 1 << 20;

impl Handler for Inspect {
    fn run(&self, job: &JobEnvelope, context: &Context) -> Result<Output, HandlerError> {
        let payload: InspectPayload = payload(job)?;
        let form = match payload.output.as_ref().and_then(|o| o.format.as_deref()) {
            None | Some("json") => Form::Json,
            Some("cyclonedx") => Form::CycloneDx,
            Some("spdx") => Form::Spdx,
            Some(other) => {
                return Err(Failure::lasting(
                    error_code::INVALID_JOB,
                    format!(
                        "payload.data.output.format is {other:?}: json, cyclonedx and spdx are known"
                    ),
                )
                .into());
            }
        };
        let options = options(&payload.options);
        if form.is_sbom() && !options.packages {
            return Err(Failure::lasting(
                error_code::INVALID_JOB,
                "payload.data.options.include_packages is false: a bill of materials needs packages",
            )
            .into());
        }
        let roots = HostRoots::new(&context.settings.disk_roots)
            .map_err(|error| failure(&error, "open", Cost::default()))?;
        check_file(&roots, &payload.image, context)?;
        let request = Request {
            roots: &roots,
            path: Path::new(&payload.image.path),
            further: &[],
            format: payload.image.format.as_deref(),
            limits: Limits::default(),
            cancelled: context.cancelled.clone(),
        };
        let task = Task::Report { form, options };
        let phase = std::cell::RefCell::new("open".to_owned());
        let mut document = Vec::new();
        let isolation = &context.settings.isolation;
        let outcome = isolation.answer(&request, &task, &mut document, &|now| {
            now.clone_into(&mut phase.borrow_mut());
            let place = PHASES.iter().position(|known| *known == now);
            let percent = place.map(|n| n as f64 * 100.0 / PHASES.len() as f64);
            context.progress(now, percent, None);
        });
        let metrics = match outcome {
            Ok(metrics) => metrics,
            Err(_) if context.cancelled() => return Err(HandlerError::Cancelled),
            Err(error) => return Err(refused(&error, &phase.into_inner())),
        };
        let data = String::from_utf8(document).map_err(|error| {
            Failure::lasting(
                error_code::INTERNAL,
                format!("the report is no text: {error}"),
            )
        })?;
        Ok(Output {
            data: Some(data.trim_end().to_owned()),
            artifacts: Vec::new(),
            cost: cost(&metrics),
        })
    }

    fn disk_formats(&self) -> Vec<String> {
        guestkit_inspector::container::FORMATS
            .iter()
            .map(|format| (*format).to_owned())
            .collect()
    }
}

/// Sections that a job asks for: all, unless it says otherwise.
fn options(wanted: &InspectOptions) -> guest::InspectOptions {
    let default = guest::InspectOptions::default();
    let or = |wanted: Option<bool>, default: bool| wanted.unwrap_or(default);
    guest::InspectOptions {
        deep_scan: wanted.deep_scan,
        packages: or(wanted.include_packages, default.packages),
        services: or(wanted.include_services, default.services),
        users: or(wanted.include_users, default.users),
        network: or(wanted.include_network, default.network),
        security: or(wanted.include_security, default.security),
        storage: or(wanted.include_storage, default.storage),
        databases: or(wanted.include_databases, default.databases),
        ..default
    }
}

/// What the job says of the file itself: its size and its sum.
fn check_file(roots: &HostRoots, image: &ImageRef, context: &Context) -> Result<(), HandlerError> {
    let sum = image
        .sha256()
        .map_err(|message| Failure::lasting(error_code::INVALID_JOB, message))?;
    if sum.is_none() && image.size_bytes.is_none() {
        return Ok(());
    }
    let host = roots
        .open(Path::new(&image.path))
        .map_err(|error| failure(&error, "open", Cost::default()))?;
    if let Some(expected) = image.size_bytes
        && expected != host.len
    {
        return Err(Failure::lasting(
            error_code::IMAGE_INVALID,
            format!(
                "image.size_bytes says {expected}, the file has {}",
                host.len
            ),
        )
        .into());
    }
    let Some(expected) = sum else {
        return Ok(());
    };
    context.progress("checksum", None, None);
    let mut file = host.file;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; SUM_CHUNK];
    loop {
        if context.cancelled() {
            return Err(HandlerError::Cancelled);
        }
        let length = file.read(&mut buffer).map_err(|error| {
            let mut failure =
                Failure::lasting(error_code::INTERNAL, format!("read the image: {error}"));
            failure.recoverable = true;
            failure
        })?;
        if length == 0 {
            break;
        }
        hash.update(&buffer[..length]);
    }
    let found = hash.finalize();
    if found[..] != expected {
        return Err(Failure::lasting(
            error_code::IMAGE_INVALID,
            format!(
                "image.checksum says sha256:{}, the file has sha256:{}",
                hex::encode(expected),
                hex::encode(found)
            ),
        )
        .into());
    }
    Ok(())
}

fn cost(metrics: &InspectMetrics) -> Cost {
    Cost {
        disk_read_bytes: metrics.bytes_read,
        peak_memory_bytes: metrics.peak_memory_bytes.unwrap_or_default(),
        cpu_ms: metrics.cpu_ms.unwrap_or_default(),
        ..Cost::default()
    }
}

/// The process that read the image died or hung: the image's doing, so another attempt would end
/// the same.
pub(crate) const INSPECTOR_CRASHED: &str = "INSPECTOR_CRASHED";
/// The kernel gives less confinement than the worker's configuration requires.
const SANDBOX_UNAVAILABLE: &str = "SANDBOX_UNAVAILABLE";

fn failure(error: &DiskError, phase: &str, cost: Cost) -> HandlerError {
    image_failure(RefusalKind::from(error), &error.to_string(), phase, cost)
}

fn refused(error: &isolate::Failure, phase: &str) -> HandlerError {
    let mut cost = Cost::default();
    let mut failure = match error {
        isolate::Failure::Cancelled => return HandlerError::Cancelled,
        isolate::Failure::Image { kind, message } => {
            return image_failure(*kind, message, phase, cost);
        }
        isolate::Failure::Unavailable { .. } => {
            Failure::lasting(SANDBOX_UNAVAILABLE, error.to_string())
        }
        isolate::Failure::Crashed(crash) => {
            cost.cpu_ms = crash.cpu_ms;
            let mut failure = Failure::lasting(INSPECTOR_CRASHED, error.to_string());
            let cause = crash.cause.name();
            // No process to be had now, or a bug: the image was not even looked at.
            failure.recoverable = cause == "start";
            failure.details.insert("cause".to_owned(), cause.to_owned());
            failure
        }
    };
    failure.phase = Some(phase.to_owned());
    HandlerError::Failed(Box::new(failure), cost)
}

fn image_failure(kind: RefusalKind, message: &str, phase: &str, cost: Cost) -> HandlerError {
    let code = match kind {
        RefusalKind::NotFound => error_code::IMAGE_NOT_FOUND,
        RefusalKind::Denied => error_code::IMAGE_DENIED,
        RefusalKind::Corrupt | RefusalKind::OutOfBounds => error_code::IMAGE_INVALID,
        RefusalKind::Unsupported => error_code::UNSUPPORTED,
        RefusalKind::OverBudget => "OVER_BUDGET",
        RefusalKind::Io => error_code::INTERNAL,
    };
    let mut failure = Failure::lasting(code, format!("image: {message}"));
    failure.phase = Some(phase.to_owned());
    // A device or network file system may answer the next time.
    failure.recoverable = kind == RefusalKind::Io;
    HandlerError::Failed(Box::new(failure), cost)
}
