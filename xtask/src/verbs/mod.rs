//! One file a verb.

pub(crate) mod bench;
pub(crate) mod chaos;
pub(crate) mod contracts;
pub(crate) mod corpus;
pub(crate) mod demo;
pub(crate) mod fuzz;
pub(crate) mod gateway;
pub(crate) mod guests;
pub(crate) mod interop;
pub(crate) mod kafka;
pub(crate) mod lint;
pub(crate) mod manifests;
pub(crate) mod observe;
pub(crate) mod operations;
pub(crate) mod sbom;
pub(crate) mod sim;
pub(crate) mod sinks;
pub(crate) mod test;
pub(crate) mod trace;
