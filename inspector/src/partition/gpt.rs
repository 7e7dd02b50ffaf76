//! GUID partition tables, from the UEFI specification, chapter 5.

use super::{Disk, PARTITIONS_MAX, Partition, names};
use crate::bytes::{Record, guid, narrow, read_vec, size, text_utf16_le};
use crate::crc32::crc32;
use crate::error::{DiskError, Result};
use crate::read_at::ReadAt;

/// Bytes of an entry array: the specification asks for 16 KiB at least; nobody uses more than a
/// few times that.
const ENTRIES_BYTES_MAX: u64 = 1 << 20;

struct Header {
    sector_size: u64,
    disk_guid: [u8; 16],
    entries: Vec<u8>,
    entry_size: usize,
}

/// Reads the primary table, else the backup, for sectors of 512 and 4096 bytes. `None` when there
/// is no trace of a header; `Corrupt` when there is one and none holds.
pub(super) fn read(disk: &dyn ReadAt, warnings: &mut Vec<String>) -> Result<Option<Disk>> {
    let mut damage = None;
    for sector_size in [512u64, 4096] {
        let last = (disk.len().checked_div(sector_size).unwrap_or(0)).saturating_sub(1);
        for (lba, which) in [(1, "primary"), (last, "backup")] {
            match header(disk, sector_size, lba) {
                Ok(None) => {}
                Ok(Some(header)) => {
                    if which == "backup" {
                        warnings
                            .push("GPT: the primary table is damaged, the backup is used".into());
                    }
                    return table(disk.len(), &header).map(Some);
                }
                Err(e @ DiskError::Corrupt { .. }) => {
                    damage.get_or_insert(e);
                }
                Err(e) => return Err(e),
            }
        }
    }
    damage.map_or(Ok(None), Err)
}

fn header(disk: &dyn ReadAt, sector_size: u64, lba: u64) -> Result<Option<Header>> {
    let position = lba.saturating_mul(sector_size);
    if lba == 0 || position.saturating_add(512) > disk.len() {
        return Ok(None);
    }
    let raw = read_vec(disk, position, 512)?;
    let r = Record::new("GPT header", position, &raw);
    if r.slice(0, 8)? != b"EFI PART" {
        return Ok(None);
    }
    let len = size(r.u32_le(12)?);
    if !(92..=512).contains(&len) {
        return Err(r.corrupt(12, format!("header size {len}, expected 92 to 512")));
    }
    let mut unsigned = r.slice(0, len)?.to_vec();
    if let Some(field) = unsigned.get_mut(16..20) {
        field.fill(0);
    }
    let (stored, computed) = (r.u32_le(16)?, crc32(&unsigned));
    if stored != computed {
        return Err(r.corrupt(
            16,
            format!("header CRC {stored:#010x}, computed {computed:#010x}"),
        ));
    }
    if r.u64_le(24)? != lba {
        return Err(r.corrupt(24, format!("says it is at LBA {}", r.u64_le(24)?)));
    }
    let (count, entry_size) = (r.u32_le(80)?, r.u32_le(84)?);
    let bytes = u64::from(count).saturating_mul(u64::from(entry_size));
    if entry_size < 128 || bytes > ENTRIES_BYTES_MAX {
        return Err(r.corrupt(80, format!("{count} entries of {entry_size} bytes")));
    }
    let at = r.u64_le(72)?.saturating_mul(sector_size);
    let entries = read_vec(disk, at, narrow(bytes)).map_err(|e| match e {
        DiskError::OutOfBounds { .. } => r.corrupt(72, "entries outside the disk"),
        other => other,
    })?;
    let (stored, computed) = (r.u32_le(88)?, crc32(&entries));
    if stored != computed {
        return Err(r.corrupt(
            88,
            format!("entries CRC {stored:#010x}, computed {computed:#010x}"),
        ));
    }
    Ok(Some(Header {
        sector_size,
        disk_guid: r.array(56)?,
        entries,
        entry_size: size(entry_size),
    }))
}

fn table(len: u64, header: &Header) -> Result<Disk> {
    let mut partitions = Vec::new();
    for (index, raw) in (1u32..).zip(header.entries.chunks_exact(header.entry_size)) {
        let r = Record::new("GPT entry", 0, raw);
        let part_type = r.array::<16>(0)?;
        if part_type == [0; 16] || partitions.len() >= PARTITIONS_MAX {
            continue;
        }
        let (first, last) = (r.u64_le(32)?, r.u64_le(40)?);
        let sectors = last.saturating_add(1).saturating_sub(first);
        let attributes = r.u64_le(48)?;
        let part_type = guid(&part_type);
        partitions.push(Partition {
            index,
            start: first.saturating_mul(header.sector_size),
            size: sectors.saturating_mul(header.sector_size),
            type_name: names::of_guid(&part_type).map(str::to_owned),
            part_type,
            name: Some(text_utf16_le(r.slice(56, 72)?)).filter(|name| !name.is_empty()),
            uuid: Some(guid(&r.array(16)?)),
            flags: flags(attributes),
            bootable: attributes & 4 != 0,
            container: false,
            content: None,
        });
    }
    Ok(Disk {
        table: "gpt".into(),
        id: Some(guid(&header.disk_guid)),
        sector_size: u32::try_from(header.sector_size).unwrap_or(512),
        size: len,
        partitions,
        warnings: Vec::new(),
    })
}

fn flags(attributes: u64) -> Vec<String> {
    let named = [
        (0u32, "RequiredPartition"),
        (1, "NoBlockIOProtocol"),
        (2, "LegacyBIOSBootable"),
    ];
    let bit = |n: u32| attributes.checked_shr(n).unwrap_or(0) & 1 == 1;
    let mut flags: Vec<String> = named
        .iter()
        .filter(|(n, _)| bit(*n))
        .map(|(_, name)| (*name).to_owned())
        .collect();
    // Bits 48 to 63 mean what the partition's type says.
    flags.extend((48..64).filter(|n| bit(*n)).map(|n| format!("GUID:{n}")));
    flags
}
