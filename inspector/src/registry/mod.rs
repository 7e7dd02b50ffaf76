//! Windows registry hives: a lazy reader over [`ReadAt`](crate::read_at::ReadAt) that reads only
//! the cells it is asked for.
//!
//! Format: M. Suhanov, "Windows registry file format specification" (msuhanov/regf), whose section
//! names the files here follow. A hive whose last write was cut short is put right in memory from
//! its transaction logs; the image is never written.
//!
//! Nothing here recurses. Lists, names, data and the number of cells read of one hive are bounded,
//! so cells that refer to each other in circles cost a caller its own loop at most.

mod base;
mod hive;
mod key;
mod list;
mod log;
mod marvin;
mod name;
mod overlay;
mod value;

pub use hive::{Hive, Recovery};
pub use key::{Key, Subkeys};
pub use value::{Value, ValueType};
