//! Directories by name, for file systems that store them as plain lists.

use super::NodeId;
use super::pieces::Pieces;
use crate::error::Result;
use std::collections::HashMap;
use std::ops::ControlFlow;

/// Names kept of one directory; larger ones are searched each time.
const NAMES_MAX: usize = 65_536;

/// Tells a directory's names until it is told to stop.
pub(crate) type Tell<'a> = dyn FnMut(&[u8], NodeId) -> ControlFlow<()> + 'a;

/// The names of the directories that were looked into last.
pub(crate) struct Names {
    kept: Pieces<NodeId, HashMap<Vec<u8>, NodeId>>,
}

impl Names {
    /// Keeps at most `bytes` of names.
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            kept: Pieces::new(bytes),
        }
    }

    /// Finds `wanted` among the names of `dir`, which `list` tells. Names are compared as `fold`
    /// makes them; the first of several equal ones wins. Damage does not hide the names before it.
    pub(crate) fn find(
        &self,
        dir: NodeId,
        wanted: &[u8],
        fold: impl Fn(&[u8]) -> Vec<u8>,
        list: impl Fn(&mut Tell<'_>) -> Result<()>,
    ) -> Result<Option<NodeId>> {
        let wanted = fold(wanted);
        let mut found = None;
        let mut whole = true;
        let names = self.kept.get_or(&dir, weigh, || {
            let mut names = HashMap::new();
            let outcome = list(&mut |name, node| {
                let name = fold(name);
                if name == wanted {
                    found = found.or(Some(node));
                }
                if names.len() < NAMES_MAX {
                    names.entry(name).or_insert(node);
                    return ControlFlow::Continue(());
                }
                // Too many to keep: then only this name matters.
                whole = false;
                match found {
                    None => ControlFlow::Continue(()),
                    Some(_) => ControlFlow::Break(()),
                }
            });
            match outcome {
                Ok(()) if whole => Ok(names),
                Ok(()) => Err(too_many()),
                Err(e) => Err(e),
            }
        });
        match names {
            Ok(names) => Ok(names.get(&wanted).copied()),
            Err(_) if found.is_some() || !whole => Ok(found),
            Err(e) => Err(e),
        }
    }
}

/// Keeps the cache from taking a part of the names for all; never shown.
fn too_many() -> crate::error::DiskError {
    crate::error::DiskError::OverBudget {
        budget: format!("{NAMES_MAX} names of a directory"),
    }
}

fn weigh(names: &HashMap<Vec<u8>, NodeId>) -> usize {
    names.keys().fold(64, |sum: usize, name| {
        sum.saturating_add(name.len()).saturating_add(64)
    })
}

/// UTF-8 in upper case, letter by letter; other bytes stay as they are.
pub(crate) fn upper(name: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(name) {
        Ok(text) => text
            .chars()
            .flat_map(char::to_uppercase)
            .collect::<String>()
            .into_bytes(),
        Err(_) => name.to_ascii_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fold_and_damage_does_not_hide_them() {
        let names = Names::new(1 << 20);
        let list = |tell: &mut Tell<'_>| {
            assert!(tell("Ärger".as_bytes(), NodeId(1)).is_continue());
            assert!(tell(b"other", NodeId(2)).is_continue());
            Err(crate::DiskError::NotFound { what: "x".into() })
        };
        let find = |name: &str| names.find(NodeId(0), name.as_bytes(), upper, list);
        assert_eq!(find("äRGER").unwrap(), Some(NodeId(1)));
        assert!(find("nothing").is_err());
    }

    #[test]
    fn directories_too_large_to_keep_are_searched() {
        let names = Names::new(64 << 20);
        let list = |tell: &mut Tell<'_>| {
            for i in 0..100_000u64 {
                if tell(i.to_string().as_bytes(), NodeId(i)).is_break() {
                    break;
                }
            }
            Ok(())
        };
        let find = |name: &str| names.find(NodeId(0), name.as_bytes(), upper, list).unwrap();
        assert_eq!(find("99999"), Some(NodeId(99_999)));
        assert_eq!(find("5"), Some(NodeId(5)));
        assert_eq!(find("x"), None);
    }
}
