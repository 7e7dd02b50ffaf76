//! Names: UTF-16 as NTFS stores them, bytes as callers pass them, order without case.

/// UTF-16LE bytes to UTF-8. Halves of surrogate pairs, which Windows allows, become the three
/// bytes that UTF-8 would give them.
pub(crate) fn to_bytes(utf16: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(utf16.len());
    for c in char::decode_utf16(units(utf16)) {
        match c {
            Ok(c) => out.extend(c.encode_utf8(&mut [0; 4]).bytes()),
            Err(half) => out.extend(half_to_bytes(half.unpaired_surrogate())),
        }
    }
    out
}

fn half_to_bytes(half: u16) -> [u8; 3] {
    let six = |shift: u32| {
        let bits = half.checked_shr(shift).unwrap_or(0) & 0x3f;
        u8::try_from(bits | 0x80).unwrap_or(0x80)
    };
    [0xed, six(6), six(0)]
}

/// The units of UTF-16LE bytes.
pub(crate) fn units(utf16: &[u8]) -> impl Iterator<Item = u16> + Clone {
    utf16.chunks_exact(2).map(|pair| {
        pair.iter()
            .rev()
            .fold(0, |unit, b| (unit << 8) | u16::from(*b))
    })
}

/// The reverse of [`to_bytes`]; `None` for bytes that no name gives.
pub(crate) fn from_bytes(name: &[u8]) -> Option<Vec<u16>> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    loop {
        match std::str::from_utf8(rest) {
            Ok(text) => {
                out.extend(text.encode_utf16());
                return Some(out);
            }
            Err(e) => {
                let (valid, bad) = rest.split_at_checked(e.valid_up_to())?;
                out.extend(std::str::from_utf8(valid).ok()?.encode_utf16());
                let [0xed, high @ 0xa0..=0xbf, low @ 0x80..=0xbf, after @ ..] = bad else {
                    return None;
                };
                out.push(0xd000 | (u16::from(high & 0x3f) << 6) | u16::from(low & 0x3f));
                rest = after;
            }
        }
    }
}

/// Upper case of one UTF-16 unit where no table of the volume is at hand.
pub(crate) fn simple_upper(unit: u16) -> u16 {
    let Some(c) = char::from_u32(u32::from(unit)) else {
        return unit;
    };
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(u), None) => u16::try_from(u32::from(u)).unwrap_or(unit),
        _ => unit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_both_ways() {
        let wild = [0x41u16, 0xd83d, 0xde00, 0xd83d, 0x42, 0xdc00, 0xfc];
        let raw: Vec<u8> = wild.iter().flat_map(|u| u.to_le_bytes()).collect();
        let bytes = to_bytes(&raw);
        assert_eq!(bytes, b"A\xf0\x9f\x98\x80\xed\xa0\xbdB\xed\xb0\x80\xc3\xbc");
        assert_eq!(from_bytes(&bytes).unwrap(), wild);
        assert_eq!(from_bytes(b"a\xff"), None);
        assert_eq!(simple_upper(0xfc), 0xdc);
        assert_eq!(simple_upper(0xdf), 0xdf);
    }
}
