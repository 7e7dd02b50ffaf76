//! What the simulation found, told to the engine directly: seeds change their meaning with every
//! change of the workload, these do not.

use guestkit_worker::engine::index::{HashSeed, LedgerIndex};
use guestkit_worker::engine::record::{Content, Invalid, RawRecord, Record};
use guestkit_worker::engine::transaction::{Transaction, TxOutcome};
use guestkit_worker::engine::{Action, Config, Engine, Event, Restored};
use std::sync::Arc;

const PARTITION: u32 = 0;
const EPOCH: u64 = 1;

fn engine() -> Engine {
    let mut engine = Engine::new(Config {
        slots: 1,
        incarnation: "one-1".into(),
        transactional_id: "sim.one.0".into(),
        results_topic: "results".into(),
        concurrency: 1,
        seed: HashSeed(1, 2),
        window_max: 100,
        admission: Box::new(|_| Ok(())),
    });
    let assigned = Event::Assigned {
        partition: PARTITION,
        epoch: EPOCH,
    };
    engine.apply(assigned, 0);
    let restored = Restored {
        partition: PARTITION,
        epoch: EPOCH,
        committed: Some(0),
        log_start: 0,
        slot: None,
        index: LedgerIndex::default(),
        rejected: 0,
    };
    engine.apply(Event::Restored(Box::new(restored)), 0);
    engine
}

fn invalid(offset: i64) -> Event {
    let content = Content::Invalid(Arc::new(Invalid {
        code: "INVALID_JOB",
        message: "nothing in it".to_owned(),
        job_id: None,
        key: None,
        operation: None,
    }));
    Event::Records {
        partition: PARTITION,
        epoch: EPOCH,
        records: vec![Record {
            offset,
            raw: Arc::new(RawRecord::default()),
            content,
        }],
    }
}

fn committed(actions: &[Action]) -> &Transaction {
    let transaction = actions.iter().find_map(|action| match action {
        Action::Commit(transaction) => Some(transaction),
        _ => None,
    });
    transaction.expect("a transaction")
}

/// Found as `no_loss`: records that come during a revoke are not taken in, but the end of partition
/// behind them was, and the last transaction passed them.
#[test]
fn an_end_of_partition_during_a_revoke_passes_no_record() {
    let mut engine = engine();
    let actions = engine.apply(invalid(0), 1);
    let number = actions
        .iter()
        .find_map(|action| match action {
            Action::WriteMark(write) => Some(write.number),
            _ => None,
        })
        .expect("a MARK before the first transaction");
    let acked = Event::MarkAcked {
        partition: PARTITION,
        epoch: EPOCH,
        number,
    };
    let actions = engine.apply(acked, 2);
    let first = committed(&actions);
    assert_eq!(first.partitions[0].next_offset, 1);
    let ended = Event::TxEnded {
        id: first.id,
        outcome: TxOutcome::Committed {
            ledger_offsets: vec![Vec::new()],
        },
    };
    engine.apply(ended, 3);
    let actions = engine.apply_all(
        [
            Event::Revoking {
                partition: PARTITION,
                epoch: EPOCH,
            },
            invalid(1),
            Event::EndOfPartition {
                partition: PARTITION,
                epoch: EPOCH,
                offset: 2,
            },
        ],
        4,
    );
    let last = &committed(&actions).partitions[0];
    assert_eq!(last.next_offset, 1, "record 1 was not taken in");
    assert_eq!(last.slot.as_ref().map(|slot| slot.next_offset), Some(1));
}
