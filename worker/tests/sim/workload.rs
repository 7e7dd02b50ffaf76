//! What clients publish, and what handlers make of it.

use crate::dice::Dice;
use crate::process::plain_outcome;
use guestkit_protocol::{Framing, NoRegistry, SchemaFault, SchemaSource, WriterSchema};
use guestkit_protocol::{decode_job, encode, slot_of};
use guestkit_worker::engine::ledger::FinalStatus;
use guestkit_worker::engine::outcome::{Failure, Outcome};
use guestkit_worker::engine::record::{Job, Millis, RawRecord};
use serde::Deserialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A schema registry that is down now and then. It knows no schema: a record in Confluent's framing
/// waits while it is down and is invalid when it is up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    down: Arc<AtomicBool>,
}

impl Registry {
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }
}

impl SchemaSource for Registry {
    fn writer_schema(&self, id: u32) -> Result<Arc<WriterSchema>, SchemaFault> {
        if self.down.load(Ordering::Relaxed) {
            return Err(SchemaFault::Unavailable {
                reason: "down".to_owned(),
            });
        }
        NoRegistry.writer_schema(id)
    }
}

/// A record and the partition that its producer chose.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) partition: u32,
    pub(crate) record: RawRecord,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) records: u64,
    pub(crate) keys: u64,
    pub(crate) partitions: u32,
    pub(crate) slots: u32,
    /// Cases of a thousand in which a handler is slow.
    pub(crate) slow: u64,
}

/// A whole run's records, in the order of publishing.
pub(crate) fn publish(size: Size, dice: &mut Dice) -> Vec<Published> {
    let mut values: Vec<(String, Vec<u8>)> = Vec::new();
    let mut all = Vec::new();
    for n in 0..size.records {
        let repeat = !values.is_empty() && dice.permille(120);
        let (key, value) = if repeat {
            // A producer's retry: the same bytes again.
            dice.pick(&values).clone()
        } else if dice.permille(60) {
            poison(n, size, dice)
        } else {
            job(n, size, dice)
        };
        values.push((key.clone(), value.clone()));
        let partition = match dice.below(4) {
            0 => dice.below(u64::from(size.partitions)) as u32,
            _ => slot_of(&key, size.slots),
        };
        all.push(Published {
            partition,
            record: RawRecord {
                key: dice.permille(700).then(|| key.into_bytes()),
                value: Some(value).filter(|value| !value.is_empty()),
                headers: Vec::new(),
                timestamp: 0,
            },
        });
    }
    all
}

fn job(n: u64, size: Size, dice: &mut Dice) -> (String, Vec<u8>) {
    let key = dice.below(size.keys);
    // Now and then another payload under the same key, and an id that was used already.
    let variant = if dice.permille(120) { dice.below(3) } else { 0 };
    let id = if n > 4 && dice.permille(30) {
        n - 1 - dice.below(4)
    } else {
        n
    };
    let operation = if key % 17 == 3 {
        "system.unknown"
    } else {
        "system.echo"
    };
    let takes = if dice.permille(size.slow) {
        dice.between(500, 4_000)
    } else {
        (key * 7 % 40) as i64
    };
    // How it ends is a matter of the key: whoever runs it.
    let end = match key % 11 {
        5 => "fail",
        7 => "panic",
        _ => "ok",
    };
    // Ids are used again under the same key only: anything else is its producer's fault.
    let (id, key) = (format!("job-{id:05}-{key}"), format!("key-{key}"));
    let timeout = if dice.permille(100) { 1 } else { 600 };
    let data = format!(
        r#"{{"end":"{end}","variant":{variant},"takes_ms":{}}}"#,
        if variant == 0 { 20 } else { takes }
    );
    let data = if variant == 0 {
        // The payload of a key is always the same; how long it takes is not in it.
        format!(
            r#"{{"end":"{end}","key":"{key}","takes_ms":{}}}"#,
            slow_of(&key, size.slow)
        )
    } else {
        data
    };
    let json = format!(
        r#"{{"version":"1.0","job_id":"{id}","created_at":"2026-11-24T15:00:00Z","kind":"VMOperation","operation":"{operation}","payload":{{"type":"{operation}.v1","data":{data}}},"execution":{{"idempotency_key":"{key}","timeout_seconds":{timeout},"priority":{}}}}}"#,
        1 + dice.below(10)
    )
    .into_bytes();
    let value = if dice.permille(400) {
        let envelope = decode_job(&json, &NoRegistry).expect("the workload is valid");
        encode(&envelope, Framing::SingleObject).expect("the workload is small")
    } else {
        json
    };
    (key, value)
}

fn slow_of(key: &str, slow: u64) -> i64 {
    let sum: u64 = key.bytes().map(u64::from).sum();
    if sum * 37 % 1_000 < slow {
        (sum * 131 % 3_500) as i64 + 500
    } else {
        (sum * 7 % 40) as i64
    }
}

fn poison(n: u64, size: Size, dice: &mut Dice) -> (String, Vec<u8>) {
    let own = format!("bad-{n:05}-x");
    let invalid = format!(
        r#"{{"version":"1.0","job_id":"{own}","created_at":"2026-11-24T15:00:00Z","kind":"VMOperation","operation":"noformat","payload":{{"type":"x","data":{{}}}}}}"#
    );
    match dice.below(6) {
        0 => (own, Vec::new()),
        1 => (
            own,
            (0..dice.between(1, 60))
                .map(|_| dice.next() as u8)
                .collect(),
        ),
        2 => {
            // Under an id of its own: which key it would have had may stand behind the cut, and one
            // id under two keys is its producer's fault.
            let (key, mut value) = job(n, size, dice);
            if let Some(at) = value.windows(4).position(|part| part == b"job-") {
                value[at..at + 4].copy_from_slice(b"cut-");
            }
            value.truncate(value.len() / 2);
            (key, value)
        }
        // Confluent's framing with an id that nobody knows.
        3 => (own, vec![0, 0, 0, 0, 9, 1, 2, 3]),
        4 => {
            // Its id came with an invalid record before: it is answered already.
            let mended = invalid.replace("noformat", "system.echo");
            (own, mended.into_bytes())
        }
        _ => (own, invalid.into_bytes()),
    }
}

/// What the handler of a job does.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(crate) struct Behaviour {
    end: String,
    pub(crate) takes_ms: i64,
}

pub(crate) fn handle(job: &Job) -> Behaviour {
    serde_json::from_str(job.envelope.payload.data.as_str()).unwrap_or_default()
}

impl Behaviour {
    pub(crate) fn outcome(
        &self,
        stopped: bool,
        attempt: u32,
        started: Millis,
        now: Millis,
    ) -> Outcome {
        let failed = |status, code: &'static str, words: &str| {
            let mut outcome =
                Outcome::unsuccessful(status, Failure::lasting(code, words.to_owned()), now);
            outcome.started_at = started;
            outcome
        };
        if stopped {
            return failed(FinalStatus::Cancelled, "CANCELLED", "told to stop");
        }
        match self.end.as_str() {
            "fail" => failed(
                FinalStatus::Failed,
                "ECHO_FAILED",
                &format!("on attempt {attempt}"),
            ),
            "panic" => failed(FinalStatus::Failed, "HANDLER_PANIC", "the handler panicked"),
            _ => plain_outcome(started, now),
        }
    }
}
