//! A gateway under test: its topics, worker and gateway processes, and a client.

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use xtask::cluster::{free_port, process};

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The clock of these tests.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A process that dies with its owner.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) log: PathBuf,
}

impl Program {
    pub(crate) fn start(program: &Path, arguments: &[String], log: PathBuf) -> Self {
        let mut command = process::dies_with_us(program);
        let output = File::options()
            .append(true)
            .create(true)
            .open(&log)
            .unwrap();
        command
            .args(arguments)
            .env_remove("GUESTKIT_SCHEMA_REGISTRY_URL")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let child = process::spawn(command).unwrap();
        Self { child, log }
    }

    pub(crate) fn kill(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().unwrap();
    }

    /// Bytes of memory that are its own now.
    pub(crate) fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("VmRSS:"));
        let kb = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kb.unwrap_or(0) * 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let tail = lines.len().saturating_sub(30);
            eprintln!("{}:\n{}", self.log.display(), lines[tail..].join("\n"));
        }
        self.kill();
    }
}

/// Topics and processes of one test.
pub(crate) struct Stand {
    pub(crate) bootstrap: String,
    pub(crate) prefix: String,
    pub(crate) dir: tempfile::TempDir,
    jobs: PathBuf,
    worker: PathBuf,
}

impl Stand {
    /// Creates the topics.
    pub(crate) fn new(name: &str, partitions: u32) -> Self {
        let variable = "GUESTKIT_TEST_BOOTSTRAP_SERVERS";
        let bootstrap = std::env::var(variable)
            .unwrap_or_else(|_| panic!("{variable} is not set: run `./dev test`"));
        Self::on(name, partitions, bootstrap, programs())
    }

    /// Creates the topics on a cluster, for programs of a directory.
    pub(crate) fn on(name: &str, partitions: u32, bootstrap: String, programs: PathBuf) -> Self {
        let nanos = std::time::UNIX_EPOCH
            .elapsed()
            .map_or(0, |d| d.subsec_nanos());
        let stand = Self {
            bootstrap,
            prefix: format!("gw-{name}-{}-{nanos}", std::process::id()),
            dir: tempfile::tempdir().unwrap(),
            jobs: programs.join("guestkit-jobs"),
            worker: programs.join("guestkit-worker"),
        };
        assert!(
            stand.worker.exists(),
            "{} is not there: cargo build -p guestkit-worker",
            stand.worker.display()
        );
        let created = Command::new(&stand.jobs)
            .args(stand.common())
            .args(["topics", "create", "--partitions", &partitions.to_string()])
            .output()
            .unwrap();
        assert!(created.status.success(), "{created:?}");
        stand
    }

    fn common(&self) -> Vec<String> {
        [
            "--bootstrap-servers",
            &self.bootstrap,
            "--topic-prefix",
            &self.prefix,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    pub(crate) fn worker(&self, id: &str, more: &[&str]) -> Program {
        let mut arguments = vec!["run".to_owned()];
        arguments.extend(self.common());
        arguments.extend(["--worker-id", id, "--concurrency", "16"].map(str::to_owned));
        arguments.extend(more.iter().map(|text| (*text).to_owned()));
        let log = self.dir.path().join(format!("worker-{id}.log"));
        Program::start(&self.worker, &arguments, log)
    }

    /// Starts a gateway and waits until it is ready.
    pub(crate) async fn gateway(&self, more: &[&str]) -> Gateway {
        let gateway = self.start(more);
        gateway.ready().await;
        gateway
    }

    /// Starts a gateway.
    pub(crate) fn start(&self, more: &[&str]) -> Gateway {
        Gateway::start(self, more)
    }
}

/// Where cargo put the programs of this workspace: this one is in a folder beside them.
pub(crate) fn programs() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    this.parent().and_then(Path::parent).unwrap().to_owned()
}

/// A gateway process and a client of it.
pub(crate) struct Gateway {
    pub(crate) program: Program,
    pub(crate) url: String,
    pub(crate) client: Client,
    start: (PathBuf, Vec<String>),
}

impl Gateway {
    fn start(stand: &Stand, more: &[&str]) -> Self {
        let port = free_port();
        let mut arguments = stand.common();
        let listen = format!("127.0.0.1:{port}");
        arguments.extend(["gateway", "--listen", &listen].map(str::to_owned));
        // Everybody here is one address.
        if !more.contains(&"--rate-limit") {
            arguments.extend(["--rate-limit", "0"].map(str::to_owned));
        }
        arguments.extend(more.iter().map(|text| (*text).to_owned()));
        let log = stand.dir.path().join(format!("gateway-{port}.log"));
        Self {
            program: Program::start(&stand.jobs, &arguments, log),
            url: format!("http://{listen}"),
            client: Client::new(),
            start: (stand.jobs.clone(), arguments),
        }
    }

    /// Ends as by a power cut, and starts again at the same address.
    pub(crate) fn restart(&mut self) {
        self.program.kill();
        let log = self.program.log.clone();
        self.program = Program::start(&self.start.0, &self.start.1, log);
    }

    pub(crate) async fn ready(&self) {
        let start = now();
        while start.elapsed() < PATIENCE {
            let answer = self.client.get(format!("{}/readyz", self.url)).send().await;
            if answer.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the gateway is not ready");
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        let url = format!("{}{path}", self.url);
        self.client.get(url).send().await.unwrap()
    }

    /// GET, with status and JSON body.
    pub(crate) async fn json(&self, path: &str) -> (u16, Value) {
        parts(self.get(path).await).await
    }

    pub(crate) async fn post(&self, body: &Value) -> (u16, Value) {
        let url = format!("{}/v1/jobs", self.url);
        parts(self.client.post(url).json(body).send().await.unwrap()).await
    }

    /// Polls a job until it has ended.
    pub(crate) async fn finished(&self, job_id: &str) -> Value {
        let start = now();
        loop {
            let (status, job) = self.json(&format!("/v1/jobs/{job_id}")).await;
            assert_eq!(status, 200, "{job}");
            if !job["result"].is_null() {
                return job;
            }
            assert!(start.elapsed() < PATIENCE, "{job}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Status and body.
pub(crate) async fn parts(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

/// An echo in the short form.
pub(crate) fn echo(key: &str, data: Value) -> Value {
    json!({"operation": "system.echo", "payload": data, "idempotency_key": key})
}

/// Runs a test's future.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}
