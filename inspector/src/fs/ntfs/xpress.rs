//! LZ77 with Huffman codes, "XPRESS Huffman" ([MS-XCA] section 2.2): one block of at most 64 KiB.

use super::super::lz::{PrefixCode, repeat};

/// Bits in 16-bit words, the first bit the highest; whole bytes lie between the words.
struct Bits<'a> {
    input: &'a [u8],
    at: usize,
    window: u32,
    extra: i32,
}

impl<'a> Bits<'a> {
    fn new(input: &'a [u8]) -> Self {
        let mut bits = Self {
            input,
            at: 0,
            window: 0,
            extra: 16,
        };
        bits.window = (u32::from(bits.word()) << 16) | u32::from(bits.word());
        bits
    }

    /// Zeros behind the end: the last symbols are looked at with more bits than they have.
    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn byte(&mut self) -> u8 {
        let byte = self.input.get(self.at).copied().unwrap_or(0);
        self.at = self.at.saturating_add(1);
        byte
    }

    fn peek(&self) -> u16 {
        u16::try_from(self.window >> 16).unwrap_or(0)
    }

    fn skip(&mut self, count: u32) {
        self.window = self.window.checked_shl(count).unwrap_or(0);
        self.extra = self.extra.saturating_sub(i32::try_from(count).unwrap_or(0));
        if self.extra < 0 {
            let word = u32::from(self.word());
            self.window |= word.checked_shl(self.extra.unsigned_abs()).unwrap_or(0);
            self.extra = self.extra.saturating_add(16);
        }
    }

    fn take(&mut self, count: u32) -> usize {
        let shift = 32u32.saturating_sub(count);
        let value = self.window.checked_shr(shift).unwrap_or(0);
        self.skip(count);
        usize::try_from(value).unwrap_or(0)
    }
}

/// Decompresses exactly `out`; `None` when the input is damaged.
pub(super) fn decode(input: &[u8], out: &mut [u8]) -> Option<()> {
    let (table, rest) = input.split_at_checked(256)?;
    let lengths: Vec<u8> = table.iter().flat_map(|b| [b & 15, b >> 4]).collect();
    let code = PrefixCode::new(&lengths)?;
    let mut bits = Bits::new(rest);
    let mut done = 0usize;
    while done < out.len() {
        let (symbol, length) = code.decode(bits.peek())?;
        bits.skip(length);
        if let Ok(literal) = u8::try_from(symbol) {
            *out.get_mut(done)? = literal;
            done = done.saturating_add(1);
            continue;
        }
        let mut len = usize::from(symbol & 15);
        if len == 15 {
            len = usize::from(bits.byte()).saturating_add(15);
            if len == 270 {
                len = usize::from(bits.word());
            }
        }
        let distance_bits = u32::from((symbol >> 4) & 15);
        let distance = 1usize
            .checked_shl(distance_bits)?
            .saturating_add(bits.take(distance_bits));
        // The last match may reach beyond the end of the data.
        let len = len.saturating_add(3).min(out.len().saturating_sub(done));
        repeat(out, &mut done, distance, len).then_some(())?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification() {
        // [MS-XCA] section 3.2: "abcdefghijklmnopqrstuvwxyz".
        let mut input = vec![0u8; 256];
        input[0x30] = 0x50;
        input[0x31..0x3b].fill(0x55);
        input[0x3b] = 0x45;
        input[0x3c] = 0x44;
        input[0x3d] = 0x04;
        // The end of the stream is a symbol of its own.
        input[0x80] = 0x04;
        input.extend([
            0xd8, 0x52, 0x3e, 0xd7, 0x94, 0x11, 0x5b, 0xe9, 0x19, 0x5f, 0xf9, 0xd6, 0x7c, 0xdf,
            0x8d, 0x04, 0, 0, 0, 0,
        ]);
        let mut out = [0; 26];
        decode(&input, &mut out).unwrap();
        assert_eq!(&out, b"abcdefghijklmnopqrstuvwxyz");
    }
}
