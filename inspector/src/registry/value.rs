//! Values ("Key value", "Big data").

use super::hive::{Hive, corrupt};
use super::name;
use crate::bytes::{Record, size, text_utf16_le};
use crate::error::{DiskError, Result};

/// Fields before the name.
const FIXED: usize = 20;
/// Windows allows value names of 16,383 characters.
const NAME_BYTES: usize = 32_768;
/// VALUE_COMP_NAME: the name is Latin-1.
const COMPRESSED: u16 = 0x0001;
/// The data stand in the offset field itself.
const RESIDENT: u32 = 0x8000_0000;
/// Data above this length lie in pieces of this length, from format 1.4 on.
const PIECE: usize = 16_344;
/// Texts and lists of a report: the longest that Windows itself writes stay far below.
const TEXT_MAX: usize = 256 << 10;

/// Type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// REG_NONE.
    None,
    /// REG_SZ.
    Text,
    /// REG_EXPAND_SZ: text with %variables%.
    Expandable,
    /// REG_BINARY.
    Binary,
    /// REG_DWORD.
    Dword,
    /// REG_DWORD_BIG_ENDIAN.
    DwordBigEndian,
    /// REG_LINK.
    Link,
    /// REG_MULTI_SZ.
    MultiText,
    /// REG_QWORD.
    Qword,
    /// Any other. The SAM hive keeps numbers here.
    Other(u32),
}

impl ValueType {
    fn of(number: u32) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Text,
            2 => Self::Expandable,
            3 => Self::Binary,
            4 => Self::Dword,
            5 => Self::DwordBigEndian,
            6 => Self::Link,
            7 => Self::MultiText,
            11 => Self::Qword,
            other => Self::Other(other),
        }
    }

    /// As stored.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Text => 1,
            Self::Expandable => 2,
            Self::Binary => 3,
            Self::Dword => 4,
            Self::DwordBigEndian => 5,
            Self::Link => 6,
            Self::MultiText => 7,
            Self::Qword => 11,
            Self::Other(number) => number,
        }
    }
}

/// A value of a key. Its data are read when asked for.
#[derive(Clone)]
pub struct Value<'h> {
    hive: &'h Hive,
    offset: u32,
    name: String,
    kind: ValueType,
    stored_size: u32,
    data: u32,
}

impl<'h> Value<'h> {
    pub(super) fn read(hive: &'h Hive, offset: u32) -> Result<Self> {
        let bytes = hive.head(hive.cell(offset)?, FIXED + NAME_BYTES)?;
        let record = Record::new("registry value", u64::from(offset), &bytes);
        if record.slice(0, 2)? != b"vk" {
            return Err(corrupt(offset, "no value"));
        }
        let name = record.slice(FIXED, usize::from(record.u16_le(2)?))?;
        Ok(Self {
            hive,
            offset,
            name: name::decode(name, record.u16_le(16)? & COMPRESSED != 0),
            kind: ValueType::of(record.u32_le(12)?),
            stored_size: record.u32_le(4)?,
            data: record.u32_le(8)?,
        })
    }

    /// Its name; empty for the key's default value.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> ValueType {
        self.kind
    }

    /// Length of its data as the value says.
    #[must_use]
    pub fn size(&self) -> usize {
        size(self.stored_size & !RESIDENT)
    }

    /// Its data.
    ///
    /// # Errors
    /// `OverBudget` when they have more than `cap` bytes, `Corrupt` when they are not where the
    /// value says, or any read error.
    pub fn data(&self, cap: usize) -> Result<Vec<u8>> {
        let length = self.size();
        if length > cap {
            return Err(DiskError::OverBudget {
                budget: format!("a registry value has {length} bytes, {cap} are read"),
            });
        }
        if self.stored_size & RESIDENT != 0 {
            let bytes = self.data.to_le_bytes();
            let Some(bytes) = bytes.get(..length) else {
                return Err(corrupt(
                    self.offset,
                    format!("{length} bytes inside a value"),
                ));
            };
            return Ok(bytes.to_vec());
        }
        if length == 0 {
            return Ok(Vec::new());
        }
        if length > PIECE
            && self.hive.minor_version() > 3
            && let Some(bytes) = self.pieces(length)?
        {
            return Ok(bytes);
        }
        let bytes = self.hive.head(self.hive.cell(self.data)?, length)?;
        if bytes.len() < length {
            return Err(corrupt(
                self.data,
                format!("a cell for fewer than {length} bytes"),
            ));
        }
        Ok(bytes)
    }

    /// Data in pieces; `None` when the cell holds the data themselves, as older writers left them.
    fn pieces(&self, length: usize) -> Result<Option<Vec<u8>>> {
        let head = self.hive.head(self.hive.cell(self.data)?, 8)?;
        let record = Record::new("registry big data", u64::from(self.data), &head);
        if record.slice(0, 2)? != b"db" {
            return Ok(None);
        }
        let count = usize::from(record.u16_le(2)?);
        let list = record.u32_le(4)?;
        let offsets = self
            .hive
            .head(self.hive.cell(list)?, count.saturating_mul(4))?;
        let mut bytes = Vec::new();
        for offset in offsets.as_chunks::<4>().0 {
            let left = length.saturating_sub(bytes.len()).min(PIECE);
            if left == 0 {
                break;
            }
            let cell = self.hive.cell(u32::from_le_bytes(*offset))?;
            bytes.extend(self.hive.head(cell, left)?);
        }
        if bytes.len() < length {
            let found = bytes.len();
            return Err(corrupt(
                self.data,
                format!("pieces of {found} bytes for a value of {length}"),
            ));
        }
        Ok(Some(bytes))
    }

    /// Text of REG_SZ and REG_EXPAND_SZ, up to its NUL; `None` for other types.
    ///
    /// # Errors
    /// As [`Value::data`].
    pub fn text(&self) -> Result<Option<String>> {
        if !matches!(
            self.kind,
            ValueType::Text | ValueType::Expandable | ValueType::Link
        ) {
            return Ok(None);
        }
        Ok(Some(text_utf16_le(&self.data(TEXT_MAX)?)))
    }

    /// Texts of REG_MULTI_SZ without empty ones; of a REG_SZ that stands in its stead the one.
    ///
    /// # Errors
    /// As [`Value::data`].
    pub fn texts(&self) -> Result<Vec<String>> {
        if self.kind != ValueType::MultiText {
            return Ok(self
                .text()?
                .into_iter()
                .filter(|text| !text.is_empty())
                .collect());
        }
        let bytes = self.data(TEXT_MAX)?;
        Ok(name::decode(&bytes, false)
            .split('\0')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// Number of REG_DWORD and REG_QWORD; `None` for other types and lengths.
    ///
    /// # Errors
    /// As [`Value::data`].
    pub fn number(&self) -> Result<Option<u64>> {
        let numeric = matches!(
            self.kind,
            ValueType::Dword | ValueType::DwordBigEndian | ValueType::Qword
        );
        if !numeric || self.size() > 8 {
            return Ok(None);
        }
        let bytes = self.data(8)?;
        let narrow = || bytes.as_slice().try_into().ok();
        Ok(match self.kind {
            ValueType::Dword => narrow().map(u32::from_le_bytes).map(u64::from),
            ValueType::DwordBigEndian => narrow().map(u32::from_be_bytes).map(u64::from),
            _ => bytes.as_slice().try_into().ok().map(u64::from_le_bytes),
        })
    }
}
