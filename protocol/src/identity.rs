//! Who a job is, read from bytes that are not a valid job.

use crate::codec::{Framed, confluent_schema, framing, single_object_schema};
use crate::document::Document;
use crate::document::envelope::JobEnvelope;
use crate::evolution;
use crate::schema::{Form, SchemaSource, WriterSchema, own_schema};
use crate::validate::{is_idempotency_key, is_job_id};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;

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

/// The members of a JSON object as far as they can be read. A name that comes twice says nothing.
#[derive(Default)]
struct Members<'a> {
    members: BTreeMap<String, Option<&'a RawValue>>,
    /// Whether the object was read to its end: only then is it certain what it does not have.
    complete: bool,
}

impl<'a> Members<'a> {
    fn read(text: &'a [u8]) -> Self {
        let mut members = Self::default();
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let ended = members
            .deserialize(&mut deserializer)
            .and_then(|()| deserializer.end());
        members.complete = ended.is_ok();
        members
    }

    /// `None`: not readable. `Some(None)`: certainly absent, or null.
    fn get<T: DeserializeOwned>(&self, name: &str) -> Option<Option<T>> {
        match self.members.get(name) {
            None => self.complete.then_some(None),
            Some(None) => None,
            Some(Some(value)) => serde_json::from_str(value.get()).ok(),
        }
    }
}

impl<'a> DeserializeSeed<'a> for &mut Members<'a> {
    type Value = ();
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for &mut Members<'a> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            let value: &RawValue = map.next_value()?;
            self.members
                .entry(name)
                .and_modify(|twice| *twice = None)
                .or_insert(Some(value));
        }
        Ok(())
    }
}

fn peek_json(text: &[u8]) -> JobIdentity {
    let envelope = Members::read(text);
    let key = match envelope.get::<Box<RawValue>>("execution") {
        None => None,
        Some(None) => Some(None),
        Some(Some(execution)) => Members::read(execution.get().as_bytes()).get("idempotency_key"),
    };
    let text = |name| envelope.get::<String>(name).flatten();
    JobIdentity::from_parts(text("version"), text("job_id"), text("operation"), key)
}

fn peek_avro(schema: &WriterSchema, datum: &[u8]) -> JobIdentity {
    if schema.document != JobEnvelope::NAME {
        return JobIdentity::default();
    }
    let writer = match &schema.form {
        Form::Ours => &own_schema(JobEnvelope::NAME).schema,
        Form::Other(writer) => writer,
    };
    let peeked = evolution::peek(writer, datum);
    JobIdentity::from_parts(
        peeked.version,
        peeked.job_id,
        peeked.operation,
        peeked.idempotency_key,
    )
}
