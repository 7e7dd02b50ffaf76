//! Writes the bills of materials of an image:
//! `cargo run --release -p guestkit-inspector --example sbom -- IMAGE DIR` makes
//! `DIR/bom.cdx.json` and `DIR/bom.spdx.json`.

use guestkit_inspector::budget::{Budget, Limits};
use guestkit_inspector::guest::{self, InspectOptions};
use guestkit_inspector::report::{cyclonedx, spdx};
use guestkit_inspector::source::{HostOpener, HostRoots, Reading};
use guestkit_inspector::{clock, container, layers};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let image = arguments.next().ok_or("no image named")?;
    let target = arguments.next().ok_or("no directory named")?;
    let (path, target) = (Path::new(&image), Path::new(&target));
    let root = path.parent().filter(|p| !p.as_os_str().is_empty());
    let roots = HostRoots::new([root.unwrap_or(Path::new("."))])?;
    let cancelled = Arc::new(AtomicBool::new(false));
    let budget = Budget::new(Limits::default(), clock::monotonic(), cancelled);
    let reading = Reading::new(budget);
    let opener = HostOpener {
        roots: &roots,
        path: Path::new(path.file_name().unwrap_or_default()),
        reading: &reading,
    };
    let examined = layers::examine(&container::open(&opener, None)?)?;
    let report = guest::describe(examined, &InspectOptions::default(), &|_| {})?;
    let files = [
        ("bom.cdx.json", cyclonedx::render(&report, None)),
        ("bom.spdx.json", spdx::render(&report, None)),
    ];
    for (name, document) in files {
        std::fs::write(target.join(name), serde_json::to_vec_pretty(&document)?)?;
    }
    Ok(())
}
