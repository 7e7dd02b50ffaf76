//! JSON text that is carried without being understood: payloads, result data, unknown fields.

use crate::canonical;
use crate::shape::Shape;
use crate::wire::{Input, Output, ReadResult, Wire, read_map, write_map};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;

/// One JSON value as its text; numbers keep their digits, names their order.
///
/// Holding one means that the text is a JSON value as RFC 8259 has it, nested at most
/// [`JSON_DEPTH_MAX`](crate::JSON_DEPTH_MAX) deep, without a name that comes twice and without half
/// a surrogate pair.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct JsonText(String);

/// Why a text is not acceptable JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {position} of the json text")]
pub struct JsonFault {
    /// Byte position in the text.
    pub position: usize,
    /// What was found.
    pub reason: String,
}

impl JsonText {
    /// Checks a text and keeps it as it is.
    ///
    /// # Errors
    /// The text is not exactly one JSON value, nests too deeply, or repeats a name.
    pub fn new(text: impl Into<String>) -> Result<Self, JsonFault> {
        let text = text.into();
        canonical::check(&text)?;
        Ok(Self(text))
    }

    /// The JSON text of anything that serde can write.
    ///
    /// # Errors
    /// The value has no JSON form (a map whose keys are no strings), or one that [`JsonText::new`] refuses.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, JsonFault> {
        let text = serde_json::to_string(value).map_err(|error| JsonFault {
            position: 0,
            reason: error.to_string(),
        })?;
        Self::new(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the value into a type.
    ///
    /// # Errors
    /// The value is not what the type expects.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.0)
    }
}

impl Default for JsonText {
    /// `null`.
    fn default() -> Self {
        Self("null".to_owned())
    }
}

impl fmt::Debug for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for JsonText {
    /// The value at its own place. Line breaks between its parts are dropped, so that a document is one line.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let one_line;
        let text = if self.0.contains(['\n', '\r']) {
            // JSON strings hold no raw line break: these are all between tokens.
            one_line = self.0.replace(['\n', '\r'], "");
            &one_line
        } else {
            &self.0
        };
        let raw: &RawValue = serde_json::from_str(text).map_err(ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::new(String::from(Box::<str>::from(raw))).map_err(de::Error::custom)
    }
}

impl Wire for JsonText {
    fn write(&self, out: &mut Output) {
        out.bytes(self.0.as_bytes());
    }
    fn read(input: &mut Input<'_>) -> ReadResult<Self> {
        let text = input.text()?;
        Self::new(text).map_err(|fault| input.fault(fault.to_string()))
    }
    fn shape() -> Shape {
        Shape::JsonText
    }
}

/// Fields that this version does not know: name to JSON text, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extensions(BTreeMap<String, JsonText>);

impl Extensions {
    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&JsonText> {
        self.0.get(name)
    }

    /// Puts a field in, in place of an earlier value. A name that the record itself has makes the document
    /// unreadable for others.
    pub fn insert(&mut self, name: impl Into<String>, value: JsonText) {
        self.0.insert(name.into(), value);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &JsonText)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    pub(crate) fn write(&self, out: &mut Output) {
        write_map(
            self.0
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
            out,
        );
    }

    pub(crate) fn read(input: &mut Input<'_>, known: &[&str]) -> ReadResult<Self> {
        read_map(input, |input, name| {
            if known.contains(&name) {
                return Err(input.fault("an extension repeats a field of the record"));
            }
            JsonText::read_wire(input)
        })
        .map(Self)
    }
}

impl JsonText {
    fn read_wire(input: &mut Input<'_>) -> ReadResult<Self> {
        <Self as Wire>::read(input)
    }
}
