//! What lies in a layer: a volume to look into, a file system, swap, or nothing known.
//!
//! Recognition goes by validated signatures, in blkid's order of precedence: members of arrays
//! and volume groups first, because what they carry may show through.

mod fat;
mod filesystem;
mod iso;
mod readers;
mod volume;

pub use volume::{LogicalVolume, PhysicalVolume, VolumeFacts};

use crate::error::{DiskError, Result};
use crate::fs::btrfs::{self, Btrfs};
use crate::fs::ext::{self, Ext};
use crate::fs::xfs::{self, Xfs};
use crate::fs::{FileSystem, FileSystemFacts};
use crate::read_at::Layer;
use std::sync::Arc;

/// What was found in a layer.
pub struct Probed {
    /// Type, identifiers and sizes.
    pub facts: FileSystemFacts,
    /// Facts of a volume (LVM, md, LUKS, …), when it is one.
    pub volume: Option<VolumeFacts>,
    /// Reads its files, for the types that are read.
    pub reader: Option<Arc<dyn FileSystem>>,
    /// Why there is no reader: the feature or type that is not supported.
    pub unsupported: Option<String>,
    /// Why there is no reader: the structure that is damaged.
    pub damage: Option<DiskError>,
}

impl Probed {
    /// Swap and empty areas have no files: no reader is then no shortcoming.
    fn unread(facts: FileSystemFacts) -> Self {
        let unsupported = (facts.fs_type != "swap").then(|| facts.fs_type.clone());
        Self {
            facts,
            volume: None,
            reader: None,
            unsupported,
            damage: None,
        }
    }
}

/// Names the content of a layer; `None` when nothing is recognised.
///
/// # Errors
/// Only budgets and failing reads; damage is part of the answer.
pub fn probe(layer: &Layer) -> Result<Option<Probed>> {
    if let Some(found) = tolerant(volume::recognise(layer.as_ref()))?.flatten() {
        return Ok(Some(volume(found)));
    }
    if tolerant(ext::recognise(layer.as_ref()))? == Some(true) {
        return readable("ext", ext::facts(layer), Ext::open(Arc::clone(layer)));
    }
    if tolerant(xfs::recognise(layer.as_ref()))? == Some(true) {
        return readable("xfs", xfs::facts(layer), Xfs::open(Arc::clone(layer)));
    }
    if let Some(other) = tolerant(filesystem::recognise(layer.as_ref()))?.flatten() {
        return readers::open(layer, other).map(Some);
    }
    // Its superblock lies 64 KiB in: what a newer file system has left of it is asked for last.
    if tolerant(btrfs::recognise(layer.as_ref()))? == Some(true) {
        return readable("btrfs", btrfs::facts(layer), Btrfs::open(Arc::clone(layer)));
    }
    Ok(tolerant(volume::zfs(layer.as_ref()))?.flatten().map(volume))
}

/// A btrfs file system of several devices.
pub(crate) fn btrfs_of(devices: Vec<Layer>) -> Result<Option<Probed>> {
    let Some(first) = devices.first() else {
        return Ok(None);
    };
    let facts = btrfs::facts(first);
    readable("btrfs", facts, Btrfs::open_devices(devices))
}

/// A volume that is only named.
pub(crate) fn named_volume(volume_type: &str) -> Probed {
    volume(VolumeFacts::of_type(volume_type))
}

fn volume(found: VolumeFacts) -> Probed {
    let mut probed = Probed::unread(FileSystemFacts {
        fs_type: found.volume_type.clone(),
        uuid: found.uuid.clone(),
        label: found.label.clone(),
        ..FileSystemFacts::default()
    });
    probed.volume = Some(found);
    probed
}

/// Whether a layer carries the boot sector of a FAT, exFAT or NTFS file system, which ends like an
/// MBR.
pub(crate) fn is_boot_sector(layer: &Layer) -> Result<bool> {
    let found = tolerant(filesystem::recognise(layer.as_ref()))?.flatten();
    Ok(found
        .is_some_and(|facts| matches!(facts.fs_type.as_str(), "vfat" | "ntfs" | "exfat" | "refs")))
}

/// A damaged or truncated signature is no signature; budgets and I/O stay errors.
fn tolerant<T>(outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(DiskError::Corrupt { .. } | DiskError::OutOfBounds { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

/// A type whose files are read: facts even where the reader refuses.
fn readable<F: FileSystem + 'static>(
    fs_type: &str,
    facts: Result<FileSystemFacts>,
    opened: Result<F>,
) -> Result<Option<Probed>> {
    let mut probed = Probed::unread(match facts {
        Ok(facts) => facts,
        Err(DiskError::Corrupt { .. }) => FileSystemFacts {
            fs_type: fs_type.to_owned(),
            ..FileSystemFacts::default()
        },
        Err(e) => return Err(e),
    });
    probed.unsupported = None;
    match opened {
        Ok(reader) => {
            probed.facts = reader.facts().clone();
            probed.reader = Some(Arc::new(reader));
        }
        Err(DiskError::Unsupported { feature }) => probed.unsupported = Some(feature),
        Err(e @ (DiskError::Corrupt { .. } | DiskError::OutOfBounds { .. })) => {
            probed.damage = Some(e);
        }
        Err(e) => return Err(e),
    }
    Ok(Some(probed))
}
