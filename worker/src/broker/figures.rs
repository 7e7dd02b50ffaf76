//! What librdkafka says of itself, by an allow-list.
//!
//! Its statistics hold some hundred numbers for each broker and partition. These are the ones that
//! tell a person whether a client is well; their meaning is librdkafka's (STATISTICS.md).

use rdkafka::Statistics;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// How often clients report. Making and reading a report takes about a millisecond with a dozen
/// partitions.
pub const REPORT_MS: &str = "5000";

/// The newest report of one client.
#[derive(Debug, Default)]
pub struct Figures {
    newest: Mutex<Option<Report>>,
}

/// What is taken out of a report.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Report {
    /// Brokers known by their id.
    pub brokers: u64,
    /// Those of them that a connection is up to.
    pub brokers_up: u64,
    /// Slowest broker's round trip, in seconds: average and 99th percentile of the last interval.
    pub rtt_seconds: (f64, f64),
    /// Longest time that a broker made this client wait for going over its quota, in seconds.
    pub throttle_seconds: f64,
    /// Requests sent.
    pub requests: u64,
    /// Responses received.
    pub responses: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Records sent.
    pub sent_records: u64,
    /// Records received.
    pub received_records: u64,
    /// Records in the producer's queue.
    pub queued_records: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Records fetched that the worker has not taken.
    pub fetched_records: u64,
    /// Requests that wait for being sent or answered.
    pub requests_waiting: u64,
    /// Requests that were not answered in time.
    pub request_timeouts: u64,
    /// Requests sent again.
    pub retries: u64,
    /// Errors of sending and of receiving.
    pub errors: u64,
    /// Connections lost.
    pub disconnects: u64,
}

impl Figures {
    /// Takes a report.
    pub fn take(&self, statistics: &Statistics) {
        let report = report(statistics);
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
    }

    /// The newest report; none in the first seconds.
    #[must_use]
    pub fn newest(&self) -> Option<Report> {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counters are signed in the binding, and never negative.
fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn seconds(microseconds: i64) -> f64 {
    // Exact below 2^53 microseconds.
    microseconds.max(0) as f64 / 1e6
}

fn report(statistics: &Statistics) -> Report {
    let mut report = Report {
        requests: count(statistics.tx),
        responses: count(statistics.rx),
        sent_bytes: count(statistics.tx_bytes),
        received_bytes: count(statistics.rx_bytes),
        sent_records: count(statistics.txmsgs),
        received_records: count(statistics.rxmsgs),
        queued_records: statistics.msg_cnt,
        queued_bytes: statistics.msg_size,
        ..Report::default()
    };
    let mut up: BTreeMap<i32, bool> = BTreeMap::new();
    for broker in statistics.brokers.values() {
        // Bootstrap addresses have no id. A coordinator has a connection of its own beside the one of
        // the broker that it is: whichever is up counts.
        if broker.nodeid >= 0 {
            *up.entry(broker.nodeid).or_default() |= broker.state == "UP";
        }
        report.requests_waiting += count(broker.outbuf_cnt) + count(broker.waitresp_cnt);
        report.request_timeouts += broker.req_timeouts;
        report.retries += broker.txretries;
        report.errors += broker.txerrs + broker.rxerrs;
        report.disconnects += broker.disconnects.map_or(0, count);
        if let Some(rtt) = &broker.rtt {
            let (average, late) = &mut report.rtt_seconds;
            *average = average.max(seconds(rtt.avg));
            *late = late.max(seconds(rtt.p99));
        }
        if let Some(throttle) = &broker.throttle {
            // Milliseconds, other than the round trips.
            let waited = seconds(throttle.max.saturating_mul(1_000));
            report.throttle_seconds = report.throttle_seconds.max(waited);
        }
    }
    report.brokers = up.len() as u64;
    report.brokers_up = up.values().filter(|up| **up).count() as u64;
    report.fetched_records = statistics
        .topics
        .values()
        .flat_map(|topic| topic.partitions.values())
        .map(|partition| count(partition.fetchq_cnt))
        .sum();
    report
}
