//! Seeds, many of them, each a run of its own.

use crate::world::{Plan, World};
use guestkit_worker::engine::invariants::check;

/// Seeds of a plain `cargo test`.
const SEEDS: u64 = 500;

fn from_environment(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text:?}")),
        Err(_) => otherwise,
    }
}

#[test]
fn every_guarantee_holds_through_faults_and_healing() {
    let seeds = from_environment("GUESTKIT_SIM_SEEDS", SEEDS);
    let first = from_environment("GUESTKIT_SIM_FIRST_SEED", 0);
    let (mut steps, mut results) = (0, 0);
    for seed in first..first + seeds {
        let plan = Plan::of(seed, None);
        let run = World::new(plan.clone()).run_then_heal();
        steps += run.steps;
        results += run.history.results.len();
        let broken = check(&run.history);
        if broken.is_empty() {
            continue;
        }
        let words: Vec<String> = broken.iter().map(ToString::to_string).collect();
        panic!(
            "seed {seed} breaks\n  {}\nafter {} steps, at {} ms\n{plan:?}\n{}\n{}\n{}\nagain: ./dev sim --seeds 1 --first {seed}",
            words.join("\n  "),
            run.steps,
            run.ended_at,
            run.trace.join("\n"),
            run.describe.join("\n"),
            shown(&run.history),
        );
    }
    println!("{seeds} seeds from {first}: {steps} steps, {results} results, every guarantee holds");
}

#[test]
fn a_seed_decides_everything() {
    for seed in [1, 2, 3] {
        let runs = [0, 1].map(|_| {
            let run = World::new(Plan::of(seed, None)).run_then_heal();
            format!("{} {} {:?}", run.steps, run.ended_at, run.history)
        });
        assert_eq!(runs[0], runs[1], "seed {seed} gave two runs");
    }
}

/// Everything that a history holds of the jobs that `GUESTKIT_SIM_SHOW` names by a part of their text.
fn shown(history: &guestkit_worker::engine::invariants::History) -> String {
    let Ok(part) = std::env::var("GUESTKIT_SIM_SHOW") else {
        return "GUESTKIT_SIM_SHOW=<part of a job id> shows its records".to_owned();
    };
    let mut lines = Vec::new();
    for job in &history.jobs {
        let value = job.record.raw.value.clone().unwrap_or_default();
        let text = format!(
            "job {}/{} at {} {}",
            job.partition,
            job.record.offset,
            job.moment,
            String::from_utf8_lossy(&value)
        );
        lines.push(text);
    }
    lines.extend(history.results.iter().map(|seen| format!("{seen:?}")));
    lines.extend(history.done.iter().map(|seen| format!("{seen:?}")));
    lines.retain(|line| line.contains(&part));
    lines.extend(history.slot_records.iter().map(|seen| format!("{seen:?}")));
    lines.extend(history.offsets.iter().map(|seen| format!("{seen:?}")));
    lines.join("\n")
}
