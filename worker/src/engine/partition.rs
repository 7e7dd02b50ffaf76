//! One assigned partition: its life, its offsets and its keys.

use super::index::{HashSeed, KeyHash, LedgerIndex};
use super::keys::{Claim, Key, Phase};
use super::ledger::{Done, FinalStatus, OffsetRange, ResultPointer, Verdict, ranges, rejected_key};
use super::offsets::{OffsetState, Offsets};
use super::record::{Content, Invalid, Job, Millis, Record};
use super::transaction::{DeadLetter, Decision, Epoch, ResultRecord, TxId};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// Answers kept in memory after their commit: a producer's retry usually comes at once, and needs
/// no look-up then. About 400 bytes each.
const RECENT_MAX: usize = 1_024;

/// Key hashes are uniform already.
#[derive(Debug, Default)]
pub(super) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, part: u64) {
        self.0 ^= part;
    }
}

pub(super) type KeyMap<V> = HashMap<KeyHash, V, BuildHasherDefault<Identity>>;

/// Life of a partition in this process: `Unowned` is its absence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Life {
    /// The ledger is being read; nothing of it starts.
    Restoring,
    /// Its jobs run.
    Running,
    /// It starts nothing, says why, and waits for a person or a new assignment.
    Stopped(String),
    /// It is being revoked: what is finished is committed, nothing else happens.
    Releasing(Release),
}

/// How far the last transaction of a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Release {
    /// Something is left to commit, or SLOT(released) to write.
    Wanted,
    /// In this transaction.
    InTransaction(TxId),
    /// Committed; to be told.
    Committed,
    /// Told.
    Over,
}

/// MARK of a slot: what is durable and what is on its way.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// A MARK of this incarnation is durable, so that a successor can fence us.
    pub(super) durable: bool,
    /// Offsets of Marking, Ready and Local keys: what the next MARK names.
    pub(super) permitted: BTreeSet<i64>,
    /// Keys that wait for the next MARK.
    pub(super) pending: Vec<KeyHash>,
    /// Number of the MARK on its way, and the keys it lets start.
    pub(super) in_flight: Option<(u64, Vec<KeyHash>)>,
}

impl Marks {
    /// Keys that a MARK, written or about to be, will make ready.
    pub(super) fn marking(&self) -> usize {
        let on_its_way = self.in_flight.as_ref().map_or(0, |(_, keys)| keys.len());
        self.pending.len() + on_its_way
    }

    pub(super) fn ranges(&self) -> Vec<OffsetRange> {
        ranges(self.permitted.iter().copied())
    }
}

/// An assigned partition.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) number: u32,
    pub(super) epoch: Epoch,
    /// Whether it is a slot: partitions beyond the ledger's count only forward.
    pub(super) is_slot: bool,
    pub(super) life: Life,
    pub(super) offsets: Offsets,
    pub(super) keys: KeyMap<Key>,
    pub(super) index: LedgerIndex,
    /// Answers to invalid records' job ids that exist in the ledger or are about to.
    pub(super) rejected: u64,
    pub(super) marks: Marks,
    /// What waits for a transaction.
    pub(super) decided: Vec<(i64, Decision)>,
    pub(super) decided_since: Millis,
    /// Keys whose DONE the next transaction writes.
    pub(super) dirty: Vec<KeyHash>,
    /// Next offset that the last transaction sent (or that was found committed).
    pub(super) sent_offset: Option<i64>,
    pub(super) recent: VecDeque<KeyHash>,
    /// Look-ups that the engine has not asked for yet.
    pub(super) lookups: Vec<(KeyHash, i64)>,
    pub(super) paused: bool,
    /// Bytes of records that wait.
    pub(super) held_bytes: usize,
    /// Records read and not decided yet.
    pub(super) undecided: usize,
    /// Why nothing more is read of it, if so: the log no longer has what comes next. What was read
    /// before still gets its answers.
    pub(super) gone: Option<String>,
}

/// What a partition needs to know of its process.
pub(super) struct Surroundings<'a> {
    pub(super) seed: HashSeed,
    pub(super) slots: u32,
    pub(super) results_topic: &'a Arc<str>,
    pub(super) admit: &'a dyn Fn(&Job) -> Result<(), super::outcome::Failure>,
    pub(super) now: Millis,
}

/// What taking a record asks the engine to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Nothing beyond what the partition noted for itself.
    Noted,
    /// A key may start: queue it.
    Queue(KeyHash, u8),
}

impl Partition {
    pub(super) fn new(number: u32, epoch: Epoch, is_slot: bool) -> Self {
        Self {
            number,
            epoch,
            is_slot,
            life: Life::Restoring,
            offsets: Offsets::default(),
            keys: KeyMap::default(),
            index: LedgerIndex::default(),
            rejected: 0,
            marks: Marks::default(),
            decided: Vec::new(),
            decided_since: 0,
            dirty: Vec::new(),
            sent_offset: None,
            recent: VecDeque::new(),
            lookups: Vec::new(),
            paused: false,
            held_bytes: 0,
            undecided: 0,
            gone: None,
        }
    }

    /// Offsets whose key runs here, out of `executions` of this partition: they do not wait.
    pub(super) fn offsets_of(&self, running: impl Iterator<Item = KeyHash>) -> Vec<i64> {
        running
            .filter_map(|hash| self.keys.get(&hash))
            .flat_map(|key| key.claims.iter().map(|claim| claim.record.offset))
            .collect()
    }

    /// Whether the next transaction has something to say about this partition.
    pub(super) fn has_news(&self) -> bool {
        match self.life {
            Life::Restoring | Life::Stopped(_) => false,
            Life::Running => !self.decided.is_empty() || self.offset_moved(),
            Life::Releasing(release) => release == Release::Wanted,
        }
    }

    /// Whether the next transaction takes this partition along. A slot has to have a durable MARK,
    /// so that a successor can fence its writer.
    pub(super) fn may_commit(&self) -> bool {
        self.has_news()
            && if self.is_slot {
                self.marks.durable
            } else {
                !self.decided.is_empty() || self.offset_moved()
            }
    }

    /// The answer of a key is committed; its record stands at this ledger offset.
    pub(super) fn key_committed(&mut self, hash: KeyHash, offset: Option<i64>) {
        if let Some(offset) = offset {
            self.index.insert(hash, offset);
        }
        if let Some(key) = self.keys.get_mut(&hash) {
            key.in_transaction = false;
            self.keep_recent(hash);
        }
    }

    /// The answer of a key has to be written again.
    pub(super) fn key_is_dirty(&mut self, hash: KeyHash) {
        if let Some(key) = self.keys.get_mut(&hash) {
            key.in_transaction = false;
            if !key.dirty {
                key.dirty = true;
                self.dirty.push(hash);
            }
        }
    }

    /// The answer of a key was found in the ledger. One that has grown since stays dirty, which
    /// costs one record more and never a wrong answer.
    pub(super) fn key_is_written(&mut self, hash: KeyHash, offset: i64) {
        self.index.insert(hash, offset);
    }

    pub(super) fn set_status(&mut self, hash: KeyHash, status: FinalStatus) {
        if let Some(done) = self.keys.get_mut(&hash).and_then(|key| key.done.as_mut()) {
            Arc::make_mut(done).status = status;
        }
    }

    fn offset_moved(&self) -> bool {
        self.sent_offset != Some(self.offsets.next_offset(None))
    }

    pub(super) fn take(&mut self, record: Record, around: &Surroundings<'_>) -> Taken {
        if self
            .offsets
            .read(record.offset, record.raw.timestamp)
            .is_none()
        {
            return Taken::Noted;
        }
        self.undecided += 1;
        self.held_bytes += record.raw.size();
        match record.content.clone() {
            Content::Job(job) => self.take_job(record, &job, around),
            Content::Invalid(invalid) => self.take_invalid(record, &invalid, around),
        }
    }

    fn take_job(&mut self, record: Record, job: &Arc<Job>, around: &Surroundings<'_>) -> Taken {
        let home = guestkit_protocol::slot_of(&job.key, around.slots);
        if home != self.number {
            self.decide(
                &record,
                Decision::Forward(home, record.raw.clone()),
                around.now,
            );
            return Taken::Noted;
        }
        let hash = around.seed.hash(job.key.as_bytes());
        if let Some(key) = self.keys.get_mut(&hash) {
            if let Some(done) = key.done.clone() {
                self.answer_known(hash, &record, job, &done, around);
            } else if let Some(claim) = key.claim_of(&job.job_id) {
                let repeats = claim
                    .job()
                    .is_some_and(|known| known.payload_hash == job.payload_hash);
                let decision = if repeats {
                    Decision::Drop
                } else {
                    Decision::DeadLetter(id_reused(&record, job))
                };
                self.decide(&record, decision, around.now);
            } else {
                key.claims.push(Claim { record });
            }
            return Taken::Noted;
        }
        if self.rejected > 0 && self.is_rejected(&job.job_id, around.seed) {
            self.decide(
                &record,
                Decision::DeadLetter(id_reused(&record, job)),
                around.now,
            );
            return Taken::Noted;
        }
        let text: Arc<[u8]> = job.key.as_bytes().into();
        if let Some(offset) = self.index.get(hash) {
            self.lookups.push((hash, offset));
            let key = Key::active(text, Phase::LookingUp, Claim { record });
            self.keys.insert(hash, key);
            return Taken::Noted;
        }
        self.keys
            .insert(hash, Key::active(text, Phase::Queued, Claim { record }));
        self.open(hash, around)
    }

    /// Queues a key that may start, or fails its opener at once when no worker of this pool may.
    fn open(&mut self, hash: KeyHash, around: &Surroundings<'_>) -> Taken {
        let Some(job) = self.keys.get(&hash).and_then(|key| key.opener()).cloned() else {
            return Taken::Noted;
        };
        match (around.admit)(&job) {
            Ok(()) => Taken::Queue(hash, job.priority),
            Err(failure) => {
                let outcome =
                    super::outcome::Outcome::unsuccessful(FinalStatus::Failed, failure, around.now);
                self.finish(hash, Arc::new(outcome), around.results_topic, around.now);
                Taken::Noted
            }
        }
    }

    fn take_invalid(
        &mut self,
        record: Record,
        invalid: &Arc<Invalid>,
        around: &Surroundings<'_>,
    ) -> Taken {
        if let Some(routing_key) = invalid.routing_key() {
            let home = guestkit_protocol::slot_of(routing_key, around.slots);
            if home != self.number {
                self.decide(
                    &record,
                    Decision::Forward(home, record.raw.clone()),
                    around.now,
                );
                return Taken::Noted;
            }
        }
        if let (Some(key_text), Some(job_id)) = (&invalid.key, &invalid.job_id) {
            let hash = around.seed.hash(key_text.as_bytes());
            if let Some(key) = self.keys.get_mut(&hash) {
                let id_known = match &key.done {
                    Some(done) => has_answered(done, job_id),
                    None => key.claim_of(job_id).is_some(),
                };
                if key.phase == Phase::LookingUp && !id_known {
                    key.claims.push(Claim { record });
                } else {
                    self.reject(&record, invalid, id_known, around);
                }
                return Taken::Noted;
            }
            if let Some(offset) = self.index.get(hash) {
                self.lookups.push((hash, offset));
                let text: Arc<[u8]> = key_text.as_bytes().into();
                let key = Key::active(text, Phase::LookingUp, Claim { record });
                self.keys.insert(hash, key);
                return Taken::Noted;
            }
        }
        self.reject(&record, invalid, false, around);
        Taken::Noted
    }

    /// Dead-letters an invalid record, and answers its job id unless that has an answer.
    fn reject(
        &mut self,
        record: &Record,
        invalid: &Arc<Invalid>,
        id_answered: bool,
        around: &Surroundings<'_>,
    ) {
        let letter = DeadLetter {
            raw: record.raw.clone(),
            offset: record.offset,
            reason: invalid.code,
            message: invalid.message.clone(),
        };
        let answerable = invalid
            .job_id
            .clone()
            .filter(|job_id| !id_answered && !self.is_rejected(job_id, around.seed))
            // A partition that is no slot has no ledger to remember the answer in.
            .filter(|_| self.is_slot);
        let Some(job_id) = answerable else {
            self.decide(record, Decision::DeadLetter(letter), around.now);
            return;
        };
        let text: Arc<[u8]> = rejected_key(&job_id).into();
        let hash = around.seed.hash(&text);
        let done = Done {
            job_id: job_id.clone(),
            payload_hash: [0; 32],
            status: FinalStatus::Failed,
            attempt: 1,
            run: 1,
            result: ResultPointer {
                topic: around.results_topic.clone(),
                partition: self.number,
                job_id: job_id.clone(),
            },
            answered: Vec::new(),
        };
        self.keys
            .insert(hash, Key::answered(text, Arc::new(done), true));
        self.dirty.push(hash);
        self.rejected += 1;
        let result = ResultRecord::Rejected {
            job_id,
            invalid: invalid.clone(),
        };
        self.decide(record, Decision::Reject(letter, result), around.now);
    }

    fn is_rejected(&self, job_id: &str, seed: HashSeed) -> bool {
        let hash = seed.hash(&rejected_key(job_id));
        self.keys.contains_key(&hash) || self.index.get(hash).is_some()
    }

    /// Answers a record of a key whose DONE is known.
    fn answer_known(
        &mut self,
        hash: KeyHash,
        record: &Record,
        job: &Arc<Job>,
        done: &Arc<Done>,
        around: &Surroundings<'_>,
    ) {
        let verdict = if self.rejected > 0 && self.is_rejected(&job.job_id, around.seed) {
            Verdict::DeadLetter
        } else {
            done.judge(&job.job_id, &job.payload_hash)
        };
        let decision = match verdict {
            Verdict::Drop => Decision::Drop,
            Verdict::DeadLetter => Decision::DeadLetter(id_reused(record, job)),
            Verdict::Duplicate => Decision::Answer(ResultRecord::Duplicate {
                job: job.clone(),
                original: done.clone(),
            }),
            Verdict::Conflict => Decision::Answer(ResultRecord::Conflict {
                job: job.clone(),
                original: done.result.clone(),
            }),
        };
        if matches!(decision, Decision::Answer(_)) {
            let mut grown = Done::clone(done);
            grown.answer(&job.job_id, &job.payload_hash);
            self.rewrite(hash, grown);
        }
        self.decide(record, decision, around.now);
    }

    fn rewrite(&mut self, hash: KeyHash, done: Done) {
        if let Some(key) = self.keys.get_mut(&hash) {
            key.done = Some(Arc::new(done));
            if !key.dirty {
                key.dirty = true;
                self.dirty.push(hash);
            }
        }
    }

    /// What the ledger says of a key that the index knows. `None`: expired, or another key's.
    pub(super) fn looked_up(
        &mut self,
        hash: KeyHash,
        done: Option<Done>,
        around: &Surroundings<'_>,
    ) -> Taken {
        let Some(key) = self.keys.get_mut(&hash) else {
            return Taken::Noted;
        };
        if key.phase != Phase::LookingUp {
            return Taken::Noted;
        }
        let claims = std::mem::take(&mut key.claims);
        if let Some(done) = done {
            key.phase = Phase::Answered;
            key.done = Some(Arc::new(done));
            for claim in claims {
                self.answer_claim(hash, &claim, around);
            }
            self.keep_recent(hash);
            return Taken::Noted;
        }
        self.index.remove(hash);
        let (valid, invalid): (Vec<_>, Vec<_>) =
            claims.into_iter().partition(|claim| claim.job().is_some());
        if valid.is_empty() {
            self.keys.remove(&hash);
        } else {
            key.phase = Phase::Queued;
            key.claims = valid;
        }
        for claim in invalid {
            if let Some(invalid) = claim.invalid() {
                self.reject(&claim.record, &invalid.clone(), false, around);
            }
        }
        self.open(hash, around)
    }

    fn answer_claim(&mut self, hash: KeyHash, claim: &Claim, around: &Surroundings<'_>) {
        let Some(done) = self.keys.get(&hash).and_then(|key| key.done.clone()) else {
            return;
        };
        match &claim.record.content {
            Content::Job(job) => self.answer_known(hash, &claim.record, job, &done, around),
            Content::Invalid(invalid) => {
                let known = invalid
                    .job_id
                    .as_ref()
                    .is_some_and(|job_id| has_answered(&done, job_id));
                self.reject(&claim.record, invalid, known, around);
            }
        }
    }

    /// Ends an active key: DONE, the opener's result and those of everyone who waits.
    pub(super) fn finish(
        &mut self,
        hash: KeyHash,
        outcome: Arc<super::outcome::Outcome>,
        results_topic: &Arc<str>,
        now: Millis,
    ) {
        let Some(key) = self.keys.get_mut(&hash) else {
            return;
        };
        let claims = std::mem::take(&mut key.claims);
        let Some((opener, job)) = claims
            .first()
            .and_then(|claim| claim.job().map(|job| (claim, job.clone())))
        else {
            return;
        };
        self.marks.permitted.remove(&opener.record.offset);
        let attempt = 1;
        let mut done = Done {
            job_id: job.job_id.clone(),
            payload_hash: job.payload_hash,
            status: outcome.status,
            attempt,
            run: 1,
            result: ResultPointer {
                topic: results_topic.clone(),
                partition: self.number,
                job_id: job.job_id.clone(),
            },
            answered: Vec::new(),
        };
        let original = Arc::new(done.clone());
        for claim in claims.iter().skip(1) {
            if let Some(waiting) = claim.job() {
                done.answer(&waiting.job_id, &waiting.payload_hash);
            }
        }
        key.phase = Phase::Answered;
        key.done = Some(Arc::new(done));
        key.dirty = true;
        self.dirty.push(hash);
        for (at, claim) in claims.iter().enumerate() {
            let Some(claimed) = claim.job().cloned() else {
                continue;
            };
            let result = if at == 0 {
                ResultRecord::Executed {
                    job: claimed,
                    outcome: outcome.clone(),
                    attempt,
                }
            } else if claimed.payload_hash == original.payload_hash {
                ResultRecord::Duplicate {
                    job: claimed,
                    original: original.clone(),
                }
            } else {
                ResultRecord::Conflict {
                    job: claimed,
                    original: original.result.clone(),
                }
            };
            self.decide(&claim.record, Decision::Answer(result), now);
        }
    }

    fn decide(&mut self, record: &Record, decision: Decision, now: Millis) {
        if self.decided.is_empty() {
            self.decided_since = now;
        }
        self.undecided = self.undecided.saturating_sub(1);
        self.held_bytes = self.held_bytes.saturating_sub(record.raw.size());
        self.offsets.set(record.offset, OffsetState::Decided);
        self.decided.push((record.offset, decision));
    }

    /// Remembers an answered key for a while; the oldest committed one beyond the bound goes.
    pub(super) fn keep_recent(&mut self, hash: KeyHash) {
        self.recent.push_back(hash);
        while self.recent.len() > RECENT_MAX {
            let Some(oldest) = self.recent.pop_front() else {
                return;
            };
            if self.keys.get(&oldest).is_some_and(Key::is_committed) {
                self.keys.remove(&oldest);
            }
        }
    }
}

fn has_answered(done: &Done, job_id: &str) -> bool {
    // The payload does not matter here: an id has at most one answer.
    *done.job_id == *job_id
        || matches!(
            done.judge(job_id, &[0; 32]),
            Verdict::Drop | Verdict::DeadLetter
        )
}

fn id_reused(record: &Record, job: &Job) -> DeadLetter {
    DeadLetter {
        raw: record.raw.clone(),
        offset: record.offset,
        reason: "JOB_ID_REUSED",
        message: format!(
            "job_id {:?} has its answer already, for another payload: give every submission a job_id of its own",
            job.job_id
        ),
    }
}
