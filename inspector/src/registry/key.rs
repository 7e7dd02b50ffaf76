//! Keys ("Key node").

use super::hive::{Hive, corrupt};
use super::list::{self, Item};
use super::name::{self, Wanted};
use super::value::Value;
use crate::bytes::Record;
use crate::error::Result;

/// Fields before the name.
const FIXED: usize = 76;
/// Windows allows names of 255 characters.
const NAME_BYTES: usize = 512;
/// KEY_COMP_NAME: the name is Latin-1.
const COMPRESSED: u16 = 0x0020;
/// "No such cell".
const NIL: u32 = u32::MAX;
/// Longest class name that is read: the boot key's parts have eight characters.
const CLASS_MAX: usize = 1_024;

/// A key of a hive.
#[derive(Clone)]
pub struct Key<'h> {
    hive: &'h Hive,
    name: String,
    written: u64,
    subkeys: u32,
    subkeys_list: u32,
    values: u32,
    values_list: u32,
    class_offset: u32,
    class_length: usize,
}

impl<'h> Key<'h> {
    pub(super) fn read(hive: &'h Hive, offset: u32) -> Result<Self> {
        let bytes = hive.head(hive.cell(offset)?, FIXED + NAME_BYTES)?;
        let record = Record::new("registry key", u64::from(offset), &bytes);
        if record.slice(0, 2)? != b"nk" {
            return Err(corrupt(offset, "no key node"));
        }
        let name = record.slice(FIXED, usize::from(record.u16_le(72)?))?;
        Ok(Self {
            hive,
            name: name::decode(name, record.u16_le(2)? & COMPRESSED != 0),
            written: record.u64_le(4)?,
            subkeys: record.u32_le(20)?,
            subkeys_list: record.u32_le(28)?,
            values: record.u32_le(36)?,
            values_list: record.u32_le(40)?,
            class_offset: record.u32_le(48)?,
            class_length: usize::from(record.u16_le(74)?),
        })
    }

    /// Its name as stored.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When it was last written, as a FILETIME.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Its class name, where it has one.
    ///
    /// # Errors
    /// `Corrupt` or any read error.
    pub fn class(&self) -> Result<Option<String>> {
        if self.class_length == 0 || self.class_offset == NIL {
            return Ok(None);
        }
        let cell = self.hive.cell(self.class_offset)?;
        let bytes = self.hive.head(cell, self.class_length.min(CLASS_MAX))?;
        Ok(Some(name::decode(&bytes, false)))
    }

    fn items(&self) -> Result<Vec<Item>> {
        if self.subkeys == 0 || self.subkeys_list == NIL {
            return Ok(Vec::new());
        }
        list::read(self.hive, self.subkeys_list)
    }

    /// Its subkeys, in the order of their names. A damaged one is an error of its own.
    ///
    /// # Errors
    /// `Corrupt` or any read error of the list itself.
    pub fn subkeys(&self) -> Result<Subkeys<'h>> {
        Ok(Subkeys {
            hive: self.hive,
            items: self.items()?.into_iter(),
        })
    }

    /// The subkey of a name, case ignored.
    ///
    /// # Errors
    /// `Corrupt` or any read error.
    pub fn subkey(&self, name: &str) -> Result<Option<Key<'h>>> {
        let wanted = Wanted::new(name);
        for item in self.items()? {
            if wanted.may_be(item.hint) {
                let key = Key::read(self.hive, item.offset)?;
                if wanted.is(&key.name) {
                    return Ok(Some(key));
                }
            }
        }
        Ok(None)
    }

    /// The key at a path below, parts separated by `\`, case ignored.
    ///
    /// # Errors
    /// `Corrupt` or any read error on the way.
    pub fn descend(&self, path: &str) -> Result<Option<Key<'h>>> {
        let mut key = self.clone();
        for part in path.split('\\').filter(|part| !part.is_empty()) {
            match key.subkey(part)? {
                Some(next) => key = next,
                None => return Ok(None),
            }
        }
        Ok(Some(key))
    }

    /// Its values, in the order of their making. A damaged one is an error of its own.
    ///
    /// # Errors
    /// `Corrupt` or any read error of the list itself.
    pub fn values(&self) -> Result<impl Iterator<Item = Result<Value<'h>>> + use<'h>> {
        let hive = self.hive;
        let offsets = list::values(hive, self.values_list, self.values)?;
        Ok(offsets
            .into_iter()
            .map(move |offset| Value::read(hive, offset)))
    }

    /// The value of a name, case ignored; the key's default value has the empty name. A damaged
    /// value beside it does not hide it.
    ///
    /// # Errors
    /// `Corrupt` or any read error, when the value is not found.
    pub fn value(&self, name: &str) -> Result<Option<Value<'h>>> {
        let mut damage = None;
        for value in self.values()? {
            match value {
                Ok(value) if name::same(value.name(), name) => return Ok(Some(value)),
                Ok(_) => {}
                Err(error) => damage = damage.or(Some(error)),
            }
        }
        match damage {
            Some(error) => Err(error),
            None => Ok(None),
        }
    }
}

/// The subkeys of a key.
pub struct Subkeys<'h> {
    hive: &'h Hive,
    items: std::vec::IntoIter<Item>,
}

impl<'h> Iterator for Subkeys<'h> {
    type Item = Result<Key<'h>>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.items.next()?;
        Some(Key::read(self.hive, item.offset))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.items.size_hint()
    }
}
