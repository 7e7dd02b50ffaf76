//! Opening image files on the host: only beneath allow-listed roots, race-free, read-only.
//!
//! `openat2(RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)` makes the kernel refuse every path that
//! leaves its root, by `..`, by an absolute symlink or by a rename in between. What was opened is
//! what is checked (`fstat`) and what is read: swapping the name afterwards changes nothing.

use super::{Opener, Reading, Source};
use crate::error::{DiskError, Result};
use crate::layer::check_range;
use crate::read_at::ReadAt;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Directories beneath which images may be opened. Empty means that everything is refused.
#[derive(Default)]
pub struct HostRoots {
    roots: Vec<Root>,
    devices: bool,
}

struct Root {
    /// As configured, and as the kernel names it; both are accepted as prefix of absolute paths.
    names: [PathBuf; 2],
    dir: OwnedFd,
}

/// An image file, opened for reading. Clones share the descriptor: a confined process may be
/// allowed no further one.
#[derive(Debug, Clone)]
pub struct HostFile {
    /// The open file.
    pub file: Arc<File>,
    /// Length in bytes.
    pub len: u64,
    /// Bytes it takes up on the host's disk.
    pub allocated: u64,
    /// Device and inode number: tells whether two names are one file.
    pub identity: (u64, u64),
    place: Option<Place>,
}

/// Where a file was found: relative names inside it are resolved against its directory.
#[derive(Debug, Clone)]
struct Place {
    root: usize,
    dir: PathBuf,
}

impl HostRoots {
    /// Opens the root directories themselves.
    ///
    /// # Errors
    /// `NotFound` or `Io` when a root is no readable directory.
    pub fn new<P: AsRef<Path>>(roots: impl IntoIterator<Item = P>) -> Result<Self> {
        let mut opened = Vec::new();
        for root in roots {
            let root = root.as_ref();
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = rustix::fs::open(root, flags, Mode::empty())
                .map_err(|e| refusal(e, &format!("root {}", root.display())))?;
            let canonical = root.canonicalize().unwrap_or_else(|_| root.to_owned());
            let named = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
            opened.push(Root {
                names: [named, canonical],
                dir,
            });
        }
        Ok(Self {
            roots: opened,
            devices: false,
        })
    }

    /// Whether block devices may be opened like files. Off by default.
    #[must_use]
    pub fn with_devices(mut self, devices: bool) -> Self {
        self.devices = devices;
        self
    }

    /// Opens an image. An absolute path must lie beneath a root; a relative one is tried in the
    /// roots' order.
    ///
    /// # Errors
    /// `Denied` outside the roots or when it is no regular file, `NotFound`, `Io`.
    pub fn open(&self, path: &Path) -> Result<HostFile> {
        if path.is_absolute() {
            return self.open_absolute(path);
        }
        if self.roots.is_empty() {
            return Err(denied(path, "no root is allowed"));
        }
        let mut missing = None;
        for root in 0..self.roots.len() {
            match self.open_in(root, path) {
                Err(e @ DiskError::NotFound { .. }) => missing = Some(e),
                other => return other,
            }
        }
        Err(missing.unwrap_or_else(|| denied(path, "no root is allowed")))
    }

    /// Opens the file that `from` names: its backing file, a data extent, its parent. A relative
    /// name counts from the directory of `from`.
    ///
    /// # Errors
    /// As [`HostRoots::open`]; `Denied` also for `json:` and protocol names.
    pub fn open_related(&self, from: &HostFile, name: &[u8]) -> Result<HostFile> {
        let path = plain_name(name)?;
        if path.is_absolute() {
            return self.open_absolute(path);
        }
        let Some(place) = &from.place else {
            return Err(denied(
                path,
                "the file that names it was not opened beneath a root",
            ));
        };
        match self.open_in(place.root, &place.dir.join(path)) {
            // It may lie beneath another root. `..` is resolved by name here; what is opened in the
            // end still goes through `openat2` beneath that root.
            Err(refused @ DiskError::Denied { .. }) => match self.place_name(place, path) {
                Some(absolute) => self.open_absolute(&absolute).map_err(|_| refused),
                None => Err(refused),
            },
            answer => answer,
        }
    }

    fn place_name(&self, place: &Place, path: &Path) -> Option<PathBuf> {
        let [named, _] = &self.roots.get(place.root)?.names;
        let mut absolute = PathBuf::new();
        for part in named.join(&place.dir).join(path).components() {
            match part {
                Component::ParentDir => {
                    absolute.pop();
                }
                Component::CurDir => {}
                other => absolute.push(other),
            }
        }
        Some(absolute)
    }

    fn open_absolute(&self, path: &Path) -> Result<HostFile> {
        let mut answer = denied(path, "it lies beneath no allowed root");
        for (root, known) in self.roots.iter().enumerate() {
            for name in &known.names {
                let Ok(beneath) = path.strip_prefix(name) else {
                    continue;
                };
                match self.open_in(root, beneath) {
                    Ok(file) => return Ok(file),
                    Err(e) => answer = e,
                }
            }
        }
        Err(answer)
    }

    fn open_in(&self, root: usize, path: &Path) -> Result<HostFile> {
        let Some(known) = self.roots.get(root) else {
            return Err(denied(path, "no such root"));
        };
        // NONBLOCK: opening a pipe must not hang; it is refused right after.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0u8;
        let fd = loop {
            match rustix::fs::openat2(&known.dir, path, flags, Mode::empty(), resolve) {
                // A rename somewhere made the kernel unsure; it asks to try again.
                Err(Errno::AGAIN | Errno::INTR) if tries < 8 => tries = tries.saturating_add(1),
                other => break other.map_err(|e| refusal(e, &path.display().to_string()))?,
            }
        };
        let place = Place {
            root,
            dir: path.parent().map(Path::to_owned).unwrap_or_default(),
        };
        HostFile::check(fd.into(), self.devices, Some(place), path)
    }
}

impl HostFile {
    /// Takes a file that somebody else opened, for example a parent process. It has no place, so
    /// no name inside it is resolved.
    ///
    /// # Errors
    /// `Denied` when it is neither a regular file nor a block device, `Io`.
    pub fn from_file(file: File) -> Result<Self> {
        Self::check(file, true, None, Path::new("inherited file"))
    }

    fn check(mut file: File, devices: bool, place: Option<Place>, path: &Path) -> Result<Self> {
        let io = |e: std::io::Error| DiskError::Io {
            position: 0,
            message: format!("{}: {e}", path.display()),
        };
        let stat = rustix::fs::fstat(&file).map_err(|e| io(e.into()))?;
        let len = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => u64::try_from(stat.st_size).unwrap_or(0),
            FileType::BlockDevice if devices => file.seek(SeekFrom::End(0)).map_err(io)?,
            FileType::BlockDevice => return Err(denied(path, "devices are not allowed")),
            FileType::Directory => return Err(denied(path, "it is a directory")),
            _ => return Err(denied(path, "it is no regular file")),
        };
        Ok(Self {
            file: Arc::new(file),
            len,
            allocated: u64::try_from(stat.st_blocks)
                .unwrap_or(0)
                .saturating_mul(512),
            identity: (stat.st_dev, stat.st_ino),
            place,
        })
    }
}

/// Refuses everything but a plain path: no `json:`, no `protocol:`, no NUL.
pub(super) fn plain_name(name: &[u8]) -> Result<&Path> {
    let shown = || PathBuf::from(String::from_utf8_lossy(name).into_owned());
    if name.is_empty() || name.contains(&0) {
        return Err(denied(&shown(), "it is no file name"));
    }
    // qemu reads anything before the first colon as a protocol, unless a slash comes first.
    let colon = name.iter().position(|b| *b == b':');
    let slash = name.iter().position(|b| *b == b'/');
    if colon.is_some_and(|colon| slash.is_none_or(|slash| colon < slash)) {
        return Err(denied(&shown(), "only plain file names are followed"));
    }
    let path: &Path =
        Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name));
    if path
        .components()
        .any(|part| matches!(part, Component::Prefix(_)))
    {
        return Err(denied(path, "only plain file names are followed"));
    }
    Ok(path)
}

pub(super) fn denied(path: &Path, why: &str) -> DiskError {
    let shown: String = path.display().to_string().chars().take(256).collect();
    DiskError::Denied {
        reason: format!("{}: {why}", shown.escape_debug()),
    }
}

fn refusal(error: Errno, what: &str) -> DiskError {
    let what: String = what
        .chars()
        .take(256)
        .collect::<String>()
        .escape_debug()
        .to_string();
    match error {
        Errno::NOENT | Errno::NOTDIR => DiskError::NotFound { what },
        Errno::XDEV => DiskError::Denied {
            reason: format!("{what}: it leads out of the allowed root"),
        },
        Errno::ACCESS | Errno::PERM => DiskError::Denied {
            reason: format!("{what}: the operating system refuses ({error})"),
        },
        Errno::LOOP => DiskError::Denied {
            reason: format!("{what}: too many symbolic links"),
        },
        Errno::NXIO => DiskError::Denied {
            reason: format!("{what}: it is no regular file"),
        },
        error => DiskError::Io {
            position: 0,
            message: format!("{what}: {error}"),
        },
    }
}

/// An open file as a layer: `pread`, no cursor.
pub struct FileLayer {
    file: Arc<File>,
    len: u64,
}

impl FileLayer {
    /// The file's bytes, with the length it had when it was opened.
    pub fn new(file: Arc<File>, len: u64) -> Self {
        Self { file, len }
    }
}

impl ReadAt for FileLayer {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, position: u64, buf: &mut [u8]) -> Result<()> {
        check_range(position, buf.len(), self.len)?;
        self.file
            .read_exact_at(buf, position)
            .map_err(|e| DiskError::Io {
                position,
                message: e.to_string(),
            })
    }
}

/// Opens an image, and what it names, beneath the roots.
pub struct HostOpener<'a> {
    /// Where files may be opened.
    pub roots: &'a HostRoots,
    /// The image.
    pub path: &'a Path,
    /// Budget and cache.
    pub reading: &'a Reading,
}

impl Opener for HostOpener<'_> {
    fn image(&self) -> Result<Source> {
        Ok(self.reading.host_source(self.roots.open(self.path)?))
    }

    fn related(&self, from: &Source, name: &[u8]) -> Result<Source> {
        let path = plain_name(name)?;
        let Some(host) = &from.host else {
            return Err(denied(path, "an image inside an archive names no files"));
        };
        let file = self.roots.open_related(host, name)?;
        Ok(self.reading.host_source(file))
    }
}
