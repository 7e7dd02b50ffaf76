//! LZX as system files are compressed with it: independent chunks of 32 KiB, a window as large,
//! calls of x86 code with absolute targets. The format of [MS-PATCH] and of WIM archives.

use super::super::lz::{PrefixCode, repeat};

const CHUNK: usize = 32 << 10;
const LITERALS: usize = 256;
/// Position slots of a window of 32 KiB.
const SLOTS: usize = 30;
const MAIN: usize = LITERALS + SLOTS * 8;
const LENGTHS: usize = 249;
/// Calls are translated as in a file of this size.
const CALL_RANGE: i32 = 12_000_000;

/// Bits in 16-bit words, the first bit the highest.
struct Bits<'a> {
    input: &'a [u8],
    at: usize,
    window: u32,
    have: u32,
}

impl<'a> Bits<'a> {
    fn fill(&mut self) {
        while self.have <= 16 {
            let word = u32::from(u16::from_le_bytes([self.byte(), self.byte()]));
            let shift = 16u32.saturating_sub(self.have);
            self.window |= word.checked_shl(shift).unwrap_or(0);
            self.have = self.have.saturating_add(16);
        }
    }

    /// Zeros behind the end: the last symbols are looked at with more bits than they have.
    fn byte(&mut self) -> u8 {
        let byte = self.input.get(self.at).copied().unwrap_or(0);
        self.at = self.at.saturating_add(1);
        byte
    }

    fn take(&mut self, count: u32) -> usize {
        if count == 0 {
            return 0;
        }
        self.fill();
        let value = self
            .window
            .checked_shr(32u32.saturating_sub(count))
            .unwrap_or(0);
        self.window = self.window.checked_shl(count).unwrap_or(0);
        self.have = self.have.saturating_sub(count);
        usize::try_from(value).unwrap_or(0)
    }

    fn symbol(&mut self, code: &PrefixCode) -> Option<usize> {
        self.fill();
        let top = u16::try_from(self.window >> 16).unwrap_or(0);
        let (symbol, length) = code.decode(top)?;
        self.window = self.window.checked_shl(length).unwrap_or(0);
        self.have = self.have.saturating_sub(length);
        Some(usize::from(symbol))
    }

    /// Goes to the next word, past at least one bit; then `len` bytes, padded to words.
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        // Words that were loaded but not begun are given back.
        self.at = self
            .at
            .saturating_sub(usize::try_from(self.have / 16).ok()?.saturating_mul(2));
        (self.window, self.have) = (0, 0);
        let end = self.at.checked_add(len)?;
        let bytes = self.input.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }
}

/// Decompresses one chunk; `None` when it is damaged.
pub(super) fn decode(input: &[u8], out: &mut [u8]) -> Option<()> {
    let mut bits = Bits {
        input,
        at: 0,
        window: 0,
        have: 0,
    };
    let mut recent = [1usize; 3];
    let (mut main, mut lengths) = ([0u8; MAIN], [0u8; LENGTHS]);
    let mut done = 0usize;
    // Every block has a byte at least.
    while done < out.len() {
        let kind = bits.take(3);
        let size = if bits.take(1) == 1 {
            CHUNK
        } else {
            bits.take(16)
        };
        let end = done
            .checked_add(size)
            .filter(|end| *end <= out.len() && size > 0)?;
        match kind {
            1 | 2 => {
                let aligned = (kind == 2).then(|| {
                    let mut lengths = [0u8; 8];
                    for length in &mut lengths {
                        *length = u8::try_from(bits.take(3)).unwrap_or(0);
                    }
                    PrefixCode::new(&lengths)
                });
                let aligned = match aligned {
                    None => None,
                    Some(code) => Some(code?),
                };
                let (literals, matches) = main.split_at_mut(LITERALS);
                read_lengths(&mut bits, literals)?;
                read_lengths(&mut bits, matches)?;
                read_lengths(&mut bits, &mut lengths)?;
                let codes = Codes {
                    main: PrefixCode::new(&main)?,
                    lengths: PrefixCode::new(&lengths)?,
                    aligned,
                };
                let block = out.get_mut(..end)?;
                codes.decode(&mut bits, &mut recent, block, &mut done)?;
            }
            3 => {
                // Alignment skips at least one bit: an aligned reader skips a word.
                bits.take(1);
                let head = bits.bytes(12)?;
                for (value, raw) in recent.iter_mut().zip(head.chunks_exact(4)) {
                    let number = raw.iter().rev().fold(0u32, |n, b| (n << 8) | u32::from(*b));
                    *value = usize::try_from(number).ok()?;
                }
                let raw = bits.bytes(size)?;
                out.get_mut(done..end)?.copy_from_slice(raw);
                done = end;
                if size % 2 == 1 {
                    bits.byte();
                }
            }
            _ => return None,
        }
    }
    translate_calls(out);
    Some(())
}

/// Lengths are stored as differences from those of the block before, in a code of their own.
fn read_lengths(bits: &mut Bits<'_>, lengths: &mut [u8]) -> Option<()> {
    let mut pre = [0u8; 20];
    for length in &mut pre {
        *length = u8::try_from(bits.take(4)).ok()?;
    }
    let pre = PrefixCode::new(&pre)?;
    let mut at = 0usize;
    while at < lengths.len() {
        let symbol = bits.symbol(&pre)?;
        let difference = |old: u8, symbol: usize| {
            let sum = usize::from(old).saturating_add(17).saturating_sub(symbol);
            u8::try_from(sum % 17).ok()
        };
        let (run, value) = match symbol {
            0..=16 => (1, difference(*lengths.get(at)?, symbol)?),
            17 => (bits.take(4).saturating_add(4), 0),
            18 => (bits.take(5).saturating_add(20), 0),
            _ => {
                let run = bits.take(1).saturating_add(4);
                let symbol = bits.symbol(&pre)?;
                if symbol > 16 {
                    return None;
                }
                (run, difference(*lengths.get(at)?, symbol)?)
            }
        };
        let end = at.saturating_add(run).min(lengths.len());
        lengths.get_mut(at..end)?.fill(value);
        at = end;
    }
    Some(())
}

struct Codes {
    main: PrefixCode,
    lengths: PrefixCode,
    aligned: Option<PrefixCode>,
}

impl Codes {
    fn decode(
        &self,
        bits: &mut Bits<'_>,
        recent: &mut [usize; 3],
        out: &mut [u8],
        done: &mut usize,
    ) -> Option<()> {
        while *done < out.len() {
            let symbol = bits.symbol(&self.main)?;
            if let Ok(literal) = u8::try_from(symbol) {
                *out.get_mut(*done)? = literal;
                *done = done.saturating_add(1);
                continue;
            }
            let symbol = symbol.checked_sub(LITERALS)?;
            let mut len = symbol & 7;
            if len == 7 {
                len = len.saturating_add(bits.symbol(&self.lengths)?);
            }
            let distance = self.distance(bits, recent, symbol >> 3)?;
            repeat(out, done, distance, len.saturating_add(2)).then_some(())?;
        }
        Some(())
    }

    fn distance(&self, bits: &mut Bits<'_>, recent: &mut [usize; 3], slot: usize) -> Option<usize> {
        let [first, second, third] = *recent;
        *recent = match slot {
            0 => [first, second, third],
            1 => [second, first, third],
            // The third takes the place of the first, the second stays.
            2 => [third, second, first],
            _ => {
                // Two slots for each number of extra bits, from slot 4 on.
                let extra = u32::try_from((slot / 2).saturating_sub(1)).ok()?;
                let base = (slot & 1 | 2).checked_shl(extra)?;
                let base = if slot < 4 { slot } else { base };
                let extra = if slot < 4 { 0 } else { extra };
                let low = match &self.aligned {
                    Some(code) if extra >= 3 => {
                        let high = bits.take(extra.saturating_sub(3));
                        (high << 3) | bits.symbol(code)?
                    }
                    _ => bits.take(extra),
                };
                [base.saturating_add(low).checked_sub(2)?, first, second]
            }
        };
        recent.first().copied()
    }
}

/// Turns targets of x86 calls from absolute back to relative ones.
fn translate_calls(data: &mut [u8]) {
    let end = data.len().saturating_sub(10);
    let mut at = 0usize;
    while at < end {
        let here = at;
        at = at.saturating_add(1);
        if data.get(here) != Some(&0xe8) {
            continue;
        }
        let Some(target) = data.get_mut(at..here.saturating_add(5)) else {
            return;
        };
        at = here.saturating_add(5);
        let mut raw = [0; 4];
        raw.copy_from_slice(target);
        let absolute = i32::from_le_bytes(raw);
        let position = i32::try_from(here).unwrap_or(i32::MAX);
        let relative = if (0..CALL_RANGE).contains(&absolute) {
            absolute.wrapping_sub(position)
        } else if absolute < 0 && absolute >= position.wrapping_neg() {
            absolute.wrapping_add(CALL_RANGE)
        } else {
            continue;
        };
        target.copy_from_slice(&relative.to_le_bytes());
    }
}
