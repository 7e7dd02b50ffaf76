//! What a transaction writes, record by record, in the order in which it is written. Both edges,
//! Kafka's and the simulated one, write what stands here.

use crate::codec::{Codec, kind_name};
use crate::engine::ledger::{LedgerKind, SLOT_KEY};
use crate::engine::transaction::{Decision, PartitionCommit, ResultRecord};
use guestkit_protocol::headers;
use std::sync::Arc;

/// Topics that a transaction writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// Jobs: forwards.
    Jobs,
    /// The ledger.
    Ledger,
    /// Results.
    Results,
    /// Dead letters.
    DeadLetters,
}

/// What a record is, for those who match its delivery report.
#[derive(Debug, Clone, Copy)]
pub enum Written<'a> {
    /// A DONE: its ledger offset is wanted.
    Done,
    /// A result: a refusal for its size is this job's.
    Result(&'a Arc<str>),
    /// Anything else.
    Other,
}

/// A header of a record.
pub type Header<'a> = (&'a str, Option<&'a [u8]>);

/// One record of a transaction.
#[derive(Debug)]
pub struct Output<'a> {
    /// Topic.
    pub place: Place,
    /// Partition.
    pub partition: u32,
    /// Record key.
    pub key: Option<&'a [u8]>,
    /// Record value.
    pub value: Option<&'a [u8]>,
    /// Headers in order.
    pub headers: &'a [Header<'a>],
    /// What it is.
    pub written: Written<'a>,
}

/// Hands all records of one partition's commit to `write`: the ledger first, then what was decided.
///
/// # Errors
/// The first that `write` answers with.
pub fn write_all<E>(
    codec: &Codec,
    jobs_topic: &str,
    slots: u32,
    part: &PartitionCommit,
    write: &mut impl FnMut(Output<'_>) -> Result<(), E>,
) -> Result<(), E> {
    write_ledger(codec, part, write)?;
    for (offset, decision) in part.decisions.iter() {
        match decision {
            Decision::Drop => {}
            Decision::Answer(result) => {
                write_result(codec, part.partition, *offset, result, write)?;
            }
            Decision::DeadLetter(letter) | Decision::Reject(letter, _) => {
                let raw = codec.dead_letter(letter, jobs_topic, part.partition);
                write(Output {
                    place: Place::DeadLetters,
                    // Partitions beyond the slots have no dead letters of their own.
                    partition: part.partition % slots,
                    key: raw.key.as_deref(),
                    value: raw.value.as_deref(),
                    headers: &borrowed(&raw.headers),
                    written: Written::Other,
                })?;
                if let Decision::Reject(_, result) = decision {
                    write_result(codec, part.partition, *offset, result, write)?;
                }
            }
            Decision::Forward(to, raw) => write(Output {
                place: Place::Jobs,
                partition: *to,
                key: raw.key.as_deref(),
                value: raw.value.as_deref(),
                headers: &borrowed(&raw.headers),
                written: Written::Other,
            })?,
        }
    }
    Ok(())
}

fn write_ledger<E>(
    codec: &Codec,
    part: &PartitionCommit,
    write: &mut impl FnMut(Output<'_>) -> Result<(), E>,
) -> Result<(), E> {
    for (key, done) in &part.done {
        write(Output {
            place: Place::Ledger,
            partition: part.partition,
            key: Some(key),
            value: Some(&codec.encode_done(done)),
            headers: &ledger_header(LedgerKind::Done),
            written: Written::Done,
        })?;
    }
    if let Some(slot) = &part.slot {
        write(Output {
            place: Place::Ledger,
            partition: part.partition,
            key: Some(SLOT_KEY),
            value: Some(&codec.encode_slot(slot)),
            headers: &ledger_header(LedgerKind::Slot),
            written: Written::Other,
        })?;
    }
    Ok(())
}

fn write_result<E>(
    codec: &Codec,
    partition: u32,
    offset: i64,
    result: &ResultRecord,
    write: &mut impl FnMut(Output<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let encoded = codec.encode_result(result, partition, offset);
    write(Output {
        place: Place::Results,
        partition,
        key: Some(result.job_id().as_bytes()),
        value: Some(&encoded.value),
        headers: &borrowed(&encoded.headers),
        written: Written::Result(result.job_id()),
    })
}

/// Header of a ledger record: its kind, so that a restore decodes no value it does not need.
#[must_use]
pub fn ledger_header(kind: LedgerKind) -> [Header<'static>; 1] {
    [(headers::LEDGER_KIND, Some(kind_name(kind).as_bytes()))]
}

fn borrowed(headers: &[(String, Option<Vec<u8>>)]) -> Vec<Header<'_>> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_deref()))
        .collect()
}
