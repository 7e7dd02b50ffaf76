//! Ledger restore from the broker, and what the index costs.

use crate::Row;
use crate::cluster::{Cluster, client};
use guestkit_worker::broker::ledger_reader::LedgerReader;
use guestkit_worker::clock::now_ms;
use guestkit_worker::codec::{Codec, Framings};
use guestkit_worker::engine::index::HashSeed;
use guestkit_worker::engine::ledger::{Done, FinalStatus, LedgerKind, ResultPointer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::sync::Arc;
use std::time::Duration;

const KEYS: usize = 1_000_000;

pub(crate) fn run(cluster: &Cluster) -> Vec<Row> {
    println!("== restore of one slot with {KEYS} keys");
    let topics = cluster.topics("restore", 1);
    let names = Arc::new(topics.names());
    let codec = Codec::new("bench".into(), Framings::default(), now_ms);
    let producer: BaseProducer = client(&cluster.bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "20")
        .set("compression.type", "lz4")
        .create()
        .expect("a producer");
    for n in 0..KEYS {
        let job_id: Arc<str> = format!("job-{n:08}").into();
        let done = codec.encode_done(&Done {
            job_id: job_id.clone(),
            payload_hash: [7; 32],
            status: FinalStatus::Completed,
            attempt: 1,
            run: 1,
            result: ResultPointer {
                topic: names.results.as_str().into(),
                partition: 0,
                job_id,
            },
            answered: Vec::new(),
        });
        let key = format!("key-{n:08}");
        let mut record = BaseRecord::to(&names.ledger)
            .partition(0)
            .key(key.as_str())
            .payload(done.as_slice())
            .headers(Codec::ledger_headers(LedgerKind::Done));
        while let Err((_, back)) = producer.send(record) {
            record = back;
            producer.poll(Duration::from_millis(5));
        }
    }
    producer.flush(Duration::from_secs(60)).expect("written");
    let mut connection = client(&cluster.bootstrap);
    connection.set("group.id", "bench-restore");
    let reader =
        LedgerReader::new(&connection, names, HashSeed(1, 2), "bench".into()).expect("a reader");
    let mut rates = Vec::new();
    let mut bytes = 0.0;
    for round in 1..=3 {
        let start = now_ms();
        let restored = reader.restore(0, 1, &|| true).expect("restored");
        let ms = (now_ms() - start).max(1);
        let keys = restored.index.len() as f64;
        let rate = keys / ms as f64 * 1_000.0;
        bytes = restored.index.heap_bytes() as f64 / keys;
        println!("round {round}: {ms:>6} ms   {rate:>9.0} keys/s   {bytes:.1} bytes a key");
        rates.push(rate);
    }
    rates.sort_by(f64::total_cmp);
    vec![
        Row {
            what: "ledger restore from the broker",
            target: ">= 500000 keys/s",
            reached: format!("{:.0} keys/s (median of {})", rates[1], rates.len()),
        },
        Row {
            what: "index at 1000000 keys",
            target: "<= 48 bytes a key",
            reached: format!("{bytes:.1} bytes a key"),
        },
    ]
}
