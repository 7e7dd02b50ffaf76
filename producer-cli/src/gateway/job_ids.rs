//! Job ids that the gateway gives: they follow from what was asked, and say where to look.
//!
//! `gw-<slot>-<tenant>-<hash>`: the slot in decimal, 8 hexadecimal digits of the tenant's name, 32 of tenant,
//! idempotency key and payload. The same request has the same id at every gateway, today and tomorrow; a
//! look-up reads one partition; a tenant cannot even ask for the id of another one.

use guestkit_protocol::PayloadHash;
use sha2::{Digest, Sha256};

const PREFIX: &str = "gw-";

/// The parts of an id that matter later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GatewayId<'a> {
    /// The slot, which is the partition of job, result and progress.
    pub(crate) slot: u32,
    /// The tenant, hashed.
    tenant: &'a str,
}

impl GatewayId<'_> {
    /// Reads an id that a gateway made; `None` for those of other producers.
    pub(crate) fn parse(id: &str) -> Option<GatewayId<'_>> {
        let (slot, rest) = id.strip_prefix(PREFIX)?.split_once('-')?;
        let (tenant, hash) = rest.split_once('-')?;
        let digits = |text: &str, count| {
            text.len() == count
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        };
        if !digits(tenant, 8) || !digits(hash, 32) {
            return None;
        }
        let slot = slot.parse().ok()?;
        Some(GatewayId { slot, tenant })
    }

    /// Whether the tenant of this name made it.
    pub(crate) fn is_of(&self, tenant: &str) -> bool {
        self.tenant == tag(tenant)
    }
}

/// The id of a request: `key` with the tenant's prefix.
pub(crate) fn job_id(tenant: &str, key: &str, payload: &PayloadHash, slot: u32) -> String {
    let mut sha = Sha256::new();
    sha.update(tenant);
    // Neither names nor keys have control characters.
    sha.update([0]);
    sha.update(key);
    sha.update([0]);
    sha.update(payload.as_bytes());
    let hash = hex::encode(sha.finalize());
    format!("{PREFIX}{slot}-{}-{}", tag(tenant), &hash[..32])
}

fn tag(tenant: &str) -> String {
    hex::encode(&Sha256::digest(tenant)[..4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use guestkit_protocol::is_job_id;

    #[test]
    fn an_id_says_where_and_whose() {
        let payload = PayloadHash::from_bytes([7; 32]);
        let id = job_id("acme", "acme/k", &payload, 11);
        assert!(is_job_id(&id), "{id}");
        let read = GatewayId::parse(&id).unwrap();
        assert_eq!(read.slot, 11);
        assert!(read.is_of("acme") && !read.is_of("acme2") && !read.is_of(""));
        assert_eq!(id, job_id("acme", "acme/k", &payload, 11));
        for other in [
            job_id("acme", "acme/l", &payload, 11),
            job_id("acme", "acme/k", &PayloadHash::from_bytes([8; 32]), 11),
            job_id("acm", "acme/k", &payload, 11),
        ] {
            assert_ne!(id, other);
        }
    }

    #[test]
    fn others_are_told_apart() {
        for id in [
            "inspect-0001",
            "gw-",
            "gw-1-0-0",
            "gw-x-00000000-00000000000000000000000000000000",
            "gw-1-0000000g-00000000000000000000000000000000",
            "gw-99999999999-00000000-00000000000000000000000000000000",
        ] {
            assert_eq!(GatewayId::parse(id), None, "{id}");
        }
    }
}
