//! A few hostile bytes must not take much memory. A binary of its own, because it reads the peak of the
//! address space, to which other threads would add.

#![allow(clippy::unwrap_used)] // allowed in tests; this is for the functions beside them

use guestkit_protocol::*;
use std::hint::black_box;
use std::sync::Arc;

struct One(Arc<WriterSchema>);

impl SchemaSource for One {
    fn writer_schema(&self, _: u32) -> Result<Arc<WriterSchema>, SchemaFault> {
        Ok(self.0.clone())
    }
}

/// A line of this process's memory accounts, in KiB.
fn kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The most address space that this process ever had.
fn peak_kib() -> u64 {
    kib("VmPeak:")
}

#[test]
fn lengths_and_counts_without_bytes_allocate_nothing() {
    let ours = One(Arc::new(WriterSchema::parse(JobEnvelope::SCHEMA).unwrap()));
    // Another version: the other decoder.
    let text = JobEnvelope::SCHEMA.replacen("\"fields\": [", "\"fields\": [{\"name\": \"new\", \"type\": [\"null\", {\"type\": \"map\", \"values\": \"string\"}], \"default\": null},", 1);
    let other = One(Arc::new(WriterSchema::parse(&text).unwrap()));
    let job = inspect_job("a.qcow2")
        .job_id("inspect-0001")
        .label("k", "v")
        .build()
        .unwrap();
    let record = encode(&job, Framing::Confluent { schema_id: 1 }).unwrap();
    drop((decode_job(&record, &ours), decode_job(&record, &other)));

    // The start of the process had a higher peak: fill up to it, so that everything more is seen.
    let gap = (peak_kib() - kib("VmSize:")) as usize * 1024;
    let _ballast = black_box(Vec::<u8>::with_capacity(gap));
    let before = peak_kib();
    // 2^28, 2^40 and 2^62, as a length or a count.
    for huge in [
        &[0x80, 0x80, 0x80, 0x80, 0x02][..],
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x40],
        &[0xff; 9],
    ] {
        for at in 5..record.len() {
            let bytes = [&record[..at], huge, &[0x01], &record[at..]].concat();
            assert!(decode_job(&bytes, &ours).is_err() || at > 5);
            drop(decode_job(&bytes, &other));
        }
        for head in [&[0, 0, 0, 0, 1][..], &[0, 0, 0, 0, 1, 2]] {
            let bytes = [head, huge].concat();
            assert!(decode_job(&bytes, &ours).is_err());
            assert!(decode_job(&bytes, &other).is_err());
        }
    }
    let grown = peak_kib() - before;
    assert!(grown < 16 * 1024, "{grown} KiB more than before");

    // The check can fail: 64 MiB are seen.
    drop(black_box(Vec::<u8>::with_capacity(64 << 20)));
    assert!(peak_kib() - before >= 64 * 1024);
}
