//! Names of keys and values: Latin-1 or UTF-16LE, compared without regard to case.

/// Text of a name. `compressed` names hold one byte a character. A NUL is a character like others
/// here: programs hide keys behind it.
pub(super) fn decode(bytes: &[u8], compressed: bool) -> String {
    if compressed {
        return bytes.iter().map(|byte| char::from(*byte)).collect();
    }
    let (pairs, _) = bytes.as_chunks::<2>();
    char::decode_utf16(pairs.iter().map(|pair| u16::from_le_bytes(*pair)))
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

/// Upper case as the registry has it: one character for one.
fn upper(c: char) -> char {
    let mut found = c.to_uppercase();
    match (found.next(), found.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

pub(super) fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
        || (!(a.is_ascii() && b.is_ascii()) && a.chars().map(upper).eq(b.chars().map(upper)))
}

/// What a list of subkeys tells about a name without its key node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hint {
    /// Nothing ("Index leaf").
    None,
    /// Its first four characters ("Fast leaf").
    Prefix([u8; 4]),
    /// Its hash ("Hash leaf").
    Hash(u32),
}

/// A name that is looked for, with its hash made once.
pub(super) struct Wanted<'a> {
    name: &'a str,
    hash: u32,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(name: &'a str) -> Self {
        let mut units = [0; 2];
        let hash = name.chars().fold(0_u32, |hash, c| {
            upper(c)
                .encode_utf16(&mut units)
                .iter()
                .fold(hash, |hash, unit| {
                    hash.wrapping_mul(37).wrapping_add(u32::from(*unit))
                })
        });
        Self { name, hash }
    }

    /// Whether a key with this hint may be the one. Outside ASCII our upper case and Windows' may
    /// differ, so there only the name itself decides.
    pub(super) fn may_be(&self, hint: Hint) -> bool {
        if !self.name.is_ascii() {
            return true;
        }
        match hint {
            Hint::None => true,
            Hint::Hash(hash) => hash == self.hash,
            // All zeros where a character of the four does not fit into a byte.
            Hint::Prefix([0, 0, 0, 0]) => true,
            Hint::Prefix(prefix) => {
                let mut own = self.name.bytes();
                prefix
                    .iter()
                    .all(|byte| own.next().unwrap_or(0).eq_ignore_ascii_case(byte))
            }
        }
    }

    pub(super) fn is(&self, name: &str) -> bool {
        same(self.name, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_kinds() {
        assert_eq!(decode(b"caf\xe9", true), "café");
        assert_eq!(decode(&[0x41, 0, 0, 0, 0xe5, 0x65], false), "A\0日");
        assert!(same("ÄRGER", "ärger") && same("Run", "RUN") && !same("Run", "Runs"));
        assert!(!same("straße", "STRASSE"), "one character for one");
    }

    #[test]
    fn hints_rule_out_and_never_hide() {
        let wanted = Wanted::new("Select");
        // "Summary" of hash leaves: H = 37 * H + upper-case character.
        let hash = "SELECT"
            .bytes()
            .fold(0_u32, |h, b| h.wrapping_mul(37).wrapping_add(b.into()));
        assert!(wanted.may_be(Hint::Hash(hash)) && !wanted.may_be(Hint::Hash(hash ^ 1)));
        assert!(wanted.may_be(Hint::Prefix(*b"sELE")) && !wanted.may_be(Hint::Prefix(*b"Setu")));
        assert!(Wanted::new("ab").may_be(Hint::Prefix(*b"AB\0\0")));
        assert!(!Wanted::new("ab").may_be(Hint::Prefix(*b"ABC\0")));
        assert!(wanted.may_be(Hint::None) && wanted.may_be(Hint::Prefix([0; 4])));
        assert!(Wanted::new("über").may_be(Hint::Hash(1)));
    }
}
