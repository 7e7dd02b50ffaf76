//! Checksums of containers, made right again after a change: else a mutated image tells of them alone.

/// A mebibyte.
pub(crate) const MIB: usize = 1 << 20;

pub(crate) fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

pub(crate) fn sum(bytes: &[u8]) -> [u8; 4] {
    let sum = bytes
        .iter()
        .fold(0u32, |s, b| s.wrapping_add(u32::from(*b)));
    (!sum).to_be_bytes()
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// Writes CRC-32C into bytes 4 to 7.
pub(crate) fn seal(structure: &mut [u8]) {
    put(structure, 4, &[0; 4]);
    let crc = crc32c(structure);
    put(structure, 4, &crc.to_le_bytes());
}

/// Makes the checksums of a VHD's structures right again, where they still are.
pub(crate) fn reseal_vhd(image: &mut [u8]) {
    let end = image.len() - 512;
    for (at, len, field) in [(0, 512, 64), (end, 512, 64), (512, 1024, 36)] {
        let structure = &mut image[at..at + len];
        if structure.starts_with(b"conectix") || structure.starts_with(b"cxsparse") {
            put(structure, field, &[0; 4]);
            let checksum = sum(structure);
            put(structure, field, &checksum);
        }
    }
}

/// The same for a VHDX: headers, region tables, the first log entry.
pub(crate) fn reseal_vhdx(image: &mut [u8]) {
    // The smallest has its headers, its log and some tables.
    if image.len() < 2 * MIB {
        return;
    }
    let entry = u32::from_le_bytes(image[MIB + 8..MIB + 12].try_into().unwrap());
    let entry = (entry as usize).clamp(4096, 64 << 10);
    for (at, len, signature) in [
        (0x10000, 4096, b"head"),
        (0x20000, 4096, b"head"),
        (0x30000, 64 << 10, b"regi"),
        (0x40000, 64 << 10, b"regi"),
        (MIB, entry, b"loge"),
    ] {
        if image[at..at + len].starts_with(signature) {
            seal(&mut image[at..at + len]);
        }
    }
}
