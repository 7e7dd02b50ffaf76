//! Real brokers, a real schema registry and faulty networks, for tests and benches.
//!
//! Everything listens on 127.0.0.1, dies with the process that started it (also when that one is
//! killed), and keeps its files in a temporary directory unless told otherwise. After a panic the
//! directory stays, and its place is printed.

mod acls;
mod certificates;
mod error;
mod http;
mod http_fault;
mod java;
mod jvm_process;
mod kafka;
mod ports;
pub mod process;
mod provision;
mod proxy;
mod registry;
mod secure;
mod shared;
mod tls;
mod wire;

pub use acls::{Acl, AclOperation, AclResource};
pub use certificates::{Authority, Identity};
pub use error::Error;
pub use http::{HttpAnswer, http_get, http_send};
pub use http_fault::HttpFault;
pub use java::{Heap, Jvm};
pub use kafka::{KafkaBuilder, KafkaNode, three_nodes};
pub use ports::free_port;
pub use provision::{KAFKA_VERSION, Provisioned, REGISTRY_VERSION, check_prerequisites, provision};
pub use proxy::{Armed, Fault, Frame, TcpProxy};
pub use registry::{Registry, RegistryBuilder};
pub use secure::{SecureKafka, password, secure_kafka};
pub use shared::{bootstrap_servers, registry_url};
pub use wire::{api, create_topic, is_kafka, topic_names};
