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

/// Eight tables, so that eight bytes go in one step: the n-th is for a byte with n after it.
type Tables = [[u32; 256]; 8];

#[allow(clippy::as_conversions, clippy::indexing_slicing)]
const fn tables(polynomial: u32) -> Tables {
    let mut tables = [table(polynomial); 8];
    let mut n = 1usize;
    while n < 8 {
        let mut byte = 0usize;
        while byte < 256 {
            let before = tables[n.wrapping_sub(1)][byte];
            tables[n][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte = byte.wrapping_add(1);
        }
        n = n.wrapping_add(1);
    }
    tables
}

static IEEE: Tables = tables(0xedb8_8320);
static CASTAGNOLI: Tables = tables(0x82f6_3b78);

fn at(table: &[u32; 256], byte: u8) -> u32 {
    table.get(usize::from(byte)).copied().unwrap_or(0)
}

fn update(tables: &Tables, seed: u32, bytes: &[u8]) -> u32 {
    let [t0, t1, t2, t3, t4, t5, t6, t7] = tables;
    let mut eights = bytes.chunks_exact(8);
    let mut crc = seed;
    for eight in &mut eights {
        let [b0, b1, b2, b3, b4, b5, b6, b7] = *eight else {
            break;
        };
        let [c0, c1, c2, c3] = crc.to_le_bytes();
        crc = at(t7, b0 ^ c0)
            ^ at(t6, b1 ^ c1)
            ^ at(t5, b2 ^ c2)
            ^ at(t4, b3 ^ c3)
            ^ at(t3, b4)
            ^ at(t2, b5)
            ^ at(t1, b6)
            ^ at(t0, b7);
    }
    eights.remainder().iter().fold(crc, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        (crc >> 8) ^ at(t0, low ^ byte)
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
        // Eight bytes at once are the same as one by one.
        let bytes: Vec<u8> = (0..100u8).collect();
        for len in 0..100 {
            let whole = crc32c(!0, &bytes[..len]);
            let single = bytes[..len].iter().fold(!0, |crc, b| crc32c(crc, &[*b]));
            assert_eq!(whole, single, "{len}");
        }
    }
}
