//! Raw bytes in a document: Avro `bytes`, lower-case hexadecimal in JSON.

use crate::shape::Shape;
use crate::wire::{Input, Output, ReadResult, Wire};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::ops::Deref;

/// Bytes of any kind.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Bytes(pub Vec<u8>);

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes {}",
            self.0.len(),
            hex::encode(self.0.get(..16).unwrap_or(&self.0))
        )
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        hex::decode(String::deserialize(deserializer)?)
            .map(Self)
            .map_err(|error| de::Error::custom(format_args!("no hexadecimal text ({error})")))
    }
}

impl Wire for Bytes {
    fn write(&self, out: &mut Output) {
        out.bytes(&self.0);
    }
    fn read(input: &mut Input<'_>) -> ReadResult<Self> {
        input.bytes().map(|bytes| Self(bytes.to_vec()))
    }
    fn shape() -> Shape {
        Shape::Bytes
    }
}
