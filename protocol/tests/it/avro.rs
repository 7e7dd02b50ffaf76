//! Our own Avro codec against apache-avro, in both directions.

use crate::{confluent, datum, for_each_document, from_avro_datum, random, to_avro_datum};
use apache_avro::Schema;
use apache_avro::types::Value;
use guestkit_protocol::{Document, JobEnvelope, NoRegistry, decode, decode_job};
use std::fmt::Debug;

fn both_ways<D: Document + PartialEq + Debug>(_: &str) {
    let schema = Schema::parse_str(D::SCHEMA).unwrap();
    let source = crate::OneSchema::of(D::SCHEMA);
    for seed in 1000..1150 {
        let document: D = decode(random::document::<D>(seed).as_bytes(), &NoRegistry).unwrap();
        let theirs = to_avro_datum(&schema, from_avro_datum(&schema, &datum(&document), None));
        let read: D = decode(&confluent(&theirs), &source).unwrap();
        assert_eq!(read, document, "{} seed {seed}", D::NAME);
    }
}

#[test]
fn apache_avro_reads_ours_and_we_read_theirs() {
    for_each_document!(both_ways);
}

#[test]
fn field_by_field_apache_avro_sees_what_we_wrote() {
    let schema = Schema::parse_str(JobEnvelope::SCHEMA).unwrap();
    let job = crate::job();
    let Value::Record(fields) = from_avro_datum(&schema, &datum(&job), None) else {
        panic!("no record")
    };
    let field = |name: &str| &fields.iter().find(|(known, _)| known == name).unwrap().1;
    assert_eq!(field("job_id"), &Value::String("inspect-0001".to_owned()));
    assert_eq!(
        field("created_at"),
        &Value::TimestampMillis(1_795_530_000_000)
    );
    assert_eq!(field("metadata"), &Value::Union(0, Box::new(Value::Null)));
    let Value::Union(1, execution) = field("execution") else {
        panic!("{:?}", field("execution"))
    };
    let Value::Record(execution) = &**execution else {
        panic!("{execution:?}")
    };
    assert!(execution.contains(&("priority".to_owned(), Value::Int(5))));
    assert!(execution.contains(&("timeout_seconds".to_owned(), Value::Long(3600))));
    assert!(execution.contains(&(
        "idempotency_key".to_owned(),
        Value::Union(1, Box::new(Value::String("inspect/debian-12".to_owned())))
    )));
}

/// hamba/avro writes maps and arrays in blocks with a negative count and a size in bytes.
#[test]
fn blocks_with_a_byte_size_are_read() {
    let mut job = crate::job();
    job.metadata.labels = [
        ("a".to_owned(), "1".to_owned()),
        ("b".to_owned(), "2".to_owned()),
    ]
    .into();
    let usual = datum(&job);
    let block = [4, 2, b'a', 2, b'1', 2, b'b', 2, b'2', 0];
    let at = usual
        .windows(block.len())
        .position(|window| window == block)
        .unwrap();
    // Two blocks of one entry each: count -1, four bytes.
    let sized = [1, 8, 2, b'a', 2, b'1', 1, 8, 2, b'b', 2, b'2', 0];
    let other = [&usual[..at], &sized, &usual[at + block.len()..]].concat();
    let source = crate::OneSchema::of(JobEnvelope::SCHEMA);
    assert_eq!(decode_job(&confluent(&other), &source).unwrap(), job);
}
