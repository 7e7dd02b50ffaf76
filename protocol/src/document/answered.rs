//! Which job ids a key has answered, as fingerprints.

use crate::bytes::Bytes;
use crate::payload_hash::PayloadHash;
use crate::shape::Shape;
use crate::wire::{Input, Output, ReadResult, Wire};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

/// The newest job ids answered for a key, each with its payload, as fingerprints: 64 bits of the id and 32
/// of the payload, packed into 12 bytes, newest last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answered(Vec<u8>);

const ID: usize = 8;
const PAYLOAD: usize = 4;
const ENTRY: usize = ID + PAYLOAD;

impl Answered {
    /// How many ids are kept; older ones are forgotten.
    pub const MAX: usize = 1000;

    /// Adds an id, or moves it to the end with its new payload.
    pub fn push(&mut self, job_id: &str, payload: &PayloadHash) {
        let id = fingerprint(job_id);
        if let Some(at) = self.find(id) {
            self.0.drain(at..at + ENTRY);
        }
        if self.len() >= Self::MAX {
            let surplus = (self.len() + 1 - Self::MAX) * ENTRY;
            self.0.drain(..surplus);
        }
        self.0.extend_from_slice(&id);
        self.0
            .extend_from_slice(&payload.fingerprint().to_be_bytes());
    }

    /// The fingerprint of the payload that this id was answered with.
    pub fn payload_of(&self, job_id: &str) -> Option<u32> {
        let at = self.find(fingerprint(job_id))?;
        let payload = self.0.get(at + ID..at + ENTRY)?;
        payload.try_into().ok().map(u32::from_be_bytes)
    }

    /// Adds an entry by its fingerprints, for callers that keep these and not the ids.
    pub fn push_fingerprint(&mut self, id: u64, payload: u32) {
        if self.len() >= Self::MAX {
            self.0.drain(..ENTRY);
        }
        self.0.extend_from_slice(&id.to_be_bytes());
        self.0.extend_from_slice(&payload.to_be_bytes());
    }

    /// The fingerprints of all ids with their payloads', oldest first.
    pub fn fingerprints(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.0.chunks_exact(ENTRY).map(|entry| {
            let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |n, b| n << 8 | u64::from(*b));
            let (id, payload) = entry.split_at(ID);
            (number(id), u32::try_from(number(payload)).unwrap_or(0))
        })
    }

    /// How many ids there are.
    pub fn len(&self) -> usize {
        self.0.len() / ENTRY
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, id: [u8; ID]) -> Option<usize> {
        self.0
            .chunks_exact(ENTRY)
            .position(|entry| entry.starts_with(&id))
            .map(|index| index * ENTRY)
    }

    fn from_packed(packed: &[u8]) -> Result<Self, String> {
        if !packed.len().is_multiple_of(ENTRY) {
            return Err(format!(
                "{} bytes are no whole number of {ENTRY}-byte entries",
                packed.len()
            ));
        }
        let surplus = packed.len().saturating_sub(Self::MAX * ENTRY);
        Ok(Self(packed.get(surplus..).unwrap_or_default().to_vec()))
    }
}

fn fingerprint(job_id: &str) -> [u8; ID] {
    let hash: [u8; 32] = Sha256::digest(job_id).into();
    let mut id = [0; ID];
    id.copy_from_slice(&hash[..ID]);
    id
}

impl Serialize for Answered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Answered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_packed(&Bytes::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Wire for Answered {
    fn write(&self, out: &mut Output) {
        out.bytes(&self.0);
    }
    fn read(input: &mut Input<'_>) -> ReadResult<Self> {
        let packed = input.bytes()?;
        Self::from_packed(packed).map_err(|reason| input.fault(reason))
    }
    fn absent() -> Option<Self> {
        Some(Self::default())
    }
    fn left_out(&self) -> bool {
        self.is_empty()
    }
    fn shape() -> Shape {
        Shape::Bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(first: u8) -> PayloadHash {
        PayloadHash::from_bytes([first; 32])
    }

    #[test]
    fn an_id_is_found_with_its_payload() {
        let mut answered = Answered::default();
        answered.push("job-00001", &hash(1));
        answered.push("job-00002", &hash(2));
        assert_eq!(
            answered.payload_of("job-00001"),
            Some(hash(1).fingerprint())
        );
        assert_eq!(answered.payload_of("job-00002"), Some(0x0202_0202));
        assert_eq!(answered.payload_of("job-00003"), None);
        answered.push("job-00001", &hash(3));
        assert_eq!(answered.len(), 2);
        assert_eq!(
            answered.payload_of("job-00001"),
            Some(hash(3).fingerprint())
        );
    }

    #[test]
    fn the_newest_thousand_are_kept() {
        let mut answered = Answered::default();
        for number in 0..1500 {
            answered.push(&format!("job-{number:05}"), &hash(7));
        }
        assert_eq!(answered.len(), Answered::MAX);
        assert_eq!(answered.payload_of("job-00499"), None);
        assert!((500..1500).all(|n| answered.payload_of(&format!("job-{n:05}")).is_some()));
        answered.push("job-00500", &hash(8)); // moves, nothing falls out
        assert_eq!(answered.len(), Answered::MAX);
        assert!(answered.payload_of("job-00501").is_some());
    }

    #[test]
    fn packed_bytes_are_whole_entries() {
        assert!(Answered::from_packed(&[0; 13]).is_err());
        let many = vec![0; (Answered::MAX + 5) * ENTRY];
        assert_eq!(Answered::from_packed(&many).unwrap().len(), Answered::MAX);
    }
}
