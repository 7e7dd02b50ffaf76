//! `status` and `workers` of a fleet that lives, and of one that does not.

use super::{Cli, JOB};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A worker beside the command under test: `./dev test` builds both into one folder.
struct Worker(Child);

impl Worker {
    fn start(cli: &Cli, id: &str, arguments: &[&str]) -> Self {
        let program =
            PathBuf::from(env!("CARGO_BIN_EXE_guestkit-jobs")).with_file_name("guestkit-worker");
        assert!(
            program.exists(),
            "{} is not built: run `./dev test`",
            program.display()
        );
        let child = Command::new(program)
            .args(["run", "--bootstrap-servers", &cli.servers])
            .args(["--topic-prefix", &cli.prefix, "--group-id", &cli.prefix])
            .args(["--worker-id", id])
            .args(arguments)
            .env("KAFKA_SESSION_TIMEOUT_MS", "6000")
            .env("KAFKA_HEARTBEAT_INTERVAL_MS", "1000")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn status(cli: &Cli) -> (i32, Value) {
    let group = cli.prefix.clone();
    let (code, out, errors) = cli.run(&["status", "--output", "json", "--group-id", &group], "");
    let status = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{code} {out} {errors}"));
    (code, status)
}

fn until(cli: &Cli, what: &str, holds: impl Fn(i32, &Value) -> bool) -> Value {
    let mut last = None;
    // A look takes over a second.
    for _ in 0..40 {
        let (code, found) = status(cli);
        if holds(code, &found) {
            return found;
        }
        last = Some((code, found));
    }
    panic!("{what}: {last:?}");
}

fn problems(status: &Value) -> String {
    status["problems"].to_string()
}

#[test]
fn status_says_whether_it_is_all_right_and_what_is_not() {
    let cli = Cli::new("status");
    assert_eq!(cli.run(&["topics", "create", "--partitions", "4"], "").0, 0);
    let (code, idle) = status(&cli);
    // Scaled to zero with nothing to do.
    assert_eq!((code, &idle["ok"]), (0, &Value::Bool(true)), "{idle}");

    let jobs: Vec<String> = (0..30)
        .map(|number| JOB.replace("echo-0001", &format!("status-{number:04}")))
        .collect();
    assert_eq!(cli.run(&["publish", "-"], &jobs.join("\n")).0, 0);
    let (code, waiting) = status(&cli);
    assert_eq!(
        (code, waiting["waiting"].as_u64()),
        (1, Some(30)),
        "{waiting}"
    );
    assert!(
        problems(&waiting).contains("no worker serves it"),
        "{waiting}"
    );
    assert!(
        waiting["pools"][0]["oldest_waiting_seconds"]
            .as_f64()
            .unwrap()
            < 60.0
    );

    let worker = Worker::start(&cli, "status-worker", &["--concurrency", "3"]);
    let done = until(&cli, "all is done", |code, status| {
        code == 0 && status["waiting"] == 0 && status["pools"][0]["workers"]["ready"] == 1
    });
    let pool = &done["pools"][0];
    assert_eq!(pool["without_owner"], serde_json::json!([]), "{done}");
    assert_eq!(pool["partitions"][3]["owner"], "status-worker");
    assert_eq!(pool["permits"], 3);
    assert_eq!(
        done["workers"][0]["partitions"],
        serde_json::json!([0, 1, 2, 3])
    );
    assert_eq!(done["dead_letters"]["count"], 0);

    let (code, out, errors) = cli.run(&["workers"], "");
    assert_eq!(code, 0, "{errors}");
    let line = out
        .lines()
        .find(|line| line.starts_with("status-worker"))
        .unwrap();
    for part in [
        "ready",
        "default",
        "0/3",
        env!("CARGO_PKG_VERSION"),
        "system.echo",
    ] {
        assert!(line.contains(part), "{part}: {out}");
    }
    let (_, out, _) = cli.run(&["workers", "--output", "json"], "");
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&found["state"], &found["vanished"]),
        (&"ready".into(), &false.into())
    );

    // Work behind a job that takes long is done, and no backlog: the committed offset alone would say 11.
    let long = r#"{"version":"1.0","job_id":"status-long","created_at":"2026-11-24T15:00:00Z","kind":"VMOperation","operation":"system.echo","payload":{"type":"system.echo.v1","data":{"sleep_ms":60000}},"execution":{"idempotency_key":"K"}}"#;
    let slot = guestkit_protocol::slot_of("K", 4);
    let beside: Vec<String> = (0..)
        .map(|number| format!("beside-{number:04}"))
        .filter(|id| guestkit_protocol::slot_of(id, 4) == slot)
        .take(10)
        .map(|id| JOB.replace("echo-0001", &id))
        .collect();
    let all = format!("{long}\n{}", beside.join("\n"));
    assert_eq!(cli.run(&["publish", "-"], &all).0, 0);
    let running = until(&cli, "ten of eleven are done", |_, status| {
        status["waiting"] == 1
    });
    assert!(running["lag"].as_i64().unwrap() >= 11, "{running}");
    assert_eq!(running["ok"], true, "{running}");

    // A record that is no job.
    let connection = guestkit_kafka::Connection::plain(&cli.servers).unwrap();
    let producer =
        guestkit_kafka::produce::Producer::new(&connection, Duration::from_secs(20)).unwrap();
    let garbage = guestkit_kafka::produce::Outgoing {
        topic: format!("{}.jobs", cli.prefix),
        partition: 0,
        value: Some(b"nonsense".to_vec()),
        ..Default::default()
    };
    producer.send(&garbage, 0).unwrap();
    assert_eq!(producer.finish().len(), 1);
    let letter = until(&cli, "the dead letter", |code, status| {
        code == 1 && status["dead_letters"]["count"] == 1
    });
    assert!(problems(&letter).contains("INVALID_JOB"), "{letter}");
    let (code, out, _) = cli.run(&["status", "--group-id", &cli.prefix], "");
    assert_eq!(code, 1);
    assert!(out.starts_with("not all right: dead letter"), "{out}");
    assert!(!out.contains('\u{1b}'), "colour is for terminals: {out:?}");

    // The worker dies; its group notices within the session.
    drop(worker);
    until(&cli, "nobody is left", |code, status| {
        code == 1 && problems(status).contains("no worker serves it")
    });
}

#[test]
fn watching_goes_on_until_the_time_is_up() {
    let cli = Cli::new("watch");
    assert_eq!(cli.run(&["topics", "create", "--partitions", "1"], "").0, 0);
    let (code, out, errors) = cli.run(
        &[
            "status",
            "--watch",
            "1",
            "--timeout",
            "4s",
            "--output",
            "json",
        ],
        "",
    );
    assert_eq!(code, 0, "{errors}");
    assert!(out.lines().count() >= 2, "{out}");
    for line in out.lines() {
        let found: Value = serde_json::from_str(line).unwrap();
        assert_eq!(found["ok"], true);
    }
    assert_eq!(cli.run(&["status", "--watch", "0"], "").0, 2);
}
