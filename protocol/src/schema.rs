//! Schemas of writers: which are ours, which are other versions of ours, which are refused.
//!
//! A schema comes from a registry that others write to, so it is as hostile as the records. Checked before
//! the first record is decoded with it: size, full name, recursion and expansion (apache-avro has a limit for
//! neither), and that our schema can read it.

use crate::document::Document;
use crate::document::NAMESPACE;
use crate::document::control::JobControl;
use crate::document::envelope::JobEnvelope;
use crate::document::ledger::LedgerEntry;
use crate::document::outcome::JobOutcome;
use crate::document::progress::JobProgress;
use crate::document::result::JobResult;
use crate::document::worker::WorkerAdvertisement;
use crate::schema_audit;
use crate::shape::RecordShape;
use apache_avro::Schema;
use apache_avro::schema_compatibility::SchemaCompatibility;
use std::sync::{Arc, LazyLock};

/// The longest schema text that is looked at, in bytes. Ours are below 16 KiB.
pub const SCHEMA_TEXT_MAX: usize = 256 * 1024;

/// Where the schema behind a Confluent schema id comes from.
pub trait SchemaSource: Send + Sync {
    /// The checked schema of an id.
    ///
    /// # Errors
    /// See [`SchemaFault`]; [`SchemaFault::is_temporary`] says whether the record has to wait.
    fn writer_schema(&self, id: u32) -> Result<Arc<WriterSchema>, SchemaFault>;
}

/// A [`SchemaSource`] for users without a registry: every id is unknown.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRegistry;

impl SchemaSource for NoRegistry {
    fn writer_schema(&self, id: u32) -> Result<Arc<WriterSchema>, SchemaFault> {
        let reason =
            "no schema registry is configured; set one, or send single-object avro or json"
                .to_owned();
        Err(SchemaFault::Unsuitable { id, reason })
    }
}

/// Why there is no usable schema for an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaFault {
    /// The registry is sure that it has no such id. Final.
    #[error(
        "schema id {id} is unknown to the schema registry; register the schema, or check that the producer uses the same registry"
    )]
    Unknown {
        /// The id.
        id: u32,
    },
    /// The registry has a schema that no record of ours can have. Final.
    #[error("schema id {id} can't be used: {reason}")]
    Unsuitable {
        /// The id.
        id: u32,
        /// Why not.
        reason: String,
    },
    /// The registry does not answer, or not surely. Temporary: the record waits.
    #[error("the schema registry is unavailable: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
}

impl SchemaFault {
    /// Whether the same question can have another answer later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// A writer's schema that passed all checks.
#[derive(Debug)]
pub struct WriterSchema {
    pub(crate) document: &'static str,
    pub(crate) form: Form,
}

#[derive(Debug)]
pub(crate) enum Form {
    /// The same fields and types as ours: decoded directly.
    Ours,
    /// Another version: decoded as itself, then resolved to ours.
    Other(Box<Schema>),
}

impl WriterSchema {
    /// Checks the text of a schema.
    ///
    /// # Errors
    /// The reason, for [`SchemaFault::Unsuitable`]: not a schema, not one of our seven records, recursive or
    /// too large, or not readable with our schema.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > SCHEMA_TEXT_MAX {
            return Err(format!(
                "its text has {} bytes, at most {SCHEMA_TEXT_MAX} are read",
                text.len()
            ));
        }
        let json: serde_json::Value =
            serde_json::from_str(text).map_err(|error| format!("it is no JSON text: {error}"))?;
        let audit = schema_audit::audit(&json)?;
        let Some(own) = OWN.iter().find(|own| own.full_name == audit.name) else {
            return Err(format!(
                "it describes {}, which is none of our records ({NAMESPACE}.*)",
                audit.name
            ));
        };
        if audit.normal_form == own.normal_form {
            return Ok(Self {
                document: own.name,
                form: Form::Ours,
            });
        }
        let schema =
            Schema::parse(&json).map_err(|error| format!("it is no avro schema: {error}"))?;
        SchemaCompatibility::can_read(&schema, &own.schema)
            .map_err(|error| format!("it can't be read as {}: {error}", own.full_name))?;
        Ok(Self {
            document: own.name,
            form: Form::Other(Box::new(schema)),
        })
    }

    /// The document that it describes, for example `JobEnvelope`.
    pub fn document(&self) -> &'static str {
        self.document
    }

    /// Whether it has the same fields and types as this crate's own schema.
    pub fn is_ours(&self) -> bool {
        matches!(self.form, Form::Ours)
    }
}

/// One of our own schemas, parsed.
pub(crate) struct OwnSchema {
    pub(crate) name: &'static str,
    pub(crate) full_name: String,
    pub(crate) schema: Schema,
    pub(crate) shape: RecordShape,
    normal_form: String,
    pub(crate) fingerprint: [u8; 8],
}

/// A released schema of a document, for single-object records.
pub(crate) struct Released {
    pub(crate) fingerprint: [u8; 8],
    pub(crate) writer: WriterSchema,
}

/// The schema's fingerprint as single-object encoding has it, and the one that apache-avro computes.
///
/// The specification's canonical form writes a type with nothing but a logical type as its bare name
/// (`"long"`), as Java and fastavro do. apache-avro 0.22 and Python's avro leave `{"type":"long"}`: their
/// records are read as well, but never written.
fn fingerprints(schema: &Schema) -> [[u8; 8]; 2] {
    let theirs = schema.canonical_form();
    let mut canonical = theirs.clone();
    for name in [
        "boolean", "int", "long", "float", "double", "bytes", "string",
    ] {
        canonical = canonical.replace(&format!("{{\"type\":\"{name}\"}}"), &format!("\"{name}\""));
    }
    [
        crc_64_avro(canonical.as_bytes()),
        crc_64_avro(theirs.as_bytes()),
    ]
}

/// CRC-64-AVRO in little-endian order (Apache Avro 1.12, "Schema Fingerprints").
fn crc_64_avro(bytes: &[u8]) -> [u8; 8] {
    const EMPTY: u64 = 0xc15d_213a_a4d7_a795;
    let crc = bytes.iter().fold(EMPTY, |crc, byte| {
        (0..8).fold(crc ^ u64::from(*byte), |crc, _| {
            (crc >> 1) ^ (EMPTY & (crc & 1).wrapping_neg())
        })
    });
    crc.to_le_bytes()
}

fn own<D: Document>() -> OwnSchema {
    // Embedded text: a test parses each file, so these can't fail in a build that passed.
    let json = serde_json::from_str(D::SCHEMA).expect("an embedded schema is JSON");
    let audit = schema_audit::audit(&json).expect("an embedded schema passes the audit");
    let schema = Schema::parse(&json).expect("an embedded schema is an avro schema");
    OwnSchema {
        name: D::NAME,
        full_name: format!("{NAMESPACE}.{}", D::NAME),
        fingerprint: fingerprints(&schema)[0],
        schema,
        shape: D::document_shape(),
        normal_form: audit.normal_form,
    }
}

static OWN: LazyLock<Vec<OwnSchema>> = LazyLock::new(|| {
    vec![
        own::<JobEnvelope>(),
        own::<JobResult>(),
        own::<JobProgress>(),
        own::<LedgerEntry>(),
        own::<JobOutcome>(),
        own::<WorkerAdvertisement>(),
        own::<JobControl>(),
    ]
});

static RELEASED: LazyLock<Vec<Released>> = LazyLock::new(|| {
    fn all<D: Document>(into: &mut Vec<Released>) {
        let texts = std::iter::once(D::SCHEMA).chain(D::RELEASED.iter().map(|(_, text)| *text));
        for text in texts {
            let schema = Schema::parse_str(text).expect("an embedded schema is an avro schema");
            for fingerprint in fingerprints(&schema) {
                if !into.iter().any(|known| known.fingerprint == fingerprint) {
                    let writer =
                        WriterSchema::parse(text).expect("our schemas can read each other");
                    into.push(Released {
                        fingerprint,
                        writer,
                    });
                }
            }
        }
    }
    let mut released = Vec::new();
    all::<JobEnvelope>(&mut released);
    all::<JobResult>(&mut released);
    all::<JobProgress>(&mut released);
    all::<LedgerEntry>(&mut released);
    all::<JobOutcome>(&mut released);
    all::<WorkerAdvertisement>(&mut released);
    all::<JobControl>(&mut released);
    released
});

/// Our own schema of a document.
pub(crate) fn own_schema(document: &str) -> &'static OwnSchema {
    OWN.iter()
        .find(|own| own.name == document)
        .expect("every document is in the list")
}

/// The released schema with this fingerprint.
pub(crate) fn released(fingerprint: [u8; 8]) -> Option<&'static Released> {
    RELEASED
        .iter()
        .find(|released| released.fingerprint == fingerprint)
}
