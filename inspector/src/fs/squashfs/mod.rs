//! squashfs 4.0, from the kernel's documentation and the format description of squashfs-tools-ng.

mod compressor;
mod inode;
mod lzo;
mod meta;
mod xattr;

use super::names::Names;
use super::pieces::Pieces;
use super::{DirEntry, FileSystem, FileSystemFacts, Metadata, NodeId, NodeKind};
use crate::bytes::{Record, narrow, read_upto, read_vec, size, wide};
use crate::error::{DiskError, Result};
use crate::read_at::Layer;
use compressor::Compressor;
use inode::{Body, Inode, NONE};
use meta::{Block, Cursor};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Bytes of metadata, of data blocks, and of names kept.
const META_KEPT: usize = 2 << 20;
const DATA_KEPT: usize = 4 << 20;
const NAMES_KEPT: usize = 2 << 20;
/// Blocks of one file: 128 GiB in blocks of the usual size.
const BLOCKS_MAX: u64 = 1 << 20;
/// Bytes of one directory's listing: several million names.
const DIRECTORY_MAX: u64 = 64 << 20;
/// Entries that one header of a directory stands for.
const HEADER_ENTRIES_MAX: u32 = 256;
/// Target of a symbolic link: PATH_MAX.
const SYMLINK_MAX: u64 = 4096;

/// A squashfs file system. A node is a reference to its inode.
pub struct Squashfs {
    device: Layer,
    compressor: Compressor,
    block_size: u32,
    root: NodeId,
    ids: u16,
    id_table: u64,
    inode_table: u64,
    directory_table: u64,
    fragment_table: u64,
    fragments: u32,
    xattr_table: u64,
    facts: FileSystemFacts,
    meta: Pieces<u64, Block>,
    data: Pieces<u64, Vec<u8>>,
    lists: Pieces<Cursor, Vec<(u64, u32)>>,
    names: Names,
}

/// A file's blocks: where each begins, and its size as stored.
type Blocks = Arc<Vec<(u64, u32)>>;

impl Squashfs {
    /// Opens the file system of a device. `facts` are those of its superblock.
    ///
    /// # Errors
    /// `Corrupt` when the superblock or the root directory is damaged; `Unsupported` for an unknown
    /// compressor.
    pub fn open(device: Layer, facts: FileSystemFacts) -> Result<Self> {
        let raw = read_upto(device.as_ref(), 0, 96)?;
        let r = Record::new("squashfs superblock", 0, &raw);
        let block_size = r.u32_le(12)?;
        if !block_size.is_power_of_two() || !(4096..=1 << 20).contains(&block_size) {
            return Err(r.corrupt(12, format!("blocks of {block_size} bytes")));
        }
        let number = r.u16_le(20)?;
        let compressor = Compressor::new(number).ok_or_else(|| DiskError::Unsupported {
            feature: format!("squashfs compressor {number}"),
        })?;
        let mut facts = facts;
        facts.features.push(compressor.name().to_owned());
        let squashfs = Self {
            compressor,
            block_size,
            root: NodeId(r.u64_le(32)?),
            ids: r.u16_le(26)?,
            id_table: r.u64_le(48)?,
            xattr_table: r.u64_le(56)?,
            inode_table: r.u64_le(64)?,
            directory_table: r.u64_le(72)?,
            fragment_table: r.u64_le(80)?,
            fragments: r.u32_le(16)?,
            device,
            facts,
            meta: Pieces::new(META_KEPT),
            data: Pieces::new(DATA_KEPT),
            lists: Pieces::new(META_KEPT),
            names: Names::new(NAMES_KEPT),
        };
        let root = squashfs.inode(squashfs.root)?;
        if root.kind != NodeKind::Directory {
            return Err(squashfs.corrupt(squashfs.root, "the root is no directory"));
        }
        Ok(squashfs)
    }

    fn inode(&self, node: NodeId) -> Result<Inode> {
        let at = Cursor::within(self.inode_table, node.0);
        let raw = self.read_meta_upto(at, inode::HEAD)?;
        let r = Record::new("squashfs inode", at.block, &raw);
        let mut inode = Inode::parse(&r, at)?;
        if let Some(ahead) = Inode::late_xattr(r.u16_le(0)?, inode.size.min(SYMLINK_MAX)) {
            let mut raw = [0; 4];
            self.read_meta(&mut at.ahead(ahead), &mut raw)?;
            inode.xattr = u32::from_le_bytes(raw);
        }
        Ok(inode)
    }

    fn id(&self, index: u16) -> Result<u32> {
        if index >= self.ids {
            return Err(DiskError::Corrupt {
                structure: "squashfs ids",
                position: self.id_table,
                problem: format!("id {index} of {}", self.ids),
            });
        }
        let raw = self.table_entry(self.id_table, u64::from(index), 4)?;
        Record::new("squashfs ids", self.id_table, &raw).u32_le(0)
    }

    /// Calls `visit` with the entries of a directory: headers, each with entries that share it.
    fn list(&self, dir: NodeId, visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>) -> Result<()> {
        let inode = self.inode(dir)?;
        let Body::Directory { block, offset } = inode.body else {
            return Err(self.corrupt(dir, "no directory"));
        };
        // The size counts `.` and `..`, which are not stored, as three bytes.
        let mut left = inode.size.saturating_sub(3);
        if left > DIRECTORY_MAX {
            return Err(DiskError::OverBudget {
                budget: format!("{DIRECTORY_MAX} bytes of a squashfs directory"),
            });
        }
        let mut cursor = Cursor {
            block: self.directory_table.saturating_add(u64::from(block)),
            offset: usize::from(offset),
        };
        while left > 0 {
            let mut head = [0; 12];
            self.read_meta(&mut cursor, &mut head)?;
            left = left.saturating_sub(12);
            let r = Record::new("squashfs directory", cursor.block, &head);
            let count = r.u32_le(0)?.saturating_add(1);
            let start = u64::from(r.u32_le(4)?);
            if count > HEADER_ENTRIES_MAX {
                return Err(r.corrupt(0, format!("{count} entries")));
            }
            for _ in 0..count {
                let mut head = [0; 8];
                self.read_meta(&mut cursor, &mut head)?;
                let r = Record::new("squashfs directory entry", cursor.block, &head);
                let len = usize::from(r.u16_le(6)?).saturating_add(1);
                if len > 256 {
                    return Err(r.corrupt(6, format!("a name of {len} bytes")));
                }
                let mut name = vec![0; len];
                self.read_meta(&mut cursor, &mut name)?;
                left = left.saturating_sub(wide(len).saturating_add(8));
                let entry = DirEntry {
                    name,
                    node: NodeId((start << 16) | u64::from(r.u16_le(0)?)),
                    kind: inode::kind_of_entry(r.u16_le(4)?),
                };
                if visit(entry).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn blocks(&self, node: NodeId, inode: &Inode) -> Result<Blocks> {
        let Body::File {
            start,
            fragment,
            list,
            ..
        } = inode.body
        else {
            return Err(self.corrupt(node, "no regular file"));
        };
        let block = u64::from(self.block_size);
        // What does not fill a block lies in a fragment, where there is one.
        let count = match fragment {
            NONE => inode.size.div_ceil(block),
            _ => inode.size.checked_div(block).unwrap_or(0),
        };
        if count > BLOCKS_MAX {
            return Err(DiskError::OverBudget {
                budget: format!("{BLOCKS_MAX} blocks of a squashfs file"),
            });
        }
        let weigh = |blocks: &Vec<_>| blocks.len().saturating_mul(16).saturating_add(64);
        self.lists.get_or(&list, weigh, || {
            let (mut cursor, mut position) = (list, start);
            let mut blocks = Vec::new();
            for _ in 0..count {
                let mut raw = [0; 4];
                self.read_meta(&mut cursor, &mut raw)?;
                let word = u32::from_le_bytes(raw);
                blocks.push((position, word));
                position = position.saturating_add(wide(inode::stored(word).0));
            }
            Ok(blocks)
        })
    }

    /// A block of data at a position; `word` is its size as stored.
    fn block(&self, position: u64, word: u32) -> Result<Arc<Vec<u8>>> {
        self.data.get_or(&position, Vec::len, || {
            let (len, compressed) = inode::stored(word);
            let max = size(self.block_size);
            if len > max {
                return Err(DiskError::Corrupt {
                    structure: "squashfs block",
                    position,
                    problem: format!("{len} bytes stored of at most {max}"),
                });
            }
            let raw = read_vec(self.device.as_ref(), position, len)?;
            if compressed {
                return self.compressor.decode(position, &raw, max);
            }
            Ok(raw)
        })
    }

    fn fragment(&self, index: u32) -> Result<Arc<Vec<u8>>> {
        if index >= self.fragments {
            return Err(DiskError::Corrupt {
                structure: "squashfs fragments",
                position: self.fragment_table,
                problem: format!("fragment {index} of {}", self.fragments),
            });
        }
        let raw = self.table_entry(self.fragment_table, u64::from(index), 16)?;
        let r = Record::new("squashfs fragments", self.fragment_table, &raw);
        self.block(r.u64_le(0)?, r.u32_le(8)?)
    }

    /// Reads within block number `index` of a file, from `skip` on; the rest of a short one is an
    /// error.
    fn read_block(
        &self,
        node: NodeId,
        inode: &Inode,
        (blocks, index): (&Blocks, u64),
        skip: usize,
        buf: &mut [u8],
    ) -> Result<()> {
        let mut skip = skip;
        let piece = match blocks.get(narrow(index)) {
            Some((_, 0)) => {
                // A hole. It costs no read, but it is work: charge a step of the budget.
                buf.fill(0);
                return self.device.read_exact_at(0, &mut []);
            }
            Some((position, word)) => self.block(*position, *word)?,
            None => {
                let Body::File {
                    fragment,
                    fragment_at,
                    ..
                } = inode.body
                else {
                    return Err(self.corrupt(node, "no regular file"));
                };
                skip = skip.saturating_add(size(fragment_at));
                self.fragment(fragment)?
            }
        };
        let from = skip
            .checked_add(buf.len())
            .and_then(|end| piece.get(skip..end))
            .ok_or_else(|| self.corrupt(node, "a block is shorter than the file"))?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn corrupt(&self, node: NodeId, problem: &str) -> DiskError {
        DiskError::Corrupt {
            structure: "squashfs inode",
            position: self.inode_table.saturating_add(node.0 >> 16),
            problem: problem.to_owned(),
        }
    }
}

impl FileSystem for Squashfs {
    fn facts(&self) -> &FileSystemFacts {
        &self.facts
    }

    fn root(&self) -> NodeId {
        self.root
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let inode = self.inode(node)?;
        Ok(Metadata {
            kind: inode.kind,
            size: match inode.kind {
                NodeKind::File | NodeKind::Symlink => inode.size,
                _ => 0,
            },
            mode: u32::from(inode.mode),
            uid: self.id(inode.uid)?,
            gid: self.id(inode.gid)?,
            mtime: i64::from(inode.mtime),
            links: inode.links,
        })
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        self.names.find(dir, name, <[u8]>::to_vec, |tell| {
            self.list(dir, &mut |entry| tell(&entry.name, entry.node))
        })
    }

    fn read_dir(
        &self,
        dir: NodeId,
        visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<()> {
        self.list(dir, visit)
    }

    fn read_file_at(&self, node: NodeId, position: u64, buf: &mut [u8]) -> Result<usize> {
        let inode = self.inode(node)?;
        let blocks = self.blocks(node, &inode)?;
        let len = narrow(inode.size.saturating_sub(position)).min(buf.len());
        let block = u64::from(self.block_size);
        let (mut rest, _) = buf.split_at_mut(len);
        let mut at = position;
        while !rest.is_empty() {
            let index = at.checked_div(block).unwrap_or(0);
            let skip = narrow(at.checked_rem(block).unwrap_or(0));
            let room = narrow(block).saturating_sub(skip).min(rest.len());
            let (head, tail) = rest.split_at_mut(room);
            self.read_block(node, &inode, (&blocks, index), skip, head)?;
            at = at.saturating_add(wide(room));
            rest = tail;
        }
        Ok(len)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let inode = self.inode(node)?;
        let Body::Link(mut cursor) = inode.body else {
            return Err(self.corrupt(node, "no symbolic link"));
        };
        if inode.size > SYMLINK_MAX {
            return Err(self.corrupt(node, "a link target of more than 4096 bytes"));
        }
        let mut target = vec![0; narrow(inode.size)];
        self.read_meta(&mut cursor, &mut target)?;
        Ok(target)
    }

    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.find_xattr(self.inode(node)?.xattr, name)
    }
}
