//! Encodes `tests/fixtures/v*/NAME.json` to `NAME.avro` where that is missing. Existing files are never
//! written again: they stand for records in the field.

use guestkit_protocol::*;
use std::error::Error;
use std::path::Path;

fn write<D: Document>(json: &Path) -> Result<(), Box<dyn Error>> {
    let document: D = decode(&std::fs::read(json)?, &NoRegistry)?;
    let record = encode(&document, Framing::SingleObject)?;
    Ok(std::fs::write(json.with_extension("avro"), record)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1");
    for entry in std::fs::read_dir(fixtures)? {
        let path = entry?.path();
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.extension().is_none_or(|kind| kind != "json")
            || path.with_extension("avro").exists()
        {
            continue;
        }
        match name.as_str() {
            "job_envelope" => write::<JobEnvelope>(&path)?,
            "job_result" => write::<JobResult>(&path)?,
            "job_progress" => write::<JobProgress>(&path)?,
            "job_outcome" => write::<JobOutcome>(&path)?,
            "worker_advertisement" => write::<WorkerAdvertisement>(&path)?,
            "job_control" => write::<JobControl>(&path)?,
            name if name.starts_with("ledger_entry") => write::<LedgerEntry>(&path)?,
            other => return Err(format!("{other} is no document").into()),
        }
    }
    Ok(())
}
