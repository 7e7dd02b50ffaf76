//! Tokens, limits and TLS.

use super::stand::{Stand, block_on, echo, parts};
use reqwest::{Certificate, Client, Method, Response};
use serde_json::{Value, json};

const ACME: &str = "acme-0123456789abcdef";
const BETA: &str = "beta-0123456789abcdef";
const STAFF: &str = "staff-0123456789abcdef";

#[test]
fn tenants_see_their_own_and_the_operator_all() {
    block_on(async {
        let stand = Stand::new("tokens", 4);
        let file = stand.dir.path().join("tokens");
        let text = format!("acme:{ACME}\nbeta:{BETA}\n*:{STAFF}\n");
        std::fs::write(&file, text).unwrap();
        let gateway = stand
            .gateway(&["--tokens-file", file.to_str().unwrap()])
            .await;
        let _worker = stand.worker("tokens-1", &[]);
        let ask =
            async |method: Method, token: &str, path: &str, body: Option<Value>| -> Response {
                let mut request = gateway
                    .client
                    .request(method, format!("{}{path}", gateway.url));
                if !token.is_empty() {
                    request = request.bearer_auth(token);
                }
                if let Some(body) = body {
                    request = request.json(&body);
                }
                request.send().await.unwrap()
            };

        for (token, path) in [
            ("", "/v1/jobs"),
            ("wrong-0123456789abcdef", "/v1/jobs"),
            ("", "/jobs/some-job-id"),
            ("", "/v1/workers"),
            ("", "/v1/dead-letters"),
        ] {
            let answer = ask(Method::GET, token, path, None).await;
            assert!(answer.headers().contains_key("www-authenticate"));
            let (status, problem) = parts(answer).await;
            assert_eq!(status, 401, "{path}");
            assert!(!problem.to_string().contains("wrong-"), "{problem}");
        }
        for path in [
            "/",
            "/app.js",
            "/style.css",
            "/openapi.json",
            "/healthz",
            "/metrics",
        ] {
            assert_eq!(
                ask(Method::GET, "", path, None).await.status(),
                200,
                "{path}"
            );
        }

        // The same key of two tenants is two jobs.
        let body = echo("same", json!({"x": 1}));
        let post = async |token| {
            parts(ask(Method::POST, token, "/v1/jobs", Some(body.clone())).await).await
        };
        let (status, acme) = post(ACME).await;
        assert_eq!((status, &acme["idempotency_key"]), (202, &json!("same")));
        let (_, beta) = post(BETA).await;
        assert_ne!(acme["job_id"], beta["job_id"]);
        assert_eq!(beta["known"], false);
        assert_eq!(post(ACME).await.1["known"], true);
        let path = format!("/v1/jobs/{}", acme["job_id"].as_str().unwrap());
        for (token, status) in [(ACME, 200), (BETA, 404), (STAFF, 200), ("", 401)] {
            let answer = ask(Method::GET, token, &path, None).await;
            assert_eq!(answer.status(), status, "{token}");
        }
        let rows = async |token| {
            let (_, list) = parts(ask(Method::GET, token, "/v1/jobs", None).await).await;
            list["jobs"].as_array().unwrap().len()
        };
        assert_eq!(
            (rows(ACME).await, rows(BETA).await, rows(STAFF).await),
            (1, 1, 2)
        );

        // Tokens change without a restart.
        std::fs::write(&file, format!("beta:{BETA}\n")).unwrap();
        let start = super::stand::now();
        while ask(Method::GET, ACME, "/v1/jobs", None).await.status() != 401 {
            assert!(start.elapsed() < super::stand::PATIENCE);
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        let log = std::fs::read_to_string(&gateway.program.log).unwrap();
        assert!(!log.contains("0123456789abcdef"), "{log}");
    });
}

#[test]
fn requests_above_the_limit_wait_a_second() {
    block_on(async {
        let stand = Stand::new("rate", 1);
        let gateway = stand.gateway(&["--rate-limit", "5"]).await;
        let mut refused = 0;
        for _ in 0..20 {
            let answer = gateway.get("/v1/jobs").await;
            if answer.status() == 429 {
                refused += 1;
                assert_eq!(answer.headers()["retry-after"], "1");
                assert_eq!(answer.headers()["content-type"], "application/problem+json");
            }
        }
        assert!((5..=15).contains(&refused), "{refused}");
        // Probes are never refused.
        for _ in 0..20 {
            assert_eq!(gateway.get("/healthz").await.status(), 200);
        }
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        assert_eq!(gateway.get("/v1/jobs").await.status(), 200);
    });
}

#[test]
fn tls_is_spoken_where_there_is_a_certificate() {
    block_on(async {
        let stand = Stand::new("tls", 1);
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (
            stand.dir.path().join("tls.crt"),
            stand.dir.path().join("tls.key"),
        );
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let files = [cert.to_str().unwrap(), key.to_str().unwrap()];
        let mut gateway = stand.start(&["--tls-cert", files[0], "--tls-key", files[1]]);
        let port = gateway.url.rsplit_once(':').unwrap().1.to_owned();
        gateway.url = format!("https://localhost:{port}");
        gateway.client = Client::builder()
            .tls_certs_only([Certificate::from_pem(made.cert.pem().as_bytes()).unwrap()])
            .build()
            .unwrap();
        gateway.ready().await;
        let (status, accepted) = gateway.post(&echo("k", json!(1))).await;
        assert_eq!(status, 202, "{accepted}");
        // Who does not know the certificate, or speaks no TLS, gets nothing.
        let stranger = Client::new();
        assert!(
            stranger
                .get(format!("{}/healthz", gateway.url))
                .send()
                .await
                .is_err()
        );
        let plain = format!("http://127.0.0.1:{port}/healthz");
        assert!(stranger.get(plain).send().await.is_err());
        assert_eq!(gateway.get("/healthz").await.status(), 200);
    });
    // A key that does not belong to the certificate is refused at start.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = (directory.path().join("a"), directory.path().join("b"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, other.signing_key.serialize_pem()).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_guestkit-jobs"))
        .args(["--bootstrap-servers", "127.0.0.1:1", "gateway"])
        .arg("--tls-cert")
        .arg(&cert)
        .arg("--tls-key")
        .arg(&key)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
