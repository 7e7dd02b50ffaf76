//! One life of a worker process: the real engine, its ledger records and codec, and around them the
//! threads of `kafka_worker.rs` as message handlers.

use crate::breakage::Breakage;
use crate::log::Fetched;
use crate::membership::{GroupReply, Membership};
use crate::net::Net;
use crate::reading::{ReadReply, Reading, ReadingId};
use crate::workload::{Registry, handle};
use crate::writing::{WriteReply, Writer};
use guestkit_worker::codec::{self, Codec, Framings};
use guestkit_worker::engine::events::LedgerAnswer;
use guestkit_worker::engine::index::{HashSeed, KeyHash, LedgerIndex};
use guestkit_worker::engine::keys::ExecId;
use guestkit_worker::engine::ledger::{LedgerKind, MARK_KEY, Restoration};
use guestkit_worker::engine::outcome::{Failure, Outcome};
use guestkit_worker::engine::read_steps::{ReadStep, ReadSteps};
use guestkit_worker::engine::record::{Content, Job, Millis, RawRecord, Record};
use guestkit_worker::engine::transaction::{Epoch, MarkWrite};
use guestkit_worker::engine::{Action, Config, Engine, Event, Restored};
use guestkit_worker::ledger_fold;
use guestkit_worker::transaction_records::{Place, ledger_header};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Secret of the key hashes: chance has one source.
const SEED: HashSeed = HashSeed(11, 7);
/// Records in one fetch.
const FETCH: usize = 8;
/// Pause before a restore that failed is tried again (kafka_worker).
const RETRY_MS: Millis = 500;
/// Pause of a partition whose schema cannot be had (broker::fetcher).
const SCHEMA_RETRY_MS: Millis = 250;
/// How long a drain waits for what runs.
const DRAIN_MS: Millis = 3_000;

/// What a process hears.
#[derive(Debug)]
pub(crate) enum Message {
    Poll,
    Group(GroupReply),
    RevokeOver(u64),
    LostCallback,
    Writer(u64, WriteReply),
    Reading(ReadingId, ReadReply),
    RestoreAgain(u32, Epoch),
    Fetch(u32, Epoch, u64),
    Fetched(u32, Epoch, u64, Fetched),
    LookedUp(u32, Epoch, Vec<(KeyHash, Option<Arc<RawRecord>>)>),
    Event(Event),
    HandlerOver(ExecId),
    Tick,
    Drain,
    DrainOver,
}

#[derive(Debug)]
struct Fetching {
    epoch: Epoch,
    position: i64,
    paused: bool,
    /// Answers of before a pause or a new start do not count.
    session: u64,
}

struct Running {
    job: Arc<Job>,
    attempt: u32,
    started: Millis,
    stopped: bool,
}

/// What is the same for all processes of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) slots: u32,
    pub(crate) concurrency: usize,
    pub(crate) window_max: usize,
    pub(crate) breakage: Option<Breakage>,
}

pub(crate) struct Process {
    shape: Shape,
    transactional_id: String,
    engine: Engine,
    codec: Codec,
    clock: Arc<AtomicI64>,
    member: Membership,
    writer: Writer,
    readings: BTreeMap<ReadingId, Reading>,
    fetching: BTreeMap<u32, Fetching>,
    sessions: u64,
    running: BTreeMap<ExecId, Running>,
    released: BTreeSet<(u32, Epoch)>,
    next_tick: Option<Millis>,
    registry: Registry,
    draining: bool,
}

impl Process {
    pub(crate) fn new(
        worker: &str,
        incarnation: u64,
        shape: Shape,
        registry: Registry,
        now: Millis,
    ) -> Self {
        let transactional_id = format!("sim.{worker}.0");
        let clock = Arc::new(AtomicI64::new(now));
        let engine = Engine::new(Config {
            slots: shape.slots,
            incarnation: format!("{worker}-{incarnation}").into(),
            transactional_id: transactional_id.as_str().into(),
            results_topic: "results".into(),
            concurrency: shape.concurrency,
            seed: SEED,
            window_max: shape.window_max,
            admission: Box::new(|job| {
                if job.envelope.operation == "system.unknown" {
                    return Err(Failure::lasting("HANDLER_NOT_FOUND", "no such handler"));
                }
                Ok(())
            }),
        });
        let codec = {
            let clock = clock.clone();
            Codec::new(worker.into(), Framings::default(), move || {
                clock.load(Ordering::Relaxed)
            })
        };
        Self {
            shape,
            writer: Writer::new(&transactional_id, shape.breakage),
            transactional_id,
            engine,
            codec,
            clock,
            member: Membership::new(),
            readings: BTreeMap::new(),
            fetching: BTreeMap::new(),
            sessions: 0,
            running: BTreeMap::new(),
            released: BTreeSet::new(),
            next_tick: None,
            registry,
            draining: false,
        }
    }

    pub(crate) fn start(&mut self, net: &mut Net<'_>) {
        self.member.poll(net);
    }

    /// Whether it left in good order.
    pub(crate) fn is_over(&self) -> bool {
        self.member.left
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.engine.is_quiet() && self.writer.is_idle()
    }

    pub(crate) fn describe(&self) -> String {
        format!("{:?} {:?}", self.member.metadata, self.engine.status())
    }

    fn breaks(&self, breakage: Breakage) -> bool {
        self.shape.breakage == Some(breakage)
    }

    pub(crate) fn hear(&mut self, message: Message, net: &mut Net<'_>) {
        self.clock.store(net.now, Ordering::Relaxed);
        let events = match message {
            Message::Poll => {
                self.member.poll(net);
                Vec::new()
            }
            Message::Group(reply) => self.member.answered(reply, net),
            Message::RevokeOver(number) => {
                self.member.end_revoke(&self.released, Some(number), net)
            }
            Message::LostCallback => self.member.lost(),
            Message::Writer(attempt, reply) => self.writer.took(
                attempt,
                reply,
                &self.member,
                &self.codec,
                self.shape.slots,
                net,
            ),
            Message::Reading(id @ ReadingId::ReadBack(..), reply) => {
                self.writer.read(id, reply, net);
                Vec::new()
            }
            Message::Reading(id, reply) => self.read(id, reply, net),
            Message::RestoreAgain(partition, epoch) => {
                self.restore(partition, epoch, net);
                Vec::new()
            }
            Message::Fetch(partition, epoch, session) => {
                self.fetch(partition, epoch, session, net);
                Vec::new()
            }
            Message::Fetched(partition, epoch, session, fetched) => {
                self.fetched(partition, epoch, session, fetched, net)
            }
            Message::LookedUp(partition, epoch, found) => vec![looked_up(partition, epoch, found)],
            Message::Event(event) => vec![event],
            Message::HandlerOver(exec) => self.handler_over(exec, net.now),
            Message::Tick => {
                self.next_tick = None;
                vec![Event::Tick]
            }
            Message::Drain => {
                self.draining = true;
                net.after(DRAIN_MS, Message::DrainOver);
                vec![Event::Drain]
            }
            Message::DrainOver => self.member.leave(net),
        };
        self.step(events, net);
        let events = self.member.end_revoke(&self.released, None, net);
        if !events.is_empty() {
            self.step(events, net);
        }
        self.plan_tick(net);
    }

    fn step(&mut self, events: Vec<Event>, net: &mut Net<'_>) {
        if events.is_empty() {
            return;
        }
        let lost: Vec<(u32, Epoch)> = events
            .iter()
            .filter_map(|event| match event {
                Event::Lost { partition, epoch } => Some((*partition, *epoch)),
                _ => None,
            })
            .collect();
        let actions = self.engine.apply_all(events, net.now);
        for (partition, epoch) in lost {
            if self.fetching.get(&partition).map(|f| f.epoch) == Some(epoch) {
                self.fetching.remove(&partition);
            }
        }
        let mut more = Vec::new();
        for action in actions {
            more.extend(self.execute(action, net));
        }
        self.step(more, net);
    }

    fn plan_tick(&mut self, net: &mut Net<'_>) {
        let Some(at) = self.engine.next_wake(net.now) else {
            return;
        };
        let at = at.max(net.now + 1);
        if self.next_tick.is_none_or(|planned| at < planned) {
            self.next_tick = Some(at);
            net.after(at - net.now, Message::Tick);
        }
    }

    fn execute(&mut self, action: Action, net: &mut Net<'_>) -> Vec<Event> {
        match action {
            Action::Restore { partition, epoch } if self.breaks(Breakage::StartBeforeRestore) => {
                net.call(move |broker, _| {
                    Message::Event(Event::Restored(Box::new(Restored {
                        partition,
                        epoch,
                        committed: broker.group.committed(partition),
                        log_start: 0,
                        slot: None,
                        index: LedgerIndex::default(),
                        rejected: 0,
                    })))
                });
            }
            Action::Restore { partition, epoch } => self.restore(partition, epoch, net),
            Action::Consume {
                partition,
                epoch,
                offset,
            } => {
                self.sessions += 1;
                let fetching = Fetching {
                    epoch,
                    position: offset,
                    paused: false,
                    session: self.sessions,
                };
                self.fetching.insert(partition, fetching);
                self.fetch(partition, epoch, self.sessions, net);
            }
            Action::Pause { partition, .. } => {
                if let Some(fetching) = self.fetching.get_mut(&partition) {
                    fetching.paused = true;
                }
            }
            Action::Resume { partition, epoch } => {
                self.sessions += 1;
                if let Some(fetching) = self.fetching.get_mut(&partition)
                    && fetching.epoch == epoch
                {
                    fetching.paused = false;
                    fetching.session = self.sessions;
                    self.fetch(partition, epoch, self.sessions, net);
                }
            }
            Action::WriteMark(write) => self.write_mark(&write, net),
            Action::Start {
                exec, job, attempt, ..
            } => {
                let takes = handle(&job).takes_ms + net.dice.between(0, 5);
                net.after(takes, Message::HandlerOver(exec));
                let running = Running {
                    job,
                    attempt,
                    started: net.now,
                    stopped: false,
                };
                self.running.insert(exec, running);
            }
            Action::Stop { exec } => {
                if let Some(running) = self.running.get_mut(&exec) {
                    running.stopped = true;
                    let soon = net.dice.between(0, 60);
                    net.after(soon, Message::HandlerOver(exec));
                }
            }
            Action::ReadLedger {
                partition,
                epoch,
                lookups,
            } => net.call(move |broker, _| {
                let log = broker.log(Place::Ledger, partition);
                let found = lookups
                    .into_iter()
                    .map(|(hash, offset)| (hash, log.at(offset)))
                    .collect();
                Message::LookedUp(partition, epoch, found)
            }),
            Action::Commit(transaction) => self.writer.begin(*transaction, net),
            Action::Released { partition, epoch } => {
                self.released.insert((partition, epoch));
            }
        }
        Vec::new()
    }

    fn restore(&mut self, partition: u32, epoch: Epoch, net: &mut Net<'_>) {
        let is_slot = partition < self.shape.slots;
        let id = ReadingId::Restore(partition, epoch);
        let mut reading = Reading::new(id, ReadSteps::restore(is_slot));
        reading.advance(self.shape.breakage, net);
        self.readings.insert(id, reading);
    }

    fn read(&mut self, id: ReadingId, reply: ReadReply, net: &mut Net<'_>) -> Vec<Event> {
        let ReadingId::Restore(partition, epoch) = id else {
            return Vec::new();
        };
        let Some(mut reading) = self.readings.remove(&id) else {
            return Vec::new();
        };
        if self.member.ownership.epoch(partition) != Some(epoch) {
            return Vec::new();
        }
        let breakage = self.shape.breakage;
        if reading.took(reply, &self.transactional_id, breakage, net) {
            match reading.steps.step() {
                ReadStep::Done => return vec![self.restored(partition, epoch, &reading)],
                ReadStep::Stalled => {
                    net.after(RETRY_MS, Message::RestoreAgain(partition, epoch));
                    return Vec::new();
                }
                _ => reading.advance(breakage, net),
            }
        }
        self.readings.insert(id, reading);
        Vec::new()
    }

    fn restored(&self, partition: u32, epoch: Epoch, reading: &Reading) -> Event {
        let mut restoration = Restoration::default();
        for (offset, record) in &reading.records {
            let key = record.key.as_deref().unwrap_or_default();
            let kind = record.headers.first().and_then(|(_, kind)| kind.as_deref());
            let value = record.value.as_deref();
            ledger_fold::feed(&mut restoration, SEED, *offset, key, kind, value)
                .expect("only workers write to the ledger");
        }
        let slots = self.shape.slots;
        let restored = ledger_fold::restored(partition, epoch, slots, &reading.steps, restoration)
            .expect("nothing in a run stops a slot");
        Event::Restored(Box::new(restored))
    }

    fn fetch(&mut self, partition: u32, epoch: Epoch, session: u64, net: &mut Net<'_>) {
        let Some(fetching) = self.fetching.get(&partition) else {
            return;
        };
        if fetching.epoch != epoch || fetching.session != session || fetching.paused {
            return;
        }
        let from = fetching.position;
        net.call(move |broker, _| {
            let log = broker.log(Place::Jobs, partition);
            let fetched = log.fetch(from, FETCH, true);
            Message::Fetched(partition, epoch, session, fetched)
        });
    }

    fn fetched(
        &mut self,
        partition: u32,
        epoch: Epoch,
        session: u64,
        fetched: Fetched,
        net: &mut Net<'_>,
    ) -> Vec<Event> {
        let breaks_hash = self.breaks(Breakage::NoPayloadHash);
        let Some(fetching) = self.fetching.get_mut(&partition) else {
            return Vec::new();
        };
        if fetching.epoch != epoch || fetching.session != session || fetching.paused {
            return Vec::new();
        }
        let mut records = Vec::new();
        let mut waits = false;
        for (offset, raw) in fetched.records {
            let Ok(mut content) = codec::decode_record(&raw, None, &self.registry) else {
                // It waits for its schema: read again from here.
                fetching.position = offset;
                waits = true;
                break;
            };
            if breaks_hash && let Content::Job(job) = &mut content {
                Arc::make_mut(job).payload_hash = [0; 32];
            }
            records.push(Record {
                offset,
                raw,
                content,
            });
        }
        if !waits {
            fetching.position = fetched.next;
        }
        let position = fetching.position;
        let pause = if waits {
            SCHEMA_RETRY_MS
        } else if fetched.at_end {
            net.dice.between(20, 200)
        } else {
            net.dice.between(0, 10)
        };
        net.after(pause, Message::Fetch(partition, epoch, session));
        let mut events = Vec::new();
        if !records.is_empty() {
            events.push(Event::Records {
                partition,
                epoch,
                records,
            });
        }
        if fetched.at_end && !waits {
            events.push(Event::EndOfPartition {
                partition,
                epoch,
                offset: position,
            });
        }
        events
    }

    fn write_mark(&mut self, write: &MarkWrite, net: &mut Net<'_>) {
        let (partition, epoch, number) = (write.partition, write.epoch, write.number);
        let acked = Event::MarkAcked {
            partition,
            epoch,
            number,
        };
        let failed = Event::MarkFailed {
            partition,
            epoch,
            number,
        };
        let strikes = net.strikes;
        if net.dice.permille(strikes / 2) {
            let delay = net.delay();
            return net.after(delay, Message::Event(failed));
        }
        let record = RawRecord {
            key: Some(MARK_KEY.to_vec()),
            value: Some(self.codec.encode_mark(&write.mark)),
            headers: ledger_header(LedgerKind::Mark)
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec)))
                .collect(),
            timestamp: net.now,
        };
        net.call(move |broker, _| {
            broker.produce_plain(Place::Ledger, partition, record);
            Message::Event(acked)
        });
    }

    fn handler_over(&mut self, exec: ExecId, now: Millis) -> Vec<Event> {
        let Some(running) = self.running.remove(&exec) else {
            return Vec::new();
        };
        let outcome =
            handle(&running.job).outcome(running.stopped, running.attempt, running.started, now);
        vec![Event::Ended { exec, outcome }]
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining
    }
}

fn looked_up(partition: u32, epoch: Epoch, found: Vec<(KeyHash, Option<Arc<RawRecord>>)>) -> Event {
    let found = found
        .into_iter()
        .map(|(hash, record)| {
            let answer = record.and_then(|record| {
                let key = record.key.clone()?;
                let done = codec::decode_done(record.value.as_deref()?).ok()?;
                Some(LedgerAnswer { key, done })
            });
            (hash, answer)
        })
        .collect();
    Event::LedgerRead {
        partition,
        epoch,
        found,
    }
}

/// An outcome of a handler that did nothing else.
pub(crate) fn plain_outcome(started: Millis, now: Millis) -> Outcome {
    use guestkit_worker::engine::ledger::FinalStatus;
    use guestkit_worker::engine::outcome::Cost;
    Outcome {
        status: FinalStatus::Completed,
        started_at: started,
        finished_at: now,
        data: Some("{}".to_owned()),
        artifacts: Vec::new(),
        failure: None,
        cost: Cost::default(),
    }
}
