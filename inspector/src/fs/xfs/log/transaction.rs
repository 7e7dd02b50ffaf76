//! From log operations to whole transactions.

use super::record::Header;
use super::{too_much, within};
use crate::bytes::{Record, size};
use crate::error::Result;
use std::collections::BTreeMap;

const HEADER_LEN: usize = 12;
const START: u8 = 0x1;
const COMMIT: u8 = 0x2;
const WAS_CONTINUED: u8 = 0x8;
const UNMOUNT: u8 = 0x20;
/// `th_magic`, in the byte order of the machine.
const TRANSACTION_MAGIC: u32 = 0x5452_414e;
const TRANSACTION_HEADER: usize = 16;
/// Transactions open at once; the kernel keeps a handful.
const OPEN_MAX: usize = 1024;

/// One logged change: a description and its pieces.
#[derive(Default)]
pub(super) struct Item {
    pub(super) regions: Vec<Vec<u8>>,
}

impl Item {
    /// Type and number of regions: the first four bytes of every description.
    fn head(&self) -> Option<(u16, u16)> {
        let first = self.regions.first()?;
        let r = Record::new("XFS log item", 0, first);
        Some((r.u16_le(0).ok()?, r.u16_le(2).ok()?))
    }

    pub(super) fn kind(&self) -> u16 {
        self.head().map_or(0, |(kind, _)| kind)
    }

    fn is_complete(&self) -> bool {
        self.head()
            .is_none_or(|(_, total)| self.regions.len() >= usize::from(total))
    }

    /// A region by its number; empty when there is none.
    pub(super) fn region(&self, index: usize) -> &[u8] {
        self.regions.get(index).map_or(&[], Vec::as_slice)
    }
}

/// A committed transaction.
#[derive(Default)]
pub(super) struct Transaction {
    /// LSN of the record it began in.
    pub(super) lsn: u64,
    pub(super) items: Vec<Item>,
    header: Vec<u8>,
    bytes: usize,
}

impl Transaction {
    fn add(&mut self, data: &[u8], continued: bool) -> Result<()> {
        self.bytes = self
            .bytes
            .saturating_add(data.len())
            .saturating_add(std::mem::size_of::<Vec<u8>>());
        within(self.bytes)?;
        if continued {
            let last = self
                .items
                .last_mut()
                .and_then(|item| item.regions.last_mut());
            match last {
                Some(region) => region.extend_from_slice(data),
                None => self.header.extend_from_slice(data),
            }
            return Ok(());
        }
        if self.header.is_empty() && self.items.is_empty() {
            let r = Record::new("XFS log transaction", 0, data);
            if data.len() >= 4 && r.u32_le(0)? != TRANSACTION_MAGIC {
                return Err(r.corrupt(0, "no transaction magic"));
            }
            self.header = data.to_vec();
            return Ok(());
        }
        if self.header.len() < TRANSACTION_HEADER {
            let r = Record::new("XFS log transaction", 0, &self.header);
            return Err(r.corrupt(0, "a short transaction header"));
        }
        match self.items.last_mut() {
            Some(item) if !item.is_complete() => item.regions.push(data.to_vec()),
            _ => self.items.push(Item {
                regions: vec![data.to_vec()],
            }),
        }
        Ok(())
    }
}

/// Transactions whose commit was not seen yet, by their ids.
#[derive(Default)]
pub(super) struct Assembly {
    open: BTreeMap<u32, Transaction>,
}

impl Assembly {
    /// Takes the operations of a record apart. Calls `each` for every transaction that commits.
    pub(super) fn add(
        &mut self,
        header: &Header,
        data: &[u8],
        each: &mut dyn FnMut(Transaction) -> Result<()>,
    ) -> Result<()> {
        let r = Record::new("XFS log operation", 0, data);
        let mut at = 0usize;
        // An operation takes 12 bytes at least, so the data bounds the loop.
        for _ in 0..header.operations {
            if at >= data.len() {
                break;
            }
            let (id, len, flags) = (
                r.u32_be(at)?,
                size(r.u32_be(at.saturating_add(4))?),
                r.u8(at.saturating_add(9))?,
            );
            let body = r.slice(at.saturating_add(HEADER_LEN), len)?;
            at = at.saturating_add(HEADER_LEN).saturating_add(len);
            if flags & UNMOUNT != 0 {
                continue;
            }
            if flags & START != 0 {
                if self.open.len() >= OPEN_MAX {
                    return Err(too_much());
                }
                self.open.insert(
                    id,
                    Transaction {
                        lsn: header.lsn,
                        ..Transaction::default()
                    },
                );
                continue;
            }
            // Begun before the tail: all of it has reached its place.
            let Some(transaction) = self.open.get_mut(&id) else {
                continue;
            };
            if flags & COMMIT != 0 {
                if let Some(whole) = self.open.remove(&id) {
                    each(whole)?;
                }
            } else {
                transaction.add(body, flags & WAS_CONTINUED != 0)?;
                within(self.open.values().map(|t| t.bytes).sum())?;
            }
        }
        Ok(())
    }
}

/// Whether a record's data begin with an unmount operation. The first word, the operation's id,
/// is stamped over.
pub(super) fn is_unmount(data: &[u8]) -> bool {
    data.get(9).is_some_and(|flags| flags & UNMOUNT != 0)
}
