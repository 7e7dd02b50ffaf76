//! What the LZ77 decoders share: a copy from earlier output, and prefix codes.

/// Copies `len` bytes from `distance` bytes before `done` to it, byte by byte where they overlap;
/// false when that would leave the output.
pub(crate) fn repeat(out: &mut [u8], done: &mut usize, distance: usize, len: usize) -> bool {
    let (Some(from), Some(end)) = (done.checked_sub(distance), done.checked_add(len)) else {
        return false;
    };
    if distance == 0 || end > out.len() {
        return false;
    }
    if distance >= len {
        out.copy_within(from..from.saturating_add(len), *done);
    } else {
        for (from, to) in (from..).zip(*done..end) {
            let byte = out.get(from).copied().unwrap_or(0);
            if let Some(place) = out.get_mut(to) {
                *place = byte;
            }
        }
    }
    *done = end;
    true
}

/// Longest code of any of our formats.
const LENGTH_MAX: usize = 16;

/// A canonical prefix code: shorter codes first, symbols of one length in their order.
pub(crate) struct PrefixCode {
    /// By length: the first code that is longer, aligned to 16 bits.
    limits: [u32; LENGTH_MAX],
    /// By length: index of its first symbol, and its first code.
    firsts: [(usize, u32); LENGTH_MAX],
    symbols: Vec<u16>,
}

impl PrefixCode {
    /// A code from the lengths of its symbols (0: unused, at most 16); `None` when they promise
    /// more codes than there are.
    pub(crate) fn new(lengths: &[u8]) -> Option<Self> {
        let mut limits = [0; LENGTH_MAX];
        let mut firsts = [(0, 0); LENGTH_MAX];
        let mut symbols = Vec::with_capacity(lengths.len());
        let mut code = 0u32;
        for (length, (limit, first)) in (1u8..).zip(limits.iter_mut().zip(firsts.iter_mut())) {
            *first = (symbols.len(), code);
            let step = 0x1_0000u32.checked_shr(u32::from(length)).unwrap_or(0);
            for (symbol, _) in (0u16..).zip(lengths).filter(|(_, l)| **l == length) {
                symbols.push(symbol);
                code = code.saturating_add(step);
            }
            *limit = code;
        }
        (code <= 0x1_0000).then_some(Self {
            limits,
            firsts,
            symbols,
        })
    }

    /// The symbol that the next 16 bits begin with, and its length.
    pub(crate) fn decode(&self, bits: u16) -> Option<(u16, u32)> {
        let bits = u32::from(bits);
        let index = self.limits.iter().position(|limit| bits < *limit)?;
        let (first, code) = *self.firsts.get(index)?;
        let length = u32::try_from(index).ok()?.saturating_add(1);
        let within = bits
            .saturating_sub(code)
            .checked_shr(16u32.saturating_sub(length))?;
        let at = first.saturating_add(usize::try_from(within).ok()?);
        self.symbols.get(at).map(|symbol| (*symbol, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_overlap_forward() {
        let mut out = *b"ab......";
        let mut done = 2;
        assert!(repeat(&mut out, &mut done, 2, 5));
        assert_eq!((&out, done), (b"abababa.", 7));
        assert!(!repeat(&mut out, &mut done, 8, 1));
        assert!(!repeat(&mut out, &mut done, 1, 2));
    }

    #[test]
    fn codes_are_canonical() {
        // Lengths 2, 1, 3, 3: codes 10, 0, 110, 111.
        let code = PrefixCode::new(&[2, 1, 3, 3]).unwrap();
        assert_eq!(code.decode(0x0000), Some((1, 1)));
        assert_eq!(code.decode(0xbfff), Some((0, 2)));
        assert_eq!(code.decode(0xc000), Some((2, 3)));
        assert_eq!(code.decode(0xffff), Some((3, 3)));
        assert!(PrefixCode::new(&[1, 1, 1]).is_none());
        assert_eq!(PrefixCode::new(&[1]).unwrap().decode(0x8000), None);
    }
}
