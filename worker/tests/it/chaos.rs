//! Three workers, twelve partitions, plain clients, and everything that can happen to processes.

use crate::fleet::{Fleet, Worker, by_job, echo, executed_keys, now};
use guestkit_protocol::{Framing, NoRegistry, decode_job, encode};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use xtask::cluster::process::{sigcont, sigstop};

const RECORDS: usize = 5_200;
const KEYS: usize = 3_000;
const KILLS: usize = 10;
const STOPS: usize = 3;
const LIMIT: Duration = Duration::from_secs(180);

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
}

fn publish(fleet: &Fleet, dice: &mut Dice, n: usize) -> (String, String, String) {
    let key = if n < KEYS { n } else { dice.roll(KEYS) };
    let other = n >= KEYS && dice.roll(20) == 0;
    let data = if other {
        format!(r#"{{"key":{key},"other":true}}"#)
    } else {
        format!(r#"{{"key":{key},"sleep_ms":{}}}"#, key % 7 * 3)
    };
    let (job_id, key) = (format!("job-{n:06}"), format!("key-{key}"));
    let json = echo(&job_id, Some(&key), &data);
    let value = if dice.roll(2) == 0 {
        json
    } else {
        encode(
            &decode_job(&json, &NoRegistry).unwrap(),
            Framing::SingleObject,
        )
        .unwrap()
    };
    // librdkafka's default (CRC32 of the key), a partition at random, always the same one.
    match dice.roll(10) {
        0 | 1 => fleet.publish(Some(3), None, &value),
        2..=5 => fleet.publish(None, Some(&n.to_string()), &value),
        _ => fleet.publish(Some(dice.roll(12) as i32), None, &value),
    }
    (job_id, key, data)
}

fn disturb(
    fleet: &Fleet,
    workers: &mut [Worker],
    dice: &mut Dice,
    kills: &mut usize,
    stops: &mut usize,
) {
    let victim = dice.roll(workers.len());
    if *stops < STOPS && (dice.roll(4) == 0 || *kills >= KILLS) {
        sigstop(workers[victim].pid()).unwrap();
        // The session is 6 s: the group goes on without it.
        std::thread::sleep(Duration::from_secs(9));
        sigcont(workers[victim].pid()).unwrap();
        *stops += 1;
    } else if *kills < KILLS {
        workers[victim].kill();
        *kills += 1;
        workers[victim] = fleet.worker(&["--concurrency", "16"]);
    } else {
        // A leave in good order, and a join.
        assert_eq!(workers[victim].terminate(), 0);
        workers[victim] = fleet.worker(&["--concurrency", "16"]);
    }
}

#[test]
fn three_workers_through_kills_and_pauses_answer_every_job_exactly_once() {
    let seed = std::env::var("GUESTKIT_CHAOS_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(20_261_124);
    println!("chaos seed {seed}");
    let fleet = Fleet::new("chaos", 12);
    let mut workers: Vec<Worker> = (0..3)
        .map(|_| fleet.worker(&["--concurrency", "16"]))
        .collect();
    let mut dice = Dice(seed);
    let (mut kills, mut stops) = (0, 0);
    let mut published: BTreeMap<String, (String, String)> = BTreeMap::new();
    let mut next_fault = now() + Duration::from_secs(2);
    for n in 0..RECORDS {
        let (job_id, key, data) = publish(&fleet, &mut dice, n);
        published.insert(job_id, (key, data));
        if n % 40 == 0 {
            std::thread::sleep(Duration::from_millis(80));
        }
        if now() >= next_fault {
            disturb(&fleet, &mut workers, &mut dice, &mut kills, &mut stops);
            next_fault = now() + Duration::from_millis(300 + dice.roll(900) as u64);
        }
    }
    while kills < KILLS || stops < STOPS {
        disturb(&fleet, &mut workers, &mut dice, &mut kills, &mut stops);
    }
    disturb(&fleet, &mut workers, &mut dice, &mut kills, &mut stops);
    fleet.flush();

    let results = fleet.results(RECORDS, LIMIT);
    fleet.wait_no_lag(Duration::from_secs(60));
    let answered = by_job(&results);
    let missing: Vec<&String> = published
        .keys()
        .filter(|id| !answered.contains_key(*id))
        .collect();
    assert!(
        missing.is_empty(),
        "{} jobs have no answer: {:?}",
        missing.len(),
        missing.first()
    );
    assert_eq!(answered.len(), RECORDS);
    let executed = executed_keys(&results);
    let keys: BTreeSet<String> = published.values().map(|(key, _)| key.clone()).collect();
    assert_eq!(executed, keys, "exactly one execution for every key");
    let (mut duplicates, mut conflicts) = (0, 0);
    for seen in &results {
        if let Some(original) = &seen.result.duplicate_of {
            let original = &answered[original];
            assert!(original.is_executed() && original.key() == seen.key());
            let data = |id: &str| published[id].1.clone();
            assert_eq!(data(&seen.result.job_id), data(&original.result.job_id));
            duplicates += 1;
        } else if !seen.is_executed() {
            conflicts += 1;
        }
    }
    assert_eq!(executed.len() + duplicates + conflicts, RECORDS);
    println!(
        "{RECORDS} records, {} executed, {duplicates} duplicates, {conflicts} conflicts, {kills} kills, {stops} pauses",
        executed.len()
    );
    for worker in &mut workers {
        assert_eq!(worker.terminate(), 0);
    }
}
