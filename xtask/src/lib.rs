//! What development of this workspace needs beside the product: `cargo xtask` runs the checks,
//! and [`cluster`] starts real Kafka brokers, a real schema registry and faulty networks for tests.
//!
//! ```no_run
//! use xtask::cluster::KafkaNode;
//!
//! let kafka = KafkaNode::builder().start()?;
//! println!("{}", kafka.bootstrap());
//! kafka.kill()?;
//! kafka.restart()?;
//! # Ok::<(), xtask::cluster::Error>(())
//! ```

pub mod clock;
pub mod cluster;
pub mod workspace;
