//! Writes the report of an image and what it cost, first and in later runs:
//! `cargo run --release -p guestkit-inspector --example report -- IMAGE [--json] [--deep] [RUNS]`.

use guestkit_inspector::Result;
use guestkit_inspector::budget::Limits;
use guestkit_inspector::guest::InspectOptions;
use guestkit_inspector::inspect::{Request, inspect};
use guestkit_inspector::report::table;
use guestkit_inspector::source::HostRoots;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let image = arguments.first().cloned().unwrap_or_default();
    let runs = arguments.iter().filter_map(|a| a.parse().ok()).next();
    let path = Path::new(&image);
    let root = path.parent().filter(|p| !p.as_os_str().is_empty());
    let roots = HostRoots::new([root.unwrap_or(Path::new("."))])?;
    let options = InspectOptions {
        deep_scan: has("--deep"),
        ..InspectOptions::default()
    };
    for run in 0..runs.unwrap_or(1) {
        let request = Request {
            roots: &roots,
            path: Path::new(path.file_name().unwrap_or_default()),
            further: &[],
            format: None,
            limits: Limits::default(),
            cancelled: Arc::new(AtomicBool::new(false)),
        };
        let (report, metrics) = inspect(&request, &options, &|_| {})?;
        if run == 0 && has("--json") {
            println!(
                "{}",
                serde_json::to_string_pretty(&report).unwrap_or_default()
            );
        } else if run == 0 {
            print!("{}", table::render(&report, false));
        }
        eprintln!("{metrics:?}");
    }
    Ok(())
}
