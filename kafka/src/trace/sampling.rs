//! Which traces are recorded: the creator's word counts, unless `OTEL_TRACES_SAMPLER` says otherwise.

use crate::fault::Fault;
use opentelemetry::TraceId;
use opentelemetry::trace::SpanKind;
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample};

/// A sampler of the specification.
#[derive(Debug, Clone)]
pub(super) struct Sampling {
    root: Sampler,
    asks_parent: bool,
}

impl Sampling {
    /// By the standard's names; nothing is `parentbased_always_on`.
    pub(super) fn new(name: Option<&str>, argument: Option<&str>) -> Result<Self, Fault> {
        let name = name.filter(|name| !name.is_empty());
        let name = name.unwrap_or("parentbased_always_on");
        let (asks_parent, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let root = match root {
            "always_on" => Sampler::AlwaysOn,
            "always_off" => Sampler::AlwaysOff,
            "traceidratio" => {
                let ratio = argument.unwrap_or("1").parse::<f64>().ok();
                let ratio = ratio.filter(|ratio| (0.0..=1.0).contains(ratio));
                Sampler::TraceIdRatioBased(ratio.ok_or_else(|| {
                    Fault::Config("OTEL_TRACES_SAMPLER_ARG is no number from 0 to 1".to_owned())
                })?)
            }
            _ => {
                return Err(Fault::Config(format!(
                    "OTEL_TRACES_SAMPLER is {name:?}: give always_on, always_off, traceidratio, or one of them after parentbased_"
                )));
            }
        };
        Ok(Self { root, asks_parent })
    }

    /// Whether a trace is recorded; `parent` is the creator's word, if there is a creator.
    pub(super) fn records(&self, trace_id: u128, parent: Option<bool>) -> bool {
        if let (true, Some(sampled)) = (self.asks_parent, parent) {
            return sampled;
        }
        let id = TraceId::from_bytes(trace_id.to_be_bytes());
        let result = self
            .root
            .should_sample(None, id, "", &SpanKind::Internal, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_creators_word_counts_unless_told_otherwise() {
        let default = Sampling::new(None, None).unwrap();
        assert!(default.records(7, None) && default.records(7, Some(true)));
        assert!(!default.records(7, Some(false)));
        let on = Sampling::new(Some("always_on"), None).unwrap();
        assert!(on.records(7, Some(false)));
        let half = Sampling::new(Some("parentbased_traceidratio"), Some("0.5")).unwrap();
        assert!(half.records(1 << 20, None) && !half.records(u128::from(u64::MAX), None));
        assert!(half.records(u128::from(u64::MAX), Some(true)));
        for (name, argument) in [("sometimes", None), ("traceidratio", Some("2"))] {
            assert!(Sampling::new(Some(name), argument).is_err());
        }
    }
}
