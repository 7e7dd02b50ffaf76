//! Directory indexes (`$I30`): entries in the root, a B-tree of further blocks, their bitmap.

use super::inode::Inode;
use super::name::units;
use super::record::{fix_up, kind};
use super::{Ntfs, name};
use crate::bytes::{Record, narrow, size, wide};
use crate::error::{DiskError, Result};
use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::sync::Arc;

const NAME: &[u8] = b"$\0I\x003\x000\0";
/// Blocks of one directory: 4 GiB of them.
const BLOCKS_MAX: u64 = 1 << 20;
/// Windows formats 4 KiB; larger clusters make larger blocks.
const BLOCK_SIZES: std::ops::RangeInclusive<u64> = 512..=2 << 20;
/// Levels of the tree: each has at least two children a node.
const DEPTH_MAX: usize = 32;
/// Bits of the bitmap are read in pieces of this many bytes.
const BITMAP_PIECE: u64 = 4096;
const BITMAP_BITS: u64 = BITMAP_PIECE * 8;

/// Name space of a short name that stands beside the long one.
const DOS: u8 = 2;

/// An entry with the fields of `$FILE_NAME` that are used.
pub(super) struct Entry<'a> {
    pub(super) reference: u64,
    pub(super) attributes: u32,
    namespace: u8,
    /// UTF-16LE bytes.
    pub(super) name: &'a [u8],
}

impl Entry<'_> {
    /// Whether listings leave it out: another name of a file that has a long one.
    pub(super) fn is_short(&self) -> bool {
        self.namespace == DOS
    }
}

/// What is told of each entry of a node, and whether to go on.
type Visit<'a> = dyn FnMut(Option<Entry<'_>>, Option<u64>) -> Result<ControlFlow<()>> + 'a;

/// Calls `visit` with each entry of a node (its index header) and the child before it; the last
/// one has a child at most.
fn entries(r: &Record<'_>, header: usize, visit: &mut Visit<'_>) -> Result<ControlFlow<()>> {
    let first = header.saturating_add(size(r.u32_le(header)?));
    let end = header.saturating_add(size(r.u32_le(header.saturating_add(4))?));
    let mut at = first;
    // Entries take 16 bytes at least; the node bounds the loop.
    while at < end {
        let len = usize::from(r.u16_le(at.saturating_add(8))?);
        let flags = r.u16_le(at.saturating_add(0x0c))?;
        let needed = if flags & 1 != 0 { 24 } else { 16 };
        if len < needed {
            return Err(r.corrupt(at, format!("index entry of {len} bytes")));
        }
        let past = at.saturating_add(len);
        let child = if flags & 1 != 0 {
            Some(r.u64_le(past.saturating_sub(8))?)
        } else {
            None
        };
        if flags & 2 != 0 {
            return visit(None, child);
        }
        let name_len = usize::from(r.u8(at.saturating_add(0x50))?).saturating_mul(2);
        let entry = Entry {
            reference: r.u64_le(at)?,
            attributes: r.u32_le(at.saturating_add(0x48))?,
            namespace: r.u8(at.saturating_add(0x51))?,
            name: r.slice(at.saturating_add(0x52), name_len)?,
        };
        if visit(Some(entry), child)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        at = past;
    }
    Ok(ControlFlow::Continue(()))
}

impl Ntfs {
    fn root_node<'a>(&self, dir: &'a Inode) -> Result<(Record<'a>, u64)> {
        let root = dir
            .resident(kind::INDEX_ROOT, NAME)
            .ok_or_else(|| dir.corrupt("no directory"))?;
        let r = Record::new("NTFS index root", dir.position, root);
        let block = u64::from(r.u32_le(8)?);
        if !block.is_power_of_two() || !BLOCK_SIZES.contains(&block) {
            return Err(r.corrupt(8, format!("index blocks of {block} bytes")));
        }
        Ok((r, block))
    }

    /// Calls `visit` with all entries: those of the root, then those of each block in use. The
    /// tree is not followed, so that a damaged block costs its own entries only; the first damage
    /// is reported after the rest was visited.
    pub(super) fn list(
        &self,
        dir: &Inode,
        visit: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let (root, block) = self.root_node(dir)?;
        let mut each =
            |entry: Option<Entry<'_>>, _| Ok(entry.map_or(ControlFlow::Continue(()), &mut *visit));
        if entries(&root, 0x10, &mut each)?.is_break() {
            return Ok(());
        }
        let Some(allocation) = dir.find(kind::INDEX_ALLOCATION, NAME) else {
            return Ok(());
        };
        let blocks = dir
            .attribute(allocation)
            .map_or(0, |a| a.len())
            .checked_div(block)
            .unwrap_or(0);
        if blocks > BLOCKS_MAX {
            return Err(DiskError::OverBudget {
                budget: format!("{BLOCKS_MAX} index blocks of an NTFS directory"),
            });
        }
        let mut damage = None;
        let mut bits = Vec::new();
        for index in 0..blocks {
            let within = index % BITMAP_BITS;
            if within == 0 {
                bits = self.bitmap_piece(dir, index / 8)?;
            }
            let byte = bits.get(narrow(within / 8)).copied().unwrap_or(0);
            if byte
                .checked_shr(u32::try_from(within % 8).unwrap_or(0))
                .unwrap_or(0)
                & 1
                == 0
            {
                continue;
            }
            let outcome = self
                .block(dir, allocation, index.saturating_mul(block), block)
                .and_then(|node| {
                    let r = Record::new("NTFS index block", index.saturating_mul(block), &node);
                    entries(&r, 0x18, &mut each)
                });
            match outcome {
                Ok(ControlFlow::Break(())) => return Ok(()),
                Ok(ControlFlow::Continue(())) => {}
                Err(e @ (DiskError::Corrupt { .. } | DiskError::OutOfBounds { .. })) => {
                    damage.get_or_insert(e);
                }
                Err(e) => return Err(e),
            }
        }
        damage.map_or(Ok(()), Err)
    }

    fn bitmap_piece(&self, dir: &Inode, at: u64) -> Result<Vec<u8>> {
        let bitmap = dir
            .find(kind::BITMAP, NAME)
            .ok_or_else(|| dir.corrupt("index blocks without a bitmap"))?;
        let left = dir
            .attribute(bitmap)
            .map_or(0, |a| a.len())
            .saturating_sub(at);
        let mut piece = vec![0; narrow(left.min(BITMAP_PIECE))];
        self.read_attribute(dir, bitmap, at, &mut piece)?;
        Ok(piece)
    }

    /// An index block at a byte position of the index allocation.
    fn block(&self, dir: &Inode, allocation: usize, at: u64, len: u64) -> Result<Arc<Vec<u8>>> {
        self.blocks.get_or(&(dir.number, at), Vec::len, || {
            let mut bytes = vec![0; narrow(len)];
            let left = dir
                .attribute(allocation)
                .map_or(0, |a| a.len())
                .saturating_sub(at);
            if left < len {
                return Err(dir.corrupt(format!("index block at {at} of the allocation")));
            }
            self.read_attribute(dir, allocation, at, &mut bytes)?;
            fix_up("NTFS index block", b"INDX", at, &mut bytes)?;
            Ok(bytes)
        })
    }

    /// Finds a name, whatever its case; the same case wins where several differ in case only.
    pub(super) fn find_name(&self, dir: &Inode, wanted: &[u8]) -> Result<Option<u64>> {
        let Some(wanted) = name::from_bytes(wanted) else {
            return Ok(None);
        };
        let (root, block) = self.root_node(dir)?;
        let mut similar = None;
        let mut place = self.descend(&root, 0x10, &wanted, &mut similar)?;
        for _ in 0..DEPTH_MAX {
            let vcn = match place {
                Place::Found(reference) => return Ok(Some(reference)),
                Place::Nowhere => return Ok(similar),
                Place::Child(vcn) => vcn,
            };
            let Some(allocation) = dir.find(kind::INDEX_ALLOCATION, NAME) else {
                return Ok(similar);
            };
            // Blocks smaller than a cluster are numbered in units of 512 bytes.
            let unit = if block >= self.boot.cluster {
                self.boot.cluster
            } else {
                512
            };
            let at = vcn.saturating_mul(unit);
            let node = self.block(dir, allocation, at, block)?;
            let r = Record::new("NTFS index block", at, &node);
            place = self.descend(&r, 0x18, &wanted, &mut similar)?;
        }
        Err(dir.corrupt(format!("an index of more than {DEPTH_MAX} levels")))
    }

    fn descend(
        &self,
        r: &Record<'_>,
        header: usize,
        wanted: &[u16],
        similar: &mut Option<u64>,
    ) -> Result<Place> {
        let mut place = Place::Nowhere;
        entries(r, header, &mut |entry, child| {
            let order = match &entry {
                None => Ordering::Less,
                Some(entry) => self.compare(wanted, entry.name)?,
            };
            if let (Some(entry), Ordering::Equal) = (&entry, order) {
                if wide(entry.name.len()) == wide(wanted.len()).saturating_mul(2)
                    && units(entry.name).eq(wanted.iter().copied())
                {
                    place = Place::Found(entry.reference);
                    return Ok(ControlFlow::Break(()));
                }
                similar.get_or_insert(entry.reference);
            }
            // Names that differ in case only are ordered by their units.
            let order = match (&entry, order) {
                (Some(entry), Ordering::Equal) => wanted.iter().copied().cmp(units(entry.name)),
                _ => order,
            };
            if order == Ordering::Less {
                place = child.map_or(Place::Nowhere, Place::Child);
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        })
        .map(|_| ())?;
        Ok(place)
    }

    /// Order without case, as the volume's own table has it.
    fn compare(&self, wanted: &[u16], stored: &[u8]) -> Result<Ordering> {
        let mut left = wanted.iter().copied();
        let mut right = units(stored);
        loop {
            let (a, b) = match (left.next(), right.next()) {
                (None, None) => return Ok(Ordering::Equal),
                (None, Some(_)) => return Ok(Ordering::Less),
                (Some(_), None) => return Ok(Ordering::Greater),
                (Some(a), Some(b)) => (a, b),
            };
            if a == b {
                continue;
            }
            match self.upper(a)?.cmp(&self.upper(b)?) {
                Ordering::Equal => {}
                order => return Ok(order),
            }
        }
    }
}

/// Where a name is, or may be.
enum Place {
    Found(u64),
    Child(u64),
    Nowhere,
}
