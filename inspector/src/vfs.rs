//! A guest's tree: its file systems put together, paths resolved inside it and never out of it.

use crate::error::{DiskError, Result};
use crate::fs::{FileSystem, Metadata, NodeId, NodeKind};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Symbolic links followed on one path: Linux' own limit.
const HOPS_MAX: usize = 40;
/// Components of one path, links included.
const DEPTH_MAX: usize = 256;
/// Names listed of one directory.
const LIST_MAX: usize = 200_000;
/// Read at a time.
const CHUNK: usize = 256 << 10;

struct Mount {
    /// Components of the mount point.
    at: Vec<Vec<u8>>,
    fs: Arc<dyn FileSystem>,
}

/// The root of a guest, with what is mounted beneath it.
pub struct GuestRoot {
    mounts: Vec<Mount>,
}

/// A node with the file system it lies in.
#[derive(Clone)]
pub struct Found {
    fs: Arc<dyn FileSystem>,
    /// Its number there.
    pub node: NodeId,
}

impl Found {
    /// Its attributes.
    ///
    /// # Errors
    /// As [`FileSystem::metadata`].
    pub fn metadata(&self) -> Result<Metadata> {
        self.fs.metadata(self.node)
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// As [`FileSystem::read_link`].
    pub fn read_link(&self) -> Result<Vec<u8>> {
        self.fs.read_link(self.node)
    }

    /// Names and nodes of a directory of its file system, sorted by name; what is mounted beneath it
    /// is not seen.
    ///
    /// # Errors
    /// As [`FileSystem::read_dir`]; `OverBudget` for a directory without end.
    pub fn children(&self) -> Result<Vec<(Vec<u8>, Self)>> {
        let mut found = Vec::new();
        self.fs.read_dir(self.node, &mut |entry| {
            found.push((entry.name, entry.node));
            if found.len() >= LIST_MAX {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if found.len() >= LIST_MAX {
            return Err(over("names in a directory", LIST_MAX));
        }
        found.sort_unstable();
        Ok(found
            .into_iter()
            .map(|(name, node)| {
                let fs = Arc::clone(&self.fs);
                (name, Self { fs, node })
            })
            .collect())
    }

    /// Calls `take` with the file's bytes, piece by piece.
    ///
    /// # Errors
    /// As [`FileSystem::read_file_at`].
    pub fn read_all(&self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut position = 0_u64;
        loop {
            let length = self.fs.read_file_at(self.node, position, &mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            take(buffer.get(..length).unwrap_or_default())?;
            position = position.saturating_add(u64::try_from(length).unwrap_or(0));
        }
    }
}

/// One name of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// As stored.
    pub bytes: Vec<u8>,
}

impl Name {
    /// As text; names of no interest to us are not UTF-8.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl GuestRoot {
    /// A guest whose root directory is that of `fs`.
    #[must_use]
    pub fn new(fs: Arc<dyn FileSystem>) -> Self {
        Self {
            mounts: vec![Mount { at: Vec::new(), fs }],
        }
    }

    /// Mounts a further file system. Longer mount points win.
    pub fn mount(&mut self, at: &str, fs: Arc<dyn FileSystem>) {
        let at = components(at.as_bytes()).map(<[u8]>::to_vec).collect();
        self.mounts.push(Mount { at, fs });
    }

    /// Finds a path, links followed; `None` when something of it is missing.
    ///
    /// # Errors
    /// `OverBudget` for link loops and endless paths, else what the file system answers.
    pub fn find(&self, path: &str) -> Result<Option<Found>> {
        self.resolve(path.as_bytes(), true)
    }

    /// Finds a path, but does not follow a link at its end.
    ///
    /// # Errors
    /// As [`GuestRoot::find`].
    pub fn find_link(&self, path: &str) -> Result<Option<Found>> {
        self.resolve(path.as_bytes(), false)
    }

    fn resolve(&self, path: &[u8], follow_last: bool) -> Result<Option<Found>> {
        let mut todo: VecDeque<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
        let mut place: Vec<(Vec<u8>, Found)> = Vec::new();
        let (mut hops, mut steps) = (0_usize, 0_usize);
        while let Some(name) = todo.pop_front() {
            steps = steps.saturating_add(1);
            if steps > DEPTH_MAX {
                return Err(over("path components", DEPTH_MAX));
            }
            if name == b".." {
                // At the root, `..` is the root.
                place.pop();
                continue;
            }
            let here = self.at(&place)?;
            if here.metadata()?.kind != NodeKind::Directory {
                return Ok(None);
            }
            let Some(node) = here.fs.lookup(here.node, &name)? else {
                return Ok(None);
            };
            let found = Found { fs: here.fs, node };
            let is_last = todo.is_empty();
            if found.metadata()?.kind == NodeKind::Symlink && (!is_last || follow_last) {
                hops = hops.saturating_add(1);
                if hops > HOPS_MAX {
                    return Err(over("symbolic links", HOPS_MAX));
                }
                let target = found.read_link()?;
                if target.first() == Some(&b'/') {
                    place.clear();
                }
                for part in components(&target).collect::<Vec<_>>().into_iter().rev() {
                    todo.push_front(part.to_vec());
                }
                continue;
            }
            place.push((name, found));
        }
        self.at(&place).map(Some)
    }

    /// The node of a place: a mount there wins over the directory it hides.
    fn at(&self, place: &[(Vec<u8>, Found)]) -> Result<Found> {
        let mounted = self.mounts.iter().rev().find(|mount| {
            mount.at.len() == place.len() && mount.at.iter().zip(place).all(|(a, (b, _))| a == b)
        });
        if let Some(mount) = mounted {
            return Ok(Found {
                fs: Arc::clone(&mount.fs),
                node: mount.fs.root(),
            });
        }
        place
            .last()
            .map(|(_, found)| found.clone())
            .ok_or_else(|| DiskError::NotFound {
                what: "the root directory".to_owned(),
            })
    }

    /// Whether a path exists.
    ///
    /// # Errors
    /// As [`GuestRoot::find`].
    pub fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.find(path)?.is_some())
    }

    /// Reads a regular file of at most `cap` bytes; `None` when it is missing or something else.
    ///
    /// # Errors
    /// `OverBudget` when it is larger.
    pub fn read(&self, path: &str, cap: u64) -> Result<Option<Vec<u8>>> {
        let Some(found) = self.find(path)? else {
            return Ok(None);
        };
        let metadata = found.metadata()?;
        if metadata.kind != NodeKind::File {
            return Ok(None);
        }
        if metadata.size > cap {
            return Err(DiskError::OverBudget {
                budget: format!("{path} has {} bytes, {cap} are read", metadata.size),
            });
        }
        let mut bytes = Vec::new();
        found.read_all(|piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(Some(bytes))
    }

    /// Reads a text file; bytes that are no UTF-8 are replaced.
    ///
    /// # Errors
    /// As [`GuestRoot::read`].
    pub fn text(&self, path: &str, cap: u64) -> Result<Option<String>> {
        Ok(self
            .read(path, cap)?
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Names in a directory, sorted; empty when it is missing or no directory.
    ///
    /// # Errors
    /// As [`FileSystem::read_dir`]; `OverBudget` for a directory without end.
    pub fn list(&self, path: &str) -> Result<Vec<Name>> {
        let Some(found) = self.find(path)? else {
            return Ok(Vec::new());
        };
        if found.metadata()?.kind != NodeKind::Directory {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        found.fs.read_dir(found.node, &mut |entry| {
            names.push(Name { bytes: entry.name });
            if names.len() >= LIST_MAX {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if names.len() >= LIST_MAX {
            return Err(over(path, LIST_MAX));
        }
        names.sort_unstable();
        Ok(names)
    }
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
}

fn over(what: &str, limit: usize) -> DiskError {
    DiskError::OverBudget {
        budget: format!("{limit} {what}"),
    }
}
