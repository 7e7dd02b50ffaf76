//! On a real Kafka and a real registry: `./dev test` starts both and names them.

#![allow(clippy::unwrap_used)]

mod chart;
mod kafka;
mod registry;

/// An address that `./dev test` exports.
fn address(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `./dev test`"))
}

/// A topic prefix that nobody else uses.
fn prefix(name: &str) -> String {
    format!("it-{name}-{:08x}", std::process::id() ^ stamp())
}

#[allow(clippy::disallowed_methods)]
fn stamp() -> u32 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.subsec_nanos())
}
