//! Names of record headers.

/// Media type of the value, see [`Framing::content_type`](crate::Framing::content_type).
pub const CONTENT_TYPE: &str = "content-type";
/// CloudEvents: version of their specification.
pub const CE_SPECVERSION: &str = "ce_specversion";
/// CloudEvents: id of the event.
pub const CE_ID: &str = "ce_id";
/// CloudEvents: type of the event.
pub const CE_TYPE: &str = "ce_type";
/// CloudEvents: who wrote it.
pub const CE_SOURCE: &str = "ce_source";
/// CloudEvents: when, RFC 3339.
pub const CE_TIME: &str = "ce_time";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// Kind of a ledger entry, so that a restore need not decode its value.
pub const LEDGER_KIND: &str = "guestkit_kind";
/// Dead letters: why, one word.
pub const REASON: &str = "guestkit_reason";
/// Dead letters: what exactly.
pub const ERROR: &str = "guestkit_error";
/// Dead letters: topic that the record came from.
pub const SOURCE_TOPIC: &str = "guestkit_source_topic";
/// Dead letters: its partition.
pub const SOURCE_PARTITION: &str = "guestkit_source_partition";
/// Dead letters: its offset.
pub const SOURCE_OFFSET: &str = "guestkit_source_offset";
/// Dead letters: when they were written, RFC 3339.
pub const TIME: &str = "guestkit_time";
/// Dead letters: attempts in short.
pub const ATTEMPTS: &str = "guestkit_attempts";
/// Dead letters: how many processes died.
pub const DEATHS: &str = "guestkit_deaths";
