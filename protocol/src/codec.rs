//! Bytes to documents and back: three framings, told apart by the first bytes.

use crate::canonical;
use crate::document::Document;
use crate::document::envelope::JobEnvelope;
use crate::evolution;
use crate::identity::{JobIdentity, peek_identity};
use crate::json_text::JsonFault;
use crate::schema::{Form, SchemaFault, SchemaSource, WriterSchema, own_schema, released};
use crate::validate::FieldError;
use crate::wire::{AvroFault, Input, Output};
use crate::{error_code, validate};
use std::fmt;

/// The largest record that is read or written, in bytes: 1 MiB for jobs, and 64 KiB more because ledger,
/// outcome and dead letter carry a whole job and something around it.
pub const RECORD_MAX: usize = 1024 * 1024 + 64 * 1024;

/// How a record is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Confluent's: a zero byte, the schema id in 4 bytes big-endian, Avro binary.
    Confluent {
        /// Id of the document's schema in the registry.
        schema_id: u32,
    },
    /// Avro single-object encoding: `C3 01`, the CRC-64-AVRO fingerprint in 8 bytes little-endian, Avro binary.
    SingleObject,
    /// The JSON form, one line.
    Json,
}

impl Framing {
    /// The media type for the `content-type` header.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Confluent { .. } | Self::SingleObject => "application/avro",
            Self::Json => "application/json",
        }
    }
}

/// Why a document can't be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The record would be larger than brokers and readers take.
    #[error(
        "the record has {size} bytes, at most {limit} can be written; keep large data in an artifact"
    )]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// [`RECORD_MAX`].
        limit: usize,
    },
    /// A whole number that readers of JSON would not keep, or that does not fit its Avro type.
    #[error("the whole number {value} is out of range (2^53 for long, 2^31-1 for int)")]
    NumberTooLarge {
        /// The number.
        value: i64,
    },
    /// serde refused.
    #[error("no json form: {reason}")]
    Json {
        /// Its reason.
        reason: String,
    },
}

/// Why bytes are not a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The schema registry can't tell now: let the record wait and try again.
    #[error("{0}")]
    Temporary(SchemaFault),
    /// The bytes will never be this document.
    #[error("{0}")]
    Invalid(Box<Invalid>),
}

/// What is wrong with a record, for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// `INVALID_JOB` or `UNSUPPORTED_VERSION`, for the failed result.
    pub code: &'static str,
    /// What was found, where, and what to do.
    pub reason: String,
    /// The fields that break a rule, if the bytes could be read at all.
    pub fields: Vec<FieldError>,
    /// What could be read of the job's identity.
    pub identity: JobIdentity,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl DecodeError {
    /// What is wrong for good, if it is.
    pub fn invalid(&self) -> Option<&Invalid> {
        match self {
            Self::Invalid(invalid) => Some(invalid),
            Self::Temporary(_) => None,
        }
    }
}

/// Writes a document.
///
/// # Errors
/// See [`EncodeError`].
pub fn encode<D: Document>(document: &D, framing: Framing) -> Result<Vec<u8>, EncodeError> {
    let mut out = Output::default();
    out.bytes.reserve(512);
    match framing {
        Framing::Confluent { schema_id } => {
            out.bytes.push(0);
            out.bytes.extend_from_slice(&schema_id.to_be_bytes());
            document.write_datum(&mut out);
        }
        Framing::SingleObject => {
            out.bytes.extend_from_slice(&[0xC3, 0x01]);
            out.bytes
                .extend_from_slice(&own_schema(D::NAME).fingerprint);
            document.write_datum(&mut out);
        }
        Framing::Json => {
            serde_json::to_writer(&mut out.bytes, document).map_err(|error| EncodeError::Json {
                reason: error.to_string(),
            })?;
        }
    }
    if let Some(value) = out.too_large {
        return Err(EncodeError::NumberTooLarge { value });
    }
    let size = out.bytes.len();
    if size > RECORD_MAX {
        return Err(EncodeError::TooLarge {
            size,
            limit: RECORD_MAX,
        });
    }
    Ok(out.bytes)
}

/// Reads a document in any framing.
///
/// # Errors
/// See [`DecodeError`]; the identity of an [`Invalid`] is empty here.
pub fn decode<D: Document>(bytes: &[u8], schemas: &dyn SchemaSource) -> Result<D, DecodeError> {
    read(bytes, schemas).map_err(|fault| match fault {
        Fault::Temporary(fault) => DecodeError::Temporary(fault),
        Fault::Final(reason) => DecodeError::Invalid(Box::new(Invalid {
            code: error_code::INVALID_JOB,
            reason,
            fields: Vec::new(),
            identity: JobIdentity::default(),
        })),
    })
}

/// Reads a job in any framing and validates it: holding one means that it is valid.
///
/// # Errors
/// [`DecodeError::Temporary`] when the registry can't tell now. [`DecodeError::Invalid`] else, with what can
/// be read of the job's id, key and operation.
pub fn decode_job(bytes: &[u8], schemas: &dyn SchemaSource) -> Result<JobEnvelope, DecodeError> {
    match read::<JobEnvelope>(bytes, schemas) {
        Ok(job) => match validate::check(&job) {
            Ok(_) => Ok(job),
            Err(invalid) => Err(DecodeError::Invalid(Box::new(Invalid {
                code: invalid.code(),
                reason: invalid.to_string(),
                identity: JobIdentity::of(&job),
                fields: invalid.errors,
            }))),
        },
        Err(Fault::Temporary(fault)) => Err(DecodeError::Temporary(fault)),
        Err(Fault::Final(reason)) => {
            let identity = peek_identity(bytes, schemas);
            let unsupported = identity
                .version
                .as_deref()
                .and_then(validate::unsupported_version);
            Err(DecodeError::Invalid(Box::new(Invalid {
                code: match unsupported {
                    Some(_) => error_code::UNSUPPORTED_VERSION,
                    None => error_code::INVALID_JOB,
                },
                reason: unsupported.unwrap_or(reason),
                fields: Vec::new(),
                identity,
            })))
        }
    }
}

#[derive(Debug)]
pub(crate) enum Fault {
    Temporary(SchemaFault),
    Final(String),
}

impl From<Box<AvroFault>> for Fault {
    fn from(fault: Box<AvroFault>) -> Self {
        Self::Final(fault.to_string())
    }
}

impl From<JsonFault> for Fault {
    fn from(fault: JsonFault) -> Self {
        Self::Final(fault.to_string())
    }
}

impl From<SchemaFault> for Fault {
    fn from(fault: SchemaFault) -> Self {
        if fault.is_temporary() {
            Self::Temporary(fault)
        } else {
            Self::Final(fault.to_string())
        }
    }
}

/// What the first bytes of a record say.
pub(crate) enum Framed<'a> {
    /// Avro binary of a schema id.
    Confluent { schema_id: u32, datum: &'a [u8] },
    /// Avro binary of a fingerprint.
    SingleObject {
        fingerprint: [u8; 8],
        datum: &'a [u8],
    },
    /// JSON text, from its brace on.
    Json(&'a [u8]),
}

/// Tells the framings apart.
pub(crate) fn framing(bytes: &[u8]) -> Result<Framed<'_>, String> {
    if bytes.len() > RECORD_MAX {
        return Err(format!(
            "the record has {} bytes, at most {RECORD_MAX} are read",
            bytes.len()
        ));
    }
    match bytes {
        [] => Err("the record is empty: it has no value".to_owned()),
        [0, a, b, c, d, datum @ ..] => Ok(Framed::Confluent {
            schema_id: u32::from_be_bytes([*a, *b, *c, *d]),
            datum,
        }),
        [0, ..] => Err("a confluent-framed record has at least 5 bytes".to_owned()),
        [0xC3, 0x01, rest @ ..] => match rest.split_first_chunk() {
            Some((fingerprint, datum)) => Ok(Framed::SingleObject {
                fingerprint: *fingerprint,
                datum,
            }),
            None => Err("a single-object record has at least 10 bytes".to_owned()),
        },
        _ => {
            let text = bytes
                .strip_prefix(b"\xEF\xBB\xBF")
                .unwrap_or(bytes)
                .trim_ascii_start();
            match text {
                [b'{', ..] => Ok(Framed::Json(text)),
                [b'[', ..] => {
                    Err("a record holds one document, not a list; publish each of them".to_owned())
                }
                _ => Err(format!(
                    "the record begins with {}: it is neither confluent-framed avro (00), single-object \
                     avro (c301) nor json ({{)",
                    hex::encode(bytes.get(..4).unwrap_or(bytes))
                )),
            }
        }
    }
}

fn read<D: Document>(bytes: &[u8], schemas: &dyn SchemaSource) -> Result<D, Fault> {
    match framing(bytes).map_err(Fault::Final)? {
        Framed::Json(text) => read_json(text),
        Framed::Confluent { schema_id, datum } => {
            let schema = confluent_schema(schema_id, schemas)?;
            read_avro::<D>(&schema, datum, || format!("schema id {schema_id}"))
        }
        Framed::SingleObject { fingerprint, datum } => {
            let known = single_object_schema(fingerprint).map_err(Fault::Final)?;
            read_avro::<D>(known, datum, || {
                format!("fingerprint {}", hex::encode(fingerprint))
            })
        }
    }
}

fn read_json<D: Document>(text: &[u8]) -> Result<D, Fault> {
    let text = std::str::from_utf8(text).map_err(|error| {
        Fault::Final(format!(
            "the json text is not UTF-8 at byte {}",
            error.valid_up_to()
        ))
    })?;
    // First the rules that serde_json does not have: names that come twice, half a surrogate pair.
    canonical::check(text)?;
    serde_json::from_str(text).map_err(|error| Fault::Final(error.to_string()))
}

pub(crate) fn confluent_schema(
    schema_id: u32,
    schemas: &dyn SchemaSource,
) -> Result<std::sync::Arc<WriterSchema>, Fault> {
    if schema_id == 0 {
        return Err(Fault::Final(
            "the schema id is 0: the producer probably writes apicurio's 8-byte ids; set \
             apicurio.registry.as-confluent=true and apicurio.registry.use-id=contentId"
                .to_owned(),
        ));
    }
    Ok(schemas.writer_schema(schema_id)?)
}

pub(crate) fn single_object_schema(fingerprint: [u8; 8]) -> Result<&'static WriterSchema, String> {
    released(fingerprint).map(|released| &released.writer).ok_or_else(|| {
        format!(
            "the single-object fingerprint {} (in the order of the record) is none of our schemas; write with \
             a released schema, or confluent-framed with a registry",
            hex::encode(fingerprint)
        )
    })
}

fn read_avro<D: Document>(
    schema: &WriterSchema,
    datum: &[u8],
    origin: impl Fn() -> String,
) -> Result<D, Fault> {
    if schema.document != D::NAME {
        return Err(Fault::Final(format!(
            "{} describes a {}, but a {} belongs here",
            origin(),
            schema.document,
            D::NAME
        )));
    }
    let resolved;
    let datum = match &schema.form {
        Form::Ours => datum,
        Form::Other(writer) => {
            resolved = evolution::to_our_schema(writer, &own_schema(D::NAME).shape, datum)
                .map_err(|reason| Fault::Final(format!("{reason} ({})", origin())))?;
            &resolved
        }
    };
    let mut input = Input::new(datum);
    let document = D::read_datum(&mut input)?;
    input.end()?;
    Ok(document)
}
