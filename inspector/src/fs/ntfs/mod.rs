//! NTFS 3.x, from the documentation of the Linux-NTFS project and Microsoft's open specifications.
//!
//! Files are read through their FILE records, directories through their indexes; what is decoded
//! is kept in small caches. `$LogFile` is not replayed: chkdsk's own view of the volume, which is
//! what other readers show too.

pub(crate) mod boot;
mod content;
mod index;
mod inode;
mod lznt1;
mod lzx;
mod mft;
pub(crate) mod name;
mod record;
mod reparse;
mod runs;
mod xpress;

use super::pieces::Pieces;
use super::{DirEntry, FileSystem, FileSystemFacts, Metadata, NodeId, NodeKind};
use crate::bytes::{narrow, text_utf16_le, wide};
use crate::error::{DiskError, Result};
use crate::read_at::Layer;
use boot::Boot;
use inode::Inode;
use record::{Clusters, kind};
use reparse::Reparse;
use std::ops::ControlFlow;
use std::sync::Arc;

const ROOT: u64 = 5;
const VOLUME: u64 = 3;
/// Inodes kept, in bytes.
const INODES_KEPT: usize = 4 << 20;
/// Index blocks kept, in bytes.
const BLOCKS_KEPT: usize = 2 << 20;
/// Decompressed units and chunks kept, in bytes.
const UNITS_KEPT: usize = 1 << 20;
/// The largest link of Interix: a signature and 4096 units.
const INTERIX_MAX: u64 = 8 + 8192;

/// An NTFS file system.
pub struct Ntfs {
    device: Layer,
    boot: Boot,
    mft: Clusters,
    facts: FileSystemFacts,
    inodes: Pieces<u64, Inode>,
    blocks: Pieces<(u64, u64), Vec<u8>>,
    units: Pieces<(u64, usize, u64), Vec<u8>>,
    upcase: Pieces<(), Vec<u16>>,
}

/// What a node is to a caller.
enum Shape {
    Plain(NodeKind),
    Link(Vec<u8>),
}

impl Ntfs {
    /// Opens the file system of a device. `facts` are those of its boot sector.
    ///
    /// # Errors
    /// `Corrupt` when the boot sector, the MFT (and its mirror) or the root directory is damaged.
    pub fn open(device: Layer, facts: FileSystemFacts) -> Result<Self> {
        let boot = Boot::read(device.as_ref())?.ok_or_else(|| DiskError::Corrupt {
            structure: "NTFS boot sector",
            position: 0,
            problem: "no NTFS boot sector".to_owned(),
        })?;
        let mft = mft::locate(device.as_ref(), &boot)?;
        let mut ntfs = Self {
            device,
            boot,
            mft,
            facts,
            inodes: Pieces::new(INODES_KEPT),
            blocks: Pieces::new(BLOCKS_KEPT),
            units: Pieces::new(UNITS_KEPT),
            upcase: Pieces::new(1 << 20),
        };
        let root = ntfs.inode(ROOT)?;
        if !root.directory {
            return Err(root.corrupt("the root is no directory"));
        }
        ntfs.describe()?;
        Ok(ntfs)
    }

    /// Label, version and state from `$Volume`, which a volume may do without.
    fn describe(&mut self) -> Result<()> {
        let volume = match self.inode(VOLUME) {
            Ok(volume) => volume,
            Err(e @ (DiskError::Corrupt { .. } | DiskError::OutOfBounds { .. })) => {
                self.facts.warnings.push(format!("$Volume not read: {e}"));
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let label = volume.resident(kind::VOLUME_NAME, b"").map(text_utf16_le);
        self.facts.label = label.filter(|label| !label.is_empty());
        if let Some([_, _, _, _, _, _, _, _, major, minor, flags, ..]) =
            volume.resident(kind::VOLUME_INFORMATION, b"")
        {
            self.facts.features.push(format!("v{major}.{minor}"));
            if flags & 1 != 0 {
                self.facts.needs_recovery = true;
                self.facts
                    .warnings
                    .push("volume is marked dirty".to_owned());
            }
        }
        Ok(())
    }

    fn inode(&self, number: u64) -> Result<Arc<Inode>> {
        self.inodes
            .get_or(&number, Inode::weight, || self.read_inode(number))
    }

    /// The file that a node names, and the index of its data stream's attribute.
    fn node(&self, node: NodeId) -> Result<(Arc<Inode>, Option<usize>)> {
        let (number, sequence, stream) = parts(node);
        let inode = self.inode(number)?;
        if sequence != 0 && sequence != inode.sequence {
            return Err(inode.corrupt(format!(
                "a reference to its use {sequence}, it is {}",
                inode.sequence
            )));
        }
        let data = match stream.checked_sub(1) {
            None => inode.find(kind::DATA, b""),
            Some(index) => named_streams(&inode).map(|(at, _)| at).nth(index),
        };
        Ok((inode, data))
    }

    fn directory(&self, node: NodeId) -> Result<Arc<Inode>> {
        let (inode, _) = self.node(node)?;
        if !inode.directory {
            return Err(inode.corrupt("no directory"));
        }
        Ok(inode)
    }

    fn shape(&self, inode: &Inode, data: Option<usize>) -> Result<Shape> {
        match &inode.reparse {
            Some(Reparse::Link(target)) => return Ok(Shape::Link(target.clone())),
            Some(Reparse::Special(kind)) => return Ok(Shape::Plain(*kind)),
            _ => {}
        }
        if inode.directory {
            return Ok(Shape::Plain(NodeKind::Directory));
        }
        let flags = inode.flags();
        let size = data
            .and_then(|d| inode.attribute(d))
            .map_or(0, record::Attribute::len);
        if flags & inode::SYSTEM == 0 || size > INTERIX_MAX {
            return Ok(Shape::Plain(NodeKind::File));
        }
        // Services for Unix kept its objects in system files.
        if size < 2 {
            return Ok(Shape::Plain(match size {
                _ if flags & inode::HIDDEN != 0 => NodeKind::File,
                0 => NodeKind::Fifo,
                _ => NodeKind::Socket,
            }));
        }
        let Some(data) = data.filter(|_| size >= 8) else {
            return Ok(Shape::Plain(NodeKind::File));
        };
        let mut head = [0; 8];
        self.read_attribute(inode, data, 0, &mut head)?;
        Ok(match &head {
            b"IntxLNK\x01" => {
                let value = self.small_value(inode, data, INTERIX_MAX)?;
                let value = value.unwrap_or_default();
                Shape::Link(name::to_bytes(value.get(8..).unwrap_or_default()))
            }
            b"IntxCHR\0" => Shape::Plain(NodeKind::CharDevice),
            b"IntxBLK\0" => Shape::Plain(NodeKind::BlockDevice),
            _ => Shape::Plain(NodeKind::File),
        })
    }

    /// Alternate data streams of a file: names and sizes, in the order of names. They are found as
    /// `file:stream`.
    ///
    /// # Errors
    /// `Corrupt` or any read error.
    pub fn streams(&self, node: NodeId) -> Result<Vec<(Vec<u8>, u64)>> {
        let (inode, _) = self.node(node)?;
        Ok(named_streams(&inode)
            .filter_map(|(at, name)| {
                let len = inode.attribute(at)?.len();
                Some((name::to_bytes(name), len))
            })
            .collect())
    }

    /// A stream of a file as a node of its own.
    fn stream(&self, file: NodeId, wanted: &[u8]) -> Result<Option<NodeId>> {
        let (inode, _) = self.node(file)?;
        let Some(wanted) = name::from_bytes(wanted) else {
            return Ok(None);
        };
        for (index, (_, name)) in named_streams(&inode).enumerate() {
            let mut same = name::units(name).count() == wanted.len();
            for (a, b) in name::units(name).zip(&wanted) {
                same = same && self.upper(a)? == self.upper(*b)?;
            }
            if same {
                let (number, sequence, _) = parts(file);
                return Ok(Some(join(number, sequence, index.saturating_add(1))));
            }
        }
        Ok(None)
    }
}

fn named_streams(inode: &Inode) -> impl Iterator<Item = (usize, &[u8])> {
    inode
        .attributes
        .iter()
        .enumerate()
        .filter(|(_, a)| a.kind == kind::DATA && !a.name.is_empty())
        .map(|(at, a)| (at, a.name.as_slice()))
}

/// A node is a record number (32 bits: what Windows uses), its sequence number (16) and the number
/// of a named stream (15), 0 for the file itself.
fn join(number: u64, sequence: u16, stream: usize) -> NodeId {
    let stream = wide(stream).min(0x7fff);
    NodeId((number & 0xffff_ffff) | (u64::from(sequence) << 32) | (stream << 48))
}

fn parts(node: NodeId) -> (u64, u16, usize) {
    let sequence = u16::try_from((node.0 >> 32) & 0xffff).unwrap_or(0);
    (node.0 & 0xffff_ffff, sequence, narrow(node.0 >> 48))
}

/// A node from a file reference of an index.
fn referenced(reference: u64) -> NodeId {
    let sequence = u16::try_from(reference >> 48).unwrap_or(0);
    join(record::record_number(reference), sequence, 0)
}

impl FileSystem for Ntfs {
    fn facts(&self) -> &FileSystemFacts {
        &self.facts
    }

    fn root(&self) -> NodeId {
        join(ROOT, 0, 0)
    }

    /// NTFS has access control lists; the mode is that of a file anybody may read.
    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let (inode, data) = self.node(node)?;
        let size = data
            .and_then(|d| inode.attribute(d))
            .map_or(0, record::Attribute::len);
        let (kind, size) = if parts(node).2 > 0 {
            (NodeKind::File, size)
        } else {
            match self.shape(&inode, data)? {
                Shape::Link(target) => (NodeKind::Symlink, wide(target.len())),
                Shape::Plain(kind @ NodeKind::File) => (kind, size),
                Shape::Plain(kind) => (kind, 0),
            }
        };
        let writable = inode.flags() & inode::READ_ONLY == 0;
        Ok(Metadata {
            kind,
            size,
            mode: match kind {
                NodeKind::Directory => 0o755,
                NodeKind::Symlink => 0o777,
                _ if writable => 0o644,
                _ => 0o444,
            },
            uid: 0,
            gid: 0,
            mtime: inode.mtime(),
            links: inode.links(),
        })
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let inode = self.directory(dir)?;
        if let Some(reference) = self.find_name(&inode, name)? {
            return Ok(Some(referenced(reference)));
        }
        let mut parts = name.splitn(2, |b| *b == b':');
        let (Some(file), Some(stream)) = (parts.next(), parts.next()) else {
            return Ok(None);
        };
        match self.find_name(&inode, file)? {
            Some(reference) if !file.is_empty() => self.stream(referenced(reference), stream),
            _ => Ok(None),
        }
    }

    fn read_dir(
        &self,
        dir: NodeId,
        visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<()> {
        let inode = self.directory(dir)?;
        self.list(&inode, &mut |entry| {
            let number = record::record_number(entry.reference);
            // The root lists itself as ".", and the MFT, which is no file to read.
            if entry.is_short() || (inode.number == ROOT && matches!(number, 0 | ROOT)) {
                return ControlFlow::Continue(());
            }
            let unsure = entry.attributes & (inode::REPARSE | inode::SYSTEM) != 0;
            visit(DirEntry {
                name: name::to_bytes(entry.name),
                node: referenced(entry.reference),
                kind: match entry.attributes & inode::DIRECTORY {
                    _ if unsure => None,
                    0 => Some(NodeKind::File),
                    _ => Some(NodeKind::Directory),
                },
            })
        })
    }

    fn read_file_at(&self, node: NodeId, position: u64, buf: &mut [u8]) -> Result<usize> {
        let (inode, data) = self.node(node)?;
        let of_file = parts(node).2 == 0;
        if of_file && !matches!(self.shape(&inode, data)?, Shape::Plain(NodeKind::File)) {
            return Err(inode.corrupt("no regular file"));
        }
        let Some(data) = data else { return Ok(0) };
        let size = inode.attribute(data).map_or(0, record::Attribute::len);
        let len = narrow(size.saturating_sub(position)).min(buf.len());
        let (wanted, _) = buf.split_at_mut(len);
        match &inode.reparse {
            Some(Reparse::Wof(algorithm)) if of_file => {
                self.read_wof(&inode, *algorithm, size, position, wanted)?;
            }
            Some(Reparse::Elsewhere(feature)) if of_file => {
                return Err(DiskError::Unsupported {
                    feature: (*feature).to_owned(),
                });
            }
            Some(Reparse::Cloud)
                if of_file && inode.flags() & (inode::OFFLINE | inode::RECALL) != 0 =>
            {
                return Err(DiskError::Unsupported {
                    feature: "ntfs file kept in the cloud".to_owned(),
                });
            }
            _ => self.read_attribute(&inode, data, position, wanted)?,
        }
        Ok(len)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let (inode, data) = self.node(node)?;
        match self.shape(&inode, data)? {
            Shape::Link(target) => Ok(target),
            Shape::Plain(_) => Err(inode.corrupt("no symbolic link")),
        }
    }
}
