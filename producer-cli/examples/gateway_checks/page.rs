//! The page for people in a real browser: what it shows, and that what it shows is never run.

use super::stand::{Stand, now};
use super::web_driver::Browser;
use guestkit_kafka::Connection;
use guestkit_kafka::produce::{Outgoing, Producer};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a repository may be asked to hold for one picture.
const PICTURE_MAX: usize = 200 * 1024;
const TOKEN: &str = "page-0123456789abcdef";
/// Text of strangers that would do something if it were markup.
const HOSTILE: &str =
    "<script>window.pwned=1</script><img src=x onerror=\"window.pwned=1\"><b>bold</b>";

pub(crate) async fn check(stand: &Stand, picture: &Path) {
    let disks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../inspector/tests/data/guests");
    let root = disks.canonicalize().unwrap();
    let gateway = stand.gateway(&[]).await;
    let _worker = stand.worker("worker-a", &["--disk-root", root.to_str().unwrap()]);
    let browser = Browser::start(stand.dir.path()).await;
    browser.open(&gateway.url).await;
    browser
        .wait_for("document.getElementById('live').textContent === 'live'")
        .await;
    browser
        .wait_for("!document.getElementById('no-jobs').hidden")
        .await;

    // Every disk of the repository, a job that runs for a while, one that fails.
    for (number, disk) in images(&root).iter().take(6).enumerate() {
        let path = disk.strip_prefix(&root).unwrap().display().to_string();
        let body = json!({
            "operation": "guestkit.inspect",
            "payload": {"image": {"path": path}},
            "idempotency_key": format!("nightly-{number}"),
        });
        let (status, accepted) = gateway.post(&body).await;
        assert_eq!(status, 202, "{accepted}");
        gateway.finished(accepted["job_id"].as_str().unwrap()).await;
    }
    let long = json!({
        "operation": "system.echo",
        "payload": {"sleep_ms": 60_000, "progress_steps": 60},
        "metadata": {"name": "a long job"},
    });
    assert_eq!(gateway.post(&long).await.0, 202);
    let missing = json!({
        "operation": "guestkit.inspect",
        "payload": {"image": {"path": "not-there.qcow2"}},
    });
    let (_, accepted) = gateway.post(&missing).await;
    gateway.finished(accepted["job_id"].as_str().unwrap()).await;
    publish(stand, "jobs", Some("a record"), b"not a job at all");

    browser
        .wait_for("document.querySelector('.chip.completed')")
        .await;
    browser
        .wait_for("/[0-9]+ packages/.test(document.getElementById('job-rows').innerText)")
        .await;
    browser
        .wait_for("document.getElementById('job-rows').innerText.includes('IMAGE_NOT_FOUND')")
        .await;
    browser
        .wait_for("document.getElementById('letter-list').innerText.includes('INVALID_JOB')")
        .await;
    browser
        .wait_for("document.getElementById('letter-list').innerText.includes('begins with')")
        .await;
    browser
        .wait_for("document.querySelector('.chip.running ~ progress')?.value > 0")
        .await;
    let bytes = browser.picture().await;
    assert!(
        bytes.len() <= PICTURE_MAX,
        "the picture has {} bytes",
        bytes.len()
    );
    std::fs::create_dir_all(picture.parent().unwrap()).unwrap();
    std::fs::write(picture, bytes).unwrap();

    hostile(stand, &browser).await;
    let complaints = browser.complaints().await;
    assert!(complaints.is_empty(), "{complaints:?}");
    login(stand, &browser).await;
    browser.close().await;
    println!("the page shows jobs, results, workers and dead letters, and runs nothing of theirs");
}

/// Text of strangers in every place where one can put it.
async fn hostile(stand: &Stand, browser: &Browser) {
    let result = json!({
        "job_id": "hostile-0001", "status": "completed", "operation": "guestkit.inspect",
        "worker_id": HOSTILE,
        "data": {"os": [{"pretty_name": HOSTILE}], "packages": [{}, {}, {}]},
    });
    publish(
        stand,
        "results",
        Some("hostile-0001"),
        result.to_string().as_bytes(),
    );
    let failed = json!({
        "job_id": "hostile-0002", "status": "failed", "operation": HOSTILE,
        "error": {"code": HOSTILE, "message": HOSTILE},
    });
    publish(
        stand,
        "results",
        Some("hostile-0002"),
        failed.to_string().as_bytes(),
    );
    publish(stand, "jobs", Some(HOSTILE), HOSTILE.as_bytes());
    let worker = json!({
        "worker_id": HOSTILE, "incarnation": "1", "version": HOSTILE, "hostname": HOSTILE,
        "registered_at": "2026-11-26T00:00:00Z",
        "capabilities": {"operations": [HOSTILE]},
        "status": {"state": "ready", "last_heartbeat": "2026-11-26T00:00:00Z"},
    });
    publish(
        stand,
        "workers",
        Some("hostile"),
        worker.to_string().as_bytes(),
    );
    for place in ["job-rows", "worker-list", "letter-list"] {
        let shown = format!(
            "document.getElementById('{place}').innerText.includes('<script>window.pwned=1</script>')"
        );
        browser.wait_for(&shown).await;
    }
    browser
        .wait_for("document.getElementById('job-rows').innerText.includes('3 packages')")
        .await;
    let found = browser
        .run(
            "return [window.pwned === undefined, document.querySelectorAll('script').length, \
             document.querySelectorAll('img, b, iframe').length]",
        )
        .await;
    assert_eq!(found, json!([true, 1, 0]));
}

/// With tokens the page asks for one.
async fn login(stand: &Stand, browser: &Browser) {
    let file = stand.dir.path().join("page-tokens");
    std::fs::write(&file, format!("*:{TOKEN}\n")).unwrap();
    let gateway = stand
        .gateway(&["--tokens-file", file.to_str().unwrap()])
        .await;
    browser.open(&gateway.url).await;
    browser
        .wait_for(
            "!document.getElementById('login').hidden && document.getElementById('board').hidden",
        )
        .await;
    let give = async |token: &str| {
        browser
            .run(&format!(
                "document.getElementById('token').value = '{token}'; document.querySelector('#login button').click()"
            ))
            .await;
    };
    give("wrong").await;
    browser
        .wait_for("document.getElementById('login-why').textContent.includes('not known')")
        .await;
    give(TOKEN).await;
    browser
        .wait_for(
            "!document.getElementById('board').hidden && document.querySelector('.chip.completed')",
        )
        .await;
    browser.run("sessionStorage.clear()").await;
}

fn publish(stand: &Stand, topic: &str, key: Option<&str>, value: &[u8]) {
    let connection = Connection::plain(&stand.bootstrap).unwrap();
    let producer = Producer::new(&connection, Duration::from_secs(20)).unwrap();
    let record = Outgoing {
        topic: format!("{}.{topic}", stand.prefix),
        partition: 0,
        key: key.map(|key| key.as_bytes().to_vec()),
        value: Some(value.to_vec()),
        headers: Vec::new(),
    };
    producer.send(&record, 0).unwrap();
    let start = now();
    assert!(
        producer.finish()[0].outcome.is_ok(),
        "{:?}",
        start.elapsed()
    );
}

fn images(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(images(&path));
        } else if path
            .extension()
            .is_some_and(|end| end == "qcow2" || end == "vmdk")
        {
            found.push(path);
        }
    }
    found.sort();
    found
}
