//! LZNT1, the compression of NTFS files ([MS-XCA] section 2.5).

use crate::bytes::Record;
use crate::error::Result;

/// Output of one chunk.
const CHUNK: usize = 4096;

/// Decompresses into `out`, whose rest becomes zeros. Chunks stand at multiples of 4096 bytes.
pub(super) fn decode(position: u64, input: &[u8], out: &mut [u8]) -> Result<()> {
    let r = Record::new("LZNT1 chunk", position, input);
    out.fill(0);
    let mut at = 0usize;
    for chunk in out.chunks_mut(CHUNK) {
        let Ok(header) = r.u16_le(at) else { break };
        if header == 0 {
            break;
        }
        let len = usize::from(header & 0x0fff).saturating_add(1);
        let body_at = at.saturating_add(2);
        let body = r.slice(body_at, len)?;
        if header & 0x8000 == 0 {
            let len = len.min(chunk.len());
            let (head, _) = chunk.split_at_mut(len);
            head.copy_from_slice(body.get(..len).unwrap_or_default());
        } else if !compressed(body, chunk) {
            return Err(r.corrupt(body_at, "a match outside the chunk"));
        }
        at = body_at.saturating_add(len);
    }
    Ok(())
}

/// One chunk; false when it is damaged.
fn compressed(body: &[u8], chunk: &mut [u8]) -> bool {
    let mut input = body.iter().copied();
    let mut done = 0usize;
    while let Some(flags) = input.next() {
        for bit in 0..8u32 {
            if flags & (1u8 << bit) == 0 {
                let Some(byte) = input.next() else {
                    return true;
                };
                let Some(to) = chunk.get_mut(done) else {
                    return false;
                };
                *to = byte;
                done = done.saturating_add(1);
                continue;
            }
            let Some(low) = input.next() else { return true };
            let Some(high) = input.next() else {
                return false;
            };
            let token = usize::from(u16::from_le_bytes([low, high]));
            // The further into the chunk, the more bits the distance takes.
            let mut length_bits = 12u32;
            let mut reach = done.saturating_sub(1);
            while reach >= 16 {
                length_bits = length_bits.saturating_sub(1);
                reach >>= 1;
            }
            let mask = 1usize
                .checked_shl(length_bits)
                .unwrap_or(1)
                .saturating_sub(1);
            let len = (token & mask).saturating_add(3);
            let distance = token
                .checked_shr(length_bits)
                .unwrap_or(0)
                .saturating_add(1);
            if !super::super::lz::repeat(chunk, &mut done, distance, len) {
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification() {
        // [MS-XCA] section 3.3.
        let input = [
            0x38, 0xb0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xa2,
            0x47, 0x01, 0xa0, 0x45, 0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xc0,
            0x45, 0x20, 0x05, 0x24, 0x13, 0x88, 0x05, 0xb4, 0x02, 0x4a, 0x44, 0xef, 0x03, 0x58,
            0x02, 0x8c, 0x09, 0x16, 0x01, 0x48, 0x45, 0x00, 0xbe, 0x00, 0x9e, 0x00, 0x04, 0x01,
            0x18, 0x90, 0x00,
        ];
        let expected = b"F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D E F# G F# E D E A F# F# G A A G F# E D D E F# E D D\0";
        let mut out = vec![1; 4096];
        decode(0, &input, &mut out).unwrap();
        assert_eq!(&out[..expected.len()], expected);
    }

    #[test]
    fn matches_before_the_chunk_are_refused() {
        assert!(decode(0, &[0x02, 0xb0, 0x01, 0x00, 0x10], &mut [0; 4096]).is_err());
    }
}
