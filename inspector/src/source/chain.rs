//! The files of an image, opened by one process and read by another.
//!
//! A parent calls [`crate::container::open_chain`] and passes the open descriptors, in order, with their [`Link`]s to
//! a confined child. The child puts them together again ([`ChainFile`]) and reads through a
//! [`ChainOpener`], which opens nothing.

use super::host::plain_name;
use super::{HostFile, HostOpener, HostRoots, Opener, Reading, Source};
use crate::budget::{Budget, Limits};
use crate::clock;
use crate::error::{DiskError, Result};
use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Who named a file, and how. Plain data: it crosses the process boundary beside the descriptor.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Link {
    /// Number, in the list, of the file that names this one. The image itself (number 0) says 0.
    pub from: usize,
    /// The name as stored in that file; empty for the image itself.
    pub name: Vec<u8>,
}

/// One file of an image and the name it goes by.
#[derive(Debug)]
pub struct ChainFile {
    /// The open file.
    pub file: HostFile,
    /// Who named it.
    pub link: Link,
}

/// What the parent may read of an image: headers, descriptors and locators of at most
/// [`crate::container::FILES_MAX`] files come to a fraction of it.
const HEADERS: Limits = Limits {
    bytes: 64 << 20,
    reads: 20_000,
    steps: 100_000,
    wall: Duration::from_secs(10),
    ..Limits::DEFAULT
};

/// Opens an image and every file it names, for a parent process that hands the open files to a
/// confined child. Reads headers, descriptors and parent locators only, within fixed bounds; no
/// table, log or data.
///
/// `declared` is the format that the caller expects, as for [`crate::container::open`]: what the
/// child will refuse or take as plain bytes names no files here either.
///
/// The list begins with the image and is at most [`crate::container::FILES_MAX`] long. Where the
/// image is damaged or not supported the error is the one that [`crate::container::open`] gives.
///
/// # Errors
/// As [`crate::container::open`].
pub fn open_chain(
    roots: &HostRoots,
    path: &Path,
    declared: Option<&str>,
) -> Result<Vec<ChainFile>> {
    let budget = Budget::new(
        HEADERS,
        clock::monotonic(),
        Arc::new(AtomicBool::new(false)),
    );
    let reading = Reading::new(budget);
    let recorder = Recorder {
        inner: HostOpener {
            roots,
            path,
            reading: &reading,
        },
        files: RefCell::default(),
    };
    crate::container::discover(&recorder, declared)?;
    Ok(recorder.files.into_inner())
}

/// Keeps what is opened.
struct Recorder<'a> {
    inner: HostOpener<'a>,
    files: RefCell<Vec<ChainFile>>,
}

impl Recorder<'_> {
    fn keep(&self, source: Source, link: Link) -> Source {
        if let Some(file) = source.host.clone() {
            self.files.borrow_mut().push(ChainFile { file, link });
        }
        source
    }
}

impl Opener for Recorder<'_> {
    fn image(&self) -> Result<Source> {
        Ok(self.keep(self.inner.image()?, Link::default()))
    }

    fn related(&self, from: &Source, name: &[u8]) -> Result<Source> {
        let source = self.inner.related(from, name)?;
        let link = Link {
            from: from.index,
            name: name.to_vec(),
        };
        Ok(self.keep(source, link))
    }
}

/// An image whose files were opened before, by [`crate::container::open_chain`] in a parent process. Opens nothing:
/// a name that the parent did not resolve is not found.
pub struct ChainOpener<'a> {
    /// The files, in the order of [`crate::container::open_chain`].
    pub files: Vec<ChainFile>,
    /// Budget and cache.
    pub reading: &'a Reading,
}

impl ChainOpener<'_> {
    fn source(&self, chosen: Option<&ChainFile>, name: &[u8]) -> Result<Source> {
        let Some(chosen) = chosen else {
            let shown = String::from_utf8_lossy(name);
            return Err(DiskError::NotFound {
                what: format!("{}: no such file was handed over", shown.escape_debug()),
            });
        };
        Ok(self.reading.host_source(chosen.file.clone()))
    }
}

impl Opener for ChainOpener<'_> {
    fn image(&self) -> Result<Source> {
        self.source(self.files.first(), b"image")
    }

    fn related(&self, from: &Source, name: &[u8]) -> Result<Source> {
        plain_name(name)?;
        let named = |file: &&ChainFile| file.link.from == from.index && file.link.name == name;
        self.source(self.files.iter().skip(1).find(named), name)
    }
}
