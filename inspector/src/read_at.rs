//! The one seam every layer reads through.

use crate::error::Result;
use std::sync::Arc;

/// Random access to the bytes of a layer: an image file, a virtual disk, a partition, a volume.
///
/// Implementations never panic on any position or length, hold no cursor and are cheap to share.
pub trait ReadAt: Send + Sync {
    /// Length of the layer in bytes.
    fn len(&self) -> u64;

    /// Whether the layer holds no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` with the bytes from `position` on.
    ///
    /// # Errors
    /// `OutOfBounds` when the range passes the end; else whatever the layer below answers.
    fn read_exact_at(&self, position: u64, buf: &mut [u8]) -> Result<()>;
}

/// A shared layer.
pub type Layer = Arc<dyn ReadAt>;
