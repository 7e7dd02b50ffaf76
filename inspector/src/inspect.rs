//! One call: from a path to a report.

use crate::budget::{Budget, Limits};
use crate::container;
use crate::error::{DiskError, Result};
use crate::guest::{self, InspectOptions};
use crate::layers;
use crate::report::{InspectMetrics, InspectReport};
use crate::source::{HostOpener, HostRoots, Reading};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// How an image is to be inspected.
pub struct Request<'a> {
    /// Directories beneath which it and its backing files may be opened.
    pub roots: &'a HostRoots,
    /// The image.
    pub path: &'a Path,
    /// Its format, if the caller knows it; it must agree with what is found.
    pub format: Option<&'a str>,
    /// Sections.
    pub options: &'a InspectOptions,
    /// Budgets.
    pub limits: Limits,
    /// Set to stop.
    pub cancelled: Arc<AtomicBool>,
}

/// Inspects an image. `progress` is told each phase as it begins.
///
/// # Errors
/// `NotFound` and `Denied` for the path, `Corrupt` for an image that is damaged or none at all,
/// `Unsupported` for a format or feature that is not read, `OverBudget` when cancelled or too dear.
pub fn inspect(
    request: &Request<'_>,
    progress: &dyn Fn(&'static str),
) -> Result<(InspectReport, InspectMetrics)> {
    let budget = Budget::new(
        request.limits,
        crate::clock::monotonic(),
        Arc::clone(&request.cancelled),
    );
    let reading = Reading::new(Arc::clone(&budget));
    progress("open");
    let opened = container::open(
        &HostOpener {
            roots: request.roots,
            path: request.path,
            reading: &reading,
        },
        request.format,
    )?;
    progress("layers");
    let examined = layers::examine(&opened)?;
    if !examined.layers.recognised {
        return Err(DiskError::Corrupt {
            structure: "disk image",
            position: 0,
            problem: "no partition table, volume or file system is recognised".to_owned(),
        });
    }
    let report = guest::describe(examined, request.options, progress)?;
    budget.check()?;
    let spent = budget.spent();
    Ok((
        report,
        InspectMetrics {
            bytes_read: spent.bytes_read,
            reads: spent.reads,
            milliseconds: spent.elapsed.as_secs_f64() * 1_000.0,
            isolation: "none",
        },
    ))
}
