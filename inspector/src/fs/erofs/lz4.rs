//! Blocks of LZ4 (its block format description), decoded until the output is full: what follows in
//! a cluster is padding, or belongs to an extent that shares it. `lz4_flex` decodes whole blocks only.

use crate::fs::lz::repeat;

/// A length: what the token holds, and if that is 15, bytes up to the first that is not 255.
fn length(input: &mut &[u8], token: u8) -> Option<usize> {
    let mut len = usize::from(token & 15);
    if len < 15 {
        return Some(len);
    }
    loop {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        len = len.checked_add(usize::from(*byte))?;
        if *byte != 255 {
            return Some(len);
        }
    }
}

/// Fills `out`; `None` when the input is damaged or ends before.
pub(super) fn fill(mut input: &[u8], out: &mut [u8]) -> Option<()> {
    let mut done = 0usize;
    while done < out.len() {
        let (token, rest) = input.split_first()?;
        input = rest;
        let left = out.len().saturating_sub(done);
        let len = length(&mut input, token >> 4)?.min(left);
        let (literals, rest) = input.split_at_checked(len)?;
        let end = done.checked_add(len)?;
        out.get_mut(done..end)?.copy_from_slice(literals);
        (input, done) = (rest, end);
        let left = out.len().saturating_sub(done);
        if left == 0 {
            break;
        }
        let (distance, rest) = input.split_first_chunk::<2>()?;
        input = rest;
        let len = length(&mut input, *token)?.checked_add(4)?.min(left);
        let distance = usize::from(u16::from_le_bytes(*distance));
        repeat(out, &mut done, distance, len).then_some(())?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(input: &[u8], len: usize) -> Option<Vec<u8>> {
        let mut out = vec![0; len];
        fill(input, &mut out).map(|()| out)
    }

    #[test]
    fn stops_when_the_output_is_full() {
        // Three letters, repeated for 15 + 255 + 10 + 4 bytes, and five more letters.
        let packed = [
            0x3f, b'a', b'b', b'c', 3, 0, 255, 10, 0x50, b'h', b'e', b'l', b'l', b'o',
        ];
        let mut text: Vec<u8> = b"abc".iter().copied().cycle().take(287).collect();
        text.extend(b"hello");
        let mut padded = packed.to_vec();
        padded.extend([0; 100]);
        for len in [0, 1, 3, 100, 287, 290, text.len()] {
            assert_eq!(decode(&padded, len).unwrap(), &text[..len]);
        }
        assert_eq!(decode(&packed, text.len() + 1), None);
        assert_eq!(decode(&packed[..10], text.len()), None);
        // A copy from before the beginning, and one from nowhere.
        assert_eq!(decode(&[0x10, b'a', 2, 0, 0], 9), None);
        assert_eq!(decode(&[0x10, b'a', 0, 0, 0], 9), None);
    }
}
