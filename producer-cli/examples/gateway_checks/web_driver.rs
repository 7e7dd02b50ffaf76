//! A Chromium by way of ChromeDriver: as much of WebDriver as the page's check needs.

use super::stand::{Program, now};
use reqwest::Client;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// Longer than a page takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser window.
pub(crate) struct Browser {
    _driver: Program,
    client: Client,
    session: String,
}

impl Browser {
    /// Starts driver and browser; their files are in `dir`.
    pub(crate) async fn start(dir: &Path) -> Self {
        let port = xtask::cluster::free_port();
        let driver = Program::start(
            Path::new("chromedriver"),
            &[format!("--port={port}")],
            dir.join("chromedriver.log"),
        );
        let client = Client::builder()
            .timeout(Duration::from_secs(90))
            .build()
            .unwrap();
        let profile = format!("--user-data-dir={}", dir.join("profile").display());
        // Without the background flags Chromium looks for its makers' hosts at every start.
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--window-size=1180,1360",
            &profile,
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let base = format!("http://127.0.0.1:{port}/session");
        let start = now();
        loop {
            if let Ok(answer) = client.post(&base).json(&wanted).send().await {
                let answer: Value = answer.json().await.unwrap();
                let id = answer["value"]["sessionId"].as_str();
                let id = id.unwrap_or_else(|| panic!("no browser: {answer}"));
                return Self {
                    _driver: driver,
                    client,
                    session: format!("{base}/{id}"),
                };
            }
            assert!(start.elapsed() < PATIENCE, "chromedriver does not answer");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn ask(&self, path: &str, body: Value) -> Value {
        let url = format!("{}/{path}", self.session);
        let answer = self.client.post(url).json(&body).send().await.unwrap();
        let mut answer: Value = answer.json().await.unwrap();
        assert!(answer["value"]["error"].is_null(), "{path}: {answer}");
        answer["value"].take()
    }

    pub(crate) async fn open(&self, url: &str) {
        self.ask("url", json!({"url": url})).await;
    }

    /// The value of a script.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.ask("execute/sync", json!({"script": script, "args": []}))
            .await
    }

    /// Waits until an expression is true.
    pub(crate) async fn wait_for(&self, expression: &str) {
        let start = now();
        while self.run(&format!("return Boolean({expression})")).await != json!(true) {
            if start.elapsed() > PATIENCE {
                let text = self.run("return document.body.innerText").await;
                panic!(
                    "not so: {expression}\n{}",
                    text.as_str().unwrap_or_default()
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What the browser complains of.
    pub(crate) async fn complaints(&self) -> Vec<Value> {
        let log = self.ask("se/log", json!({"type": "browser"})).await;
        log.as_array().cloned().unwrap_or_default()
    }

    /// A picture of the window, PNG.
    pub(crate) async fn picture(&self) -> Vec<u8> {
        let url = format!("{}/screenshot", self.session);
        let answer = self.client.get(url).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        base64(answer["value"].as_str().unwrap())
    }

    /// Ends the browser; a driver that is killed would leave it.
    pub(crate) async fn close(self) {
        self.client.delete(&self.session).send().await.unwrap();
    }
}

fn base64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let value = LETTERS.iter().position(|known| *known == letter).unwrap();
        bits = (bits << 6) | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).unwrap());
        }
    }
    bytes
}
