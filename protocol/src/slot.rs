//! The slot function: which owner decides about a key.

/// `(murmur2(key) & 0x7fffffff) mod slots`, as the Java client's default partitioner; `slots` is the partition
/// count of the ledger. With 0 slots the answer is 0.
pub fn slot_of(idempotency_key: &str, slots: u32) -> u32 {
    let positive = murmur2(idempotency_key.as_bytes()) as u32 & 0x7fff_ffff;
    positive.checked_rem(slots).unwrap_or(0)
}

/// MurmurHash2, 32 bit, with the seed of `org.apache.kafka.common.utils.Utils.murmur2`.
pub fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = word
            .iter()
            .rev()
            .fold(0, |k, byte| k << 8 | u32::from(*byte));
        k = k.wrapping_mul(M);
        k ^= k >> R;
        k = k.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash ^= rest
            .iter()
            .rev()
            .fold(0, |k, byte| k << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^= hash >> 15;
    hash as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Kafka's own UtilsTest.
    #[test]
    fn murmur2_is_kafkas() {
        let known: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ];
        for (text, hash) in known {
            assert_eq!(murmur2(text.as_bytes()), hash, "{text}");
        }
    }

    #[test]
    fn a_slot_is_below_the_count() {
        // toPositive(-973932308) = 1173551340, and so on with the Java client's formula.
        assert_eq!(slot_of("21", 12), 1_173_551_340 % 12);
        assert_eq!(slot_of("abc", 12), 479_470_107 % 12);
        for count in 1..50 {
            assert!((0..200).all(|key| slot_of(&format!("key-{key}"), count) < count));
        }
        assert_eq!(slot_of("abc", 0), 0);
    }
}
