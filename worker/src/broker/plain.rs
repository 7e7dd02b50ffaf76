//! The plain idempotent producer beside the transactions: MARK, progress and advertisements.

use super::figures::{Figures, REPORT_MS};
use super::member::Events;
use super::writer::MARK_RECORD_KEY;
use super::{BrokerError, Topics, permissions};
use crate::codec::{Codec, Encoded};
use crate::engine::Event;
use crate::engine::ledger::LedgerKind;
use crate::engine::transaction::{Epoch, MarkWrite};
use guestkit_kafka::acls::{Operation, Permission};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What a delivery report is about.
pub enum Delivery {
    /// A MARK: the engine waits for it.
    Mark {
        /// Slot.
        partition: u32,
        /// Assignment.
        epoch: Epoch,
        /// Its number.
        number: u64,
    },
    /// A progress event: nobody waits.
    Progress,
    /// An entry of the worker directory: the next one makes up for it.
    Advertisement,
}

struct PlainContext {
    events: Events,
    progress_lost: Arc<AtomicU64>,
    figures: Arc<Figures>,
    advertisements: Arc<Advertisements>,
}

/// What became of advertisements.
#[derive(Debug, Default)]
struct Advertisements {
    lost: AtomicU64,
    is_failing: AtomicBool,
}

impl Advertisements {
    fn lost(&self, error: &KafkaError) {
        let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
        // Once for each time that it fails: a heartbeat every ten seconds must not fill the log.
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(lost, %error, "this worker is not advertised; jobs go on");
        }
    }
}

impl ClientContext for PlainContext {
    fn stats(&self, statistics: rdkafka::Statistics) {
        self.figures.take(&statistics);
    }

    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        super::log_librdkafka("plain", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "plain producer reports");
    }
}

impl ProducerContext for PlainContext {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, about: Box<Delivery>) {
        match *about {
            Delivery::Mark {
                partition,
                epoch,
                number,
            } => {
                let event = match result {
                    Ok(_) => Event::MarkAcked {
                        partition,
                        epoch,
                        number,
                    },
                    Err((error, message)) => {
                        noticed(error, message.topic());
                        tracing::warn!(partition, %error, "mark not written; it is tried again");
                        Event::MarkFailed {
                            partition,
                            epoch,
                            number,
                        }
                    }
                };
                if self.events.blocking_send(event).is_err() {
                    tracing::debug!("the engine is gone; a mark's answer has no taker");
                }
            }
            Delivery::Progress => {
                if let Err((error, message)) = result {
                    noticed(error, message.topic());
                    self.progress_lost.fetch_add(1, Ordering::Relaxed);
                }
            }
            Delivery::Advertisement => match result {
                Ok(_) => self
                    .advertisements
                    .is_failing
                    .store(false, Ordering::Relaxed),
                Err((error, _)) => self.advertisements.lost(error),
            },
        }
    }
}

fn noticed(error: &KafkaError, topic: &str) {
    permissions::noticed(error, &[Permission::topic(Operation::Write, topic)]);
}

/// Writes what needs no transaction.
pub struct Plain {
    producer: ThreadedProducer<PlainContext>,
    topics: Arc<Topics>,
    codec: Arc<Codec>,
    progress_lost: Arc<AtomicU64>,
    figures: Arc<Figures>,
    advertisements: Arc<Advertisements>,
}

impl Plain {
    /// Creates the producer.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(
        connection: &ClientConfig,
        topics: Arc<Topics>,
        codec: Arc<Codec>,
        events: Events,
    ) -> Result<Self, BrokerError> {
        let progress_lost = Arc::new(AtomicU64::new(0));
        let figures = Arc::new(Figures::default());
        let advertisements = Arc::new(Advertisements::default());
        let context = PlainContext {
            events,
            progress_lost: progress_lost.clone(),
            advertisements: advertisements.clone(),
            figures: figures.clone(),
        };
        let producer = connection
            .clone()
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // A job waits for its MARK: no linger.
            .set("linger.ms", "0")
            .set("message.timeout.ms", "10000")
            .set("statistics.interval.ms", REPORT_MS)
            .create_with_context(context)
            .map_err(|source| BrokerError::of("create the plain producer", source))?;
        Ok(Self {
            producer,
            topics,
            codec,
            progress_lost,
            figures,
            advertisements,
        })
    }

    /// Writes a MARK; its answer comes as an event. Never waits. One that cannot even be queued is
    /// answered at once, for the caller to apply: he stands on the engine's own thread, which must
    /// not wait for room in its own queue.
    #[must_use]
    pub fn write_mark(&self, write: &MarkWrite) -> Option<Event> {
        let about = Delivery::Mark {
            partition: write.partition,
            epoch: write.epoch,
            number: write.number,
        };
        let value = self.codec.encode_mark(&write.mark);
        let record = BaseRecord::with_opaque_to(&self.topics.ledger, Box::new(about))
            .partition(i32::try_from(write.partition).unwrap_or(i32::MAX))
            .key(MARK_RECORD_KEY)
            .payload(&value)
            .headers(Codec::ledger_headers(LedgerKind::Mark));
        let (error, _) = self.producer.send(record).err()?;
        tracing::warn!(partition = write.partition, %error, "mark not sent; it is tried again");
        Some(Event::MarkFailed {
            partition: write.partition,
            epoch: write.epoch,
            number: write.number,
        })
    }

    /// Publishes a progress event; lost ones are counted, nobody waits.
    pub fn write_progress(&self, partition: u32, job_id: &str, encoded: &Encoded) {
        let record =
            BaseRecord::with_opaque_to(&self.topics.progress, Box::new(Delivery::Progress))
                .partition(i32::try_from(partition).unwrap_or(i32::MAX))
                .key(job_id)
                .payload(&encoded.value)
                .headers(owned(encoded));
        if self.producer.send(record).is_err() {
            self.progress_lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Progress events that could not be written.
    #[must_use]
    pub fn progress_lost(&self) -> u64 {
        self.progress_lost.load(Ordering::Relaxed)
    }

    /// What librdkafka says of this client.
    #[must_use]
    pub fn figures(&self) -> Arc<Figures> {
        self.figures.clone()
    }

    /// Writes an entry of the worker directory; a lost one is counted and logged, nobody waits.
    pub fn write_advertisement(&self, topic: &str, worker_id: &str, encoded: &Encoded) {
        let record = BaseRecord::with_opaque_to(topic, Box::new(Delivery::Advertisement))
            .key(worker_id)
            .payload(&encoded.value)
            .headers(owned(encoded));
        if let Err((error, _)) = self.producer.send(record) {
            self.advertisements.lost(&error);
        }
    }

    /// Entries of the worker directory that could not be written.
    #[must_use]
    pub fn advertisements_lost(&self) -> u64 {
        self.advertisements.lost.load(Ordering::Relaxed)
    }

    /// Waits for what is on its way, at most `limit`.
    pub fn flush(&self, limit: Duration) {
        if let Err(error) = self.producer.flush(limit) {
            tracing::debug!(%error, "plain producer not flushed");
        }
    }
}

fn owned(encoded: &Encoded) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(encoded.headers.len());
    for (key, value) in &encoded.headers {
        headers = headers.insert(Header {
            key,
            value: value.as_deref(),
        });
    }
    headers
}
