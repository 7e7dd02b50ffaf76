//! The gateway on a real Kafka with a real worker.

mod access;
mod api;
mod bad_input;
mod load;
mod look_ups;
mod soak;
mod stand;
