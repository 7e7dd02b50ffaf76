//! The buckets of the histograms.

use prometheus::{Histogram, HistogramOpts, HistogramVec, Opts};

/// Seconds, from the clock's millisecond to the six hours of the longest conversions.
pub(super) const SECONDS: [f64; 22] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0,
];

/// Bytes, from a small process to the largest that a host may give a handler.
const BYTES: [f64; 9] = [
    4_194_304.0,
    16_777_216.0,
    33_554_432.0,
    67_108_864.0,
    134_217_728.0,
    268_435_456.0,
    536_870_912.0,
    1_073_741_824.0,
    4_294_967_296.0,
];

pub(super) fn seconds(name: &str, help: &str) -> prometheus::Result<Histogram> {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()))
}

pub(super) fn bytes(name: &str, help: &str) -> prometheus::Result<Histogram> {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(BYTES.to_vec()))
}

pub(super) fn seconds_by(
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<HistogramVec> {
    let common = Opts::new(name, help);
    HistogramVec::new(
        HistogramOpts::from(common).buckets(SECONDS.to_vec()),
        labels,
    )
}
