//! Writes `schemas/avro` and `schemas/json` from the Rust types. Run it after a change of a document, then
//! look at the difference: released schemas may only be extended.

use guestkit_protocol::shape_text::{avro_schema, json_schema, rules};
use guestkit_protocol::*;
use std::path::Path;

fn write<D: Document>(file: &str) -> std::io::Result<()> {
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas");
    std::fs::write(
        schemas.join(format!("avro/{file}.avsc")),
        avro_schema::<D>(),
    )?;
    std::fs::write(
        schemas.join(format!("json/{file}.schema.json")),
        json_schema::<D>(&rules),
    )
}

fn main() -> std::io::Result<()> {
    write::<JobEnvelope>("job_envelope")?;
    write::<JobResult>("job_result")?;
    write::<JobProgress>("job_progress")?;
    write::<LedgerEntry>("ledger_entry")?;
    write::<JobOutcome>("job_outcome")?;
    write::<WorkerAdvertisement>("worker_advertisement")?;
    write::<JobControl>("job_control")
}
