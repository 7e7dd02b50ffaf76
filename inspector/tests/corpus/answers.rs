//! Answers of reference tools, as the corpus has them.

use crate::support::Row;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// One row's answer.
pub(crate) enum Answer {
    /// qemu-img, sfdisk, blkid and a tree (`expected/images`).
    Image(Box<Value>),
    /// dumpe2fs' features and debugfs' count of names in the root directory.
    Ext { features: Vec<String>, names: usize },
    /// blkid's type.
    Type(String),
    /// A guest's tree (`guests/*/truth/tree.tsv`).
    Guest(Vec<(Vec<u8>, char, u64, String)>),
}

/// Tables that hold many answers.
pub(crate) struct Answers {
    ext: BTreeMap<String, Vec<String>>,
    btrfs: BTreeMap<String, Vec<String>>,
}

impl Answers {
    pub(crate) fn load(dir: &Path) -> Self {
        let table = |name: &str| {
            let text = std::fs::read_to_string(dir.join("expected").join(name)).unwrap();
            text.lines()
                .skip(1)
                .map(|line| {
                    let fields: Vec<String> = line.split('\t').map(str::to_owned).collect();
                    (fields[0].clone(), fields)
                })
                .collect()
        };
        Self {
            ext: table("e2fsprogs.tsv"),
            btrfs: table("btrfs-progs.tsv"),
        }
    }

    /// `None` for rows that are no disk images, or that no tool could answer.
    pub(crate) fn of(&self, dir: &Path, row: &Row) -> Option<Answer> {
        if !row.kind.starts_with("valid") {
            return None;
        }
        let path = dir.join(format!("expected/images/{}.json", row.path));
        if let Ok(text) = std::fs::read_to_string(path) {
            let doc: Value = serde_json::from_str(&text).ok()?;
            // The tools' answer is that they cannot read it: nothing to agree with.
            return doc["qemu_img_error"]
                .is_null()
                .then(|| Answer::Image(Box::new(doc)));
        }
        if let Some(fields) = self.ext.get(&row.path) {
            // Where dumpe2fs itself fails there is nothing to compare with.
            if fields[4] != "0" {
                return None;
            }
            let mut features: Vec<String> = fields[5]
                .split(' ')
                .filter(|feature| !feature.is_empty())
                .map(str::to_owned)
                .collect();
            features.sort_unstable();
            let names = fields[6].parse().ok()?;
            return Some(Answer::Ext { features, names });
        }
        if let Some(fields) = self.btrfs.get(&row.path) {
            return Some(Answer::Type(fields[3].clone()));
        }
        let guest = row.path.strip_prefix("guests/")?;
        let tree = dir
            .join("guests")
            .join(guest.split('/').next()?)
            .join("truth/tree.tsv");
        Some(Answer::Guest(guest_tree(
            &std::fs::read_to_string(tree).ok()?,
        )))
    }
}

/// Lines are `path kind mode uid gid size sum-or-target` (Linux) or `path kind size [sum]` (Windows).
fn guest_tree(text: &str) -> Vec<(Vec<u8>, char, u64, String)> {
    text.lines()
        .filter(|line| !line.starts_with('#') && line.contains('\t'))
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let kind = fields[1].chars().next().unwrap();
            let (size, last) = if fields.len() > 5 {
                (fields[5], fields.get(6))
            } else {
                (fields[2], fields.get(3))
            };
            let last = last.map_or("", |text| text.trim());
            let last = if kind == 'l' {
                String::from_utf8_lossy(&unescape(last)).into_owned()
            } else {
                last.to_owned()
            };
            (unescape(fields[0]), kind, size.parse().unwrap_or(0), last)
        })
        .collect()
}

/// Python's `unicode_escape` over latin-1 text.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            let mut bytes = [0; 4];
            match u8::try_from(u32::from(c)) {
                Ok(byte) if c.is_ascii() => out.push(byte),
                _ => out.extend_from_slice(c.encode_utf8(&mut bytes).as_bytes()),
            }
            continue;
        }
        match chars.next() {
            Some('x') => {
                let digits: String = chars.by_ref().take(2).collect();
                out.push(u8::from_str_radix(&digits, 16).unwrap());
            }
            Some('n') => out.push(b'\n'),
            Some('t') => out.push(b'\t'),
            Some(other) => out.push(u8::try_from(u32::from(other)).unwrap_or(b'?')),
            None => {}
        }
    }
    out
}
