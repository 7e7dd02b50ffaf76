//! EROFS, from the on-disk format in the kernel's documentation (`filesystems/erofs.rst`) and the
//! structures of `erofs_fs.h`, by whose names they are cited here.

mod clusters;
mod content;
mod decode;
mod inode;
mod lz4;
mod superblock;
mod xattr;

use super::names::Names;
use super::pieces::Pieces;
use super::{DirEntry, FileSystem, FileSystemFacts, Metadata, NodeId, NodeKind};
use crate::bytes::{Record, narrow, read_upto, wide};
use crate::error::{DiskError, Result};
use crate::read_at::Layer;
use content::corrupt;
use decode::Algorithm;
use inode::Inode;
use std::ops::ControlFlow;
use superblock::Superblock;

/// Bytes of metadata, of decompressed extents, and of names kept.
const META_KEPT: usize = 2 << 20;
const DATA_KEPT: usize = 4 << 20;
const NAMES_KEPT: usize = 2 << 20;
/// Metadata is read in pieces of this size, whatever the blocks are.
const PIECE: usize = 4096;
/// Bytes of one directory: several million names.
const DIRECTORY_MAX: u64 = 64 << 20;
/// Target of a symbolic link: PATH_MAX.
const SYMLINK_MAX: u64 = 4096;
/// Bytes of a directory entry without its name (`struct erofs_dirent`), and of a name.
const ENTRY: usize = 12;
const NAME_MAX: usize = 255;

/// An EROFS file system. A node is the number of its inode.
pub struct Erofs {
    device: Layer,
    superblock: Superblock,
    facts: FileSystemFacts,
    meta: Pieces<u64, Vec<u8>>,
    /// By position, length, length when decompressed, and algorithm.
    data: Pieces<(u64, u64, usize, Algorithm), Vec<u8>>,
    names: Names,
}

impl Erofs {
    /// Opens the file system of a device. `facts` are those of its superblock.
    ///
    /// # Errors
    /// `Corrupt` when the superblock or the root directory is damaged; `Unsupported` for features
    /// that change where things lie.
    pub fn open(device: Layer, facts: FileSystemFacts) -> Result<Self> {
        let superblock = Superblock::read(device.as_ref())?;
        let mut facts = facts;
        facts.features = superblock.features();
        if superblock.damaged_sum {
            let warning = "the checksum of the superblock is wrong";
            facts.warnings.push(warning.to_owned());
        }
        let erofs = Self {
            device,
            superblock,
            facts,
            meta: Pieces::new(META_KEPT),
            data: Pieces::new(DATA_KEPT),
            names: Names::new(NAMES_KEPT),
        };
        let root = erofs.inode(erofs.superblock.root)?;
        if root.kind != NodeKind::Directory {
            return Err(corrupt(&root, "the root is no directory"));
        }
        Ok(erofs)
    }

    /// Bytes of metadata.
    fn meta(&self, position: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len.min(PIECE));
        while bytes.len() < len {
            let at = position.saturating_add(wide(bytes.len()));
            let number = at.checked_div(wide(PIECE)).unwrap_or(0);
            let start = number.saturating_mul(wide(PIECE));
            let piece = self.meta.get_or(&number, Vec::len, || {
                read_upto(self.device.as_ref(), start, PIECE)
            })?;
            let from = piece
                .get(narrow(at.saturating_sub(start))..)
                .unwrap_or_default();
            if from.is_empty() {
                return Err(DiskError::OutOfBounds {
                    position,
                    wanted: wide(len),
                    end: self.device.len(),
                });
            }
            let missing = len.saturating_sub(bytes.len()).min(from.len());
            bytes.extend_from_slice(from.get(..missing).unwrap_or_default());
        }
        Ok(bytes)
    }

    fn inode(&self, node: u64) -> Result<Inode> {
        let position = self.superblock.position(node)?;
        let mut raw = self.meta(position, inode::COMPACT)?;
        let format = Record::new("erofs inode", position, &raw).u16_le(0)?;
        if Inode::is_extended(format) {
            raw = self.meta(position, inode::EXTENDED)?;
        }
        let r = Record::new("erofs inode", position, &raw);
        Inode::parse(&r, position, &self.superblock)
    }

    /// Calls `visit` with the entries of a directory: each block begins with a table of them, and
    /// their names follow.
    fn list(&self, dir: NodeId, visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>) -> Result<()> {
        let inode = self.inode(dir.0)?;
        if inode.kind != NodeKind::Directory {
            return Err(corrupt(&inode, "no directory"));
        }
        if inode.size > DIRECTORY_MAX {
            return Err(DiskError::OverBudget {
                budget: format!("{DIRECTORY_MAX} bytes of an erofs directory"),
            });
        }
        let mut block = vec![0; narrow(self.superblock.block_size())];
        let mut at = 0;
        while at < inode.size {
            let len = self.read(&inode, at, &mut block)?;
            let bytes = block.get(..len).unwrap_or_default();
            let r = Record::new("erofs directory", inode.position, bytes);
            if list_block(&r, visit)?.is_break() {
                break;
            }
            at = at.saturating_add(wide(block.len()));
        }
        Ok(())
    }
}

/// The entries of one block of a directory.
fn list_block(
    r: &Record<'_>,
    visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    // The first name begins where the table ends.
    let table = usize::from(r.u16_le(8)?);
    if table == 0 || !table.is_multiple_of(ENTRY) {
        return Err(r.corrupt(8, format!("a table of {table} bytes")));
    }
    for at in (0..table).step_by(ENTRY) {
        let start = usize::from(r.u16_le(at.saturating_add(8))?);
        let next = at.saturating_add(ENTRY);
        let end = match next < table {
            true => usize::from(r.u16_le(next.saturating_add(8))?),
            false => r.bytes().len(),
        };
        let name = r.slice(start, end.saturating_sub(start))?;
        // The last name ends with the block or with a zero.
        let name = match next < table {
            true => name,
            false => name.split(|byte| *byte == 0).next().unwrap_or_default(),
        };
        if name.is_empty() || name.len() > NAME_MAX || name.contains(&0) {
            return Err(r.corrupt(at, format!("a name of {} bytes", name.len())));
        }
        if name == b"." || name == b".." {
            continue;
        }
        let entry = DirEntry {
            name: name.to_vec(),
            node: NodeId(r.u64_le(at)?),
            kind: kind_of_entry(r.u8(at.saturating_add(10))?),
        };
        if visit(entry).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// An entry's type as a kind.
fn kind_of_entry(number: u8) -> Option<NodeKind> {
    Some(match number {
        1 => NodeKind::File,
        2 => NodeKind::Directory,
        3 => NodeKind::CharDevice,
        4 => NodeKind::BlockDevice,
        5 => NodeKind::Fifo,
        6 => NodeKind::Socket,
        7 => NodeKind::Symlink,
        _ => return None,
    })
}

impl FileSystem for Erofs {
    fn facts(&self) -> &FileSystemFacts {
        &self.facts
    }

    fn root(&self) -> NodeId {
        NodeId(self.superblock.root)
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let inode = self.inode(node.0)?;
        Ok(Metadata {
            kind: inode.kind,
            size: match inode.kind {
                NodeKind::File | NodeKind::Symlink => inode.size,
                _ => 0,
            },
            mode: u32::from(inode.mode),
            uid: inode.uid,
            gid: inode.gid,
            // Times before 1970 are stored as the same 64 bits.
            mtime: i64::from_le_bytes(inode.mtime.to_le_bytes()),
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
        let inode = self.inode(node.0)?;
        if inode.kind != NodeKind::File {
            return Err(corrupt(&inode, "no regular file"));
        }
        self.read(&inode, position, buf)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let inode = self.inode(node.0)?;
        if inode.kind != NodeKind::Symlink {
            return Err(corrupt(&inode, "no symbolic link"));
        }
        if inode.size > SYMLINK_MAX {
            return Err(corrupt(&inode, "a link target of more than 4096 bytes"));
        }
        let mut target = vec![0; narrow(inode.size)];
        self.read(&inode, 0, &mut target)?;
        Ok(target)
    }

    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.find_xattr(&self.inode(node.0)?, name)
    }
}
