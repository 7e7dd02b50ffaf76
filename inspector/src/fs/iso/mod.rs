//! ISO 9660 (ECMA-119) with Rock Ridge, Joliet where there is no Rock Ridge, zisofs.

mod record;
mod susp;
mod zisofs;

use super::names::{Names, upper};
use super::pieces::Pieces;
use super::{DirEntry, FileSystem, FileSystemFacts, Metadata, NodeId, NodeKind};
use crate::bytes::{Record, narrow, read_upto, read_vec, wide};
use crate::error::{DiskError, Result};
use crate::read_at::Layer;
use record::{Entry, HEAD, flag};
use std::ops::ControlFlow;
use susp::RockRidge;

/// Descriptors begin at sector 16.
const FIRST: u64 = 32 << 10;
const SECTOR: u64 = 2048;
/// Descriptors looked at.
const DESCRIPTORS_MAX: u64 = 32;
/// Where the root's record stands in a descriptor.
const ROOT_AT: u64 = 156;
/// Bytes of one directory: some two million records.
const DIRECTORY_MAX: u64 = 128 << 20;
/// Sections of a file: 4 TiB in sections of 4 GiB.
const SECTIONS_MAX: usize = 1024;
/// Names kept, and decompressed blocks, in bytes.
const KEPT: usize = 2 << 20;

/// Which names a tree has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tree {
    Plain,
    Joliet,
    /// With as many bytes of System Use that belong to others.
    RockRidge(usize),
}

/// An ISO 9660 file system. A node is the position of its directory record.
pub struct Iso {
    device: Layer,
    block: u64,
    root: NodeId,
    tree: Tree,
    facts: FileSystemFacts,
    names: Names,
    blocks: Pieces<(u64, u64), Vec<u8>>,
}

/// Where the sections of a file lie.
struct Sections {
    position: u64,
    size: u64,
    /// Byte position and length of each.
    parts: Vec<(u64, u64)>,
}

impl Sections {
    fn corrupt(&self, problem: impl std::fmt::Display) -> DiskError {
        DiskError::Corrupt {
            structure: "ISO 9660 file",
            position: self.position,
            problem: problem.to_string(),
        }
    }
}

impl Iso {
    /// Opens the file system of a device. `facts` are those of its descriptors.
    ///
    /// # Errors
    /// `Corrupt` when there is no primary descriptor or its root directory is damaged.
    pub fn open(device: Layer, facts: FileSystemFacts) -> Result<Self> {
        let (mut primary, mut joliet) = (None, None);
        for index in 0..DESCRIPTORS_MAX {
            let at = FIRST.saturating_add(index.saturating_mul(SECTOR));
            let raw = read_upto(device.as_ref(), at, narrow(SECTOR))?;
            let r = Record::new("ISO 9660 descriptor", at, &raw);
            if !matches!(r.slice(1, 5), Ok(b"CD001")) {
                break;
            }
            let block = u64::from(r.u16_le(128)?);
            let found = Some((at, block)).filter(|(_, b)| matches!(b, 512 | 1024 | 2048));
            match r.u8(0)? {
                1 => primary = primary.or(found),
                2 if matches!(r.slice(88, 3)?, b"%/@" | b"%/C" | b"%/E") => joliet = found,
                255 => break,
                _ => {}
            }
        }
        let (at, block) = primary.ok_or_else(|| DiskError::Corrupt {
            structure: "ISO 9660 descriptor",
            position: FIRST,
            problem: "no primary descriptor".to_owned(),
        })?;
        let mut iso = Self {
            device,
            block,
            root: NodeId(at.saturating_add(ROOT_AT)),
            tree: Tree::Plain,
            facts,
            names: Names::new(KEPT),
            blocks: Pieces::new(KEPT),
        };
        if let Some(skip) = iso.rock_ridge()? {
            iso.tree = Tree::RockRidge(skip);
            iso.facts.features.push("rockridge".to_owned());
        } else if let Some((at, block)) = joliet {
            iso.tree = Tree::Joliet;
            (iso.root, iso.block) = (NodeId(at.saturating_add(ROOT_AT)), block);
        }
        if joliet.is_some() {
            iso.facts.features.insert(0, "joliet".to_owned());
        }
        let root = iso.entry(iso.root)?;
        if !root.is_directory() {
            return Err(iso.corrupt(iso.root, "the root is no directory"));
        }
        Ok(iso)
    }

    /// Whether the root's first record says so: System Use that begins with the indicator, and any
    /// Rock Ridge entry.
    fn rock_ridge(&self) -> Result<Option<usize>> {
        let root = self.entry(self.root)?;
        let dot = match self.entry(NodeId(root.block.saturating_mul(self.block))) {
            Ok(dot) => dot,
            Err(DiskError::Corrupt { .. } | DiskError::OutOfBounds { .. }) => return Ok(None),
            Err(e) => return Err(e),
        };
        let Some(skip) = susp::indicator(&dot.system_use) else {
            return Ok(None);
        };
        let entries = susp::read(self.device.as_ref(), self.block, &dot.system_use);
        Ok(entries.ok().filter(|e| e.any).map(|_| skip))
    }

    /// The record at a position.
    fn entry(&self, node: NodeId) -> Result<Entry> {
        let head = read_vec(self.device.as_ref(), node.0, HEAD)?;
        let len = head.first().copied().unwrap_or(0);
        if usize::from(len) <= HEAD {
            return Err(self.corrupt(node, "no directory record"));
        }
        let raw = read_vec(self.device.as_ref(), node.0, usize::from(len))?;
        Entry::parse(node.0, &Record::new("ISO 9660 record", node.0, &raw))
    }

    /// The System Use of a record, where this tree has Rock Ridge.
    fn extras(&self, entry: &Entry) -> Result<RockRidge> {
        let Tree::RockRidge(skip) = self.tree else {
            return Ok(RockRidge::default());
        };
        let raw = entry.system_use.as_slice();
        // The indicator itself stands before what is skipped elsewhere.
        let skip = if susp::indicator(raw).is_some() {
            0
        } else {
            skip
        };
        let used = raw.get(skip..).unwrap_or_default();
        susp::read(self.device.as_ref(), self.block, used)
    }

    /// The record with what Rock Ridge adds; a directory that was moved away is followed.
    fn node(&self, node: NodeId) -> Result<(Entry, RockRidge)> {
        let entry = self.entry(node)?;
        let extras = self.extras(&entry)?;
        if let Some(block) = extras.child {
            let dot = self.entry(NodeId(block.saturating_mul(self.block)))?;
            let extras = self.extras(&dot)?;
            return Ok((dot, extras));
        }
        Ok((entry, extras))
    }

    /// Calls `visit` with each record but `.` and `..`.
    fn scan(
        &self,
        dir: NodeId,
        visit: &mut dyn FnMut(Entry) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let (entry, _) = self.node(dir)?;
        if !entry.is_directory() {
            return Err(self.corrupt(dir, "no directory"));
        }
        if entry.size > DIRECTORY_MAX {
            return Err(DiskError::OverBudget {
                budget: format!("{DIRECTORY_MAX} bytes of an ISO 9660 directory"),
            });
        }
        let start = entry.block.saturating_mul(self.block);
        let end = start.saturating_add(entry.size);
        let mut sector = start;
        // Records do not cross sectors: the rest of a sector is empty.
        while sector < end {
            let raw = read_vec(
                self.device.as_ref(),
                sector,
                narrow(SECTOR.min(end.saturating_sub(sector))),
            )?;
            let mut at = 0usize;
            while let Some(len) = raw.get(at).copied().filter(|len| *len > 0) {
                let position = sector.saturating_add(wide(at));
                let past = at.saturating_add(usize::from(len));
                let record = raw.get(at..past).filter(|_| usize::from(len) > HEAD);
                let record = record
                    .ok_or_else(|| self.corrupt(NodeId(position), "a damaged directory record"))?;
                let entry =
                    Entry::parse(position, &Record::new("ISO 9660 record", position, record))?;
                at = past;
                if !entry.is_dots() && visit(entry)?.is_break() {
                    return Ok(());
                }
            }
            sector = sector.saturating_add(SECTOR);
        }
        Ok(())
    }

    /// Calls `visit` with the names of a directory: one for all sections of a file.
    fn list(
        &self,
        dir: NodeId,
        visit: &mut dyn FnMut(Vec<u8>, NodeId, Option<NodeKind>) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut later = false;
        self.scan(dir, &mut |entry| {
            let first = !later;
            later = entry.flags & flag::MORE != 0;
            if !first || entry.flags & flag::ASSOCIATED != 0 {
                return Ok(ControlFlow::Continue(()));
            }
            let extras = self.extras(&entry)?;
            if extras.moved {
                return Ok(ControlFlow::Continue(()));
            }
            let directory = entry.is_directory() || extras.child.is_some();
            let kind = match self.tree {
                Tree::RockRidge(_) if !directory => None,
                _ if directory => Some(NodeKind::Directory),
                _ => Some(NodeKind::File),
            };
            let name = match (self.tree, extras.name) {
                (Tree::Joliet, _) => entry.joliet_name(),
                (_, Some(name)) => name,
                _ => entry.plain_name(),
            };
            Ok(visit(name, NodeId(entry.position), kind))
        })
    }

    /// All sections of a file: records that follow each other.
    fn sections(&self, first: &Entry) -> Result<Sections> {
        let mut file = Sections {
            position: first.position,
            size: 0,
            parts: Vec::new(),
        };
        let mut entry = first.clone();
        loop {
            if entry.interleaved {
                return Err(DiskError::Unsupported {
                    feature: "iso9660 interleaved file".to_owned(),
                });
            }
            let start = entry.block.saturating_mul(self.block);
            file.parts.push((start, entry.size));
            file.size = file.size.saturating_add(entry.size);
            if entry.flags & flag::MORE == 0 {
                return Ok(file);
            }
            if file.parts.len() >= SECTIONS_MAX {
                return Err(file.corrupt("too many sections"));
            }
            let next = entry.end();
            let left = SECTOR.saturating_sub(next % SECTOR);
            let empty = read_upto(self.device.as_ref(), next, 1)?.first() == Some(&0);
            let next = if empty {
                next.saturating_add(left)
            } else {
                next
            };
            entry = self.entry(NodeId(next))?;
        }
    }

    /// Reads from the sections of a file as stored.
    fn read_sections(&self, file: &Sections, position: u64, buf: &mut [u8]) -> Result<()> {
        let mut start = 0u64;
        let mut at = position;
        let mut rest = buf;
        for (place, len) in &file.parts {
            let end = start.saturating_add(*len);
            if at < end && !rest.is_empty() {
                let skip = at.saturating_sub(start);
                let room = narrow(len.saturating_sub(skip)).min(rest.len());
                let (head, tail) = rest.split_at_mut(room);
                self.device
                    .read_exact_at(place.saturating_add(skip), head)?;
                at = at.saturating_add(wide(room));
                rest = tail;
            }
            start = end;
        }
        if rest.is_empty() {
            return Ok(());
        }
        Err(file.corrupt(format!("{} bytes, byte {at} wanted", file.size)))
    }

    fn kind(entry: &Entry, extras: &RockRidge) -> NodeKind {
        if entry.is_directory() {
            return NodeKind::Directory;
        }
        if extras.link.is_some() {
            return NodeKind::Symlink;
        }
        match extras.posix.map_or(0, |(mode, ..)| mode & 0o170_000) {
            0o010_000 => NodeKind::Fifo,
            0o020_000 => NodeKind::CharDevice,
            0o060_000 => NodeKind::BlockDevice,
            0o140_000 => NodeKind::Socket,
            _ => NodeKind::File,
        }
    }

    fn corrupt(&self, node: NodeId, problem: &str) -> DiskError {
        DiskError::Corrupt {
            structure: "ISO 9660 record",
            position: node.0,
            problem: problem.to_owned(),
        }
    }
}

impl FileSystem for Iso {
    fn facts(&self) -> &FileSystemFacts {
        &self.facts
    }

    fn root(&self) -> NodeId {
        self.root
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let (entry, mut extras) = self.node(node)?;
        if node == self.root {
            // The root's own record in the descriptor has no System Use.
            let dot = self.entry(NodeId(entry.block.saturating_mul(self.block)))?;
            extras = self.extras(&dot)?;
        }
        let kind = Self::kind(&entry, &extras);
        let size = match (kind, extras.zisofs) {
            (NodeKind::File, Some(z)) => z.size,
            (NodeKind::File, None) => self.sections(&entry).map_or(entry.size, |file| file.size),
            (NodeKind::Symlink, _) => extras.link.as_ref().map_or(0, |link| wide(link.len())),
            _ => 0,
        };
        // Without Rock Ridge everybody may read.
        let usual = if kind == NodeKind::Directory {
            0o555
        } else {
            0o444
        };
        let (mode, links, uid, gid) = extras.posix.unwrap_or((usual, 1, 0, 0));
        Ok(Metadata {
            kind,
            size,
            mode: mode & 0o7777,
            uid,
            gid,
            mtime: extras.mtime.unwrap_or(entry.mtime),
            links,
        })
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let exact = matches!(self.tree, Tree::RockRidge(_));
        let fold = |name: &[u8]| if exact { name.to_vec() } else { upper(name) };
        self.names.find(dir, name, fold, |tell| {
            self.list(dir, &mut |name, node, _| tell(&name, node))
        })
    }

    fn read_dir(
        &self,
        dir: NodeId,
        visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<()> {
        self.list(dir, &mut |name, node, kind| {
            visit(DirEntry { name, node, kind })
        })
    }

    fn read_file_at(&self, node: NodeId, position: u64, buf: &mut [u8]) -> Result<usize> {
        let (entry, extras) = self.node(node)?;
        if Self::kind(&entry, &extras) != NodeKind::File {
            return Err(self.corrupt(node, "no regular file"));
        }
        let file = self.sections(&entry)?;
        let zisofs = extras.zisofs;
        let size = zisofs.map_or(file.size, |z| z.size);
        let len = narrow(size.saturating_sub(position)).min(buf.len());
        let (wanted, _) = buf.split_at_mut(len);
        match zisofs {
            Some(z) => self.read_zisofs(&file, z, position, wanted)?,
            None => self.read_sections(&file, position, wanted)?,
        }
        Ok(len)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let (_, extras) = self.node(node)?;
        extras
            .link
            .ok_or_else(|| self.corrupt(node, "no symbolic link"))
    }
}
