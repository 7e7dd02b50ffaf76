//! Tolerant look-ups: what is missing is `None`, what is damaged is `None` and noted.

use crate::guest::{Scope, clean, code_of};
use crate::registry::{Hive, Key, Value};
use std::collections::BTreeMap;

/// Notes kept: a hive in ruins has more, and they say nothing new.
const FAULTS_MAX: usize = 20;

/// An open hive with its name in the registry.
pub(super) struct Named {
    /// `HKLM\SOFTWARE`.
    pub(super) name: String,
    /// Path in the guest.
    pub(super) path: String,
    pub(super) hive: Hive,
}

/// Reads hives and notes damage.
#[derive(Default)]
pub(super) struct Reader {
    faults: Vec<(&'static str, String, String)>,
    more: usize,
}

impl Reader {
    pub(super) fn note(&mut self, code: &'static str, path: &str, message: String) {
        let fault = (code, clean(path), message);
        if self.faults.contains(&fault) {
            return;
        }
        if self.faults.len() >= FAULTS_MAX {
            self.more = self.more.saturating_add(1);
            return;
        }
        self.faults.push(fault);
    }

    /// Passes the notes on to a section.
    pub(super) fn finish(self, scope: &mut Scope<'_>) {
        for (code, path, message) in self.faults {
            scope.warn(code, &path, message);
        }
        if self.more > 0 {
            scope.warn("damaged", "", format!("{} more of this kind", self.more));
        }
    }

    fn take<T>(&mut self, path: &str, result: crate::error::Result<Option<T>>) -> Option<T> {
        match result {
            Ok(found) => found,
            Err(error) => {
                self.note(code_of(&error), path, error.to_string());
                None
            }
        }
    }

    /// A key by its path in a hive; a hive that could not be opened has none.
    pub(super) fn key<'h>(
        &mut self,
        hive: impl Into<Option<&'h Named>>,
        path: &str,
    ) -> Option<Key<'h>> {
        let hive = hive.into()?;
        self.take(&format!("{}\\{path}", hive.name), hive.hive.key(path))
    }

    /// A key below another.
    pub(super) fn below<'h>(&mut self, key: &Key<'h>, path: &str) -> Option<Key<'h>> {
        self.take(&format!("{}\\{path}", key.name()), key.descend(path))
    }

    /// Keys directly below; damaged ones are left out.
    pub(super) fn subkeys<'h>(&mut self, key: &Key<'h>) -> Vec<Key<'h>> {
        let found = self.take(key.name(), key.subkeys().map(Some));
        let mut keys = Vec::new();
        for subkey in found.into_iter().flatten() {
            keys.extend(self.take(key.name(), subkey.map(Some)));
        }
        keys
    }

    /// All values of a key, so that each is read once however many are asked for.
    pub(super) fn values<'h>(&mut self, key: &Key<'h>) -> Values<'h> {
        let found = self.take(key.name(), key.values().map(Some));
        let mut values = BTreeMap::new();
        for value in found.into_iter().flatten() {
            if let Some(value) = self.take(key.name(), value.map(Some)) {
                values.entry(value.name().to_lowercase()).or_insert(value);
            }
        }
        Values {
            key: key.name().to_owned(),
            values,
        }
    }

    /// The values of a key that may be missing.
    pub(super) fn values_at<'h>(
        &mut self,
        hive: impl Into<Option<&'h Named>>,
        path: &str,
    ) -> Values<'h> {
        self.key(hive, path)
            .map(|key| self.values(&key))
            .unwrap_or_default()
    }
}

/// Values of one key.
#[derive(Default)]
pub(super) struct Values<'h> {
    key: String,
    values: BTreeMap<String, Value<'h>>,
}

impl<'h> Values<'h> {
    pub(super) fn get(&self, name: &str) -> Option<&Value<'h>> {
        self.values.get(&name.to_lowercase())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Value<'h>> {
        self.values.values()
    }

    fn read<T>(
        &self,
        reader: &mut Reader,
        name: &str,
        read: impl FnOnce(&Value<'h>) -> crate::error::Result<Option<T>>,
    ) -> Option<T> {
        let value = self.get(name)?;
        reader.take(&format!("{}\\{name}", self.key), read(value))
    }

    /// Text that says something.
    pub(super) fn text(&self, reader: &mut Reader, name: &str) -> Option<String> {
        self.read(reader, name, Value::text)
            .map(|text| clean(text.trim()))
            .filter(|text| !text.is_empty())
    }

    pub(super) fn texts(&self, reader: &mut Reader, name: &str) -> Vec<String> {
        let texts = self.read(reader, name, |value| value.texts().map(Some));
        texts
            .unwrap_or_default()
            .iter()
            .map(|text| clean(text))
            .collect()
    }

    pub(super) fn number(&self, reader: &mut Reader, name: &str) -> Option<u64> {
        self.read(reader, name, Value::number)
    }

    pub(super) fn dword(&self, reader: &mut Reader, name: &str) -> Option<u32> {
        self.number(reader, name)
            .and_then(|n| u32::try_from(n).ok())
    }

    pub(super) fn flag(&self, reader: &mut Reader, name: &str) -> Option<bool> {
        self.number(reader, name).map(|number| number != 0)
    }

    /// Bytes of a value of any type.
    pub(super) fn bytes(&self, reader: &mut Reader, name: &str, cap: usize) -> Option<Vec<u8>> {
        self.read(reader, name, |value| value.data(cap).map(Some))
    }
}
