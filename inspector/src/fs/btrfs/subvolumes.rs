//! Subvolumes: which there are, their paths, and which one is mounted by default.

use super::Btrfs;
use super::items::{self, kind};
use super::superblock::Root;
use super::tree::Key;
use crate::bytes::{Record, text, uuid};
use crate::crc32::crc32c;
use crate::error::{DiskError, Result};
use crate::fs::Subvolume;
use std::collections::HashMap;
use std::ops::ControlFlow;

/// Id of the top subvolume.
pub(super) const TOP: u64 = 5;
const FIRST: u64 = 256;
/// Ids from here on are trees of the file system's own.
const LAST: u64 = 0u64.wrapping_sub(256);
/// Subvolumes told: snapshot tools keep hundreds at most.
const SUBVOLUMES_MAX: usize = 10_000;
/// Directories and subvolumes above one another.
const DEPTH_MAX: usize = 128;
/// Bytes of a path.
const PATH_MAX: usize = 4096;

pub(super) fn is_subvolume(id: u64) -> bool {
    id == TOP || (FIRST..=LAST).contains(&id)
}

/// The hash that directory entries and attributes are keyed by.
pub(super) fn name_hash(name: &[u8]) -> u64 {
    u64::from(crc32c(0xffff_fffe, name))
}

impl Btrfs {
    /// Id of the subvolume that is mounted when none is named.
    pub(super) fn default_id(&self) -> Result<u64> {
        let key = Key::new(
            self.trees.sb.root_dir,
            kind::DIR_ITEM,
            name_hash(b"default"),
        );
        let Some(item) = self.trees.get(&self.trees.sb.root, &key)? else {
            return Ok(TOP);
        };
        let names = items::named(&item.record())?;
        let found = names.iter().find(|n| n.name == b"default");
        Ok(found
            .map(|n| n.target.object)
            .filter(|id| is_subvolume(*id))
            .unwrap_or(TOP))
    }

    /// Whether `dir` of subvolume `parent` is where subvolume `child` hangs. In snapshots the entry
    /// is copied, not the subvolume.
    pub(super) fn hangs_in(&self, parent: u64, child: u64, dir: u64, name: &[u8]) -> Result<bool> {
        let key = Key::new(parent, kind::ROOT_REF, child);
        let Some(item) = self.trees.get(&self.trees.sb.root, &key)? else {
            return Ok(false);
        };
        Ok(items::root_reference(&item.record())? == (dir, name))
    }

    pub(super) fn list_subvolumes(&self) -> Result<Vec<Subvolume>> {
        let mut roots = Vec::new();
        let mut parents: HashMap<u64, (u64, u64, Vec<u8>)> = HashMap::new();
        let tree = self.trees.sb.root;
        self.trees.walk(&tree, Key::new(TOP, 0, 0), &mut |item| {
            let key = item.key;
            if key.object > LAST || roots.len() >= SUBVOLUMES_MAX {
                return Ok(ControlFlow::Break(()));
            }
            if is_subvolume(key.object) && key.kind == kind::ROOT {
                let root = items::root(&item.record())?;
                if root.references > 0 {
                    roots.push((key.object, root));
                }
            } else if key.kind == kind::ROOT_BACKREF {
                let r = item.record();
                let (dir, name) = items::root_reference(&r)?;
                parents.insert(key.object, (key.offset, dir, name.to_vec()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let by_id: HashMap<u64, Root> = roots.iter().map(|(id, item)| (*id, item.root)).collect();
        let mut found: Vec<Subvolume> = Vec::new();
        for (id, item) in &roots {
            let Some(path) = self.subvolume_path(*id, &parents, &by_id)? else {
                continue;
            };
            found.push(Subvolume {
                id: *id,
                path,
                uuid: uuid(&item.uuid),
                snapshot_of: uuid(&item.parent_uuid),
                read_only: item.read_only,
                default: *id == self.default,
                root: self.subvolume_root(*id)?,
            });
        }
        found.sort_by_key(|subvolume| subvolume.id);
        found.dedup_by_key(|subvolume| subvolume.id);
        Ok(found)
    }

    /// `None` for a subvolume that hangs nowhere: it is being deleted.
    fn subvolume_path(
        &self,
        id: u64,
        parents: &HashMap<u64, (u64, u64, Vec<u8>)>,
        roots: &HashMap<u64, Root>,
    ) -> Result<Option<String>> {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let mut at = id;
        for _ in 0..DEPTH_MAX {
            if at == TOP {
                parts.reverse();
                let path = parts.join(&b'/');
                return Ok((path.len() <= PATH_MAX).then(|| text(&path)));
            }
            let Some((parent, dir, name)) = parents.get(&at) else {
                return Ok(None);
            };
            let Some(root) = roots.get(parent) else {
                return Ok(None);
            };
            parts.push(name.clone());
            parts.extend(self.directory_parts(root, *dir)?);
            at = *parent;
        }
        Ok(None)
    }

    /// Names from a directory up to the root of its subvolume.
    fn directory_parts(&self, root: &Root, dir: u64) -> Result<Vec<Vec<u8>>> {
        let mut parts = Vec::new();
        let mut at = dir;
        while at != super::ROOT_DIRECTORY {
            if parts.len() >= DEPTH_MAX {
                return Err(DiskError::OverBudget {
                    budget: format!("{DEPTH_MAX} directories above one another"),
                });
            }
            let from = Key::new(at, kind::INODE_REF, 0);
            let Some(item) = self.trees.first_from(root, &from)? else {
                break;
            };
            if item.key.object != at {
                break;
            }
            let r = item.record();
            let (parent, name) = match item.key.kind {
                kind::INODE_REF => (item.key.offset, reference(&r, 8)?),
                kind::INODE_EXTREF => (r.u64_le(0)?, reference(&r, 16)?),
                _ => break,
            };
            parts.push(name);
            at = parent;
        }
        Ok(parts)
    }
}

/// The name behind its length at `at`.
fn reference(r: &Record<'_>, at: usize) -> Result<Vec<u8>> {
    let len = usize::from(r.u16_le(at)?);
    Ok(r.slice(at.saturating_add(2), len)?.to_vec())
}
