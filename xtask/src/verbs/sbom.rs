//! Bills of materials of guests, before the official validators of CycloneDX and SPDX and before a
//! vulnerability matcher. Needs Python with `venv`, and PyPI on the first run.

use crate::python;
use crate::steps::{cargo, run as run_command, run_within};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use xtask::workspace::root;

/// Longest time for all guests; each takes seconds.
const VALIDATE: Duration = Duration::from_secs(300);
/// Folders inside each other in which guests are looked for. Deeper lie variants of the same guest.
const DEPTH: usize = 1;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Further images of guests
    images: Vec<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    crate::interrupt::install()?;
    run_command(&mut cargo(&["build", "-p", "guestkit-inspector", "--bins"]))?;
    let command = crate::dependencies::target_directory()?.join("debug/guestkit-inspect");
    let scripts = root().join("inspector/tests/sbom");
    let python = python::environment("sbom-validators", &scripts.join("requirements.txt"))?;
    let mut images = Vec::new();
    guests(
        &root().join("inspector/tests/data/guests"),
        DEPTH,
        &mut images,
    )?;
    let corpus = corpus();
    if corpus.is_dir() {
        guests(&corpus, DEPTH, &mut images)?;
    } else {
        eprintln!(
            "not validated: guests of the corpus, there is no {}",
            corpus.display()
        );
    }
    images.sort();
    images.extend(options.images.iter().cloned());
    ensure!(!images.is_empty(), "no guest to validate");
    for script in ["validate.py", "match.py"] {
        let mut ask = Command::new(&python);
        ask.arg(scripts.join(script)).arg(&command).args(&images);
        run_within(&mut ask, VALIDATE)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn corpus() -> PathBuf {
    std::env::var_os("GUESTKIT_CORPUS_DIR")
        .map_or_else(|| root().join("../shared/data/disks"), PathBuf::from)
        .join("guests")
}

/// Images that the command reads as they are; compressed copies of them have nothing to add.
fn guests(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if depth > 0 {
                guests(&path, depth - 1, found)?;
            }
        } else if path
            .extension()
            .is_some_and(|kind| kind == "qcow2" || kind == "vmdk")
        {
            found.push(path);
        }
    }
    Ok(())
}
