//! A running Prometheus with our configuration and rules, looking at workers on this machine.

use super::{CONFIG, Tools};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::process::Child;
use std::time::Duration;
use tempfile::TempDir;
use xtask::clock;
use xtask::cluster::process::{dies_with_us, spawn};
use xtask::cluster::{free_port, http_get};
use xtask::workspace::root;

/// Longest time until it answers.
const START: Duration = Duration::from_secs(30);
/// How long a rule may take until it was evaluated for the first time.
const EVALUATION: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(200);
/// Our configuration's intervals, and those of a run that shall be over soon.
const INTERVALS: [(&str, &str); 2] = [
    ("scrape_interval: 15s", "scrape_interval: 1s"),
    ("evaluation_interval: 15s", "evaluation_interval: 1s"),
];

/// What a query gave.
pub(crate) struct Answer {
    pub(crate) samples: usize,
    /// Of them, those that are numbers.
    pub(crate) numbers: usize,
}

/// Dropped, it is killed.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    dir: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Server {
    pub(crate) fn start(tools: &Tools, workers: &[SocketAddr]) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("guestkit-prometheus-")
            .tempdir()?;
        let config = dir.path().join("prometheus.yml");
        fs::write(&config, config_for(workers)?)?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let log = fs::File::create(dir.path().join("log"))?;
        let mut command = dies_with_us(&tools.prometheus);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--storage.tsdb.path=data")
            .current_dir(dir.path())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut server = Self {
            child: spawn(command).context("start prometheus")?,
            address,
            dir,
        };
        let start = clock::now();
        while !http_get(address, "/-/ready").is_ok_and(|answer| answer.status == 200) {
            let ended = server.child.try_wait()?;
            ensure!(
                ended.is_none() && start.elapsed() < START,
                "prometheus does not answer:\n{}",
                server.log()
            );
            std::thread::sleep(LOOK);
        }
        Ok(server)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn get(&self, path: &str) -> Result<Value> {
        let answer = http_get(self.address, path)?;
        let body: Value = serde_json::from_slice(&answer.body).context(path.to_owned())?;
        ensure!(
            body["status"] == "success",
            "{}",
            body["error"].as_str().unwrap_or("no error message")
        );
        Ok(body)
    }

    /// Asks for an expression's value now.
    pub(crate) fn query(&self, expression: &str) -> Result<Answer> {
        let path = format!("/api/v1/query?query={}", encoded(expression));
        let body = self.get(&path)?;
        let result = body["data"]["result"].as_array().context("no result")?;
        let is_number = |sample: &&Value| {
            let value = sample["value"][1].as_str().unwrap_or("NaN");
            value.parse::<f64>().is_ok_and(f64::is_finite)
        };
        Ok(Answer {
            samples: result.len(),
            numbers: result.iter().filter(is_number).count(),
        })
    }

    /// Alerts with their expressions, once each was evaluated.
    pub(crate) fn alerts(&self) -> Result<Vec<(String, String)>> {
        let start = clock::now();
        loop {
            let body = self.get("/api/v1/rules?type=alert")?;
            let groups = body["data"]["groups"].as_array().context("no groups")?;
            let rules: Vec<&Value> = groups
                .iter()
                .flat_map(|group| group["rules"].as_array().into_iter().flatten())
                .collect();
            ensure!(!rules.is_empty(), "prometheus has loaded no rules");
            if let Some(bad) = rules.iter().find(|rule| rule["health"] == "err") {
                bail!("alert {}: {}", bad["name"], bad["lastError"]);
            }
            if rules.iter().all(|rule| rule["health"] == "ok") {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let of = |rule: &&Value| (text(&rule["name"]), text(&rule["query"]));
                return Ok(rules.iter().map(of).collect());
            }
            ensure!(start.elapsed() < EVALUATION, "not all rules were evaluated");
            std::thread::sleep(LOOK);
        }
    }
}

/// Our configuration, with the workers by address instead of by a service's name.
fn config_for(workers: &[SocketAddr]) -> Result<String> {
    let path = root().join(CONFIG);
    let mut text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    for (written, wanted) in INTERVALS {
        ensure!(text.contains(written), "{CONFIG} has no {written:?}");
        text = text.replace(written, wanted);
    }
    let discovery = text
        .find("    dns_sd_configs:")
        .with_context(|| format!("{CONFIG} does not end with dns_sd_configs"))?;
    text.truncate(discovery);
    let targets: Vec<String> = workers
        .iter()
        .map(|worker| format!("\"{worker}\""))
        .collect();
    let targets = targets.join(", ");
    writeln!(text, "    static_configs: [{{targets: [{targets}]}}]")?;
    let rules = root().join("deploy/prometheus/rules");
    Ok(text.replace("- rules/", &format!("- {}/", rules.display())))
}

/// Percent-encoding (RFC 3986).
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            write!(encoded, "%{byte:02X}").ok();
        }
    }
    encoded
}
