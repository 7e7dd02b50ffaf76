//! A tar archive by position: POSIX.1-2017 pax, section "pax Interchange Format", and GNU's long
//! names. Only headers are read.

use super::super::mapped::corrupt;
use crate::bytes::{Record, narrow, read_upto, read_vec};
use crate::error::Result;
use crate::read_at::ReadAt;

const BLOCK: u64 = 512;
/// Headers to a member at most: there may be two that only extend it, and a global one.
const HEADERS_PER_MEMBER: usize = 4;
/// Extended headers and long names hold names and numbers.
const EXTENSION_MAX: u64 = 64 << 10;

/// A file in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: Vec<u8>,
    pub(super) start: u64,
    pub(super) len: u64,
    /// Whether its bytes lie there one after the other: no link, no sparse file.
    pub(super) regular: bool,
}

/// The first `max` members, in order.
pub(super) fn members(layer: &dyn ReadAt, max: usize) -> Result<Vec<Member>> {
    let mut found = Vec::new();
    let mut at = 0u64;
    let (mut long_name, mut long_size) = (None, None);
    for _ in 0..max.saturating_mul(HEADERS_PER_MEMBER) {
        let block = read_upto(layer, at, narrow(BLOCK))?;
        // Two blocks of zeros end the archive; so does the end of the file.
        if block.len() < narrow(BLOCK) || block.iter().all(|b| *b == 0) {
            return Ok(found);
        }
        let r = Record::new("tar header", at, &block);
        if !checksum_holds(&r)? {
            return Err(r.corrupt(148, "the checksum does not match"));
        }
        let start = at.saturating_add(BLOCK);
        let stored = number(r.slice(124, 12)?);
        let stored = stored.ok_or_else(|| r.corrupt(124, "the size is no number"))?;
        let kind = r.u8(156)?;
        let extends = matches!(kind, b'x' | b'g' | b'L' | b'K');
        let len = match long_size.take() {
            Some(size) if !extends => size,
            kept => {
                long_size = kept;
                stored
            }
        };
        let next = start
            .checked_add(len)
            .and_then(|end| end.checked_next_multiple_of(BLOCK));
        let Some(next) = next.filter(|_| start.saturating_add(len) <= layer.len()) else {
            return Err(r.corrupt(124, format!("a member of {len} bytes passes the end")));
        };
        if extends {
            if len > EXTENSION_MAX {
                return Err(r.corrupt(124, format!("an extended header of {len} bytes")));
            }
            let body = read_vec(layer, start, narrow(len))?;
            match kind {
                b'L' => long_name = Some(up_to_nul(&body).to_vec()),
                b'x' => {
                    for (key, value) in records(&body) {
                        match key {
                            b"path" => long_name = Some(value.to_vec()),
                            b"size" => long_size = decimal(value),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        } else {
            found.push(Member {
                name: match long_name.take() {
                    Some(name) => name,
                    None => short_name(&r)?,
                },
                start,
                len,
                regular: matches!(kind, b'0' | 0 | b'7'),
            });
            if found.len() >= max {
                return Ok(found);
            }
        }
        at = next;
    }
    Err(corrupt("tar header", at, "too many headers"))
}

/// Name, with the prefix that POSIX archives may have.
fn short_name(r: &Record<'_>) -> Result<Vec<u8>> {
    let name = up_to_nul(r.slice(0, 100)?);
    let prefix = up_to_nul(r.slice(345, 155)?);
    Ok(if prefix.is_empty() || r.slice(257, 6)? != b"ustar\0" {
        name.to_vec()
    } else {
        [prefix, b"/", name].concat()
    })
}

fn up_to_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes.get(..end).unwrap_or_default()
}

/// The sum of the header's bytes, the checksum itself taken as blanks.
fn checksum_holds(r: &Record<'_>) -> Result<bool> {
    let stored = number(r.slice(148, 8)?);
    let sum = r
        .bytes()
        .iter()
        .enumerate()
        .map(|(i, b)| if (148..156).contains(&i) { b' ' } else { *b })
        .fold(0u64, |sum, b| sum.saturating_add(u64::from(b)));
    Ok(stored == Some(sum))
}

/// Octal digits, or GNU's base 256 for what they cannot hold.
fn number(field: &[u8]) -> Option<u64> {
    if let [0x80, rest @ ..] = field {
        return rest
            .iter()
            .try_fold(0u64, |n, b| n.checked_mul(256)?.checked_add(u64::from(*b)));
    }
    let text = up_to_nul(field).trim_ascii();
    if text.is_empty() {
        return Some(0);
    }
    u64::from_str_radix(std::str::from_utf8(text).ok()?, 8).ok()
}

fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The records of an extended header: `25 path=a/long/name\n`.
fn records(mut body: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut found = Vec::new();
    while found.len() < 64 {
        let Some(blank) = body.iter().position(|b| *b == b' ') else {
            break;
        };
        let len = body.get(..blank).and_then(decimal).map_or(0, narrow);
        let (Some(record), Some(rest)) = (
            body.get(blank.saturating_add(1)..len.saturating_sub(1)),
            body.get(len..),
        ) else {
            break;
        };
        if let Some(equals) = record.iter().position(|b| *b == b'=') {
            let (key, value) = record.split_at(equals);
            found.push((key, value.get(1..).unwrap_or_default()));
        }
        body = rest;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_all_notations() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"  644 \0\0"), Some(0o644));
        assert_eq!(number(b"\0\0\0"), Some(0));
        assert_eq!(number(&[0x80, 0, 0, 2, 0, 0, 0, 0]), Some(2 << 32));
        assert_eq!(number(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(number(b"9"), None);
    }

    #[test]
    fn extended_records_end_where_they_say() {
        let body = b"12 path=a b\n14 size=12345\n9 x=y";
        let found = records(body);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], (b"path".as_slice(), b"a b".as_slice()));
        assert_eq!(found[1], (b"size".as_slice(), b"12345".as_slice()));
        assert!(records(b"99 path=a\n").is_empty());
        assert!(records(b"0 path=a\n").is_empty());
    }
}
