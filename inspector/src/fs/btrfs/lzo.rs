//! LZO1X as btrfs stores it, from the kernel's Documentation/staging/lzo.rst.

/// Decompresses one LZO1X stream into at most `max` bytes. `None` when it is damaged.
pub(super) fn decompress(input: &[u8], max: usize) -> Option<Vec<u8>> {
    let mut out: Vec<u8> = Vec::new();
    let mut at = 0usize;
    // How many literals the instruction before copied: 0, 1 to 3, or 4 for "four or more".
    let mut state = 0usize;
    let first = usize::from(*input.first()?);
    if first >= 18 {
        let count = first.saturating_sub(17);
        at = 1;
        literals(input, &mut at, count, &mut out, max)?;
        state = count.min(4);
    }
    // Every turn takes a byte of input at least.
    loop {
        let code = byte(input, &mut at)?;
        let (distance, len, next) = match code {
            0..16 if state == 0 => {
                let count = extended(input, &mut at, code, 15)?.checked_add(3)?;
                literals(input, &mut at, count, &mut out, max)?;
                state = 4;
                continue;
            }
            0..16 => {
                let high = byte(input, &mut at)? << 2;
                let distance = high | (code >> 2);
                if state == 4 {
                    (distance.checked_add(2049)?, 3, code & 3)
                } else {
                    (distance.checked_add(1)?, 2, code & 3)
                }
            }
            16..32 => {
                let len = extended(input, &mut at, code & 7, 7)?.checked_add(2)?;
                let word = word(input, &mut at)?;
                let distance = ((code & 8) << 11) | (word >> 2);
                if distance == 0 {
                    return (len == 3).then_some(out);
                }
                (distance.checked_add(16_384)?, len, word & 3)
            }
            32..64 => {
                let len = extended(input, &mut at, code & 31, 31)?.checked_add(2)?;
                let word = word(input, &mut at)?;
                ((word >> 2).checked_add(1)?, len, word & 3)
            }
            64..128 => {
                let high = byte(input, &mut at)? << 3;
                let distance = high | ((code >> 2) & 7);
                let len = ((code >> 5) & 1).checked_add(3)?;
                (distance.checked_add(1)?, len, code & 3)
            }
            _ => {
                let high = byte(input, &mut at)? << 3;
                let distance = high | ((code >> 2) & 7);
                let len = ((code >> 5) & 3).checked_add(5)?;
                (distance.checked_add(1)?, len, code & 3)
            }
        };
        if out.len().checked_add(len)? > max {
            return None;
        }
        let start = out.len().checked_sub(distance)?;
        for i in 0..len {
            // Source and copy may overlap: byte by byte is what the format means.
            let value = *out.get(start.checked_add(i)?)?;
            out.push(value);
        }
        literals(input, &mut at, next, &mut out, max)?;
        state = next;
    }
}

fn byte(input: &[u8], at: &mut usize) -> Option<usize> {
    let value = *input.get(*at)?;
    *at = at.checked_add(1)?;
    Some(usize::from(value))
}

fn word(input: &[u8], at: &mut usize) -> Option<usize> {
    let low = byte(input, at)?;
    Some(low | (byte(input, at)? << 8))
}

/// A length of 0 goes on: zero bytes count 255 each, the first other byte ends it.
fn extended(input: &[u8], at: &mut usize, short: usize, base: usize) -> Option<usize> {
    if short != 0 {
        return Some(short);
    }
    let mut len = base;
    loop {
        match byte(input, at)? {
            0 => len = len.checked_add(255)?,
            last => return len.checked_add(last),
        }
    }
}

fn literals(
    input: &[u8],
    at: &mut usize,
    count: usize,
    out: &mut Vec<u8>,
    max: usize,
) -> Option<()> {
    let past = at.checked_add(count)?;
    if out.len().checked_add(count)? > max {
        return None;
    }
    out.extend_from_slice(input.get(*at..past)?);
    *at = past;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_literals_and_copies() {
        // 4 literals (17 + 4 = 21), a copy of 4 from distance 4 (64..128), the end marker.
        let raw = [21, b'a', b'b', b'c', b'd', 0x6c, 0x00, 0x11, 0, 0];
        assert_eq!(decompress(&raw, 100).unwrap(), b"abcdabcd");
        assert_eq!(decompress(&raw, 7), None);
        for cut in 0..raw.len() {
            assert_eq!(decompress(&raw[..cut], 100), None, "cut at {cut}");
        }
        // A distance before the first byte.
        assert_eq!(
            decompress(&[21, 1, 2, 3, 4, 0x7c, 0x00, 0x11, 0, 0], 100),
            None
        );
    }
}
