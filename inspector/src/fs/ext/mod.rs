//! ext2, ext3 and ext4, from the kernel's on-disk layout documentation.
//!
//! Nothing of the file system is kept in memory but small caches; a journal that waits to be
//! replayed is an overlay over the device.

mod dir;
mod features;
mod htree;
mod inode;
mod journal;
mod map;
mod superblock;
mod xattr;

use super::{DirEntry, FileSystem, FileSystemFacts, Metadata, NodeId, NodeKind};
use crate::bytes::{narrow, read_vec, wide};
use crate::error::{DiskError, Result};
use crate::read_at::Layer;
use inode::{BLOCK_BYTES, Inode, flag};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use superblock::SuperBlock;
pub(crate) use superblock::recognise;

const ROOT_INODE: u64 = 2;
/// Inodes kept; the cache is emptied when it is full.
const INODES_KEPT: usize = 2048;
/// Directory entries kept over all directories; emptied when full. About 60 bytes each.
const ENTRIES_KEPT: usize = 32_768;
/// From this many blocks on, a name is looked up by its hash instead of by reading them all.
const HTREE_BLOCKS: u64 = 4;
/// Entries of one directory: the largest htree without `large_dir` holds some 12 million.
const ENTRIES_MAX: u64 = 12_000_000;
/// Target of a symbolic link: PATH_MAX.
const SYMLINK_MAX: u64 = 4096;

/// An ext2, ext3 or ext4 file system.
pub struct Ext {
    device: Layer,
    sb: SuperBlock,
    facts: FileSystemFacts,
    caches: Mutex<Caches>,
}

#[derive(Default)]
struct Caches {
    inodes: HashMap<u32, Arc<Inode>>,
    directories: HashMap<u32, Arc<HashMap<Vec<u8>, NodeId>>>,
    entries: usize,
}

/// Facts of an ext file system, also of one that [`Ext::open`] refuses.
///
/// # Errors
/// `Corrupt` when the superblock is damaged.
pub fn facts(device: &Layer) -> Result<FileSystemFacts> {
    Ok(SuperBlock::read(device.as_ref())?.facts())
}

impl Ext {
    /// Opens the file system of a device, replaying its journal in memory when it has to be.
    ///
    /// # Errors
    /// `Corrupt` when the superblock or the root directory is damaged; `Unsupported` with the name
    /// of an incompatible feature.
    pub fn open(device: Layer) -> Result<Self> {
        let mut sb = SuperBlock::read(device.as_ref())?;
        if let Some(feature) = sb.features.unread() {
            return Err(DiskError::Unsupported {
                feature: format!("{} feature {feature}", sb.features.fs_type()),
            });
        }
        let mut facts = sb.facts();
        let mut device = device;
        if sb.needs_recovery() {
            match journal::replay(&device, &sb) {
                Ok(replayed) => {
                    device = replayed;
                    // The journal may hold a newer superblock.
                    if let Ok(newer) = SuperBlock::read(device.as_ref()) {
                        sb = newer;
                    }
                }
                Err(e @ (DiskError::Corrupt { .. } | DiskError::Unsupported { .. })) => {
                    facts.warnings.push(format!("journal not replayed: {e}"));
                }
                Err(e) => return Err(e),
            }
        }
        let ext = Self {
            device,
            sb,
            facts,
            caches: Mutex::default(),
        };
        let root = ext.inode(NodeId(ROOT_INODE))?;
        if root.metadata.kind != NodeKind::Directory {
            return Err(root.corrupt("the root is no directory"));
        }
        Ok(ext)
    }

    fn inode(&self, node: NodeId) -> Result<Arc<Inode>> {
        let number = u32::try_from(node.0).unwrap_or(0);
        let known = self.with_caches(|c| c.inodes.get(&number).cloned());
        if let Some(inode) = known {
            return Ok(inode);
        }
        let inode = Arc::new(Inode::read(self.device.as_ref(), &self.sb, number)?);
        self.with_caches(|c| {
            if c.inodes.len() >= INODES_KEPT {
                c.inodes.clear();
            }
            c.inodes.insert(number, Arc::clone(&inode));
        });
        Ok(inode)
    }

    fn with_caches<T>(&self, act: impl FnOnce(&mut Caches) -> T) -> T {
        act(&mut self.caches.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads from an inode's content, whatever its kind; the range lies within its size.
    fn read_content(&self, inode: &Inode, position: u64, buf: &mut [u8]) -> Result<()> {
        if inode.has(flag::INLINE_DATA) {
            let data = self.inline(inode)?;
            let from = data.get(narrow(position)..).unwrap_or_default();
            let len = from.len().min(buf.len());
            let (head, tail) = buf.split_at_mut(len);
            head.copy_from_slice(from.get(..len).unwrap_or_default());
            tail.fill(0);
            return Ok(());
        }
        let block_size = self.sb.block_size;
        let mut at = position;
        let mut rest = buf;
        while !rest.is_empty() {
            let block = at.checked_div(block_size).unwrap_or(0);
            let skip = at.checked_rem(block_size).unwrap_or(0);
            let run = map::run_at(self.device.as_ref(), &self.sb, inode, block)?;
            let room = run.len.saturating_mul(block_size).saturating_sub(skip);
            let len = narrow(room).min(rest.len());
            let (head, tail) = rest.split_at_mut(len);
            match run.physical {
                None => head.fill(0),
                Some(first) => {
                    let start = first.saturating_mul(block_size).saturating_add(skip);
                    self.device.read_exact_at(start, head)?;
                }
            }
            at = at.saturating_add(wide(len));
            rest = tail;
        }
        Ok(())
    }

    /// All inline data of an inode: `i_block`, then the attribute.
    fn inline(&self, inode: &Inode) -> Result<Vec<u8>> {
        let mut data = inode.block.to_vec();
        if inode.metadata.size > wide(BLOCK_BYTES) {
            data.extend(inode.inline_rest(self.device.as_ref(), &self.sb)?);
        }
        Ok(data)
    }

    fn directory(&self, node: NodeId) -> Result<Arc<Inode>> {
        let inode = self.inode(node)?;
        if inode.metadata.kind != NodeKind::Directory {
            return Err(inode.corrupt("no directory"));
        }
        Ok(inode)
    }

    fn typed(&self) -> bool {
        self.sb.features.incompat & features::INCOMPAT_FILETYPE != 0
    }

    /// Inline directories: the parent's number, entries in the rest of `i_block`, then entries in
    /// the attribute.
    fn read_inline_dir(
        &self,
        inode: &Inode,
        visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<()> {
        let head = inode.block.get(4..).unwrap_or_default();
        let position = inode.position.saturating_add(0x2c);
        if dir::entries(head, position, self.typed(), visit)?.is_break() {
            return Ok(());
        }
        if inode.metadata.size <= wide(BLOCK_BYTES) {
            return Ok(());
        }
        let rest = inode.inline_rest(self.device.as_ref(), &self.sb)?;
        dir::entries(&rest, inode.position, self.typed(), visit).map(|_| ())
    }

    /// Reads all blocks in order; htree index blocks look like empty ones. A damaged block costs
    /// its own entries only: the first damage is reported after the rest was visited.
    fn read_blocks_dir(
        &self,
        inode: &Inode,
        visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<()> {
        let block_size = self.sb.block_size;
        let blocks = inode.metadata.size.div_ceil(block_size.max(1));
        let mut damage = None;
        let mut entries = 0u64;
        let mut counted = |entry: DirEntry| {
            entries = entries.saturating_add(1);
            if entries > ENTRIES_MAX {
                return ControlFlow::Break(());
            }
            visit(entry)
        };
        let mut block = 0u64;
        while block < blocks {
            let run = match map::run_at(self.device.as_ref(), &self.sb, inode, block) {
                Ok(run) => run,
                Err(e @ DiskError::Corrupt { .. }) => {
                    damage.get_or_insert(e);
                    break;
                }
                Err(e) => return Err(e),
            };
            let past = block.saturating_add(run.len).min(blocks);
            if let Some(first) = run.physical {
                for (_, physical) in (block..past).zip(first..) {
                    let position = physical.saturating_mul(block_size);
                    let bytes = read_vec(self.device.as_ref(), position, narrow(block_size))?;
                    match dir::entries(&bytes, position, self.typed(), &mut counted) {
                        Ok(ControlFlow::Break(())) => {
                            return self.entries_bound(entries);
                        }
                        Ok(ControlFlow::Continue(())) => {}
                        Err(e) => {
                            damage.get_or_insert(e);
                        }
                    }
                }
            }
            block = past;
        }
        damage.map_or(Ok(()), Err)
    }

    fn entries_bound(&self, entries: u64) -> Result<()> {
        if entries > ENTRIES_MAX {
            return Err(DiskError::OverBudget {
                budget: format!("{ENTRIES_MAX} directory entries"),
            });
        }
        Ok(())
    }

    /// Reads a directory whole and keeps it; answers for one name. Damage does not hide the names
    /// that are there.
    fn lookup_linear(&self, inode: &Inode, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let mut names = HashMap::new();
        let mut found = None;
        let mut whole = true;
        let outcome = self.read_dir(dir, &mut |entry| {
            if entry.name == name {
                found = found.or(Some(entry.node));
            }
            if names.len() < ENTRIES_KEPT {
                names.entry(entry.name).or_insert(entry.node);
            } else {
                // Too large to keep: then only this name matters.
                whole = false;
                if found.is_some() {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        match outcome {
            Ok(()) => {
                if whole {
                    self.keep(inode.number, names);
                }
                Ok(found)
            }
            Err(e) => found.map_or(Err(e), |node| Ok(Some(node))),
        }
    }

    fn keep(&self, directory: u32, names: HashMap<Vec<u8>, NodeId>) {
        self.with_caches(|c| {
            c.entries = c.entries.saturating_add(names.len());
            if c.entries > ENTRIES_KEPT {
                c.directories.clear();
                c.entries = names.len();
            }
            c.directories.insert(directory, Arc::new(names));
        });
    }
}

impl FileSystem for Ext {
    fn facts(&self) -> &FileSystemFacts {
        &self.facts
    }

    fn root(&self) -> NodeId {
        NodeId(ROOT_INODE)
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        Ok(self.inode(node)?.metadata.clone())
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let inode = self.directory(dir)?;
        let known = self.with_caches(|c| c.directories.get(&inode.number).cloned());
        if let Some(names) = known {
            return Ok(names.get(name).copied());
        }
        let blocks = inode
            .metadata
            .size
            .checked_div(self.sb.block_size)
            .unwrap_or(0);
        if blocks >= HTREE_BLOCKS
            && inode.has(flag::INDEX)
            && !inode.has(flag::CASEFOLD | flag::ENCRYPT | flag::INLINE_DATA)
            && let Some(answer) = self.lookup_htree(&inode, name)?
        {
            return Ok(answer);
        }
        self.lookup_linear(&inode, dir, name)
    }

    fn read_dir(
        &self,
        dir: NodeId,
        visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<()> {
        let inode = self.directory(dir)?;
        if inode.has(flag::INLINE_DATA) {
            return self.read_inline_dir(&inode, visit);
        }
        self.read_blocks_dir(&inode, visit)
    }

    fn read_file_at(&self, node: NodeId, position: u64, buf: &mut [u8]) -> Result<usize> {
        let inode = self.inode(node)?;
        if inode.metadata.kind != NodeKind::File {
            return Err(inode.corrupt("no regular file"));
        }
        refuse_unreadable(&inode)?;
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
        refuse_unreadable(&inode)?;
        let size = inode.metadata.size;
        if size > SYMLINK_MAX {
            return Err(inode.corrupt(format!("a link target of {size} bytes")));
        }
        let mut target = vec![0; narrow(size)];
        if inode.is_fast_symlink() {
            target.copy_from_slice(inode.block.get(..narrow(size)).unwrap_or_default());
        } else {
            self.read_content(&inode, 0, &mut target)?;
        }
        Ok(target)
    }

    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let inode = self.inode(node)?;
        let Some((index, rest)) = xattr::split(name) else {
            return Ok(None);
        };
        match xattr::find(self.device.as_ref(), &self.sb, &inode, index, rest)? {
            None => Ok(None),
            Some(xattr::Value::Here(value)) => Ok(Some(value)),
            Some(xattr::Value::Inode { number, len }) => {
                let holder = self.inode(NodeId(u64::from(number)))?;
                if holder.metadata.size < wide(len) || holder.metadata.kind != NodeKind::File {
                    return Err(holder.corrupt(format!("an attribute of {len} bytes")));
                }
                let mut value = vec![0; len];
                self.read_content(&holder, 0, &mut value)?;
                Ok(Some(value))
            }
        }
    }
}

fn refuse_unreadable(inode: &Inode) -> Result<()> {
    let feature = if inode.has(flag::ENCRYPT) {
        "ext4 encrypted file"
    } else if inode.has(flag::COMPRESSED) && !inode.has(flag::EXTENTS) && inode.has(0x4) {
        "ext2 compressed file"
    } else {
        return Ok(());
    };
    Err(DiskError::Unsupported {
        feature: feature.into(),
    })
}
