//! FAT12, FAT16, FAT32, exFAT and NTFS: type, serial number, label.

use crate::bytes::{Record, narrow, read_upto, read_vec, text_utf16_le};
use crate::error::Result;
use crate::fs::FileSystemFacts;
use crate::fs::fat::boot::Bpb;
use crate::fs::ntfs::boot::Boot;
use crate::read_at::ReadAt;

/// Clusters of a root directory that are searched for the label.
const LABEL_CLUSTERS_MAX: u32 = 64;

/// A FAT boot sector that holds together; every field is checked because it has no checksum.
pub(super) fn fat(layer: &dyn ReadAt, boot: &[u8]) -> Result<Option<FileSystemFacts>> {
    let r = Record::new("FAT boot sector", 0, boot);
    let Some(bpb) = Bpb::parse(&r) else {
        return Ok(None);
    };
    let serial_at = if bpb.fat32 { 0x43 } else { 0x27 };
    let serial = r.u32_le(serial_at)?;
    let signature = r.u8(serial_at.saturating_sub(1))?;
    let label = if bpb.fat32 {
        label32(layer, &bpb)?
    } else {
        let (root, len) = bpb.root();
        find_label(&read_upto(layer, root, narrow(len.min(2 << 20)))?).0
    };
    Ok(Some(FileSystemFacts {
        fs_type: "vfat".into(),
        uuid: (matches!(signature, 0x28 | 0x29) || bpb.fat32)
            .then(|| format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff)),
        label,
        size_bytes: Some(bpb.sectors.saturating_mul(bpb.sector)),
        block_size: u32::try_from(bpb.sector).ok(),
        features: vec![bpb.kind().to_owned()],
        ..FileSystemFacts::default()
    }))
}

fn label32(layer: &dyn ReadAt, bpb: &Bpb) -> Result<Option<String>> {
    let fats = bpb.fats.saturating_mul(bpb.fat_sectors);
    let data = bpb.reserved.saturating_add(fats).saturating_mul(bpb.sector);
    let mut cluster = bpb.root_cluster;
    for _ in 0..LABEL_CLUSTERS_MAX {
        let Some(index) = cluster.checked_sub(2) else {
            break;
        };
        let at = data.saturating_add(u64::from(index).saturating_mul(bpb.cluster));
        let raw = read_upto(layer, at, narrow(bpb.cluster))?;
        let (label, ended) = find_label(&raw);
        if label.is_some() || ended || raw.is_empty() {
            return Ok(label);
        }
        let entry = bpb
            .reserved
            .saturating_mul(bpb.sector)
            .saturating_add(u64::from(cluster).saturating_mul(4));
        let raw = read_vec(layer, entry, 4)?;
        cluster = Record::new("FAT", entry, &raw).u32_le(0)? & 0x0fff_ffff;
        if cluster >= 0x0fff_fff8 {
            break;
        }
    }
    Ok(None)
}

/// The volume label entry of a directory; and whether the directory ended.
fn find_label(directory: &[u8]) -> (Option<String>, bool) {
    for entry in directory.chunks_exact(32) {
        let r = Record::new("FAT directory", 0, entry);
        let (Ok(name), Ok(attributes)) = (r.array::<11>(0), r.u8(11)) else {
            break;
        };
        let [first, rest @ ..] = name;
        match first {
            0 => return (None, true),
            0xe5 => continue,
            _ => {}
        }
        let long_name = attributes & 0x3f == 0x0f;
        let cluster = (r.u16_le(20).unwrap_or(0), r.u16_le(26).unwrap_or(0));
        if long_name || attributes & 0x18 != 0x08 || cluster != (0, 0) {
            continue;
        }
        let mut label = vec![if first == 0x05 { 0xe5 } else { first }];
        label.extend(rest);
        return (crate::bytes::label(&label), true);
    }
    (None, false)
}

/// Microsoft's exFAT specification: main boot sector, label entry 0x83 in the root directory.
pub(super) fn exfat(layer: &dyn ReadAt, boot: &[u8]) -> Result<Option<FileSystemFacts>> {
    let r = Record::new("exFAT boot sector", 0, boot);
    if r.slice(3, 8)? != b"EXFAT   " {
        return Ok(None);
    }
    let sector_shift = u32::from(r.u8(0x6c)?);
    let cluster_shift = sector_shift.saturating_add(u32::from(r.u8(0x6d)?));
    if !(9..=12).contains(&sector_shift) || cluster_shift > 25 {
        return Ok(None);
    }
    let heap = u64::from(r.u32_le(0x58)?) << sector_shift.min(12);
    let root = u64::from(r.u32_le(0x60)?).saturating_sub(2);
    let at = heap.saturating_add(root.saturating_mul(1u64.checked_shl(cluster_shift).unwrap_or(0)));
    let mut label = None;
    for entry in read_upto(layer, at, 64 << 10)?.chunks_exact(32) {
        let r = Record::new("exFAT directory", at, entry);
        match r.u8(0)? {
            0 => break,
            0x83 => {
                let len = usize::from(r.u8(1)?.min(11)).saturating_mul(2);
                label = Some(text_utf16_le(r.slice(2, len)?)).filter(|text| !text.is_empty());
                break;
            }
            _ => {}
        }
    }
    let serial = r.u32_le(0x64)?;
    Ok(Some(FileSystemFacts {
        fs_type: "exfat".into(),
        uuid: Some(format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff)),
        label,
        size_bytes: r.u64_le(0x48)?.checked_shl(sector_shift),
        block_size: 1u32.checked_shl(sector_shift),
        ..FileSystemFacts::default()
    }))
}

/// NTFS: the label is the attribute `$VOLUME_NAME` (0x60) of MFT record 3, `$Volume`.
pub(super) fn ntfs(layer: &dyn ReadAt, boot: &[u8]) -> Result<Option<FileSystemFacts>> {
    let Some(boot) = Boot::parse(&Record::new("NTFS boot sector", 0, boot))? else {
        return Ok(None);
    };
    let volume = boot.mft.saturating_add(boot.record.saturating_mul(3));
    let record = read_upto(layer, volume, narrow(boot.record))?;
    Ok(Some(FileSystemFacts {
        fs_type: "ntfs".into(),
        uuid: Some(format!("{:016X}", boot.serial)),
        label: ntfs_label(&record).unwrap_or(None),
        size_bytes: Some(boot.size),
        block_size: u32::try_from(boot.sector).ok(),
        ..FileSystemFacts::default()
    }))
}

fn ntfs_label(record: &[u8]) -> Result<Option<String>> {
    let r = Record::new("NTFS $Volume", 0, record);
    if r.slice(0, 4)? != b"FILE" {
        return Ok(None);
    }
    let mut at = usize::from(r.u16_le(0x14)?);
    // Attributes take 16 bytes at least; the record bounds the loop.
    loop {
        let (kind, len) = (r.u32_le(at)?, r.u32_le(at.saturating_add(4))?);
        if kind == u32::MAX || len < 16 {
            return Ok(None);
        }
        if kind == 0x60 {
            let size = narrow(u64::from(r.u32_le(at.saturating_add(0x10))?));
            let value = at.saturating_add(usize::from(r.u16_le(at.saturating_add(0x14))?));
            let label = text_utf16_le(r.slice(value, size)?);
            return Ok(Some(label).filter(|text| !text.is_empty()));
        }
        at = at.saturating_add(narrow(u64::from(len)));
    }
}
