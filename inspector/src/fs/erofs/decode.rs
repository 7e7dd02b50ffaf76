//! The algorithms, each bounded by the length that the caller knows. Extents may share what is
//! stored and want its beginning only: no more than that is decoded.

use super::lz4;
use flate2::{Decompress, FlushDecompress};
use std::io::Read;

/// The largest dictionary (`Z_EROFS_LZMA_MAX_DICT_SIZE`).
const LZMA_DICTIONARY: u32 = 8 << 20;

/// An algorithm (`h_algorithmtype`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Algorithm {
    Lz4,
    Lzma,
    Deflate,
    Zstd,
}

impl Algorithm {
    pub(super) fn new(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Lz4,
            1 => Self::Lzma,
            2 => Self::Deflate,
            3 => Self::Zstd,
            _ => return None,
        })
    }

    /// Fills `out`; `None` when the input is damaged or too short.
    pub(super) fn fill(self, input: &[u8], out: &mut [u8]) -> Option<()> {
        match self {
            Self::Lz4 => lz4::fill(input, out),
            Self::Lzma => lzma(input, out),
            Self::Deflate => deflate(input, out),
            Self::Zstd => zstd(input, out),
        }
    }
}

fn deflate(input: &[u8], out: &mut [u8]) -> Option<()> {
    let mut decoder = Decompress::new(false);
    decoder.decompress(input, out, FlushDecompress::None).ok()?;
    (decoder.total_out() == crate::bytes::wide(out.len())).then_some(())
}

fn zstd(input: &[u8], out: &mut [u8]) -> Option<()> {
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(input).ok()?;
    decoder.read_exact(out).ok()
}

/// MicroLZMA: the properties' complement stands in the stream's first byte, which is always zero.
fn lzma(input: &[u8], out: &mut [u8]) -> Option<()> {
    let (first, rest) = input.split_first()?;
    let mut head = vec![!first];
    head.extend(LZMA_DICTIONARY.to_le_bytes());
    head.push(0);
    let options = lzma_rs::decompress::Options {
        unpacked_size: lzma_rs::decompress::UnpackedSize::UseProvided(Some(crate::bytes::wide(
            out.len(),
        ))),
        // The dictionary grows with the output, which is bounded.
        memlimit: Some(out.len().saturating_add(64 << 10)),
        allow_incomplete: false,
    };
    let mut decoded = Vec::with_capacity(out.len());
    let mut stream = head.as_slice().chain(rest);
    lzma_rs::lzma_decompress_with_options(
        &mut std::io::BufReader::new(&mut stream),
        &mut decoded,
        &options,
    )
    .ok()?;
    out.copy_from_slice(decoded.get(..out.len())?);
    Some(())
}
