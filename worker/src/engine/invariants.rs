//! The guarantees, as predicates over what a read_committed reader and the consumer group show
//! (engine.md, "Invariants"). The simulation and the tests on real Kafka feed the same objects.
//!
//! Not judged yet, because they speak of OPEN jobs: `no_waste`, `innocent_spared`,
//! `cancel_before_start`.

use super::ledger::{Done, Fingerprint, REJECTED_PREFIX, SlotRecord};
use super::record::{Content, Record};
use guestkit_protocol::{JobResult, error_code, slot_of};
use std::collections::{BTreeMap, BTreeSet};

/// When something was decided: everything of one transaction has one moment, later ones have larger
/// ones. 0 throughout where nobody can tell (a reader of a real cluster).
pub type Moment = u64;

/// A record of the jobs topic.
#[derive(Debug, Clone)]
pub struct JobSeen {
    /// Its partition.
    pub partition: u32,
    /// The record, decoded as a worker decodes it.
    pub record: Record,
    /// When it became visible.
    pub moment: Moment,
}

/// What a result says of its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was executed, or refused in its place.
    Executed,
    /// It points to the execution of this job.
    DuplicateOf(String),
    /// Its key is taken by another payload.
    Conflict,
    /// Its record is invalid.
    Rejected,
}

/// A result.
#[derive(Debug, Clone)]
pub struct ResultSeen {
    /// When it became visible.
    pub moment: Moment,
    /// Job id.
    pub job_id: String,
    /// Idempotency key, unless the record was invalid.
    pub key: Option<String>,
    /// What it says.
    pub answer: Answer,
}

impl ResultSeen {
    /// From the document.
    #[must_use]
    pub fn of(result: &JobResult, moment: Moment) -> Self {
        let key = result
            .execution_summary
            .as_ref()
            .and_then(|summary| summary.idempotency_key.clone());
        let conflicts = result
            .error
            .as_ref()
            .is_some_and(|error| error.code == error_code::IDEMPOTENCY_CONFLICT);
        let answer = match &result.duplicate_of {
            Some(original) => Answer::DuplicateOf(original.clone()),
            None if conflicts => Answer::Conflict,
            None if key.is_none() => Answer::Rejected,
            None => Answer::Executed,
        };
        Self {
            moment,
            job_id: result.job_id.clone(),
            key,
            answer,
        }
    }
}

/// A DONE. A compacted ledger shows the newest of each key.
#[derive(Debug, Clone)]
pub struct DoneSeen {
    /// Ledger record key.
    pub key: Vec<u8>,
    /// The answer.
    pub done: Done,
}

/// A SLOT, in the order of its ledger.
#[derive(Debug, Clone)]
pub struct SlotSeen {
    /// Slot.
    pub partition: u32,
    /// When it became visible.
    pub moment: Moment,
    /// The record.
    pub slot: SlotRecord,
}

/// A dead letter.
#[derive(Debug, Clone)]
pub struct LetterSeen {
    /// Partition and offset of the record it keeps.
    pub source: (u32, i64),
    /// When it became visible.
    pub moment: Moment,
    /// Record key.
    pub key: Option<Vec<u8>>,
    /// Record value.
    pub value: Option<Vec<u8>>,
}

/// The group's committed offset of a partition, each time it changed.
#[derive(Debug, Clone, Copy)]
pub struct OffsetSeen {
    /// Partition of the jobs topic.
    pub partition: u32,
    /// Next offset.
    pub next_offset: i64,
    /// When it was decided.
    pub moment: Moment,
}

/// A committed transaction as the coordinators know it; a reader of a real cluster sees none.
#[derive(Debug, Clone)]
pub struct TransactionSeen {
    /// `transactional.id`.
    pub writer: String,
    /// Slots that its records speak for.
    pub touched: BTreeSet<u32>,
    /// Partitions whose offsets it sent, and whether its writer owned them when they were accepted.
    pub accepted: BTreeMap<u32, bool>,
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Partition count of the ledger.
    pub slots: u32,
    /// Jobs, in any order.
    pub jobs: Vec<JobSeen>,
    /// Results, in any order.
    pub results: Vec<ResultSeen>,
    /// DONE, in the order of each ledger.
    pub done: Vec<DoneSeen>,
    /// SLOT, in the order of each ledger.
    pub slot_records: Vec<SlotSeen>,
    /// Dead letters, in any order.
    pub dead_letters: Vec<LetterSeen>,
    /// Committed offsets, in the order of their change.
    pub offsets: Vec<OffsetSeen>,
    /// Transactions.
    pub transactions: Vec<TransactionSeen>,
    /// Lag of each partition after all faults had stopped for the agreed time; `None` before.
    pub lag_after_healing: Option<BTreeMap<u32, i64>>,
}

/// A guarantee that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its name in engine.md.
    pub guarantee: &'static str,
    /// What was seen.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.guarantee, self.what)
    }
}

/// A promise that a history keeps or breaks.
pub trait Guarantee: Sync {
    /// Its name in engine.md.
    fn name(&self) -> &'static str;
    /// Every way in which the history breaks it, in words.
    fn broken(&self, history: &History) -> Vec<String>;
}

/// All that are judged.
pub const GUARANTEES: [&dyn Guarantee; 7] = [
    &OneExecutionPerKey,
    &OneAnswerPerJob,
    &NoLoss,
    &LedgerAgrees,
    &FencedInvisible,
    &OffsetMonotonic,
    &AlwaysEnds,
];

/// Holds a history against every guarantee.
#[must_use]
pub fn check(history: &History) -> Vec<Violation> {
    GUARANTEES
        .iter()
        .flat_map(|guarantee| {
            guarantee.broken(history).into_iter().map(|what| Violation {
                guarantee: guarantee.name(),
                what,
            })
        })
        .collect()
}

/// At most one executed result per idempotency key is visible.
pub struct OneExecutionPerKey;

impl Guarantee for OneExecutionPerKey {
    fn name(&self) -> &'static str {
        "one_execution_per_key"
    }

    fn broken(&self, history: &History) -> Vec<String> {
        let mut first = BTreeMap::new();
        let mut broken = Vec::new();
        for result in history.executed() {
            if let Some(before) = first.insert(&result.key, &result.job_id) {
                broken.push(format!(
                    "key {:?} was executed for {before} and for {}",
                    result.key.as_deref().unwrap_or_default(),
                    result.job_id
                ));
            }
        }
        broken
    }
}

/// Each job id is answered once, and by what its own payload asked for: a duplicate points to an
/// execution of the same payload, a conflict to one of another. A record is dead-lettered once.
pub struct OneAnswerPerJob;

impl Guarantee for OneAnswerPerJob {
    fn name(&self) -> &'static str {
        "one_answer_per_job"
    }

    fn broken(&self, history: &History) -> Vec<String> {
        let mut broken = Vec::new();
        let mut answered = BTreeSet::new();
        let payloads = history.payloads();
        let executed: BTreeMap<&Option<String>, &str> = history
            .executed()
            .map(|result| (&result.key, result.job_id.as_str()))
            .collect();
        let mut letters = BTreeSet::new();
        for letter in &history.dead_letters {
            if !letters.insert(letter.source) {
                let (partition, offset) = letter.source;
                broken.push(format!("{partition}/{offset} was dead-lettered twice"));
            }
        }
        let none = BTreeSet::new();
        let of = |job_id: &str| payloads.get(job_id).unwrap_or(&none);
        for result in &history.results {
            let job_id = result.job_id.as_str();
            if !answered.insert(job_id) {
                broken.push(format!("job {job_id} was answered twice"));
            }
            match &result.answer {
                Answer::DuplicateOf(original) => {
                    if executed.get(&result.key) != Some(&original.as_str()) {
                        broken.push(format!(
                            "job {job_id} points to {original}, which was not executed for its key"
                        ));
                    }
                    if of(job_id).is_disjoint(of(original)) {
                        broken.push(format!(
                            "job {job_id} was answered with {original}'s result, which had another payload"
                        ));
                    }
                }
                Answer::Conflict => {
                    let original = executed.get(&result.key).copied().unwrap_or_default();
                    if of(job_id) == of(original) && of(job_id).len() == 1 {
                        broken.push(format!(
                            "job {job_id} conflicts with {original}, which had the same payload"
                        ));
                    }
                }
                Answer::Executed | Answer::Rejected => {}
            }
        }
        broken
    }
}

/// The committed offset, and SLOT, pass a record only if it is answered, dead-lettered with its
/// original bytes, forwarded, or a repeat of an answered job.
pub struct NoLoss;

impl Guarantee for NoLoss {
    fn name(&self) -> &'static str {
        "no_loss"
    }

    fn broken(&self, history: &History) -> Vec<String> {
        let settled = Settled::of(history);
        let mut broken = Vec::new();
        let mut passed: BTreeMap<u32, i64> = BTreeMap::new();
        let mut pass = |partition: u32, next: i64, moment: Moment, by: &str| {
            let from = passed.entry(partition).or_insert(0);
            if next > *from {
                settled.check(partition, *from..next, moment, by, &mut broken);
                *from = next;
            }
        };
        for seen in &history.offsets {
            pass(
                seen.partition,
                seen.next_offset,
                seen.moment,
                "the committed offset",
            );
        }
        passed.clear();
        let mut pass = |partition: u32, next: i64, moment: Moment, by: &str| {
            let from = passed.entry(partition).or_insert(0);
            if next > *from {
                settled.check(partition, *from..next, moment, by, &mut broken);
                *from = next;
            }
        };
        for seen in &history.slot_records {
            pass(seen.partition, seen.slot.next_offset, seen.moment, "SLOT");
        }
        for seen in &history.slot_records {
            for range in &seen.slot.settled {
                for offset in range.first..=range.last {
                    // A repeat may go before its original is answered, which the offset has not
                    // passed then.
                    if !settled.repeats.contains(&(seen.partition, offset)) {
                        let one = offset..offset + 1;
                        settled.check(
                            seen.partition,
                            one,
                            seen.moment,
                            "SLOT.settled",
                            &mut broken,
                        );
                    }
                }
            }
        }
        settled.check_reused_ids(history, &mut broken);
        broken.sort();
        broken.dedup();
        broken
    }
}

/// When each record got what it must get.
struct Settled<'a> {
    records: BTreeMap<(u32, i64), (&'a JobSeen, Option<Moment>)>,
    letters: BTreeSet<(u32, i64)>,
    /// Records whose job id and payload an earlier record of their partition brought.
    repeats: BTreeSet<(u32, i64)>,
}

impl<'a> Settled<'a> {
    fn of(history: &'a History) -> Self {
        let mut answers: BTreeMap<&str, Moment> = BTreeMap::new();
        for result in &history.results {
            keep_first(&mut answers, result.job_id.as_str(), result.moment);
        }
        let mut letters: BTreeMap<(u32, i64), &LetterSeen> = BTreeMap::new();
        for letter in &history.dead_letters {
            letters.entry(letter.source).or_insert(letter);
        }
        let mut at_home: BTreeMap<(u32, &Option<Vec<u8>>), Moment> = BTreeMap::new();
        for job in &history.jobs {
            keep_first(
                &mut at_home,
                (job.partition, &job.record.raw.value),
                job.moment,
            );
        }
        let mut kept = BTreeSet::new();
        let records = history
            .jobs
            .iter()
            .map(|job| {
                let place = (job.partition, job.record.offset);
                let letter = letters
                    .get(&place)
                    .filter(|letter| {
                        letter.key == job.record.raw.key && letter.value == job.record.raw.value
                    })
                    .map(|letter| letter.moment);
                if letter.is_some() {
                    kept.insert(place);
                }
                let home = job.home(history.slots);
                let other = match &job.record.content {
                    _ if home.is_some_and(|home| home != job.partition) => home
                        .and_then(|home| at_home.get(&(home, &job.record.raw.value)))
                        .copied(),
                    Content::Job(known) => answers.get(&*known.job_id).copied(),
                    Content::Invalid(_) => None,
                };
                let first = match (letter, other) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
                (place, (job, first))
            })
            .collect();
        let mut settled = Self {
            records,
            letters: kept,
            repeats: BTreeSet::new(),
        };
        let mut known = BTreeSet::new();
        for (place, (job, _)) in &settled.records {
            if let Content::Job(job) = &job.record.content
                && !known.insert((place.0, &job.job_id, job.payload_hash))
            {
                settled.repeats.insert(*place);
            }
        }
        settled
    }

    fn check(
        &self,
        partition: u32,
        range: std::ops::Range<i64>,
        moment: Moment,
        by: &str,
        broken: &mut Vec<String>,
    ) {
        if range.is_empty() {
            return;
        }
        let places = (partition, range.start)..(partition, range.end);
        for ((_, offset), (job, settled)) in self.records.range(places) {
            if settled.is_none_or(|settled| settled > moment) {
                broken.push(format!(
                    "{by} passed {partition}/{offset} ({}) before it had its answer",
                    job.in_words()
                ));
            }
        }
    }

    /// A job id has one answer; records that bring it with another payload are dead-lettered.
    fn check_reused_ids(&self, history: &History, broken: &mut Vec<String>) {
        let mut committed: BTreeMap<u32, i64> = BTreeMap::new();
        for seen in &history.offsets {
            committed.insert(seen.partition, seen.next_offset);
        }
        let mut payloads: BTreeMap<&str, BTreeSet<[u8; 32]>> = BTreeMap::new();
        for (place, (job, _)) in &self.records {
            let Content::Job(known) = &job.record.content else {
                continue;
            };
            let passed = committed.get(&place.0).is_some_and(|next| place.1 < *next);
            let home = job.home(history.slots) == Some(place.0);
            if passed && home && !self.letters.contains(place) {
                payloads
                    .entry(&known.job_id)
                    .or_default()
                    .insert(known.payload_hash);
            }
        }
        for (job_id, payloads) in payloads {
            if payloads.len() > 1 {
                broken.push(format!(
                    "job id {job_id} came with {} payloads and none but one may go without a dead letter",
                    payloads.len()
                ));
            }
        }
    }
}

/// DONE is committed exactly when the executed result is, and names the job ids it answered.
pub struct LedgerAgrees;

impl Guarantee for LedgerAgrees {
    fn name(&self) -> &'static str {
        "ledger_agrees"
    }

    fn broken(&self, history: &History) -> Vec<String> {
        let mut broken = Vec::new();
        let mut newest: BTreeMap<&[u8], &Done> = BTreeMap::new();
        for seen in &history.done {
            if seen.key.starts_with(REJECTED_PREFIX) {
                continue;
            }
            if let Some(before) = newest.insert(&seen.key, &seen.done)
                && before.job_id != seen.done.job_id
            {
                broken.push(format!(
                    "the ledger names {} and {} for one key",
                    before.job_id, seen.done.job_id
                ));
            }
        }
        let mut executed: BTreeMap<&[u8], &str> = BTreeMap::new();
        let mut answered: BTreeMap<&[u8], BTreeSet<u64>> = BTreeMap::new();
        for result in &history.results {
            let Some(key) = result.key.as_deref().map(str::as_bytes) else {
                continue;
            };
            let set = answered.entry(key).or_default();
            if result.answer == Answer::Executed {
                executed.insert(key, &result.job_id);
            } else {
                set.insert(Fingerprint::of(&result.job_id, &[0; 32]).job_id);
            }
        }
        for (key, job_id) in &executed {
            match newest.get(key) {
                None => broken.push(format!("{job_id} was executed and its key has no DONE")),
                Some(done) if *done.job_id != **job_id => broken.push(format!(
                    "{job_id} was executed and its key's DONE names {}",
                    done.job_id
                )),
                Some(done) => {
                    let named: BTreeSet<u64> = done.answered.iter().map(|a| a.job_id).collect();
                    if answered.get(key).is_some_and(|seen| *seen != named) {
                        broken.push(format!(
                            "DONE of {job_id}'s key names {} further answers, visible are {}",
                            named.len(),
                            answered.get(key).map_or(0, BTreeSet::len)
                        ));
                    }
                }
            }
        }
        for (key, done) in newest {
            if !executed.contains_key(key) {
                broken.push(format!("DONE names {}, which has no result", done.job_id));
            }
        }
        broken
    }
}

/// Nothing is visible from a transaction whose offsets were not accepted while its writer owned the
/// slot.
pub struct FencedInvisible;

impl Guarantee for FencedInvisible {
    fn name(&self) -> &'static str {
        "fenced_invisible"
    }

    fn broken(&self, history: &History) -> Vec<String> {
        let mut broken = Vec::new();
        for transaction in &history.transactions {
            for slot in &transaction.touched {
                let why = match transaction.accepted.get(slot) {
                    Some(true) => continue,
                    Some(false) => "whose offsets were accepted when it did not own the slot",
                    None => "which sent no offsets for it",
                };
                broken.push(format!(
                    "slot {slot} shows a transaction of {} {why}",
                    transaction.writer
                ));
            }
        }
        broken
    }
}

/// The committed offset of a partition never goes back, and neither does SLOT.
pub struct OffsetMonotonic;

impl Guarantee for OffsetMonotonic {
    fn name(&self) -> &'static str {
        "offset_monotonic"
    }

    fn broken(&self, history: &History) -> Vec<String> {
        let committed = history
            .offsets
            .iter()
            .map(|seen| (("the committed offset", seen.partition), seen.next_offset));
        let slots = history
            .slot_records
            .iter()
            .map(|seen| (("SLOT", seen.partition), seen.slot.next_offset));
        let mut newest = BTreeMap::new();
        let mut broken = Vec::new();
        for (of, next) in committed.chain(slots) {
            if let Some(before) = newest.insert(of, next)
                && before > next
            {
                broken.push(format!(
                    "{} of {} went back from {before} to {next}",
                    of.0, of.1
                ));
            }
        }
        broken
    }
}

/// Once faults stop, every job ends and no lag is left.
pub struct AlwaysEnds;

impl Guarantee for AlwaysEnds {
    fn name(&self) -> &'static str {
        "always_ends"
    }

    fn broken(&self, history: &History) -> Vec<String> {
        let Some(lag) = &history.lag_after_healing else {
            return Vec::new();
        };
        let mut broken: Vec<String> = lag
            .iter()
            .filter(|(_, lag)| **lag != 0)
            .map(|(partition, lag)| format!("partition {partition} keeps a lag of {lag}"))
            .collect();
        let answered: BTreeSet<&str> = history
            .results
            .iter()
            .map(|result| result.job_id.as_str())
            .collect();
        for job in &history.jobs {
            if let Content::Job(known) = &job.record.content
                && !answered.contains(&*known.job_id)
            {
                broken.push(format!("job {} has no answer", known.job_id));
            }
        }
        broken.sort();
        broken.dedup();
        broken
    }
}

impl History {
    fn executed(&self) -> impl Iterator<Item = &ResultSeen> {
        self.results
            .iter()
            .filter(|result| result.answer == Answer::Executed)
    }

    /// Payloads that each job id came with.
    fn payloads(&self) -> BTreeMap<&str, BTreeSet<[u8; 32]>> {
        let mut payloads: BTreeMap<&str, BTreeSet<[u8; 32]>> = BTreeMap::new();
        for job in &self.jobs {
            if let Content::Job(known) = &job.record.content {
                payloads
                    .entry(&known.job_id)
                    .or_default()
                    .insert(known.payload_hash);
            }
        }
        payloads
    }
}

impl JobSeen {
    /// The slot of its key, if one can be read.
    fn home(&self, slots: u32) -> Option<u32> {
        match &self.record.content {
            Content::Job(job) => Some(slot_of(&job.key, slots)),
            Content::Invalid(invalid) => invalid.routing_key().map(|key| slot_of(key, slots)),
        }
    }

    fn in_words(&self) -> String {
        match &self.record.content {
            Content::Job(job) => format!("job {}", job.job_id),
            Content::Invalid(invalid) => format!("invalid: {}", invalid.message),
        }
    }
}

fn keep_first<K: Ord>(map: &mut BTreeMap<K, Moment>, key: K, moment: Moment) {
    map.entry(key)
        .and_modify(|first| *first = moment.min(*first))
        .or_insert(moment);
}
