//! Bad input of every kind: 4xx, a reason, and the field.

use super::stand::{Stand, block_on, echo, parts};
use reqwest::Method;
use serde_json::json;
use std::io::{Read, Write};
use std::time::Duration;

#[test]
fn every_refusal_is_a_problem_document_that_names_the_field() {
    block_on(async {
        let stand = Stand::new("bad", 2);
        let gateway = stand.gateway(&["--body-limit", "4096"]).await;
        let jobs = format!("{}/v1/jobs", gateway.url);
        let post = |body: &str| {
            let request = gateway.client.post(&jobs).body(body.to_owned());
            request.header("content-type", "application/json").send()
        };
        let good = echo("k", json!(1)).to_string();
        for (body, status, field) in [
            ("", 400, "body"),
            ("{", 400, "body"),
            ("[1]", 400, "body"),
            ("\u{0}", 400, "body"),
            (
                r#"{"operation":"a.b","payload":1,"operation":"a.b"}"#,
                400,
                "body",
            ),
            (r#"{"payload":1}"#, 400, "operation"),
            (r#"{"operation":"nodots","payload":1}"#, 400, "operation"),
            (
                r#"{"operation":"a.b","payload":1,"execution":{"priority":0}}"#,
                400,
                "execution.priority",
            ),
            (
                r#"{"version":"9.9","operation":"a.b","payload":{"type":"a.b.v1","data":1}}"#,
                400,
                "version",
            ),
            (r#"{"operation":"a.b","payload":1,"typo":1}"#, 400, "typo"),
        ] {
            let (found, problem) = parts(post(body).await.unwrap()).await;
            assert_eq!(found, status, "{body}: {problem}");
            assert_eq!(problem["errors"][0]["field"], field, "{body}: {problem}");
            assert_eq!(problem["status"], status);
        }
        let deep = format!(
            r#"{{"operation":"a.b","payload":{}1{}}}"#,
            "[".repeat(1000),
            "]".repeat(1000)
        );
        assert_eq!(post(&deep).await.unwrap().status(), 400);
        let large = echo("k", json!("x".repeat(5000))).to_string();
        let answer = post(&large).await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert_eq!(answer.status(), 413);
        assert_eq!(post(&good).await.unwrap().status(), 202);

        let send = |method: Method, path: &str, header: (&'static str, &'static str)| {
            let url = format!("{}{path}", gateway.url);
            let request = gateway.client.request(method, url).body(good.clone());
            request.header(header.0, header.1).send()
        };
        let plain = ("x-nothing", "x");
        for (method, path, header, status, field) in [
            (
                Method::POST,
                "/v1/jobs",
                ("content-type", "text/plain"),
                415,
                Some("Content-Type"),
            ),
            (Method::POST, "/v1/jobs", plain, 415, Some("Content-Type")),
            (
                Method::GET,
                "/v1/jobs",
                ("accept", "text/html"),
                406,
                Some("Accept"),
            ),
            (
                Method::GET,
                "/",
                ("accept", "application/json"),
                406,
                Some("Accept"),
            ),
            (Method::DELETE, "/v1/jobs", plain, 405, None),
            (Method::PUT, "/v1/jobs/some-job-id", plain, 405, None),
            (Method::POST, "/v1/workers", plain, 405, None),
            (Method::GET, "/v1/nothing", plain, 404, None),
            (Method::GET, "/v1/jobs/short", plain, 400, Some("job_id")),
            (
                Method::GET,
                "/v1/jobs/%ff%fe%fd%fc%fb%fa%f9%f8",
                plain,
                400,
                Some("job_id"),
            ),
            (
                Method::GET,
                "/v1/jobs/a%2f..%2fb%00ccccc",
                plain,
                400,
                Some("job_id"),
            ),
            (Method::GET, "/v1/jobs?limit=0", plain, 400, Some("limit")),
            (Method::GET, "/v1/jobs?limit=x", plain, 400, Some("limit")),
            (Method::GET, "/v1/jobs?lmit=1", plain, 400, Some("lmit")),
            (
                Method::GET,
                "/v1/dead-letters?limit=501",
                plain,
                400,
                Some("limit"),
            ),
        ] {
            let answer = send(method.clone(), path, header).await.unwrap();
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
            if status == 405 {
                assert!(answer.headers().contains_key("allow"), "{method} {path}");
            }
            let (found, problem) = parts(answer).await;
            assert_eq!(found, status, "{method} {path}: {problem}");
            if let Some(field) = field {
                assert_eq!(problem["errors"][0]["field"], field, "{method} {path}");
            }
        }
        let key = |value: &'static [u8]| {
            let request = gateway.client.post(&jobs).body(good.clone());
            let value = reqwest::header::HeaderValue::from_bytes(value).unwrap();
            request
                .header("content-type", "application/json")
                .header("idempotency-key", value)
                .send()
        };
        for (value, status) in [
            (&b"k"[..], 202),
            (b"\"k\"", 202),
            (b"other", 400),
            (b"\xff", 400),
            (b"", 400),
        ] {
            assert_eq!(key(value).await.unwrap().status(), status, "{value:?}");
        }
    });
}

#[test]
fn what_is_not_even_http_harms_nobody() {
    let stand = Stand::new("raw", 2);
    let gateway = block_on(stand.gateway(&["--max-connections", "4"]));
    let address = gateway.url.strip_prefix("http://").unwrap();
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(20_000));
    for bytes in [
        &b"\x16\x03\x01\x02\x00nonsense"[..],
        b"GET\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: nonsense\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\nzz\r\n",
        long.as_bytes(),
        many.as_bytes(),
        b"",
    ] {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        // It may hang up in the middle.
        stream.write_all(bytes).ok();
        stream.shutdown(std::net::Shutdown::Write).ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        let text = String::from_utf8_lossy(&answer);
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 4"),
            "{text}"
        );
    }
    // Connections that say nothing take all places; when they go, it serves again.
    let silent: Vec<_> = (0..8)
        .map(|_| std::net::TcpStream::connect(address).unwrap())
        .collect();
    drop(silent);
    let status = block_on(async { gateway.get("/healthz").await.status() });
    assert_eq!(status, 200);
}
