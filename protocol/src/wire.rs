//! Avro binary, by hand: how each field type is written, read and described.
//!
//! The hot documents are decoded and encoded some hundred thousand times a second, and the bytes are
//! hostile. [`Input`] therefore never allocates more than what the remaining bytes can fill, and every
//! fault names the field and the byte position. Tests hold this against apache-avro in both directions.
//! Format: Apache Avro 1.12 specification, "Binary Encoding".

use crate::shape::Shape;
use std::collections::BTreeMap;
use std::fmt;

/// The largest whole number that every JSON reader keeps exactly: 2^53.
pub(crate) const LONG_MAX: i64 = 1 << 53;

/// Why some bytes are not the Avro record that they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AvroFault {
    /// Dotted path of the field, for example `execution.priority`; empty when it is the whole record.
    pub path: String,
    /// Byte position in the datum (counted after the framing's header).
    pub position: usize,
    /// What was found and what was expected.
    pub reason: String,
}

impl fmt::Display for AvroFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(
            f,
            "{} at byte {} of the avro datum",
            self.reason, self.position
        )
    }
}

impl std::error::Error for AvroFault {}

pub(crate) type ReadResult<T> = Result<T, Box<AvroFault>>;

/// Puts a field name in front of the path of a fault.
pub(crate) fn within(name: &str, mut fault: Box<AvroFault>) -> Box<AvroFault> {
    fault.path = if fault.path.is_empty() {
        name.to_owned()
    } else {
        format!("{name}.{}", fault.path)
    };
    fault
}

/// A cursor over one Avro datum.
pub(crate) struct Input<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.position)
    }

    pub(crate) fn fault(&self, reason: impl Into<String>) -> Box<AvroFault> {
        Box::new(AvroFault {
            path: String::new(),
            position: self.position,
            reason: reason.into(),
        })
    }

    fn byte(&mut self) -> ReadResult<u8> {
        let Some(&byte) = self.bytes.get(self.position) else {
            return Err(self.fault("the record ends too early"));
        };
        self.position += 1;
        Ok(byte)
    }

    pub(crate) fn take(&mut self, count: usize) -> ReadResult<&'a [u8]> {
        let end = self.position.checked_add(count);
        let Some(slice) = end.and_then(|end| self.bytes.get(self.position..end)) else {
            return Err(self.fault(format!(
                "{count} bytes are announced but {} remain",
                self.remaining()
            )));
        };
        self.position += count;
        Ok(slice)
    }

    /// A zig-zag variable-length integer of at most 64 bits.
    pub(crate) fn long(&mut self) -> ReadResult<i64> {
        let start = self.position;
        let mut raw: u64 = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            raw |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((raw >> 1) as i64 ^ -((raw & 1) as i64));
            }
        }
        self.position = start;
        Err(self.fault("the variable-length integer has more than 64 bits"))
    }

    pub(crate) fn int(&mut self) -> ReadResult<i32> {
        let start = self.position;
        let long = self.long()?;
        i32::try_from(long).map_err(|_| {
            self.position = start;
            self.fault(format!("{long} does not fit an avro int (32 bits)"))
        })
    }

    pub(crate) fn float(&mut self) -> ReadResult<f32> {
        let mut raw = [0; 4];
        raw.copy_from_slice(self.take(4)?);
        Ok(f32::from_le_bytes(raw))
    }

    pub(crate) fn bytes(&mut self) -> ReadResult<&'a [u8]> {
        let start = self.position;
        let length = self.long()?;
        let Ok(length) = usize::try_from(length) else {
            self.position = start;
            return Err(self.fault(format!("negative length {length}")));
        };
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> ReadResult<&'a str> {
        let start = self.position;
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|error| {
            self.position = start;
            self.fault(format!("the string is not UTF-8 ({error})"))
        })
    }

    /// The branch of a null-first union: `true` when a value follows.
    pub(crate) fn present(&mut self) -> ReadResult<bool> {
        let start = self.position;
        match self.long()? {
            0 => Ok(false),
            1 => Ok(true),
            other => {
                self.position = start;
                Err(self.fault(format!("union branch {other} does not exist (0 or 1)")))
            }
        }
    }

    /// The items of an array or map, in blocks; a negative count is followed by the block's byte size.
    pub(crate) fn blocks(
        &mut self,
        mut item: impl FnMut(&mut Self, usize) -> ReadResult<()>,
    ) -> ReadResult<()> {
        loop {
            let start = self.position;
            let mut count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                self.long()?;
                count = count.checked_neg().unwrap_or(i64::MAX);
            }
            // Each item of our schemas takes at least one byte.
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            if count > self.remaining() {
                self.position = start;
                return Err(self.fault(format!(
                    "{count} items are announced but {} bytes remain",
                    self.remaining()
                )));
            }
            for left in (0..count).rev() {
                item(self, left + 1)?;
            }
        }
    }

    /// Checks that nothing follows the datum.
    pub(crate) fn end(&self) -> ReadResult<()> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(self.fault(format!("{left} bytes follow the end of the record"))),
        }
    }
}

/// Where a datum is written to.
#[derive(Default)]
pub(crate) struct Output {
    pub(crate) bytes: Vec<u8>,
    /// The first whole number beyond ±2^53 that was met.
    pub(crate) too_large: Option<i64>,
}

impl Output {
    pub(crate) fn long(&mut self, value: i64) {
        let mut raw = ((value << 1) ^ (value >> 63)) as u64;
        while raw >= 0x80 {
            self.bytes.push(raw as u8 | 0x80);
            raw >>= 7;
        }
        self.bytes.push(raw as u8);
    }

    fn checked_long(&mut self, value: i64) {
        if !(-LONG_MAX..=LONG_MAX).contains(&value) {
            self.too_large.get_or_insert(value);
        }
        self.long(value);
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.long(value.len() as i64);
        self.bytes.extend_from_slice(value);
    }
}

/// A field type: its Avro form, its place in JSON, its description.
pub(crate) trait Wire: Sized {
    fn write(&self, out: &mut Output);
    fn read(input: &mut Input<'_>) -> ReadResult<Self>;
    /// What a JSON document means that does not have the field; `None`: it must be there.
    fn absent() -> Option<Self> {
        None
    }
    /// Whether the JSON form leaves the field out.
    fn left_out(&self) -> bool {
        false
    }
    fn shape() -> Shape;
}

impl Wire for String {
    fn write(&self, out: &mut Output) {
        out.bytes(self.as_bytes());
    }
    fn read(input: &mut Input<'_>) -> ReadResult<Self> {
        input.text().map(str::to_owned)
    }
    fn shape() -> Shape {
        Shape::Text
    }
}

impl Wire for bool {
    fn write(&self, out: &mut Output) {
        out.bytes.push(u8::from(*self));
    }
    fn read(input: &mut Input<'_>) -> ReadResult<Self> {
        match input.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(input.fault(format!("{other} is no boolean (0 or 1)"))),
        }
    }
    fn shape() -> Shape {
        Shape::Boolean
    }
}

impl Wire for i32 {
    fn write(&self, out: &mut Output) {
        out.long(i64::from(*self));
    }
    fn read(input: &mut Input<'_>) -> ReadResult<Self> {
        input.int()
    }
    fn shape() -> Shape {
        Shape::Int {
            minimum: i64::from(i32::MIN),
        }
    }
}

impl Wire for u32 {
    fn write(&self, out: &mut Output) {
        if i32::try_from(*self).is_err() {
            out.too_large.get_or_insert(i64::from(*self));
        }
        out.long(i64::from(*self));
    }
    fn read(input: &mut Input<'_>) -> ReadResult<Self> {
        let value = input.int()?;
        u32::try_from(value).map_err(|_| input.fault(format!("{value} is negative")))
    }
    fn shape() -> Shape {
        Shape::Int { minimum: 0 }
    }
}

impl Wire for i64 {
    fn write(&self, out: &mut Output) {
        out.checked_long(*self);
    }
    fn read(input: &mut Input<'_>) -> ReadResult<Self> {
        let value = input.long()?;
        if (-LONG_MAX..=LONG_MAX).contains(&value) {
            Ok(value)
        } else {
            Err(input.fault(format!(
                "{value} is beyond 2^53, which JSON readers do not keep"
            )))
        }
    }
    fn shape() -> Shape {
        Shape::Long { minimum: -LONG_MAX }
    }
}

impl Wire for u64 {
    fn write(&self, out: &mut Output) {
        out.checked_long(i64::try_from(*self).unwrap_or(i64::MAX));
    }
    fn read(input: &mut Input<'_>) -> ReadResult<Self> {
        let value = i64::read(input)?;
        u64::try_from(value).map_err(|_| input.fault(format!("{value} is negative")))
    }
    fn shape() -> Shape {
        Shape::Long { minimum: 0 }
    }
}

impl Wire for f64 {
    fn write(&self, out: &mut Output) {
        out.bytes.extend_from_slice(&self.to_le_bytes());
    }
    fn read(input: &mut Input<'_>) -> ReadResult<Self> {
        let mut raw = [0; 8];
        raw.copy_from_slice(input.take(8)?);
        let value = f64::from_le_bytes(raw);
        if value.is_finite() {
            Ok(value)
        } else {
            Err(input.fault(format!("{value} has no JSON form")))
        }
    }
    fn shape() -> Shape {
        Shape::Double
    }
}

impl<T: Wire> Wire for Option<T> {
    fn write(&self, out: &mut Output) {
        match self {
            None => out.bytes.push(0),
            Some(value) => {
                out.bytes.push(2);
                value.write(out);
            }
        }
    }
    fn read(input: &mut Input<'_>) -> ReadResult<Self> {
        if input.present()? {
            T::read(input).map(Some)
        } else {
            Ok(None)
        }
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
    fn left_out(&self) -> bool {
        self.is_none()
    }
    fn shape() -> Shape {
        Shape::Optional(Box::new(T::shape()))
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn write(&self, out: &mut Output) {
        if !self.is_empty() {
            out.long(self.len() as i64);
            for item in self {
                item.write(out);
            }
        }
        out.bytes.push(0);
    }
    fn read(input: &mut Input<'_>) -> ReadResult<Self> {
        let mut items = Vec::new();
        input.blocks(|input, left| {
            if items.len() == items.capacity() {
                // An item may be far larger in memory than its one byte on the wire: grow in steps.
                items.reserve(left.min(1024));
            }
            items.push(T::read(input)?);
            Ok(())
        })?;
        Ok(items)
    }
    fn absent() -> Option<Self> {
        Some(Vec::new())
    }
    fn left_out(&self) -> bool {
        self.is_empty()
    }
    fn shape() -> Shape {
        Shape::Array(Box::new(T::shape()))
    }
}

/// Reads a map; a name that comes twice is refused.
pub(crate) fn read_map<T>(
    input: &mut Input<'_>,
    mut value: impl FnMut(&mut Input<'_>, &str) -> ReadResult<T>,
) -> ReadResult<BTreeMap<String, T>> {
    let mut map = BTreeMap::new();
    input.blocks(|input, _| {
        let name = input.text()?;
        let value = value(input, name).map_err(|fault| within(name, fault))?;
        if map.insert(name.to_owned(), value).is_some() {
            return Err(input.fault(format!("the map has \"{name}\" twice")));
        }
        Ok(())
    })?;
    Ok(map)
}

/// Writes a map of texts.
pub(crate) fn write_map<'a>(
    entries: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
    out: &mut Output,
) {
    if entries.len() > 0 {
        out.long(entries.len() as i64);
        for (name, value) in entries {
            out.bytes(name.as_bytes());
            out.bytes(value.as_bytes());
        }
    }
    out.bytes.push(0);
}

impl Wire for BTreeMap<String, String> {
    fn write(&self, out: &mut Output) {
        write_map(
            self.iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
            out,
        );
    }
    fn read(input: &mut Input<'_>) -> ReadResult<Self> {
        read_map(input, |input, _| input.text().map(str::to_owned))
    }
    fn absent() -> Option<Self> {
        Some(BTreeMap::new())
    }
    fn left_out(&self) -> bool {
        self.is_empty()
    }
    fn shape() -> Shape {
        Shape::Map
    }
}
