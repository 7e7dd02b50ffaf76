//! Marvin32, the keyed checksum of log entries ("Log entries", notes 1–3).
//!
//! The algorithm is published in US patent 8,555,342 and in the .NET runtime: 32-bit words go
//! through a four-step add-rotate-xor round; a final word holds the rest of the bytes and 0x80.

/// Low and high word of the number 0x82ef4d887a4e55c5. The specification prints its bytes in that
/// order and calls them little-endian; real logs agree with the number.
const SEED: (u32, u32) = (0x7a4e_55c5, 0x82ef_4d88);

/// A hash in progress. Data arrives in pieces of any length.
pub(super) struct Marvin32 {
    low: u32,
    high: u32,
    pending: u32,
    pending_bytes: u32,
}

impl Marvin32 {
    pub(super) fn new() -> Self {
        Self {
            low: SEED.0,
            high: SEED.1,
            pending: 0,
            pending_bytes: 0,
        }
    }

    fn round(&mut self, word: u32) {
        self.low = self.low.wrapping_add(word);
        self.high ^= self.low;
        self.low = self.low.rotate_left(20).wrapping_add(self.high);
        self.high = self.high.rotate_left(9) ^ self.low;
        self.low = self.low.rotate_left(27).wrapping_add(self.high);
        self.high = self.high.rotate_left(19);
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if self.pending_bytes == 0 {
            let (words, tail) = rest.as_chunks::<4>();
            for word in words {
                self.round(u32::from_le_bytes(*word));
            }
            rest = tail;
        }
        for byte in rest {
            self.pending |= u32::from(*byte) << self.pending_bytes.wrapping_mul(8);
            self.pending_bytes = self.pending_bytes.wrapping_add(1);
            if self.pending_bytes == 4 {
                let word = self.pending;
                (self.pending, self.pending_bytes) = (0, 0);
                self.round(word);
            }
        }
    }

    /// The two words as the log stores them: one little-endian 64-bit number.
    pub(super) fn finish(mut self) -> u64 {
        let last = self.pending | 0x80_u32.wrapping_shl(self.pending_bytes.wrapping_mul(8));
        self.round(last);
        self.round(0);
        (u64::from(self.high) << 32) | u64::from(self.low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(pieces: &[&[u8]]) -> u64 {
        let mut sum = Marvin32::new();
        for piece in pieces {
            sum.update(piece);
        }
        sum.finish()
    }

    /// Real entries check the algorithm itself: `tests/it/registry.rs`.
    #[test]
    fn pieces_do_not_matter() {
        let whole = hash(&[b"a registry log entry"]);
        assert_eq!(hash(&[b"a", b" regi", b"", b"stry log", b" entry"]), whole);
        assert_ne!(hash(&[b"a registry log entrz"]), whole);
        assert_ne!(hash(&[b"a registry log entry\0"]), whole);
    }
}
