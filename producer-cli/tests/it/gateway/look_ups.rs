//! Jobs that left the memory, of this gateway or of others.

use super::stand::{Stand, block_on, echo, now};
use guestkit_kafka::Connection;
use guestkit_kafka::produce::{Outgoing, Producer};
use serde_json::json;
use std::time::Duration;

#[test]
fn what_left_the_memory_is_read_from_its_partition() {
    block_on(async {
        let stand = Stand::new("lookup", 4);
        // The smallest memory: a hundred jobs.
        let gateway = stand.gateway(&["--recent-jobs", "100"]).await;
        let _worker = stand.worker("lookup-1", &[]);
        let (_, first) = gateway
            .post(&echo("the first", json!({"n": "first"})))
            .await;
        let first = first["job_id"].as_str().unwrap();
        gateway.finished(first).await;
        // A large result is never kept; its place is.
        let (_, large) = gateway
            .post(&echo("large", json!({"result_bytes": 200_000})))
            .await;
        let large = large["job_id"].as_str().unwrap();
        let job = gateway.finished(large).await;
        assert!(job["result"]["data"].to_string().len() > 150_000);
        let mut last = String::new();
        for number in 0..150 {
            let (status, accepted) = gateway
                .post(&echo(&format!("k{number}"), json!(number)))
                .await;
            assert_eq!(status, 202);
            last = accepted["job_id"].as_str().unwrap().to_owned();
        }
        gateway.finished(&last).await;
        let (_, jobs) = gateway.json("/v1/jobs?limit=500").await;
        assert_eq!(jobs["jobs"].as_array().unwrap().len(), 100);
        assert!(!jobs.to_string().contains(first));

        let start = now();
        let (status, job) = gateway.json(&format!("/v1/jobs/{first}")).await;
        assert_eq!(
            (status, &job["result"]["data"]["n"]),
            (200, &json!("first")),
            "{job}"
        );
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
        let (status, job) = gateway.json(&format!("/v1/jobs/{large}")).await;
        assert!(status == 200 && job["result"]["data"].to_string().len() > 150_000);

        // An id that nobody published, of each kind.
        for id in [
            "not-there-1".to_owned(),
            format!("{}0000", &first[..first.len() - 4]),
            first.replacen("gw-", "gw-9", 1),
        ] {
            let (status, problem) = gateway.json(&format!("/v1/jobs/{id}")).await;
            assert_eq!(status, 404, "{id}: {problem}");
        }
    });
}

#[test]
fn dead_letters_are_shown_with_their_reason() {
    block_on(async {
        let stand = Stand::new("letters", 2);
        let gateway = stand.gateway(&[]).await;
        let _worker = stand.worker("letters-1", &[]);
        let connection = Connection::plain(&stand.bootstrap).unwrap();
        let producer = Producer::new(&connection, Duration::from_secs(20)).unwrap();
        let bad = Outgoing {
            topic: format!("{}.jobs", stand.prefix),
            partition: 1,
            key: Some(b"<script>key</script>".to_vec()),
            value: Some(b"nonsense".to_vec()),
            headers: Vec::new(),
        };
        producer.send(&bad, 0).unwrap();
        assert!(producer.finish()[0].outcome.is_ok());
        let start = now();
        let letter = loop {
            let (_, found) = gateway.json("/v1/dead-letters").await;
            if let Some(letter) = found["dead_letters"].get(0) {
                break letter.clone();
            }
            assert!(start.elapsed() < super::stand::PATIENCE);
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(letter["reason"], "INVALID_JOB", "{letter}");
        assert_eq!(letter["key"], "<script>key</script>");
        assert_eq!(letter["source_partition"], "1");
        assert!(
            letter["error"].as_str().unwrap().contains("begins with"),
            "{letter}"
        );
    });
}
