//! A guest's tree: its file systems put together, paths resolved inside it and never out of it.

use crate::bytes::wide;
use crate::error::{DiskError, Result};
use crate::fs::{DirEntry, FileSystem, Metadata, NodeId, NodeKind};
use crate::layer::check_range;
use crate::read_at::ReadAt;
use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

/// Symbolic links followed on one path: Linux' own limit.
const HOPS_MAX: usize = 40;
/// Components of one path, links included.
const DEPTH_MAX: usize = 256;
/// Names listed of one directory.
const LIST_MAX: usize = 200_000;
/// Read at a time.
const CHUNK: usize = 256 << 10;
/// Names remembered, some 100 bytes each. A report asks for about 2,000.
const KNOWN_MAX: usize = 32_768;

struct Mount {
    /// Components of the mount point.
    at: Vec<Vec<u8>>,
    found: Found,
}

/// A directory: number of its mount, node.
type Directory = (usize, NodeId);

/// What is known of names and nodes. A listing does not say that a name is missing: some file
/// systems ignore case.
#[derive(Default)]
struct Known {
    names: HashMap<Directory, HashMap<Vec<u8>, Option<NodeId>>>,
    listed: HashMap<Directory, Arc<Vec<DirEntry>>>,
    kinds: HashMap<Directory, NodeKind>,
    count: usize,
}

impl Known {
    /// Makes room for `more` names: what is known is forgotten rather than without end.
    fn make_room(&mut self, more: usize) {
        if self.count.saturating_add(more) > KNOWN_MAX {
            *self = Self::default();
        }
        self.count = self.count.saturating_add(more);
    }
}

/// The root of a guest, with what is mounted beneath it.
pub struct GuestRoot {
    mounts: Vec<Mount>,
    known: Mutex<Known>,
    trouble: Mutex<Option<DiskError>>,
}

/// A node with the file system it lies in.
#[derive(Clone)]
pub struct Found {
    fs: Arc<dyn FileSystem>,
    /// Number of the mount it was found beneath.
    mount: usize,
    /// Its number there.
    pub node: NodeId,
}

/// A regular file of a guest as a layer of its own, for readers that want positions.
pub struct FileLayer {
    found: Found,
    len: u64,
}

impl ReadAt for FileLayer {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, position: u64, buf: &mut [u8]) -> Result<()> {
        check_range(position, buf.len(), self.len)?;
        let mut at = position;
        let mut rest = buf;
        while !rest.is_empty() {
            let length = self.found.fs.read_file_at(self.found.node, at, rest)?;
            if length == 0 {
                return Err(DiskError::OutOfBounds {
                    position: at,
                    wanted: wide(rest.len()),
                    end: at,
                });
            }
            at = at.saturating_add(wide(length));
            rest = rest.get_mut(length..).unwrap_or_default();
        }
        Ok(())
    }
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

    /// Value of an extended attribute.
    ///
    /// # Errors
    /// As [`FileSystem::xattr`].
    pub fn xattr(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.fs.xattr(self.node, name)
    }

    /// The file as a layer; `None` when it is no regular file.
    ///
    /// # Errors
    /// As [`FileSystem::metadata`].
    pub fn layer(&self) -> Result<Option<FileLayer>> {
        let metadata = self.metadata()?;
        Ok((metadata.kind == NodeKind::File).then(|| FileLayer {
            found: self.clone(),
            len: metadata.size,
        }))
    }

    /// The first bytes of a file, at most `len`.
    ///
    /// # Errors
    /// As [`FileSystem::read_file_at`].
    pub fn head(&self, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let length = self.fs.read_file_at(self.node, 0, &mut bytes)?;
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Whether both are the same object: each mount point of one file system is told apart by its
    /// number, so that a bind mount is not walked twice.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.node == other.node && Arc::ptr_eq(&self.fs, &other.fs)
    }

    fn beside(&self, node: NodeId) -> Self {
        Self {
            fs: Arc::clone(&self.fs),
            mount: self.mount,
            node,
        }
    }

    fn entries(&self) -> Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        self.fs.read_dir(self.node, &mut |entry| {
            entries.push(entry);
            if entries.len() >= LIST_MAX {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if entries.len() >= LIST_MAX {
            return Err(over("names in a directory", LIST_MAX));
        }
        entries.sort_unstable_by(|a, b| (&a.name, a.node).cmp(&(&b.name, b.node)));
        Ok(entries)
    }

    /// Names and nodes of a directory of its file system, sorted by name; what is mounted beneath it
    /// is not seen.
    ///
    /// # Errors
    /// As [`FileSystem::read_dir`]; `OverBudget` for a directory without end.
    pub fn children(&self) -> Result<Vec<(Vec<u8>, Self)>> {
        let named = |entry: DirEntry| (entry.name, self.beside(entry.node));
        Ok(self.entries()?.into_iter().map(named).collect())
    }

    /// Calls `take` with the file's bytes, piece by piece.
    ///
    /// # Errors
    /// As [`FileSystem::read_file_at`].
    pub fn read_all(&self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        // Most files are small: a buffer of their size costs less than a large one that is cleared.
        let size = self.metadata()?.size.clamp(1, wide(CHUNK));
        let mut buffer = vec![0; crate::bytes::narrow(size)];
        let mut position = 0_u64;
        loop {
            let length = self.fs.read_file_at(self.node, position, &mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            take(buffer.get(..length).unwrap_or_default())?;
            position = position.saturating_add(wide(length));
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
        let node = fs.root();
        Self::of(fs, node)
    }

    /// A guest whose root directory is `node` of `fs`: a subvolume, or a folder of an image.
    #[must_use]
    pub fn of(fs: Arc<dyn FileSystem>, node: NodeId) -> Self {
        let mut root = Self {
            mounts: Vec::new(),
            known: Mutex::new(Known::default()),
            trouble: Mutex::default(),
        };
        root.mount_node("/", fs, node);
        root
    }

    /// Mounts a further file system. Later mounts win over earlier ones at the same place.
    pub fn mount(&mut self, at: &str, fs: Arc<dyn FileSystem>) {
        let node = fs.root();
        self.mount_node(at, fs, node);
    }

    /// Mounts a directory of a further file system, or of one that is mounted already.
    pub fn mount_node(&mut self, at: &str, fs: Arc<dyn FileSystem>, node: NodeId) {
        let at = components(at.as_bytes()).map(<[u8]>::to_vec).collect();
        let mount = self.mounts.len();
        let found = Found { fs, mount, node };
        self.mounts.push(Mount { at, found });
    }

    /// Finds a path, links followed; `None` when something of it is missing.
    ///
    /// # Errors
    /// `OverBudget` for link loops and endless paths, else what the file system answers.
    pub fn find(&self, path: &str) -> Result<Option<Found>> {
        self.noted(self.resolve(path.as_bytes(), true))
    }

    /// Finds a path, but does not follow a link at its end.
    ///
    /// # Errors
    /// As [`GuestRoot::find`].
    pub fn find_link(&self, path: &str) -> Result<Option<Found>> {
        self.noted(self.resolve(path.as_bytes(), false))
    }

    /// The first failure of this root since it was last asked for, but for what is only missing. Who
    /// goes on without a file that cannot be read still has to say that there was one.
    #[must_use]
    pub fn take_trouble(&self) -> Option<DiskError> {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.take()
    }

    fn noted<T>(&self, outcome: Result<T>) -> Result<T> {
        if let Err(error) = &outcome
            && !matches!(error, DiskError::NotFound { .. })
        {
            let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            trouble.get_or_insert_with(|| error.clone());
        }
        outcome
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
            if self.kind(&here)? != NodeKind::Directory {
                return Ok(None);
            }
            let Some(found) = self.lookup(&here, &name)? else {
                return Ok(None);
            };
            let is_last = todo.is_empty();
            if (!is_last || follow_last) && self.kind(&found)? == NodeKind::Symlink {
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

    fn known<T>(&self, ask: impl FnOnce(&mut Known) -> T) -> T {
        // What is known stays right when a thread that asked has panicked.
        ask(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn kind(&self, found: &Found) -> Result<NodeKind> {
        let key = (found.mount, found.node);
        if let Some(kind) = self.known(|known| known.kinds.get(&key).copied()) {
            return Ok(kind);
        }
        let kind = found.metadata()?.kind;
        self.known(|known| {
            known.make_room(1);
            known.kinds.insert(key, kind);
        });
        Ok(kind)
    }

    fn lookup(&self, dir: &Found, name: &[u8]) -> Result<Option<Found>> {
        let key = (dir.mount, dir.node);
        let known = self.known(|known| known.names.get(&key)?.get(name).copied());
        let node = match known {
            Some(node) => node,
            None => {
                let node = dir.fs.lookup(dir.node, name)?;
                self.known(|known| {
                    known.make_room(1);
                    let names = known.names.entry(key).or_default();
                    names.insert(name.to_vec(), node);
                });
                node
            }
        };
        Ok(node.map(|node| dir.beside(node)))
    }

    /// The node of a place: a mount there wins over the directory it hides.
    fn at(&self, place: &[(Vec<u8>, Found)]) -> Result<Found> {
        let mounted = self.mounts.iter().rev().find(|mount| {
            mount.at.len() == place.len() && mount.at.iter().zip(place).all(|(a, (b, _))| a == b)
        });
        if let Some(mount) = mounted {
            return Ok(mount.found.clone());
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
        match self.find(path)? {
            Some(found) => self.noted(read(&found, path, cap)),
            None => Ok(None),
        }
    }

    /// Reads a text file; bytes that are no UTF-8 are replaced.
    ///
    /// # Errors
    /// As [`GuestRoot::read`].
    pub fn text(&self, path: &str, cap: u64) -> Result<Option<String>> {
        // Nearly all files are valid text, and then nothing is copied.
        Ok(self.read(path, cap)?.map(|bytes| {
            String::from_utf8(bytes)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
        }))
    }

    /// What is mounted, the root included: place and directory, in the order of mounting.
    #[must_use]
    pub fn mount_points(&self) -> Vec<(Vec<u8>, Found)> {
        let place = |mount: &Mount| {
            let mut path = Vec::new();
            for part in &mount.at {
                path.push(b'/');
                path.extend_from_slice(part);
            }
            (path, mount.found.clone())
        };
        self.mounts.iter().map(place).collect()
    }

    /// Names in a directory, sorted; empty when it is missing or no directory.
    ///
    /// # Errors
    /// As [`FileSystem::read_dir`]; `OverBudget` for a directory without end.
    pub fn list(&self, path: &str) -> Result<Vec<Name>> {
        let entries = self.entries(path)?;
        Ok(entries
            .into_iter()
            .map(|(bytes, _)| Name { bytes })
            .collect())
    }

    /// Names in a directory with their nodes (links not followed, mounts not seen), sorted; empty
    /// when it is missing or no directory.
    ///
    /// # Errors
    /// As [`GuestRoot::list`].
    pub fn entries(&self, path: &str) -> Result<Vec<(Vec<u8>, Found)>> {
        match self.find(path)? {
            Some(dir) => self.noted(self.children(&dir)),
            None => Ok(Vec::new()),
        }
    }

    /// As [`GuestRoot::entries`], of a directory that was found.
    ///
    /// # Errors
    /// As [`GuestRoot::list`].
    pub fn children(&self, dir: &Found) -> Result<Vec<(Vec<u8>, Found)>> {
        if self.kind(dir)? != NodeKind::Directory {
            return Ok(Vec::new());
        }
        let listed = self.listed(dir)?;
        let named = |entry: &DirEntry| (entry.name.clone(), dir.beside(entry.node));
        Ok(listed.iter().map(named).collect())
    }

    fn listed(&self, dir: &Found) -> Result<Arc<Vec<DirEntry>>> {
        let key = (dir.mount, dir.node);
        if let Some(listed) = self.known(|known| known.listed.get(&key).cloned()) {
            return Ok(listed);
        }
        let entries = Arc::new(dir.entries()?);
        if entries.len() < KNOWN_MAX / 4 {
            self.known(|known| {
                known.make_room(entries.len().saturating_mul(2));
                let names = known.names.entry(key).or_default();
                for entry in entries.iter().rev() {
                    names.insert(entry.name.clone(), Some(entry.node));
                }
                for (node, kind) in entries.iter().filter_map(|e| Some((e.node, e.kind?))) {
                    known.kinds.insert((dir.mount, node), kind);
                }
                known.listed.insert(key, Arc::clone(&entries));
            });
        }
        Ok(entries)
    }
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
}

fn read(found: &Found, path: &str, cap: u64) -> Result<Option<Vec<u8>>> {
    let metadata = found.metadata()?;
    if metadata.kind != NodeKind::File {
        return Ok(None);
    }
    if metadata.size > cap {
        return Err(DiskError::OverBudget {
            budget: format!("{path} has {} bytes, {cap} are read", metadata.size),
        });
    }
    let mut bytes = vec![0; crate::bytes::narrow(metadata.size)];
    let mut filled = 0_usize;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let length = found.fs.read_file_at(found.node, wide(filled), rest)?;
        if length == 0 {
            break;
        }
        filled = filled.saturating_add(length);
    }
    bytes.truncate(filled);
    Ok(Some(bytes))
}

fn over(what: &str, limit: usize) -> DiskError {
    DiskError::OverBudget {
        budget: format!("{limit} {what}"),
    }
}
