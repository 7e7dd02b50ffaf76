//! Prometheus metrics: a view of the status page, in base units, with bounded labels.

use crate::status::Page;
use prometheus::core::Collector;
use prometheus::{Encoder, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

/// Media type of the text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// Renders a page.
///
/// # Errors
/// When the metrics contradict each other, which is a fault of ours.
pub fn render(page: &Page) -> prometheus::Result<String> {
    let registry = Registry::new();
    let add = |metric: Box<dyn Collector>| registry.register(metric);
    let counters = &page.counters;
    let decided = IntCounterVec::new(
        Opts::new(
            "guestkit_records_decided_total",
            "Records of the jobs topic that got their answer, by what they got.",
        ),
        &["kind"],
    )?;
    for (kind, value) in [
        ("executed", counters.executed),
        ("duplicate", counters.duplicates),
        ("conflict", counters.conflicts),
        ("drop", counters.drops),
        ("dead_letter", counters.dead_letters),
        ("forward", counters.forwards),
    ] {
        decided.with_label_values(&[kind]).inc_by(value);
    }
    add(Box::new(decided))?;
    let transactions = IntCounterVec::new(
        Opts::new(
            "guestkit_transactions_total",
            "Transactions by outcome; fenced ones are aborted ones too.",
        ),
        &["outcome"],
    )?;
    for (outcome, value) in [
        ("committed", counters.committed),
        ("aborted", counters.aborted),
        ("fenced", counters.fenced),
        ("unknown", counters.unknown),
    ] {
        transactions.with_label_values(&[outcome]).inc_by(value);
    }
    add(Box::new(transactions))?;
    for (name, help, value) in [
        ("guestkit_jobs_running", "Jobs that run.", page.running),
        (
            "guestkit_jobs_queued",
            "Jobs that wait for a permit in this worker.",
            page.queued,
        ),
    ] {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        add(Box::new(gauge))?;
    }
    let slots = IntGaugeVec::new(
        Opts::new(
            "guestkit_slot_keys",
            "Idempotency keys in the dedup index, by slot.",
        ),
        &["partition"],
    )?;
    for slot in &page.partitions {
        slots
            .with_label_values(&[&slot.partition.to_string()])
            .set(i64::try_from(slot.keys).unwrap_or(i64::MAX));
    }
    add(Box::new(slots))?;
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
