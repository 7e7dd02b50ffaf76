//! What a client does all day.

use super::stand::{Stand, block_on, echo, now, parts};
use serde_json::json;
use std::time::Duration;

#[test]
fn jobs_are_published_followed_and_answered() {
    block_on(async {
        let stand = Stand::new("api", 4);
        let gateway = stand.gateway(&[]).await;
        let _worker = stand.worker("api-1", &[]);

        // Post and poll; the Location leads there, and /jobs is the same.
        let body = echo("first", json!({"greeting": "hello", "n": 1.50}));
        let url = format!("{}/jobs", gateway.url);
        let answer = gateway.client.post(url).json(&body).send().await.unwrap();
        let location = answer.headers()["location"].to_str().unwrap().to_owned();
        let (status, accepted) = parts(answer).await;
        assert_eq!(status, 202, "{accepted}");
        assert_eq!(accepted["idempotency_key"], "first");
        assert_eq!(accepted["known"], false);
        let id = accepted["job_id"].as_str().unwrap().to_owned();
        assert_eq!(location, format!("/v1/jobs/{id}"));
        let job = gateway.finished(&id).await;
        assert_eq!(job["status"], "completed");
        assert_eq!(job["operation"], "system.echo");
        assert_eq!(job["result"]["data"]["greeting"], "hello");
        assert_eq!(
            gateway.json(&format!("/jobs/{id}")).await.1["status"],
            "completed"
        );

        // The same request twice is one job; here and at a gateway that has just started.
        let (status, again) = gateway.post(&body).await;
        assert_eq!((status, &again["job_id"]), (202, &accepted["job_id"]));
        assert_eq!(
            (&again["known"], &again["status"]),
            (&json!(true), &json!("completed"))
        );
        let second = stand.gateway(&[]).await;
        let (status, again) = second.post(&body).await;
        assert_eq!((status, &again["known"]), (202, &json!(true)), "{again}");
        assert_eq!(again["job_id"], accepted["job_id"]);
        assert_eq!(second.finished(&id).await["result"], job["result"]);

        // A known key with another payload.
        for gateway in [&gateway, &second] {
            let (status, problem) = gateway
                .post(&echo("first", json!({"greeting": "hi"})))
                .await;
            assert_eq!(status, 422, "{problem}");
            assert_eq!(problem["errors"][0]["field"], "idempotency_key");
            assert!(problem["detail"].as_str().unwrap().contains(&id));
        }

        // A whole envelope keeps its id; the snippet of the first days works.
        let envelope: serde_json::Value =
            serde_json::from_str(include_str!("../../../../schemas/examples/echo.json")).unwrap();
        let (status, accepted) = second.post(&envelope).await;
        assert_eq!(
            (status, &accepted["job_id"]),
            (202, &json!("echo-0001")),
            "{accepted}"
        );
        let job = gateway.finished("echo-0001").await;
        assert_eq!(job["result"]["status"], "completed");

        // Without a key there is one for the next try.
        let body = json!({"operation": "system.echo", "payload": {}});
        let (_, one) = gateway.post(&body).await;
        let (_, two) = gateway.post(&body).await;
        assert_eq!(one["idempotency_key_generated"], true);
        assert_ne!(one["job_id"], two["job_id"]);

        let (_, jobs) = gateway.json("/v1/jobs?limit=3").await;
        assert_eq!(jobs["jobs"].as_array().unwrap().len(), 3);
        let metrics = gateway.get("/metrics").await.text().await.unwrap();
        assert!(
            metrics.contains("guestkit_gateway_jobs_total{outcome=\"known\"} 1"),
            "{metrics}"
        );
    });
}

#[test]
fn events_are_streamed_until_the_result() {
    block_on(async {
        let stand = Stand::new("events", 2);
        let gateway = stand.gateway(&[]).await;
        let _worker = stand.worker("events-1", &[]);
        let body = echo("e", json!({"sleep_ms": 4000, "progress_steps": 4}));
        let (_, accepted) = gateway.post(&body).await;
        let path = format!("/v1/jobs/{}/events", accepted["job_id"].as_str().unwrap());
        let answer = gateway.get(&path).await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let text = answer.text().await.unwrap();
        let of = |name: &str| text.matches(&format!("event: {name}\n")).count();
        assert!(of("progress") >= 2, "{text}");
        assert_eq!(of("result"), 1, "{text}");
        let first = text
            .lines()
            .find_map(|line| line.strip_prefix("id: "))
            .unwrap();

        // Again from the first event on: it does not come twice.
        let from = |last: String| {
            let url = format!("{}{path}", gateway.url);
            gateway.client.get(url).header("last-event-id", last).send()
        };
        let rest = from(first.to_owned()).await.unwrap().text().await.unwrap();
        assert_eq!(
            rest.matches("event: progress").count(),
            of("progress") - 1,
            "{rest}"
        );
        assert!(!rest.contains(&format!("id: {first}\n")), "{rest}");
        assert_eq!(from("result".to_owned()).await.unwrap().status(), 204);
        assert_eq!(from("nonsense".to_owned()).await.unwrap().status(), 400);
        assert_eq!(
            gateway.get("/v1/jobs/not-there-1/events").await.status(),
            404
        );
    });
}

#[test]
fn a_gateway_that_is_told_to_end_ends_its_streams_and_itself() {
    block_on(async {
        let stand = Stand::new("drain", 2);
        let mut gateway = stand.gateway(&["--drain-timeout", "20s"]).await;
        // No worker: the stream would stay open.
        let (_, accepted) = gateway.post(&echo("e", json!(1))).await;
        let path = format!("/v1/jobs/{}/events", accepted["job_id"].as_str().unwrap());
        let stream = gateway.get(&path).await;
        let start = now();
        xtask::cluster::process::sigterm(gateway.program.child.id()).unwrap();
        stream.text().await.unwrap();
        let ended = xtask::cluster::process::wait_at_most(
            &mut gateway.program.child,
            Duration::from_secs(15),
        );
        assert!(ended.unwrap().expect("it ends").success());
        assert!(start.elapsed() < Duration::from_secs(15));
    });
}

#[test]
fn the_openapi_document_says_what_is_there() {
    block_on(async {
        let stand = Stand::new("openapi", 1);
        let gateway = stand.gateway(&[]).await;
        let (_, accepted) = gateway.post(&echo("k", json!(1))).await;
        let id = accepted["job_id"].as_str().unwrap();
        let (_, document) = gateway.json("/openapi.json").await;
        let mut found = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            let path = path.replace("{job_id}", id);
            // What is described is served, with a status and a media type that are described.
            for (method, operation) in item.as_object().unwrap() {
                found.push(format!("{method} {path}").replace(id, "ID"));
                let method = reqwest::Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                let mut request = gateway
                    .client
                    .request(method.clone(), format!("{}{path}", gateway.url));
                if method == "POST" {
                    request = request.json(&echo("k", json!(1)));
                }
                // Only the head: an event stream goes on.
                let answer = request.send().await.unwrap();
                let described = &operation["responses"][answer.status().as_str()];
                assert!(
                    described.is_object(),
                    "{method} {path}: {}",
                    answer.status()
                );
                assert!(
                    answer.status().is_success(),
                    "{method} {path}: {}",
                    answer.status()
                );
                let media_type = answer.headers()["content-type"].to_str().unwrap();
                let media_type = media_type.split(';').next().unwrap();
                let content = described["content"].as_object().unwrap();
                assert!(
                    content.contains_key(media_type),
                    "{method} {path}: {media_type}"
                );
            }
        }
        // And nothing is served that is not described: the page and the alias apart, this is all there is.
        let all = [
            "get /healthz",
            "get /metrics",
            "get /openapi.json",
            "get /readyz",
            "get /v1/dead-letters",
            "get /v1/jobs",
            "post /v1/jobs",
            "get /v1/jobs/ID",
            "get /v1/jobs/ID/events",
            "get /v1/workers",
        ];
        found.sort();
        let mut all = all.map(str::to_owned);
        all.sort();
        assert_eq!(found, all);
    });
}
