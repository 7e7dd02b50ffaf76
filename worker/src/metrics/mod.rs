//! Prometheus metrics: base units, bounded labels, the pool as a label of everything.
//!
//! Two kinds. What happens in the thousands each second is counted where it happens, in series that
//! were looked up at start ([`jobs`], [`transactions`]). Everything else is a picture of the status
//! page and of librdkafka's reports, drawn for each scrape (`page`, [`clients`]): it costs nothing
//! while nobody looks.

mod buckets;
pub mod clients;
pub mod jobs;
mod page;
mod sheet;
pub mod transactions;

use self::clients::Clients;
use self::jobs::Jobs;
use self::sheet::Sheet;
use self::transactions::{Restores, Transactions};
use crate::clock::now_ms;
use crate::engine::record::Millis;
use crate::handlers;
use crate::status::Status;
use prometheus::{Encoder, Registry, TextEncoder};
use std::collections::HashMap;

/// Media type of the text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// The series of one worker.
#[derive(Debug)]
pub struct Metrics {
    pool: String,
    registry: Registry,
    /// What handlers do and what becomes of jobs.
    pub jobs: Jobs,
    /// The pace of transactions.
    pub transactions: Transactions,
    /// The pace of restores.
    pub restores: Restores,
    /// What librdkafka says of itself.
    pub clients: Clients,
}

impl Metrics {
    /// The series of a worker of this pool, with one operation label for each of its handlers.
    ///
    /// # Errors
    /// When the metrics contradict each other, which is a fault of ours.
    pub fn new(pool: &str) -> prometheus::Result<Self> {
        let registry = labelled(pool)?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        Ok(Self {
            pool: pool.to_owned(),
            jobs: Jobs::new(&registry, handlers::registry().into_keys())?,
            transactions: Transactions::new(&registry)?,
            restores: Restores::new(&registry)?,
            clients: Clients::default(),
            registry,
        })
    }
}

/// Renders everything known of a worker.
///
/// # Errors
/// When the metrics contradict each other, which is a fault of ours.
pub fn render(status: &Status) -> prometheus::Result<String> {
    let metrics = status.metrics();
    let sheet = Sheet(labelled(&metrics.pool)?);
    page::draw(&sheet, status, now_ms())?;
    metrics.clients.draw(&sheet)?;
    let mut text = Vec::new();
    let encoder = TextEncoder::new();
    encoder.encode(&metrics.registry.gather(), &mut text)?;
    encoder.encode(&sheet.0.gather(), &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn labelled(pool: &str) -> prometheus::Result<Registry> {
    let labels = HashMap::from([("pool".to_owned(), pool.to_owned())]);
    Registry::new_custom(None, Some(labels))
}

/// Milliseconds in the base unit; clocks of two machines may make a wait negative.
fn seconds(ms: Millis) -> f64 {
    // Exact below 2^53 milliseconds.
    ms.max(0) as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// What a scrape of a worker that has done nothing shows: every family with HELP, every sample
    /// with the pool. What must be seen before it happens has its zero.
    #[test]
    fn a_page_explains_itself() {
        let status = Status::new("gpu").unwrap();
        let text = render(&status).unwrap();
        let explained: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next())
            .collect();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        for sample in samples {
            let name = sample.split(['{', ' ']).next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| {
                    name.strip_suffix(end)
                        .filter(|name| explained.contains(name))
                })
                .unwrap_or(name);
            assert!(explained.contains(family), "no HELP: {sample}");
            assert!(sample.contains("pool=\"gpu\""), "no pool: {sample}");
        }
        for zero in [
            "guestkit_jobs_total{operation=\"other\",status=\"failed\",pool=\"gpu\"} 0",
            "guestkit_partitions{state=\"stopped\",pool=\"gpu\"} 0",
            "guestkit_slot_stops_total{reason=\"offset_gone\",pool=\"gpu\"} 0",
            "guestkit_transactions_total{outcome=\"fenced\",pool=\"gpu\"} 0",
            "guestkit_worker_ready{pool=\"gpu\"} 0",
        ] {
            assert!(text.lines().any(|line| line == zero), "{zero} in\n{text}");
        }
    }
}
