//! Compressed clusters, unpacked no further than somebody has read.
//!
//! A file system's structures are small and lie scattered: most clusters are asked for a few
//! kilobytes near their beginning. To stop there saves half of the inflating of a usual report.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_PARSE_ZLIB_HEADER, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// Unpacked at least at once: a page, so that small reads side by side do not each start anew.
const STEP: usize = 4096;

/// How a stream of deflate is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrapping {
    /// Not at all (RFC 1951).
    Raw,
    /// Header and checksum of zlib (RFC 1950).
    Zlib,
}

/// A compressed cluster. What follows the stream in its input is ignored.
pub(super) struct Packed {
    /// As long as somebody has asked for: what nobody reads is not even cleared.
    bytes: Vec<u8>,
    there: usize,
    len: usize,
    rest: Rest,
}

enum Rest {
    Stream(Stream),
    /// The stream ended, for this reason.
    Ended(String),
}

struct Stream {
    input: Vec<u8>,
    used: usize,
    state: Box<DecompressorOxide>,
    flags: u32,
}

impl Packed {
    /// A cluster that is unpacked already.
    pub(super) fn whole(bytes: Vec<u8>) -> Self {
        Self {
            there: bytes.len(),
            len: bytes.len(),
            bytes,
            rest: Rest::Ended("end of the stream".to_owned()),
        }
    }

    /// A cluster of `len` bytes in a stream of deflate.
    pub(super) fn deflated(input: Vec<u8>, len: usize, wrapping: Wrapping) -> Self {
        let header = match wrapping {
            Wrapping::Raw => 0,
            Wrapping::Zlib => TINFL_FLAG_PARSE_ZLIB_HEADER,
        };
        Self {
            bytes: Vec::with_capacity(len),
            there: 0,
            len,
            rest: Rest::Stream(Stream {
                input,
                used: 0,
                state: Box::default(),
                flags: header | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
            }),
        }
    }

    /// Copies the bytes from `from` on.
    ///
    /// # Errors
    /// When the stream ends or is broken before them.
    pub(super) fn read(&mut self, from: usize, buf: &mut [u8]) -> Result<(), String> {
        let end = from.saturating_add(buf.len());
        if end > self.there {
            self.unpack(end.max(self.there.saturating_add(STEP)));
        }
        let there = self.bytes.get(..self.there).unwrap_or_default();
        match (there.get(from..end), &self.rest) {
            (Some(bytes), _) => {
                buf.copy_from_slice(bytes);
                Ok(())
            }
            (None, Rest::Ended(why)) => Err(format!(
                "inflates to {} of {} bytes: {why}",
                self.there, self.len
            )),
            (None, Rest::Stream(_)) => Err("a read beyond the cluster".to_owned()),
        }
    }

    fn unpack(&mut self, end: usize) {
        let end = end.min(self.len);
        let Rest::Stream(stream) = &mut self.rest else {
            return;
        };
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let input = stream.input.get(stream.used..).unwrap_or_default();
        let out = self.bytes.get_mut(..end).unwrap_or_default();
        let (status, used, written) =
            decompress(&mut stream.state, input, out, self.there, stream.flags);
        stream.used = stream.used.saturating_add(used);
        self.there = self.there.saturating_add(written);
        let why = match status {
            TINFLStatus::HasMoreOutput => return,
            TINFLStatus::Done => "end of the stream",
            TINFLStatus::Adler32Mismatch => {
                // Nothing of it can be trusted.
                self.there = 0;
                "wrong checksum"
            }
            TINFLStatus::FailedCannotMakeProgress | TINFLStatus::NeedsMoreInput => {
                "the input is cut short"
            }
            _ => "broken deflate stream",
        };
        self.rest = Rest::Ended(why.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, ZlibEncoder};
    use std::io::Write;

    fn plain() -> Vec<u8> {
        (0..65_536u32)
            .map(|i| (i.wrapping_mul(i) >> 9) as u8)
            .collect()
    }

    fn raw(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn any_order_of_reads_gives_the_same_bytes() {
        let plain = plain();
        let mut input = raw(&plain);
        input.extend_from_slice(b"what follows in the sector");
        let mut packed = Packed::deflated(input, plain.len(), Wrapping::Raw);
        let mut buf = [0; 700];
        for i in 0..2_000usize {
            let from = if i < 50 { i * 1_297 } else { i * 7_919 } % (plain.len() - buf.len());
            packed.read(from, &mut buf).unwrap();
            assert!(buf == plain[from..from + buf.len()], "{from}");
        }
        let mut all = vec![0; plain.len()];
        packed.read(0, &mut all).unwrap();
        assert!(all == plain);
    }

    #[test]
    fn a_small_read_leaves_the_rest_packed() {
        let plain = plain();
        let mut packed = Packed::deflated(raw(&plain), plain.len(), Wrapping::Raw);
        packed.read(100, &mut [0; 10]).unwrap();
        assert!(packed.there <= STEP, "{}", packed.there);
    }

    #[test]
    fn what_precedes_a_fault_is_read_and_what_follows_is_an_error() {
        let plain = plain();
        let input = raw(&plain);
        let cut = input[..input.len() / 2].to_vec();
        let mut packed = Packed::deflated(cut, plain.len(), Wrapping::Raw);
        let mut buf = [0; 512];
        packed.read(1_000, &mut buf).unwrap();
        assert_eq!(buf, plain[1_000..1_512]);
        for _ in 0..2 {
            let problem = packed.read(plain.len() - 512, &mut buf).unwrap_err();
            assert!(problem.contains("cut short"), "{problem}");
        }
        packed.read(1_000, &mut buf).unwrap();
        // Shorter than the cluster it stands for.
        let mut packed = Packed::deflated(raw(&plain[..1_000]), plain.len(), Wrapping::Raw);
        let problem = packed.read(600, &mut buf).unwrap_err();
        assert!(problem.contains("1000 of 65536"), "{problem}");
    }

    #[test]
    fn a_wrong_checksum_is_an_error() {
        let plain = plain();
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&plain).unwrap();
        let mut input = encoder.finish().unwrap();
        let mut all = vec![0; plain.len()];
        let good = input.clone();
        Packed::deflated(good, plain.len(), Wrapping::Zlib)
            .read(0, &mut all)
            .unwrap();
        *input.last_mut().unwrap() ^= 1;
        let problem = Packed::deflated(input, plain.len(), Wrapping::Zlib)
            .read(0, &mut all)
            .unwrap_err();
        assert!(problem.contains("checksum"), "{problem}");
    }
}
