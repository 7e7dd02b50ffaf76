//! exFAT (Microsoft's exFAT specification, revision 1.00).

mod entry;

use super::fat::table::{Run, Table, Width};
use super::names::{Names, upper};
use super::pieces::Pieces;
use super::{DirEntry, FileSystem, FileSystemFacts, Metadata, NodeId, NodeKind};
use crate::bytes::{Record, narrow, read_upto, read_vec, wide};
use crate::error::{DiskError, Result};
use crate::read_at::Layer;
use entry::{ENTRY, FILE, File, Set};
use std::ops::ControlFlow;
use std::sync::Arc;

/// A node is the position of its first entry in units of 32 bytes; the root has none.
const ROOT: NodeId = NodeId(0);
/// Set in a node whose directory is stored without a chain.
const CONTIGUOUS: u64 = 1 << 62;
/// The largest directory (section 6.2.1).
const DIRECTORY_MAX: u64 = 256 << 20;
/// Bytes of a directory read at once.
const PIECE: u64 = 16 << 10;
/// Names and chains kept, in bytes each.
const KEPT: usize = 2 << 20;

/// An exFAT file system.
pub struct ExFat {
    device: Layer,
    table: Table,
    root_cluster: u32,
    facts: FileSystemFacts,
    chains: Pieces<(u32, bool), Vec<Run>>,
    names: Names,
}

impl ExFat {
    /// Opens the file system of a device. `facts` are those of its boot sector and label.
    ///
    /// # Errors
    /// `Corrupt` when the boot sector is damaged.
    pub fn open(device: Layer, facts: FileSystemFacts) -> Result<Self> {
        let raw = read_upto(device.as_ref(), 0, 512)?;
        let r = Record::new("exFAT boot sector", 0, &raw);
        let sector = u32::from(r.u8(0x6c)?);
        let cluster = sector.saturating_add(u32::from(r.u8(0x6d)?));
        if !(9..=12).contains(&sector) || cluster > 25 {
            return Err(r.corrupt(
                0x6c,
                format!("sectors of 2^{sector}, clusters of 2^{cluster}"),
            ));
        }
        let scaled = |n: u32| u64::from(n).checked_shl(sector).unwrap_or(0);
        // TexFAT has two tables; the flag says which is in use.
        let second = r.u16_le(0x6a)? & 1 == 1 && r.u8(0x6e)? == 2;
        let fat = scaled(r.u32_le(0x50)?);
        let skip = if second { scaled(r.u32_le(0x54)?) } else { 0 };
        Ok(Self {
            table: Table {
                position: fat.saturating_add(skip),
                width: Width::Full,
                clusters: r.u32_le(0x5c)?.min(0xffff_fff5),
                heap: scaled(r.u32_le(0x58)?),
                cluster: 1u64.checked_shl(cluster).unwrap_or(1),
            },
            root_cluster: r.u32_le(0x60)?,
            device,
            facts,
            chains: Pieces::new(KEPT),
            names: Names::new(KEPT),
        })
    }

    /// The clusters of a file or directory of `bytes` bytes.
    fn chain(&self, first: u32, bytes: u64, contiguous: bool) -> Result<Arc<Vec<Run>>> {
        let max = bytes.div_ceil(self.table.cluster.max(1));
        let weigh = |runs: &Vec<Run>| runs.len().saturating_mul(8).saturating_add(64);
        self.chains.get_or(&(first, contiguous), weigh, || {
            if !contiguous {
                return self.table.chain(self.device.as_ref(), first, max);
            }
            let count = u32::try_from(max)
                .unwrap_or(u32::MAX)
                .min(self.table.clusters);
            Ok(vec![Run { first, count }])
        })
    }

    /// The entry set of a node. Its later entries may lie in the directory's next cluster.
    fn file(&self, node: NodeId) -> Result<File> {
        let contiguous = node.0 & CONTIGUOUS != 0;
        let position = (node.0 & !CONTIGUOUS).saturating_mul(wide(ENTRY));
        let first = read_vec(self.device.as_ref(), position, ENTRY)?;
        let mut second_at = position.saturating_add(wide(ENTRY));
        let within = position.saturating_sub(self.table.heap);
        let place = within.checked_rem(self.table.cluster).unwrap_or(0);
        if place.saturating_add(wide(ENTRY)) >= self.table.cluster && !contiguous {
            let index = within.checked_div(self.table.cluster).unwrap_or(0);
            let number = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(2);
            let chain = self.table.chain(self.device.as_ref(), number, 2)?;
            let next = match chain.as_slice() {
                [Run { first, count: 2.. }] => first.saturating_add(1),
                [_, Run { first, .. }] => *first,
                _ => return Err(self.corrupt(node, "an entry set without its second entry")),
            };
            second_at = self.table.place(next)?;
        }
        let second = read_vec(self.device.as_ref(), second_at, ENTRY)?;
        File::parse(
            &Record::new("exFAT file entry", position, &first),
            &Record::new("exFAT stream extension", second_at, &second),
        )
    }

    /// Calls `visit` with the name of each file, its node and whether it is a directory.
    fn scan(
        &self,
        dir: NodeId,
        visit: &mut dyn FnMut(Vec<u8>, NodeId, bool) -> ControlFlow<()>,
    ) -> Result<()> {
        let (first, size, contiguous) = if dir == ROOT {
            (self.root_cluster, DIRECTORY_MAX, false)
        } else {
            let file = self.file(dir)?;
            if !file.directory {
                return Err(self.corrupt(dir, "no directory"));
            }
            (file.cluster, file.size.min(DIRECTORY_MAX), file.contiguous)
        };
        if size == 0 {
            return Ok(());
        }
        let mut set = Set::default();
        for run in self.chain(first, size, contiguous)?.iter() {
            let start = self.table.place(run.first)?;
            let len = u64::from(run.count).saturating_mul(self.table.cluster);
            let mut done = 0;
            while done < len {
                let position = start.saturating_add(done);
                let want = narrow(len.saturating_sub(done).min(PIECE));
                let piece = read_vec(self.device.as_ref(), position, want)?;
                for (raw, at) in piece.chunks_exact(ENTRY).zip((position..).step_by(ENTRY)) {
                    let r = Record::new("exFAT directory entry", at, raw);
                    if r.u8(0)? == 0 {
                        return Ok(());
                    }
                    if r.u8(0)? == FILE {
                        let mark = if contiguous { CONTIGUOUS } else { 0 };
                        set = Set::begin(&r, (at / 32) | mark)?;
                    } else if let Some((name, node, directory)) = set.add(&r)?
                        && visit(name, NodeId(node), directory).is_break()
                    {
                        return Ok(());
                    }
                }
                done = done.saturating_add(PIECE);
            }
        }
        Ok(())
    }

    fn corrupt(&self, node: NodeId, problem: &str) -> DiskError {
        DiskError::Corrupt {
            structure: "exFAT directory entry",
            position: (node.0 & !CONTIGUOUS).saturating_mul(wide(ENTRY)),
            problem: problem.to_owned(),
        }
    }
}

impl FileSystem for ExFat {
    fn facts(&self) -> &FileSystemFacts {
        &self.facts
    }

    fn root(&self) -> NodeId {
        ROOT
    }

    /// exFAT has no owners; the mode is that of a file anybody may read.
    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let (directory, size, writable, mtime) = if node == ROOT {
            (true, 0, true, 0)
        } else {
            let file = self.file(node)?;
            (file.directory, file.size, !file.read_only, file.mtime)
        };
        Ok(Metadata {
            kind: if directory {
                NodeKind::Directory
            } else {
                NodeKind::File
            },
            size: if directory { 0 } else { size },
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
            self.scan(dir, &mut |name, node, _| tell(&name, node))
        })
    }

    fn read_dir(
        &self,
        dir: NodeId,
        visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<()> {
        self.scan(dir, &mut |name, node, directory| {
            let kind = if directory {
                NodeKind::Directory
            } else {
                NodeKind::File
            };
            visit(DirEntry {
                name,
                node,
                kind: Some(kind),
            })
        })
    }

    fn read_file_at(&self, node: NodeId, position: u64, buf: &mut [u8]) -> Result<usize> {
        if node == ROOT {
            return Err(self.corrupt(node, "no regular file"));
        }
        let file = self.file(node)?;
        if file.directory {
            return Err(self.corrupt(node, "no regular file"));
        }
        let len = narrow(file.size.saturating_sub(position)).min(buf.len());
        let (wanted, _) = buf.split_at_mut(len);
        // What lies beyond the valid length was never written.
        let valid = narrow(file.valid.saturating_sub(position)).min(len);
        let (written, unwritten) = wanted.split_at_mut(valid);
        unwritten.fill(0);
        if !written.is_empty() {
            let chain = self.chain(file.cluster, file.size, file.contiguous)?;
            self.table
                .read(self.device.as_ref(), &chain, position, written)?;
        }
        Ok(len)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        Err(self.corrupt(node, "no symbolic link"))
    }
}
