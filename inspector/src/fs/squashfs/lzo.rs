//! LZO1X, from the description of its bit stream in the Linux kernel's documentation
//! (`Documentation/staging/lzo.rst`).

use crate::fs::lz::repeat;

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Input<'_> {
    fn byte(&mut self) -> Option<usize> {
        let byte = self.bytes.get(self.at).copied()?;
        self.at = self.at.saturating_add(1);
        Some(usize::from(byte))
    }

    fn word(&mut self) -> Option<usize> {
        Some(self.byte()? | (self.byte()? << 8))
    }

    /// A length that did not fit: 255 for each zero byte, then what is left.
    fn long(&mut self, base: usize) -> Option<usize> {
        let mut len = base;
        loop {
            match self.byte()? {
                0 => len = len.checked_add(255)?,
                rest => return len.checked_add(rest),
            }
        }
    }

    fn literals(&mut self, out: &mut [u8], done: &mut usize, len: usize) -> Option<()> {
        let (from_end, to_end) = (self.at.checked_add(len)?, done.checked_add(len)?);
        let from = self.bytes.get(self.at..from_end)?;
        out.get_mut(*done..to_end)?.copy_from_slice(from);
        (self.at, *done) = (from_end, to_end);
        Some(())
    }
}

/// Decompresses to at most `max` bytes; `None` when the input is damaged.
pub(super) fn decode(bytes: &[u8], max: usize) -> Option<Vec<u8>> {
    let mut out = vec![0; max];
    let mut done = 0usize;
    let mut input = Input { bytes, at: 0 };
    // How many literals came before: it decides what small codes mean. 4 stands for a long run.
    let mut state = 0usize;
    if let Some(first @ 18..) = bytes.first().copied() {
        input.at = 1;
        let len = usize::from(first).saturating_sub(17);
        input.literals(&mut out, &mut done, len)?;
        state = len.min(4);
    }
    loop {
        let code = input.byte()?;
        let (len, distance, after) = match code {
            0..16 if state == 0 => {
                let len = if code == 0 { input.long(15)? } else { code };
                input.literals(&mut out, &mut done, len.checked_add(3)?)?;
                state = 4;
                continue;
            }
            0..16 => {
                let far = input.byte()? << 2;
                let near = (code >> 2).saturating_add(far);
                match state {
                    4 => (3, near.saturating_add(2049), code & 3),
                    _ => (2, near.saturating_add(1), code & 3),
                }
            }
            16..32 => {
                let len = if code & 7 == 0 {
                    input.long(7)?
                } else {
                    code & 7
                };
                let word = input.word()?;
                let distance = ((code & 8) << 11).saturating_add(word >> 2);
                if distance == 0 {
                    break;
                }
                (
                    len.checked_add(2)?,
                    distance.saturating_add(16_384),
                    word & 3,
                )
            }
            32..64 => {
                let len = if code & 31 == 0 {
                    input.long(31)?
                } else {
                    code & 31
                };
                let word = input.word()?;
                (len.checked_add(2)?, (word >> 2).saturating_add(1), word & 3)
            }
            _ => {
                let near = (code >> 2) & 7;
                let distance = near.saturating_add(input.byte()? << 3).saturating_add(1);
                ((code >> 5).saturating_add(1), distance, code & 3)
            }
        };
        repeat(&mut out, &mut done, distance, len).then_some(())?;
        input.literals(&mut out, &mut done, after)?;
        state = after;
    }
    out.truncate(done);
    Some(out)
}
