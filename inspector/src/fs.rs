//! The seam between file system readers and guest facts.

pub mod btrfs;
pub mod erofs;
pub mod exfat;
pub mod ext;
pub mod fat;
pub mod iso;
mod kept;
mod lz;
pub mod memory;
mod names;
pub mod ntfs;
pub(crate) mod pieces;
pub mod squashfs;
pub mod xfs;

use crate::error::Result;
use std::ops::ControlFlow;

/// An object of one file system (an inode number, or a reader's own index). Opaque to callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// What kind of object a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
}

/// Attributes of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Kind of object.
    pub kind: NodeKind,
    /// Length in bytes (for a symlink: of its target).
    pub size: u64,
    /// POSIX permission bits including set-uid, set-gid and sticky (0o7777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of content, seconds since 1970 UTC.
    pub mtime: i64,
    /// Number of hard links.
    pub links: u32,
}

/// One name in a directory. `.` and `..` are never reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Name as stored (bytes, any encoding).
    pub name: Vec<u8>,
    /// The object it names.
    pub node: NodeId,
    /// Its kind, where the directory says so.
    pub kind: Option<NodeKind>,
}

/// What `layers` and the report say of a file system as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileSystemFacts {
    /// Type as blkid names it: `ext4`, `vfat`, `swap`.
    pub fs_type: String,
    /// UUID in the form blkid prints, where there is one.
    pub uuid: Option<String>,
    /// Label, where there is one.
    pub label: Option<String>,
    /// Size in bytes as the file system claims.
    pub size_bytes: Option<u64>,
    /// Block size in bytes.
    pub block_size: Option<u32>,
    /// Feature names, sorted.
    pub features: Vec<String>,
    /// Whether a journal waits to be replayed.
    pub needs_recovery: bool,
    /// What the reader had to leave out or could not trust, in words.
    pub warnings: Vec<String>,
}

/// A read-only file system. Bounded: every method ends on any image, hostile ones included.
pub trait FileSystem: Send + Sync {
    /// Facts about the whole.
    fn facts(&self) -> &FileSystemFacts;

    /// The root directory.
    fn root(&self) -> NodeId;

    /// Attributes of a node.
    ///
    /// # Errors
    /// `Corrupt` or any read error.
    fn metadata(&self, node: NodeId) -> Result<Metadata>;

    /// Finds a name in a directory without following symlinks; `None` when it is not there.
    ///
    /// # Errors
    /// `Corrupt` or any read error; `Corrupt` too when `dir` is no directory.
    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>>;

    /// Calls `visit` for each entry until it breaks or the directory ends.
    ///
    /// # Errors
    /// `Corrupt` or any read error. Entries before the damage were visited.
    fn read_dir(
        &self,
        dir: NodeId,
        visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<()>;

    /// Reads up to `buf.len()` bytes of a file from `position`; 0 at its end. Holes read as zeros.
    ///
    /// # Errors
    /// `Corrupt` or any read error.
    fn read_file_at(&self, node: NodeId, position: u64, buf: &mut [u8]) -> Result<usize>;

    /// Target of a symbolic link, as stored.
    ///
    /// # Errors
    /// `Corrupt` or any read error.
    fn read_link(&self, node: NodeId) -> Result<Vec<u8>>;

    /// Value of an extended attribute by its full name (`security.selinux`); `None` when the node
    /// has none of that name, or the file system has no such attributes.
    ///
    /// # Errors
    /// `Corrupt` or any read error.
    fn xattr(&self, _node: NodeId, _name: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    /// Subvolumes and snapshots, the top one included, sorted by id; empty where the file system
    /// knows no such thing. [`FileSystem::root`] is the root of the default one.
    ///
    /// # Errors
    /// `Corrupt` or any read error.
    fn subvolumes(&self) -> Result<Vec<Subvolume>> {
        Ok(Vec::new())
    }
}

/// A subvolume of btrfs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Subvolume {
    /// Its tree's id; 5 is the top one.
    pub id: u64,
    /// Path from the top subvolume, empty for the top itself.
    pub path: String,
    /// UUID.
    pub uuid: Option<String>,
    /// UUID of the subvolume that it is a snapshot of.
    pub snapshot_of: Option<String>,
    /// Whether it is read-only.
    pub read_only: bool,
    /// Whether it is mounted when nothing else is named.
    pub default: bool,
    /// Its root directory.
    #[serde(skip)]
    pub root: NodeId,
}
