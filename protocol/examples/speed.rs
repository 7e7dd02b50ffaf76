//! How long the hot operations take, in nanoseconds: `cargo run --release -p guestkit-protocol --example speed`.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use guestkit_protocol::*;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

struct One(Arc<WriterSchema>);

impl SchemaSource for One {
    fn writer_schema(&self, _: u32) -> Result<Arc<WriterSchema>, SchemaFault> {
        Ok(self.0.clone())
    }
}

fn measure<T>(what: &str, mut operation: impl FnMut() -> T) -> f64 {
    const ROUNDS: u32 = 100_000;
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            black_box(operation());
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(ROUNDS));
    }
    println!("{what:<44}{best:>8.0} ns");
    best
}

fn main() {
    let example = include_bytes!("../../schemas/examples/inspect-full.json");
    let mut job = decode_job(example, &NoRegistry).unwrap();
    let ours = One(Arc::new(WriterSchema::parse(JobEnvelope::SCHEMA).unwrap()));
    let later = JobEnvelope::SCHEMA.replacen(
        "\"fields\": [",
        "\"fields\": [{\"name\": \"later\", \"type\": [\"null\", \"string\"], \"default\": null},",
        1,
    );
    let other = One(Arc::new(WriterSchema::parse(&later).unwrap()));
    job.payload.data = JsonText::of(
        &serde_json::from_str::<serde_json::Value>(job.payload.data.as_str()).unwrap(),
    )
    .unwrap();
    let avro = encode(&job, Framing::Confluent { schema_id: 1 }).unwrap();
    let mut later = avro.clone();
    later.insert(5, 0);
    let json = encode(&job, Framing::Json).unwrap();
    println!(
        "full envelope: {} bytes avro, {} bytes json",
        avro.len(),
        json.len()
    );

    let hash = job.payload_hash().unwrap();
    let mut result = JobResult::completed(&job.job_id, job.created_at);
    result.worker_id = Some("host-1-0a1b2c3d".to_owned());
    result.operation = Some(job.operation.clone());
    result.execution_summary = Some(ExecutionSummary::default());
    result.observability = job.observability.clone();
    result.data = Some(job.payload.data.clone());
    let confluent = Framing::Confluent { schema_id: 1 };

    let decode_avro = measure("decode and validate envelope, avro", || {
        decode_job(&avro, &ours).unwrap()
    });
    let hashing = measure("payload hash", || job.payload_hash().unwrap());
    let encode_result = measure("encode result, avro", || {
        encode(&result, confluent).unwrap()
    });
    let ledger = measure("make and encode done entry, avro", || {
        let pointer = ResultPointer::new("vm-operations.results", 3, job.job_id.as_str());
        let done = DoneEntry::new(job.job_id.as_str(), hash, JobStatus::Completed, pointer);
        encode(&LedgerEntry::Done(done), confluent).unwrap()
    });
    let slot = measure("slot", || slot_of(job.idempotency_key(), 12));
    let all = decode_avro + hashing + encode_result + ledger + slot;
    println!(
        "{:<44}{all:>8.0} ns = {:.0} jobs/s on one core",
        "all of these",
        1e9 / all
    );

    measure("encode envelope, avro", || encode(&job, confluent).unwrap());
    measure("decode and validate envelope, json", || {
        decode_job(&json, &NoRegistry).unwrap()
    });
    measure("encode envelope, json", || {
        encode(&job, Framing::Json).unwrap()
    });
    measure("decode envelope of another schema version", || {
        decode_job(&later, &other).unwrap()
    });
}
