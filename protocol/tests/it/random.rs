//! Random documents in their JSON form, drawn from the description of the document.

use guestkit_protocol::Document;
use guestkit_protocol::shape::{RecordShape, Shape};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A document that keeps to the JSON Schema; extra fields are put in everywhere.
pub(crate) fn document<D: Document>(seed: u64) -> String {
    let mut draw = Draw {
        rng: StdRng::seed_from_u64(seed),
    };
    draw.record(&D::document_shape())
}

struct Draw {
    rng: StdRng,
}

impl Draw {
    fn one_of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.rng.random_range(0..list.len())]
    }

    fn record(&mut self, record: &RecordShape) -> String {
        let mut members = Vec::new();
        let kind = self.one_of(&["done", "open", "slot", "mark"]);
        for field in &record.fields {
            let text = match (record.name, field.json_name) {
                (_, "extensions") => continue,
                ("LedgerEntry", "kind") => format!("\"{kind}\""),
                ("LedgerEntry", name) if name != kind => continue,
                ("LedgerEntry", _) => match &field.shape {
                    Shape::Optional(inner) => self.value(inner),
                    _ => unreachable!("the four records of a ledger entry are optional"),
                },
                (_, "job_id") => format!("\"job-{:08x}\"", self.rng.random::<u32>()),
                ("JobEnvelope", "version") => "\"1.7\"".to_owned(),
                ("JobEnvelope", "kind") => "\"VMOperation\"".to_owned(),
                ("JobEnvelope", "operation") => "\"hyper2kvm.import-disk\"".to_owned(),
                ("Payload", "type") => "\"hyper2kvm.import-disk.v12\"".to_owned(),
                ("Execution", "attempt") => "3".to_owned(),
                ("Execution", "max_attempts") => self.rng.random_range(3..9).to_string(),
                ("Execution", "timeout_seconds") => {
                    self.rng.random_range(1..1i64 << 40).to_string()
                }
                ("Execution", "priority") => self.rng.random_range(1..=10).to_string(),
                ("Execution", "idempotency_key") => "\"clé 🗝\"".to_owned(),
                ("Constraints", "minimum_worker_version") => "\"1.2.3-rc.1\"".to_owned(),
                (_, "payload_hash") => format!("\"{}\"", "5a".repeat(32)),
                (_, "answered") => format!("\"{}\"", "0123456789abcdef01020304".repeat(3)),
                (_, "progress_percent") => "37.5".to_owned(),
                ("Routing", "worker_pool") => "\"gpu\"".to_owned(),
                ("OffsetRange", "first") => self.rng.random_range(0..1000).to_string(),
                ("OffsetRange", "last") => self.rng.random_range(1000..1i64 << 53).to_string(),
                _ => self.value(&field.shape),
            };
            let optional = matches!(field.shape, Shape::Optional(_));
            if !(optional && self.rng.random_bool(0.3) && record.name != "LedgerEntry") {
                members.push(format!("\"{}\":{text}", field.json_name));
            }
        }
        // The fixed records of the ledger have no place for more.
        if self.rng.random_bool(0.5) && !["OffsetRange", "LedgerEntry"].contains(&record.name) {
            for name in ["x_new", "extensions", "schema_uri", "ключ \\\"\\n"] {
                members.push(format!("\"{name}\":{}", self.json(0)));
            }
        }
        // JSON has no order.
        for index in (1..members.len()).rev() {
            members.swap(index, self.rng.random_range(0..=index));
        }
        format!("{{{}}}", members.join(","))
    }

    fn text(&mut self) -> String {
        let length = self.rng.random_range(0..12);
        let text: String = (0..length)
            .map(|_| {
                self.one_of(&[
                    "a", "Z", " ", "\\n", "\\\"", "\\\\", "ö", "€", "😀", "\\u0001", "/", "ff",
                ])
            })
            .collect();
        format!("\"{text}\"")
    }

    /// Any JSON value, numbers in every notation.
    fn json(&mut self, depth: u32) -> String {
        match self.rng.random_range(0..if depth > 3 { 6 } else { 8 }) {
            0 => "null".to_owned(),
            1 => self.rng.random::<bool>().to_string(),
            2 => self
                .one_of(&[
                    "0",
                    "-0",
                    "1.50",
                    "1E+2",
                    "12345678901234567890.1",
                    "1e400",
                    "9007199254740993",
                    "-7e-3",
                ])
                .to_owned(),
            3 => self.rng.random::<i64>().to_string(),
            4 | 5 => self.text(),
            6 => {
                let items: Vec<_> = (0..self.rng.random_range(0..4))
                    .map(|_| self.json(depth + 1))
                    .collect();
                format!("[{}]", items.join(","))
            }
            _ => {
                let members: Vec<_> = (0..self.rng.random_range(0..4))
                    .map(|index| {
                        format!(
                            "\"{index}{}\":{}",
                            self.one_of(&["k", "ä", "\\t"]),
                            self.json(depth + 1)
                        )
                    })
                    .collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }

    fn value(&mut self, shape: &Shape) -> String {
        match shape {
            Shape::Text => self.text(),
            Shape::JsonText => self.json(0),
            Shape::Words(words) => format!("\"{}\"", self.one_of(words)),
            Shape::Bytes => {
                let length = self.rng.random_range(0..40);
                let bytes: Vec<u8> = (0..length).map(|_| self.rng.random()).collect();
                format!("\"{}\"", hex::encode(bytes))
            }
            Shape::Boolean => self.rng.random::<bool>().to_string(),
            Shape::Int { minimum } => self
                .rng
                .random_range(*minimum..=i64::from(i32::MAX))
                .to_string(),
            Shape::Long { minimum } => self.rng.random_range(*minimum..=1 << 53).to_string(),
            Shape::Double => format!("{:?}", self.rng.random_range(-1e12..1e12)),
            Shape::Timestamp => {
                let millis = self
                    .rng
                    .random_range(-62_167_219_200_000..253_402_300_799_999);
                format!("\"{}\"", guestkit_protocol::Timestamp::from_millis(millis))
            }
            Shape::Optional(inner) => self.value(inner),
            Shape::Array(inner) => {
                let items: Vec<_> = (0..self.rng.random_range(0..4))
                    .map(|_| self.value(inner))
                    .collect();
                format!("[{}]", items.join(","))
            }
            Shape::Map | Shape::Extensions => {
                let members: Vec<_> = (0..self.rng.random_range(0..4))
                    .map(|index| format!("\"k{index}\":{}", self.text()))
                    .collect();
                format!("{{{}}}", members.join(","))
            }
            Shape::Record(record) => self.record(record),
        }
    }
}
