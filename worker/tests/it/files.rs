//! The file transport: exactly one result per key over kill -9.

use crate::fleet::{echo, now, wait_until};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn start(dir: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_guestkit-worker"))
        .arg("run")
        .arg("--jobs-dir")
        .arg(dir.join("jobs"))
        .arg("--results-dir")
        .arg(dir.join("results"))
        .args(["--concurrency", "8"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(
            fs::File::options()
                .create(true)
                .append(true)
                .open(dir.join("log"))
                .unwrap(),
        )
        .spawn()
        .unwrap()
}

fn waiting(dir: &Path) -> usize {
    fs::read_dir(dir.join("jobs"))
        .unwrap()
        .filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .ends_with(".json")
        })
        .count()
}

fn result(dir: &Path, job_id: &str) -> serde_json::Value {
    let path = dir.join(format!("results/{job_id}-result.json"));
    serde_json::from_slice(&fs::read(&path).unwrap_or_else(|_| panic!("{}", path.display())))
        .unwrap()
}

#[test]
fn one_result_per_key_over_kill_9_and_every_file_ends_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("jobs")).unwrap();
    let (jobs, keys) = (240, 90);
    let mut worker = start(dir);
    let mut seed = 42_u64;
    for n in 0..jobs {
        let key = n % keys;
        let data = format!(r#"{{"key":{key},"sleep_ms":{}}}"#, key % 4 * 10);
        let hidden = dir.join("jobs/.partial");
        fs::write(
            &hidden,
            echo(&format!("job-{n:06}"), Some(&format!("key-{key}")), &data),
        )
        .unwrap();
        fs::rename(hidden, dir.join(format!("jobs/j{n:04}.json"))).unwrap();
        if n % 20 == 19 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(99);
            std::thread::sleep(Duration::from_millis(50 + (seed >> 33) % 300));
            worker.kill().unwrap();
            worker.wait().unwrap();
            worker = start(dir);
        }
    }
    fs::write(dir.join("jobs/broken.json"), "{\"nope\"").unwrap();
    wait_until("all files are settled", LIMIT, || waiting(dir) == 0);
    xtask::cluster::process::sigterm(worker.id()).unwrap();
    assert!(worker.wait().unwrap().success());
    let mut executed: BTreeMap<String, u32> = BTreeMap::new();
    for n in 0..jobs {
        let result = result(dir, &format!("job-{n:06}"));
        assert_eq!(result["status"], "completed");
        if result["duplicate_of"].is_null() {
            let key = result["execution_summary"]["idempotency_key"]
                .as_str()
                .unwrap();
            *executed.entry(key.to_owned()).or_default() += 1;
        }
        assert!(dir.join(format!("jobs/done/j{n:04}.json")).exists());
    }
    assert_eq!(executed.len(), keys);
    assert!(executed.values().all(|count| *count == 1));
    assert!(dir.join("jobs/failed/broken.json").exists());
    let reason = fs::read_to_string(dir.join("jobs/failed/broken.json.reason.txt")).unwrap();
    assert!(
        reason.starts_with("INVALID_JOB") && reason.contains("byte 7"),
        "{reason}"
    );
}

#[test]
fn a_second_worker_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("jobs")).unwrap();
    let mut first = start(dir);
    let end = now() + LIMIT;
    while !dir.join("results/.guestkit/log").exists() {
        assert!(now() < end);
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = start(dir).wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(
        fs::read_to_string(dir.join("log"))
            .unwrap()
            .contains("in use by another worker")
    );
    first.kill().unwrap();
    first.wait().unwrap();
}

/// The forms that an inspection's document may have, and what else is refused.
#[test]
fn the_form_of_a_report_is_what_the_job_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("jobs")).unwrap();
    let guests =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../inspector/tests/data/guests/deb12-gpt-ext4");
    let forms = [
        ("none-0001", r"{}", r"{}"),
        ("cyclonedx-0001", r#"{"format":"cyclonedx"}"#, r"{}"),
        ("spdx-0001", r#"{"format":"spdx"}"#, r"{}"),
        ("xml-00001", r#"{"format":"xml"}"#, r"{}"),
        (
            "empty-0001",
            r#"{"format":"spdx"}"#,
            r#"{"include_packages":false}"#,
        ),
    ];
    for (id, output, options) in forms {
        let job = format!(
            r#"{{"version":"1.0","job_id":"{id}","created_at":"2026-11-24T15:00:00Z","kind":"VMOperation","operation":"guestkit.inspect","payload":{{"type":"guestkit.inspect.v1","data":{{"image":{{"path":"deb12-gpt-ext4.qcow2"}},"options":{options},"output":{output}}}}}}}"#
        );
        fs::write(dir.join(format!("jobs/{id}.json")), job).unwrap();
    }
    let mut worker = Command::new(env!("CARGO_BIN_EXE_guestkit-worker"))
        .arg("run")
        .arg("--jobs-dir")
        .arg(dir.join("jobs"))
        .arg("--results-dir")
        .arg(dir.join("results"))
        .arg("--disk-root")
        .arg(guests)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.join("log")).unwrap())
        .spawn()
        .unwrap();
    wait_until("all files are settled", LIMIT, || waiting(dir) == 0);
    xtask::cluster::process::sigterm(worker.id()).unwrap();
    assert!(worker.wait().unwrap().success());
    let [none, cyclonedx, spdx, xml, empty] = forms.map(|(id, ..)| result(dir, id));
    assert_eq!(none["data"]["schema"], "guestkit.inspect.v1", "{none}");
    assert_eq!(cyclonedx["data"]["bomFormat"], "CycloneDX", "{cyclonedx}");
    assert_eq!(spdx["data"]["spdxVersion"], "SPDX-2.3", "{spdx}");
    let packages = none["data"]["packages"].as_array().unwrap().len();
    assert!(packages > 100);
    // And the operating system.
    for list in [&cyclonedx["data"]["components"], &spdx["data"]["packages"]] {
        assert_eq!(list.as_array().unwrap().len(), packages + 1);
    }
    for (refused, part) in [(xml, "cyclonedx and spdx"), (empty, "include_packages")] {
        assert_eq!(refused["status"], "failed");
        assert_eq!(refused["error"]["code"], "INVALID_JOB");
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{message}");
    }
}
