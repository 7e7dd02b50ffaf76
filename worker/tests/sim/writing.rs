//! A process' writer: the shared procedure over the simulated broker, one call at a time.

use crate::breakage::Breakage;
use crate::broker::{Broker, Handle, Holder, TxError};
use crate::group::Metadata;
use crate::membership::Membership;
use crate::net::{Net, Strike};
use crate::process::Message;
use crate::reading::{ReadReply, Reading, ReadingId};
use guestkit_worker::broker::group_metadata;
use guestkit_worker::codec::Codec;
use guestkit_worker::engine::Event;
use guestkit_worker::engine::ledger::OffsetRange;
use guestkit_worker::engine::read_steps::{ReadStep, ReadSteps};
use guestkit_worker::engine::record::{Millis, RawRecord};
use guestkit_worker::engine::transaction::{
    AbortReason, PartitionCommit, Resolution, Transaction, TxOutcome,
};
use guestkit_worker::engine::write_steps::{Renewal, WriteFault, WriteStep, WriteSteps};
use guestkit_worker::ledger_fold::ReadBack;
use guestkit_worker::transaction_records::{Place, write_all};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;

/// Pause before a call that has to be made again.
const RETRY_MS: Millis = 20;
/// What a client waits before it gives a request up.
const GIVE_UP_MS: Millis = 700;

#[derive(Debug)]
pub(crate) enum WriteReply {
    Opened(Result<Handle, TxError>),
    Produced(Result<Vec<i64>, TxError>),
    OffsetsSent(Result<(), TxError>),
    Ended(Result<(), TxError>),
    /// A local step, or the same call once more.
    Go,
    Fault(WriteFault),
}

#[derive(Debug)]
struct Batch {
    place: Place,
    partition: u32,
    records: Vec<RawRecord>,
}

#[derive(Debug)]
struct Writing {
    tx: Transaction,
    steps: WriteSteps,
    metadata: Option<(Metadata, Holder)>,
    batches: VecDeque<Batch>,
    begun: bool,
    offsets_sent: bool,
    added: BTreeSet<(Place, u32)>,
    ledger_offsets: BTreeMap<u32, Vec<i64>>,
    connection_broke: bool,
}

#[derive(Debug)]
struct Resolving {
    tx: Transaction,
    part: usize,
    reading: Option<Reading>,
    found: Vec<Resolution>,
}

#[derive(Debug, Default)]
enum Work {
    #[default]
    Idle,
    Writing(Box<Writing>),
    Resolving(Box<Resolving>),
}

/// The transactional writer of one process.
#[derive(Debug)]
pub(crate) struct Writer {
    transactional_id: String,
    handle: Option<Handle>,
    renewal: Renewal,
    work: Work,
    attempt: u64,
    /// What was sent last, for a worker that sends only what moved.
    sent: BTreeMap<u32, i64>,
    breakage: Option<Breakage>,
}

impl Writer {
    pub(crate) fn new(transactional_id: &str, breakage: Option<Breakage>) -> Self {
        Self {
            transactional_id: transactional_id.to_owned(),
            handle: None,
            renewal: Renewal::default(),
            work: Work::Idle,
            attempt: 0,
            sent: BTreeMap::new(),
            breakage,
        }
    }

    fn breaks(&self, breakage: Breakage) -> bool {
        self.breakage == Some(breakage)
    }

    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.work, Work::Idle)
    }

    pub(crate) fn begin(&mut self, mut tx: Transaction, net: &mut Net<'_>) {
        for part in &mut tx.partitions {
            self.twist(part);
        }
        self.work = Work::Writing(Box::new(Writing {
            tx,
            steps: WriteSteps::default(),
            metadata: None,
            batches: VecDeque::new(),
            begun: false,
            offsets_sent: false,
            added: BTreeSet::new(),
            ledger_offsets: BTreeMap::new(),
            connection_broke: false,
        }));
        self.go(net);
    }

    fn twist(&self, part: &mut PartitionCommit) {
        if self.breaks(Breakage::SlotWithoutSettled)
            && let Some(slot) = &mut part.slot
        {
            slot.settled.clear();
        }
        if self.breaks(Breakage::CommitOverGap) {
            let newest = part.decisions.iter().map(|(offset, _)| offset + 1).max();
            let next = newest.unwrap_or(0).max(part.next_offset);
            part.next_offset = next;
            if let Some(slot) = &mut part.slot {
                slot.next_offset = next;
                slot.settled
                    .retain(|range: &OffsetRange| range.last >= next);
            }
        }
    }

    /// The next step, after a moment: threads and networks take their time.
    fn go(&mut self, net: &mut Net<'_>) {
        self.attempt += 1;
        let delay = net.delay();
        net.after(delay, Message::Writer(self.attempt, WriteReply::Go));
    }

    fn retry(&mut self, net: &mut Net<'_>) {
        self.attempt += 1;
        net.after(RETRY_MS, Message::Writer(self.attempt, WriteReply::Go));
    }

    pub(crate) fn took(
        &mut self,
        attempt: u64,
        reply: WriteReply,
        member: &Membership,
        codec: &Codec,
        slots: u32,
        net: &mut Net<'_>,
    ) -> Vec<Event> {
        if attempt != self.attempt {
            return Vec::new();
        }
        match std::mem::take(&mut self.work) {
            Work::Idle => Vec::new(),
            Work::Writing(writing) => self.write(writing, reply, member, codec, slots, net),
            Work::Resolving(resolving) => self.resolve(resolving, reply, member, net),
        }
    }

    fn write(
        &mut self,
        mut writing: Box<Writing>,
        reply: WriteReply,
        member: &Membership,
        codec: &Codec,
        slots: u32,
        net: &mut Net<'_>,
    ) -> Vec<Event> {
        match reply {
            WriteReply::Go => self.call(&mut writing, member, codec, slots, net),
            WriteReply::Fault(fault) => {
                writing.steps.failed(fault, &mut self.renewal);
                self.go(net);
            }
            WriteReply::Opened(Ok(handle)) => {
                self.handle = Some(handle);
                self.renewal.renewed();
                writing.steps.worked(Vec::new);
                self.go(net);
            }
            WriteReply::Produced(Ok(offsets)) => {
                if let Some(batch) = writing.batches.pop_front()
                    && batch.place == Place::Ledger
                {
                    writing.ledger_offsets.insert(batch.partition, offsets);
                }
                self.after_produce(&mut writing);
                self.go(net);
            }
            WriteReply::OffsetsSent(Ok(())) => {
                writing.offsets_sent = true;
                if !self.sends_offsets_first() || writing.batches.is_empty() {
                    writing.steps.worked(Vec::new);
                }
                self.go(net);
            }
            WriteReply::Ended(Ok(())) => {
                let offsets = ledger_offsets(&writing);
                writing.steps.worked(|| offsets);
                self.go(net);
            }
            WriteReply::Opened(Err(TxError::Concurrent))
            | WriteReply::Produced(Err(TxError::Concurrent))
            | WriteReply::OffsetsSent(Err(TxError::Concurrent))
            | WriteReply::Ended(Err(TxError::Concurrent)) => self.retry(net),
            WriteReply::Opened(Err(error))
            | WriteReply::Produced(Err(error))
            | WriteReply::OffsetsSent(Err(error))
            | WriteReply::Ended(Err(error)) => {
                writing.steps.failed(fault_of(error), &mut self.renewal);
                self.go(net);
            }
        }
        if let WriteStep::Ended(outcome) = writing.steps.step() {
            let outcome = outcome.clone();
            return self.ended(*writing, outcome, net);
        }
        self.work = Work::Writing(writing);
        Vec::new()
    }

    fn sends_offsets_first(&self) -> bool {
        self.breaks(Breakage::OffsetsBeforeRecords)
            || self.breaks(Breakage::WatermarkBeforeStableFetch)
    }

    fn after_produce(&self, writing: &mut Writing) {
        if writing.batches.is_empty() {
            if *writing.steps.step() == WriteStep::Produce {
                writing.steps.worked(Vec::new);
            }
            if writing.offsets_sent {
                writing.steps.worked(Vec::new);
            }
        }
    }

    fn call(
        &mut self,
        writing: &mut Writing,
        member: &Membership,
        codec: &Codec,
        slots: u32,
        net: &mut Net<'_>,
    ) {
        match writing.steps.step().clone() {
            WriteStep::Open => self.open(net, writing),
            WriteStep::TakeMetadata => self.take_metadata(writing, member, net),
            WriteStep::Begin => {
                writing.begun = true;
                writing.connection_broke = false;
                writing.batches = batches(&writing.tx, codec, slots);
                writing.steps.worked(Vec::new);
                self.after_produce(writing);
                self.go(net);
            }
            WriteStep::Produce if self.sends_offsets_first() && !writing.offsets_sent => {
                self.send_offsets(writing, member, net);
            }
            WriteStep::Produce => self.produce(writing, net),
            WriteStep::SendOffsets => self.send_offsets(writing, member, net),
            WriteStep::Commit => self.end(writing, true, net),
            WriteStep::Abort => self.end(writing, false, net),
            WriteStep::Ended(_) => {}
        }
    }

    fn open(&mut self, net: &mut Net<'_>, writing: &mut Writing) {
        let keeps = self.handle.is_some()
            && (!self.renewal.is_due() || self.breaks(Breakage::ProducerNotRenewed));
        if keeps {
            writing.steps.worked(Vec::new);
            self.go(net);
        } else {
            self.init(net);
        }
    }

    fn init(&mut self, net: &mut Net<'_>) {
        self.attempt += 1;
        let (attempt, id) = (self.attempt, self.transactional_id.clone());
        net.call(move |broker, _| Message::Writer(attempt, WriteReply::Opened(broker.init(&id))));
    }

    fn take_metadata(&mut self, writing: &mut Writing, member: &Membership, net: &mut Net<'_>) {
        if self.breaks(Breakage::MetadataTakenAfterRevocation) {
            writing.steps.worked(Vec::new);
            return self.go(net);
        }
        let wanted = writing
            .tx
            .partitions
            .iter()
            .map(|part| (part.partition, part.epoch));
        let taken = member
            .ownership
            .while_owned(wanted, || (member.metadata.clone(), member.holder.clone()));
        match taken {
            Err(_) => {
                let fault = WriteFault::Abortable(AbortReason::NotOwned);
                writing.steps.failed(fault, &mut self.renewal);
            }
            Ok((metadata, _))
                if group_metadata::check(metadata.generation, &metadata.member_id).is_err()
                    && !self.breaks(Breakage::UnfenceableMetadataAccepted) =>
            {
                let fault = WriteFault::Abortable(AbortReason::Unfenceable);
                writing.steps.failed(fault, &mut self.renewal);
            }
            Ok(taken) => {
                writing.metadata = Some(taken);
                writing.steps.worked(Vec::new);
            }
        }
        self.go(net);
    }

    fn produce(&mut self, writing: &mut Writing, net: &mut Net<'_>) {
        let (Some(handle), Some(batch)) = (self.handle.clone(), writing.batches.front()) else {
            writing.steps.worked(Vec::new);
            return self.go(net);
        };
        let to = (batch.place, batch.partition);
        let first = writing.added.insert(to);
        let records = batch.records.clone();
        let call = move |broker: &mut Broker, now| {
            WriteReply::Produced(broker.produce(&handle, first, to.0, to.1, records, now))
        };
        match net.strike() {
            // Idempotence: what was sent twice is written once.
            Some(Strike::Resent | Strike::Lost) => {
                writing.connection_broke = true;
                let delay = net.dice.between(50, 500);
                self.send(delay, call, net);
            }
            Some(strike) => self.struck(strike, call, net),
            None => {
                let delay = net.delay();
                self.send(delay, call, net);
            }
        }
    }

    fn send_offsets(&mut self, writing: &mut Writing, member: &Membership, net: &mut Net<'_>) {
        let Some(handle) = self.handle.clone() else {
            return;
        };
        let (metadata, holder) = writing
            .metadata
            .clone()
            .unwrap_or_else(|| (member.metadata.clone(), member.holder.clone()));
        let mut offsets: Vec<(u32, i64)> = writing
            .tx
            .partitions
            .iter()
            .map(|part| (part.partition, part.next_offset))
            .collect();
        if self.breaks(Breakage::OffsetsNotInEveryTransaction) {
            offsets.retain(|(partition, next)| self.sent.get(partition) != Some(next));
            self.sent.extend(offsets.iter().copied());
            if offsets.is_empty() {
                writing.steps.worked(Vec::new);
                return self.go(net);
            }
        }
        let call = move |broker: &mut Broker, now| {
            WriteReply::OffsetsSent(broker.send_offsets(&handle, &metadata, &offsets, &holder, now))
        };
        match net.strike() {
            Some(Strike::Resent) => {
                writing.connection_broke = true;
                let delay = net.dice.between(50, 500);
                self.send(delay, call, net);
            }
            Some(strike) => self.struck(strike, call, net),
            None => {
                let delay = net.delay();
                self.send(delay, call, net);
            }
        }
    }

    fn end(&mut self, writing: &mut Writing, commit: bool, net: &mut Net<'_>) {
        let Some(handle) = self.handle.clone() else {
            return;
        };
        let call = move |broker: &mut Broker, _| WriteReply::Ended(broker.end(&handle, commit));
        // An abort over a broken connection is rare: a rule about it needs many.
        let always = !commit && self.breaks(Breakage::NotRenewedAfterBrokenAbort);
        let strike = if always && net.strikes > 0 {
            Some(Strike::Resent)
        } else {
            net.strike()
        };
        match strike {
            Some(Strike::Resent) => {
                // Two copies: the second is answered, the first is still in the network.
                writing.connection_broke = true;
                let late = net.dice.between(20, 3_000);
                let copy = self.handle.clone();
                net.call_in(late, move |broker, _| {
                    if let Some(copy) = copy {
                        // Nobody hears its answer.
                        broker.end(&copy, commit).ok();
                    }
                    None
                });
                let delay = net.dice.between(5, 100);
                self.send(delay, call, net);
            }
            Some(Strike::Refused) | None => {
                let delay = net.delay();
                self.send(delay, call, net);
            }
            Some(strike) => self.struck(strike, call, net),
        }
    }

    fn send(
        &mut self,
        delay: Millis,
        call: impl FnOnce(&mut Broker, Millis) -> WriteReply + 'static,
        net: &mut Net<'_>,
    ) {
        self.attempt += 1;
        let attempt = self.attempt;
        net.call_in(delay, move |broker, now| {
            Some(Message::Writer(attempt, call(broker, now)))
        });
    }

    fn struck(
        &mut self,
        strike: Strike,
        call: impl FnOnce(&mut Broker, Millis) -> WriteReply + 'static,
        net: &mut Net<'_>,
    ) {
        self.attempt += 1;
        let fault = match strike {
            Strike::Refused => WriteFault::Abortable(AbortReason::Other("refused".to_owned())),
            other => WriteFault::Unclear(format!("{other:?}")),
        };
        let silently = move |broker: &mut Broker, now| {
            drop(call(broker, now));
            None
        };
        let mut give_up = net.dice.between(5, GIVE_UP_MS);
        match strike {
            Strike::Lost | Strike::Resent => {}
            Strike::Refused => give_up = 5,
            Strike::Unanswered => {
                let delay = net.dice.between(0, give_up);
                net.call_in(delay, silently);
            }
            Strike::Late => {
                let delay = give_up + net.dice.between(0, 3_000);
                net.call_in(delay, silently);
            }
        }
        net.after(
            give_up,
            Message::Writer(self.attempt, WriteReply::Fault(fault)),
        );
    }

    fn ended(&mut self, writing: Writing, outcome: TxOutcome, net: &mut Net<'_>) -> Vec<Event> {
        let broke = writing.connection_broke
            && writing.begun
            && !self.breaks(Breakage::NotRenewedAfterBrokenConnection)
            && !(self.breaks(Breakage::NotRenewedAfterBrokenAbort)
                && matches!(outcome, TxOutcome::Aborted(_)));
        self.renewal.after(&outcome, broke);
        let id = writing.tx.id;
        let unknown = matches!(outcome, TxOutcome::Unknown { .. });
        let told = if unknown && self.breaks(Breakage::UnknownTakenForAborted) {
            TxOutcome::Aborted(AbortReason::Other("taken for aborted".to_owned()))
        } else if unknown && self.breaks(Breakage::UnknownTakenForCommitted) {
            TxOutcome::Committed {
                ledger_offsets: ledger_offsets(&writing),
            }
        } else {
            outcome
        };
        if matches!(told, TxOutcome::Unknown { .. }) {
            self.work = Work::Resolving(Box::new(Resolving {
                tx: writing.tx,
                part: 0,
                reading: None,
                found: Vec::new(),
            }));
            if self.breaks(Breakage::ProducerNotRenewed) {
                self.go(net);
            } else {
                self.init(net);
            }
        }
        vec![Event::TxEnded { id, outcome: told }]
    }

    fn resolve(
        &mut self,
        mut resolving: Box<Resolving>,
        reply: WriteReply,
        member: &Membership,
        net: &mut Net<'_>,
    ) -> Vec<Event> {
        match reply {
            WriteReply::Opened(Ok(handle)) => {
                self.handle = Some(handle);
                self.renewal.renewed();
                self.go(net);
            }
            WriteReply::Opened(Err(_)) => {
                self.attempt += 1;
                let (attempt, id) = (self.attempt, self.transactional_id.clone());
                net.call_in(RETRY_MS, move |broker, _| {
                    Some(Message::Writer(
                        attempt,
                        WriteReply::Opened(broker.init(&id)),
                    ))
                });
            }
            _ => {
                while let Some(part) = resolving.tx.partitions.get(resolving.part) {
                    if member.ownership.epoch(part.partition) == Some(part.epoch) {
                        break;
                    }
                    resolving.part += 1;
                }
                let Some(part) = resolving.tx.partitions.get(resolving.part) else {
                    return vec![Event::TxResolved {
                        id: resolving.tx.id,
                        resolutions: resolving.found,
                    }];
                };
                let id = ReadingId::ReadBack(self.attempt, part.partition);
                let mut reading = Reading::new(id, ReadSteps::read_back(part.slot.is_some()));
                reading.advance(None, net);
                resolving.reading = Some(reading);
            }
        }
        self.work = Work::Resolving(resolving);
        Vec::new()
    }

    /// An answer for the read-back that goes on.
    pub(crate) fn read(&mut self, id: ReadingId, reply: ReadReply, net: &mut Net<'_>) {
        let Work::Resolving(resolving) = &mut self.work else {
            return;
        };
        let Some(reading) = resolving
            .reading
            .as_mut()
            .filter(|reading| reading.id == id)
        else {
            return;
        };
        if !reading.took(reply, &self.transactional_id, None, net) {
            return;
        }
        match reading.steps.step() {
            ReadStep::Done => {
                if let Some(part) = resolving.tx.partitions.get(resolving.part) {
                    let mut back = ReadBack::of(part);
                    for (offset, record) in &reading.records {
                        let key = record.key.as_deref().unwrap_or_default();
                        back.feed(*offset, key, record.value.as_deref());
                    }
                    resolving.found.push(back.finish(reading.steps.committed()));
                }
                resolving.part += 1;
                resolving.reading = None;
                self.go(net);
            }
            ReadStep::Stalled => {
                resolving.reading = None;
                self.go(net);
            }
            _ => reading.advance(None, net),
        }
    }
}

fn fault_of(error: TxError) -> WriteFault {
    match error {
        TxError::Group(refused) => WriteFault::Stale(format!("{refused:?}")),
        other => WriteFault::Unclear(format!("{other:?}")),
    }
}

fn batches(tx: &Transaction, codec: &Codec, slots: u32) -> VecDeque<Batch> {
    let mut batches: VecDeque<Batch> = VecDeque::new();
    for part in &tx.partitions {
        let written: Result<(), Infallible> =
            write_all(codec, "jobs", slots, part, &mut |output| {
                let record = RawRecord {
                    key: output.key.map(<[u8]>::to_vec),
                    value: output.value.map(<[u8]>::to_vec),
                    headers: output
                        .headers
                        .iter()
                        .map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec)))
                        .collect(),
                    timestamp: 0,
                };
                let to = (output.place, output.partition);
                match batches
                    .iter_mut()
                    .find(|batch| (batch.place, batch.partition) == to)
                {
                    Some(batch) => batch.records.push(record),
                    None => batches.push_back(Batch {
                        place: to.0,
                        partition: to.1,
                        records: vec![record],
                    }),
                }
                Ok(())
            });
        match written {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }
    batches
}

/// DONE records come first in the ledger's batch of their partition.
fn ledger_offsets(writing: &Writing) -> Vec<Vec<i64>> {
    writing
        .tx
        .partitions
        .iter()
        .map(|part| {
            let written = writing.ledger_offsets.get(&part.partition);
            let all = written.map_or(&[][..], Vec::as_slice);
            all.iter().take(part.done.len()).copied().collect()
        })
        .collect()
}
