//! The worker of the fleet: claims partitions, runs jobs, commits exactly one result per
//! idempotency key. ARCHITECTURE.md has the map.

pub mod broker;
pub mod capabilities;
pub mod clock;
pub mod codec;
pub mod config;
pub mod engine;
pub mod executor;
pub mod handlers;
pub mod health;
pub mod host;
pub mod http;
pub mod kafka_start;
pub mod kafka_worker;
pub mod ledger_fold;
pub mod metrics;
pub mod registration;
pub mod results;
pub mod signals;
pub mod spans;
pub mod status;
pub mod throttle;
pub mod transaction_records;
pub mod transport;
