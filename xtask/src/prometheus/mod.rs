//! Prometheus and its own checker, out of Debian's package.
//!
//! The package is unpacked, not installed: installing starts a server on every interface.

mod queries;
mod server;

pub(crate) use queries::{dashboard, names, selectors};
pub(crate) use server::Server;

use crate::steps::{run as run_command, run_within};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use xtask::cluster::process::on_path;
use xtask::workspace::{dev_dir, root};

/// Longest time that a package may take to come.
const DOWNLOAD: Duration = Duration::from_secs(300);

/// Where our files are, from the workspace's root.
pub(crate) const CONFIG: &str = "deploy/prometheus/prometheus.yml";
pub(crate) const RULES: &str = "deploy/prometheus/rules/guestkit.yml";
const RULE_TESTS: &str = "deploy/prometheus/rules/tests.yml";
pub(crate) const DASHBOARD: &str = "deploy/grafana/dashboards/guestkit.json";

/// The programs.
pub(crate) struct Tools {
    promtool: PathBuf,
    prometheus: PathBuf,
}

impl Tools {
    /// Those on the PATH, else Debian's, unpacked beside the other parts of tests.
    pub(crate) fn provide() -> Result<Self> {
        if on_path("promtool") && on_path("prometheus") {
            return Ok(Self {
                promtool: "promtool".into(),
                prometheus: "prometheus".into(),
            });
        }
        let place = dev_dir().join("prometheus");
        let tools = Self {
            promtool: place.join("usr/bin/promtool"),
            prometheus: place.join("usr/bin/prometheus"),
        };
        if !tools.promtool.is_file() {
            unpack(&place).context(
                "promtool is needed: put promtool and prometheus into the PATH, or let apt-get download Debian's package (sudo apt-get update)",
            )?;
        }
        Ok(tools)
    }

    fn promtool(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.promtool);
        command.args(arguments).current_dir(root());
        command
    }

    /// Rules, their tests and the configuration are as Prometheus wants them.
    pub(crate) fn check_files(&self) -> Result<()> {
        run_command(&mut self.promtool(&["check", "config", CONFIG]))?;
        run_command(&mut self.promtool(&["check", "rules", "--lint-fatal", RULES]))?;
        run_command(&mut self.promtool(&["test", "rules", RULE_TESTS]))
    }

    /// A page of metrics keeps to Prometheus' conventions.
    pub(crate) fn check_metrics(&self, page: &str) -> Result<()> {
        let mut child = self
            .promtool(&["check", "metrics"])
            .stdin(Stdio::piped())
            .spawn()
            .context("start promtool")?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(page.as_bytes()).context("promtool")?;
        }
        let status = child.wait().context("promtool")?;
        ensure!(status.success(), "promtool check metrics: {status}");
        Ok(())
    }
}

fn unpack(place: &Path) -> Result<()> {
    let above = place.parent().context("no place to unpack to")?;
    fs::create_dir_all(above).with_context(|| format!("create {}", above.display()))?;
    let new = tempfile::Builder::new()
        .prefix("prometheus-")
        .tempdir_in(above)?;
    let download = || {
        let mut command = Command::new("apt-get");
        // Its own user may not write where we unpack.
        command.args([
            "-qq",
            "-o",
            "APT::Sandbox::User=root",
            "download",
            "prometheus",
        ]);
        run_within(command.current_dir(new.path()), DOWNLOAD)
    };
    if download().is_err() && rustix::process::geteuid().is_root() {
        let mut update = Command::new("apt-get");
        update.args(["-qq", "-o", "DPkg::Lock::Timeout=300", "update"]);
        run_within(&mut update, DOWNLOAD)?;
        download()?;
    }
    let package = fs::read_dir(new.path())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|end| end == "deb"))
        .context("apt-get downloaded no package")?;
    let tree = new.path().join("tree");
    let mut extract = Command::new("dpkg-deb");
    run_command(extract.arg("-x").arg(package).arg(&tree))?;
    // Somebody else may have been faster.
    match fs::rename(&tree, place) {
        Err(_) if place.join("usr/bin/promtool").is_file() => Ok(()),
        other => other.with_context(|| format!("create {}", place.display())),
    }
}
