//! Opening image files on the host: only beneath allow-listed roots, race-free, read-only.
//!
//! `openat2(RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)` makes the kernel refuse every path that
//! leaves its root, by `..`, by an absolute symlink or by a rename in between. Names stored inside
//! images (backing files) go the same way and are never interpreted as URLs or JSON.

use crate::budget::{Budget, Meter};
use crate::cache::BlockCache;
use crate::error::{DiskError, Result};
use crate::layer::check_range;
use crate::read_at::{Layer, ReadAt};
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

/// An image file, opened for reading.
#[derive(Debug)]
pub struct HostFile {
    /// The open file.
    pub file: File,
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

    /// Opens the file that `overlay` names as its backing file.
    ///
    /// # Errors
    /// As [`HostRoots::open`]; `Denied` also for `json:` and protocol names.
    pub fn open_backing(&self, overlay: &HostFile, name: &[u8]) -> Result<HostFile> {
        let path = plain_name(name)?;
        if path.is_absolute() {
            return self.open_absolute(path);
        }
        let Some(place) = &overlay.place else {
            return Err(denied(path, "the overlay was not opened beneath a root"));
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
    /// it cannot name backing files.
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
            file,
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
fn plain_name(name: &[u8]) -> Result<&Path> {
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

fn denied(path: &Path, why: &str) -> DiskError {
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
    file: File,
    len: u64,
}

impl FileLayer {
    /// The file's bytes, with the length it had when it was opened.
    pub fn new(file: File, len: u64) -> Self {
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

/// One file of an image, ready to be read: metered and cached.
pub struct Source {
    /// Its bytes.
    pub layer: Layer,
    /// Bytes it takes up on the host's disk.
    pub allocated: u64,
    /// Tells whether two sources are one file.
    pub identity: (u64, u64),
    /// Position in the chain: 0 is the image itself.
    pub depth: usize,
    host: Option<HostFile>,
}

/// Answers for the backing file of an image file.
pub trait Opener {
    /// The image itself.
    ///
    /// # Errors
    /// As [`HostRoots::open`].
    fn image(&self) -> Result<Source>;

    /// The file that `overlay` names as its backing file.
    ///
    /// # Errors
    /// As [`HostRoots::open_backing`].
    fn backing(&self, overlay: &Source, name: &[u8]) -> Result<Source>;
}

/// Memory of the block cache unless said otherwise.
pub const CACHE_BYTES: usize = 4 << 20;

/// What every file of one image shares.
pub struct Reading {
    budget: Arc<Budget>,
    cache: Arc<BlockCache>,
}

impl Reading {
    /// Readers charged to `budget`, with a cache of [`CACHE_BYTES`].
    pub fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            cache: BlockCache::new(CACHE_BYTES),
        }
    }

    /// A source over any layer; `identity` tells files apart.
    pub fn source(&self, layer: Layer, identity: (u64, u64), depth: usize) -> Source {
        let allocated = layer.len();
        let metered: Layer = Arc::new(Meter::new(layer, Arc::clone(&self.budget)));
        Source {
            layer: Arc::new(self.cache.attach(metered, Arc::clone(&self.budget))),
            allocated,
            identity,
            depth,
            host: None,
        }
    }

    fn host_source(&self, host: HostFile, depth: usize) -> Result<Source> {
        let file = host.file.try_clone().map_err(|e| DiskError::Io {
            position: 0,
            message: e.to_string(),
        })?;
        let layer = Arc::new(FileLayer::new(file, host.len));
        let mut source = self.source(layer, host.identity, depth);
        source.allocated = host.allocated;
        source.host = Some(host);
        Ok(source)
    }
}

/// Opens an image and its backing files beneath the roots.
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
        self.reading.host_source(self.roots.open(self.path)?, 0)
    }

    fn backing(&self, overlay: &Source, name: &[u8]) -> Result<Source> {
        let Some(host) = &overlay.host else {
            return Err(denied(Path::new(""), "the overlay is no host file"));
        };
        let depth = overlay.depth.saturating_add(1);
        self.reading
            .host_source(self.roots.open_backing(host, name)?, depth)
    }
}

/// A chain whose files were opened before, by [`crate::container::open_chain`] in a parent process:
/// the image first, then its backing file, and so on. Opens nothing.
pub struct ChainOpener<'a> {
    /// The files, in order.
    pub files: Vec<HostFile>,
    /// Budget and cache.
    pub reading: &'a Reading,
}

impl ChainOpener<'_> {
    fn at(&self, depth: usize) -> Result<Source> {
        let Some(host) = self.files.get(depth) else {
            return Err(DiskError::Denied {
                reason: format!("no file was handed over for depth {depth} of the backing chain"),
            });
        };
        let io = |e: std::io::Error| DiskError::Io {
            position: 0,
            message: e.to_string(),
        };
        let copy = HostFile {
            file: host.file.try_clone().map_err(io)?,
            len: host.len,
            allocated: host.allocated,
            identity: host.identity,
            place: None,
        };
        self.reading.host_source(copy, depth)
    }
}

impl Opener for ChainOpener<'_> {
    fn image(&self) -> Result<Source> {
        self.at(0)
    }

    fn backing(&self, overlay: &Source, name: &[u8]) -> Result<Source> {
        plain_name(name)?;
        self.at(overlay.depth.saturating_add(1))
    }
}

/// An image in memory, without backing files; for tests.
pub struct MemoryOpener<'a> {
    /// The image's bytes.
    pub layer: Layer,
    /// Budget and cache.
    pub reading: &'a Reading,
}

impl Opener for MemoryOpener<'_> {
    fn image(&self) -> Result<Source> {
        Ok(self.reading.source(Arc::clone(&self.layer), (0, 0), 0))
    }

    fn backing(&self, _: &Source, name: &[u8]) -> Result<Source> {
        Err(denied(plain_name(name)?, "an image in memory has no files"))
    }
}
