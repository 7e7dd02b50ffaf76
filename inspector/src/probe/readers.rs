//! From a recognised type to its reader.

use super::Probed;
use crate::error::{DiskError, Result};
use crate::fs::erofs::Erofs;
use crate::fs::exfat::ExFat;
use crate::fs::fat::Fat;
use crate::fs::iso::Iso;
use crate::fs::ntfs::Ntfs;
use crate::fs::squashfs::Squashfs;
use crate::fs::{FileSystem, FileSystemFacts};
use crate::read_at::Layer;
use std::sync::Arc;

/// Opens what was recognised, where a reader exists. The reader's own facts win: it saw more.
pub(super) fn open(layer: &Layer, facts: FileSystemFacts) -> Result<Probed> {
    let device = Arc::clone(layer);
    let seen = facts.clone();
    let reader = match facts.fs_type.as_str() {
        "erofs" => shared(Erofs::open(device, seen)),
        "exfat" => shared(ExFat::open(device, seen)),
        "vfat" => shared(Fat::open(device, seen)),
        "iso9660" => shared(Iso::open(device, seen)),
        "ntfs" => shared(Ntfs::open(device, seen)),
        "squashfs" => shared(Squashfs::open(device, seen)),
        _ => return Ok(Probed::unread(facts)),
    };
    let mut probed = Probed::unread(facts);
    probed.unsupported = None;
    match reader {
        Ok(reader) => {
            probed.facts = reader.facts().clone();
            probed.reader = Some(reader);
        }
        Err(DiskError::Unsupported { feature }) => probed.unsupported = Some(feature),
        Err(e @ (DiskError::Corrupt { .. } | DiskError::OutOfBounds { .. })) => {
            probed.damage = Some(e);
        }
        Err(e) => return Err(e),
    }
    Ok(probed)
}

fn shared<T: FileSystem + 'static>(reader: Result<T>) -> Result<Arc<dyn FileSystem>> {
    reader.map(|reader| -> Arc<dyn FileSystem> { Arc::new(reader) })
}
