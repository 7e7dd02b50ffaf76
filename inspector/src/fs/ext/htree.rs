//! Hashed look-up in indexed directories.

use super::inode::Inode;
use super::{Ext, dir, map};
use crate::bytes::{Record, narrow, read_vec};
use crate::error::{DiskError, Result};
use crate::fs::NodeId;
use std::ops::ControlFlow;

/// Levels of index blocks: two, or three with `large_dir`.
const LEVELS_MAX: u8 = 3;
/// Leaves that one hash value may spill over.
const COLLISIONS_MAX: usize = 64;

impl Ext {
    /// Looks a name up by its hash. The outer `None` means that the index cannot be used and the
    /// directory has to be read through.
    pub(super) fn lookup_htree(
        &self,
        inode: &Inode,
        name: &[u8],
    ) -> Result<Option<Option<NodeId>>> {
        match self.descend(inode, name) {
            Err(DiskError::Corrupt { .. } | DiskError::OutOfBounds { .. }) => Ok(None),
            other => other,
        }
    }

    fn directory_block(&self, inode: &Inode, block: u64) -> Result<(u64, Vec<u8>)> {
        let run = map::run_at(self.device.as_ref(), &self.sb, inode, block)?;
        let Some(physical) = run.physical else {
            return Err(inode.corrupt(format!("directory block {block} is a hole")));
        };
        let position = physical.saturating_mul(self.sb.block_size);
        let bytes = read_vec(self.device.as_ref(), position, narrow(self.sb.block_size))?;
        Ok((position, bytes))
    }

    fn descend(&self, inode: &Inode, name: &[u8]) -> Result<Option<Option<NodeId>>> {
        let (position, root) = self.directory_block(inode, 0)?;
        let r = Record::new("ext htree root", position, &root);
        let (version, info_length, levels) = (r.u8(0x1c)?, r.u8(0x1d)?, r.u8(0x1e)?);
        let Some(hash) = hash(version, self.sb.hash_unsigned, &self.sb.hash_seed, name) else {
            return Ok(None);
        };
        if levels > LEVELS_MAX {
            return Ok(None);
        }
        let mut table = 0x18usize.saturating_add(usize::from(info_length));
        let (mut position, mut node) = (position, root);
        for level in 0..=levels {
            let r = Record::new("ext htree node", position, &node);
            let chosen = choose(&r, table, hash)?;
            if level == levels {
                return self.search_leaves(inode, name, hash, &chosen).map(Some);
            }
            let child = chosen.first().map_or(0, |(_, block)| *block);
            (position, node) = self.directory_block(inode, u64::from(child))?;
            table = 8;
            // A hash that continues in the next index block is rare: let the linear scan answer.
            if chosen.get(1).is_some_and(|(next, _)| *next == hash | 1) {
                return Ok(None);
            }
        }
        Ok(None)
    }

    fn search_leaves(
        &self,
        inode: &Inode,
        name: &[u8],
        hash: u32,
        leaves: &[(u32, u32)],
    ) -> Result<Option<NodeId>> {
        for (i, (first, block)) in leaves.iter().enumerate() {
            // Bit 0 marks a leaf that continues the hash of the one before.
            if i > 0 && *first != hash | 1 {
                break;
            }
            let (position, bytes) = self.directory_block(inode, u64::from(*block))?;
            let mut found = None;
            let ended = dir::entries(&bytes, position, self.typed(), &mut |entry| {
                if entry.name == name {
                    found = Some(entry.node);
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
            if ended.is_break() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// The entry whose range holds `hash`, and those after it (hash, block).
fn choose(r: &Record<'_>, table: usize, hash: u32) -> Result<Vec<(u32, u32)>> {
    let (limit, count) = (r.u16_le(table)?, r.u16_le(table.saturating_add(2))?);
    let room = r.bytes().len().saturating_sub(table) / 8;
    if count == 0 || count > limit || usize::from(count) > room {
        return Err(r.corrupt(table, format!("{count} of {limit} htree entries")));
    }
    let at = |i: u16| table.saturating_add(usize::from(i).saturating_mul(8));
    let hash_of = |i: u16| if i == 0 { Ok(0) } else { r.u32_le(at(i)) };
    let (mut low, mut high) = (1u16, count);
    while low < high {
        let middle = low.midpoint(high);
        if hash_of(middle)? <= hash {
            low = middle.saturating_add(1);
        } else {
            high = middle;
        }
    }
    (low.saturating_sub(1)..count)
        .take(COLLISIONS_MAX)
        .map(|i| {
            Ok((
                hash_of(i)?,
                r.u32_le(at(i).saturating_add(4))? & 0x0fff_ffff,
            ))
        })
        .collect()
}

/// Hash of a name in the version that the root names; `None` for versions that are not known.
fn hash(version: u8, unsigned: bool, seed: &[u32; 4], name: &[u8]) -> Option<u32> {
    let signed = match version {
        0..=2 => !unsigned,
        3..=5 => false,
        _ => return None,
    };
    let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    if seed.iter().any(|word| *word != 0) {
        state = *seed;
    }
    let raw = match version {
        0 | 3 => legacy(name, signed),
        1 | 4 => {
            for_chunks::<8>(name, signed, |words| half_md4(&mut state, words));
            state[1]
        }
        _ => {
            for_chunks::<4>(name, signed, |words| tea(&mut state, words));
            state[0]
        }
    };
    let even = raw & !1;
    // The largest value marks the end of a directory.
    Some(if even == 0xffff_fffe {
        0xffff_fffc
    } else {
        even
    })
}

fn character(byte: u8, signed: bool) -> u32 {
    if signed {
        i32::from(i8::from_ne_bytes([byte])).cast_unsigned()
    } else {
        u32::from(byte)
    }
}

fn legacy(name: &[u8], signed: bool) -> u32 {
    let (mut hash0, mut hash1) = (0x12a3_fe2du32, 0x37ab_e8f9u32);
    for byte in name {
        let product = character(*byte, signed).wrapping_mul(7_152_373);
        let mut next = hash1.wrapping_add(hash0 ^ product);
        if next & 0x8000_0000 != 0 {
            next = next.wrapping_sub(0x7fff_ffff);
        }
        hash1 = hash0;
        hash0 = next;
    }
    hash0 << 1
}

/// Packs the name into groups of N big-endian words, padded with its remaining length.
fn for_chunks<const N: usize>(name: &[u8], signed: bool, mut apply: impl FnMut(&[u32; N])) {
    let mut rest = name;
    loop {
        let length = u32::try_from(rest.len()).unwrap_or(0);
        let pair = length | (length << 8);
        let pad = pair | (pair << 16);
        let mut words = [pad; N];
        let take = rest.len().min(N.saturating_mul(4));
        let (chunk, after) = rest.split_at(take);
        for (word, bytes) in words.iter_mut().zip(chunk.chunks(4)) {
            for byte in bytes {
                *word = (*word << 8).wrapping_add(character(*byte, signed));
            }
        }
        apply(&words);
        if after.is_empty() {
            return;
        }
        rest = after;
    }
}

fn half_md4(state: &mut [u32; 4], x: &[u32; 8]) {
    let [mut a, mut b, mut c, mut d] = *state;
    let choose = |x: u32, y: u32, z: u32| z ^ (x & (y ^ z));
    let majority = |x: u32, y: u32, z: u32| (x & y).wrapping_add((x ^ y) & z);
    let parity = |x: u32, y: u32, z: u32| x ^ y ^ z;
    type Mix<'a> = &'a dyn Fn(u32, u32, u32) -> u32;
    let rounds: [(Mix<'_>, u32, [usize; 8], [u32; 4]); 3] = [
        (&choose, 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (
            &majority,
            0x5a82_7999,
            [1, 3, 5, 7, 0, 2, 4, 6],
            [3, 5, 9, 13],
        ),
        (
            &parity,
            0x6ed9_eba1,
            [3, 7, 2, 6, 1, 5, 0, 4],
            [3, 9, 11, 15],
        ),
    ];
    for (mix, constant, order, turns) in rounds {
        for (word, turn) in order.iter().zip(turns.iter().cycle()) {
            let input = x.get(*word).copied().unwrap_or(0).wrapping_add(constant);
            let sum = a.wrapping_add(mix(b, c, d)).wrapping_add(input);
            (a, b, c, d) = (d, sum.rotate_left(*turn), b, c);
        }
    }
    for (word, add) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(add);
    }
}

fn tea(state: &mut [u32; 4], x: &[u32; 4]) {
    let [mut b0, mut b1, ..] = *state;
    let [k0, k1, k2, k3] = *x;
    let mut sum = 0u32;
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9e37_79b9);
        b0 = b0.wrapping_add(
            (b1 << 4).wrapping_add(k0) ^ b1.wrapping_add(sum) ^ (b1 >> 5).wrapping_add(k1),
        );
        b1 = b1.wrapping_add(
            (b0 << 4).wrapping_add(k2) ^ b0.wrapping_add(sum) ^ (b0 >> 5).wrapping_add(k3),
        );
    }
    state[0] = state[0].wrapping_add(b0);
    state[1] = state[1].wrapping_add(b1);
}
