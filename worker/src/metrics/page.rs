//! Series that are a picture of the status page.

use super::seconds;
use super::sheet::Sheet;
use crate::engine::record::Millis;
use crate::status::{Page, PartitionPage, Status};

/// States of a partition, all of which are always shown.
const STATES: [&str; 4] = ["restoring", "running", "stopped", "releasing"];

pub(super) fn draw(sheet: &Sheet, status: &Status, now: Millis) -> prometheus::Result<()> {
    let page = status.page();
    worker(sheet, status, &page, now)?;
    records(sheet, &page)?;
    permits(sheet, &page, now)?;
    partitions(sheet, &page)?;
    ledger(sheet, status, &page, now)
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// Counts of things in memory are exact below 2^53.
fn figure(count: usize) -> f64 {
    count as f64
}

fn worker(sheet: &Sheet, status: &Status, page: &Page, now: Millis) -> prometheus::Result<()> {
    let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
    let build = [env!("CARGO_PKG_VERSION"), librdkafka.as_str()];
    sheet.gauges(
        "guestkit_build_info",
        "Versions of the worker and of librdkafka; always 1.",
        &["version", "librdkafka"],
        [(&build[..], 1.0)],
    )?;
    sheet.gauge(
        "guestkit_worker_ready",
        "1 while the worker takes jobs: assigned, restored, not draining (/readyz).",
        flag(status.is_ready()),
    )?;
    sheet.gauge(
        "guestkit_worker_alive",
        "1 while all loops of the worker turn (/healthz).",
        flag(status.stuck(now).is_empty()),
    )?;
    sheet.gauge(
        "guestkit_worker_draining",
        "1 once the worker was told to leave.",
        flag(page.draining),
    )?;
    let ages = status.health().ages(now);
    let ages = ages.iter().map(|(name, age)| ([*name], seconds(*age)));
    let ages: Vec<_> = ages.collect();
    sheet.gauges(
        "guestkit_loop_age_seconds",
        "Time since a loop of the worker last turned; 8 seconds and more are stuck.",
        &["loop"],
        ages.iter().map(|(name, age)| (&name[..], *age)),
    )?;
    sheet.counter(
        "guestkit_rebalances_total",
        "Rebalance callbacks: partitions given, taken or lost.",
        page.rebalances,
    )
}

fn records(sheet: &Sheet, page: &Page) -> prometheus::Result<()> {
    let counters = &page.counters;
    let by = |values: &[(&'static str, u64)]| -> Vec<([&'static str; 1], u64)> {
        values
            .iter()
            .map(|(label, value)| ([*label], *value))
            .collect()
    };
    let decided = by(&[
        ("executed", counters.executed),
        ("duplicate", counters.duplicates),
        ("conflict", counters.conflicts),
        ("drop", counters.drops),
        ("dead_letter", counters.dead_letters),
        ("forward", counters.forwards),
    ]);
    sheet.counters(
        "guestkit_records_decided_total",
        "Records of the jobs topic that got their answer in a committed transaction, by what they got; a drop repeats a job id that has its answer, a forward went to its slot's partition.",
        &["kind"],
        decided.iter().map(|(label, value)| (&label[..], *value)),
    )?;
    let outcomes = by(&[
        ("committed", counters.committed),
        ("aborted", counters.aborted),
        ("fenced", counters.fenced),
        ("unknown", counters.unknown),
    ]);
    sheet.counters(
        "guestkit_transactions_total",
        "Transactions by outcome; fenced ones were aborted, too, and unknown ones are counted again as committed or aborted once they were read back.",
        &["outcome"],
        outcomes.iter().map(|(label, value)| (&label[..], *value)),
    )?;
    let stops = by(&[
        ("unrestored", counters.stopped_unrestored),
        ("offset_gone", counters.stopped_offset_gone),
        ("unresolved", counters.stopped_unresolved),
    ]);
    sheet.counters(
        "guestkit_slot_stops_total",
        "Partitions that stopped and wait for a person, by reason: the ledger cannot be used, the next record is no longer in the log, a transaction could not be read back.",
        &["reason"],
        stops.iter().map(|(label, value)| (&label[..], *value)),
    )?;
    for (name, help, value) in [
        (
            "guestkit_records_read_total",
            "Records of the jobs topic taken in; a new owner reads some again.",
            counters.records,
        ),
        (
            "guestkit_outcomes_dropped_total",
            "Outcomes of handlers that no longer counted: the partition was lost, or time was up.",
            counters.outcomes_dropped,
        ),
        (
            "guestkit_ledger_lookups_total",
            "Answers of known keys read back from the ledger.",
            counters.lookups,
        ),
        (
            "guestkit_marks_total",
            "MARK records written: each names the offsets that may run.",
            counters.marks,
        ),
        (
            "guestkit_progress_lost_total",
            "Progress events that could not be written; nothing depends on them.",
            page.progress_lost,
        ),
    ] {
        sheet.counter(name, help, value)?;
    }
    Ok(())
}

fn permits(sheet: &Sheet, page: &Page, now: Millis) -> prometheus::Result<()> {
    let oldest = page
        .partitions
        .iter()
        .filter_map(|partition| partition.slot.oldest_waiting_ms)
        .min();
    for (name, help, value) in [
        (
            "guestkit_permits",
            "Jobs that may run at the same time (--concurrency).",
            figure(page.permits),
        ),
        (
            "guestkit_permits_used",
            "Permits taken, by jobs that were told to stop and still run, too.",
            figure(page.permits_used),
        ),
        (
            "guestkit_jobs_running",
            "Jobs that run and whose outcome counts.",
            figure(page.running),
        ),
        (
            "guestkit_jobs_queued",
            "Jobs that wait in this worker for a permit or for their MARK's turn.",
            figure(page.queued),
        ),
        (
            "guestkit_oldest_waiting_job_age_seconds",
            "Age of the oldest record read that neither runs nor is decided, from its timestamp (the broker's clock); 0 without one.",
            oldest.map_or(0.0, |published| seconds(now - published)),
        ),
        (
            "guestkit_partitions_waiting_for_schema",
            "Partitions that stand still because the schema registry does not give the schema of their next job.",
            figure(page.schema_waits),
        ),
    ] {
        sheet.gauge(name, help, value)?;
    }
    Ok(())
}

fn partitions(sheet: &Sheet, page: &Page) -> prometheus::Result<()> {
    let states: Vec<_> = STATES
        .iter()
        .map(|state| {
            let is = |partition: &&PartitionPage| partition.slot.state == *state;
            ([*state], page.partitions.iter().filter(is).count())
        })
        .collect();
    sheet.gauges(
        "guestkit_partitions",
        "Partitions that this worker holds, by state.",
        &["state"],
        states
            .iter()
            .map(|(state, count)| (&state[..], figure(*count))),
    )?;
    let paused = page.partitions.iter().filter(|p| p.slot.paused).count();
    sheet.gauge(
        "guestkit_partitions_paused",
        "Partitions that are not read for the moment because their window is full.",
        figure(paused),
    )?;
    if let Some(count) = page.topic_partitions {
        sheet.gauge(
            "guestkit_jobs_partitions",
            "Partitions of the pool's jobs topic.",
            f64::from(count),
        )?;
    }
    let names: Vec<String> = page
        .partitions
        .iter()
        .map(|partition| partition.slot.partition.to_string())
        .collect();
    let stopped: Vec<_> = names
        .iter()
        .zip(&page.partitions)
        .map(|(name, partition)| ([name.as_str()], flag(partition.slot.state == "stopped")))
        .collect();
    sheet.gauges(
        "guestkit_partition_stopped",
        "1 where a partition takes nothing in until a person acts; /status has the reason.",
        &["partition"],
        stopped.iter().map(|(name, value)| (&name[..], *value)),
    )?;
    let mut backlog = Vec::new();
    for (name, partition) in names.iter().zip(&page.partitions) {
        if let Some(unread) = partition.unread {
            // Exact below 2^53.
            backlog.push(([name.as_str(), "unread"], unread as f64));
        }
        let slot = &partition.slot;
        backlog.push(([name.as_str(), "undecided"], figure(slot.undecided)));
        backlog.push(([name.as_str(), "uncommitted"], figure(slot.uncommitted)));
    }
    sheet.gauges(
        "guestkit_backlog_jobs",
        "Records of the jobs topic without a committed answer, by partition and state: unread (high watermark minus read position, without offsets that an earlier owner is known to have settled; before a restore: minus the committed offset or the log's start; transaction markers that were not read yet count), undecided (read), uncommitted (decided, in no committed transaction). An idle partition has 0.",
        &["partition", "state"],
        backlog.iter().map(|(labels, value)| (&labels[..], *value)),
    )
}

fn ledger(sheet: &Sheet, status: &Status, page: &Page, now: Millis) -> prometheus::Result<()> {
    let names: Vec<(String, &PartitionPage)> = page
        .partitions
        .iter()
        .map(|partition| (partition.slot.partition.to_string(), partition))
        .collect();
    let keys: Vec<_> = names
        .iter()
        .map(|(name, partition)| ([name.as_str()], figure(partition.slot.keys)))
        .collect();
    sheet.gauges(
        "guestkit_ledger_index_keys",
        "Idempotency keys in the index of a slot's ledger.",
        &["partition"],
        keys.iter().map(|(name, value)| (&name[..], *value)),
    )?;
    let bytes: Vec<_> = names
        .iter()
        .map(|(name, partition)| ([name.as_str()], figure(partition.slot.index_bytes)))
        .collect();
    sheet.gauges(
        "guestkit_ledger_index_bytes",
        "Memory of the index of a slot's ledger.",
        &["partition"],
        bytes.iter().map(|(name, value)| (&name[..], *value)),
    )?;
    sheet.gauge(
        "guestkit_restore_age_seconds",
        "For how long the oldest restore under way has been going on; 0 without one.",
        seconds(status.metrics().restores.age(now)),
    )?;
    sheet.gauge(
        "guestkit_transaction_age_seconds",
        "For how long the transaction under way has had no known outcome; 0 without one.",
        seconds(status.metrics().transactions.age(now)),
    )
}
