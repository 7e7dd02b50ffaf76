//! Files that give rights away: set-uid and set-gid programs, what everybody may write, file
//! capabilities. A bounded walk of everything that is mounted.

use crate::error::{DiskError, Result};
use crate::fs::NodeKind;
use crate::guest::{Scope, clean};
use crate::report::{CapableFile, RightsFiles};
use crate::vfs::Found;
use std::collections::BTreeSet;

/// Entries that are looked at: a full server has one to two millions.
const ENTRIES_MAX: usize = 4_000_000;
/// Depth of directories.
const DEPTH_MAX: usize = 128;
/// Files of one kind that are named.
const NAMED_MAX: usize = 10_000;
/// Longest capability value: `vfs_ns_cap_data` has 24 bytes.
const CAPABILITY_MAX: usize = 64;

const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_ISVTX: u32 = 0o1000;
const S_IWOTH: u32 = 0o0002;
const ANY_X: u32 = 0o0111;

pub(super) fn read(scope: &mut Scope<'_>) -> Result<RightsFiles> {
    let mut walk = Walk::default();
    let mounts = scope.root.mount_points();
    walk.hidden = mounts.iter().map(|(place, _)| place.clone()).collect();
    for (place, root) in &mounts {
        if let Err(error) = walk.tree(scope, place, root) {
            if matches!(error, DiskError::OverBudget { .. }) {
                scope.warn("over_budget", "", error.to_string());
                break;
            }
            let place = String::from_utf8_lossy(place).into_owned();
            scope.warn(crate::guest::code_of(&error), &place, error.to_string());
        }
    }
    let mut found = walk.found;
    for list in [&mut found.suid, &mut found.sgid, &mut found.world_writable] {
        list.sort_unstable();
    }
    found.capabilities.sort_unstable();
    Ok(found)
}

#[derive(Default)]
struct Walk {
    found: RightsFiles,
    /// Mount points: what lies beneath them is another file system's.
    hidden: BTreeSet<Vec<u8>>,
    entries: usize,
}

impl Walk {
    fn tree(&mut self, scope: &mut Scope<'_>, place: &[u8], root: &Found) -> Result<()> {
        let mut todo = vec![(place.to_vec(), root.clone(), 0_usize)];
        // Hard-linked directories of a damaged file system would be walked for ever.
        let mut seen = BTreeSet::new();
        while let Some((dir, node, depth)) = todo.pop() {
            if !seen.insert(node.node) {
                continue;
            }
            let children = match node.children() {
                Ok(children) => children,
                Err(error @ DiskError::OverBudget { .. }) => return Err(error),
                Err(error) => {
                    let dir = String::from_utf8_lossy(&dir).into_owned();
                    scope.warn(crate::guest::code_of(&error), &dir, error.to_string());
                    continue;
                }
            };
            for (name, child) in children {
                self.entries = self.entries.saturating_add(1);
                if self.entries > ENTRIES_MAX {
                    return Err(DiskError::OverBudget {
                        budget: format!("{ENTRIES_MAX} files"),
                    });
                }
                let mut path = dir.clone();
                path.push(b'/');
                path.extend_from_slice(&name);
                if self.hidden.contains(&path) {
                    continue;
                }
                if self.entry(&path, &child)? && depth < DEPTH_MAX {
                    todo.push((path, child, depth.saturating_add(1)));
                }
            }
        }
        Ok(())
    }

    /// Whether it is a directory. An inode that cannot be read costs itself only.
    fn entry(&mut self, path: &[u8], node: &Found) -> Result<bool> {
        let metadata = match node.metadata() {
            Ok(metadata) => metadata,
            Err(error @ DiskError::OverBudget { .. }) => return Err(error),
            Err(_) => return Ok(false),
        };
        let name = || clean(&crate::bytes::text(path));
        let mode = metadata.mode;
        let is_dir = metadata.kind == NodeKind::Directory;
        // Everybody may write to /tmp, but only remove their own: the sticky bit makes that fair.
        let is_open = mode & S_IWOTH != 0 && !(is_dir && mode & S_ISVTX != 0);
        if matches!(metadata.kind, NodeKind::File | NodeKind::Directory) && is_open {
            note(&mut self.found.world_writable, name);
        }
        if metadata.kind == NodeKind::File {
            if mode & S_ISUID != 0 {
                note(&mut self.found.suid, name);
            }
            if mode & S_ISGID != 0 && mode & ANY_X != 0 {
                note(&mut self.found.sgid, name);
            }
            if mode & ANY_X != 0
                && self.found.capabilities.len() < NAMED_MAX
                && let Ok(Some(value)) = node.xattr(b"security.capability")
                && value.len() <= CAPABILITY_MAX
            {
                self.found.capabilities.push(CapableFile {
                    path: name(),
                    capabilities: names(&value),
                });
            }
        }
        Ok(is_dir)
    }
}

fn note(list: &mut Vec<String>, name: impl Fn() -> String) {
    if list.len() < NAMED_MAX {
        list.push(name());
    }
}

/// Permitted capabilities (`struct vfs_cap_data`, linux/capability.h): a revision, then pairs of
/// permitted and inheritable sets of 32 each, little-endian.
fn names(value: &[u8]) -> Vec<String> {
    let record = crate::bytes::Record::new("file capability", 0, value);
    let low = record.u32_le(4).unwrap_or(0);
    let high = record.u32_le(12).unwrap_or(0);
    let set = (u64::from(high) << 32) | u64::from(low);
    (0..64_usize)
        .filter(|bit| set >> bit & 1 == 1)
        .map(|bit| match NAMES.get(bit) {
            Some(name) => format!("cap_{name}"),
            None => format!("cap_{bit}"),
        })
        .collect()
}

/// By number (linux/capability.h).
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::memory::MemoryTree;
    use crate::guest::tests::with_scope;

    #[test]
    fn rights_are_found() {
        let mut tree = MemoryTree::default();
        for (path, mode) in [
            ("/bin/su", 0o4755),
            ("/bin/wall", 0o2755),
            ("/bin/locked", 0o2644),
            ("/etc/open", 0o666),
            ("/bin/plain", 0o755),
        ] {
            let node = tree.file(path, Vec::new());
            tree.set_mode(node, mode);
        }
        let tmp = tree.directory("/tmp");
        tree.set_mode(tmp, 0o1777);
        let bad = tree.directory("/srv/bad");
        tree.set_mode(bad, 0o777);
        let ping = tree.file("/bin/ping", Vec::new());
        tree.set_mode(ping, 0o755);
        let value = [
            1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0,
        ];
        tree.set_xattr(ping, "security.capability", value.to_vec());
        let found = with_scope(tree, |scope| read(scope).unwrap());
        assert_eq!(found.suid, ["/bin/su"]);
        assert_eq!(found.sgid, ["/bin/wall"]);
        assert_eq!(found.world_writable, ["/etc/open", "/srv/bad"]);
        assert_eq!(found.capabilities[0].path, "/bin/ping");
        assert_eq!(
            found.capabilities[0].capabilities,
            ["cap_net_raw", "cap_checkpoint_restore"]
        );
    }
}
