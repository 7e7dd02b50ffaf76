//! One call: from a path to a report or another answer.

use crate::budget::{Budget, Limits};
use crate::container::{self, Container};
use crate::error::{DiskError, Result};
use crate::guest::{self, InspectOptions};
use crate::layers;
use crate::report::{InspectMetrics, InspectReport};
use crate::source::{HostOpener, HostRoots, Reading};
use crate::task::{self, Task};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Which image, and what it may cost.
pub struct Request<'a> {
    /// Directories beneath which it and its backing files may be opened.
    pub roots: &'a HostRoots,
    /// The image.
    pub path: &'a Path,
    /// Images of further disks of the same machine, in their order: `/dev/sdb` and so on.
    pub further: &'a [PathBuf],
    /// Its format, if the caller knows it; it must agree with what is found.
    pub format: Option<&'a str>,
    /// Budgets.
    pub limits: Limits,
    /// Set to stop.
    pub cancelled: Arc<AtomicBool>,
}

/// Inspects an image in this process. `progress` is told each phase as it begins.
///
/// # Errors
/// `NotFound` and `Denied` for the path, `Corrupt` for an image that is damaged or none at all,
/// `Unsupported` for a format or feature that is not read, `OverBudget` when cancelled or too dear.
pub fn inspect(
    request: &Request<'_>,
    options: &InspectOptions,
    progress: &dyn Fn(&'static str),
) -> Result<(InspectReport, InspectMetrics)> {
    let (budget, containers) = open(request, progress)?;
    budget.begin_part();
    progress("layers");
    let examined = layers::examine_partly(&containers)?;
    if !examined.layers.recognised && examined.cut_short.is_none() {
        return Err(unrecognised());
    }
    let report = guest::describe(examined, options, &|phase| {
        budget.begin_part();
        progress(phase);
    });
    // What is left undone because nobody wants it is no report.
    budget.check_cancelled()?;
    Ok((report, metrics(&budget)))
}

/// Answers a task about an image in this process; the answer goes to `out`.
///
/// # Errors
/// As [`inspect`] and [`task::perform`].
pub fn answer(
    request: &Request<'_>,
    task: &Task,
    out: &mut dyn Write,
    progress: &dyn Fn(&'static str),
) -> Result<InspectMetrics> {
    let (budget, containers) = open(request, progress)?;
    perform(&budget, task, &containers, out, progress)?;
    budget.check_cancelled()?;
    Ok(metrics(&budget))
}

/// Answers a task about an image that `open` opens: what a confined child does.
pub(crate) fn answer_within(
    limits: Limits,
    task: &Task,
    out: &mut dyn Write,
    progress: &dyn Fn(&'static str),
    open: impl FnOnce(&Reading) -> Result<Vec<Container>>,
) -> Result<InspectMetrics> {
    let never = Arc::new(AtomicBool::new(false));
    let budget = Budget::new(limits, crate::clock::monotonic(), never);
    let reading = Reading::new(Arc::clone(&budget));
    progress("open");
    let containers = open(&reading)?;
    perform(&budget, task, &containers, out, progress)?;
    Ok(metrics(&budget))
}

/// [`task::perform`], each section of a report with its share of the budget.
fn perform(
    budget: &Budget,
    task: &Task,
    containers: &[Container],
    out: &mut dyn Write,
    progress: &dyn Fn(&'static str),
) -> Result<()> {
    let shares = matches!(task, Task::Report { .. });
    task::perform(task, containers, out, &|phase| {
        if shares {
            budget.begin_part();
        }
        progress(phase);
    })
}

pub(crate) fn unrecognised() -> DiskError {
    DiskError::Corrupt {
        structure: "disk image",
        position: 0,
        problem: "no partition table, volume or file system is recognised".to_owned(),
    }
}

fn open(
    request: &Request<'_>,
    progress: &dyn Fn(&'static str),
) -> Result<(Arc<Budget>, Vec<Container>)> {
    let budget = Budget::new(
        request.limits,
        crate::clock::monotonic(),
        Arc::clone(&request.cancelled),
    );
    let reading = Reading::new(Arc::clone(&budget));
    progress("open");
    let mut containers = Vec::new();
    for path in std::iter::once(request.path).chain(request.further.iter().map(PathBuf::as_path)) {
        let opener = HostOpener {
            roots: request.roots,
            path,
            reading: &reading,
        };
        // What the caller knows of the format, it knows of the first.
        let format = request.format.filter(|_| containers.is_empty());
        containers.push(container::open(&opener, format)?);
    }
    Ok((budget, containers))
}

fn metrics(budget: &Budget) -> InspectMetrics {
    let spent = budget.spent();
    InspectMetrics {
        bytes_read: spent.bytes_read,
        reads: spent.reads,
        milliseconds: spent.elapsed.as_secs_f64() * 1_000.0,
        peak_memory_bytes: None,
        cpu_ms: None,
        isolation: crate::isolate::confine::NONE.to_owned(),
    }
}
