//! Partition tables: GPT and MBR with logical partitions.

mod dos;
mod gpt;
mod names;

use crate::bytes::{Record, read_upto};
use crate::error::{DiskError, Result};
use crate::read_at::{Layer, ReadAt};

/// Partitions reported at most, over all table kinds.
pub const PARTITIONS_MAX: usize = 1024;

/// [`Disk::table`] before it was looked for.
pub(crate) const UNKNOWN: &str = "unknown";

/// Partition type of the database of a Windows dynamic disk.
pub(crate) const LDM_METADATA: &str = "5808C8AA-7E8F-42E0-85D2-E1E90434CFB3";

/// A disk and its partition table.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Disk {
    /// `gpt`, `dos`, or `none`; `unknown` when a budget was used up before it was read.
    pub table: String,
    /// Disk GUID (upper case) or MBR disk id (eight hex digits).
    pub id: Option<String>,
    /// Bytes of a logical sector, as far as the table tells.
    pub sector_size: u32,
    /// Size of the disk in bytes.
    pub size: u64,
    /// In the order of their numbers.
    pub partitions: Vec<Partition>,
    /// Damage that was worked around.
    pub warnings: Vec<String>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Partition {
    /// Number as sfdisk and the kernel give it: logical partitions begin at 5.
    pub index: u32,
    /// First byte on the disk.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
    /// Type GUID (upper case) or MBR type in hex, as sfdisk prints it.
    #[serde(rename = "type")]
    pub part_type: String,
    /// Name of that type, where it is a known one.
    pub type_name: Option<String>,
    /// GPT partition name.
    pub name: Option<String>,
    /// GPT partition GUID (upper case), or `diskid-NN` for MBR: what PARTUUID= means.
    pub uuid: Option<String>,
    /// GPT attributes as sfdisk prints them.
    pub flags: Vec<String>,
    /// MBR boot flag, or GPT's legacy BIOS bootable.
    pub bootable: bool,
    /// Whether it only holds logical partitions.
    pub container: bool,
    /// What lies in it, as blkid names it; filled in by [`crate::layers`].
    pub content: Option<String>,
}

/// Reads the partition table of a disk. No table is an answer, not an error.
///
/// # Errors
/// Read errors only; damage is told in `warnings`.
pub fn read(disk: &Layer) -> Result<Disk> {
    let mut found = Disk {
        table: "none".into(),
        sector_size: 512,
        size: disk.len(),
        ..Disk::default()
    };
    let sector = read_upto(disk.as_ref(), 0, 512)?;
    let Some(mbr) = dos::Mbr::parse(&sector) else {
        return Ok(found);
    };
    if mbr.is_protective() {
        match gpt::read(disk.as_ref(), &mut found.warnings) {
            Ok(Some(gpt)) => {
                let warnings = std::mem::take(&mut found.warnings);
                return Ok(Disk { warnings, ..gpt });
            }
            Ok(None) => {}
            Err(e @ DiskError::Corrupt { .. }) => found.warnings.push(e.to_string()),
            Err(e) => return Err(e),
        }
    }
    dos::read(disk.as_ref(), &mbr, &mut found)?;
    Ok(found)
}

/// Names of partition tables that are recognised but not read.
///
/// # Errors
/// Read errors.
pub fn foreign_table(disk: &dyn ReadAt) -> Result<Option<&'static str>> {
    let head = read_upto(disk, 0, 2048)?;
    let r = Record::new("disk label", 0, &head);
    let sun = r.u16_be(508).ok() == Some(0xdabe)
        && r.slice(0, 512).is_ok_and(|sector| {
            sector
                .chunks_exact(2)
                .map(|pair| pair.iter().fold(0u16, |n, b| (n << 8) | u16::from(*b)))
                .fold(0, |sum, n| sum ^ n)
                == 0
        });
    if sun {
        return Ok(Some("sun"));
    }
    if r.u32_be(0).ok() == Some(0x0be5_a941) {
        return Ok(Some("sgi"));
    }
    if r.u16_be(0).ok() == Some(0x4552) && r.slice(512, 2).ok() == Some(b"PM") {
        return Ok(Some("mac"));
    }
    for at in [512, 0, 64, 1024] {
        if r.u32_le(at).ok() == Some(0x8256_4557)
            && r.u32_le(at.saturating_add(132)).ok() == Some(0x8256_4557)
        {
            return Ok(Some("bsd"));
        }
    }
    Ok(None)
}
