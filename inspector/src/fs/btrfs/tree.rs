//! Trees: nodes that are verified once and kept, and searches through them.

use super::chunk::Chunks;
use super::superblock::{Root, SuperBlock};
use crate::bytes::{Record, size};
use crate::error::{DiskError, Result};
use crate::fs::kept::Kept;
use std::ops::ControlFlow;
use std::sync::Arc;

const HEADER: usize = 101;
const KEY: usize = 17;
const ITEM: usize = 25;
const POINTER: usize = 33;
/// `BTRFS_MAX_LEVEL`.
const LEVELS: u8 = 8;
/// Bytes of nodes kept: the trees of a usual guest, whole.
const NODES_KEPT: usize = 6 << 20;
/// Copies of a block: raid1c4 has four.
const MIRRORS_MAX: usize = 4;

/// A key; ordered as trees are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) object: u64,
    pub(super) kind: u8,
    pub(super) offset: u64,
}

impl Key {
    pub(super) fn new(object: u64, kind: u8, offset: u64) -> Self {
        Self {
            object,
            kind,
            offset,
        }
    }

    pub(super) fn read(r: &Record<'_>, at: usize) -> Result<Self> {
        Ok(Self {
            object: r.u64_le(at)?,
            kind: r.u8(at.saturating_add(8))?,
            offset: r.u64_le(at.saturating_add(9))?,
        })
    }
}

/// A verified node: keys rise, items lie within it.
struct Node {
    raw: Vec<u8>,
    address: u64,
    level: u8,
    generation: u64,
    count: usize,
}

/// What a search came to.
pub(super) struct Item {
    pub(super) key: Key,
    node: Arc<Node>,
    start: usize,
    len: usize,
}

impl Item {
    pub(super) fn record(&self) -> Record<'_> {
        let past = self.start.saturating_add(self.len);
        let bytes = self.node.raw.get(self.start..past).unwrap_or_default();
        Record::new("btrfs item", self.node.address, bytes)
    }
}

impl Node {
    fn parse(raw: Vec<u8>, address: u64, sb: &SuperBlock) -> Result<Self> {
        let r = Record::new("btrfs node", address, &raw);
        if !sb.sum.holds(&raw) {
            return Err(r.corrupt(0, "checksum does not match"));
        }
        if r.u64_le(48)? != address || r.array::<16>(32)? != sb.metadata_uuid {
            return Err(r.corrupt(48, format!("says it is at {}", r.u64_le(48)?)));
        }
        let (count, level) = (size(r.u32_le(96)?), r.u8(100)?);
        let width = if level == 0 { ITEM } else { POINTER };
        if level >= LEVELS || count.saturating_mul(width) > raw.len().saturating_sub(HEADER) {
            return Err(r.corrupt(96, format!("{count} items, level {level}")));
        }
        let mut last = None;
        for i in 0..count {
            let at = HEADER.saturating_add(i.saturating_mul(width));
            let key = Key::read(&r, at)?;
            if last.is_some_and(|last| key <= last) {
                return Err(r.corrupt(at, format!("key {i} is not above the one before")));
            }
            last = Some(key);
            if level == 0 {
                let (start, len) = bounds(&r, at)?;
                r.slice(start, len)?;
            }
        }
        let generation = r.u64_le(80)?;
        Ok(Self {
            raw,
            address,
            level,
            generation,
            count,
        })
    }

    fn record(&self) -> Record<'_> {
        Record::new("btrfs node", self.address, &self.raw)
    }

    fn slot_at(&self, slot: usize) -> usize {
        let width = if self.level == 0 { ITEM } else { POINTER };
        HEADER.saturating_add(slot.saturating_mul(width))
    }

    fn key(&self, slot: usize) -> Result<Key> {
        Key::read(&self.record(), self.slot_at(slot))
    }

    /// The first slot whose key is at least `key`.
    fn lower_bound(&self, key: &Key) -> Result<usize> {
        let (mut low, mut high) = (0usize, self.count);
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle)? < *key {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The last slot whose key is at most `key`.
    fn last_at_most(&self, key: &Key) -> Result<Option<usize>> {
        let bound = self.lower_bound(key)?;
        if bound < self.count && self.key(bound)? == *key {
            return Ok(Some(bound));
        }
        Ok(bound.checked_sub(1))
    }
}

fn bounds(r: &Record<'_>, at: usize) -> Result<(usize, usize)> {
    let start = HEADER.saturating_add(size(r.u32_le(at.saturating_add(KEY))?));
    Ok((start, size(r.u32_le(at.saturating_add(21))?)))
}

/// Reads trees over chunks.
pub(super) struct Trees {
    pub(super) chunks: Chunks,
    pub(super) sb: SuperBlock,
    nodes: Kept<u64, Arc<Node>>,
}

impl Trees {
    pub(super) fn new(chunks: Chunks, sb: SuperBlock) -> Self {
        Self {
            chunks,
            sb,
            nodes: Kept::new(NODES_KEPT),
        }
    }

    /// The node at an address, from the first copy that holds.
    fn node(&self, address: u64, level: u8, generation: u64) -> Result<Arc<Node>> {
        let node = match self.nodes.get(&address) {
            Some(node) => node,
            None => self.read_node(address, generation)?,
        };
        if node.level != level || node.generation != generation {
            return Err(node.record().corrupt(
                80,
                format!(
                    "level {} of generation {}, expected {level} of {generation}",
                    node.level, node.generation
                ),
            ));
        }
        Ok(node)
    }

    fn read_node(&self, address: u64, generation: u64) -> Result<Arc<Node>> {
        let mut damage = None;
        for mirror in 0..MIRRORS_MAX {
            let mut raw = vec![0; self.sb.node_size];
            match self.chunks.read(address, &mut raw, mirror) {
                Ok(true) => {}
                Ok(false) => break,
                Err(e @ (DiskError::OverBudget { .. } | DiskError::Io { .. })) => return Err(e),
                Err(e) => {
                    damage.get_or_insert(e);
                    continue;
                }
            }
            match Node::parse(raw, address, &self.sb) {
                Ok(node) if node.generation == generation => {
                    let node = Arc::new(node);
                    self.nodes
                        .insert(address, Arc::clone(&node), self.sb.node_size);
                    return Ok(node);
                }
                Ok(node) => {
                    let stale = node.record().corrupt(
                        80,
                        format!("generation {}, expected {generation}", node.generation),
                    );
                    damage.get_or_insert(stale);
                }
                Err(e) => {
                    damage.get_or_insert(e);
                }
            }
        }
        Err(damage.unwrap_or(DiskError::Corrupt {
            structure: "btrfs node",
            position: address,
            problem: "no copy of it".into(),
        }))
    }

    /// The leaf that would hold `key`, and the first key of what lies right of it.
    ///
    /// Each child's first key must be the one its parent names. So no child can be entered twice,
    /// and a walk over the leaves ends.
    fn descend(&self, root: &Root, key: &Key) -> Result<(Arc<Node>, Option<Key>)> {
        let mut node = self.node(root.address, root.level, root.generation)?;
        let mut right = None;
        while let Some(below) = node.level.checked_sub(1) {
            let slot = node.last_at_most(key)?.unwrap_or(0);
            let next = slot.saturating_add(1);
            if next < node.count {
                right = Some(node.key(next)?);
            }
            let at = node.slot_at(slot);
            let r = node.record();
            let first = node.key(slot)?;
            let (address, generation) = (
                r.u64_le(at.saturating_add(KEY))?,
                r.u64_le(at.saturating_add(KEY).saturating_add(8))?,
            );
            let child = self.node(address, below, generation)?;
            if child.count == 0 || child.key(0)? != first {
                return Err(child.record().corrupt(HEADER, "not the first key expected"));
            }
            if let Some(right) = right
                && child.key(child.count.saturating_sub(1))? >= right
            {
                return Err(child.record().corrupt(HEADER, "keys pass the next node's"));
            }
            node = child;
        }
        Ok((node, right))
    }

    fn item(node: &Arc<Node>, slot: usize) -> Result<Item> {
        let r = node.record();
        let at = node.slot_at(slot);
        let (start, len) = bounds(&r, at)?;
        Ok(Item {
            key: Key::read(&r, at)?,
            node: Arc::clone(node),
            start,
            len,
        })
    }

    /// The item with exactly this key.
    pub(super) fn get(&self, root: &Root, key: &Key) -> Result<Option<Item>> {
        let item = self.last_at_most(root, key)?;
        Ok(item.filter(|item| item.key == *key))
    }

    /// The last item whose key is at most `key`.
    pub(super) fn last_at_most(&self, root: &Root, key: &Key) -> Result<Option<Item>> {
        let (leaf, _) = self.descend(root, key)?;
        match leaf.last_at_most(key)? {
            Some(slot) => Self::item(&leaf, slot).map(Some),
            None => Ok(None),
        }
    }

    /// The first item whose key is at least `key`.
    pub(super) fn first_from(&self, root: &Root, key: &Key) -> Result<Option<Item>> {
        let mut found = None;
        self.walk(root, *key, &mut |item| {
            found = Some(item);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// Calls `visit` for every item from `from` on, in order, until it breaks.
    pub(super) fn walk(
        &self,
        root: &Root,
        from: Key,
        visit: &mut dyn FnMut(Item) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut from = from;
        loop {
            let (leaf, right) = self.descend(root, &from)?;
            for slot in leaf.lower_bound(&from)?..leaf.count {
                if visit(Self::item(&leaf, slot)?)?.is_break() {
                    return Ok(());
                }
            }
            match right {
                Some(right) if right > from => from = right,
                _ => return Ok(()),
            }
        }
    }
}
