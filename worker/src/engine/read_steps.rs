//! How a ledger is read: the order of calls in which a slot is restored (engine.md, "Restore",
//! steps 2 to 5) and a transaction of unknown outcome is read back ("Commit", step 7).
//!
//! No call is made here. An edge asks for the step, makes the call, tells what came: the edge to
//! Kafka and the simulated one run the same procedure.

use super::record::Millis;

/// What hangs this long waits for a dead writer's transaction: its writer is fenced (step 4).
pub const HANG_MS: Millis = 500;
/// Deadline of one restore or read-back that comes no further.
pub const STALLED_MAX_MS: Millis = 30_000;
/// Pause between two looks at the last stable offset.
pub const STABLE_POLL_MS: Millis = 5;

/// A call that the reading needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadStep {
    /// Fetch the group's committed offset, stably: wait up to [`HANG_MS`] while a transaction is
    /// about to change it.
    StableOffset,
    /// Fetch the first offset that the jobs log still has.
    LogStart,
    /// Capture the ledger's high watermark, read uncommitted.
    LedgerEnd,
    /// Fetch the ledger's last stable offset.
    LastStable,
    /// Look again after [`STABLE_POLL_MS`].
    Pause,
    /// Fence whoever MARK or SLOT name as writer, committed or not. A live one only renews its
    /// producer; a dead one's transaction ends here instead of by timeout.
    FenceWriters,
    /// Read the ledger, read committed, from its start to the captured end at least.
    ReadLedger,
    /// Everything is read.
    Done,
    /// No progress within [`STALLED_MAX_MS`].
    Stalled,
}

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// To [`ReadStep::StableOffset`].
    Offset(Option<i64>),
    /// To [`ReadStep::StableOffset`]: still pending after [`HANG_MS`].
    Pending,
    /// An offset, to [`ReadStep::LogStart`], [`ReadStep::LedgerEnd`], [`ReadStep::LastStable`].
    At(i64),
    /// To the others.
    Over,
}

/// Restore: the committed offset *stably*, *then* the high watermark, then everything up to it.
const RESTORE: &[ReadStep] = &[
    ReadStep::StableOffset,
    ReadStep::LogStart,
    ReadStep::LedgerEnd,
    ReadStep::LastStable,
    ReadStep::ReadLedger,
    ReadStep::Done,
];
/// A partition beyond the ledger's count.
const RESTORE_FORWARDER: &[ReadStep] =
    &[ReadStep::StableOffset, ReadStep::LogStart, ReadStep::Done];
/// Read-back: the producer is renewed, so the transaction is decided.
const READ_BACK: &[ReadStep] = &[
    ReadStep::LedgerEnd,
    ReadStep::LastStable,
    ReadStep::ReadLedger,
    ReadStep::StableOffset,
    ReadStep::Done,
];
const READ_BACK_FORWARDER: &[ReadStep] = &[ReadStep::StableOffset, ReadStep::Done];

/// One reading on its way.
#[derive(Debug)]
pub struct ReadSteps {
    plan: &'static [ReadStep],
    at: usize,
    /// Stands before the plan's step.
    first: Option<ReadStep>,
    is_slot: bool,
    waited: Millis,
    fenced: bool,
    committed: Option<i64>,
    log_start: i64,
    ledger_end: i64,
}

impl ReadSteps {
    /// For a partition's new owner.
    #[must_use]
    pub fn restore(is_slot: bool) -> Self {
        Self::new(is_slot, if is_slot { RESTORE } else { RESTORE_FORWARDER })
    }

    /// For a transaction whose producer was renewed.
    #[must_use]
    pub fn read_back(is_slot: bool) -> Self {
        let plan = if is_slot {
            READ_BACK
        } else {
            READ_BACK_FORWARDER
        };
        Self::new(is_slot, plan)
    }

    fn new(is_slot: bool, plan: &'static [ReadStep]) -> Self {
        Self {
            plan,
            at: 0,
            first: None,
            is_slot,
            waited: 0,
            fenced: false,
            committed: None,
            log_start: 0,
            ledger_end: 0,
        }
    }

    /// The call to make.
    #[must_use]
    pub fn step(&self) -> ReadStep {
        let planned = self.plan.get(self.at).copied().unwrap_or(ReadStep::Done);
        self.first.unwrap_or(planned)
    }

    /// Takes what came.
    pub fn took(&mut self, read: Read) {
        match (self.step(), read) {
            (ReadStep::StableOffset, Read::Offset(offset)) => {
                self.committed = offset;
                self.advance();
            }
            (ReadStep::StableOffset, Read::Pending) => {
                self.wait(HANG_MS);
                if self.first.is_none() && self.is_slot {
                    self.first = Some(ReadStep::FenceWriters);
                }
            }
            (ReadStep::LogStart, Read::At(offset)) => {
                self.log_start = offset;
                self.advance();
            }
            (ReadStep::LedgerEnd, Read::At(offset)) => {
                self.ledger_end = offset;
                self.advance();
            }
            (ReadStep::LastStable, Read::At(offset)) if offset >= self.ledger_end => self.advance(),
            (ReadStep::LastStable, Read::At(_)) => {
                self.first = if self.waited >= HANG_MS && !self.fenced {
                    self.fenced = true;
                    Some(ReadStep::FenceWriters)
                } else {
                    Some(ReadStep::Pause)
                };
            }
            (ReadStep::Pause, _) => {
                self.first = None;
                self.wait(STABLE_POLL_MS);
            }
            (ReadStep::FenceWriters, _) => self.first = None,
            (ReadStep::ReadLedger, _) => self.advance(),
            _ => {}
        }
    }

    /// The committed offset.
    #[must_use]
    pub fn committed(&self) -> Option<i64> {
        self.committed
    }

    /// First offset of the jobs log.
    #[must_use]
    pub fn log_start(&self) -> i64 {
        self.log_start
    }

    /// The end that [`ReadStep::ReadLedger`] has to reach.
    #[must_use]
    pub fn ledger_end(&self) -> i64 {
        self.ledger_end
    }

    fn advance(&mut self) {
        self.at += 1;
        self.waited = 0;
    }

    fn wait(&mut self, ms: Millis) {
        self.waited += ms;
        if self.waited > STALLED_MAX_MS {
            self.first = Some(ReadStep::Stalled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_takes_the_watermark_after_the_stable_offset() {
        let mut steps = ReadSteps::restore(true);
        let mut order = Vec::new();
        while steps.step() != ReadStep::Done {
            order.push(steps.step());
            steps.took(match steps.step() {
                ReadStep::StableOffset => Read::Offset(Some(7)),
                ReadStep::ReadLedger => Read::Over,
                _ => Read::At(3),
            });
        }
        assert_eq!(order, RESTORE[..RESTORE.len() - 1]);
        assert_eq!(
            (steps.committed(), steps.log_start(), steps.ledger_end()),
            (Some(7), 3, 3)
        );
    }

    #[test]
    fn a_hanging_transaction_gets_its_writer_fenced_and_a_deadline() {
        let mut steps = ReadSteps::restore(true);
        steps.took(Read::Pending);
        assert_eq!(steps.step(), ReadStep::FenceWriters);
        steps.took(Read::Over);
        assert_eq!(steps.step(), ReadStep::StableOffset);
        steps.took(Read::Offset(None));
        steps.took(Read::At(0));
        steps.took(Read::At(10));
        let (mut fences, mut looks) = (0, 0);
        while steps.step() != ReadStep::Stalled {
            fences += usize::from(steps.step() == ReadStep::FenceWriters);
            looks += 1;
            steps.took(Read::At(9));
        }
        assert_eq!(fences, 1);
        assert!(looks as i64 * STABLE_POLL_MS >= STALLED_MAX_MS);
    }

    #[test]
    fn a_forwarding_partition_has_no_ledger() {
        let mut steps = ReadSteps::read_back(false);
        steps.took(Read::Pending);
        assert_eq!(steps.step(), ReadStep::StableOffset, "no writer is named");
        steps.took(Read::Offset(Some(1)));
        assert_eq!(steps.step(), ReadStep::Done);
    }
}
