//! Where the bytes of an image come from: one file or several, opened by policy, metered, cached.
//!
//! An image may name further files: a backing file, data extents, a parent. Who answers for those
//! names is an [`Opener`]: [`HostOpener`] opens them beneath the allow-listed roots, and
//! [`ChainOpener`] takes them from a list that another process has opened before. Names are plain
//! paths and are never interpreted as URLs or JSON.

pub(crate) mod chain;
mod host;

pub use chain::{ChainFile, ChainOpener, Link};
pub use host::{FileLayer, HostFile, HostOpener, HostRoots};

use crate::budget::{Budget, Meter};
use crate::cache::BlockCache;
use crate::error::Result;
use crate::read_at::Layer;
use std::sync::Arc;

/// One file of an image, ready to be read: metered and cached.
pub struct Source {
    /// Its bytes.
    pub layer: Layer,
    /// Bytes it takes up on the host's disk.
    pub allocated: u64,
    /// Tells whether two sources are one file.
    pub identity: (u64, u64),
    /// Number of the file in the order of opening: 0 is the image itself.
    pub index: usize,
    host: Option<HostFile>,
}

impl Source {
    /// A part of this file as a source of its own: an image inside an archive. It has no place
    /// among the host's files, so names inside it are refused.
    pub(crate) fn part(&self, layer: Layer) -> Self {
        Self {
            layer,
            allocated: 0,
            identity: self.identity,
            index: self.index,
            host: None,
        }
    }
}

/// Answers for the files of an image.
pub trait Opener {
    /// The image itself.
    ///
    /// # Errors
    /// As [`HostRoots::open`].
    fn image(&self) -> Result<Source>;

    /// The file that `from` names as its backing file, data extent or parent.
    ///
    /// # Errors
    /// As [`HostRoots::open_related`].
    fn related(&self, from: &Source, name: &[u8]) -> Result<Source>;
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
    pub fn source(&self, layer: Layer, identity: (u64, u64)) -> Source {
        let allocated = layer.len();
        let metered: Layer = Arc::new(Meter::new(layer, Arc::clone(&self.budget)));
        Source {
            layer: Arc::new(self.cache.attach(metered, Arc::clone(&self.budget))),
            allocated,
            identity,
            index: 0,
            host: None,
        }
    }

    fn host_source(&self, host: HostFile) -> Source {
        let layer = Arc::new(FileLayer::new(Arc::clone(&host.file), host.len));
        let mut source = self.source(layer, host.identity);
        source.allocated = host.allocated;
        source.host = Some(host);
        source
    }
}

/// An image in memory, without further files; for tests.
pub struct MemoryOpener<'a> {
    /// The image's bytes.
    pub layer: Layer,
    /// Budget and cache.
    pub reading: &'a Reading,
}

impl Opener for MemoryOpener<'_> {
    fn image(&self) -> Result<Source> {
        Ok(self.reading.source(Arc::clone(&self.layer), (0, 0)))
    }

    fn related(&self, _: &Source, name: &[u8]) -> Result<Source> {
        let path = host::plain_name(name)?;
        Err(host::denied(path, "an image in memory has no files"))
    }
}
