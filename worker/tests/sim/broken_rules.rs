//! Each rule of engine.md, broken on purpose, is caught by a named guarantee within some seeds: the
//! simulation sees what it claims to see.

use crate::breakage::Breakage;
use crate::world::{Plan, World};
use guestkit_worker::engine::invariants::check;
use std::collections::BTreeSet;

/// Within so many seeds a broken rule shows.
const SEEDS_MAX: u64 = 400;

fn broken_by(seed: u64, breakage: Breakage) -> BTreeSet<&'static str> {
    let run = World::new(Plan::hostile(seed, breakage)).run_then_heal();
    check(&run.history)
        .into_iter()
        .map(|violation| violation.guarantee)
        .collect()
}

fn is_caught_by(guarantee: &str, breakage: Breakage) {
    let mut others = BTreeSet::new();
    for seed in 0..SEEDS_MAX {
        let broken = broken_by(seed, breakage);
        if broken.contains(guarantee) {
            println!("{breakage:?}: {guarantee}, seed {seed} ({broken:?})");
            return;
        }
        others.extend(broken);
    }
    panic!("{breakage:?} was not caught by {guarantee} in {SEEDS_MAX} seeds, but by {others:?}");
}

#[test]
fn offsets_not_in_every_transaction() {
    is_caught_by("fenced_invisible", Breakage::OffsetsNotInEveryTransaction);
}

#[test]
fn unfenceable_metadata_accepted() {
    is_caught_by("fenced_invisible", Breakage::UnfenceableMetadataAccepted);
}

#[test]
fn metadata_taken_after_revocation() {
    is_caught_by("fenced_invisible", Breakage::MetadataTakenAfterRevocation);
}

#[test]
fn unknown_taken_for_aborted() {
    is_caught_by("one_answer_per_job", Breakage::UnknownTakenForAborted);
}

#[test]
fn unknown_taken_for_committed() {
    is_caught_by("no_loss", Breakage::UnknownTakenForCommitted);
}

#[test]
fn producer_not_renewed() {
    is_caught_by("fenced_invisible", Breakage::ProducerNotRenewed);
}

#[test]
fn not_renewed_after_a_broken_connection() {
    is_caught_by(
        "fenced_invisible",
        Breakage::NotRenewedAfterBrokenConnection,
    );
}

#[test]
fn not_renewed_after_a_broken_abort() {
    is_caught_by("no_loss", Breakage::NotRenewedAfterBrokenAbort);
}

#[test]
fn watermark_before_the_stable_fetch() {
    is_caught_by(
        "one_execution_per_key",
        Breakage::WatermarkBeforeStableFetch,
    );
}

/// Slots have SLOT, which the ledger's stable end brings along; partitions beyond them do not.
#[test]
fn offset_not_stable() {
    is_caught_by("one_answer_per_job", Breakage::OffsetNotStable);
}

#[test]
fn restore_to_the_last_stable_offset() {
    is_caught_by("one_execution_per_key", Breakage::RestoreToLastStable);
}

#[test]
fn start_before_restore() {
    is_caught_by("one_execution_per_key", Breakage::StartBeforeRestore);
}

#[test]
fn slot_without_settled_offsets() {
    is_caught_by("one_answer_per_job", Breakage::SlotWithoutSettled);
}

#[test]
fn no_payload_hash() {
    is_caught_by("one_answer_per_job", Breakage::NoPayloadHash);
}

#[test]
fn commit_over_a_gap() {
    is_caught_by("no_loss", Breakage::CommitOverGap);
}

/// The guarantees that no rule above is named for.
#[test]
fn the_other_guarantees_can_fail_too() {
    is_caught_by("ledger_agrees", Breakage::StartBeforeRestore);
    is_caught_by("offset_monotonic", Breakage::StartBeforeRestore);
    is_caught_by("always_ends", Breakage::UnknownTakenForCommitted);
}

/// Restore's order is what lets a worker send offsets before its records have arrived.
#[test]
fn offsets_before_records_alone_break_nothing() {
    for seed in 0..60 {
        let broken = broken_by(seed, Breakage::OffsetsBeforeRecords);
        assert!(broken.is_empty(), "seed {seed}: {broken:?}");
    }
}
