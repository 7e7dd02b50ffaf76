//! Free ports.
//!
//! They lie below the range that the kernel takes local ports of outgoing connections from
//! (32768 and up): there, a client could take the port of a broker that is down for a restart.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

const FIRST: u16 = 15_000;
const COUNT: u16 = 17_000;

static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port on 127.0.0.1 that nobody listens on and that this process was not given before.
///
/// # Panics
/// When every port is taken.
#[must_use]
pub fn free_port() -> u16 {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    // Processes start at different places, so that two of them rarely race for one port.
    let seed = std::process::id()
        .wrapping_mul(2_654_435_761)
        .wrapping_add(u32::try_from(given.len()).unwrap_or(0));
    for step in 0..u32::from(COUNT) {
        let offset = (seed.wrapping_add(step)) % u32::from(COUNT);
        let port = FIRST + u16::try_from(offset).unwrap_or(0);
        if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let ports: BTreeSet<u16> = (0..50).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 50);
        assert!(ports.iter().all(|port| *port < 32_768));
    }
}
