//! A file: its base record and the ones that extend it.

use super::record::{Attribute, Content, kind};
use super::reparse::Reparse;
use crate::error::DiskError;

/// A file with all its attributes.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) number: u64,
    pub(super) position: u64,
    pub(super) sequence: u16,
    pub(super) directory: bool,
    /// In the order of kind and name.
    pub(super) attributes: Vec<Attribute>,
    pub(super) reparse: Option<Reparse>,
}

/// `$STANDARD_INFORMATION` flags.
pub(super) const READ_ONLY: u32 = 0x1;
pub(super) const HIDDEN: u32 = 0x2;
pub(super) const SYSTEM: u32 = 0x4;
pub(super) const REPARSE: u32 = 0x400;
pub(super) const OFFLINE: u32 = 0x1000;
pub(super) const RECALL: u32 = 0x40_0000;
/// A copy of the record's directory flag, in `$FILE_NAME` only.
pub(super) const DIRECTORY: u32 = 0x1000_0000;

impl Inode {
    /// Index of an attribute.
    pub(super) fn find(&self, kind: u32, name: &[u8]) -> Option<usize> {
        self.attributes.iter().position(|a| a.is(kind, name))
    }

    pub(super) fn attribute(&self, index: usize) -> Option<&Attribute> {
        self.attributes.get(index)
    }

    /// Value of a resident attribute.
    pub(super) fn resident(&self, kind: u32, name: &[u8]) -> Option<&[u8]> {
        match &self.attribute(self.find(kind, name)?)?.content {
            Content::Resident(value) => Some(value),
            Content::Clusters(_) => None,
        }
    }

    /// File attributes (read-only, system, …).
    pub(super) fn flags(&self) -> u32 {
        let field = self
            .resident(kind::STANDARD_INFORMATION, b"")
            .and_then(|value| value.get(0x20..0x24));
        field.map_or(0, |raw| {
            raw.iter().rev().fold(0, |n, b| (n << 8) | u32::from(*b))
        })
    }

    /// Last change of content, in seconds since 1970.
    pub(super) fn mtime(&self) -> i64 {
        let field = self
            .resident(kind::STANDARD_INFORMATION, b"")
            .and_then(|value| value.get(8..16));
        let ticks = field.map_or(0u64, |raw| {
            raw.iter().rev().fold(0, |n, b| (n << 8) | u64::from(*b))
        });
        // 100 nanoseconds since 1601.
        i64::try_from(ticks / 10_000_000)
            .unwrap_or(0)
            .saturating_sub(11_644_473_600)
    }

    /// Names, without the short ones that stand beside a long one.
    pub(super) fn links(&self) -> u32 {
        let names = self.attributes.iter().filter(|a| match &a.content {
            Content::Resident(value) => a.kind == kind::FILE_NAME && value.get(0x41) != Some(&2),
            Content::Clusters(_) => false,
        });
        u32::try_from(names.count()).unwrap_or(u32::MAX)
    }

    /// What the attributes take in a cache, about.
    pub(super) fn weight(&self) -> usize {
        self.attributes.iter().fold(128, |sum, a| {
            let content = match &a.content {
                Content::Resident(value) => value.len(),
                Content::Clusters(clusters) => clusters.runs.count().saturating_mul(24),
            };
            sum.saturating_add(content).saturating_add(128)
        })
    }

    /// A `Corrupt` error about this file.
    pub(super) fn corrupt(&self, problem: impl std::fmt::Display) -> DiskError {
        DiskError::Corrupt {
            structure: "NTFS FILE record",
            position: self.position,
            problem: format!("file {}: {problem}", self.number),
        }
    }
}
