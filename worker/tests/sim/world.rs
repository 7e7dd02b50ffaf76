//! One run: a workload, a fleet, faults, healing. One thread, one seed, no clock but its own.

use crate::breakage::Breakage;
use crate::broker::Broker;
use crate::dice::Dice;
use crate::net::{Call, Net, Sent};
use crate::process::{Message, Process, Shape};
use crate::workload::{Published, Registry, Size, publish};
use guestkit_protocol::{JobResult, NoRegistry, decode, headers};
use guestkit_worker::codec;
use guestkit_worker::engine::invariants::{
    DoneSeen, History, JobSeen, LetterSeen, ResultSeen, SlotSeen,
};
use guestkit_worker::engine::ledger::{MARK_KEY, SLOT_KEY};
use guestkit_worker::engine::record::{Millis, Record};
use guestkit_worker::transaction_records::Place;
use std::collections::{BTreeMap, VecDeque};

/// How long faults last.
const FAULTS_MS: Millis = 25_000;
/// Within this time after the last fault everything has to have ended: a session, a transaction
/// timeout, two rebalances and the slowest jobs, several times over.
const HEAL_MS: Millis = 120_000;
/// How long everything has to stay done: what is still in the network arrives meanwhile.
const QUIET_MS: Millis = 4_000;
/// Steps of a run: far beyond any that ends.
const STEPS_MAX: u64 = 2_000_000;
/// What the broker does by itself, it does this often.
const BROKER_TICK_MS: Millis = 250;
/// Lines of the trace that a failure shows.
const TRACE_MAX: usize = 60;

/// The mix of a run; each is picked by its seed.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) workers: usize,
    pub(crate) size: Size,
    pub(crate) shape: Shape,
    /// Cases of a thousand in which a writer's request meets a fault.
    pub(crate) strikes: u64,
    /// Longest usual delay of a request.
    pub(crate) slow: i64,
    /// Cases of a thousand in which a transaction's marker takes long.
    pub(crate) slow_markers: u64,
    /// Cases of a thousand in which the broker compacts a ledger when it looks.
    pub(crate) compaction: u64,
    /// Cases of a thousand in which a fault is a drain, whatever else it would be.
    pub(crate) drains: u64,
    /// Time between two faults of processes.
    pub(crate) fault_every: Millis,
}

impl Plan {
    pub(crate) fn of(seed: u64, breakage: Option<Breakage>) -> Self {
        let mut dice = Dice::new(seed);
        let slots = dice.between(1, 3) as u32;
        // Now and then somebody grew the topic.
        let partitions = slots + dice.below(2) as u32;
        let records = dice.between(20, 90) as u64;
        Self {
            seed,
            workers: dice.between(2, 3) as usize,
            size: Size {
                records,
                keys: (records * dice.between(3, 8) as u64 / 10).max(2),
                partitions,
                slots,
                slow: *dice.pick(&[0, 100, 300]),
            },
            shape: Shape {
                slots,
                concurrency: dice.between(1, 4) as usize,
                window_max: *dice.pick(&[8, 1_000]),
                breakage,
            },
            strikes: *dice.pick(&[0, 20, 60, 150]),
            slow: *dice.pick(&[5, 20, 80, 250]),
            slow_markers: *dice.pick(&[20, 300]),
            drains: *dice.pick(&[0, 300]),
            compaction: *dice.pick(&[0, 50, 400]),
            fault_every: *dice.pick(&[700, 2_000, 5_000]),
        }
    }
}

impl Plan {
    /// Everything at once and close together: for rules that are broken on purpose.
    pub(crate) fn hostile(seed: u64, breakage: Breakage) -> Self {
        let mut plan = Self::of(seed, Some(breakage));
        plan.strikes = 120;
        plan.slow_markers = 300;
        plan.slow = if seed.is_multiple_of(2) { 80 } else { 250 };
        plan.fault_every = 1_200;
        plan.size.slow = 300;
        // Few keys that keep coming: whoever forgot one meets it again.
        plan.size.records = 140;
        plan.size.keys = 25;
        match breakage {
            Breakage::NotRenewedAfterBrokenAbort => plan.strikes = 200,
            Breakage::RestoreToLastStable | Breakage::OffsetNotStable => {
                // Partitions that move while markers are on their way.
                plan.strikes = 20;
                plan.slow = 20;
                plan.slow_markers = 900;
                plan.drains = 600;
            }
            _ => {}
        }
        if breakage == Breakage::OffsetNotStable {
            plan.size.slots = 1;
            plan.shape.slots = 1;
            plan.size.partitions = 2;
        }
        plan
    }
}

enum Task {
    Arrive(Option<(usize, u64)>, Call),
    Hear(usize, u64, Message),
    Publish(usize),
    BrokerTick,
    Marker(String),
    Fault,
    Start(usize),
    Wake(usize, u64),
    Registry(bool),
}

enum Life {
    Dead,
    Running(Box<Process>),
    /// Stopped by a signal: hears nothing until it is woken.
    Paused(Box<Process>, VecDeque<Message>),
}

struct Worker {
    name: String,
    life: u64,
    state: Life,
}

pub(crate) struct World {
    plan: Plan,
    dice: Dice,
    now: Millis,
    queue: BTreeMap<(Millis, u64), Task>,
    sequence: u64,
    broker: Broker,
    workers: Vec<Worker>,
    records: Vec<Published>,
    published: usize,
    registry: Registry,
    names: u64,
    trace: VecDeque<String>,
    pub(crate) steps: u64,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut dice = Dice::new(plan.seed ^ 0xA5A5_5A5A);
        let records = publish(plan.size, &mut dice);
        let mut world = Self {
            dice,
            now: 1_000,
            queue: BTreeMap::new(),
            sequence: 0,
            broker: Broker::new(plan.size.partitions, plan.size.slots),
            workers: Vec::new(),
            records,
            published: 0,
            registry: Registry::default(),
            names: 0,
            trace: VecDeque::new(),
            steps: 0,
            plan,
        };
        for n in 0..world.plan.workers {
            world.names += 1;
            world.workers.push(Worker {
                name: format!("worker-{n}"),
                life: 0,
                state: Life::Dead,
            });
            let at = world.dice.between(0, 1_500);
            world.push(at, Task::Start(n));
        }
        world.push(BROKER_TICK_MS, Task::BrokerTick);
        let first = world.dice.between(1_500, 4_000);
        world.push(first, Task::Fault);
        let mut at = 0;
        for n in 0..world.records.len() {
            at += world.dice.between(0, 400);
            world.push(at, Task::Publish(n));
        }
        world
    }

    /// Runs through the faults, heals, and tells what was seen.
    pub(crate) fn run_then_heal(mut self) -> Run {
        let end = 1_000 + FAULTS_MS + HEAL_MS;
        let mut healed = false;
        let mut done_since = None;
        while self.now < end && self.steps < STEPS_MAX {
            let Some(((at, _), task)) = self.queue.pop_first() else {
                break;
            };
            self.now = at;
            self.steps += 1;
            self.perform(task);
            if !healed && self.now >= 1_000 + FAULTS_MS {
                healed = true;
                self.heal();
            }
            if !healed || !self.is_done() {
                done_since = None;
            } else if self.now - *done_since.get_or_insert(self.now) >= QUIET_MS {
                break;
            }
        }
        let describe = self
            .workers
            .iter()
            .map(|worker| match &worker.state {
                Life::Dead => format!("{}: dead", worker.name),
                Life::Running(process) => format!("{}: {}", worker.name, process.describe()),
                Life::Paused(..) => format!("{}: paused", worker.name),
            })
            .collect();
        Run {
            history: self.history(),
            steps: self.steps,
            ended_at: self.now,
            trace: self.trace.into_iter().collect(),
            describe,
        }
    }

    fn faulty(&self) -> bool {
        self.now < 1_000 + FAULTS_MS
    }

    fn push(&mut self, after: Millis, task: Task) {
        self.sequence += 1;
        self.queue
            .insert((self.now + after.max(0), self.sequence), task);
    }

    fn note(&mut self, line: String) {
        if self.trace.len() >= TRACE_MAX {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{} {line}", self.now));
    }

    fn perform(&mut self, task: Task) {
        match task {
            Task::Arrive(from, call) => {
                let before = self.broker.ending().len();
                if let (Some(message), Some((worker, life))) =
                    (call(&mut self.broker, self.now), from)
                {
                    let slow = self.plan.slow;
                    let delay = self.dice.between(0, slow);
                    self.push(delay, Task::Hear(worker, life, message));
                }
                if self.broker.ending().len() != before {
                    self.write_markers();
                }
            }
            Task::Hear(worker, life, message) => self.hear(worker, life, message),
            Task::Publish(n) => {
                let published = self.records[n].clone();
                self.published += 1;
                self.broker
                    .produce_plain(Place::Jobs, published.partition, published.record);
            }
            Task::BrokerTick => {
                self.broker.tick(self.now);
                self.write_markers();
                if self.dice.permille(self.plan.compaction) {
                    let slots = u64::from(self.plan.size.slots);
                    let slot = self.dice.below(slots) as u32;
                    self.broker.compact(slot);
                }
                self.push(BROKER_TICK_MS, Task::BrokerTick);
            }
            Task::Marker(id) => {
                let nth = self.dice.next();
                self.broker.write_marker(&id, nth);
                if self.broker.ending().contains(&id) {
                    self.push_marker(id);
                }
            }
            Task::Fault => self.fault(),
            Task::Start(worker) => self.start(worker),
            Task::Wake(worker, life) => self.wake(worker, life),
            Task::Registry(down) => self.registry.set_down(down),
        }
    }

    /// Markers go to one partition after the other, with pauses.
    fn write_markers(&mut self) {
        for id in self.broker.ending() {
            let waits = self
                .queue
                .values()
                .any(|task| matches!(task, Task::Marker(known) if *known == id));
            if !waits {
                self.push_marker(id);
            }
        }
    }

    fn push_marker(&mut self, id: String) {
        let slow = self.plan.slow;
        let slow_markers = self.plan.slow_markers;
        let delay = if self.dice.permille(slow_markers) && self.faulty() {
            self.dice.between(0, 900)
        } else {
            self.dice.between(0, slow / 2)
        };
        self.push(delay, Task::Marker(id));
    }

    fn start(&mut self, worker: usize) {
        let slot = &mut self.workers[worker];
        if !matches!(slot.state, Life::Dead) {
            return;
        }
        slot.life += 1;
        let process = Process::new(
            &slot.name,
            slot.life,
            self.plan.shape,
            self.registry.clone(),
            self.now,
        );
        slot.state = Life::Running(Box::new(process));
        let line = format!("{} starts", slot.name);
        self.note(line);
        self.with_process(worker, |process, net| process.start(net));
    }

    fn hear(&mut self, worker: usize, life: u64, message: Message) {
        let slot = &mut self.workers[worker];
        if slot.life != life {
            return;
        }
        match &mut slot.state {
            Life::Dead => {}
            Life::Paused(_, heard) => heard.push_back(message),
            Life::Running(_) => {
                self.with_process(worker, |process, net| process.hear(message, net));
                let slot = &mut self.workers[worker];
                if let Life::Running(process) = &slot.state
                    && process.is_over()
                {
                    slot.state = Life::Dead;
                    let line = format!("{} left", slot.name);
                    self.note(line);
                    let pause = self.dice.between(100, 3_000);
                    self.push(pause, Task::Start(worker));
                }
            }
        }
    }

    fn with_process(&mut self, worker: usize, act: impl FnOnce(&mut Process, &mut Net<'_>)) {
        let strikes = if self.faulty() { self.plan.strikes } else { 0 };
        let slot = &mut self.workers[worker];
        let Life::Running(process) = &mut slot.state else {
            return;
        };
        let mut net = Net {
            now: self.now,
            dice: &mut self.dice,
            sent: Vec::new(),
            strikes,
            slow: self.plan.slow,
        };
        act(process, &mut net);
        let life = slot.life;
        for (delay, sent) in net.sent {
            let task = match sent {
                Sent::Call(call) => Task::Arrive(Some((worker, life)), call),
                Sent::Message(message) => Task::Hear(worker, life, message),
            };
            self.push(delay, task);
        }
    }

    /// One fault, and the next one planned.
    fn fault(&mut self) {
        if !self.faulty() {
            return;
        }
        let every = self.plan.fault_every;
        let next = self.dice.between(every / 2, every * 2);
        self.push(next, Task::Fault);
        let worker = self.dice.below(self.workers.len() as u64) as usize;
        let wake_in = self.dice.between(200, 14_000);
        let restart_in = self.dice.between(50, 5_000);
        if self.dice.permille(self.plan.drains) {
            return self.drain(worker);
        }
        match self.dice.below(10) {
            0..=2 => self.kill(worker, restart_in),
            3..=5 => self.pause(worker, wake_in),
            6 => self.drain(worker),
            7 => {
                self.registry.set_down(true);
                self.push(restart_in, Task::Registry(false));
            }
            _ => self.pause(worker, restart_in),
        }
    }

    fn kill(&mut self, worker: usize, restart_in: Millis) {
        // Under its old name, and so its transactional id, or as somebody else.
        let renamed = self.dice.permille(500);
        self.names += 1;
        let name = format!("worker-{}", self.names);
        let slot = &mut self.workers[worker];
        if matches!(slot.state, Life::Dead) {
            return;
        }
        slot.state = Life::Dead;
        let line = format!("{} killed", slot.name);
        if renamed {
            slot.name = name;
        }
        self.note(line);
        self.push(restart_in, Task::Start(worker));
    }

    fn pause(&mut self, worker: usize, wake_in: Millis) {
        let slot = &mut self.workers[worker];
        let until = self.now + wake_in;
        let line = format!("{} paused until {until}", slot.name);
        let life = slot.life;
        slot.state = match std::mem::replace(&mut slot.state, Life::Dead) {
            Life::Running(process) => Life::Paused(process, VecDeque::new()),
            other => {
                slot.state = other;
                return;
            }
        };
        self.note(line);
        self.push(wake_in, Task::Wake(worker, life));
    }

    fn wake(&mut self, worker: usize, life: u64) {
        let slot = &mut self.workers[worker];
        if slot.life != life {
            return;
        }
        let heard = match std::mem::replace(&mut slot.state, Life::Dead) {
            Life::Paused(process, heard) => {
                slot.state = Life::Running(process);
                heard
            }
            other => {
                slot.state = other;
                return;
            }
        };
        let line = format!("{} wakes", slot.name);
        self.note(line);
        // Threads wake in any order: what was queued is heard within some milliseconds.
        for message in heard {
            let delay = self.dice.between(0, 30);
            self.push(delay, Task::Hear(worker, life, message));
        }
    }

    fn drain(&mut self, worker: usize) {
        let slot = &self.workers[worker];
        if let Life::Running(process) = &slot.state
            && !process.is_draining()
        {
            let (life, line) = (slot.life, format!("{} drains", slot.name));
            self.note(line);
            self.push(0, Task::Hear(worker, life, Message::Drain));
        }
    }

    fn heal(&mut self) {
        self.note("healing".to_owned());
        self.registry.set_down(false);
        for worker in 0..self.workers.len() {
            let life = self.workers[worker].life;
            self.wake(worker, life);
            self.push(0, Task::Start(worker));
        }
    }

    fn is_done(&self) -> bool {
        self.published == self.records.len()
            && self.broker.ending().is_empty()
            && self
                .broker
                .lag(self.plan.size.partitions)
                .values()
                .all(|lag| *lag == 0)
            && self.workers.iter().all(|worker| match &worker.state {
                Life::Running(process) => process.is_quiet(),
                _ => true,
            })
    }

    fn history(&self) -> History {
        let size = self.plan.size;
        let mut history = History {
            slots: size.slots,
            transactions: self.broker.transactions.clone(),
            offsets: self.broker.group.history.clone(),
            lag_after_healing: Some(self.broker.lag(size.partitions)),
            ..History::default()
        };
        for partition in 0..size.partitions {
            for entry in self.broker.log(Place::Jobs, partition).visible() {
                let Some(raw) = entry.record.clone() else {
                    continue;
                };
                let content = codec::decode_record(&raw, None, &NoRegistry)
                    .expect("without a registry nothing waits for it");
                history.jobs.push(JobSeen {
                    partition,
                    record: Record {
                        offset: entry.offset,
                        raw,
                        content,
                    },
                    moment: entry.moment,
                });
            }
            for entry in self.broker.log(Place::Results, partition).visible() {
                let value = entry.record.as_ref().and_then(|raw| raw.value.as_deref());
                let result: JobResult = decode(value.unwrap_or_default(), &NoRegistry)
                    .expect("workers write valid results");
                history.results.push(ResultSeen::of(&result, entry.moment));
            }
            for entry in self.broker.log(Place::Ledger, partition).visible() {
                let Some(raw) = &entry.record else { continue };
                let key = raw.key.clone().unwrap_or_default();
                let value = raw.value.as_deref().unwrap_or_default();
                if key == SLOT_KEY {
                    history.slot_records.push(SlotSeen {
                        partition,
                        moment: entry.moment,
                        slot: codec::decode_slot(value).expect("workers write valid SLOTs"),
                    });
                } else if key != MARK_KEY {
                    let done = codec::decode_done(value).expect("workers write valid DONEs");
                    history.done.push(DoneSeen { key, done });
                }
            }
            for entry in self.broker.log(Place::DeadLetters, partition).visible() {
                let Some(raw) = &entry.record else { continue };
                history.dead_letters.push(LetterSeen {
                    source: (
                        number(raw, headers::SOURCE_PARTITION) as u32,
                        number(raw, headers::SOURCE_OFFSET),
                    ),
                    moment: entry.moment,
                    key: raw.key.clone(),
                    value: raw.value.clone(),
                });
            }
        }
        history
    }
}

fn number(raw: &guestkit_worker::engine::record::RawRecord, name: &str) -> i64 {
    raw.headers
        .iter()
        .find(|(header, _)| header == name)
        .and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok()?.parse().ok())
        .unwrap_or(-1)
}

/// What a run leaves.
pub(crate) struct Run {
    pub(crate) history: History,
    pub(crate) steps: u64,
    pub(crate) ended_at: Millis,
    pub(crate) trace: Vec<String>,
    pub(crate) describe: Vec<String>,
}
