//! The deterministic simulation: the real engine, ledger records and codec over a simulated broker,
//! clock and handlers, in one thread. A seed picks the workload and the faults; then everything
//! heals, and the guarantees of `engine/invariants.rs` judge what was seen.
//!
//! `./dev sim --seeds N`, or `cargo test -p guestkit-worker --test sim`.

#![allow(clippy::unwrap_used)] // allowed in tests; this is for the functions beside them

mod breakage;
mod broken_rules;
mod broker;
#[path = "../contract/mod.rs"]
mod contract;
mod contract_on_sim;
mod dice;
mod group;
mod log;
mod membership;
mod net;
mod process;
mod reading;
mod regressions;
mod runs;
mod workload;
mod world;
mod writing;
