//! The producer on its own thread: takes records, waits for the brokers' acknowledgement, answers.

use guestkit_kafka::produce::{Outgoing, Producer};
use guestkit_kafka::{Connection, Fault};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Requests between the routes and the producer: more wait at their connection, or are told to come again.
const QUEUE_MAX: usize = 1_024;
/// How long a record may take: a broker is elected in less, and people wait no longer.
const DELIVERY_MAX: Duration = Duration::from_secs(10);
/// How often deliveries are looked at: the producer's own `poll` would always wait its whole time.
const LOOK: Duration = Duration::from_millis(1);
/// Between two tries to make a producer.
const RENEW_PAUSE: Duration = Duration::from_secs(1);

type Reply = oneshot::Sender<Result<(i32, i64), Fault>>;

/// Hands records to the thread. It ends when the last of these is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    queue: mpsc::Sender<(Outgoing, Reply)>,
}

/// Why a record was not published, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Too many are waiting: certainly not published.
    Busy,
    /// The cluster said so, or said nothing: it may have been published after all.
    Failed(Fault),
}

impl Publisher {
    /// Starts the thread.
    pub(crate) fn start(connection: Connection) -> std::io::Result<Self> {
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        std::thread::Builder::new()
            .name("publisher".to_owned())
            .spawn(move || run(&connection, requests))?;
        Ok(Self { queue })
    }

    /// Publishes a record: partition and offset.
    pub(crate) async fn publish(&self, record: Outgoing) -> Result<(i32, i64), Refusal> {
        let (reply, answer) = oneshot::channel();
        self.queue
            .try_send((record, reply))
            .map_err(|_| Refusal::Busy)?;
        match answer.await {
            Ok(outcome) => outcome.map_err(Refusal::Failed),
            Err(_) => Err(Refusal::Failed(Fault::Other {
                what: "publish".to_owned(),
                reason: "the producer was renewed".to_owned(),
            })),
        }
    }

    /// Whether there is room for one more.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.capacity() > 0
    }
}

fn run(connection: &Connection, mut requests: mpsc::Receiver<(Outgoing, Reply)>) {
    loop {
        match Producer::new(connection, DELIVERY_MAX) {
            Ok(producer) => {
                if !work(&producer, &mut requests) {
                    return;
                }
                tracing::warn!("the producer is renewed after a failed delivery");
            }
            Err(error) => {
                tracing::error!(%error, "no producer");
                std::thread::sleep(RENEW_PAUSE);
                if requests.is_closed() && requests.is_empty() {
                    return;
                }
            }
        }
    }
}

/// Works until the requests end (`false`) or a delivery failed and nothing is under way any more (`true`): an
/// idempotent producer may be beyond use then.
fn work(producer: &Producer, requests: &mut mpsc::Receiver<(Outgoing, Reply)>) -> bool {
    let mut waiting: HashMap<usize, Reply> = HashMap::new();
    let mut next_tag = 0_usize;
    let mut failed = false;
    loop {
        if failed && waiting.is_empty() {
            return true;
        }
        // With nothing under way this thread sleeps until somebody asks.
        let mut request = if waiting.is_empty() {
            match requests.blocking_recv() {
                Some(request) => Some(request),
                None => return false,
            }
        } else if failed {
            None
        } else {
            requests.try_recv().ok()
        };
        while let Some((record, reply)) = request {
            let tag = next_tag;
            next_tag = next_tag.wrapping_add(1);
            match producer.send(&record, tag) {
                Ok(()) => {
                    waiting.insert(tag, reply);
                }
                Err(fault) => {
                    failed = true;
                    // Whoever asked may have gone away.
                    reply.send(Err(fault)).ok();
                }
            }
            request = if waiting.len() < QUEUE_MAX && !failed {
                requests.try_recv().ok()
            } else {
                None
            };
        }
        for delivery in producer.deliveries() {
            failed |= delivery.outcome.is_err();
            if let Some(reply) = waiting.remove(&delivery.tag) {
                reply.send(delivery.outcome).ok();
            }
        }
        if !waiting.is_empty() {
            std::thread::sleep(LOOK);
        }
    }
}
