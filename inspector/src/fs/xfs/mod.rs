//! XFS of versions 4 and 5, from the kernel's `xfs_format.h`, `xfs_da_format.h` and
//! `xfs_log_format.h`.
//!
//! Nothing of the file system is kept in memory but small caches; a log that waits to be replayed
//! is an overlay over the device.

mod attr;
mod dir;
mod extents;
mod inode;
mod log;
mod superblock;

use super::kept::Kept;
use super::{DirEntry, FileSystem, FileSystemFacts, Metadata, NodeId, NodeKind};
use crate::bytes::{Record, narrow, read_vec, wide};
use crate::error::{DiskError, Result};
use crate::read_at::Layer;
use extents::{Run, run_at};
use inode::{Format, Inode};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use superblock::SuperBlock;
pub(crate) use superblock::recognise;

/// Inodes kept.
const INODES_KEPT: usize = 4096;
/// Directory entries kept over all directories, about 60 bytes each.
const ENTRIES_KEPT: usize = 32_768;
/// Entries of one directory: its data blocks lie in 32 GiB, but ten million is a bomb already.
const ENTRIES_MAX: u64 = 12_000_000;
/// From this many bytes on, a name is looked up by its hash instead of by reading all entries.
const HASHED_BYTES: u64 = 64 << 10;
/// Blocks on the way from a hash to an entry: five levels and some leaves with equal hashes.
const INDEX_BLOCKS_MAX: usize = 16;
/// `XFS_SYMLINK_MAXLEN`.
const SYMLINK_MAX: u64 = 1024;
/// Header of each extent of a remote symlink of version 5.
const SYMLINK_HEADER: usize = 56;

type Names = Arc<HashMap<Vec<u8>, NodeId>>;

/// An XFS file system.
pub struct Xfs {
    device: Layer,
    sb: SuperBlock,
    facts: FileSystemFacts,
    inodes: Kept<u64, Arc<Inode>>,
    directories: Kept<u64, Names>,
}

/// Facts of an XFS file system, also of one that [`Xfs::open`] refuses.
///
/// # Errors
/// `Corrupt` when the superblock is damaged.
pub fn facts(device: &Layer) -> Result<FileSystemFacts> {
    Ok(SuperBlock::read(device.as_ref())?.facts())
}

impl Xfs {
    /// Opens the file system of a device, replaying its log in memory when it has to be.
    ///
    /// # Errors
    /// `Corrupt` when the superblock or the root directory is damaged; `Unsupported` with the name
    /// of an incompatible feature.
    pub fn open(device: Layer) -> Result<Self> {
        let mut sb = SuperBlock::read(device.as_ref())?;
        sb.refuse()?;
        let mut facts = sb.facts();
        let mut device = device;
        match log::replay(&device, &sb) {
            Ok(log::Replayed::Clean) => {}
            Ok(log::Replayed::Overlay { layer, warnings }) => {
                device = layer;
                facts.needs_recovery = true;
                facts.warnings.extend(warnings);
                // The log may hold a newer superblock: a grown file system.
                if let Ok(newer) = SuperBlock::read(device.as_ref()) {
                    sb = newer;
                }
            }
            Err(
                e @ (DiskError::Corrupt { .. }
                | DiskError::Unsupported { .. }
                | DiskError::OutOfBounds { .. }),
            ) => facts.warnings.push(format!("log not replayed: {e}")),
            Err(e) => return Err(e),
        }
        let xfs = Self {
            device,
            sb,
            facts,
            inodes: Kept::new(INODES_KEPT),
            directories: Kept::new(ENTRIES_KEPT),
        };
        let root = xfs.inode(xfs.root())?;
        if root.metadata.kind != NodeKind::Directory {
            return Err(root.corrupt("the root is no directory"));
        }
        Ok(xfs)
    }

    fn inode(&self, node: NodeId) -> Result<Arc<Inode>> {
        if let Some(inode) = self.inodes.get(&node.0) {
            return Ok(inode);
        }
        let inode = Arc::new(Inode::read(self.device.as_ref(), &self.sb, node.0)?);
        self.inodes.insert(node.0, Arc::clone(&inode), 1);
        Ok(inode)
    }

    fn directory(&self, node: NodeId) -> Result<Arc<Inode>> {
        let inode = self.inode(node)?;
        if inode.metadata.kind != NodeKind::Directory {
            return Err(inode.corrupt("no directory"));
        }
        Ok(inode)
    }

    fn run(&self, inode: &Inode, block: u64) -> Result<Run> {
        run_at(
            self.device.as_ref(),
            &self.sb,
            &inode.data,
            inode.position,
            block,
        )
    }

    /// Fills `buf` from the data fork; holes read as zeros.
    fn read_content(&self, inode: &Inode, position: u64, buf: &mut [u8]) -> Result<()> {
        let mut at = position;
        let mut rest = buf;
        while !rest.is_empty() {
            let block = at.checked_shr(self.sb.block_log).unwrap_or(0);
            let skip = at & self.sb.block_size.wrapping_sub(1);
            let run = self.run(inode, block)?;
            let room = run
                .len
                .saturating_mul(self.sb.block_size)
                .saturating_sub(skip);
            let len = narrow(room).min(rest.len());
            let (head, tail) = rest.split_at_mut(len);
            match run.position {
                None => head.fill(0),
                Some(start) => self
                    .device
                    .read_exact_at(start.saturating_add(skip), head)?,
            }
            at = at.saturating_add(wide(len));
            rest = tail;
        }
        Ok(())
    }

    /// Bytes of a directory block.
    fn dir_block_size(&self) -> u64 {
        self.sb
            .block_size
            .checked_shl(self.sb.dir_block_log)
            .unwrap_or(self.sb.block_size)
    }

    /// Reads the directory block that begins at byte `at` of the directory's address space.
    fn dir_block(&self, inode: &Inode, at: u64) -> Result<(u64, Vec<u8>)> {
        let block = at.checked_shr(self.sb.block_log).unwrap_or(0);
        let Some(position) = self.run(inode, block)?.position else {
            return Err(inode.corrupt(format!("directory block at {at} is a hole")));
        };
        let len = narrow(self.dir_block_size());
        if self.sb.dir_block_log == 0 {
            return Ok((position, read_vec(self.device.as_ref(), position, len)?));
        }
        let mut bytes = vec![0; len];
        self.read_content(inode, at, &mut bytes)?;
        Ok((position, bytes))
    }

    /// Reads all data blocks in order. A damaged block costs its own entries only: the first
    /// damage is reported after the rest was visited.
    fn read_blocks_dir(
        &self,
        inode: &Inode,
        visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<()> {
        let size = self.dir_block_size();
        let end = inode.metadata.size.min(dir::LEAF_OFFSET);
        let mut damage = None;
        let mut entries = 0u64;
        let mut counted = |entry: DirEntry| {
            entries = entries.saturating_add(1);
            if entries > ENTRIES_MAX {
                return ControlFlow::Break(());
            }
            visit(entry)
        };
        let mut at = 0u64;
        while at < end {
            let block = at.checked_shr(self.sb.block_log).unwrap_or(0);
            let run = match self.run(inode, block) {
                Ok(run) => run,
                Err(e @ DiskError::Corrupt { .. }) => {
                    damage.get_or_insert(e);
                    break;
                }
                Err(e) => return Err(e),
            };
            if run.position.is_none() {
                // A hole: emptied blocks are given back.
                let past = at.saturating_add(run.len.saturating_mul(self.sb.block_size));
                at = past
                    .checked_div(size)
                    .unwrap_or(0)
                    .saturating_mul(size)
                    .max(at.saturating_add(size));
                continue;
            }
            let (position, bytes) = self.dir_block(inode, at)?;
            match dir::entries(&bytes, position, &self.sb, &mut counted) {
                Ok(ControlFlow::Break(())) => {
                    if entries > ENTRIES_MAX {
                        return Err(DiskError::OverBudget {
                            budget: format!("{ENTRIES_MAX} directory entries"),
                        });
                    }
                    return Ok(());
                }
                Ok(ControlFlow::Continue(())) => {}
                Err(e) => {
                    damage.get_or_insert(e);
                }
            }
            at = at.saturating_add(size);
        }
        damage.map_or(Ok(()), Err)
    }

    /// Goes from the hash of a name through node and leaf blocks to its entry.
    fn lookup_hashed(&self, inode: &Inode, name: &[u8]) -> Result<Option<NodeId>> {
        let hash = dir::hash(name);
        let mut block = dir::LEAF_OFFSET.checked_shr(self.sb.block_log).unwrap_or(0);
        for _ in 0..INDEX_BLOCKS_MAX {
            let at = block.checked_shl(self.sb.block_log).unwrap_or(u64::MAX);
            let (position, bytes) = self.dir_block(inode, at)?;
            match dir::index(&bytes, position, hash)? {
                dir::Index::Child(child) => block = u64::from(child),
                dir::Index::Leaf(addresses, next) => {
                    for address in addresses {
                        let at = u64::from(address).saturating_mul(8);
                        if let Some(node) = self.entry_named(inode, at, name)? {
                            return Ok(Some(node));
                        }
                    }
                    match next {
                        Some(next) => block = u64::from(next),
                        None => return Ok(None),
                    }
                }
            }
        }
        Err(inode.corrupt("the directory's index does not end"))
    }

    fn entry_named(&self, inode: &Inode, at: u64, name: &[u8]) -> Result<Option<NodeId>> {
        let size = self.dir_block_size();
        let start = at.checked_div(size).unwrap_or(0).saturating_mul(size);
        let (position, bytes) = self.dir_block(inode, start)?;
        let r = Record::new("XFS directory block", position, &bytes);
        let (entry, _) = dir::entry_at(&r, narrow(at.saturating_sub(start)), &self.sb)?;
        Ok((entry.name == name).then_some(entry.node))
    }

    /// Reads a directory whole and keeps it; answers for one name. Damage does not hide the names
    /// that are there.
    fn lookup_linear(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let mut names = HashMap::new();
        let mut found = None;
        let outcome = self.read_dir(dir, &mut |entry| {
            if entry.name == name {
                found = found.or(Some(entry.node));
            }
            if names.len() < ENTRIES_KEPT {
                names.entry(entry.name).or_insert(entry.node);
            }
            ControlFlow::Continue(())
        });
        match outcome {
            Ok(()) => {
                if names.len() < ENTRIES_KEPT {
                    let weight = names.len().saturating_add(1);
                    self.directories.insert(dir.0, Arc::new(names), weight);
                }
                Ok(found)
            }
            Err(e) => found.map_or(Err(e), |node| Ok(Some(node))),
        }
    }
}

impl FileSystem for Xfs {
    fn facts(&self) -> &FileSystemFacts {
        &self.facts
    }

    fn root(&self) -> NodeId {
        NodeId(self.sb.root)
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        Ok(self.inode(node)?.metadata.clone())
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let inode = self.directory(dir)?;
        if let Some(names) = self.directories.get(&dir.0) {
            return Ok(names.get(name).copied());
        }
        let local = inode.data.format == Format::Local;
        if !local && inode.metadata.size >= HASHED_BYTES && !self.sb.ascii_ci {
            match self.lookup_hashed(&inode, name) {
                // A damaged index does not hide the names that are there.
                Err(DiskError::Corrupt { .. }) => {}
                answer => return answer,
            }
        }
        self.lookup_linear(dir, name)
    }

    fn read_dir(
        &self,
        dir: NodeId,
        visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<()> {
        let inode = self.directory(dir)?;
        if inode.data.format == Format::Local {
            return dir::short(&inode, &self.sb, visit).map(|_| ());
        }
        self.read_blocks_dir(&inode, visit)
    }

    fn read_file_at(&self, node: NodeId, position: u64, buf: &mut [u8]) -> Result<usize> {
        let inode = self.inode(node)?;
        if inode.metadata.kind != NodeKind::File {
            return Err(inode.corrupt("no regular file"));
        }
        if inode.realtime {
            return Err(DiskError::Unsupported {
                feature: "xfs realtime file".into(),
            });
        }
        let left = inode.metadata.size.saturating_sub(position);
        let len = narrow(left).min(buf.len());
        let (wanted, _) = buf.split_at_mut(len);
        self.read_content(&inode, position, wanted)?;
        Ok(len)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let inode = self.inode(node)?;
        if inode.metadata.kind != NodeKind::Symlink {
            return Err(inode.corrupt("no symbolic link"));
        }
        let size = inode.metadata.size;
        if size > SYMLINK_MAX {
            return Err(inode.corrupt(format!("a link target of {size} bytes")));
        }
        let len = narrow(size);
        if inode.data.format == Format::Local {
            return match inode.data.bytes.get(..len) {
                Some(target) => Ok(target.to_vec()),
                None => Err(inode.corrupt(format!("a link target of {len} bytes in the inode"))),
            };
        }
        let mut target = Vec::new();
        let mut block = 0u64;
        let header = if self.sb.is_v5() { SYMLINK_HEADER } else { 0 };
        // Each extent has one header and gives 456 bytes at least, so the length bounds the loop.
        while target.len() < len {
            let run = self.run(&inode, block)?;
            let left = len.saturating_sub(target.len());
            let room = narrow(run.len.saturating_mul(self.sb.block_size));
            let Some(start) = run.position.filter(|_| room > header) else {
                return Err(inode.corrupt("a link target with a hole"));
            };
            let wanted = left.saturating_add(header).min(room);
            let bytes = read_vec(self.device.as_ref(), start, wanted)?;
            if header > 0 && !bytes.starts_with(b"XSLM") {
                return Err(inode.corrupt("no XSLM magic in an extent of the link"));
            }
            target.extend(bytes.iter().skip(header));
            block = block.saturating_add(run.len);
        }
        Ok(target)
    }

    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let inode = self.inode(node)?;
        attr::value(self.device.as_ref(), &self.sb, &inode, name)
    }
}
