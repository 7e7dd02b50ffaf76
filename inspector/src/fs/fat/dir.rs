//! Directory entries: short names with case flags, long names before them (Microsoft's FAT
//! specification, sections 6 and 7).

use crate::bytes::Record;
use crate::error::Result;
use crate::fs::ntfs::name;

/// Bytes of an entry.
pub(super) const ENTRY: usize = 32;

pub(super) mod attribute {
    pub(in super::super) const READ_ONLY: u8 = 0x01;
    pub(in super::super) const VOLUME: u8 = 0x08;
    pub(in super::super) const DIRECTORY: u8 = 0x10;
    pub(super) const LONG: u8 = 0x0f;
}

/// The entry of a file or directory.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) attributes: u8,
    pub(super) cluster: u32,
    pub(super) size: u32,
    pub(super) mtime: i64,
}

impl Entry {
    pub(super) fn parse(r: &Record<'_>, fat32: bool) -> Result<Self> {
        let high = if fat32 { u32::from(r.u16_le(20)?) } else { 0 };
        Ok(Self {
            attributes: r.u8(11)?,
            cluster: (high << 16) | u32::from(r.u16_le(26)?),
            size: r.u32_le(28)?,
            mtime: timestamp(r.u16_le(24)?, r.u16_le(22)?),
        })
    }

    pub(super) fn is_directory(&self) -> bool {
        self.attributes & attribute::DIRECTORY != 0
    }
}

/// A date and a time of day in seconds since 1970. They are local to a zone that nobody wrote down.
pub(crate) fn timestamp(date: u16, time: u16) -> i64 {
    let year = i64::from(date >> 9).saturating_add(1980);
    let days = days_since_1970(year, i64::from((date >> 5) & 15), i64::from(date & 31));
    let (hour, minute) = (i64::from(time >> 11), i64::from((time >> 5) & 63));
    days.map_or(0, |days| {
        days.saturating_mul(86_400)
            .saturating_add(hour.saturating_mul(3600))
            .saturating_add(minute.saturating_mul(60))
            .saturating_add(i64::from(time & 31).saturating_mul(2))
    })
}

/// Days of the Gregorian calendar; `None` for what is no date.
pub(crate) fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || !(1600..=9999).contains(&year) {
        return None;
    }
    // Days of a year that begins in March, so that the leap day is its last one.
    let year = year.saturating_sub(i64::from(month < 3));
    let march = month.saturating_add(9) % 12;
    let of_year = march.saturating_mul(153).saturating_add(2) / 5;
    let leaps = (year / 4)
        .saturating_sub(year / 100)
        .saturating_add(year / 400);
    let days = year
        .saturating_mul(365)
        .saturating_add(leaps)
        .saturating_add(of_year)
        .saturating_add(day);
    Some(days.saturating_sub(719_469))
}

/// A raw entry with the names that belong to it.
pub(super) struct Named {
    /// Long name, else the short one.
    pub(super) name: Vec<u8>,
    /// The short name.
    pub(super) short: Vec<u8>,
}

/// What an entry means for the one who reads the directory.
pub(super) enum Step {
    /// Nothing of interest: deleted, a label, `.` or `..`, a piece of a long name.
    Skip,
    /// The directory ends here.
    End,
    Named(Named),
}

/// Collects the pieces of long names, which come last piece first.
#[derive(Default)]
pub(super) struct Reader {
    /// UTF-16LE of the pieces seen, the number of the next one, the checksum they carry.
    pieces: Vec<[u8; 26]>,
    next: u8,
    checksum: u8,
}

impl Reader {
    pub(super) fn step(&mut self, r: &Record<'_>) -> Result<Step> {
        let raw: [u8; 11] = r.array(0)?;
        let attributes = r.u8(11)?;
        let [first, ..] = raw;
        if first == 0 {
            return Ok(Step::End);
        }
        if first == 0xe5 {
            self.pieces.clear();
            return Ok(Step::Skip);
        }
        if attributes & 0x3f == attribute::LONG {
            self.piece(r, first)?;
            return Ok(Step::Skip);
        }
        let pieces = std::mem::take(&mut self.pieces);
        let dots = matches!(&raw, b".          " | b"..         ");
        if dots || attributes & attribute::VOLUME != 0 {
            return Ok(Step::Skip);
        }
        let sum = raw
            .iter()
            .fold(0u8, |sum, b| sum.rotate_right(1).wrapping_add(*b));
        let short = short_name(&raw, r.u8(12)?);
        let long = (!pieces.is_empty() && self.next == 1 && self.checksum == sum)
            .then(|| long_name(&pieces))
            .filter(|name| !name.is_empty());
        Ok(Step::Named(Named {
            name: long.unwrap_or_else(|| short.clone()),
            short,
        }))
    }

    /// A piece numbered from 20 down to 1, the first one marked. Others are orphans.
    fn piece(&mut self, r: &Record<'_>, number: u8) -> Result<()> {
        let checksum = r.u8(13)?;
        let order = number & 0x1f;
        let begins = number & 0x40 != 0;
        let goes_on = self.next == order.saturating_add(1) && self.checksum == checksum;
        if order == 0 || order > 20 || !(begins || goes_on && !self.pieces.is_empty()) {
            self.pieces.clear();
            return Ok(());
        }
        if begins {
            self.pieces.clear();
        }
        let mut piece = [0; 26];
        let parts = [r.slice(1, 10)?, r.slice(14, 12)?, r.slice(28, 4)?];
        for (to, from) in piece.iter_mut().zip(parts.iter().copied().flatten()) {
            *to = *from;
        }
        self.pieces.push(piece);
        (self.next, self.checksum) = (order, checksum);
        Ok(())
    }
}

fn long_name(pieces: &[[u8; 26]]) -> Vec<u8> {
    let raw: Vec<u8> = pieces.iter().rev().flatten().copied().collect();
    let len = name::units(&raw).take_while(|unit| *unit != 0).count();
    name::to_bytes(raw.get(..len.saturating_mul(2)).unwrap_or_default())
}

/// Base and extension, each in lower case when Windows NT's flags say so.
fn short_name(raw: &[u8; 11], case: u8) -> Vec<u8> {
    let (base, extension) = raw.split_at(8);
    let mut out = String::new();
    for (at, byte) in trimmed(base).iter().enumerate() {
        // 0xe5 marks deleted entries, so a name that begins with it says 0x05.
        let byte = if at == 0 && *byte == 0x05 {
            0xe5
        } else {
            *byte
        };
        push(&mut out, byte, case & 0x08 != 0);
    }
    if !trimmed(extension).is_empty() {
        out.push('.');
    }
    for byte in trimmed(extension) {
        push(&mut out, *byte, case & 0x10 != 0);
    }
    out.into_bytes()
}

fn push(out: &mut String, byte: u8, lower: bool) {
    let c = oem(byte);
    if lower {
        out.extend(c.to_lowercase());
    } else {
        out.push(c);
    }
}

fn trimmed(field: &[u8]) -> &[u8] {
    let end = field
        .iter()
        .rposition(|b| *b != b' ')
        .map_or(0, |at| at.saturating_add(1));
    field.get(..end).unwrap_or_default()
}

/// Code page 437, which Linux takes for short names unless told otherwise.
fn oem(byte: u8) -> char {
    const HIGH: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";
    match byte.checked_sub(0x80) {
        None => char::from(byte),
        Some(index) => HIGH.chars().nth(usize::from(index)).unwrap_or('?'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days_since_1970() {
        assert_eq!(timestamp(0x0021, 0), 315_532_800);
        // 2024-02-29 23:59:58 and 2000-03-01 00:00:00.
        assert_eq!(
            timestamp((44 << 9) | (2 << 5) | 29, (23 << 11) | (59 << 5) | 29),
            1_709_251_198
        );
        assert_eq!(timestamp((20 << 9) | (3 << 5) | 1, 0), 951_868_800);
        assert_eq!(timestamp(0, 0), 0);
    }

    #[test]
    fn short_names_have_case_and_a_code_page() {
        assert_eq!(short_name(b"README  TXT", 0x18), b"readme.txt");
        assert_eq!(short_name(b"README  TXT", 0x10), b"README.txt");
        assert_eq!(short_name(b"\x05BC        ", 0), "σBC".as_bytes());
        assert_eq!(short_name(b"A\x8e         ", 8), "aä".as_bytes());
    }
}
