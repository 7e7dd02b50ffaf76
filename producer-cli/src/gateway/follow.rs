//! Followers: one thread for each topic, from its newest records on.
//!
//! They never give up: a reader that fails is opened again where it was. What they tell is on the board, in
//! the list of dead letters and in the directory of workers.

use crate::settings::Settings;
use guestkit_kafka::metadata::extents;
use guestkit_kafka::reader::{Reader, Record, Start, Step, Until};
use guestkit_kafka::{Connection, Fault};
use guestkit_protocol::{DecodeError, Document, SchemaSource, decode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long one question to the cluster may take.
const QUESTION: Duration = Duration::from_secs(5);
/// Between two tries to open a reader.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a reader waits for a record before it looks around.
const WAIT: Duration = Duration::from_millis(100);
/// So long without a record after the start means that the past is read.
const SILENCE: Duration = Duration::from_millis(500);
/// Without a record for so long while the cluster complains: open it anew, the offsets may be gone.
const COMPLAINTS_MAX: Duration = Duration::from_secs(30);
/// A loop that did not turn for this long is stuck: longer than all questions of one opening together.
const STUCK: Duration = Duration::from_secs(60);
/// How often a record is tried again when the schema registry does not answer; then it is passed over, and a
/// look-up can still find it.
const DECODES_MAX: u32 = 10;

/// How a follower is.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// Milliseconds of [`crate::clock::uptime`].
    beat: AtomicU64,
    caught_up: AtomicBool,
    stop: AtomicBool,
}

impl Pulse {
    /// Whether the past is read.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Relaxed)
    }

    /// Whether its loop turns.
    pub(crate) fn is_alive(&self) -> bool {
        let beat = Duration::from_millis(self.beat.load(Ordering::Relaxed));
        crate::clock::uptime().saturating_sub(beat) < STUCK
    }

    /// Asks the thread to end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn beat(&self) {
        let now = crate::clock::uptime().as_millis();
        self.beat
            .store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What a follower does with a record.
pub(crate) type Sink = Box<dyn FnMut(Record, &dyn SchemaSource) + Send>;

/// Follows a topic on a thread of its own, from the newest `recent` records on (`None`: from its beginning).
pub(crate) fn start(
    settings: &Settings,
    connection: &Connection,
    topic: &str,
    recent: Option<u32>,
    sink: Sink,
) -> crate::failure::Outcome<Arc<Pulse>> {
    let pulse = Arc::new(Pulse::default());
    pulse.beat();
    let mut follower = Follower {
        connection: connection.clone(),
        schemas: settings.schemas()?,
        topic: topic.to_owned(),
        recent,
        pulse: pulse.clone(),
        sink,
        positions: Vec::new(),
    };
    std::thread::Builder::new()
        .name(format!("follow {topic}").chars().take(15).collect())
        .spawn(move || follower.run())?;
    Ok(pulse)
}

struct Follower {
    connection: Connection,
    schemas: Box<dyn SchemaSource>,
    topic: String,
    recent: Option<u32>,
    pulse: Arc<Pulse>,
    sink: Sink,
    /// The next offset of each partition; empty until it was opened for the first time.
    positions: Vec<i64>,
}

impl Follower {
    fn run(&mut self) {
        while !self.pulse.is_stopped() {
            self.pulse.beat();
            if let Err(error) = self.follow() {
                tracing::warn!(topic = self.topic, %error, "follow");
                self.pulse.beat();
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn open(&mut self) -> Result<Reader, Fault> {
        let ends = extents(&self.connection, &self.topic, QUESTION)?;
        let count = i64::try_from(ends.len().max(1)).unwrap_or(i64::MAX);
        if self.positions.len() != ends.len() {
            let known = std::mem::take(&mut self.positions);
            self.positions = ends
                .iter()
                .enumerate()
                .map(|(at, extent)| match (known.get(at), self.recent) {
                    (Some(position), _) => *position,
                    (None, Some(recent)) => {
                        (extent.end - i64::from(recent) / count - 1).max(extent.start)
                    }
                    (None, None) => extent.start,
                })
                .collect();
        }
        let start = Start::Offsets(self.positions.clone());
        Reader::open(
            &self.connection,
            &self.topic,
            &start,
            Until::Follow,
            QUESTION,
        )
    }

    fn follow(&mut self) -> Result<(), Fault> {
        let mut reader = self.open()?;
        let mut heard = crate::clock::uptime();
        loop {
            self.pulse.beat();
            if self.pulse.is_stopped() {
                return Ok(());
            }
            match reader.next(WAIT)? {
                Step::Record(record) => {
                    heard = crate::clock::uptime();
                    let at = usize::try_from(record.partition).unwrap_or(usize::MAX);
                    if let Some(position) = self.positions.get_mut(at) {
                        *position = record.offset + 1;
                    }
                    (self.sink)(record, &*self.schemas);
                }
                Step::Idle | Step::Done => {
                    let silent = crate::clock::uptime().saturating_sub(heard);
                    match reader.last_fault() {
                        Some(fault) if silent > COMPLAINTS_MAX => return Err(fault.clone()),
                        Some(_) => {}
                        None if silent > SILENCE => {
                            self.pulse.caught_up.store(true, Ordering::Relaxed);
                        }
                        None => {}
                    }
                }
            }
        }
    }
}

/// Reads a document; waits a little for a registry that does not answer. `None`: it is none, or cannot be read
/// now.
pub(crate) fn document<D: Document>(record: &Record, schemas: &dyn SchemaSource) -> Option<D> {
    let value = record.value.as_deref()?;
    let (partition, offset) = (record.partition, record.offset);
    for _ in 0..DECODES_MAX {
        match decode(value, schemas) {
            Ok(document) => return Some(document),
            Err(DecodeError::Temporary(error)) => {
                tracing::warn!(partition, offset, %error, "decode");
                std::thread::sleep(PAUSE);
            }
            Err(error) => {
                tracing::debug!(partition, offset, %error, "decode");
                return None;
            }
        }
    }
    None
}
