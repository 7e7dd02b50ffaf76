//! Series out of librdkafka's reports.

use super::sheet::Sheet;
use crate::broker::figures::{Figures, Report};
use std::sync::{Arc, Mutex, PoisonError};

/// The clients of a worker, by name.
#[derive(Debug, Default)]
pub struct Clients {
    known: Mutex<Vec<(&'static str, Arc<Figures>)>>,
}

type Gauge = (&'static str, &'static str, fn(&Report) -> f64);
type Counter = (&'static str, &'static str, fn(&Report) -> u64);

/// What is shown as it is now. Counts are exact below 2^53.
const GAUGES: [Gauge; 9] = [
    (
        "guestkit_kafka_brokers",
        "Brokers that a client of this worker knows, by client.",
        |report| report.brokers as f64,
    ),
    (
        "guestkit_kafka_brokers_up",
        "Brokers that a client is connected to, by client; a client connects to those it has to do with.",
        |report| report.brokers_up as f64,
    ),
    (
        "guestkit_kafka_rtt_average_seconds",
        "Round trip to the slowest broker, average of the last report interval, by client; a fetch waits for records.",
        |report| report.rtt_seconds.0,
    ),
    (
        "guestkit_kafka_rtt_p99_seconds",
        "Round trip to the slowest broker, 99th percentile of the last report interval, by client.",
        |report| report.rtt_seconds.1,
    ),
    (
        "guestkit_kafka_throttle_seconds",
        "Longest time that a broker made a client wait for its quota in the last report interval, by client.",
        |report| report.throttle_seconds,
    ),
    (
        "guestkit_kafka_queued_records",
        "Records in a producer's queue, by client.",
        |report| report.queued_records as f64,
    ),
    (
        "guestkit_kafka_queued_bytes",
        "Bytes in a producer's queue, by client.",
        |report| report.queued_bytes as f64,
    ),
    (
        "guestkit_kafka_fetched_records",
        "Records that a consumer has fetched and the worker has not taken, by client.",
        |report| report.fetched_records as f64,
    ),
    (
        "guestkit_kafka_requests_waiting",
        "Requests that wait for being sent or answered, by client.",
        |report| report.requests_waiting as f64,
    ),
];

/// What only rises; the writer's begin anew with each renewed producer.
const COUNTERS: [Counter; 10] = [
    (
        "guestkit_kafka_requests_total",
        "Requests sent, by client.",
        |report| report.requests,
    ),
    (
        "guestkit_kafka_responses_total",
        "Responses received, by client.",
        |report| report.responses,
    ),
    (
        "guestkit_kafka_sent_bytes_total",
        "Bytes sent, by client.",
        |report| report.sent_bytes,
    ),
    (
        "guestkit_kafka_received_bytes_total",
        "Bytes received, by client.",
        |report| report.received_bytes,
    ),
    (
        "guestkit_kafka_sent_records_total",
        "Records sent, by client (librdkafka's txmsgs).",
        |report| report.sent_records,
    ),
    (
        "guestkit_kafka_received_records_total",
        "Records received, by client (librdkafka's rxmsgs).",
        |report| report.received_records,
    ),
    (
        "guestkit_kafka_request_timeouts_total",
        "Requests that were not answered in time, by client.",
        |report| report.request_timeouts,
    ),
    (
        "guestkit_kafka_retries_total",
        "Requests sent again, by client.",
        |report| report.retries,
    ),
    (
        "guestkit_kafka_errors_total",
        "Errors of sending and receiving, by client.",
        |report| report.errors,
    ),
    (
        "guestkit_kafka_disconnects_total",
        "Connections lost, by client; idle ones that a broker closed are among them.",
        |report| report.disconnects,
    ),
];

impl Clients {
    /// Shows a client from now on.
    pub fn watch(&self, name: &'static str, figures: Arc<Figures>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(other, _)| *other != name);
        known.push((name, figures));
    }

    pub(super) fn draw(&self, sheet: &Sheet) -> prometheus::Result<()> {
        let reports: Vec<([&str; 1], Report)> = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let newest = |(name, figures): &(&'static str, Arc<Figures>)| {
                figures.newest().map(|report| ([*name], report))
            };
            known.iter().filter_map(newest).collect()
        };
        for (name, help, value) in GAUGES {
            let values = reports.iter().map(|(of, report)| (&of[..], value(report)));
            sheet.gauges(name, help, &["client"], values)?;
        }
        for (name, help, value) in COUNTERS {
            let values = reports.iter().map(|(of, report)| (&of[..], value(report)));
            sheet.counters(name, help, &["client"], values)?;
        }
        Ok(())
    }
}
