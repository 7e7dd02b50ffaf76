//! The boot sector of FAT12, FAT16 and FAT32 (Microsoft's FAT specification, section 3).

use super::table::{Table, Width};
use crate::bytes::Record;

/// A BIOS parameter block that holds together.
pub(crate) struct Bpb {
    pub(crate) sector: u64,
    /// Bytes of a cluster.
    pub(crate) cluster: u64,
    pub(crate) reserved: u64,
    pub(crate) fats: u64,
    pub(crate) root_entries: u64,
    pub(crate) sectors: u64,
    pub(crate) fat_sectors: u64,
    pub(crate) fat32: bool,
    /// FAT32: first cluster of the root directory.
    pub(crate) root_cluster: u32,
    /// FAT32: the table in use, when only one is.
    active: u64,
}

impl Bpb {
    /// Parses a boot sector; every field is checked because it has no checksum.
    pub(crate) fn parse(r: &Record<'_>) -> Option<Self> {
        let sector = u64::from(r.u16_le(0x0b).ok()?);
        let per_cluster = u64::from(r.u8(0x0d).ok()?);
        let media = r.u8(0x15).ok()?;
        let small = u64::from(r.u16_le(0x13).ok()?);
        let large = u64::from(r.u32_le(0x20).ok()?);
        let short_fat = u64::from(r.u16_le(0x16).ok()?);
        let long_fat = u64::from(r.u32_le(0x24).ok()?);
        let fat32 = short_fat == 0;
        let flags = if fat32 { r.u16_le(0x28).ok()? } else { 0 };
        let bpb = Self {
            sector,
            cluster: sector.saturating_mul(per_cluster),
            reserved: u64::from(r.u16_le(0x0e).ok()?),
            fats: u64::from(r.u8(0x10).ok()?),
            root_entries: u64::from(r.u16_le(0x11).ok()?),
            sectors: if small == 0 { large } else { small },
            fat_sectors: if fat32 { long_fat } else { short_fat },
            fat32,
            root_cluster: r.u32_le(0x2c).ok()?,
            active: if flags & 0x80 != 0 {
                u64::from(flags & 15)
            } else {
                0
            },
        };
        let named = r.slice(0x36, 5).ok() == Some(b"FAT12")
            || r.slice(0x36, 5).ok() == Some(b"FAT16")
            || r.slice(0x36, 5).ok() == Some(b"FAT  ")
            || r.slice(0x52, 5).ok() == Some(b"FAT32")
            || r.slice(0x52, 5).ok() == Some(b"MSWIN")
            || r.slice(0x36, 5).ok() == Some(b"MSDOS");
        let jump = matches!(r.u8(0).ok()?, 0xeb | 0xe9);
        let signed = r.u16_le(510).ok() == Some(0xaa55);
        let sound = matches!(sector, 512 | 1024 | 2048 | 4096)
            && per_cluster.is_power_of_two()
            && bpb.reserved > 0
            && bpb.fats > 0
            && bpb.fats <= 16
            && (media >= 0xf8 || media == 0xf0)
            && bpb.sectors > 0
            && bpb.fat_sectors > 0
            && (fat32 || bpb.root_entries > 0);
        (sound && (named || (jump && signed))).then_some(bpb)
    }

    /// Byte position and length of the root directory of FAT12 and FAT16.
    pub(crate) fn root(&self) -> (u64, u64) {
        let fats = self.fats.saturating_mul(self.fat_sectors);
        let at = self
            .reserved
            .saturating_add(fats)
            .saturating_mul(self.sector);
        (at, self.root_entries.saturating_mul(32))
    }

    fn heap(&self) -> u64 {
        let (root, len) = self.root();
        let sectors = len.div_ceil(self.sector.max(1));
        root.saturating_add(sectors.saturating_mul(self.sector))
    }

    fn clusters(&self) -> u64 {
        let size = self.sectors.saturating_mul(self.sector);
        let data = size.saturating_sub(self.heap());
        data.checked_div(self.cluster).unwrap_or(0)
    }

    /// The width of entries follows from the number of clusters alone.
    pub(crate) fn kind(&self) -> &'static str {
        match self.clusters() {
            _ if self.fat32 => "FAT32",
            0..4085 => "FAT12",
            _ => "FAT16",
        }
    }

    pub(crate) fn table(&self) -> Table {
        let width = match self.kind() {
            "FAT32" => Width::ThirtyTwo,
            "FAT12" => Width::Twelve,
            _ => Width::Sixteen,
        };
        let active = self.active.min(self.fats.saturating_sub(1));
        let before = active.saturating_mul(self.fat_sectors);
        Table {
            position: self
                .reserved
                .saturating_add(before)
                .saturating_mul(self.sector),
            width,
            clusters: u32::try_from(self.clusters()).unwrap_or(0x0fff_fff5),
            heap: self.heap(),
            cluster: self.cluster,
        }
    }
}
