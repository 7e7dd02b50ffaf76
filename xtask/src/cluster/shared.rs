//! One broker and one registry for all tests of a process.
//!
//! `./dev test` starts them and names them in the environment, or a user names his own there;
//! else the first test that asks starts them, and they die with the test process.

use super::{Error, KafkaNode, Registry};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The broker to test on: `$GUESTKIT_TEST_BOOTSTRAP_SERVERS`, else one of our own.
pub fn bootstrap_servers() -> Result<&'static str, Error> {
    static SERVERS: OnceLock<String> = OnceLock::new();
    static NODE: OnceLock<KafkaNode> = OnceLock::new();
    once(&SERVERS, "GUESTKIT_TEST_BOOTSTRAP_SERVERS", || {
        let node = KafkaNode::builder().start()?;
        Ok(NODE.get_or_init(|| node).bootstrap().to_owned())
    })
}

/// The schema registry to test on: `$GUESTKIT_TEST_REGISTRY_URL`, else one of our own.
pub fn registry_url() -> Result<&'static str, Error> {
    static URL: OnceLock<String> = OnceLock::new();
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    once(&URL, "GUESTKIT_TEST_REGISTRY_URL", || {
        let registry = Registry::start()?;
        Ok(REGISTRY.get_or_init(|| registry).url().to_owned())
    })
}

fn once(
    cell: &'static OnceLock<String>,
    variable: &str,
    start: impl FnOnce() -> Result<String, Error>,
) -> Result<&'static str, Error> {
    // One start at a time; a failed one is tried again by the next test.
    static STARTING: Mutex<()> = Mutex::new(());
    let _guard = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(value) = cell.get() {
        return Ok(value);
    }
    let value = match std::env::var(variable) {
        Ok(value) if !value.is_empty() => value,
        _ => start()?,
    };
    Ok(cell.get_or_init(|| value))
}
