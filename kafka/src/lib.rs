//! What worker and command line share of Kafka: connection, topic table, schema registry, reader, producer.
//!
//! No engine and no transactions here: those are the worker's. All calls are synchronous and bounded.

#![deny(missing_docs)]

pub mod acls;
mod clock;
pub mod connection;
pub mod directory;
mod fault;
pub mod group;
pub mod metadata;
mod nearest;
pub mod produce;
mod properties;
pub mod reader;
pub mod registry;
mod registry_access;
pub mod scan;
mod secret;
pub mod topics;
pub mod trace;
mod wait;

pub use acls::Permission;
pub use connection::{Connection, Properties};
pub use fault::{Fault, missing};
pub use nearest::nearest;
pub use registry_access::RegistryAccess;
pub use secret::{REDACTED, Secret, without_userinfo};
pub use topics::TopicNames;
