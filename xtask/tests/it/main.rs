//! The parts that other crates' tests stand on: a broker that dies and comes back, a registry that
//! remembers, and a network that fails on command.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod broker;
mod proxy;
mod registry;
