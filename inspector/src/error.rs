//! What can go wrong while reading a disk, told apart by what the caller can do about it.

use thiserror::Error;

/// A failure to read some structure of an image.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DiskError {
    /// The image is damaged or hostile: a structure holds what its specification forbids.
    #[error("{structure} at byte {position}: {problem}")]
    Corrupt {
        /// The on-disk structure, in the words of its specification.
        structure: &'static str,
        /// Byte position within the layer that was read (container, volume or file system).
        position: u64,
        /// Expected and found, in words.
        problem: String,
    },
    /// The image is sound but needs a feature this reader does not have.
    #[error("unsupported: {feature}")]
    Unsupported {
        /// The feature's usual name, for example `qcow2 encryption` or `xfs`.
        feature: String,
    },
    /// A host path, or a name inside an image, that policy forbids to open.
    #[error("denied: {reason}")]
    Denied {
        /// What was refused and why; never a byte of the refused file.
        reason: String,
    },
    /// A read ran past the end of a layer.
    #[error("read of {wanted} bytes at {position} passes the end at {end}")]
    OutOfBounds {
        /// Where the read began.
        position: u64,
        /// How many bytes were wanted.
        wanted: u64,
        /// Length of the layer.
        end: u64,
    },
    /// A budget (bytes, operations, time, entries, depth) is used up.
    #[error("over budget: {budget}")]
    OverBudget {
        /// Which budget, with its limit.
        budget: String,
    },
    /// The operating system failed to read.
    #[error("read failed at byte {position}: {message}")]
    Io {
        /// Where.
        position: u64,
        /// The operating system's words.
        message: String,
    },
    /// A path or object inside the image does not exist.
    #[error("not found: {what}")]
    NotFound {
        /// What was looked for.
        what: String,
    },
}

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, DiskError>;
