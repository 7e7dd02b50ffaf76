//! Clients that publish and poll through two gateways while gateways and a worker are killed, and what must
//! hold then. Shared with the example that `./dev gateway` runs.

use super::stand::{Gateway, Stand, now};
use guestkit_kafka::Connection;
use guestkit_kafka::reader::{Reader, Start, Step, Until};
use guestkit_protocol::{JobResult, JobStatus, NoRegistry, decode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// How much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) clients: usize,
    pub(crate) jobs: usize,
    /// How often a gateway is killed; the worker is killed once.
    pub(crate) restarts: usize,
    pub(crate) sleep_ms: u64,
}

/// What was seen.
#[derive(Debug)]
pub(crate) struct Report {
    load: Load,
    elapsed: Duration,
    posts: Vec<Duration>,
    retries: usize,
    resident: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut posts = self.posts.clone();
        posts.sort();
        let at = |share: usize| {
            let index = posts.len().saturating_sub(1) * share / 100;
            posts
                .get(index)
                .map_or(0.0, |time| time.as_secs_f64() * 1000.0)
        };
        let rate = self.load.jobs as f64 / self.elapsed.as_secs_f64();
        write!(
            f,
            "{} jobs of {} clients in {:.1} s, {rate:.0} jobs/s to their results; POST p50 {:.1} ms, p99 {:.1} ms; \
             {} requests sent again; largest gateway {:.1} MiB; each job has exactly one result",
            self.load.jobs,
            self.load.clients,
            self.elapsed.as_secs_f64(),
            at(50),
            at(99),
            self.retries,
            self.resident as f64 / 1024.0 / 1024.0,
        )
    }
}

/// How long one job may take with all that happens to it.
const JOB_MAX: Duration = Duration::from_secs(240);

struct Client {
    http: reqwest::Client,
    urls: [String; 2],
    retries: AtomicUsize,
}

impl Client {
    /// Sends until one of the gateways answers with this status.
    async fn ask(
        &self,
        number: usize,
        wanted: u16,
        request: impl Fn(&str) -> reqwest::RequestBuilder,
    ) -> (Value, Duration) {
        let begin = now();
        let mut turn = number;
        loop {
            let start = now();
            let url = &self.urls[turn % 2];
            if let Ok(answer) = request(url).send().await {
                let status = answer.status().as_u16();
                let text = answer.text().await.unwrap_or_default();
                if status == wanted
                    && let Ok(body) = serde_json::from_str(&text)
                {
                    return (body, start.elapsed());
                }
                assert!(
                    status == wanted || status == 503 || status == 429,
                    "{status}: {text}"
                );
            }
            assert!(begin.elapsed() < JOB_MAX, "no answer in time");
            self.retries.fetch_add(1, Ordering::Relaxed);
            turn += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn job(&self, number: usize, sleep_ms: u64) -> (String, Duration) {
        let body = json!({
            "operation": "system.echo",
            "payload": {"number": number, "sleep_ms": sleep_ms},
            "idempotency_key": format!("key-{number}"),
        });
        let post = |url: &str| self.http.post(format!("{url}/jobs")).json(&body);
        let (accepted, time) = self.ask(number, 202, post).await;
        let id = accepted["job_id"].as_str().unwrap().to_owned();
        // Now and then somebody sends the same again, to the other gateway.
        if number.is_multiple_of(10) {
            let (again, _) = self.ask(number + 1, 202, post).await;
            assert_eq!(again["job_id"], accepted["job_id"]);
        }
        let start = now();
        let mut pause = 20;
        loop {
            let get = |url: &str| self.http.get(format!("{url}/jobs/{id}"));
            let (job, _) = self.ask(number, 200, get).await;
            if !job["result"].is_null() {
                assert_eq!(job["status"], "completed", "{job}");
                assert_eq!(job["result"]["data"]["number"], number);
                return (id, time);
            }
            assert!(start.elapsed() < JOB_MAX, "{job}");
            tokio::time::sleep(Duration::from_millis(pause)).await;
            pause = (pause * 2).min(500);
        }
    }
}

/// Runs the load and checks the results topic.
pub(crate) async fn run(stand: &Stand, load: Load) -> Report {
    let mut workers = [stand.worker("load-0", &[]), stand.worker("load-1", &[])];
    let gateways = [stand.gateway(&[]).await, stand.gateway(&[]).await];
    let client = Arc::new(Client {
        http: reqwest::Client::builder()
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap(),
        urls: [gateways[0].url.clone(), gateways[1].url.clone()],
        retries: AtomicUsize::new(0),
    });
    let next = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(Mutex::new(Vec::with_capacity(load.jobs)));
    let start = now();
    let clients: Vec<_> = (0..load.clients)
        .map(|_| {
            let (client, next, done) = (client.clone(), next.clone(), done.clone());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= load.jobs {
                        return;
                    }
                    let answer = client.job(number, load.sleep_ms).await;
                    done.lock().await.push(answer);
                }
            })
        })
        .collect();

    // Restarts at even parts of the work.
    let mut gateways: Vec<Gateway> = gateways.into();
    let mut resident = 0;
    let mut restarts = 0;
    while done.lock().await.len() < load.jobs {
        if clients.iter().any(|client| client.is_finished())
            && next.load(Ordering::Relaxed) < load.jobs
        {
            break;
        }
        let finished = done.lock().await.len();
        if restarts < load.restarts && finished > load.jobs * (restarts + 1) / (load.restarts + 2) {
            gateways[restarts % 2].restart();
            restarts += 1;
            if restarts == 1 {
                workers[0].kill();
                workers[0] = stand.worker("load-2", &[]);
            }
        }
        resident = resident.max(
            gateways
                .iter()
                .map(|g| g.program.resident())
                .max()
                .unwrap_or(0),
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for client in clients {
        client.await.unwrap();
    }
    let elapsed = start.elapsed();
    assert_eq!(
        restarts, load.restarts,
        "the load was over before the restarts"
    );
    let done = std::mem::take(&mut *done.lock().await);
    check(stand, &done);
    Report {
        load,
        elapsed,
        posts: done.into_iter().map(|(_, time)| time).collect(),
        retries: client.retries.load(Ordering::Relaxed),
        resident,
    }
}

/// The truth: the results topic, read_committed.
fn check(stand: &Stand, done: &[(String, Duration)]) {
    let connection = Connection::plain(&stand.bootstrap).unwrap();
    let topic = format!("{}.results", stand.prefix);
    let mut reader = Reader::open(
        &connection,
        &topic,
        &Start::Beginning,
        Until::End,
        Duration::from_secs(30),
    )
    .unwrap();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    loop {
        match reader.next(Duration::from_secs(1)).unwrap() {
            Step::Done => break,
            Step::Idle => {}
            Step::Record(record) => {
                let result: JobResult = decode(&record.value.unwrap(), &NoRegistry).unwrap();
                assert_eq!(result.status, JobStatus::Completed, "{result:?}");
                assert_eq!(result.duplicate_of, None, "{result:?}");
                *seen.entry(result.job_id).or_default() += 1;
            }
        }
    }
    let doubled: Vec<_> = seen.iter().filter(|(_, count)| **count != 1).collect();
    assert!(doubled.is_empty(), "more than one result: {doubled:?}");
    for (id, _) in done {
        assert!(seen.contains_key(id), "no result of {id}");
    }
    assert_eq!(seen.len(), done.len(), "results of jobs that nobody sent");
}
