//! What a document looks like, as data: the Rust types describe themselves.
//!
//! `schemas/avro` and `schemas/json` are the contract. The example `write_schemas` drafts them from this
//! description and a test holds the committed files against it, so neither can drift from the code.

/// The type of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// A string.
    Text,
    /// A string that holds JSON text; in the JSON form any value.
    JsonText,
    /// A string out of a documented list.
    Words(&'static [&'static str]),
    /// Bytes; lower-case hexadecimal in JSON.
    Bytes,
    /// true or false.
    Boolean,
    /// A 32-bit whole number.
    Int {
        /// The smallest value accepted.
        minimum: i64,
    },
    /// A whole number of at most 2^53.
    Long {
        /// The smallest value accepted.
        minimum: i64,
    },
    /// An IEEE 754 double.
    Double,
    /// Milliseconds since 1970 in UTC; RFC 3339 in JSON.
    Timestamp,
    /// Absent, or a value.
    Optional(Box<Shape>),
    /// A list.
    Array(Box<Shape>),
    /// Texts by name.
    Map,
    /// JSON texts by name: the fields this version does not know.
    Extensions,
    /// A record.
    Record(RecordShape),
}

/// A named record.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordShape {
    /// The name without namespace.
    pub name: &'static str,
    /// What it is.
    pub doc: String,
    /// Its fields in order.
    pub fields: Vec<FieldShape>,
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldShape {
    /// The name in Avro.
    pub name: &'static str,
    /// The name in JSON, almost always the same.
    pub json_name: &'static str,
    /// What it is.
    pub doc: String,
    /// Its type.
    pub shape: Shape,
    /// The default as JSON text, where one is given.
    pub default: Option<String>,
}

/// Joins the lines of a doc comment.
pub(crate) fn doc(lines: &[&str]) -> String {
    lines
        .iter()
        .map(|line| line.trim())
        .collect::<Vec<_>>()
        .join(" ")
        .trim()
        .to_owned()
}

/// A field's name without the `r#` that Rust needs for keywords.
pub(crate) fn bare(name: &'static str) -> &'static str {
    name.strip_prefix("r#").unwrap_or(name)
}
