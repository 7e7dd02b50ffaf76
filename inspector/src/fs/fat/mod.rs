//! FAT12, FAT16 and FAT32 with long names.

pub(crate) mod boot;
pub(crate) mod dir;
pub(crate) mod table;

use super::names::{Names, upper};
use super::pieces::Pieces;
use super::{DirEntry, FileSystem, FileSystemFacts, Metadata, NodeId, NodeKind};
use crate::bytes::{Record, narrow, read_upto, read_vec, wide};
use crate::error::{DiskError, Result};
use crate::read_at::Layer;
use boot::Bpb;
use dir::{ENTRY, Entry, Reader, Step, attribute};
use std::ops::ControlFlow;
use std::sync::Arc;
use table::{Run, Table};

/// A node is the position of its entry in units of 32 bytes; the root has none.
const ROOT: NodeId = NodeId(0);
/// The largest directory: 65,536 entries.
const DIRECTORY_MAX: u64 = 2 << 20;
/// Bytes of a directory read at once.
const PIECE: u64 = 16 << 10;
/// Names and chains kept, in bytes each.
const KEPT: usize = 2 << 20;

/// A FAT file system.
pub struct Fat {
    device: Layer,
    table: Table,
    /// Bytes of the fixed root directory.
    fixed_root: Option<(u64, u64)>,
    root_cluster: u32,
    facts: FileSystemFacts,
    chains: Pieces<u32, Vec<Run>>,
    names: Names,
}

/// Consecutive bytes of a directory: where, and how many.
type Extents = Vec<(u64, u64)>;

impl Fat {
    /// Opens the file system of a device. `facts` are those of its boot sector and label.
    ///
    /// # Errors
    /// `Corrupt` when the boot sector is damaged.
    pub fn open(device: Layer, facts: FileSystemFacts) -> Result<Self> {
        let raw = read_upto(device.as_ref(), 0, 512)?;
        let r = Record::new("FAT boot sector", 0, &raw);
        let bpb = Bpb::parse(&r).ok_or_else(|| r.corrupt(0, "no FAT boot sector"))?;
        Ok(Self {
            table: bpb.table(),
            fixed_root: (!bpb.fat32).then(|| bpb.root()),
            root_cluster: bpb.root_cluster,
            device,
            facts,
            chains: Pieces::new(KEPT),
            names: Names::new(KEPT),
        })
    }

    fn entry(&self, node: NodeId) -> Result<Entry> {
        let position = node.0.saturating_mul(wide(ENTRY));
        let raw = read_vec(self.device.as_ref(), position, ENTRY)?;
        let r = Record::new("FAT directory entry", position, &raw);
        Entry::parse(&r, self.fixed_root.is_none())
    }

    fn chain(&self, first: u32, bytes: u64) -> Result<Arc<Vec<Run>>> {
        let max = bytes.div_ceil(self.table.cluster.max(1));
        let weigh = |runs: &Vec<Run>| runs.len().saturating_mul(8).saturating_add(64);
        self.chains.get_or(&first, weigh, || {
            self.table.chain(self.device.as_ref(), first, max)
        })
    }

    fn extents(&self, dir: NodeId) -> Result<Extents> {
        let first = if dir == ROOT {
            if let Some(root) = self.fixed_root {
                return Ok(vec![root]);
            }
            self.root_cluster
        } else {
            let entry = self.entry(dir)?;
            if !entry.is_directory() {
                return Err(self.corrupt(dir, "no directory"));
            }
            entry.cluster
        };
        let mut extents = Vec::new();
        for run in self.chain(first, DIRECTORY_MAX)?.iter() {
            let len = u64::from(run.count).saturating_mul(self.table.cluster);
            extents.push((self.table.place(run.first)?, len));
        }
        Ok(extents)
    }

    /// Calls `visit` with the names of each entry and its node.
    fn scan(
        &self,
        dir: NodeId,
        visit: &mut dyn FnMut(dir::Named, NodeId, u8) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut reader = Reader::default();
        for (start, len) in self.extents(dir)? {
            let mut done = 0;
            while done < len {
                let position = start.saturating_add(done);
                let want = narrow(len.saturating_sub(done).min(PIECE));
                let piece = read_vec(self.device.as_ref(), position, want)?;
                for (raw, at) in piece.chunks_exact(ENTRY).zip((position..).step_by(ENTRY)) {
                    let r = Record::new("FAT directory entry", at, raw);
                    match reader.step(&r)? {
                        Step::Skip => {}
                        Step::End => return Ok(()),
                        Step::Named(named) => {
                            let node = NodeId(at / 32);
                            if visit(named, node, r.u8(11)?).is_break() {
                                return Ok(());
                            }
                        }
                    }
                }
                done = done.saturating_add(PIECE);
            }
        }
        Ok(())
    }

    fn corrupt(&self, node: NodeId, problem: &str) -> DiskError {
        DiskError::Corrupt {
            structure: "FAT directory entry",
            position: node.0.saturating_mul(wide(ENTRY)),
            problem: problem.to_owned(),
        }
    }
}

impl FileSystem for Fat {
    fn facts(&self) -> &FileSystemFacts {
        &self.facts
    }

    fn root(&self) -> NodeId {
        ROOT
    }

    /// FAT has no owners; the mode is that of a file anybody may read.
    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let (directory, size, writable, mtime) = if node == ROOT {
            (true, 0, true, 0)
        } else {
            let entry = self.entry(node)?;
            let writable = entry.attributes & attribute::READ_ONLY == 0;
            (entry.is_directory(), entry.size, writable, entry.mtime)
        };
        Ok(Metadata {
            kind: if directory {
                NodeKind::Directory
            } else {
                NodeKind::File
            },
            size: if directory { 0 } else { u64::from(size) },
            mode: match (directory, writable) {
                (true, _) => 0o755,
                (false, true) => 0o644,
                (false, false) => 0o444,
            },
            uid: 0,
            gid: 0,
            mtime,
            links: 1,
        })
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        self.names.find(dir, name, upper, |tell| {
            self.scan(dir, &mut |named, node, _| {
                if tell(&named.name, node).is_break() {
                    return ControlFlow::Break(());
                }
                tell(&named.short, node)
            })
        })
    }

    fn read_dir(
        &self,
        dir: NodeId,
        visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<()> {
        self.scan(dir, &mut |named, node, attributes| {
            let kind = match attributes & attribute::DIRECTORY {
                0 => NodeKind::File,
                _ => NodeKind::Directory,
            };
            visit(DirEntry {
                name: named.name,
                node,
                kind: Some(kind),
            })
        })
    }

    fn read_file_at(&self, node: NodeId, position: u64, buf: &mut [u8]) -> Result<usize> {
        if node == ROOT {
            return Err(self.corrupt(node, "no regular file"));
        }
        let entry = self.entry(node)?;
        if entry.is_directory() {
            return Err(self.corrupt(node, "no regular file"));
        }
        let size = u64::from(entry.size);
        let len = narrow(size.saturating_sub(position)).min(buf.len());
        if len > 0 {
            let chain = self.chain(entry.cluster, size)?;
            let (wanted, _) = buf.split_at_mut(len);
            self.table
                .read(self.device.as_ref(), &chain, position, wanted)?;
        }
        Ok(len)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        Err(self.corrupt(node, "no symbolic link"))
    }
}
