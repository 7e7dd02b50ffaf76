//! Everything that needs more than one module of the protocol.

#![allow(clippy::unwrap_used)] // allowed in tests; this is for the functions beside them

mod avro;
mod codec;
mod evolution;
mod examples;
mod fixtures;
mod hostile;
mod job;
mod random;
mod roundtrip;
mod schemas;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use guestkit_protocol::{Document, JobEnvelope, Timestamp, inspect_job};
use guestkit_protocol::{Framing, SchemaFault, SchemaSource, WriterSchema, encode};
use std::sync::Arc;

/// A registry that has one schema, whatever the id.
pub(crate) struct OneSchema(Arc<WriterSchema>);

impl OneSchema {
    pub(crate) fn of(text: &str) -> Self {
        Self(Arc::new(WriterSchema::parse(text).unwrap()))
    }
}

impl SchemaSource for OneSchema {
    fn writer_schema(&self, _: u32) -> Result<Arc<WriterSchema>, SchemaFault> {
        Ok(self.0.clone())
    }
}

/// A registry with one answer for everything.
pub(crate) struct Broken(pub(crate) SchemaFault);

impl SchemaSource for Broken {
    fn writer_schema(&self, _: u32) -> Result<Arc<WriterSchema>, SchemaFault> {
        Err(self.0.clone())
    }
}

/// The Avro binary of a document without framing.
pub(crate) fn datum<D: Document>(document: &D) -> Vec<u8> {
    encode(document, Framing::SingleObject).unwrap()[10..].to_vec()
}

/// A datum as a Confluent-framed record.
pub(crate) fn confluent(datum: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, 7], datum].concat()
}

pub(crate) fn job() -> JobEnvelope {
    inspect_job("debian-12.qcow2")
        .job_id("inspect-0001")
        .created_at(Timestamp::from_millis(1_795_530_000_000))
        .idempotency_key("inspect/debian-12")
        .build()
        .unwrap()
}

/// apache-avro's reading of a datum, resolved to a reader schema where one is given; all bytes are consumed.
pub(crate) fn from_avro_datum(writer: &Schema, datum: &[u8], reader: Option<&Schema>) -> Value {
    let mut rest = datum;
    let decoder = GenericDatumReader::builder(writer)
        .maybe_reader_schema(reader)
        .build()
        .unwrap();
    let value = decoder.read_value(&mut rest).unwrap();
    assert!(rest.is_empty(), "apache-avro leaves {} bytes", rest.len());
    value
}

/// apache-avro's datum of a value.
pub(crate) fn to_avro_datum(schema: &Schema, value: Value) -> Vec<u8> {
    GenericDatumWriter::builder(schema)
        .build()
        .unwrap()
        .write_value_to_vec(value)
        .unwrap()
}

/// Runs a check for each of the seven documents.
macro_rules! for_each_document {
    ($check:ident $(, $argument:expr)*) => {
        $check::<guestkit_protocol::JobEnvelope>("job_envelope" $(, $argument)*);
        $check::<guestkit_protocol::JobResult>("job_result" $(, $argument)*);
        $check::<guestkit_protocol::JobProgress>("job_progress" $(, $argument)*);
        $check::<guestkit_protocol::LedgerEntry>("ledger_entry" $(, $argument)*);
        $check::<guestkit_protocol::JobOutcome>("job_outcome" $(, $argument)*);
        $check::<guestkit_protocol::WorkerAdvertisement>("worker_advertisement" $(, $argument)*);
        $check::<guestkit_protocol::JobControl>("job_control" $(, $argument)*);
    };
}
pub(crate) use for_each_document;
