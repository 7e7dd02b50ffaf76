//! Containers of volumes: LVM2, md, LUKS, BitLocker, Windows dynamic disks, bcache, ZFS.
//!
//! Detection and facts only; opening them is refused by name.

use crate::bytes::{Record, guid, label, narrow, read_upto, text, uuid};
use crate::error::Result;
use crate::read_at::ReadAt;

/// Facts of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct VolumeFacts {
    /// As blkid names it: `LVM2_member`, `linux_raid_member`, `crypto_LUKS`, `BitLocker`, …
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
}

impl VolumeFacts {
    fn new(volume_type: &str) -> Self {
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

const MD_MAGIC: u32 = 0xa92b_4efc;

fn md(layer: &dyn ReadAt) -> Result<Option<VolumeFacts>> {
    let len = layer.len();
    // Version 1 stands at the end (1.0), at the start (1.1) or 4 KiB in (1.2).
    let at_end = len.saturating_sub(8 << 10) & !4095;
    for (position, minor) in [(at_end, 0u8), (0, 1), (4096, 2)] {
        let raw = read_upto(layer, position, 256)?;
        let r = Record::new("md superblock", position, &raw);
        if r.u32_le(0).ok() != Some(MD_MAGIC) || r.u32_le(4)? != 1 {
            continue;
        }
        // super_offset is in sectors and must be where the superblock was found.
        if r.u64_le(144)?.saturating_mul(512) != position {
            continue;
        }
        return Ok(Some(VolumeFacts {
            version: Some(format!("1.{minor}")),
            uuid: uuid(&r.array(16)?),
            label: label(r.slice(32, 32)?),
            level: Some(level(i32::from_le_bytes(r.array(72)?))),
            disks: Some(r.u32_le(92)?),
            ..VolumeFacts::new("linux_raid_member")
        }));
    }
    let old_at = (len & !0xffff).saturating_sub(64 << 10);
    let raw = read_upto(layer, old_at, 256)?;
    let r = Record::new("md superblock", old_at, &raw);
    let little = r.u32_le(0).ok() == Some(MD_MAGIC);
    if (little || r.u32_be(0).ok() == Some(MD_MAGIC)) && len >= 128 << 10 {
        let word = |at: usize| if little { r.u32_le(at) } else { r.u32_be(at) };
        if word(4)? != 0 {
            return Ok(None);
        }
        let mut id = [0; 16];
        for (slot, at) in id.chunks_exact_mut(4).zip([20usize, 52, 56, 60]) {
            slot.copy_from_slice(&word(at)?.to_be_bytes());
        }
        return Ok(Some(VolumeFacts {
            version: Some(format!("0.{}.{}", word(8)?, word(12)?)),
            uuid: uuid(&id),
            level: Some(level(word(28)?.cast_signed())),
            disks: Some(word(40)?),
            ..VolumeFacts::new("linux_raid_member")
        }));
    }
    Ok(None)
}

fn level(level: i32) -> String {
    match level {
        -1 => "linear".into(),
        -4 => "multipath".into(),
        n if n >= 0 => format!("raid{n}"),
        n => format!("level {n}"),
    }
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
        ..VolumeFacts::new("crypto_LUKS")
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
    let head = read_upto(layer, 0, 2048)?;
    for sector in head.chunks_exact(512) {
        let r = Record::new("LVM2 label", 0, sector);
        if r.slice(0, 8)? != b"LABELONE" || r.slice(24, 8)? != b"LVM2 001" {
            continue;
        }
        // pv_header_offset; the 32 characters there are grouped 6-4-4-4-4-4-6.
        let at = usize::try_from(r.u32_le(20)?).unwrap_or(32);
        let raw = text(r.slice(at, 32)?);
        let mut rest = raw.as_str();
        let mut groups = Vec::new();
        for width in [6, 4, 4, 4, 4, 4, 6] {
            let Some((group, after)) = rest.split_at_checked(width) else {
                return Ok(None);
            };
            groups.push(group);
            rest = after;
        }
        return Ok(Some(VolumeFacts {
            version: Some("LVM2 001".into()),
            uuid: Some(groups.join("-")),
            ..VolumeFacts::new("LVM2_member")
        }));
    }
    Ok(None)
}

fn bitlocker(layer: &dyn ReadAt) -> Result<Option<VolumeFacts>> {
    let head = read_upto(layer, 0, 512)?;
    let r = Record::new("BitLocker header", 0, &head);
    // Drives encrypted "to go" look like FAT and carry a GUID.
    const TO_GO: &str = "4967D63B-2E29-4AD8-8399-F6A339E3D001";
    let to_go = r.slice(3, 8).ok() == Some(b"MSWIN4.1")
        && r.array(424).is_ok_and(|bytes| guid(&bytes) == TO_GO);
    if r.slice(3, 8).ok() == Some(b"-FVE-FS-") || to_go {
        return Ok(Some(VolumeFacts::new("BitLocker")));
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
        ..VolumeFacts::new("windows_dynamic_disk")
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
        ..VolumeFacts::new(kind)
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
    Ok((hits >= 4).then(|| VolumeFacts::new("zfs_member")))
}
