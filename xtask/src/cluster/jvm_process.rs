//! A Java program that runs beside us: started, waited for, stopped, killed, started again.

use super::error::{Context, Error};
use super::{java, process};
use crate::clock::Deadline;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The start takes 3 s on an idle machine; a build on the same cores makes it slow.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// A clean stop writes everything out; then it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(30);

pub(crate) struct JvmProcess {
    what: String,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(&'static str, String)>,
    pub(crate) log: PathBuf,
    port: u16,
    /// It outlives us, and the file `pid` beside its log has process id and port.
    detached: bool,
    running: Mutex<Option<Running>>,
}

struct Running {
    child: Child,
    /// Where in the log this run begins.
    log_start: u64,
}

impl JvmProcess {
    pub(crate) fn new(name: &str, port: u16, log: PathBuf, detached: bool) -> Self {
        Self {
            what: format!("{name} on port {port}"),
            arguments: Vec::new(),
            environment: Vec::new(),
            log,
            port,
            detached,
            running: Mutex::new(None),
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(|running| running.child.id())
    }

    /// Starts the process without waiting for it. Nothing happens if it runs.
    pub(crate) fn spawn(&self) -> Result<(), Error> {
        let mut running = self.lock();
        if running.is_some() {
            return Ok(());
        }
        let log_start = fs::metadata(&self.log).map_or(0, |file| file.len());
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .context(|| format!("open {}", self.log.display()))?;
        let stderr = log
            .try_clone()
            .context(|| format!("open {}", self.log.display()))?;
        let mut command = if self.detached {
            Command::new(java::program())
        } else {
            process::dies_with_us(java::program())
        };
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(stderr)
            // Ctrl-C in the terminal is ours to pass on.
            .process_group(0);
        let child = process::spawn(command).context(|| format!("start {}", self.what))?;
        if self.detached {
            let file = self.log.with_file_name("pid");
            fs::write(&file, format!("{} {}\n", child.id(), self.port))
                .context(|| format!("write {}", file.display()))?;
        }
        *running = Some(Running { child, log_start });
        Ok(())
    }

    /// Waits until `ready` says so, given what this run logged so far.
    pub(crate) fn wait_ready(&self, ready: impl Fn(&str) -> bool) -> Result<(), Error> {
        let deadline = Deadline::after(READY_WITHIN);
        loop {
            let reason = {
                let mut running = self.lock();
                let Some(run) = running.as_mut() else {
                    return Err(self.not_ready("it was stopped meanwhile", 0));
                };
                let log_start = run.log_start;
                let log = read_from(&self.log, log_start);
                if ready(&log) {
                    return Ok(());
                }
                let ended = run
                    .child
                    .try_wait()
                    .context(|| format!("wait for {}", self.what))?;
                match ended {
                    Some(status) => {
                        *running = None;
                        Some((format!("it ended: {status}"), log_start))
                    }
                    None if deadline.passed() => Some((
                        format!("not ready after {} s", READY_WITHIN.as_secs()),
                        log_start,
                    )),
                    None => None,
                }
            };
            if let Some((reason, log_start)) = reason {
                self.kill()?;
                return Err(self.not_ready(&reason, log_start));
            }
            std::thread::sleep(Duration::from_millis(25));
        }
    }

    /// Asks it to end and waits; kills it after 30 s.
    pub(crate) fn stop(&self) -> Result<(), Error> {
        if let Some(mut run) = self.lock().take() {
            process::end_group(&mut run.child, STOP_WITHIN)
                .context(|| format!("stop {}", self.what))?;
        }
        Ok(())
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) fn kill(&self) -> Result<(), Error> {
        if let Some(mut run) = self.lock().take() {
            process::end_group(&mut run.child, Duration::ZERO)
                .context(|| format!("kill {}", self.what))?;
        }
        Ok(())
    }

    fn not_ready(&self, reason: &str, log_start: u64) -> Error {
        Error::NotReady {
            what: self.what.clone(),
            reason: reason.to_owned(),
            log: self.log.clone(),
            tail: tail(&self.log, log_start),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for JvmProcess {
    fn drop(&mut self) {
        if !self.detached {
            // Nobody is left to tell; without us the kernel ends it.
            drop(self.kill());
        }
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path, start: u64) -> String {
    const LINES: usize = 30;
    let text = read_from(log, start);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

fn read_from(file: &Path, start: u64) -> String {
    let bytes = fs::read(file).unwrap_or_default();
    let start = usize::try_from(start).unwrap_or(0).min(bytes.len());
    String::from_utf8_lossy(&bytes[start..]).into_owned()
}
