//! The ledger entry: what the owner of a slot remembers. Four kinds in one flat record.

use crate::bytes::Bytes;
use crate::document::answered::Answered;
use crate::document::document;
use crate::document::envelope::{JobEnvelope, Metadata, Observability};
use crate::document::result::{JobStatus, ResultPointer};
use crate::payload_hash::PayloadHash;
use crate::record::{default_or, default_text, json_name, record, words};
use crate::shape::{FieldShape, RecordShape, Shape};
use crate::timestamp::Timestamp;
use crate::wire::{Input, Output, ReadResult, Wire, within};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Record key of the SLOT entry. No idempotency key begins with a control character.
pub const SLOT_KEY: &[u8] = b"\0slot";
/// Record key of the MARK entry.
pub const MARK_KEY: &[u8] = b"\0mark";

words! {
    /// `kind` of a ledger entry.
    pub enum LedgerKind {
        /// The answer for a key.
        Done = "done",
        /// A job that the committed offset has passed, or that runs elsewhere.
        Open = "open",
        /// Next offset and what is settled beyond it.
        Slot = "slot",
        /// Which offsets may be running in which process.
        Mark = "mark",
    }
}

/// What the owner of a slot remembers: a record of the ledger topic.
#[derive(Debug, Clone, PartialEq)]
pub enum LedgerEntry {
    /// The answer for a key.
    Done(DoneEntry),
    /// A job that the committed offset has passed, or that runs elsewhere.
    Open(Box<OpenEntry>),
    /// Next offset and what is settled beyond it.
    Slot(SlotEntry),
    /// Which offsets may be running in which process.
    Mark(MarkEntry),
}

record! {
    /// The answer for an idempotency key.
    plain pub struct DoneEntry {
        /// The job whose run decided.
        job_id: String,
        /// Its payload hash, 32 bytes.
        payload_hash: PayloadHash,
        /// How it ended: completed, failed, cancelled or timeout.
        status: JobStatus,
        /// The attempt that decided, from 1.
        attempt: u32,
        /// The run that decided, from 1.
        run: u32,
        /// Where its result is.
        result: ResultPointer,
        /// Every job id answered for the key, newest last, 12 bytes each: the first 64 bits of SHA-256 of
        /// the id and the first 32 bits of its payload hash.
        answered: Answered,
    }
}

record! {
    /// A job that the committed offset has passed, or that runs elsewhere.
    plain pub struct OpenEntry {
        /// The job.
        job_id: String,
        /// Its payload hash, 32 bytes.
        payload_hash: PayloadHash,
        /// The job record's value: an envelope in any framing.
        envelope: Bytes,
        /// The attempt that runs or comes next, from 1.
        attempt: u32,
        /// How often the job was started.
        run: u32,
        /// How many processes died while running it.
        deaths: u32,
        /// The incarnation that runs it; absent while nobody does.
        holder: Option<String>,
        /// When the next attempt is due.
        retry_at: Option<Timestamp>,
        /// The duplicates that wait for its result.
        waiters: Vec<Waiter>,
        /// Its failed attempts in short.
        errors: Vec<AttemptError>,
        /// As in a done entry.
        answered: Answered,
    }
}

record! {
    /// A duplicate that waits for the result of an open job.
    plain pub struct Waiter {
        /// The duplicate's own job id.
        job_id: String,
        /// Its operation.
        operation: String,
        /// When it was made.
        created_at: Timestamp,
        /// Its trace and correlation ids.
        observability: Observability,
        /// Its names and labels.
        metadata: Metadata,
    }
}

record! {
    /// A failed attempt in short.
    plain pub struct AttemptError {
        /// The attempt, from 1.
        attempt: u32,
        /// The run, from 1.
        run: u32,
        /// The error code.
        code: String,
        /// The start of the message.
        message: String,
    }
}

record! {
    /// How far a slot is.
    plain pub struct SlotEntry {
        /// The partition count of the ledger when it was made: N of the slot function.
        partition_count: u32,
        /// The jobs partition's next offset to commit.
        next_offset: u64,
        /// Offsets beyond it that are settled, ascending.
        settled: Vec<OffsetRange>,
        /// The transactional id of the writer.
        writer: String,
        /// Whether the writer gave the slot up in good order.
        released: bool,
    }
}

record! {
    /// Which offsets may be running in which process.
    plain pub struct MarkEntry {
        /// The process life.
        incarnation: String,
        /// Its transactional id.
        transactional_id: String,
        /// Offsets that hold an execution permit, or may get one next; ascending.
        offsets: Vec<OffsetRange>,
    }
}

/// Offsets from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetRange {
    /// The first offset.
    pub first: u64,
    /// The last offset, not smaller than the first.
    pub last: u64,
}

impl Wire for OffsetRange {
    fn write(&self, out: &mut Output) {
        self.first.write(out);
        self.last.write(out);
    }
    fn read(input: &mut Input<'_>) -> ReadResult<Self> {
        let first = u64::read(input).map_err(|fault| within("first", fault))?;
        let last = u64::read(input).map_err(|fault| within("last", fault))?;
        if last < first {
            return Err(input.fault(format!("the range {first} to {last} is upside down")));
        }
        Ok(Self { first, last })
    }
    fn shape() -> Shape {
        let offset = |name, doc: &str| FieldShape {
            name,
            json_name: name,
            doc: doc.to_owned(),
            shape: u64::shape(),
            default: None,
        };
        Shape::Record(RecordShape {
            name: "OffsetRange",
            doc: "Offsets from first to last, both included.".to_owned(),
            fields: vec![
                offset("first", "The first offset."),
                offset("last", "The last offset, not smaller than the first."),
            ],
        })
    }
}

impl LedgerEntry {
    /// Which of the four it is.
    pub fn kind(&self) -> LedgerKind {
        match self {
            Self::Done(_) => LedgerKind::Done,
            Self::Open(_) => LedgerKind::Open,
            Self::Slot(_) => LedgerKind::Slot,
            Self::Mark(_) => LedgerKind::Mark,
        }
    }
}

record! {
    /// What the owner of a slot remembers: kind, and the one record of that kind.
    plain struct FlatEntry {
        /// One of done, open, slot, mark.
        kind: LedgerKind,
        /// The answer for a key; there when kind is done.
        done: Option<DoneEntry>,
        /// A job that the committed offset has passed, or that runs elsewhere; there when kind is open.
        open: Option<OpenEntry>,
        /// How far the slot is; there when kind is slot.
        slot: Option<SlotEntry>,
        /// Which offsets may be running in which process; there when kind is mark.
        mark: Option<MarkEntry>,
    }
}

impl FlatEntry {
    fn into_entry(self) -> Result<LedgerEntry, String> {
        let kind = self.kind;
        let entry = match kind {
            LedgerKind::Done => self.done.map(LedgerEntry::Done),
            LedgerKind::Open => self.open.map(|open| LedgerEntry::Open(Box::new(open))),
            LedgerKind::Slot => self.slot.map(LedgerEntry::Slot),
            LedgerKind::Mark => self.mark.map(LedgerEntry::Mark),
        };
        entry.ok_or_else(|| format!("kind is {kind} but the record of that name is missing"))
    }
}

/// Writes one branch of the flat record.
fn write_branch<T: Wire>(value: Option<&T>, out: &mut Output) {
    match value {
        None => out.bytes.push(0),
        Some(value) => {
            out.bytes.push(2);
            value.write(out);
        }
    }
}

impl LedgerEntry {
    fn done(&self) -> Option<&DoneEntry> {
        if let Self::Done(done) = self {
            Some(done)
        } else {
            None
        }
    }
    fn open(&self) -> Option<&OpenEntry> {
        if let Self::Open(open) = self {
            Some(open)
        } else {
            None
        }
    }
    fn slot(&self) -> Option<&SlotEntry> {
        if let Self::Slot(slot) = self {
            Some(slot)
        } else {
            None
        }
    }
    fn mark(&self) -> Option<&MarkEntry> {
        if let Self::Mark(mark) = self {
            Some(mark)
        } else {
            None
        }
    }
}

document!(@schema LedgerEntry, "ledger_entry",
    fn document_shape() -> RecordShape {
        RecordShape { name: "LedgerEntry", ..FlatEntry::record_shape() }
    }
    #[allow(private_interfaces)]
    fn write_datum(&self, out: &mut Output) {
        self.kind().write(out);
        write_branch(self.done(), out);
        write_branch(self.open(), out);
        write_branch(self.slot(), out);
        write_branch(self.mark(), out);
        out.bytes.push(0); // no extensions
    }
    #[allow(private_interfaces)]
    fn read_datum(input: &mut Input<'_>) -> ReadResult<Self> {
        FlatEntry::read_fields(input)?.into_entry().map_err(|reason| input.fault(reason))
    }
);

impl Serialize for LedgerEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("kind", &self.kind())?;
        match self {
            Self::Done(done) => map.serialize_entry("done", done)?,
            Self::Open(open) => map.serialize_entry("open", open)?,
            Self::Slot(slot) => map.serialize_entry("slot", slot)?,
            Self::Mark(mark) => map.serialize_entry("mark", mark)?,
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for LedgerEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        FlatEntry::deserialize(deserializer)?
            .into_entry()
            .map_err(de::Error::custom)
    }
}

impl DoneEntry {
    /// The answer for a job that ran: attempt and run are those that decided, its own id is answered.
    pub fn new(
        job_id: impl Into<String>,
        payload_hash: PayloadHash,
        status: JobStatus,
        result: ResultPointer,
    ) -> Self {
        let job_id = job_id.into();
        let mut answered = Answered::default();
        answered.push(&job_id, &payload_hash);
        Self {
            job_id,
            payload_hash,
            status,
            attempt: 1,
            run: 1,
            result,
            answered,
            extensions: Default::default(),
        }
    }
}

impl OpenEntry {
    /// An open job in its first run, held by nobody.
    pub fn new(job_id: impl Into<String>, payload_hash: PayloadHash, envelope: Vec<u8>) -> Self {
        Self {
            job_id: job_id.into(),
            payload_hash,
            envelope: Bytes(envelope),
            attempt: 1,
            run: 1,
            deaths: 0,
            holder: None,
            retry_at: None,
            waiters: Vec::new(),
            errors: Vec::new(),
            answered: Answered::default(),
            extensions: Default::default(),
        }
    }
}

impl Waiter {
    /// What has to be remembered of a duplicate.
    pub fn of(job: &JobEnvelope) -> Self {
        Self {
            job_id: job.job_id.clone(),
            operation: job.operation.clone(),
            created_at: job.created_at,
            observability: job.observability.clone(),
            metadata: job.metadata.clone(),
            extensions: Default::default(),
        }
    }
}

impl AttemptError {
    /// Bytes of a message that are kept.
    pub const MESSAGE_MAX: usize = 512;

    /// A failed attempt; the message is cut to [`MESSAGE_MAX`](Self::MESSAGE_MAX) bytes.
    pub fn new(attempt: u32, run: u32, code: impl Into<String>, message: &str) -> Self {
        let end = message.floor_char_boundary(Self::MESSAGE_MAX);
        Self {
            attempt,
            run,
            code: code.into(),
            message: message[..end].to_owned(),
            extensions: Default::default(),
        }
    }
}
