//! Reads virtual machine disk images in pure userland: `ReadAt` → container → partitions and
//! volumes → file system → guest facts.
#![deny(missing_docs)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing
)]
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::indexing_slicing
    )
)]

pub mod budget;
mod bytes;
pub mod cache;
pub mod clock;
pub mod container;
mod crc32;
pub mod error;
pub mod fs;
pub mod guest;
pub mod inspect;
pub mod isolate;
pub mod layer;
pub mod layers;
pub mod partition;
pub mod probe;
pub mod read_at;
pub mod registry;
pub mod report;
pub mod source;
pub mod task;
pub mod vfs;
mod volume;

pub use error::{DiskError, Result};
