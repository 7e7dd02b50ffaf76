//! Three workers, twelve partitions, plain clients, and everything that can happen to processes.

use crate::agreement::{Jobs, Published, judge};
use crate::fleet::{Fleet, Worker, echo, now, publish_by, wait_until};
use crate::guarantees;
use crate::registry::register;
use crate::secure;
use guestkit_kafka::registry::{Patience, RegistrySchemas};
use guestkit_protocol::{Framing, NoRegistry, decode_job, encode};
use rdkafka::producer::{BaseProducer, Producer};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use xtask::cluster::process::{sigcont, sigstop};

/// How much chaos.
#[derive(Debug)]
struct Plan {
    records: usize,
    keys: usize,
    /// Faults in a run; `Leave` and `Join` come in pairs.
    faults: [(Fault, usize); 4],
    /// Results between two faults, so that each strikes workers at work; a third of the faults does
    /// not wait for them and strikes while the group forms.
    work_between: i64,
}

const WHOLE: Plan = Plan {
    records: 5_400,
    keys: 3_200,
    faults: [
        (Fault::Kill, 10),
        (Fault::Pause, 3),
        (Fault::Leave, 2),
        (Fault::Join, 2),
    ],
    work_between: 120,
};

/// For a way to come in that is not what chaos is about.
const SMALL: Plan = Plan {
    records: 900,
    keys: 530,
    faults: [
        (Fault::Kill, 3),
        (Fault::Pause, 1),
        (Fault::Leave, 1),
        (Fault::Join, 1),
    ],
    work_between: 60,
};

impl Plan {
    fn faults(&self) -> usize {
        self.faults.iter().map(|(_, count)| count).sum()
    }
}

/// Longer than the session of 6 s: the group goes on without the paused worker.
const PAUSE: Duration = Duration::from_millis(8_500);
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Pause,
    Leave,
    Join,
}

/// A small generator with a seed that is printed: the faults of a failed run can be told.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn shuffled(&mut self, counted: &[(Fault, usize)]) -> Vec<Fault> {
        let mut faults: Vec<Fault> = counted
            .iter()
            .flat_map(|(fault, count)| std::iter::repeat_n(*fault, *count))
            .collect();
        for at in (1..faults.len()).rev() {
            faults.swap(at, self.roll(at + 1));
        }
        faults
    }
}

/// Clients that know nothing of slots: each spreads its records in another way.
struct Clients<'a> {
    plan: &'a Plan,
    /// librdkafka's default: CRC32 of the key.
    default: BaseProducer,
    random: BaseProducer,
    schema_id: u32,
}

impl<'a> Clients<'a> {
    fn new(plan: &'a Plan, fleet: &Fleet, schema_id: u32) -> Self {
        let producer = |partitioner: Option<&str>| {
            let mut config = fleet.client();
            config.set("linger.ms", "2");
            if let Some(partitioner) = partitioner {
                config.set("partitioner", partitioner);
            }
            config.create().unwrap()
        };
        Self {
            plan,
            default: producer(None),
            random: producer(Some("random")),
            schema_id,
        }
    }

    fn publish(&self, fleet: &Fleet, dice: &mut Dice, n: usize) -> (String, Published) {
        let keys = self.plan.keys;
        let key = if n < keys { n } else { dice.roll(keys) };
        let data = if n >= keys && dice.roll(20) == 0 {
            format!(r#"{{"key":{key},"other":true}}"#)
        } else {
            format!(r#"{{"key":{key},"sleep_ms":{}}}"#, key % 7 * 3)
        };
        let (job_id, key) = (format!("job-{n:06}"), format!("key-{key}"));
        let json = echo(&job_id, Some(&key), &data);
        let encoded = |framing| encode(&decode_job(&json, &NoRegistry).unwrap(), framing).unwrap();
        let value = match dice.roll(3) {
            0 => json,
            1 => encoded(Framing::SingleObject),
            _ => encoded(Framing::Confluent {
                schema_id: self.schema_id,
            }),
        };
        let topic = fleet.topic("jobs");
        let publish = |producer: &BaseProducer, partition, key: Option<&[u8]>| {
            publish_by(producer, &topic, partition, key, &value, &[]);
        };
        match dice.roll(4) {
            0 => publish(&self.default, Some(3), None),
            1 => publish(&self.random, None, Some(key.as_bytes())),
            2 => publish(&self.default, None, Some(key.as_bytes())),
            _ => publish(&self.default, None, Some(job_id.as_bytes())),
        }
        // A client that sends once more because it heard no answer.
        if dice.roll(50) == 0 {
            publish(&self.random, None, None);
        }
        (job_id, Published { key, data })
    }

    /// Publishes everything, a share with each fault: every fault meets work.
    fn publish_all(&self, fleet: &Fleet, mut dice: Dice, faults_done: &AtomicUsize) -> Jobs {
        let (faults, records) = (self.plan.faults(), self.plan.records);
        let mut jobs = Jobs::new();
        for n in 0..records {
            while n * (faults + 1) >= records * (faults_done.load(Ordering::Relaxed) + 1) {
                self.default.poll(Duration::from_millis(20));
                self.random.poll(Duration::ZERO);
            }
            let (job_id, job) = self.publish(fleet, &mut dice, n);
            jobs.insert(job_id, job);
            if n % 40 == 0 {
                std::thread::sleep(Duration::from_millis(40));
            }
        }
        self.default.flush(Duration::from_secs(30)).unwrap();
        self.random.flush(Duration::from_secs(30)).unwrap();
        jobs
    }
}

struct Crowd<'a> {
    fleet: &'a Fleet,
    registry: String,
    workers: Vec<Worker>,
}

impl Crowd<'_> {
    fn start(&self) -> Worker {
        self.fleet.worker(&[
            "--concurrency",
            "16",
            "--schema-registry-url",
            &self.registry,
            "--result-format",
            "json",
        ])
    }

    fn strike(&mut self, fault: Fault, dice: &mut Dice) {
        let victim = dice.roll(self.workers.len());
        match fault {
            Fault::Kill => {
                self.workers[victim].kill();
                self.workers[victim] = self.start();
            }
            Fault::Pause => {
                sigstop(self.workers[victim].pid()).unwrap();
                std::thread::sleep(PAUSE);
                sigcont(self.workers[victim].pid()).unwrap();
            }
            Fault::Leave if self.workers.len() > 2 => {
                assert_eq!(self.workers.swap_remove(victim).terminate(), 0);
            }
            Fault::Leave => {
                assert_eq!(self.workers[victim].terminate(), 0);
                self.workers[victim] = self.start();
            }
            Fault::Join => self.workers.push(self.start()),
        }
        while self.workers.len() < 3 && fault != Fault::Leave {
            self.workers.push(self.start());
        }
    }
}

#[test]
fn three_workers_through_kills_and_pauses_answer_every_job_exactly_once() {
    run(&WHOLE, &Fleet::new("chaos", 12));
}

/// `./dev chaos --secure` asks for the whole.
#[test]
fn the_same_holds_with_tls_passwords_and_access_rules() {
    let is_whole = std::env::var("GUESTKIT_CHAOS").is_ok_and(|size| size == "whole");
    let plan = if is_whole { &WHOLE } else { &SMALL };
    run(plan, &secure::fleet("chaos", 12));
}

fn run(plan: &Plan, fleet: &Fleet) {
    let seed = std::env::var("GUESTKIT_CHAOS_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(20_261_124);
    println!("chaos seed {seed}");
    let began = now();
    let registry = xtask::cluster::registry_url().unwrap().to_owned();
    let schema_id = register(fleet, &registry)[&format!("{}-value", fleet.topic("jobs"))];
    let clients = Clients::new(plan, fleet, schema_id);
    let mut crowd = Crowd {
        fleet,
        registry,
        workers: Vec::new(),
    };
    crowd.workers = (0..3).map(|_| crowd.start()).collect();
    let mut dice = Dice(seed);
    let faults = dice.shuffled(&plan.faults);
    let faults_done = AtomicUsize::new(0);
    let jobs = std::thread::scope(|scope| {
        let publishing =
            scope.spawn(|| clients.publish_all(fleet, Dice(seed ^ 0x5eed), &faults_done));
        for fault in &faults {
            if dice.roll(3) == 0 {
                std::thread::sleep(Duration::from_millis(200 + dice.roll(1_500) as u64));
            } else {
                let wanted = fleet.count("results") + plan.work_between;
                wait_until("work goes on", Duration::from_secs(60), || {
                    fleet.count("results") >= wanted
                });
            }
            println!("{:>6.1} s {fault:?}", (now() - began).as_secs_f64());
            crowd.strike(*fault, &mut dice);
            faults_done.fetch_add(1, Ordering::Relaxed);
        }
        publishing.join().unwrap()
    });
    let verdict = judge(fleet, &jobs);
    println!(
        "{} records in {:.0} s: {verdict:?}",
        plan.records,
        (now() - began).as_secs_f64()
    );
    // A third repeats an earlier key, one in twenty of those with another payload.
    assert!(verdict.duplicates > plan.records / 6 && verdict.conflicts > plan.records / 110);
    let schemas = RegistrySchemas::new(&crowd.registry, Patience::default()).unwrap();
    guarantees::assert_all(fleet, &schemas);
    for worker in &mut crowd.workers {
        assert!(worker.is_running(), "nothing that others do ends a worker");
        assert_eq!(worker.terminate(), 0);
    }
}
