//! Where operating systems lie: in the root of a file system, or in one of its subvolumes.

use super::{CONFIG_MAX, fstab, os};
use crate::error::DiskError;
use crate::fs::{FileSystem, NodeId, Subvolume};
use crate::layers::Mountable;
use crate::report::Os;
use crate::vfs::GuestRoot;

/// Subvolumes that are looked into.
const SUBVOLUMES_MAX: usize = 256;

/// Systems of one file system: usually one or none.
///
/// Each snapshot of btrfs looks like a system of its own. The default subvolume is the root where it
/// holds a system; else the subvolumes that name themselves as `/` in their own fstab, as installers
/// write it; else the first that is no snapshot.
///
/// `trouble`: what kept it from looking everywhere.
pub(super) fn systems(candidate: &Mountable, trouble: &mut Vec<DiskError>) -> Vec<(GuestRoot, Os)> {
    let reader = &candidate.reader;
    // A file system whose subvolumes cannot be listed is still worth a look at its root.
    let subvolumes = reader.subvolumes().unwrap_or_else(|error| {
        trouble.push(error);
        Vec::new()
    });
    let mut at = |node: NodeId| -> Option<(GuestRoot, Os)> {
        let root = GuestRoot::of(reader.clone(), node);
        let found = os::detect(&root, &candidate.device);
        trouble.extend(root.take_trouble());
        let mut os = found?;
        os.subvolume = path_of(&subvolumes, node);
        Some((root, os))
    };
    if let Some(found) = at(reader.root()) {
        return vec![found];
    }
    let mut named = Vec::new();
    let mut first = None;
    for subvolume in subvolumes.iter().take(SUBVOLUMES_MAX) {
        if subvolume.root == reader.root() {
            continue;
        }
        let Some((root, os)) = at(subvolume.root) else {
            continue;
        };
        if names_itself(&root, subvolume) {
            named.push((root, os));
        } else if first.is_none() && subvolume.snapshot_of.is_none() {
            first = Some((root, os));
        }
    }
    if named.is_empty() {
        named.extend(first);
    }
    named
}

/// Whether the fstab of this root mounts this very subvolume as `/`.
fn names_itself(root: &GuestRoot, subvolume: &Subvolume) -> bool {
    let text = root.text("/etc/fstab", CONFIG_MAX).ok().flatten();
    text.unwrap_or_default()
        .lines()
        .filter_map(fstab::fields)
        .filter(|line| line.target == "/")
        .any(|line| is_meant(subvolume, &line.options))
}

/// Whether mount options name this subvolume.
fn is_meant(subvolume: &Subvolume, options: &[String]) -> bool {
    options.iter().any(|option| match option.split_once('=') {
        Some(("subvol", path)) => path.trim_matches('/') == subvolume.path.trim_matches('/'),
        Some(("subvolid", id)) => id.parse() == Ok(subvolume.id),
        _ => false,
    })
}

/// The node that a mount means: the subvolume of its options, else the root of the file system.
pub(super) fn mounted(fs: &dyn FileSystem, options: &[String]) -> Option<NodeId> {
    let names_one =
        |option: &String| option.starts_with("subvol=") || option.starts_with("subvolid=");
    if !options.iter().any(names_one) {
        return Some(fs.root());
    }
    let subvolumes = fs.subvolumes().ok()?;
    let meant = subvolumes.iter().find(|one| is_meant(one, options))?;
    Some(meant.root)
}

fn path_of(subvolumes: &[Subvolume], node: NodeId) -> Option<String> {
    let found = subvolumes.iter().find(|one| one.root == node)?;
    Some(super::clean(&found.path)).filter(|path| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::memory::MemoryTree;
    use std::sync::Arc;

    fn found(tree: MemoryTree) -> Vec<Option<String>> {
        let candidate = Mountable {
            device: "/dev/sda1".to_owned(),
            partition: None,
            partuuid: None,
            partlabel: None,
            reader: Arc::new(tree),
        };
        let found = systems(&candidate, &mut Vec::new());
        found.into_iter().map(|(_, os)| os.subvolume).collect()
    }

    fn release(tree: &mut MemoryTree, at: &str, fstab: &str) {
        tree.file(&format!("{at}/etc/os-release"), b"ID=fedora\n".to_vec());
        tree.file(&format!("{at}/etc/fstab"), fstab.as_bytes().to_vec());
    }

    #[test]
    fn the_default_subvolume_is_the_root_and_snapshots_are_none() {
        let mut tree = MemoryTree::default();
        for path in ["/root", "/snap"] {
            release(&mut tree, path, "UUID=x / btrfs subvol=root 0 0\n");
        }
        tree.subvolume("/snap", false);
        tree.subvolume("/root", true);
        assert_eq!(found(tree), [Some("/root".to_owned())]);
    }

    #[test]
    fn without_a_default_the_fstab_tells() {
        let mut tree = MemoryTree::default();
        for path in ["/@snap", "/@", "/@home"] {
            release(&mut tree, path, "UUID=x / btrfs defaults,subvol=/@ 0 0\n");
            tree.subvolume(path, false);
        }
        assert_eq!(found(tree), [Some("/@".to_owned())]);
    }
}
