//! Checksums of superblocks and nodes: the first 32 bytes hold the sum of the rest.

use crate::crc32::crc32c;
use sha2::{Digest, Sha256};

const FIELD: usize = 32;

/// Kinds by `csum_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sum {
    Crc32c,
    XxHash64,
    Sha256,
    /// Named, not verified.
    Blake2,
}

impl Sum {
    pub(super) fn of_type(number: u16) -> Option<Self> {
        Some(match number {
            0 => Self::Crc32c,
            1 => Self::XxHash64,
            2 => Self::Sha256,
            3 => Self::Blake2,
            _ => return None,
        })
    }

    /// Name of a kind that is taken on trust.
    pub(super) fn unverified(self) -> Option<&'static str> {
        (self == Self::Blake2).then_some("blake2b")
    }

    /// Whether the block's sum is the one it carries.
    pub(super) fn holds(self, block: &[u8]) -> bool {
        let Some((stored, body)) = block.split_at_checked(FIELD) else {
            return false;
        };
        match self {
            Self::Crc32c => stored.starts_with(&(!crc32c(!0, body)).to_le_bytes()),
            Self::XxHash64 => stored.starts_with(&xxhash64(body).to_le_bytes()),
            Self::Sha256 => Sha256::digest(body).as_slice() == stored,
            Self::Blake2 => true,
        }
    }
}

const P1: u64 = 0x9e37_79b1_85eb_ca87;
const P2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const P3: u64 = 0x1656_67b1_9e37_79f9;
const P4: u64 = 0x85eb_ca77_c2b2_ae63;
const P5: u64 = 0x27d4_eb2f_1656_67c5;

fn round(state: u64, word: u64) -> u64 {
    state
        .wrapping_add(word.wrapping_mul(P2))
        .rotate_left(31)
        .wrapping_mul(P1)
}

fn word(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, byte| (word << 8) | u64::from(*byte))
}

/// XXH64 with seed 0, from the specification of xxHash (version 0.1.1).
fn xxhash64(bytes: &[u8]) -> u64 {
    let mut lanes = [P1.wrapping_add(P2), P2, 0, 0u64.wrapping_sub(P1)];
    let mut stripes = bytes.chunks_exact(32);
    for stripe in &mut stripes {
        for (lane, eight) in lanes.iter_mut().zip(stripe.chunks_exact(8)) {
            *lane = round(*lane, word(eight));
        }
    }
    let mut hash = P5;
    if bytes.len() >= 32 {
        hash = lanes
            .iter()
            .zip([1, 7, 12, 18])
            .fold(0u64, |sum, (lane, turn)| {
                sum.wrapping_add(lane.rotate_left(turn))
            });
        for lane in lanes {
            hash = (hash ^ round(0, lane)).wrapping_mul(P1).wrapping_add(P4);
        }
    }
    hash = hash.wrapping_add(crate::bytes::wide(bytes.len()));
    let mut rest = stripes.remainder().chunks_exact(8);
    for eight in &mut rest {
        hash = (hash ^ round(0, word(eight)))
            .rotate_left(27)
            .wrapping_mul(P1)
            .wrapping_add(P4);
    }
    let mut rest = rest.remainder();
    if let Some((four, after)) = rest.split_at_checked(4) {
        hash = (hash ^ word(four).wrapping_mul(P1))
            .rotate_left(23)
            .wrapping_mul(P2)
            .wrapping_add(P3);
        rest = after;
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(P5))
            .rotate_left(11)
            .wrapping_mul(P1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(P2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(P3);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sums() {
        assert_eq!(xxhash64(b""), 0xef46_db37_51d8_e999);
        assert_eq!(xxhash64(b"abc"), 0x44bc_2cf5_ad77_0999);
        let long: Vec<u8> = (0..101u8).collect();
        // From python3-xxhash: xxh64(bytes(range(101))).
        assert_eq!(xxhash64(&long), 0xe990_3849_5f85_381e);
        let mut block = vec![0; 32];
        block.extend(b"body");
        let sum = Sha256::digest(b"body");
        block[..32].copy_from_slice(&sum);
        assert!(Sum::Sha256.holds(&block) && !Sum::Crc32c.holds(&block));
    }
}
