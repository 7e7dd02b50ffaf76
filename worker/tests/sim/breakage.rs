//! Rules broken on purpose: each must be caught by a named guarantee (`broken_rules.rs`).
//!
//! They live in the simulated edge only. The engine and the shared procedures run unchanged; what a
//! broken edge would do differently with them is done here.

/// A rule of engine.md that a worker does not keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breakage {
    /// Offsets are sent only for partitions whose offset moved (rule 1).
    OffsetsNotInEveryTransaction,
    /// Generation −1 and an empty member id are sent (rule 2).
    UnfenceableMetadataAccepted,
    /// Metadata is taken when offsets are sent, whoever owns the partitions then (rule 3).
    MetadataTakenAfterRevocation,
    /// A commit without an answer counts as aborted (rule 5).
    UnknownTakenForAborted,
    /// A commit without an answer counts as committed (rule 5).
    UnknownTakenForCommitted,
    /// The producer lives on after an unknown outcome (rule 5).
    ProducerNotRenewed,
    /// The producer lives on after a commit over a broken connection (rule 5b).
    NotRenewedAfterBrokenConnection,
    /// The producer lives on after an abort over a broken connection: the late copy ends the next
    /// transaction between its records and its offsets, which then commit alone.
    NotRenewedAfterBrokenAbort,
    /// The ledger's high watermark is captured before the stable offset is fetched (rule 7), by
    /// workers whose records may arrive after their offsets. Ours wait for their records first, and
    /// the order at restore is what lets them not to: see [`Breakage::OffsetsBeforeRecords`].
    WatermarkBeforeStableFetch,
    /// Offsets are sent before the records have arrived. Kept as a harmless one: restore's order
    /// covers it.
    OffsetsBeforeRecords,
    /// The committed offset is fetched without waiting for a pending one (rule 7).
    OffsetNotStable,
    /// The ledger is read to its last stable offset (rule 7).
    RestoreToLastStable,
    /// Jobs start with what is known at once: an empty index.
    StartBeforeRestore,
    /// SLOT names no offsets beyond the next one.
    SlotWithoutSettled,
    /// Every payload looks the same.
    NoPayloadHash,
    /// The offset moves to the newest answered record.
    CommitOverGap,
}
