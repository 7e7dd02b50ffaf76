//! Metrics that are a picture of something else, made anew for each scrape.

use prometheus::{CounterVec, GaugeVec, Opts, Registry};

/// A registry for one scrape.
pub(super) struct Sheet(pub(super) Registry);

impl Sheet {
    pub(super) fn gauge(&self, name: &str, help: &str, value: f64) -> prometheus::Result<()> {
        self.gauges(name, help, &[], [(&[][..], value)])
    }

    pub(super) fn counter(&self, name: &str, help: &str, value: u64) -> prometheus::Result<()> {
        self.counters(name, help, &[], [(&[][..], value)])
    }

    /// One gauge with a value for each set of labels.
    pub(super) fn gauges<'a>(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        values: impl IntoIterator<Item = (&'a [&'a str], f64)>,
    ) -> prometheus::Result<()> {
        let gauges = GaugeVec::new(Opts::new(name, help), labels)?;
        for (labels, value) in values {
            gauges.get_metric_with_label_values(labels)?.set(value);
        }
        self.0.register(Box::new(gauges))
    }

    /// One counter with a value for each set of labels.
    pub(super) fn counters<'a>(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        values: impl IntoIterator<Item = (&'a [&'a str], u64)>,
    ) -> prometheus::Result<()> {
        let counters = CounterVec::new(Opts::new(name, help), labels)?;
        for (labels, value) in values {
            // Exact below 2^53.
            counters
                .get_metric_with_label_values(labels)?
                .inc_by(value as f64);
        }
        self.0.register(Box::new(counters))
    }
}
