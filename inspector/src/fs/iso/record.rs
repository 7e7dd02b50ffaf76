//! Directory records (ECMA-119, section 9.1).

use crate::bytes::{Record, wide};
use crate::error::Result;
use crate::fs::fat::dir::days_since_1970;
use crate::fs::ntfs::name;

/// Flags of a record.
pub(super) mod flag {
    pub(super) const DIRECTORY: u8 = 0x02;
    pub(in super::super) const ASSOCIATED: u8 = 0x04;
    pub(in super::super) const MORE: u8 = 0x80;
}

/// Bytes before the name.
pub(super) const HEAD: usize = 33;

/// A record, which says where one section of a file lies.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) position: u64,
    /// Bytes of the record.
    pub(super) len: usize,
    /// First block of the data, extended attributes left out.
    pub(super) block: u64,
    pub(super) size: u64,
    pub(super) flags: u8,
    pub(super) interleaved: bool,
    pub(super) mtime: i64,
    /// As stored.
    pub(super) name: Vec<u8>,
    /// What follows the name: System Use.
    pub(super) system_use: Vec<u8>,
}

impl Entry {
    pub(super) fn parse(position: u64, r: &Record<'_>) -> Result<Self> {
        let len = usize::from(r.u8(0)?);
        let name_len = usize::from(r.u8(32)?);
        let name = r.slice(HEAD, name_len)?.to_vec();
        // A byte of padding after names of even length.
        let after = HEAD
            .saturating_add(name_len)
            .saturating_add(1)
            .saturating_sub(name_len & 1);
        let whole = r.slice(0, len)?;
        Ok(Self {
            position,
            len,
            block: u64::from(r.u32_le(2)?).saturating_add(u64::from(r.u8(1)?)),
            size: u64::from(r.u32_le(10)?),
            flags: r.u8(25)?,
            interleaved: r.u8(26)? != 0 || r.u8(27)? != 0,
            mtime: date(r.slice(18, 7)?),
            name,
            system_use: whole.get(after..).unwrap_or_default().to_vec(),
        })
    }

    pub(super) fn is_directory(&self) -> bool {
        self.flags & flag::DIRECTORY != 0
    }

    /// `.` and `..`.
    pub(super) fn is_dots(&self) -> bool {
        matches!(self.name.as_slice(), [0 | 1])
    }

    pub(super) fn end(&self) -> u64 {
        self.position.saturating_add(wide(self.len))
    }

    /// The name of a Joliet tree.
    pub(super) fn joliet_name(&self) -> Vec<u8> {
        let swapped: Vec<u8> = self
            .name
            .chunks_exact(2)
            .flat_map(|pair| pair.iter().rev().copied())
            .collect();
        let name = name::to_bytes(&swapped);
        match name.strip_suffix(b";1") {
            Some(rest) if !rest.is_empty() => rest.to_vec(),
            _ => name,
        }
    }

    /// The name of a plain tree: without version 1 and the dot before it; what else would not be a
    /// name becomes a dot, as Linux has it.
    pub(super) fn plain_name(&self) -> Vec<u8> {
        let mut name = self.name.as_slice();
        if let Some(rest) = name.strip_suffix(b";1") {
            name = rest.strip_suffix(b".").unwrap_or(rest);
        }
        name.iter()
            .map(|b| if matches!(b, b';' | b'/') { b'.' } else { *b })
            .collect()
    }
}

/// Seven bytes: years since 1900, month, day, hour, minute, second, quarters of an hour from UTC.
pub(super) fn date(raw: &[u8]) -> i64 {
    let [year, month, day, hour, minute, second, zone] = raw else {
        return 0;
    };
    let days = days_since_1970(
        i64::from(*year).saturating_add(1900),
        i64::from(*month),
        i64::from(*day),
    );
    let zone = i64::from(i8::from_ne_bytes([*zone])).saturating_mul(900);
    days.map_or(0, |days| {
        days.saturating_mul(86_400)
            .saturating_add(i64::from(*hour).saturating_mul(3600))
            .saturating_add(i64::from(*minute).saturating_mul(60))
            .saturating_add(i64::from(*second))
            .saturating_sub(zone)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_version() {
        let mut raw = vec![0u8; 64];
        let entry = |raw: &mut Vec<u8>, name: &[u8]| {
            raw[0] = 60;
            raw[32] = name.len() as u8;
            raw[33..33 + name.len()].copy_from_slice(name);
            Entry::parse(0, &Record::new("record", 0, raw)).unwrap()
        };
        for (stored, shown) in [
            (&b"FILE.;1"[..], &b"FILE"[..]),
            (b"FILE.TXT;1", b"FILE.TXT"),
            (b"FILE.TXT;2", b"FILE.TXT.2"),
            (b"DIR", b"DIR"),
        ] {
            assert_eq!(entry(&mut raw, stored).plain_name(), shown);
        }
        assert_eq!(
            entry(&mut raw, b"\0a\0\xe4\0;\x001").joliet_name(),
            "aä".as_bytes()
        );
        assert_eq!(date(&[124, 2, 29, 23, 59, 58, 4]), 1_709_251_198 - 3600);
    }
}
