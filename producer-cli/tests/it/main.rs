//! The program on a real Kafka: `./dev test` starts one and names it.

#![allow(clippy::unwrap_used)]

mod gateway;
mod secure;
mod status;

use std::io::Write;
use std::process::{Command, Output, Stdio};

struct Cli {
    prefix: String,
    servers: String,
}

impl Cli {
    #[allow(clippy::disallowed_methods)]
    fn new(name: &str) -> Self {
        let variable = "GUESTKIT_TEST_BOOTSTRAP_SERVERS";
        let nanos = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.subsec_nanos());
        Self {
            prefix: format!("it-{name}-{}-{nanos}", std::process::id()),
            servers: std::env::var(variable)
                .unwrap_or_else(|_| panic!("{variable} is not set: run `./dev test`")),
        }
    }

    fn run(&self, arguments: &[&str], input: &str) -> (i32, String, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_guestkit-jobs"))
            .args([
                "--topic-prefix",
                &self.prefix,
                "--bootstrap-servers",
                &self.servers,
            ])
            .args(arguments)
            .env_remove("GUESTKIT_SCHEMA_REGISTRY_URL")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that refuses its arguments does not read.
        child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
        let Output {
            status,
            stdout,
            stderr,
        } = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap_or(-1), text(stdout), text(stderr))
    }
}

const JOB: &str = include_str!("../../../schemas/examples/echo.json");

#[test]
fn jobs_go_straight_to_their_slots() {
    let cli = Cli::new("publish");
    let (code, _, errors) = cli.run(&["echo"], "");
    assert_eq!(code, 2, "{errors}");
    assert!(errors.contains("topics create"), "{errors}");
    let (code, _, errors) = cli.run(&["topics", "create", "--partitions", "5"], "");
    assert_eq!(code, 0, "{errors}");
    assert_eq!(cli.run(&["topics", "check"], "").0, 0);

    for framing in ["json", "single-object"] {
        let mut lines = String::new();
        for number in 0..20 {
            lines.push_str(&JOB.replace("echo-0001", &format!("{framing}-{number:04}")));
            lines.push('\n');
        }
        let (code, out, errors) = cli.run(
            &["publish", "-", "--framing", framing, "--output", "json"],
            &lines,
        );
        assert_eq!(code, 0, "{errors}");
        assert_eq!(out.lines().count(), 20);
        for line in out.lines() {
            let found: serde_json::Value = serde_json::from_str(line).unwrap();
            // The example has no idempotency key: the job id is the key.
            let key = found["job_id"].as_str().unwrap();
            assert_eq!(found["partition"], guestkit_protocol::slot_of(key, 5));
        }
    }
    // The default group has workers of other tests.
    let status = ["status", "--output", "json", "--group-id", "nobody"];
    let (code, out, errors) = cli.run(&status, "");
    let status: serde_json::Value =
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("{errors}"));
    // Nobody does them.
    assert_eq!((code, status["waiting"].as_i64()), (1, Some(40)));
}

#[test]
fn nothing_is_published_when_one_job_is_invalid() {
    let cli = Cli::new("invalid");
    assert_eq!(cli.run(&["topics", "create", "--partitions", "2"], "").0, 0);
    let mixed = format!("[{JOB}, {{\"version\":\"1.0\"}}]");
    let (code, out, errors) = cli.run(&["publish", "-"], &mixed);
    assert_eq!((code, &*out), (2, ""), "{errors}");
    assert!(errors.contains("document 2"), "{errors}");
    assert_eq!(cli.run(&["validate", "-"], &mixed).0, 2);
    assert_eq!(cli.run(&["validate", "-"], JOB).0, 0);
    let (_, out, _) = cli.run(&["status", "--output", "json"], "");
    assert!(out.contains("\"waiting\":0"), "{out}");
}

#[test]
fn exit_codes_say_what_happened() {
    let cli = Cli::new("codes");
    assert_eq!(cli.run(&["topics", "check"], "").0, 1);
    assert_eq!(cli.run(&["topics", "create", "--partitions", "1"], "").0, 0);
    let (code, _, errors) = cli.run(&["echo", "--wait", "--timeout", "6s"], "");
    assert_eq!(code, 4, "{errors}");
    assert_eq!(cli.run(&["results", "--job-id", "not-there-1"], "").0, 1);
    assert_eq!(cli.run(&["results"], "").0, 0);
    assert_eq!(
        cli.run(&["progress", "--follow", "--timeout", "6s"], "").0,
        4
    );
    assert_eq!(cli.run(&["dead-letters", "list"], "").0, 0);
    assert_eq!(cli.run(&["dead-letters", "show", "0/0"], "").0, 2);
    assert_eq!(cli.run(&["schemas", "check"], "").0, 2);
    assert_eq!(cli.run(&["echo", "{"], "").0, 2);
    assert_eq!(cli.run(&["no-such-command"], "").0, 2);
    let nobody = Cli {
        prefix: cli.prefix.clone(),
        servers: "127.0.0.1:1".to_owned(),
    };
    assert_eq!(nobody.run(&["status", "--timeout", "1s"], "").0, 3);
}

#[test]
fn dead_letters_come_back_as_they_were() {
    use guestkit_kafka::Connection;
    use guestkit_kafka::produce::{Outgoing, Producer};
    let cli = Cli::new("dead");
    assert_eq!(cli.run(&["topics", "create", "--partitions", "2"], "").0, 0);
    let connection = Connection::plain(&cli.servers).unwrap();
    let producer = Producer::new(&connection, std::time::Duration::from_secs(20)).unwrap();
    let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
    let jobs = format!("{}.jobs", cli.prefix);
    let letter = Outgoing {
        topic: format!("{}.dead-letters", cli.prefix),
        partition: 1,
        key: Some(vec![0xff]),
        value: Some(vec![0, 159, 146, 150]),
        headers: vec![
            header("mine", "kept"),
            header("guestkit_reason", "INVALID_JOB"),
            header("guestkit_source_topic", &jobs),
            header("guestkit_source_partition", "1"),
        ],
    };
    producer.send(&letter, 0).unwrap();
    assert!(producer.finish()[0].outcome.is_ok());

    let (code, out, _) = cli.run(&["dead-letters", "list"], "");
    assert!(
        code == 0 && out.contains("1/0") && out.contains("INVALID_JOB"),
        "{out}"
    );
    let (_, out, _) = cli.run(&["dead-letters", "show", "1/0", "--output", "json"], "");
    let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown["value_hex"], "009f9296");
    let (code, out, errors) = cli.run(&["dead-letters", "replay", "1/0"], "");
    assert!(code == 0 && out.contains(&jobs), "{out}{errors}");
    let (_, out, _) = cli.run(&["status", "--output", "json"], "");
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status["pools"][0]["partitions"][1]["waiting"], 1);
}

#[test]
fn results_are_found_by_job_id() {
    use guestkit_kafka::Connection;
    use guestkit_kafka::produce::{Outgoing, Producer};
    let cli = Cli::new("results");
    assert_eq!(cli.run(&["topics", "create", "--partitions", "2"], "").0, 0);
    let connection = Connection::plain(&cli.servers).unwrap();
    let producer = Producer::new(&connection, std::time::Duration::from_secs(20)).unwrap();
    for number in 0..10 {
        let id = format!("result-{number:04}");
        let result = Outgoing {
            topic: format!("{}.results", cli.prefix),
            partition: number % 2,
            key: Some(id.clone().into_bytes()),
            value: Some(format!(r#"{{"job_id":"{id}","status":"completed"}}"#).into_bytes()),
            headers: Vec::new(),
        };
        producer.send(&result, 0).unwrap();
    }
    assert!(
        producer
            .finish()
            .iter()
            .all(|delivery| delivery.outcome.is_ok())
    );
    let json = ["results", "--output", "json"];
    let (code, out, errors) = cli.run(&json, "");
    assert_eq!((code, out.lines().count()), (0, 10), "{errors}");
    let both = ["--job-id", "result-0003", "--job-id", "result-0008"];
    let (code, out, _) = cli.run(&[&json[..], &both[..]].concat(), "");
    assert_eq!((code, out.lines().count()), (0, 2));
    let one_missing = ["--job-id", "result-0003", "--job-id", "result-9999"];
    let (code, out, _) = cli.run(&[&json[..], &one_missing[..]].concat(), "");
    assert_eq!((code, out.lines().count()), (1, 1));
    let (code, out, _) = cli.run(&[&json[..], &["--since", "10m"][..]].concat(), "");
    assert_eq!((code, out.lines().count()), (0, 10));
}
