//! Topics, producer and reader on a real broker.

use crate::{address, prefix};
use guestkit_kafka::metadata::{cluster, committed, extents};
use guestkit_kafka::produce::{Outgoing, Producer};
use guestkit_kafka::reader::{Reader, Record, Start, Step, Until};
use guestkit_kafka::topics::{self, Created};
use guestkit_kafka::{Connection, Fault, TopicNames};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use std::time::Duration;

const T: Duration = Duration::from_secs(20);

fn connection() -> Connection {
    Connection::plain(&address("GUESTKIT_TEST_BOOTSTRAP_SERVERS")).unwrap()
}

fn read_all(mut reader: Reader) -> Vec<Record> {
    let mut records = Vec::new();
    for _ in 0..400 {
        match reader.next(Duration::from_millis(50)).unwrap() {
            Step::Record(record) => records.push(record),
            Step::Idle => {}
            Step::Done => return records,
        }
    }
    panic!("the reader did not end; it has {} records", records.len());
}

#[test]
fn topics_are_created_once_and_checked() {
    let connection = connection();
    let names = TopicNames::new(&prefix("topics"), None).unwrap();
    let missing = topics::check(&connection, &names, T).unwrap();
    assert_eq!(missing.len(), 8, "{missing:?}");
    let created = topics::create(&connection, &names, 3, None, T).unwrap();
    assert_eq!(created[0], (names.jobs.clone(), Created::New(3)));
    assert_eq!(created[7], (names.workers.clone(), Created::New(1)));
    assert_eq!(topics::check(&connection, &names, T).unwrap(), []);
    // Another pool shares results; again and with another count, nothing changes.
    let created = topics::create(&connection, &names, 5, None, T).unwrap();
    assert_eq!(created[0].1, Created::Found(3));
    let pool = TopicNames::new(&names.prefix, Some("gpu")).unwrap();
    let created = topics::create(&connection, &pool, 2, None, T).unwrap();
    assert_eq!(
        (&created[0].1, &created[2].1),
        (&Created::New(2), &Created::Found(3))
    );
    let offsets = committed(&connection, &names.group("nobody"), &names.jobs, 3, T).unwrap();
    assert_eq!(offsets, [None, None, None]);
    assert_eq!(
        cluster(&connection, T).unwrap().partitions(&pool.jobs),
        Ok(2)
    );
}

#[test]
fn a_reader_sees_what_is_committed_and_ends_behind_gaps() {
    let connection = connection();
    let names = TopicNames::new(&prefix("reader"), None).unwrap();
    topics::create(&connection, &names, 3, None, T).unwrap();
    let producer = Producer::new(&connection, T).unwrap();
    for number in 0..6_u8 {
        let outgoing = Outgoing {
            topic: names.results.clone(),
            partition: i32::from(number % 2),
            key: Some(vec![number]),
            value: Some(vec![number; 3]),
            headers: vec![("a".to_owned(), Some(vec![1])), ("b".to_owned(), None)],
        };
        producer.send(&outgoing, usize::from(number)).unwrap();
    }
    let deliveries = producer.finish();
    assert_eq!(deliveries.len(), 6);
    assert!(
        deliveries.iter().all(|delivery| delivery.outcome.is_ok()),
        "{deliveries:?}"
    );

    // A committed, an aborted and an open transaction, each at an end.
    let transactions = |id: &str| -> BaseProducer {
        let mut config = connection.client_config();
        let id = format!("{}.{id}", names.prefix);
        let producer: BaseProducer = config.set("transactional.id", id).create().unwrap();
        producer.init_transactions(T).unwrap();
        producer.begin_transaction().unwrap();
        producer
    };
    let send = |producer: &BaseProducer, partition, value: &str| {
        let record = BaseRecord::<str, str>::to(&names.results)
            .partition(partition)
            .payload(value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(T).unwrap();
    };
    let committed = transactions("committed");
    send(&committed, 0, "committed");
    committed.commit_transaction(T).unwrap();
    let aborted = transactions("aborted");
    send(&aborted, 1, "aborted");
    aborted.abort_transaction(T).unwrap();
    let open = transactions("open");
    send(&open, 2, "open");

    let reader =
        |start, until| Reader::open(&connection, &names.results, &start, until, T).unwrap();
    let all = read_all(reader(Start::Beginning, Until::End));
    assert_eq!(all.len(), 7, "{all:?}");
    let first = all
        .iter()
        .find(|record| record.key == Some(vec![0]))
        .unwrap();
    assert_eq!(
        first.headers,
        [("a".to_owned(), Some(vec![1])), ("b".to_owned(), None)]
    );
    assert!(
        all.iter()
            .any(|record| record.value.as_deref() == Some(b"committed"))
    );
    assert!(
        !all.iter()
            .any(|record| record.value.as_deref() == Some(b"aborted"))
    );

    assert_eq!(read_all(reader(Start::End, Until::End)), []);
    assert_eq!(read_all(reader(Start::Timestamp(0), Until::End)).len(), 7);
    assert_eq!(
        read_all(reader(Start::Timestamp(i64::MAX / 2), Until::End)),
        []
    );
    assert_eq!(
        read_all(reader(Start::Offsets(vec![2, 3, 0]), Until::End)).len(),
        2
    );
    let one = read_all(reader(
        Start::Record {
            partition: 1,
            offset: 1,
        },
        Until::End,
    ));
    assert_eq!((one[0].partition, one[0].offset), (1, 1));

    // A follower gets what comes after it was opened, also of the open transaction.
    let mut follower = reader(Start::End, Until::Follow);
    open.commit_transaction(T).unwrap();
    let came = (0..200).find_map(
        |_| match follower.next(Duration::from_millis(50)).unwrap() {
            Step::Record(record) => Some(record),
            _ => None,
        },
    );
    assert_eq!(came.unwrap().value.as_deref(), Some(&b"open"[..]));
    assert_eq!(extents(&connection, &names.results, T).unwrap().len(), 3);
}

#[test]
fn faults_are_told_apart() {
    let nobody = Connection::plain("127.0.0.1:1").unwrap();
    let fault = cluster(&nobody, Duration::from_secs(1)).unwrap_err();
    assert!(fault.is_unreachable(), "{fault}");
    let missing = extents(&connection(), &prefix("none"), T).unwrap_err();
    assert!(matches!(missing, Fault::Config(_)), "{missing}");
    let names = TopicNames::new(&prefix("faults"), None).unwrap();
    let many = topics::create(&connection(), &names, 1, Some(1000), T).unwrap_err();
    assert!(matches!(many, Fault::Config(_)), "{many}");
}
