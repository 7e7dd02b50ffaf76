//! The job protocol: bytes to typed, validated jobs and back.
//!
//! This crate is pure: no clock, no randomness, no I/O, no async. `schemas/` is the contract, and is embedded.
//! Seven documents ([`JobEnvelope`], [`JobResult`], [`JobProgress`], [`LedgerEntry`], [`JobOutcome`],
//! [`WorkerAdvertisement`], [`JobControl`]) each have a JSON form and an Avro form that convert into each
//! other without loss; three framings ([`Framing`]) are told apart by their first bytes.
//!
//! ```
//! use guestkit_protocol::{Framing, NoRegistry, Timestamp, decode_job, encode, inspect_job};
//!
//! // Build,
//! let job = inspect_job("debian-12.qcow2")
//!     .job_id("inspect-0001")
//!     .created_at(Timestamp::parse("2026-11-24T15:20:00+01:00")?)
//!     .priority(8)
//!     .build()?;
//! assert_eq!(job.idempotency_key(), "inspect-0001");
//!
//! // encode,
//! let avro = encode(&job, Framing::SingleObject)?;
//! let json = encode(&job, Framing::Json)?;
//! assert!(avro.starts_with(&[0xC3, 0x01]) && json.starts_with(b"{"));
//!
//! // decode. Without a registry, Confluent-framed records would be refused.
//! assert_eq!(decode_job(&avro, &NoRegistry)?, job);
//! assert_eq!(decode_job(&json, &NoRegistry)?, job);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(missing_docs)]

mod builder;
mod bytes;
mod canonical;
mod codec;
pub mod compatibility;
mod constraints;
mod document;
pub mod error_code;
mod evolution;
pub mod headers;
mod identity;
mod json_text;
pub mod payload;
mod payload_hash;
mod record;
mod schema;
mod schema_audit;
#[doc(hidden)]
pub mod shape;
#[doc(hidden)]
pub mod shape_text;
mod slot;
mod state;
mod timestamp;
mod trace_context;
mod validate;
mod wire;

pub use builder::{
    BuildError, JobBuilder, compare_job, convert_job, echo_job, fix_job, inspect_job, profile_job,
};
pub use bytes::Bytes;
pub use canonical::{DEPTH_MAX as JSON_DEPTH_MAX, canonical_json};
pub use codec::{
    DecodeError, EncodeError, Framing, Invalid, RECORD_MAX, decode, decode_job, encode,
};
pub use constraints::{Capabilities, DEFAULT_POOL, Unmet};
pub use document::answered::Answered;
pub use document::control::{ControlAction, JobControl};
pub use document::envelope::{
    Audit, Authorization, Constraints, Execution, JobEnvelope, KIND, Metadata, Observability,
    Payload, Routing, VERSION,
};
pub use document::ledger::{
    AttemptError, DoneEntry, LedgerEntry, LedgerKind, MARK_KEY, MarkEntry, OffsetRange, OpenEntry,
    SLOT_KEY, SlotEntry, Waiter,
};
pub use document::outcome::JobOutcome;
pub use document::progress::JobProgress;
pub use document::result::{
    Artifact, ExecutionSummary, JobError, JobResult, JobStatus, Metrics, Outputs, RESULT_DATA_MAX,
    ResultPointer,
};
pub use document::worker::{
    RunningJob, WorkerAdvertisement, WorkerCapabilities, WorkerConfiguration, WorkerResources,
    WorkerState, WorkerStatus,
};
pub use document::{Document, NAMESPACE};
pub use identity::{JobIdentity, peek_identity};
pub use json_text::{Extensions, JsonFault, JsonText};
pub use payload_hash::PayloadHash;
pub use schema::{NoRegistry, SCHEMA_TEXT_MAX, SchemaFault, SchemaSource, WriterSchema};
pub use slot::{murmur2, slot_of};
pub use state::{IllegalTransition, JobState};
pub use timestamp::{Timestamp, TimestampFault};
pub use trace_context::TraceContext;
pub use validate::{
    FieldError, IDEMPOTENCY_KEY_MAX, NAME_MAX, TIMEOUT_WARNING_SECONDS, ValidationError, Warning,
    is_idempotency_key, is_job_id,
};
pub use wire::AvroFault;
