//! A ledger being read by a process: the shared procedure over the simulated broker.

use crate::breakage::Breakage;
use crate::broker::TxError;
use crate::log::Fetched;
use crate::net::Net;
use crate::process::Message;
use guestkit_worker::engine::read_steps::{HANG_MS, Read, ReadStep, ReadSteps, STABLE_POLL_MS};
use guestkit_worker::engine::record::{Millis, RawRecord};
use guestkit_worker::engine::transaction::Epoch;
use guestkit_worker::ledger_fold;
use guestkit_worker::transaction_records::Place;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Records in one fetch: few, so that compaction comes in between.
const FETCH: usize = 12;
/// Pause between two looks at a pending offset.
const PENDING_POLL_MS: Millis = 50;
/// Pause before a writer that is still ending its transaction is fenced again.
const FENCE_RETRY_MS: Millis = 20;

/// Which reading a message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ReadingId {
    Restore(u32, Epoch),
    /// Of the writer's attempt with this number.
    ReadBack(u64, u32),
}

impl ReadingId {
    pub(crate) fn partition(self) -> u32 {
        match self {
            Self::Restore(partition, _) | Self::ReadBack(_, partition) => partition,
        }
    }
}

#[derive(Debug)]
pub(crate) enum ReadReply {
    Step(Read),
    Unstable,
    Writers(BTreeSet<String>),
    Fenced(Result<(), String>),
    Ledger(Fetched),
    Again,
}

#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) id: ReadingId,
    pub(crate) steps: ReadSteps,
    pub(crate) records: Vec<(i64, Arc<RawRecord>)>,
    from: i64,
    pending_for: Millis,
    to_fence: Vec<String>,
    /// A watermark that was captured too early.
    early_end: Option<i64>,
}

impl Reading {
    pub(crate) fn new(id: ReadingId, steps: ReadSteps) -> Self {
        Self {
            id,
            steps,
            records: Vec::new(),
            from: 0,
            pending_for: 0,
            to_fence: Vec::new(),
            early_end: None,
        }
    }

    /// Makes the next call.
    pub(crate) fn advance(&mut self, breakage: Option<Breakage>, net: &mut Net<'_>) {
        let id = self.id;
        let partition = id.partition();
        let reply = move |reply| Message::Reading(id, reply);
        let step = move |read| Message::Reading(id, ReadReply::Step(read));
        match self.steps.step() {
            ReadStep::StableOffset
                if breakage == Some(Breakage::WatermarkBeforeStableFetch)
                    && self.early_end.is_none() =>
            {
                net.call(move |broker, _| {
                    let end = broker.log(Place::Ledger, partition).high_watermark();
                    step(Read::At(end))
                });
            }
            ReadStep::StableOffset if breakage == Some(Breakage::OffsetNotStable) => {
                net.call(move |broker, _| step(Read::Offset(broker.group.committed(partition))));
            }
            ReadStep::StableOffset => {
                net.call(
                    move |broker, _| match broker.group.stable_offset(partition) {
                        Ok(offset) => step(Read::Offset(offset)),
                        Err(_) => reply(ReadReply::Unstable),
                    },
                );
            }
            ReadStep::LogStart => net.call(move |_, _| step(Read::At(0))),
            ReadStep::LedgerEnd => {
                let early = self.early_end;
                let stable = breakage == Some(Breakage::RestoreToLastStable);
                net.call(move |broker, _| {
                    let log = broker.log(Place::Ledger, partition);
                    let end = if stable {
                        log.last_stable()
                    } else {
                        log.high_watermark()
                    };
                    step(Read::At(early.unwrap_or(end)))
                });
            }
            ReadStep::LastStable => {
                net.call(move |broker, _| {
                    step(Read::At(broker.log(Place::Ledger, partition).last_stable()))
                });
            }
            ReadStep::Pause => net.after(STABLE_POLL_MS, step(Read::Over)),
            ReadStep::FenceWriters => net.call(move |broker, _| {
                let log = broker.log(Place::Ledger, partition);
                let written = log.fetch(0, usize::MAX, false).records;
                let writers = written
                    .iter()
                    .filter_map(|(_, record)| {
                        let key = record.key.as_deref()?;
                        ledger_fold::writer_named(key, record.value.as_deref()?)
                    })
                    .collect();
                reply(ReadReply::Writers(writers))
            }),
            ReadStep::ReadLedger => {
                let from = self.from;
                net.call(move |broker, _| {
                    let log = broker.log(Place::Ledger, partition);
                    reply(ReadReply::Ledger(log.fetch(from, FETCH, true)))
                });
            }
            ReadStep::Done | ReadStep::Stalled => {}
        }
    }

    /// Takes an answer; true when the next call is to be made.
    pub(crate) fn took(
        &mut self,
        came: ReadReply,
        own_transactional_id: &str,
        breakage: Option<Breakage>,
        net: &mut Net<'_>,
    ) -> bool {
        match came {
            ReadReply::Step(Read::At(end)) if self.steps.step() == ReadStep::StableOffset => {
                self.early_end = Some(end);
            }
            ReadReply::Step(read) => {
                self.pending_for = 0;
                self.steps.took(read);
            }
            ReadReply::Unstable => {
                self.pending_for += PENDING_POLL_MS;
                if self.pending_for < HANG_MS {
                    net.after(PENDING_POLL_MS, Message::Reading(self.id, ReadReply::Again));
                    return false;
                }
                self.pending_for = 0;
                self.steps.took(Read::Pending);
            }
            ReadReply::Again => {}
            ReadReply::Writers(writers) => {
                self.to_fence = writers
                    .into_iter()
                    .filter(|writer| writer != own_transactional_id)
                    .collect();
                return self.fence_next(net);
            }
            ReadReply::Fenced(Ok(())) => return self.fence_next(net),
            ReadReply::Fenced(Err(writer)) => {
                self.to_fence.push(writer);
                return self.fence_next(net);
            }
            ReadReply::Ledger(fetched) => {
                self.records.extend(fetched.records);
                self.from = fetched.next;
                let end = self.steps.ledger_end();
                if matches!(
                    breakage,
                    Some(Breakage::WatermarkBeforeStableFetch | Breakage::RestoreToLastStable)
                ) {
                    self.records.retain(|(offset, _)| *offset < end);
                }
                if fetched.at_end && fetched.next >= end {
                    self.steps.took(Read::Over);
                }
            }
        }
        true
    }

    fn fence_next(&mut self, net: &mut Net<'_>) -> bool {
        let Some(writer) = self.to_fence.pop() else {
            self.steps.took(Read::Over);
            return true;
        };
        let id = self.id;
        let delay = net.delay() + FENCE_RETRY_MS;
        net.call_in(delay, move |broker, _| {
            let fenced = match broker.init(&writer) {
                Err(TxError::Concurrent) => Err(writer),
                _ => Ok(()),
            };
            Some(Message::Reading(id, ReadReply::Fenced(fenced)))
        });
        false
    }
}
