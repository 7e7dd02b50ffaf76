//! Partition tables, sound, damaged and hostile, made here byte by byte.

use crate::support::open_alone;
use guestkit_inspector::layer::Memory;
use guestkit_inspector::layers::{self, Layers};
use std::sync::Arc;
use std::time::Duration;

fn describe(disk: Vec<u8>) -> Layers {
    let container = open_alone(Arc::new(Memory(disk)), Duration::from_secs(20)).unwrap();
    layers::examine(&container).unwrap().layers
}

fn put(disk: &mut [u8], at: usize, bytes: &[u8]) {
    disk[at..at + bytes.len()].copy_from_slice(bytes);
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn mbr_entry(disk: &mut [u8], sector: usize, slot: usize, kind: u8, start: u32, sectors: u32) {
    let at = sector * 512 + 446 + slot * 16;
    disk[at + 4] = kind;
    put(disk, at + 8, &start.to_le_bytes());
    put(disk, at + 12, &sectors.to_le_bytes());
    put(disk, sector * 512 + 510, &[0x55, 0xaa]);
}

const DISK: usize = 4 << 20;

/// A disk with a GPT of two entries, numbers 1 and 3.
fn gpt(sector: usize) -> Vec<u8> {
    let mut disk = vec![0; DISK];
    mbr_entry(&mut disk, 0, 0, 0xee, 1, u32::MAX);
    let mut entries = vec![0u8; 128 * 128];
    for (slot, name) in [(0usize, "boot"), (2, "wurzel ä")] {
        let at = slot * 128;
        put(&mut entries, at, &[slot as u8 + 1; 16]);
        put(&mut entries, at + 16, &[0x10 + slot as u8; 16]);
        put(
            &mut entries,
            at + 32,
            &(64 + slot as u64 * 64).to_le_bytes(),
        );
        put(
            &mut entries,
            at + 40,
            &(127 + slot as u64 * 64).to_le_bytes(),
        );
        put(&mut entries, at + 48, &(5u64 | 1 << 63).to_le_bytes());
        for (i, unit) in name.encode_utf16().enumerate() {
            put(&mut entries, at + 56 + i * 2, &unit.to_le_bytes());
        }
    }
    let last = DISK / sector - 1;
    let array_sectors = entries.len() / sector;
    for (lba, other, array) in [(1, last, 2), (last, 1, last - array_sectors)] {
        let mut header = vec![0u8; 92];
        put(&mut header, 0, b"EFI PART");
        put(&mut header, 8, &0x10000u32.to_le_bytes());
        put(&mut header, 12, &92u32.to_le_bytes());
        put(&mut header, 24, &(lba as u64).to_le_bytes());
        put(&mut header, 32, &(other as u64).to_le_bytes());
        put(&mut header, 56, &[0xaa; 16]);
        put(&mut header, 72, &(array as u64).to_le_bytes());
        put(&mut header, 80, &128u32.to_le_bytes());
        put(&mut header, 84, &128u32.to_le_bytes());
        put(&mut header, 88, &crc(&entries).to_le_bytes());
        let sum = crc(&header);
        put(&mut header, 16, &sum.to_le_bytes());
        put(&mut disk, lba * sector, &header);
        put(&mut disk, array * sector, &entries);
    }
    disk
}

fn check_gpt(layers: &Layers, sector: u64) {
    let disk = &layers.disk;
    assert_eq!(
        (disk.table.as_str(), u64::from(disk.sector_size)),
        ("gpt", sector)
    );
    let found: Vec<_> = disk
        .partitions
        .iter()
        .map(|p| {
            (
                p.index,
                p.start / sector,
                p.size / sector,
                p.name.as_deref().unwrap(),
            )
        })
        .collect();
    assert_eq!(found, [(1, 64, 64, "boot"), (3, 192, 64, "wurzel ä")]);
    assert_eq!(
        disk.partitions[0].flags,
        ["RequiredPartition", "LegacyBIOSBootable", "GUID:63"]
    );
    assert!(disk.partitions[0].bootable);
}

#[test]
fn gpt_with_both_sector_sizes() {
    for sector in [512, 4096] {
        let layers = describe(gpt(sector));
        check_gpt(&layers, sector as u64);
        assert_eq!(layers.disk.warnings, [""; 0]);
    }
}

#[test]
fn the_backup_answers_for_a_damaged_primary() {
    for sector in [512usize, 4096] {
        // The signature, the header, an entry.
        for at in [sector, sector + 40, sector * 2 + 60] {
            let mut disk = gpt(sector);
            disk[at] ^= 0xff;
            let layers = describe(disk);
            check_gpt(&layers, sector as u64);
            assert_eq!(layers.disk.warnings.len(), 1);
        }
    }
}

#[test]
fn two_damaged_headers_leave_the_protective_record_and_a_warning() {
    let mut disk = gpt(512);
    disk[512 + 56] ^= 1;
    disk[DISK - 512 + 56] ^= 1;
    let layers = describe(disk);
    assert_eq!(layers.disk.table, "dos");
    assert_eq!(layers.disk.partitions[0].part_type, "ee");
    assert!(
        layers.disk.warnings[0].contains("CRC"),
        "{:?}",
        layers.disk.warnings
    );
}

#[test]
fn a_header_with_endless_entries_is_refused() {
    for (at, value) in [
        (80, u32::MAX),
        (84, 0),
        (84, u32::MAX),
        (12, 0),
        (12, u32::MAX),
    ] {
        let mut disk = gpt(512);
        for base in [512, DISK - 512] {
            put(&mut disk, base + at, &value.to_le_bytes());
            put(&mut disk, base + 16, &[0; 4]);
            let sum = crc(&disk[base..base + 92]);
            put(&mut disk, base + 16, &sum.to_le_bytes());
        }
        assert_eq!(describe(disk).disk.table, "dos");
    }
}

#[test]
fn logical_partitions_are_numbered_from_five() {
    let mut disk = vec![0; DISK];
    put(&mut disk, 440, &0x1234_abcdu32.to_le_bytes());
    mbr_entry(&mut disk, 0, 0, 0x83, 64, 64);
    disk[446] = 0x80;
    mbr_entry(&mut disk, 0, 1, 0x05, 1000, 4000);
    mbr_entry(&mut disk, 1000, 0, 0x82, 8, 100);
    mbr_entry(&mut disk, 1000, 1, 0x05, 500, 600);
    mbr_entry(&mut disk, 1500, 0, 0x83, 16, 50);
    let layers = describe(disk);
    let found: Vec<_> = layers
        .disk
        .partitions
        .iter()
        .map(|p| {
            (
                p.index,
                p.start / 512,
                p.part_type.as_str(),
                p.uuid.as_deref().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            (1, 64, "83", "1234abcd-01"),
            (2, 1000, "5", "1234abcd-02"),
            (5, 1008, "82", "1234abcd-05"),
            (6, 1516, "83", "1234abcd-06"),
        ]
    );
    assert!(layers.disk.partitions[0].bootable);
}

#[test]
fn a_chain_of_logical_partitions_that_loops_ends() {
    let mut disk = vec![0; DISK];
    mbr_entry(&mut disk, 0, 0, 0x0f, 1000, 4000);
    mbr_entry(&mut disk, 1000, 0, 0x83, 8, 10);
    mbr_entry(&mut disk, 1000, 1, 0x05, 500, 10);
    mbr_entry(&mut disk, 1500, 0, 0x83, 8, 10);
    // Sector 0 of the extended partition: back to the first record.
    mbr_entry(&mut disk, 1500, 1, 0x05, 0, 10);
    let layers = describe(disk);
    assert_eq!(layers.disk.partitions.len(), 3);
    assert!(layers.disk.warnings[0].contains("does not end"));
    let mut far = vec![0; DISK];
    mbr_entry(&mut far, 0, 0, 0x05, u32::MAX, u32::MAX);
    assert_eq!(describe(far).disk.warnings.len(), 1);
}

/// A FAT16 boot sector: it ends in 55 AA like an MBR.
fn fat() -> Vec<u8> {
    let mut disk = vec![0; DISK];
    put(&mut disk, 0, &[0xeb, 0x3c, 0x90]);
    put(&mut disk, 3, b"mkfs.fat");
    put(
        &mut disk,
        0x0b,
        &[0, 2, 4, 4, 0, 2, 0, 2, 0, 0x20, 0xf8, 32, 0],
    );
    disk[0x26] = 0x29;
    put(&mut disk, 0x27, &0xdead_beefu32.to_le_bytes());
    put(&mut disk, 0x36, b"FAT16   ");
    put(&mut disk, 510, &[0x55, 0xaa]);
    disk
}

#[test]
fn a_fat_boot_sector_is_no_partition_table() {
    let layers = describe(fat());
    assert_eq!(layers.disk.table, "none");
    let fs = &layers.filesystems[0];
    assert_eq!(
        (fs.fs_type.as_str(), fs.uuid.as_deref()),
        ("vfat", Some("DEAD-BEEF"))
    );
}

/// Enough of an ext superblock to be recognised.
fn ext(disk: &mut [u8], at: usize) {
    put(disk, at + 1024 + 0x38, &[0x53, 0xef]);
}

#[test]
fn leftovers_do_not_win() {
    // A bare file system with the signature of a boot sector, and an entry that leads nowhere.
    let mut bare = vec![0; DISK];
    ext(&mut bare, 0);
    put(&mut bare, 510, &[0x55, 0xaa]);
    assert_eq!(describe(bare.clone()).disk.table, "none");
    mbr_entry(&mut bare, 0, 0, 0x83, 2048, 100);
    assert_eq!(describe(bare.clone()).disk.table, "none");
    // The same superblock left over on a disk whose partition does hold something.
    ext(&mut bare, 2048 * 512);
    let layers = describe(bare);
    assert_eq!(layers.disk.table, "dos");
    let devices: Vec<_> = layers
        .filesystems
        .iter()
        .map(|f| f.device.as_str())
        .collect();
    assert_eq!(devices, ["/dev/sda1"]);
}

#[test]
fn empty_disks_are_not_recognised() {
    let layers = describe(vec![0; DISK]);
    assert!(!layers.recognised);
    assert_eq!(layers.disk.table, "none");
}

#[test]
fn the_description_serialises_the_same_way_twice() {
    let once = serde_json::to_string(&describe(gpt(512))).unwrap();
    assert_eq!(once, serde_json::to_string(&describe(gpt(512))).unwrap());
    assert!(
        once.contains("\"type\":\"01010101-0101-0101-0101-010101010101\""),
        "{once}"
    );
}
