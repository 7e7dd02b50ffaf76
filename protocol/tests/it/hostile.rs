//! Bytes of an enemy: an answer for everything, never a panic.

use crate::{confluent, datum, for_each_document, random};
use guestkit_protocol::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn truncations<D: Document>(_: &str) {
    let document: D = decode(random::document::<D>(5).as_bytes(), &NoRegistry).unwrap();
    for framing in [Framing::SingleObject, Framing::Json] {
        let record = encode(&document, framing).unwrap();
        for length in 0..record.len() {
            assert!(
                decode::<D>(&record[..length], &NoRegistry).is_err(),
                "{} of {length}",
                D::NAME
            );
        }
    }
}

#[test]
fn every_truncation_is_a_fault() {
    for_each_document!(truncations);
}

fn mutations<D: Document>(_: &str) {
    let mut rng = StdRng::seed_from_u64(11);
    let source = crate::OneSchema::of(D::SCHEMA);
    let mut refused = 0;
    for seed in 0..40 {
        let document: D = decode(random::document::<D>(seed).as_bytes(), &NoRegistry).unwrap();
        for record in [
            confluent(&datum(&document)),
            encode(&document, Framing::Json).unwrap(),
        ] {
            for _ in 0..100 {
                let mut bytes = record.clone();
                for _ in 0..rng.random_range(1..4) {
                    let at = rng.random_range(0..bytes.len());
                    match rng.random_range(0..4) {
                        0 => bytes[at] = rng.random(),
                        1 => bytes[at] ^= 1 << rng.random_range(0..8),
                        2 => drop(bytes.remove(at)),
                        _ => bytes.insert(at, rng.random()),
                    }
                }
                match decode::<D>(&bytes, &source) {
                    // What is accepted can be written and read again.
                    Ok(read) => {
                        let again = encode(&read, Framing::Json).unwrap();
                        assert!(
                            decode::<D>(&again, &NoRegistry).is_ok(),
                            "{}",
                            String::from_utf8_lossy(&again)
                        );
                    }
                    Err(error) => {
                        assert!(!error.to_string().is_empty());
                        refused += 1;
                    }
                }
                peek_identity(&bytes, &source);
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn mutated_records_never_panic() {
    for_each_document!(mutations);
}

#[test]
fn random_bytes_never_panic() {
    let mut rng = StdRng::seed_from_u64(3);
    let source = crate::OneSchema::of(JobEnvelope::SCHEMA);
    let own = encode(&crate::job(), Framing::SingleObject).unwrap();
    for round in 0..20_000 {
        let length = rng.random_range(0..200);
        let mut bytes: Vec<u8> = (0..length).map(|_| rng.random()).collect();
        match round % 4 {
            0 => bytes.splice(0..0, [0, 0, 0, 0, 7]).for_each(drop),
            1 => bytes.splice(0..0, own[..10].iter().copied()).for_each(drop),
            2 => bytes.insert(0, b'{'),
            _ => {}
        }
        assert!(decode_job(&bytes, &source).is_err());
    }
}

#[test]
fn deep_json_is_refused() {
    for deep in [
        "[".repeat(500_000),
        "{\"a\":".repeat(150_000),
        format!("{}{}", "[".repeat(200), "]".repeat(200)),
    ] {
        for text in [
            format!(r#"{{"payload":{{"data":{deep}}}}}"#),
            format!(r#"{{"x":{deep}}}"#),
            format!(r#"{{"execution":{deep}}}"#),
        ] {
            let error = decode_job(text.as_bytes(), &NoRegistry)
                .unwrap_err()
                .to_string();
            assert!(error.contains("deeper than 127"), "{error}");
        }
    }
}

#[test]
fn avro_text_that_is_no_json_is_refused() {
    for data in [
        "",
        "{",
        "nul",
        "{\"a\":1,\"a\":2}",
        "\"\\ud800\"",
        "1 2",
        "NaN",
    ] {
        let mut job = crate::job();
        job.payload.data = JsonText::new("\"MARK\"").unwrap();
        let whole = datum(&job);
        let at = whole
            .windows(6)
            .position(|window| window == b"\"MARK\"")
            .unwrap();
        let changed = [
            &whole[..at - 1],
            &[data.len() as u8 * 2],
            data.as_bytes(),
            &whole[at + 6..],
        ]
        .concat();
        let source = crate::OneSchema::of(JobEnvelope::SCHEMA);
        let error = decode_job(&confluent(&changed), &source).unwrap_err();
        let invalid = error.invalid().unwrap();
        assert!(
            invalid.reason.starts_with("payload.data: "),
            "{data}: {error}"
        );
        // The rest of the record is sound: its identity is known.
        assert_eq!(
            invalid.identity.idempotency_key.as_deref(),
            Some("inspect/debian-12"),
            "{data}"
        );
    }
}
