//! Who a job is, read from bytes that are not a valid job.

use crate::codec::{Framed, confluent_schema, framing, single_object_schema};
use crate::document::Document;
use crate::document::envelope::{JobEnvelope, Metadata};
use crate::evolution;
use crate::schema::{Form, SchemaSource, WriterSchema, own_schema};
use crate::validate::{is_idempotency_key, is_job_id};
use crate::wire::{Input, ReadResult, Wire};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// What could be read of a job's identity. A value that breaks its own rule counts as not readable: nothing
/// can be published under it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobIdentity {
    /// The job id: a failed result can be published.
    pub job_id: Option<String>,
    /// The key that deduplicates the job (the job id, if it is certain that there is no key of its own): the
    /// record can be routed to its slot.
    pub idempotency_key: Option<String>,
    /// The operation.
    pub operation: Option<String>,
    /// The envelope's version.
    pub version: Option<String>,
}

impl JobIdentity {
    /// The identity of a job that was read, valid or not.
    pub fn of(job: &JobEnvelope) -> Self {
        Self::from_parts(
            Some(job.version.clone()),
            Some(job.job_id.clone()),
            Some(job.operation.clone()),
            Some(job.execution.idempotency_key.clone()),
        )
    }

    /// `key`: `None` if it is not readable, `Some(None)` if there is none.
    fn from_parts(
        version: Option<String>,
        job_id: Option<String>,
        operation: Option<String>,
        key: Option<Option<String>>,
    ) -> Self {
        let job_id = job_id.filter(|id| is_job_id(id));
        let idempotency_key = match key {
            None => None,
            Some(None) => job_id.clone(),
            Some(Some(key)) => Some(key).filter(|key| is_idempotency_key(key)),
        };
        Self {
            job_id,
            idempotency_key,
            operation,
            version,
        }
    }
}

/// Reads as much of a job's identity as the bytes give. Empty when they give nothing.
pub fn peek_identity(bytes: &[u8], schemas: &dyn SchemaSource) -> JobIdentity {
    match framing(bytes) {
        Err(_) => JobIdentity::default(),
        Ok(Framed::Json(text)) => peek_json(text),
        Ok(Framed::Confluent { schema_id, datum }) => match confluent_schema(schema_id, schemas) {
            Ok(schema) => peek_avro(&schema, datum),
            Err(_) => JobIdentity::default(),
        },
        Ok(Framed::SingleObject { fingerprint, datum }) => {
            match single_object_schema(fingerprint) {
                Ok(schema) => peek_avro(schema, datum),
                Err(_) => JobIdentity::default(),
            }
        }
    }
}

type Members<'a> = BTreeMap<String, &'a RawValue>;

fn peek_json(text: &[u8]) -> JobIdentity {
    let Ok(members) = serde_json::from_slice::<Members<'_>>(text) else {
        return JobIdentity::default();
    };
    let string = |name: &str| {
        members
            .get(name)
            .and_then(|value| serde_json::from_str::<String>(value.get()).ok())
    };
    let key = match members.get("execution") {
        None => Some(None),
        Some(execution) => match serde_json::from_str::<Option<Members<'_>>>(execution.get()) {
            Err(_) => None,
            Ok(None) => Some(None),
            Ok(Some(execution)) => match execution.get("idempotency_key") {
                None => Some(None),
                Some(key) => serde_json::from_str::<Option<String>>(key.get()).ok(),
            },
        },
    };
    JobIdentity::from_parts(
        string("version"),
        string("job_id"),
        string("operation"),
        key,
    )
}

fn peek_avro(schema: &WriterSchema, datum: &[u8]) -> JobIdentity {
    if schema.document != JobEnvelope::NAME {
        return JobIdentity::default();
    }
    let resolved;
    let datum = match &schema.form {
        Form::Ours => datum,
        Form::Other(writer) => {
            match evolution::to_our_schema(writer, &own_schema(JobEnvelope::NAME).shape, datum) {
                Ok(bytes) => {
                    resolved = bytes;
                    &resolved
                }
                Err(_) => return JobIdentity::default(),
            }
        }
    };
    let mut peek = Peek::default();
    // Ends at the first field that is not readable; what came before it is kept.
    drop(peek.read(&mut Input::new(datum)));
    JobIdentity::from_parts(peek.version, peek.job_id, peek.operation, peek.key)
}

#[derive(Default)]
struct Peek {
    version: Option<String>,
    job_id: Option<String>,
    operation: Option<String>,
    key: Option<Option<String>>,
}

impl Peek {
    /// The fields of the envelope, in the order of the schema, as far as execution.
    fn read(&mut self, input: &mut Input<'_>) -> ReadResult<()> {
        Option::<String>::read(input)?; // schema_uri
        self.version = Some(String::read(input)?);
        self.job_id = Some(String::read(input)?);
        input.long()?; // created_at, whatever it says
        String::read(input)?; // kind
        self.operation = Some(String::read(input)?);
        String::read(input)?; // payload.type
        input.bytes()?; // payload.data, JSON or not
        BTreeMap::<String, String>::read(input)?; // payload.extensions, JSON or not
        Metadata::read(input)?;
        if input.present()? {
            self.key = Some(Option::<String>::read(input)?);
        } else {
            self.key = Some(None);
        }
        Ok(())
    }
}
