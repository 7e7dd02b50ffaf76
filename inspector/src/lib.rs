//! Reads virtual machine disk images in pure userland: `ReadAt` → container → partitions and
//! volumes → file system → guest facts.
#![deny(missing_docs)]

pub mod error;
pub mod fs;
pub mod read_at;

pub use error::{DiskError, Result};
