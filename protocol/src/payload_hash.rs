//! What makes two jobs the same work: the hash over operation, payload type and payload.

use crate::canonical::canonical_json;
use crate::document::envelope::JobEnvelope;
use crate::json_text::JsonFault;
use crate::shape::Shape;
use crate::wire::{Input, Output, ReadResult, Wire};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use std::fmt;

/// SHA-256 over `operation`, 0, `payload.type`, 0 and `payload.data` in RFC 8785 form. Nothing else of the
/// envelope counts, and all three framings of a job have the same one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PayloadHash([u8; 32]);

impl PayloadHash {
    /// The hash of these three parts.
    ///
    /// # Errors
    /// `data` is not one acceptable JSON value (see [`canonical_json`]).
    pub fn of(operation: &str, payload_type: &str, data: &str) -> Result<Self, JsonFault> {
        let canonical = canonical_json(data)?;
        let mut sha = Sha256::new();
        sha.update(operation);
        sha.update([0]);
        sha.update(payload_type);
        sha.update([0]);
        sha.update(&canonical);
        Ok(Self(sha.finalize().into()))
    }

    /// From its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 32 bits, for the list of answered ids and for index entries.
    pub const fn fingerprint(&self) -> u32 {
        u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

impl JobEnvelope {
    /// The payload hash of this job.
    ///
    /// # Errors
    /// Never for a job whose `payload.data` is a [`JsonText`](crate::JsonText), which is checked; the
    /// error type is there so that no caller has to trust that.
    pub fn payload_hash(&self) -> Result<PayloadHash, JsonFault> {
        PayloadHash::of(
            &self.operation,
            &self.payload.r#type,
            self.payload.data.as_str(),
        )
    }
}

impl fmt::Display for PayloadHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PayloadHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Serialize for PayloadHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PayloadHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(String::deserialize(deserializer)?, &mut bytes).map_err(|error| {
            de::Error::custom(format_args!("no 64 hexadecimal digits ({error})"))
        })?;
        Ok(Self(bytes))
    }
}

impl Wire for PayloadHash {
    fn write(&self, out: &mut Output) {
        out.bytes(&self.0);
    }
    fn read(input: &mut Input<'_>) -> ReadResult<Self> {
        let bytes = input.bytes()?;
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| input.fault(format!("a payload hash has 32 bytes, not {}", bytes.len())))
    }
    fn shape() -> Shape {
        Shape::Bytes
    }
}
