//! A plain producer: idempotent, all replicas, the caller chooses the partition and learns of each delivery.

use crate::acls::{Operation, Permission};
use crate::connection::Connection;
use crate::fault::Fault;
use crate::metadata::Quiet;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// The default compression.
pub const COMPRESSION: &str = "lz4";
/// Records between us and the brokers at any time.
const QUEUE_MAX: usize = 10_000;
/// How long to wait between looks: `poll` itself would always wait its whole time.
const PAUSE: Duration = Duration::from_millis(1);

/// A record to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The caller's number for it.
    pub tag: usize,
    /// Where it is now, partition and offset.
    pub outcome: Result<(i32, i64), Fault>,
}

/// See the module.
pub struct Producer {
    producer: BaseProducer<Reports>,
    reports: Receiver<Delivery>,
}

struct Reports(Sender<Delivery>);

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Quiet.log(level, facility, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        ClientContext::error(&Quiet, error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: Box<usize>) {
        let outcome = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, message)) => Err(refused(message.topic(), error)),
        };
        // The receiver lives as long as the producer.
        self.0.send(Delivery { tag: *tag, outcome }).ok();
    }
}

fn refused(topic: &str, error: &KafkaError) -> Fault {
    let needs = [Permission::topic(Operation::Write, topic)];
    Fault::of_call(format!("write to {topic}"), error, &needs)
}

impl Producer {
    /// Creates a producer. A record that is not delivered within `timeout` has failed.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn new(connection: &Connection, timeout: Duration) -> Result<Self, Fault> {
        let (sender, reports) = channel();
        let mut config = connection.client_config();
        let set = |name: &str| config.get(name).is_some();
        let (compression, codec, linger) = (
            set("compression.type"),
            set("compression.codec"),
            set("linger.ms"),
        );
        if !compression && !codec {
            config.set("compression.type", COMPRESSION);
        }
        if !linger {
            config.set("linger.ms", "5");
        }
        let producer = config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set(
                "message.max.bytes",
                crate::topics::RESULT_BYTES_MAX.to_string(),
            )
            .set("queue.buffering.max.messages", QUEUE_MAX.to_string())
            .set(
                "message.timeout.ms",
                timeout.as_millis().max(1000).to_string(),
            )
            .create_with_context(Reports(sender))
            .map_err(|error| Fault::of("create a producer", &error))?;
        Ok(Self { producer, reports })
    }

    /// Queues a record; waits while too many are under way. `tag` comes back in its [`Delivery`].
    ///
    /// # Errors
    /// A record that can't be queued at all, for example one that is too large.
    pub fn send(&self, outgoing: &Outgoing, tag: usize) -> Result<(), Fault> {
        let mut headers = OwnedHeaders::new_with_capacity(outgoing.headers.len());
        for (key, value) in &outgoing.headers {
            headers = headers.insert(Header {
                key,
                value: value.as_ref(),
            });
        }
        let mut record = BaseRecord::with_opaque_to(&outgoing.topic, Box::new(tag))
            .partition(outgoing.partition)
            .headers(headers);
        record.key = outgoing.key.as_deref();
        record.payload = outgoing.value.as_deref();
        let mut record: BaseRecord<'_, [u8], [u8], Box<usize>> = record;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                // Bounded: queued records fail after their timeout and make room.
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(Duration::ZERO);
                    std::thread::sleep(PAUSE);
                }
                Err((error, _)) => {
                    return Err(refused(&outgoing.topic, &error));
                }
            }
        }
    }

    /// What was delivered or failed since the last look, without waiting.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.producer.poll(Duration::ZERO);
        self.reports.try_iter().collect()
    }

    /// Waits until every queued record is delivered or has failed: at most the timeout given to
    /// [`Producer::new`] and a little.
    pub fn finish(&self) -> Vec<Delivery> {
        let mut all = self.deliveries();
        while self.producer.in_flight_count() > 0 {
            std::thread::sleep(PAUSE);
            all.extend(self.deliveries());
        }
        all.extend(self.deliveries());
        all
    }
}
