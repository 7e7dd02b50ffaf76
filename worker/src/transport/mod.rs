//! Transports beside Kafka. One so far: two directories.

pub mod files;
mod log;
mod spool;
