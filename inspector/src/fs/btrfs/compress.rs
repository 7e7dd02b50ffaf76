//! Compressed extents, each a stream of its own.

use super::lzo;
use crate::bytes::{Record, size};
use crate::error::{DiskError, Result};
use std::io::Read;

/// `BTRFS_MAX_UNCOMPRESSED`, and at most that on disk.
pub(super) const EXTENT_MAX: usize = 128 << 10;

/// Decompresses an extent of `len` bytes; what the stream leaves out reads as zeros.
pub(super) fn decompress(
    kind: u8,
    raw: &[u8],
    len: usize,
    sector_size: usize,
    position: u64,
) -> Result<Vec<u8>> {
    let corrupt = |problem: String| DiskError::Corrupt {
        structure: "btrfs compressed extent",
        position,
        problem,
    };
    if len > EXTENT_MAX || raw.len() > EXTENT_MAX {
        return Err(corrupt(format!("{} bytes for {len}", raw.len())));
    }
    let mut out = match kind {
        1 => zlib(raw, len).map_err(corrupt)?,
        2 => lzo_segments(raw, len, sector_size, position)?,
        3 => zstd(raw, len).map_err(corrupt)?,
        kind => {
            return Err(DiskError::Unsupported {
                feature: format!("btrfs compression {kind}"),
            });
        }
    };
    out.resize(len, 0);
    Ok(out)
}

fn zlib(raw: &[u8], len: usize) -> std::result::Result<Vec<u8>, String> {
    let mut out = vec![0; len];
    let mut inflater = flate2::Decompress::new(true);
    inflater
        .decompress(raw, &mut out, flate2::FlushDecompress::Finish)
        .map_err(|e| e.to_string())?;
    Ok(out)
}

fn zstd(raw: &[u8], len: usize) -> std::result::Result<Vec<u8>, String> {
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(raw).map_err(|e| e.to_string())?;
    let mut out = vec![0; len];
    let mut filled = 0usize;
    while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match decoder.read(rest) {
            Ok(0) => break,
            Ok(n) => filled = filled.saturating_add(n),
            Err(e) => return Err(e.to_string()),
        }
    }
    Ok(out)
}

/// A total length, then segments with their lengths, one for each sector of content. A length
/// never crosses a sector's end.
fn lzo_segments(raw: &[u8], len: usize, sector_size: usize, position: u64) -> Result<Vec<u8>> {
    let r = Record::new("btrfs lzo extent", position, raw);
    let total = size(r.u32_le(0)?).min(raw.len());
    let mut out = Vec::new();
    let mut at = 4usize;
    // A segment takes 4 bytes at least, so the extent bounds the loop.
    while at.saturating_add(4) <= total && out.len() < len {
        let left = sector_size.saturating_sub(at.checked_rem(sector_size).unwrap_or(0));
        if left < 4 {
            at = at.saturating_add(left);
            continue;
        }
        let segment = r.slice(at.saturating_add(4), size(r.u32_le(at)?))?;
        let Some(piece) = lzo::decompress(segment, sector_size) else {
            return Err(r.corrupt(at, "a damaged LZO segment"));
        };
        out.extend(piece);
        at = at.saturating_add(4).saturating_add(segment.len());
    }
    Ok(out)
}
