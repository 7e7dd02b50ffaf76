//! W3C trace context: the `traceparent` header, and its place in documents.

use crate::document::envelope::Observability;
use std::fmt;

/// A span as others refer to it. Neither id is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

/// Bit of the flags: somebody records this trace.
const SAMPLED: u8 = 1;
/// Length of version 00.
const LENGTH: usize = 55;

impl TraceContext {
    /// A context of its parts; `None` when an id is zero.
    #[must_use]
    pub fn new(trace_id: u128, span_id: u64, is_sampled: bool) -> Option<Self> {
        (trace_id != 0 && span_id != 0).then_some(Self {
            trace_id,
            span_id,
            flags: u8::from(is_sampled),
        })
    }

    /// Reads a `traceparent` header; `None` when it is none, as the specification demands.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let bytes = header.as_bytes();
        let is_known = header.starts_with("00-") && header.len() == LENGTH;
        // A later version may say more, after a dash.
        let is_later = header.len() == LENGTH || bytes.get(LENGTH) == Some(&b'-');
        if !is_known && (header.starts_with("00") || header.starts_with("ff") || !is_later) {
            return None;
        }
        let part = |from: usize, to: usize| {
            let text = header.get(from..to)?;
            let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            text.bytes().all(hex).then_some(text)
        };
        for dash in [2, 35, 52] {
            if bytes.get(dash) != Some(&b'-') {
                return None;
            }
        }
        part(0, 2)?;
        let trace_id = u128::from_str_radix(part(3, 35)?, 16).ok()?;
        let span_id = u64::from_str_radix(part(36, 52)?, 16).ok()?;
        let flags = u8::from_str_radix(part(53, 55)?, 16).ok()?;
        Self::new(trace_id, span_id, flags & SAMPLED != 0)
    }

    /// What a document says, where no header does. It has no flags: whoever wrote it down records it.
    #[must_use]
    pub fn of_document(observability: &Observability) -> Option<Self> {
        let trace_id = observability.trace_id.as_deref()?.to_ascii_lowercase();
        let span_id = observability.span_id.as_deref()?.to_ascii_lowercase();
        Self::parse(&format!("00-{trace_id}-{span_id}-01"))
    }

    /// Writes itself into a document, with the span that it belongs to.
    pub fn write_to(self, observability: &mut Observability, parent: Option<Self>) {
        observability.trace_id = Some(self.trace_id_text());
        observability.span_id = Some(self.span_id_text());
        if let Some(parent) = parent {
            observability.parent_span_id = Some(parent.span_id_text());
        }
    }

    /// The trace.
    #[must_use]
    pub fn trace_id(self) -> u128 {
        self.trace_id
    }

    /// The span.
    #[must_use]
    pub fn span_id(self) -> u64 {
        self.span_id
    }

    /// Whether somebody records this trace.
    #[must_use]
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The trace as 32 digits.
    #[must_use]
    pub fn trace_id_text(self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// The span as 16 digits.
    #[must_use]
    pub fn span_id_text(self) -> String {
        format!("{:016x}", self.span_id)
    }
}

/// The `traceparent` header.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trace_id,
            span_id,
            flags,
        } = self;
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{flags:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_header_is_what_it_was() {
        let context = TraceContext::parse(HEADER).unwrap();
        assert!(context.is_sampled());
        assert_eq!(context.to_string(), HEADER);
        let mut document = Observability::default();
        context.write_to(&mut document, None);
        assert_eq!(TraceContext::of_document(&document), Some(context));
        let quiet = TraceContext::parse(&HEADER.replace("-01", "-00")).unwrap();
        assert!(!quiet.is_sampled());
    }

    #[test]
    fn what_the_specification_refuses_is_refused() {
        let later = format!("{}-what-comes", HEADER.replace("00-4", "01-4"));
        assert!(TraceContext::parse(&later).is_some());
        for wrong in [
            "",
            "00",
            &HEADER[..54],
            &format!("{HEADER}-more"),
            &later.replace("-what", "what"),
            &HEADER.replace("00-4", "ff-4"),
            &HEADER.replace('b', "B"),
            &HEADER.replace('7', "g"),
            &HEADER.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &HEADER.replace("00f067aa0ba902b7", &"0".repeat(16)),
            "00-4bf92f3577b34da6a3ce929d0e0e473600-f067aa0ba902b7-01",
            "00-ä4bf92f3577b34da6a3ce929d0e0e47-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(wrong), None, "{wrong}");
        }
    }
}
