//! Python environments of the verbs that need packages of PyPI.

use crate::steps::run_within;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use xtask::workspace::root;

/// Longest time that an index of packages may take.
const INSTALL: Duration = Duration::from_secs(300);

/// The Python of `.dev/NAME` that has these packages, installed when the list of them is another than
/// last time.
pub(super) fn with(name: &str, requirements: &Path) -> Result<PathBuf> {
    let folder = root().join(".dev").join(name);
    let python = folder.join("bin/python");
    let installed = folder.join("requirements.txt");
    let wanted =
        fs::read(requirements).with_context(|| format!("read {}", requirements.display()))?;
    if fs::read(&installed).is_ok_and(|text| text == wanted) {
        return Ok(python);
    }
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(&folder);
    run_within(&mut venv, INSTALL)?;
    let mut install = Command::new(&python);
    install
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .arg("--requirement")
        .arg(requirements);
    run_within(&mut install, INSTALL)?;
    // Last, so that an installation that was broken off is made again.
    fs::write(&installed, wanted)?;
    Ok(python)
}
