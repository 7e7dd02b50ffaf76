//! btrfs, from the on-disk format of its documentation: subvolumes, all compressions, several
//! devices.
//!
//! Nodes are verified when they are read and kept within a bound; nothing else is.

mod chunk;
mod compress;
mod items;
mod lzo;
mod subvolumes;
mod sum;
mod superblock;
mod tree;

use super::kept::Kept;
use super::{DirEntry, FileSystem, FileSystemFacts, Metadata, NodeId, NodeKind, Subvolume};
use crate::bytes::{Record, narrow, wide};
use crate::error::{DiskError, Result};
use crate::read_at::Layer;
use chunk::Chunks;
use items::{Data, Extent, kind};
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use subvolumes::name_hash;
use superblock::{Root, SuperBlock};
pub(crate) use superblock::{membership, recognise};
use tree::{Key, Trees};

/// Inode of the root directory of every subvolume.
const ROOT_DIRECTORY: u64 = 256;
/// What a snapshot shows where the original has a subvolume: an empty directory.
const EMPTY_DIRECTORY: u64 = 2;
/// Node ids carry the tree in the upper 16 bits and the inode in the lower 48.
const INODE_BITS: u32 = 48;
const TREES_MAX: usize = 1 << 16;
/// Metadata of inodes kept.
const INODES_KEPT: usize = 4096;
/// Bytes of decompressed extents kept: a few, for files that are read in pieces.
const EXTENTS_KEPT: usize = 1 << 20;
/// Entries of one directory.
const ENTRIES_MAX: u64 = 12_000_000;
/// `PATH_MAX`.
const SYMLINK_MAX: u64 = 4096;

/// A btrfs file system.
pub struct Btrfs {
    trees: Trees,
    facts: FileSystemFacts,
    default: u64,
    root: NodeId,
    open: Mutex<Open>,
    inodes: Kept<NodeId, Metadata>,
    extents: Kept<(u64, u64), Arc<Vec<u8>>>,
}

/// Subvolumes met so far, by the number that node ids carry.
#[derive(Default)]
struct Open {
    trees: Vec<(u64, Root)>,
    numbers: HashMap<u64, u64>,
}

/// Facts of a btrfs file system, also of one that [`Btrfs::open`] refuses.
///
/// # Errors
/// `Corrupt` when the superblock is damaged.
pub fn facts(device: &Layer) -> Result<FileSystemFacts> {
    Ok(SuperBlock::read(device.as_ref())?.facts())
}

impl Btrfs {
    /// Opens the file system of one device; one of several serves where the others only mirror it.
    ///
    /// # Errors
    /// As [`Btrfs::open_devices`].
    pub fn open(device: Layer) -> Result<Self> {
        Self::open_devices(vec![device])
    }

    /// Opens a file system that lies on several devices, of which some may be missing.
    ///
    /// # Errors
    /// `Corrupt` when the superblock, the chunk tree or the default subvolume is damaged;
    /// `Unsupported` with the name of an incompatible feature or of a missing device.
    pub fn open_devices(devices: Vec<Layer>) -> Result<Self> {
        let mut newest: Option<SuperBlock> = None;
        let mut by_id = BTreeMap::new();
        for device in devices {
            let sb = SuperBlock::read(device.as_ref())?;
            by_id.entry(sb.device_id).or_insert(device);
            let older = newest
                .as_ref()
                .is_some_and(|n| n.root.generation >= sb.root.generation);
            if !older {
                newest = Some(sb);
            }
        }
        let sb = newest.ok_or_else(|| DiskError::NotFound {
            what: "btrfs device".into(),
        })?;
        sb.refuse()?;
        let mut facts = sb.facts();
        if sb.has_log {
            facts.warnings.push(
                "the log tree is not replayed: what was last synced file by file may be older"
                    .to_owned(),
            );
        }
        if wide(by_id.len()) < sb.devices {
            facts.warnings.push(format!(
                "{} of {} devices are here",
                by_id.len(),
                sb.devices
            ));
        }
        let mut fs = Self {
            trees: Trees::new(system_chunks(by_id, &sb)?, sb),
            facts,
            default: subvolumes::TOP,
            root: NodeId(0),
            open: Mutex::default(),
            inodes: Kept::new(INODES_KEPT),
            extents: Kept::new(EXTENTS_KEPT),
        };
        fs.read_chunks()?;
        fs.default = fs.default_id()?;
        fs.root = fs.subvolume_root(fs.default)?;
        if fs.metadata(fs.root)?.kind != NodeKind::Directory {
            return Err(fs.corrupt(fs.root, "the root is no directory"));
        }
        Ok(fs)
    }

    /// The chunk tree maps everything else; it lies in the chunks that the superblock carries.
    fn read_chunks(&mut self) -> Result<()> {
        let root = self.trees.sb.chunk_root;
        let mut found = Vec::new();
        let from = Key::new(ROOT_DIRECTORY, kind::CHUNK, 0);
        self.trees.walk(&root, from, &mut |item| {
            if item.key.object != ROOT_DIRECTORY || item.key.kind != kind::CHUNK {
                return Ok(ControlFlow::Break(()));
            }
            found.push((item.key.offset, item.record().bytes().to_vec()));
            Ok(ControlFlow::Continue(()))
        })?;
        for (logical, raw) in found {
            let r = Record::new("btrfs chunk", logical, &raw);
            self.trees.chunks.add(logical, &r, 0)?;
        }
        Ok(())
    }

    fn subvolume_root(&self, id: u64) -> Result<NodeId> {
        let number = self.number_of(id)?;
        Ok(NodeId(number << INODE_BITS | ROOT_DIRECTORY))
    }

    /// The number of a subvolume in node ids.
    fn number_of(&self, id: u64) -> Result<u64> {
        let known = self.with_open(|open| open.numbers.get(&id).copied());
        if let Some(number) = known {
            return Ok(number);
        }
        // The newest root of the id: offsets of root items are generations of snapshots.
        let last = Key::new(id, kind::ROOT, u64::MAX);
        let item = self.trees.last_at_most(&self.trees.sb.root, &last)?;
        let Some(item) = item.filter(|i| i.key.object == id && i.key.kind == kind::ROOT) else {
            return Err(DiskError::Corrupt {
                structure: "btrfs root tree",
                position: self.trees.sb.root.address,
                problem: format!("no subvolume {id}"),
            });
        };
        let root = items::root(&item.record())?.root;
        self.with_open(|open| {
            if open.trees.len() >= TREES_MAX {
                return Err(DiskError::OverBudget {
                    budget: format!("{TREES_MAX} btrfs subvolumes"),
                });
            }
            let number = wide(open.trees.len());
            open.trees.push((id, root));
            open.numbers.insert(id, number);
            Ok(number)
        })
    }

    fn with_open<T>(&self, act: impl FnOnce(&mut Open) -> T) -> T {
        act(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Subvolume id, its tree and the inode of a node.
    fn place(&self, node: NodeId) -> Result<(u64, Root, u64)> {
        let number = narrow(node.0 >> INODE_BITS);
        let inode = node.0 & ((1 << INODE_BITS) - 1);
        let found = self.with_open(|open| open.trees.get(number).copied());
        match found {
            Some((id, root)) => Ok((id, root, inode)),
            None => Err(self.corrupt(node, "no such tree")),
        }
    }

    fn corrupt(&self, node: NodeId, problem: &str) -> DiskError {
        DiskError::Corrupt {
            structure: "btrfs inode",
            position: node.0 & ((1 << INODE_BITS) - 1),
            problem: problem.to_owned(),
        }
    }

    /// The node that a directory entry of `dir` leads to.
    fn target(&self, dir: NodeId, target: &Key, name: &[u8]) -> Result<NodeId> {
        let (parent, _, inode) = self.place(dir)?;
        let tree = dir.0 >> INODE_BITS << INODE_BITS;
        if target.kind == kind::ROOT {
            return if self.hangs_in(parent, target.object, inode, name)? {
                self.subvolume_root(target.object)
            } else {
                Ok(NodeId(tree | EMPTY_DIRECTORY))
            };
        }
        if target.kind != kind::INODE || target.object >> INODE_BITS != 0 {
            return Err(self.corrupt(dir, "an entry that leads nowhere"));
        }
        Ok(NodeId(tree | target.object))
    }

    fn is_empty_directory(node: NodeId) -> bool {
        node.0 & ((1 << INODE_BITS) - 1) == EMPTY_DIRECTORY
    }

    /// The extent that covers `position`, or where the next one begins.
    fn extent_at(
        &self,
        root: &Root,
        inode: u64,
        position: u64,
    ) -> Result<std::result::Result<Extent, u64>> {
        let key = Key::new(inode, kind::EXTENT_DATA, position);
        let is_data = |key: &Key| key.object == inode && key.kind == kind::EXTENT_DATA;
        if let Some(item) = self.trees.last_at_most(root, &key)?
            && is_data(&item.key)
        {
            let extent = items::extent(item.key.offset, &item.record())?;
            if position < extent.start.saturating_add(extent.len) {
                return Ok(Ok(extent));
            }
        }
        let next = self.trees.first_from(root, &key)?;
        let next = next.filter(|item| is_data(&item.key) && item.key.offset > position);
        Ok(Err(next.map_or(u64::MAX, |item| item.key.offset)))
    }

    /// The whole of a compressed extent.
    fn decompressed(&self, extent: &Extent, address: u64, stored: u64) -> Result<Arc<Vec<u8>>> {
        let key = (address, stored);
        if let Some(known) = self.extents.get(&key) {
            return Ok(known);
        }
        let mut raw = vec![0; narrow(stored.min(wide(compress::EXTENT_MAX)))];
        self.trees.chunks.read(address, &mut raw, 0)?;
        let whole = Arc::new(compress::decompress(
            extent.compression,
            &raw,
            narrow(extent.ram),
            self.trees.sb.sector_size,
            address,
        )?);
        self.extents.insert(key, Arc::clone(&whole), whole.len());
        Ok(whole)
    }

    /// Fills `buf` with bytes of an extent from `skip` on.
    fn read_extent(&self, extent: &Extent, skip: u64, buf: &mut [u8]) -> Result<()> {
        match &extent.data {
            Data::Hole => {
                buf.fill(0);
                Ok(())
            }
            Data::Inline(stored) if extent.compression == 0 => {
                copy_padded(stored, skip, buf);
                Ok(())
            }
            Data::Inline(stored) => {
                let whole = compress::decompress(
                    extent.compression,
                    stored,
                    narrow(extent.ram),
                    self.trees.sb.sector_size,
                    extent.start,
                )?;
                copy_padded(&whole, skip, buf);
                Ok(())
            }
            Data::Extent {
                address,
                stored,
                offset,
            } => {
                let from = offset.saturating_add(skip);
                if extent.compression == 0 {
                    let at = address.saturating_add(from);
                    return self.trees.chunks.read(at, buf, 0).map(|_| ());
                }
                let whole = self.decompressed(extent, *address, *stored)?;
                copy_padded(&whole, from, buf);
                Ok(())
            }
        }
    }

    fn read_content(&self, node: NodeId, position: u64, buf: &mut [u8]) -> Result<()> {
        let (_, root, inode) = self.place(node)?;
        let mut at = position;
        let mut rest = buf;
        while !rest.is_empty() {
            let found = self.extent_at(&root, inode, at)?;
            let past = match &found {
                Ok(extent) => extent.start.saturating_add(extent.len),
                Err(next) => *next,
            };
            let len = narrow(past.saturating_sub(at)).clamp(1, rest.len());
            let (head, tail) = rest.split_at_mut(len);
            match &found {
                Ok(extent) => {
                    self.read_extent(extent, at.saturating_sub(extent.start), head)?;
                }
                Err(_) => head.fill(0),
            }
            at = at.saturating_add(wide(len));
            rest = tail;
        }
        Ok(())
    }
}

fn copy_padded(from: &[u8], skip: u64, buf: &mut [u8]) {
    let from = from.get(narrow(skip)..).unwrap_or_default();
    let len = from.len().min(buf.len());
    let (head, tail) = buf.split_at_mut(len);
    head.copy_from_slice(from.get(..len).unwrap_or_default());
    tail.fill(0);
}

fn system_chunks(devices: BTreeMap<u64, Layer>, sb: &SuperBlock) -> Result<Chunks> {
    let mut chunks = Chunks::new(devices);
    let r = Record::new("btrfs system chunks", 0, &sb.system_chunks);
    let mut at = 0usize;
    // A chunk takes more than 60 bytes, so the array bounds the loop.
    while at < sb.system_chunks.len() {
        let key = Key::read(&r, at)?;
        if key.kind != kind::CHUNK {
            return Err(r.corrupt(at, format!("an item of kind {}", key.kind)));
        }
        at = at.saturating_add(17);
        at = at.saturating_add(chunks.add(key.offset, &r, at)?);
    }
    Ok(chunks)
}

impl FileSystem for Btrfs {
    fn facts(&self) -> &FileSystemFacts {
        &self.facts
    }

    fn root(&self) -> NodeId {
        self.root
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        if let Some(known) = self.inodes.get(&node) {
            return Ok(known);
        }
        if Self::is_empty_directory(node) {
            return Ok(Metadata {
                kind: NodeKind::Directory,
                size: 0,
                mode: 0o755,
                uid: 0,
                gid: 0,
                mtime: 0,
                links: 1,
            });
        }
        let (_, root, inode) = self.place(node)?;
        let key = Key::new(inode, kind::INODE, 0);
        let Some(item) = self.trees.get(&root, &key)? else {
            return Err(self.corrupt(node, "no inode item"));
        };
        let metadata = items::inode(&item.record())?;
        self.inodes.insert(node, metadata.clone(), 1);
        Ok(metadata)
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        if self.metadata(dir)?.kind != NodeKind::Directory {
            return Err(self.corrupt(dir, "no directory"));
        }
        let (_, root, inode) = self.place(dir)?;
        let key = Key::new(inode, kind::DIR_ITEM, name_hash(name));
        let Some(item) = self.trees.get(&root, &key)? else {
            return Ok(None);
        };
        let r = item.record();
        for entry in items::named(&r)? {
            if entry.name == name {
                return self.target(dir, &entry.target, name).map(Some);
            }
        }
        Ok(None)
    }

    fn read_dir(
        &self,
        dir: NodeId,
        visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<()> {
        if self.metadata(dir)?.kind != NodeKind::Directory {
            return Err(self.corrupt(dir, "no directory"));
        }
        let (_, root, inode) = self.place(dir)?;
        let mut entries = 0u64;
        let from = Key::new(inode, kind::DIR_INDEX, 0);
        self.trees.walk(&root, from, &mut |item| {
            if item.key.object != inode || item.key.kind != kind::DIR_INDEX {
                return Ok(ControlFlow::Break(()));
            }
            let r = item.record();
            for entry in items::named(&r)? {
                entries = entries.saturating_add(1);
                if entries > ENTRIES_MAX {
                    return Err(DiskError::OverBudget {
                        budget: format!("{ENTRIES_MAX} directory entries"),
                    });
                }
                let entry = DirEntry {
                    name: entry.name.to_vec(),
                    node: self.target(dir, &entry.target, entry.name)?,
                    kind: entry.kind,
                };
                if visit(entry).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn read_file_at(&self, node: NodeId, position: u64, buf: &mut [u8]) -> Result<usize> {
        let metadata = self.metadata(node)?;
        if metadata.kind != NodeKind::File {
            return Err(self.corrupt(node, "no regular file"));
        }
        let len = narrow(metadata.size.saturating_sub(position)).min(buf.len());
        let (wanted, _) = buf.split_at_mut(len);
        self.read_content(node, position, wanted)?;
        Ok(len)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let metadata = self.metadata(node)?;
        if metadata.kind != NodeKind::Symlink || metadata.size > SYMLINK_MAX {
            return Err(self.corrupt(node, "no symbolic link"));
        }
        let mut target = vec![0; narrow(metadata.size)];
        self.read_content(node, 0, &mut target)?;
        Ok(target)
    }

    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let (_, root, inode) = self.place(node)?;
        let key = Key::new(inode, kind::XATTR, name_hash(name));
        let Some(item) = self.trees.get(&root, &key)? else {
            return Ok(None);
        };
        let r = item.record();
        let found = items::named(&r)?.into_iter().find(|n| n.name == name);
        Ok(found.map(|n| n.data.to_vec()))
    }

    fn subvolumes(&self) -> Result<Vec<Subvolume>> {
        self.list_subvolumes()
    }
}
