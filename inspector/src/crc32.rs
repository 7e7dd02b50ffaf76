//! CRC-32 (GPT) and CRC-32C (ext4, jbd2), both reflected, table-driven.

const fn table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0u8;
    loop {
        let mut crc = widen(byte);
        let mut bit = 0u8;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ polynomial
            } else {
                crc >> 1
            };
            bit = bit.wrapping_add(1);
        }
        store(&mut table, byte, crc);
        if byte == 255 {
            return table;
        }
        byte = byte.wrapping_add(1);
    }
}

// Constant evaluation has neither `From` nor `get_mut`; both indices are below 256 by type.
#[allow(clippy::as_conversions)]
const fn widen(byte: u8) -> u32 {
    byte as u32
}

#[allow(clippy::as_conversions, clippy::indexing_slicing)]
const fn store(table: &mut [u32; 256], byte: u8, crc: u32) {
    table[byte as usize] = crc;
}

static IEEE: [u32; 256] = table(0xedb8_8320);
static CASTAGNOLI: [u32; 256] = table(0x82f6_3b78);

fn update(table: &[u32; 256], seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        let at = usize::from(low ^ byte);
        (crc >> 8) ^ table.get(at).copied().unwrap_or(0)
    })
}

/// CRC-32 as zip and GPT use it.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !update(&IEEE, !0, bytes)
}

/// CRC-32 from a seed and without the final complement, as LVM2 uses it.
pub(crate) fn crc32_seeded(seed: u32, bytes: &[u8]) -> u32 {
    update(&IEEE, seed, bytes)
}

/// CRC-32C without the final complement, as ext4 uses it.
pub(crate) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    update(&CASTAGNOLI, seed, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_the_catalogue() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
    }
}
