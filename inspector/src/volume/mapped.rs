//! A layer in pieces: each lies on one layer, or in stripes over several.

use crate::bytes::{narrow, wide};
use crate::error::Result;
use crate::layer::check_range;
use crate::read_at::{Layer, ReadAt};

/// A stretch of a volume.
pub(crate) struct Piece {
    /// Bytes.
    pub(crate) len: u64,
    /// Bytes in a row on one leg; not 0.
    pub(crate) stripe: u64,
    /// Layers and where on them the piece begins; empty for zeros.
    pub(crate) legs: Vec<(Layer, u64)>,
}

impl Piece {
    /// A stretch of one layer.
    pub(crate) fn linear(layer: Layer, start: u64, len: u64) -> Self {
        Self {
            len,
            stripe: len.max(1),
            legs: vec![(layer, start)],
        }
    }

    /// A stretch of zeros.
    pub(crate) fn zeros(len: u64) -> Self {
        Self {
            len,
            stripe: len.max(1),
            legs: Vec::new(),
        }
    }

    /// Reads at `within`; answers how many bytes of `buf` that filled.
    fn read(&self, within: u64, buf: &mut [u8]) -> Result<usize> {
        let left = self.len.saturating_sub(within);
        let stripe = within.checked_div(self.stripe).unwrap_or(0);
        let skip = within.checked_rem(self.stripe).unwrap_or(0);
        let in_stripe = self.stripe.saturating_sub(skip);
        let len = narrow(left.min(in_stripe)).min(buf.len());
        let (head, _) = buf.split_at_mut(len);
        let count = wide(self.legs.len());
        let leg = stripe.checked_rem(count).unwrap_or(0);
        let row = stripe.checked_div(count).unwrap_or(0);
        match self.legs.get(narrow(leg)) {
            None => head.fill(0),
            Some((layer, start)) => {
                let at = row.saturating_mul(self.stripe).saturating_add(skip);
                layer.read_exact_at(start.saturating_add(at), head)?;
            }
        }
        Ok(len)
    }
}

/// Pieces in a row.
pub(crate) struct Mapped {
    /// With the byte each begins at.
    pieces: Vec<(u64, Piece)>,
    len: u64,
}

impl Mapped {
    pub(crate) fn new(pieces: Vec<Piece>) -> Self {
        let mut len = 0u64;
        let mut placed = Vec::new();
        for piece in pieces {
            let start = len;
            len = len.saturating_add(piece.len);
            if piece.len > 0 {
                placed.push((start, piece));
            }
        }
        Self {
            pieces: placed,
            len,
        }
    }
}

impl ReadAt for Mapped {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, position: u64, buf: &mut [u8]) -> Result<()> {
        check_range(position, buf.len(), self.len)?;
        let mut at = position;
        let mut rest = buf;
        while !rest.is_empty() {
            let past = self.pieces.partition_point(|(start, _)| *start <= at);
            let Some((start, piece)) = past.checked_sub(1).and_then(|i| self.pieces.get(i)) else {
                return check_range(at, rest.len(), 0);
            };
            let len = piece.read(at.saturating_sub(*start), rest)?;
            if len == 0 {
                return check_range(at, rest.len(), 0);
            }
            at = at.saturating_add(wide(len));
            let (_, tail) = rest.split_at_mut(len);
            rest = tail;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Memory;
    use std::sync::Arc;

    fn leg(from: u8) -> Layer {
        Arc::new(Memory((0..64u8).map(|i| from + i).collect()))
    }

    #[test]
    fn pieces_stripes_and_zeros_read_as_one() {
        let mapped = Mapped::new(vec![
            Piece::linear(leg(0), 10, 3),
            Piece {
                len: 10,
                stripe: 2,
                legs: vec![(leg(100), 4), (leg(150), 8)],
            },
            Piece::zeros(2),
            Piece::linear(leg(0), 0, 2),
        ]);
        let whole = [
            10, 11, 12, 104, 105, 158, 159, 106, 107, 160, 161, 108, 109, 0, 0, 0, 1,
        ];
        assert_eq!(mapped.len(), 17);
        for at in 0..17 {
            for len in 0..=17 - at {
                let mut buf = vec![9; len];
                mapped.read_exact_at(at as u64, &mut buf).unwrap();
                assert_eq!(buf, whole[at..at + len]);
            }
        }
        assert!(mapped.read_exact_at(17, &mut [0]).is_err());
        assert!(mapped.read_exact_at(u64::MAX, &mut [0]).is_err());
    }
}
