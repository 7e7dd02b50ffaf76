//! What all block-mapped formats share: a virtual disk whose clusters lie somewhere in a file, in a
//! parent, nowhere, or compressed.

use super::packed::Packed;
use crate::bytes::{narrow, wide};
use crate::error::{DiskError, Result};
use crate::layer::check_range;
use crate::read_at::{Layer, ReadAt};
use std::sync::{Mutex, PoisonError};

/// Bytes of decompressed clusters that are kept: as many clusters of the usual 64 KiB as a report on
/// a usual guest comes back to.
const DECODED_BYTES: u64 = 4 << 20;

/// Where the bytes of a stretch of the virtual disk are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: they are zeros.
    Zero,
    /// In the parent or backing disk, at the same position; zeros where there is none.
    Parent,
    /// In the file, from this position on.
    Data(u64),
    /// In a compressed cluster, by its descriptor.
    Packed(u64),
}

/// A format's tables.
pub(super) trait Mapping: Send + Sync {
    /// Size of the virtual disk.
    fn size(&self) -> u64;

    /// Bytes in a cluster, a power of two; what a descriptor of a compressed one unpacks to.
    fn cluster_size(&self) -> u64;

    /// Place of the byte at `position`, and how many bytes from there on share it (at least 1).
    fn locate(&self, position: u64) -> Result<(Place, u64)>;

    /// Reads data of the file.
    fn read_data(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// The cluster behind a descriptor, and what to call it and its position in errors.
    fn unpack(&self, descriptor: u64) -> Result<Compressed> {
        Err(corrupt("compressed cluster", descriptor, "none expected"))
    }
}

/// A compressed cluster in the file.
pub(super) struct Compressed {
    pub(super) structure: &'static str,
    pub(super) position: u64,
    pub(super) packed: Packed,
}

impl Compressed {
    fn read(&mut self, from: usize, buf: &mut [u8]) -> Result<()> {
        self.packed
            .read(from, buf)
            .map_err(|problem| corrupt(self.structure, self.position, problem))
    }
}

/// A virtual disk read through a [`Mapping`].
pub(super) struct Mapped<M> {
    map: M,
    parent: Option<Layer>,
    decoded: Mutex<Decoded>,
}

#[derive(Default)]
struct Decoded {
    /// (descriptor, last use, cluster); few enough for a linear search.
    clusters: Vec<(u64, u64, Compressed)>,
    clock: u64,
}

impl<M: Mapping> Mapped<M> {
    /// The disk of `map`, above `parent`.
    pub(super) fn new(map: M, parent: Option<Layer>) -> Self {
        Self {
            map,
            parent,
            decoded: Mutex::default(),
        }
    }

    fn read_packed(&self, descriptor: u64, from: usize, buf: &mut [u8]) -> Result<()> {
        let mut decoded = self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        decoded.clock = decoded.clock.saturating_add(1);
        let now = decoded.clock;
        if let Some(known) = decoded.clusters.iter_mut().find(|c| c.0 == descriptor) {
            known.1 = now;
            return known.2.read(from, buf);
        }
        let mut cluster = self.map.unpack(descriptor)?;
        let read = cluster.read(from, buf);
        let fitting = DECODED_BYTES
            .checked_div(self.map.cluster_size())
            .unwrap_or(0);
        let max = narrow(fitting.clamp(2, 64));
        if decoded.clusters.len() >= max
            && let Some(oldest) = (0..decoded.clusters.len())
                .min_by_key(|i| decoded.clusters.get(*i).map_or(0, |c| c.1))
        {
            decoded.clusters.swap_remove(oldest);
        }
        decoded.clusters.push((descriptor, now, cluster));
        read
    }

    fn read_place(&self, place: Place, position: u64, buf: &mut [u8]) -> Result<()> {
        match place {
            Place::Zero => {
                buf.fill(0);
                Ok(())
            }
            Place::Parent => match &self.parent {
                Some(parent) => read_padded(parent.as_ref(), position, buf),
                None => {
                    buf.fill(0);
                    Ok(())
                }
            },
            Place::Data(offset) => self.map.read_data(offset, buf),
            Place::Packed(descriptor) => {
                let within = position.checked_rem(self.map.cluster_size()).unwrap_or(0);
                self.read_packed(descriptor, narrow(within), buf)
            }
        }
    }
}

impl<M: Mapping> ReadAt for Mapped<M> {
    fn len(&self) -> u64 {
        self.map.size()
    }

    fn read_exact_at(&self, position: u64, buf: &mut [u8]) -> Result<()> {
        check_range(position, buf.len(), self.len())?;
        let mut at = position;
        let mut rest = buf;
        let mut known = None;
        while !rest.is_empty() {
            let (place, mut run) = match known.take() {
                Some(known) => known,
                None => self.map.locate(at)?,
            };
            // Neighbours that continue the same place are read at once.
            while run < wide(rest.len()) {
                let next = at.saturating_add(run);
                let continued = match place {
                    Place::Zero => Place::Zero,
                    Place::Parent => Place::Parent,
                    Place::Data(offset) => Place::Data(offset.saturating_add(run)),
                    Place::Packed(_) => break,
                };
                match self.map.locate(next)? {
                    (same, len) if same == continued => run = run.saturating_add(len.max(1)),
                    other => {
                        known = Some(other);
                        break;
                    }
                }
            }
            let len = narrow(run.max(1)).min(rest.len());
            let (head, tail) = rest.split_at_mut(len);
            self.read_place(place, at, head)?;
            at = at.saturating_add(wide(len));
            rest = tail;
        }
        Ok(())
    }
}

/// Reads a layer; past its end there are zeros.
pub(super) fn read_padded(layer: &dyn ReadAt, position: u64, buf: &mut [u8]) -> Result<()> {
    let there = narrow(layer.len().saturating_sub(position)).min(buf.len());
    let (data, rest) = buf.split_at_mut(there);
    rest.fill(0);
    if data.is_empty() {
        return Ok(());
    }
    layer.read_exact_at(position, data)
}

/// Reads data that must begin within the file; a last cluster may be cut short, its rest is zeros.
pub(super) fn read_cut(
    layer: &dyn ReadAt,
    structure: &'static str,
    offset: u64,
    buf: &mut [u8],
) -> Result<()> {
    if offset >= layer.len() {
        return Err(corrupt(structure, offset, "outside the file"));
    }
    read_padded(layer, offset, buf)
}

/// Reads data that must lie within the file as a whole.
pub(super) fn read_whole(
    layer: &dyn ReadAt,
    structure: &'static str,
    offset: u64,
    buf: &mut [u8],
) -> Result<()> {
    layer.read_exact_at(offset, buf).map_err(|e| match e {
        DiskError::OutOfBounds { .. } => corrupt(structure, offset, "outside the file"),
        other => other,
    })
}

/// A `Corrupt` error.
pub(super) fn corrupt(
    structure: &'static str,
    position: u64,
    problem: impl Into<String>,
) -> DiskError {
    DiskError::Corrupt {
        structure,
        position,
        problem: problem.into(),
    }
}

/// An `Unsupported` error.
pub(super) fn unsupported(feature: impl Into<String>) -> DiskError {
    DiskError::Unsupported {
        feature: feature.into(),
    }
}
