//! fstab(5) and crypttab(5), with devices resolved to those of this disk.

use super::{Scope, clean};
use crate::error::Result;
use crate::fs::FileSystem;
use crate::layers::{Layers, Mountable};
use crate::report::{CryptEntry, MountEntry, Storage};
use std::sync::Arc;

pub(super) fn read(scope: &mut Scope<'_>) -> Result<Vec<MountEntry>> {
    let text = scope.text("/etc/fstab").unwrap_or_default();
    let mut entries = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fields: Vec<String> = line.split_whitespace().map(unescape).collect();
        let [spec, target, fs_type, rest @ ..] = fields.as_slice() else {
            scope.warn(
                "malformed",
                "/etc/fstab",
                format!("a line with fewer than three fields: {}", clean(line)),
            );
            continue;
        };
        let number = |at: usize| rest.get(at).and_then(|text| text.parse().ok()).unwrap_or(0);
        entries.push(MountEntry {
            device: device(scope.layers, spec),
            spec: clean(spec),
            target: clean(target),
            fs_type: clean(fs_type),
            options: rest
                .first()
                .map(|options| options.split(',').map(clean).collect())
                .unwrap_or_default(),
            dump: number(1),
            pass: number(2),
        });
    }
    Ok(entries)
}

/// Spaces and the like are written as octal escapes.
fn unescape(field: &str) -> String {
    field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\134", "\\")
}

fn device(layers: &Layers, spec: &str) -> Option<String> {
    let spec = spec.replace('"', "");
    let by_fs = |matches: &dyn Fn(&crate::layers::FileSystemLayer) -> bool| {
        let found = layers.filesystems.iter().find(|fs| matches(fs))?;
        Some(found.device.clone())
    };
    let by_partition = |matches: &dyn Fn(&crate::partition::Partition) -> bool| {
        let found = layers.disk.partitions.iter().find(|p| matches(p))?;
        Some(format!("/dev/sda{}", found.index))
    };
    let same =
        |a: &Option<String>, b: &str| a.as_deref().is_some_and(|a| a.eq_ignore_ascii_case(b));
    let (tag, value) = match spec.split_once('=') {
        Some((tag, value)) => (tag.to_owned(), value.to_owned()),
        None => match spec
            .strip_prefix("/dev/disk/by-")
            .and_then(|rest| rest.split_once('/'))
        {
            Some((kind, value)) => (kind.to_uppercase(), value.to_owned()),
            None => {
                let known = layers.filesystems.iter().any(|fs| fs.device == spec);
                return known.then_some(spec);
            }
        },
    };
    match tag.as_str() {
        "UUID" => by_fs(&|fs| same(&fs.uuid, &value)),
        "LABEL" => by_fs(&|fs| fs.label.as_deref() == Some(&*value)),
        "PARTUUID" => by_partition(&|p| same(&p.uuid, &value)),
        "PARTLABEL" => by_partition(&|p| p.name.as_deref() == Some(&*value)),
        _ => None,
    }
}

/// Which readable file systems belong where in the guest's tree, short mount points first.
pub(super) fn to_mount(
    entries: &[MountEntry],
    mountable: &[Mountable],
    root: &str,
) -> Vec<(String, Arc<dyn FileSystem>)> {
    let mut found: Vec<(String, Arc<dyn FileSystem>)> = entries
        .iter()
        .filter(|entry| entry.target.starts_with('/') && entry.target != "/")
        .filter_map(|entry| {
            let device = entry.device.as_ref().filter(|device| *device != root)?;
            let fs = mountable.iter().find(|m| m.device == *device)?;
            Some((entry.target.clone(), fs.reader.clone()))
        })
        .collect();
    found.sort_by_key(|(at, _)| at.len());
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
            Some(CryptEntry {
                name: clean(fields.next()?),
                device: clean(fields.next()?),
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
