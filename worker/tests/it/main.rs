//! Everything that needs more than the engine: real Kafka, real worker processes, real files.
//!
//! `./dev test` starts Kafka and names it in the environment; without it the first test that asks
//! starts its own.

#![allow(clippy::unwrap_used)] // allowed in tests; this is for the functions beside them

mod agreement;
mod bad_input;
mod chaos;
mod commit_faults;
#[path = "../contract/mod.rs"]
mod contract;
mod contract_on_kafka;
mod duplicates;
mod files;
mod fleet;
mod guarantees;
mod hostile;
mod observed;
mod outage;
mod registration;
mod registry;
mod secure;
mod tracing;
mod upgrade;
mod zombie;
