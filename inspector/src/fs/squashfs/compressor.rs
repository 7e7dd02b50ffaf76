//! The six compressors, each bounded by the length that the caller knows beforehand.

use crate::bytes::{Record, narrow, size, wide};
use crate::error::{DiskError, Result};
use flate2::{Decompress, FlushDecompress, Status};
use std::io::{Read, Write};

/// The compressor of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compressor {
    Gzip,
    Lzma,
    Lzo,
    Xz,
    Lz4,
    Zstd,
}

impl Compressor {
    pub(super) fn new(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Gzip,
            2 => Self::Lzma,
            3 => Self::Lzo,
            4 => Self::Xz,
            5 => Self::Lz4,
            6 => Self::Zstd,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Lzma => "lzma",
            Self::Lzo => "lzo",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Decompresses a block to at most `max` bytes.
    pub(super) fn decode(self, position: u64, input: &[u8], max: usize) -> Result<Vec<u8>> {
        let outcome = match self {
            Self::Gzip => gzip(input, max),
            Self::Lzma => lzma(input, max),
            Self::Lzo => super::lzo::decode(input, max),
            Self::Xz => return xz(position, input, max),
            Self::Lz4 => lz4(input, max),
            Self::Zstd => zstd(input, max),
        };
        outcome.ok_or_else(|| DiskError::Corrupt {
            structure: "squashfs block",
            position,
            problem: format!(
                "{} bytes do not decompress with {}",
                input.len(),
                self.name()
            ),
        })
    }
}

fn gzip(input: &[u8], max: usize) -> Option<Vec<u8>> {
    let mut out = vec![0; max];
    let mut decoder = Decompress::new(true);
    let status = decoder.decompress(input, &mut out, FlushDecompress::Finish);
    if !matches!(status, Ok(Status::StreamEnd)) {
        return None;
    }
    out.truncate(narrow(decoder.total_out()));
    Some(out)
}

fn lz4(input: &[u8], max: usize) -> Option<Vec<u8>> {
    let mut out = vec![0; max];
    let len = lz4_flex::block::decompress_into(input, &mut out).ok()?;
    out.truncate(len);
    Some(out)
}

fn zstd(input: &[u8], max: usize) -> Option<Vec<u8>> {
    let decoder = ruzstd::decoding::StreamingDecoder::new(input).ok()?;
    let mut out = Vec::new();
    // One byte more tells a block that is too long.
    let cap = wide(max).saturating_add(1);
    decoder.take(cap).read_to_end(&mut out).ok()?;
    (out.len() <= max).then_some(out)
}

/// Refuses what would make it longer than the cap.
struct Capped {
    out: Vec<u8>,
    max: usize,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.out.len().saturating_add(bytes.len()) > self.max {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The format of `.lzma` files: properties, dictionary size, length.
fn lzma(mut input: &[u8], max: usize) -> Option<Vec<u8>> {
    let options = lzma_rs::decompress::Options {
        unpacked_size: lzma_rs::decompress::UnpackedSize::ReadFromHeader,
        // The dictionary grows with the output, which is capped.
        memlimit: Some(max.saturating_add(64 << 10)),
        allow_incomplete: false,
    };
    let mut capped = Capped {
        out: Vec::new(),
        max,
    };
    lzma_rs::lzma_decompress_with_options(&mut input, &mut capped, &options).ok()?;
    Some(capped.out)
}

/// One block of an `.xz` stream (the .xz format, sections 2 and 3). The crate decodes LZMA2 alone:
/// its chunks say how long they get, so that their sum is known before any memory is taken.
fn xz(position: u64, input: &[u8], max: usize) -> Result<Vec<u8>> {
    let r = Record::new("squashfs xz block", position, input);
    if r.slice(0, 6)? != b"\xfd7zXZ\0" {
        return Err(r.corrupt(0, "no xz stream"));
    }
    let header = usize::from(r.u8(12)?).saturating_add(1).saturating_mul(4);
    let flags = r.u8(13)?;
    // Sizes are optional variable-length numbers before the filters.
    let mut at = 14usize;
    for bit in [0x40u8, 0x80] {
        if flags & bit != 0 {
            while r.u8(at)? & 0x80 != 0 {
                at = at.saturating_add(1);
            }
            at = at.saturating_add(1);
        }
    }
    if flags & 3 != 0 || r.u8(at)? != 0x21 {
        return Err(DiskError::Unsupported {
            feature: "squashfs xz with a branch filter".to_owned(),
        });
    }
    let start = header.saturating_add(12);
    let end = lzma2_end(&r, start, max)?;
    let mut stream = r.slice(start, end.saturating_sub(start))?;
    let mut capped = Capped {
        out: Vec::new(),
        max,
    };
    lzma_rs::lzma2_decompress(&mut stream, &mut capped)
        .map_err(|_| r.corrupt(start, "it does not decompress"))?;
    Ok(capped.out)
}

/// Where the chunks end; refuses those that would give more than `max` bytes.
fn lzma2_end(r: &Record<'_>, start: usize, max: usize) -> Result<usize> {
    let (mut at, mut total) = (start, 0usize);
    // Chunks take three bytes at least; the input bounds the loop.
    loop {
        let control = r.u8(at)?;
        if control == 0 {
            return Ok(at.saturating_add(1));
        }
        let low = usize::from(r.u16_be(at.saturating_add(1))?);
        let (gives, takes) = match control {
            1 | 2 => (low, low.saturating_add(4)),
            0x80.. => {
                let high = size(u32::from(control & 0x1f)).saturating_mul(65_536);
                let properties = if control >= 0xc0 { 1 } else { 0 };
                let compressed = usize::from(r.u16_be(at.saturating_add(3))?);
                (
                    high.saturating_add(low),
                    compressed.saturating_add(6).saturating_add(properties),
                )
            }
            _ => return Err(r.corrupt(at, format!("LZMA2 chunk {control:#x}"))),
        };
        total = total.saturating_add(gives).saturating_add(1);
        if total > max {
            return Err(r.corrupt(at, format!("more than {max} bytes")));
        }
        at = at.saturating_add(takes);
    }
}
