//! The worker of the fleet: claims partitions, runs jobs, commits exactly one result per
//! idempotency key. ARCHITECTURE.md has the map.
pub mod broker;
pub mod codec;
pub mod engine;
