//! The newest dead letters, in short.

use crate::gateway::highlights::shorten;
use crate::gateway::tenants::Caller;
use guestkit_kafka::reader::Record;
use guestkit_protocol::headers;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// How many are kept.
pub(crate) const LETTERS_MAX: usize = 500;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct DeadLetter {
    /// `PARTITION/OFFSET`, as `guestkit-jobs dead-letters` has it.
    pub(crate) id: String,
    pub(crate) time: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) error: Option<String>,
    /// The record's key as text, hexadecimal where it is none.
    pub(crate) key: Option<String>,
    pub(crate) source_topic: Option<String>,
    pub(crate) source_partition: Option<String>,
    pub(crate) source_offset: Option<String>,
    pub(crate) value_bytes: usize,
}

impl DeadLetter {
    /// Of a record of the topic.
    pub(crate) fn of(record: &Record) -> Self {
        let header = |name| record.header(name).map(|text| shorten(&text));
        Self {
            id: format!("{}/{}", record.partition, record.offset),
            time: header(headers::TIME),
            reason: header(headers::REASON),
            error: header(headers::ERROR),
            key: record
                .key
                .as_deref()
                .map(|key| match std::str::from_utf8(key) {
                    Ok(text) => shorten(text),
                    Err(_) => shorten(&hex::encode(key)),
                }),
            source_topic: header(headers::SOURCE_TOPIC),
            source_partition: header(headers::SOURCE_PARTITION),
            source_offset: header(headers::SOURCE_OFFSET),
            value_bytes: record.value.as_ref().map_or(0, Vec::len),
        }
    }
}

/// Newest last; the oldest go.
#[derive(Debug, Default)]
pub(crate) struct DeadLetters(Mutex<VecDeque<DeadLetter>>);

impl DeadLetters {
    /// One more.
    pub(crate) fn add(&self, letter: DeadLetter) {
        let mut letters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if letters.len() >= LETTERS_MAX {
            letters.pop_front();
        }
        letters.push_back(letter);
    }

    /// The newest ones that are the caller's business, newest first.
    pub(crate) fn newest(&self, caller: &Caller, limit: usize) -> Vec<DeadLetter> {
        let letters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = letters
            .iter()
            .rev()
            .filter(|letter| caller.owns_key(letter.key.as_deref().unwrap_or_default()));
        own.take(limit).cloned().collect()
    }
}
