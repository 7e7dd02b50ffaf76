//! Containers of volumes: LVM2, md, LUKS, BitLocker, Windows dynamic disks, bcache, ZFS.
//!
//! Detection and facts; [`crate::volume`] puts LVM2 and md together, opening the others is refused
//! by name.

use crate::bytes::{Record, guid, label, narrow, read_upto, text, uuid};
use crate::error::Result;
use crate::read_at::ReadAt;

/// Facts of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct VolumeFacts {
    /// As blkid names it: `LVM2_member`, `linux_raid_member`, `crypto_LUKS`, `BitLocker`, …; and
    /// what members were put together to: `lvm2_group`, `md_array`.
    #[serde(rename = "type")]
    pub volume_type: String,
    /// Version of the format.
    pub version: Option<String>,
    /// UUID as blkid prints it.
    pub uuid: Option<String>,
    /// Label or array name.
    pub label: Option<String>,
    /// Cipher of an encrypted volume.
    pub cipher: Option<String>,
    /// RAID level of an array.
    pub level: Option<String>,
    /// Number of disks of an array.
    pub disks: Option<u32>,
    /// Devices of an array that are here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// Volume group that a physical volume belongs to, or the group's own name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vg: Option<String>,
    /// Physical volumes of a group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pvs: Vec<PhysicalVolume>,
    /// Visible logical volumes of a group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lvs: Vec<LogicalVolume>,
    /// Why the volume cannot be read: the feature or the missing part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<String>,
}

/// A physical volume of LVM2.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct PhysicalVolume {
    /// Where it is; none when it is missing.
    pub device: Option<String>,
    /// UUID.
    pub uuid: String,
    /// Bytes.
    pub size: Option<u64>,
}

/// A logical volume of LVM2.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct LogicalVolume {
    /// Name.
    pub name: String,
    /// `/dev/vg/lv`.
    pub device: String,
    /// UUID.
    pub uuid: Option<String>,
    /// Bytes.
    pub size: u64,
    /// Types of its segments, sorted.
    pub types: Vec<String>,
    /// Why it cannot be read: the feature or the missing physical volume.
    pub unsupported: Option<String>,
}

impl VolumeFacts {
    pub(crate) fn of_type(volume_type: &str) -> Self {
        Self {
            volume_type: volume_type.into(),
            ..Self::default()
        }
    }
}

type Recogniser = fn(&dyn ReadAt) -> Result<Option<VolumeFacts>>;

pub(super) fn recognise(layer: &dyn ReadAt) -> Result<Option<VolumeFacts>> {
    const ALL: &[Recogniser] = &[md, luks, lvm, bitlocker, dynamic_disk, bcache];
    for recogniser in ALL {
        if let Some(found) = recogniser(layer)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn md(layer: &dyn ReadAt) -> Result<Option<VolumeFacts>> {
    Ok(crate::volume::md::SuperBlock::read(layer)?.map(|sb| sb.facts()))
}

fn luks(layer: &dyn ReadAt) -> Result<Option<VolumeFacts>> {
    let head = read_upto(layer, 0, 512)?;
    if !head.starts_with(b"LUKS\xba\xbe") {
        return Ok(None);
    }
    let r = Record::new("LUKS header", 0, &head);
    let version = r.u16_be(6)?;
    let mut facts = VolumeFacts {
        version: Some(version.to_string()),
        uuid: label(r.slice(168, 40)?),
        ..VolumeFacts::of_type("crypto_LUKS")
    };
    if version == 1 {
        facts.cipher = Some(format!(
            "{}-{}",
            text(r.slice(8, 32)?),
            text(r.slice(40, 32)?)
        ));
    } else {
        facts.label = label(r.slice(24, 48)?);
        // The JSON area follows the binary header; the data segment names its cipher.
        let json = read_upto(layer, 4096, narrow(r.u64_be(8)?.min(64 << 10)))?;
        facts.cipher = segment_cipher(&json);
    }
    Ok(Some(facts))
}

/// Value of the first `"encryption"` after `"segments"`.
fn segment_cipher(json: &[u8]) -> Option<String> {
    let json = text(json);
    let (_, segments) = json.split_once("\"segments\"")?;
    let (_, rest) = segments.split_once("\"encryption\"")?;
    let value = rest.trim_start_matches([':', ' ']).strip_prefix('"')?;
    let (cipher, _) = value.split_once('"')?;
    Some(cipher.chars().take(64).collect())
}

fn lvm(layer: &dyn ReadAt) -> Result<Option<VolumeFacts>> {
    crate::volume::lvm::facts(layer)
}

fn bitlocker(layer: &dyn ReadAt) -> Result<Option<VolumeFacts>> {
    let head = read_upto(layer, 0, 512)?;
    let r = Record::new("BitLocker header", 0, &head);
    // Drives encrypted "to go" look like FAT and carry a GUID.
    const TO_GO: &str = "4967D63B-2E29-4AD8-8399-F6A339E3D001";
    let to_go = r.slice(3, 8).ok() == Some(b"MSWIN4.1")
        && r.array(424).is_ok_and(|bytes| guid(&bytes) == TO_GO);
    if r.slice(3, 8).ok() == Some(b"-FVE-FS-") || to_go {
        return Ok(Some(VolumeFacts::of_type("BitLocker")));
    }
    Ok(None)
}

/// The private header of a Windows dynamic disk: sector 6 on MBR disks.
fn dynamic_disk(layer: &dyn ReadAt) -> Result<Option<VolumeFacts>> {
    let raw = read_upto(layer, 0xc00, 512)?;
    if !raw.starts_with(b"PRIVHEAD") {
        return Ok(None);
    }
    let r = Record::new("LDM private header", 0xc00, &raw);
    Ok(Some(VolumeFacts {
        uuid: label(r.slice(0x30, 64)?),
        ..VolumeFacts::of_type("windows_dynamic_disk")
    }))
}

fn bcache(layer: &dyn ReadAt) -> Result<Option<VolumeFacts>> {
    let raw = read_upto(layer, 4096, 256)?;
    let r = Record::new("bcache superblock", 4096, &raw);
    let kind = match r.slice(0x18, 16).ok() {
        Some(b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81") => "bcache",
        Some(b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef") => "bcachefs",
        _ => return Ok(None),
    };
    Ok(Some(VolumeFacts {
        uuid: uuid(&r.array(0x28)?),
        ..VolumeFacts::of_type(kind)
    }))
}

/// The uberblock array of the first label: 128 slots of 1 KiB from 128 KiB on. Asked last, because
/// it reads all of them.
pub(super) fn zfs(layer: &dyn ReadAt) -> Result<Option<VolumeFacts>> {
    const MAGIC: u64 = 0x00ba_b10c;
    let mut hits = 0u8;
    let area = read_upto(layer, 128 << 10, 128 << 10)?;
    for slot in area.chunks_exact(1024) {
        let r = Record::new("ZFS uberblock", 0, slot);
        if r.u64_le(0)? == MAGIC || r.u64_be(0)? == MAGIC {
            hits = hits.saturating_add(1);
        }
    }
    Ok((hits >= 4).then(|| VolumeFacts::of_type("zfs_member")))
}
