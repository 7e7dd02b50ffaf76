//! SQLite's write-ahead log: which pages have a newer version there
//! (SQLite database file format, "The Write-Ahead Log").

use crate::bytes::{Record, read_vec, wide};
use crate::error::Result;
use crate::read_at::ReadAt;
use std::collections::HashMap;

const MAGIC_LE: u32 = 0x377f_0682;
const MAGIC_BE: u32 = 0x377f_0683;
const VERSION: u32 = 3_007_000;
const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// Frames that are looked at: 4 KiB each, so 1 GiB. SQLite checkpoints at 1,000.
const FRAMES_MAX: u64 = 262_144;

/// Committed pages of a log.
#[derive(Debug, Default)]
pub(super) struct Wal {
    /// Page number to the position of its newest content.
    pub(super) pages: HashMap<u32, u64>,
    /// Size of the database in pages after the last commit.
    pub(super) size: Option<u32>,
}

/// Reads a log; one that does not belong to the database is empty. Frames count up to the last
/// commit before the first whose salt or checksum is wrong: later ones are leftovers of an older log.
///
/// # Errors
/// Failing reads.
pub(super) fn read(layer: &dyn ReadAt, page_size: u32) -> Result<Wal> {
    let mut wal = Wal::default();
    if layer.len() < wide(HEADER) {
        return Ok(wal);
    }
    let bytes = read_vec(layer, 0, HEADER)?;
    let header = Record::new("SQLite log header", 0, &bytes);
    let magic = header.u32_be(0)?;
    let known = matches!(magic, MAGIC_LE | MAGIC_BE) && header.u32_be(4)? == VERSION;
    if !known || header.u32_be(8)? != page_size {
        return Ok(wal);
    }
    let big = magic == MAGIC_BE;
    let salt = header.slice(16, 8)?;
    let mut sum = checksum((0, 0), header.slice(0, 24)?, big);
    if sum != (header.u32_be(24)?, header.u32_be(28)?) {
        return Ok(wal);
    }
    let frame_len = wide(FRAME_HEADER).saturating_add(u64::from(page_size));
    let mut position = wide(HEADER);
    let mut pending: Vec<(u32, u64)> = Vec::new();
    for _ in 0..FRAMES_MAX {
        if position.saturating_add(frame_len) > layer.len() {
            break;
        }
        let bytes = read_vec(layer, position, crate::bytes::narrow(frame_len))?;
        let frame = Record::new("SQLite log frame", position, &bytes);
        if frame.slice(8, 8)? != salt {
            break;
        }
        sum = checksum(sum, frame.slice(0, 8)?, big);
        sum = checksum(sum, bytes.get(FRAME_HEADER..).unwrap_or_default(), big);
        if sum != (frame.u32_be(16)?, frame.u32_be(20)?) {
            break;
        }
        let content = position.saturating_add(wide(FRAME_HEADER));
        pending.push((frame.u32_be(0)?, content));
        let size = frame.u32_be(4)?;
        if size != 0 {
            wal.pages.extend(pending.drain(..));
            wal.size = Some(size);
        }
        position = position.saturating_add(frame_len);
    }
    Ok(wal)
}

/// The log's running checksum over pairs of words.
fn checksum((mut a, mut b): (u32, u32), bytes: &[u8], big: bool) -> (u32, u32) {
    let word = |bytes: &[u8]| {
        let bytes = bytes.try_into().unwrap_or_default();
        if big {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    };
    for pair in bytes.chunks_exact(8) {
        let (first, second) = pair.split_at(4);
        a = a.wrapping_add(word(first)).wrapping_add(b);
        b = b.wrapping_add(word(second)).wrapping_add(a);
    }
    (a, b)
}
