//! fstab(5) and crypttab(5), with devices resolved to those of this disk.

use super::{Scope, clean, device, roots};
use crate::error::Result;
use crate::fs::{FileSystem, NodeId};
use crate::layers::Mountable;
use crate::report::{CryptEntry, MountEntry, Os, Storage};
use std::sync::Arc;

/// Lines of fstab that are reported.
const ENTRIES_MAX: usize = 10_000;

/// One line.
pub(super) struct Line {
    pub(super) spec: String,
    pub(super) target: String,
    pub(super) fs_type: String,
    pub(super) options: Vec<String>,
    pub(super) dump: u32,
    pub(super) pass: u32,
}

/// `None` for comments, blank lines and those with fewer than three fields.
pub(super) fn fields(line: &str) -> Option<Line> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let fields: Vec<String> = line.split_whitespace().map(unescape).collect();
    let [spec, target, fs_type, rest @ ..] = fields.as_slice() else {
        return None;
    };
    let number = |at: usize| rest.get(at).and_then(|text| text.parse().ok()).unwrap_or(0);
    Some(Line {
        spec: spec.clone(),
        target: target.clone(),
        fs_type: fs_type.clone(),
        options: rest
            .first()
            .map(|options| options.split(',').map(str::to_owned).collect())
            .unwrap_or_default(),
        dump: number(1),
        pass: number(2),
    })
}

/// Spaces and the like are written as octal escapes.
fn unescape(field: &str) -> String {
    field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

pub(super) fn read(scope: &mut Scope<'_>) -> Result<Vec<MountEntry>> {
    let text = scope.text("/etc/fstab").unwrap_or_default();
    let mut entries = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if entries.len() >= ENTRIES_MAX {
            scope.warn(
                "over_budget",
                "/etc/fstab",
                format!("more than {ENTRIES_MAX} lines"),
            );
            break;
        }
        let Some(line) = fields(line) else {
            let problem = format!("a line with fewer than three fields: {}", clean(line));
            scope.warn("malformed", "/etc/fstab", problem);
            continue;
        };
        entries.push(MountEntry {
            device: device::resolve(scope.layers, &line.spec),
            spec: clean(&line.spec),
            target: clean(&line.target),
            fs_type: clean(&line.fs_type),
            options: line.options.iter().map(|option| clean(option)).collect(),
            dump: line.dump,
            pass: line.pass,
        });
    }
    Ok(entries)
}

/// A directory of a file system that belongs somewhere in the guest's tree.
pub(super) type Mounting = (String, Arc<dyn FileSystem>, NodeId);

/// Which readable file systems and subvolumes belong where, short mount points first.
pub(super) fn to_mount(entries: &[MountEntry], mountable: &[Mountable], os: &Os) -> Vec<Mounting> {
    let mut found: Vec<Mounting> = entries
        .iter()
        .filter(|entry| entry.target.starts_with('/') && entry.target != "/")
        .filter_map(|entry| {
            let device = entry.device.as_ref()?;
            let fs = &mountable.iter().find(|m| m.device == *device)?.reader;
            let node = roots::mounted(fs.as_ref(), &entry.options)?;
            // The root once more: a bind mount, or a subvolume that is named in no option.
            let is_root = *device == os.root && node == fs.root();
            (!is_root).then(|| (entry.target.clone(), Arc::clone(fs), node))
        })
        .collect();
    found.sort_by_key(|(at, ..)| at.len());
    found
}

pub(super) fn storage(scope: &mut Scope<'_>, mounts: &[MountEntry]) -> Result<Storage> {
    let text = scope.text("/etc/crypttab").unwrap_or_default();
    let crypttab = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (name, spec) = (fields.next()?, fields.next()?);
            // A key may be a file or none; the option list comes behind it.
            let options = fields.nth(1).unwrap_or_default();
            Some(CryptEntry {
                name: clean(name),
                device: clean(spec),
                resolved: device::resolve(scope.layers, spec),
                options: options
                    .split(',')
                    .filter(|option| !option.is_empty())
                    .map(clean)
                    .collect(),
            })
        })
        .collect();
    let swap = mounts
        .iter()
        .filter(|entry| entry.fs_type == "swap")
        .map(|entry| entry.device.clone().unwrap_or_else(|| entry.spec.clone()))
        .collect();
    Ok(Storage { swap, crypttab })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        let line = fields(r"LABEL=a\040b /mnt\134x ext4 ro,noatime 0 2").unwrap();
        assert_eq!((&*line.spec, &*line.target), ("LABEL=a b", "/mnt\\x"));
        assert_eq!(line.options, ["ro", "noatime"]);
        assert_eq!((line.dump, line.pass), (0, 2));
        assert!(fields("# /dev/sda1 / ext4").is_none());
        assert!(fields("/dev/sda1 /").is_none());
    }
}
