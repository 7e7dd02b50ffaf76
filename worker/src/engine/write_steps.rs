//! The writer's procedure (engine.md, "Commit, step by step", steps 1 to 6): which call follows
//! which, and what each fault means for the transaction.
//!
//! No call is made here. An edge asks for the step, makes the call, tells how it went: the edge to
//! Kafka and the simulated one run the same procedure.

use super::transaction::{AbortReason, TxOutcome};

/// A call that the transaction needs next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteStep {
    /// Have a producer that is not due for renewal: drop it, create it with the same
    /// `transactional.id`, initialise it.
    Open,
    /// Take the group metadata while every partition is owned in the transaction's assignments.
    TakeMetadata,
    /// Begin.
    Begin,
    /// Write all records and wait until the broker has them.
    Produce,
    /// Send the offsets of every partition with the metadata taken before.
    SendOffsets,
    /// Commit, without a limit of time.
    Commit,
    /// Abort, without a limit of time.
    Abort,
    /// Nothing more: this is what became of it, as far as can be told.
    Ended(TxOutcome),
}

/// How a call went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteFault {
    /// Stale generation, unknown member or fenced instance (rule 4).
    Stale(String),
    /// The producer lives, the transaction cannot be committed any more.
    Abortable(AbortReason),
    /// Timeout, transport, anything fatal: the request may have been carried out (rule 5).
    Unclear(String),
}

/// When a producer has to be dropped and created anew under the same `transactional.id`.
///
/// Renewal waits for the old transaction's end and makes what is still in the network harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Renewal {
    due: bool,
}

impl Renewal {
    /// Whether the next transaction has to renew first.
    #[must_use]
    pub fn is_due(self) -> bool {
        self.due
    }

    /// Makes it due.
    pub fn demand(&mut self) {
        self.due = true;
    }

    /// A new producer is initialised.
    pub fn renewed(&mut self) {
        self.due = false;
    }

    /// Takes note of how a transaction ended, and whether a broker connection broke since it began.
    pub fn after(&mut self, outcome: &TxOutcome, connection_broke: bool) {
        match outcome {
            // Rule 5b: the library re-sends EndTxn over a new connection, and the first copy, still
            // in the network, would end the next transaction.
            TxOutcome::Committed { .. } | TxOutcome::Aborted(_) => self.due |= connection_broke,
            TxOutcome::Unknown { .. } => self.due = true,
        }
    }
}

/// One transaction on its way.
#[derive(Debug)]
pub struct WriteSteps {
    step: WriteStep,
    aborts_for: Option<AbortReason>,
}

impl Default for WriteSteps {
    fn default() -> Self {
        Self {
            step: WriteStep::Open,
            aborts_for: None,
        }
    }
}

impl WriteSteps {
    /// A transaction of an open producer under metadata that was taken already.
    #[must_use]
    pub fn from_begin() -> Self {
        Self {
            step: WriteStep::Begin,
            aborts_for: None,
        }
    }

    /// The call to make.
    #[must_use]
    pub fn step(&self) -> &WriteStep {
        &self.step
    }

    /// The call worked. `ledger_offsets` counts after [`WriteStep::Commit`] only.
    pub fn worked(&mut self, ledger_offsets: impl FnOnce() -> Vec<Vec<i64>>) {
        self.step = match &self.step {
            WriteStep::Open => WriteStep::TakeMetadata,
            WriteStep::TakeMetadata => WriteStep::Begin,
            WriteStep::Begin => WriteStep::Produce,
            WriteStep::Produce => WriteStep::SendOffsets,
            WriteStep::SendOffsets => WriteStep::Commit,
            WriteStep::Commit => WriteStep::Ended(TxOutcome::Committed {
                ledger_offsets: ledger_offsets(),
            }),
            WriteStep::Abort => WriteStep::Ended(TxOutcome::Aborted(
                self.aborts_for
                    .take()
                    .unwrap_or_else(|| AbortReason::Other("aborted".to_owned())),
            )),
            WriteStep::Ended(_) => return,
        };
    }

    /// The call did not work.
    pub fn failed(&mut self, fault: WriteFault, renewal: &mut Renewal) {
        self.step = match (&self.step, fault) {
            (WriteStep::Ended(_), _) => return,
            // Nothing was sent yet: surely not committed.
            (WriteStep::Open | WriteStep::TakeMetadata, fault) => {
                WriteStep::Ended(TxOutcome::Aborted(fault.into_reason()))
            }
            (WriteStep::Begin, fault) => {
                // A producer that cannot begin will not be able to later.
                renewal.demand();
                WriteStep::Ended(TxOutcome::Aborted(fault.into_reason()))
            }
            (step, WriteFault::Unclear(reason)) => WriteStep::Ended(TxOutcome::Unknown {
                reason: format!("{}: {reason}", in_words(step)),
            }),
            (WriteStep::Abort, fault) => WriteStep::Ended(TxOutcome::Unknown {
                reason: format!("abort: {:?}", fault.into_reason()),
            }),
            (_, fault) => {
                self.aborts_for = Some(fault.into_reason());
                WriteStep::Abort
            }
        };
    }
}

impl WriteFault {
    fn into_reason(self) -> AbortReason {
        match self {
            Self::Stale(words) => AbortReason::Fenced(words),
            Self::Abortable(reason) => reason,
            Self::Unclear(words) => AbortReason::Other(words),
        }
    }
}

fn in_words(step: &WriteStep) -> &'static str {
    match step {
        WriteStep::Produce => "produce",
        WriteStep::SendOffsets => "send offsets",
        WriteStep::Commit => "commit",
        WriteStep::Abort => "abort",
        _ => "transaction",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(step: WriteStep) -> WriteSteps {
        let mut steps = WriteSteps::default();
        while *steps.step() != step {
            assert!(!matches!(steps.step(), WriteStep::Ended(_)), "{step:?}");
            steps.worked(Vec::new);
        }
        steps
    }

    fn unclear() -> WriteFault {
        WriteFault::Unclear("timed out".to_owned())
    }

    #[test]
    fn what_may_have_reached_the_coordinator_is_unknown() {
        for step in [
            WriteStep::Produce,
            WriteStep::SendOffsets,
            WriteStep::Commit,
        ] {
            let mut steps = at(step.clone());
            steps.failed(unclear(), &mut Renewal::default());
            let WriteStep::Ended(outcome) = steps.step() else {
                panic!("{step:?} goes on: {:?}", steps.step());
            };
            assert!(matches!(outcome, TxOutcome::Unknown { .. }), "{outcome:?}");
            let mut renewal = Renewal::default();
            renewal.after(outcome, false);
            assert!(renewal.is_due());
        }
    }

    #[test]
    fn what_was_never_sent_is_aborted_at_once() {
        for step in [WriteStep::Open, WriteStep::TakeMetadata, WriteStep::Begin] {
            let mut steps = at(step);
            steps.failed(
                WriteFault::Abortable(AbortReason::NotOwned),
                &mut Renewal::default(),
            );
            assert_eq!(
                *steps.step(),
                WriteStep::Ended(TxOutcome::Aborted(AbortReason::NotOwned))
            );
        }
    }

    #[test]
    fn a_stale_member_aborts_and_goes_on_with_its_producer() {
        let mut renewal = Renewal::default();
        let mut steps = at(WriteStep::SendOffsets);
        steps.failed(
            WriteFault::Stale("illegal generation".to_owned()),
            &mut renewal,
        );
        assert_eq!(*steps.step(), WriteStep::Abort);
        steps.worked(Vec::new);
        let WriteStep::Ended(outcome) = steps.step() else {
            panic!("an abort ends it");
        };
        assert!(matches!(
            outcome,
            TxOutcome::Aborted(AbortReason::Fenced(_))
        ));
        renewal.after(outcome, false);
        assert!(!renewal.is_due());
    }

    #[test]
    fn an_abort_that_fails_is_unknown() {
        let mut steps = at(WriteStep::Produce);
        let fault = WriteFault::Abortable(AbortReason::Other("refused".to_owned()));
        steps.failed(fault.clone(), &mut Renewal::default());
        steps.failed(fault, &mut Renewal::default());
        assert!(matches!(
            steps.step(),
            WriteStep::Ended(TxOutcome::Unknown { .. })
        ));
    }

    #[test]
    fn a_connection_that_broke_renews_even_after_a_commit() {
        let mut renewal = Renewal::default();
        let committed = TxOutcome::Committed {
            ledger_offsets: Vec::new(),
        };
        renewal.after(&committed, false);
        assert!(!renewal.is_due());
        renewal.after(&committed, true);
        assert!(renewal.is_due());
    }
}
