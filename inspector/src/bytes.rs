//! Checked reads of fixed-size fields, so that no parser slices or converts by hand.

use crate::error::{DiskError, Result};
use crate::read_at::ReadAt;

/// The bytes of one on-disk structure, with its name and position for error messages.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a> {
    structure: &'static str,
    position: u64,
    bytes: &'a [u8],
}

macro_rules! field {
    ($name:ident, $type:ty, $convert:ident, $size:expr) => {
        pub(crate) fn $name(&self, offset: usize) -> Result<$type> {
            self.array::<$size>(offset).map(<$type>::$convert)
        }
    };
}

impl<'a> Record<'a> {
    pub(crate) fn new(structure: &'static str, position: u64, bytes: &'a [u8]) -> Self {
        Self {
            structure,
            position,
            bytes,
        }
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn slice(&self, offset: usize, len: usize) -> Result<&'a [u8]> {
        offset
            .checked_add(len)
            .and_then(|end| self.bytes.get(offset..end))
            .ok_or_else(|| {
                self.corrupt(
                    offset,
                    format!(
                        "{len} bytes wanted, the structure ends at {}",
                        self.bytes.len()
                    ),
                )
            })
    }

    pub(crate) fn array<const N: usize>(&self, offset: usize) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.slice(offset, N)?);
        Ok(out)
    }

    pub(crate) fn u8(&self, offset: usize) -> Result<u8> {
        self.array::<1>(offset).map(|[b]| b)
    }

    field!(u16_le, u16, from_le_bytes, 2);
    field!(u32_le, u32, from_le_bytes, 4);
    field!(u64_le, u64, from_le_bytes, 8);
    field!(u16_be, u16, from_be_bytes, 2);
    field!(u32_be, u32, from_be_bytes, 4);
    field!(u64_be, u64, from_be_bytes, 8);

    /// A `Corrupt` error about the field at `offset`.
    pub(crate) fn corrupt(&self, offset: usize, problem: impl Into<String>) -> DiskError {
        DiskError::Corrupt {
            structure: self.structure,
            position: self.position.saturating_add(wide(offset)),
            problem: problem.into(),
        }
    }
}

/// `usize` to `u64`; lossless on every supported target.
pub(crate) fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// `u64` to `usize`; what does not fit becomes a length that every bounds check refuses.
pub(crate) fn narrow(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// `u32` to `usize`.
pub(crate) fn size(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Reads `len` bytes into a new buffer, once it is known that the layer has them.
pub(crate) fn read_vec(layer: &dyn ReadAt, position: u64, len: usize) -> Result<Vec<u8>> {
    let end = layer.len();
    if position
        .checked_add(wide(len))
        .is_none_or(|past| past > end)
    {
        return Err(DiskError::OutOfBounds {
            position,
            wanted: wide(len),
            end,
        });
    }
    let mut buf = vec![0; len];
    layer.read_exact_at(position, &mut buf)?;
    Ok(buf)
}

/// Reads what there is of `len` bytes from `position` on: less at the end of the layer.
pub(crate) fn read_upto(layer: &dyn ReadAt, position: u64, len: usize) -> Result<Vec<u8>> {
    let left = layer.len().saturating_sub(position);
    read_vec(
        layer,
        position.min(layer.len()),
        narrow(left.min(wide(len))),
    )
}

/// Text up to the first NUL, bytes that are no UTF-8 as `\\xNN`, trailing blanks cut.
pub(crate) fn text(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let mut out = String::new();
    for chunk in bytes.get(..end).unwrap_or_default().utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").unwrap_or_default();
        }
    }
    out.trim_end().to_owned()
}

/// As [`text`], and none when nothing is left.
pub(crate) fn label(bytes: &[u8]) -> Option<String> {
    Some(text(bytes)).filter(|label| !label.is_empty())
}

/// Text in UTF-16 up to the first NUL, trailing blanks cut.
pub(crate) fn text_utf16(units: impl Iterator<Item = u16>) -> String {
    char::decode_utf16(units.take_while(|unit| *unit != 0))
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect::<String>()
        .trim_end()
        .to_owned()
}

/// UTF-16LE bytes to text, as [`text_utf16`].
pub(crate) fn text_utf16_le(bytes: &[u8]) -> String {
    text_utf16(bytes.chunks_exact(2).map(|pair| {
        pair.iter()
            .rev()
            .fold(0, |unit, b| (unit << 8) | u16::from(*b))
    }))
}

/// UTF-16BE bytes to text, as [`text_utf16`].
pub(crate) fn text_utf16_be(bytes: &[u8]) -> String {
    text_utf16(
        bytes
            .chunks_exact(2)
            .map(|pair| pair.iter().fold(0, |unit, b| (unit << 8) | u16::from(*b))),
    )
}

/// A UUID in RFC 4122 byte order, lower case; `None` for the nil UUID.
pub(crate) fn uuid(bytes: &[u8; 16]) -> Option<String> {
    use std::fmt::Write as _;
    if bytes.iter().all(|b| *b == 0) {
        return None;
    }
    let mut out = String::with_capacity(36);
    for (i, b) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        write!(out, "{b:02x}").unwrap_or_default();
    }
    Some(out)
}

/// A GUID as UEFI and Microsoft store it (first three fields little-endian), upper case.
pub(crate) fn guid(bytes: &[u8; 16]) -> String {
    let [
        a0,
        a1,
        a2,
        a3,
        b0,
        b1,
        c0,
        c1,
        d0,
        d1,
        e0,
        e1,
        e2,
        e3,
        e4,
        e5,
    ] = *bytes;
    let a = u32::from_le_bytes([a0, a1, a2, a3]);
    let b = u16::from_le_bytes([b0, b1]);
    let c = u16::from_le_bytes([c0, c1]);
    format!(
        "{a:08X}-{b:04X}-{c:04X}-{d0:02X}{d1:02X}-{e0:02X}{e1:02X}{e2:02X}{e3:02X}{e4:02X}{e5:02X}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_past_the_end_name_structure_and_position() {
        let r = Record::new("thing", 100, &[1, 2, 3, 4]);
        assert_eq!(r.u16_le(1), Ok(0x0302));
        assert_eq!(r.u32_be(0), Ok(0x0102_0304));
        let error = r.u32_le(1).unwrap_err().to_string();
        assert_eq!(
            error,
            "thing at byte 101: 4 bytes wanted, the structure ends at 4"
        );
        assert!(r.slice(usize::MAX, 2).is_err());
    }

    #[test]
    fn text_escapes_what_is_no_utf8() {
        assert_eq!(text(b"a\xffb \0rest"), "a\\xffb");
        assert_eq!(label(b"   \0"), None);
        assert_eq!(text_utf16_le(&[0x41, 0, 0x3d, 0xd8, 0x42, 0]), "A\u{fffd}B");
    }

    #[test]
    fn identifiers_in_both_orders() {
        let bytes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        assert_eq!(
            uuid(&bytes).unwrap(),
            "00010203-0405-0607-0809-0a0b0c0d0e0f"
        );
        assert_eq!(guid(&bytes), "03020100-0504-0706-0809-0A0B0C0D0E0F");
        assert_eq!(uuid(&[0; 16]), None);
    }
}
