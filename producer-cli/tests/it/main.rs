//! The program on a real Kafka: `./dev test` starts one and names it.

#![allow(clippy::unwrap_used)]

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
    let (code, out, _) = cli.run(&["status", "--output", "json"], "");
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, status["lag"].as_i64()), (0, Some(40)));
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
    assert!(out.contains("\"lag\":0"), "{out}");
}

#[test]
fn exit_codes_say_what_happened() {
    let cli = Cli::new("codes");
    assert_eq!(cli.run(&["topics", "check"], "").0, 1);
    assert_eq!(cli.run(&["topics", "create", "--partitions", "1"], "").0, 0);
    let (code, _, errors) = cli.run(&["echo", "--wait", "--timeout", "1s"], "");
    assert_eq!(code, 4, "{errors}");
    assert_eq!(cli.run(&["results", "--job-id", "not-there-1"], "").0, 1);
    assert_eq!(cli.run(&["results"], "").0, 0);
    assert_eq!(
        cli.run(&["progress", "--follow", "--timeout", "1s"], "").0,
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
