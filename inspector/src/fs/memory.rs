//! A file system in memory: a guest's tree written down in a test, or unpacked from an archive.

use super::{DirEntry, FileSystem, FileSystemFacts, Metadata, NodeId, NodeKind, Subvolume};
use crate::bytes::{narrow, wide};
use crate::error::{DiskError, Result};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

struct Node {
    kind: NodeKind,
    mode: u32,
    content: Vec<u8>,
    children: BTreeMap<Vec<u8>, usize>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A tree of files; directories are made as they are needed.
pub struct MemoryTree {
    facts: FileSystemFacts,
    nodes: Vec<Node>,
    subvolumes: Vec<Subvolume>,
    root: usize,
}

impl Default for MemoryTree {
    fn default() -> Self {
        let facts = FileSystemFacts {
            fs_type: "memory".to_owned(),
            ..FileSystemFacts::default()
        };
        Self {
            facts,
            nodes: vec![Node::of(NodeKind::Directory, Vec::new())],
            subvolumes: Vec::new(),
            root: 0,
        }
    }
}

impl Node {
    fn of(kind: NodeKind, content: Vec<u8>) -> Self {
        let mode = if kind == NodeKind::Directory {
            0o755
        } else {
            0o644
        };
        Self {
            kind,
            mode,
            content,
            children: BTreeMap::new(),
            xattrs: BTreeMap::new(),
        }
    }
}

impl MemoryTree {
    /// A tree of files: path and content.
    #[must_use]
    pub fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, content) in files {
            tree.file(path, content.as_bytes().to_vec());
        }
        tree
    }

    /// Puts a file; what was there is replaced.
    pub fn file(&mut self, path: &str, content: Vec<u8>) -> NodeId {
        self.put(path, Node::of(NodeKind::File, content))
    }

    /// Puts a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> NodeId {
        self.put(
            path,
            Node::of(NodeKind::Symlink, target.as_bytes().to_vec()),
        )
    }

    /// Puts a directory.
    pub fn directory(&mut self, path: &str) -> NodeId {
        NodeId(wide(self.directory_at(path)))
    }

    /// Sets permission bits.
    pub fn set_mode(&mut self, node: NodeId, mode: u32) {
        if let Some(node) = self.nodes.get_mut(narrow(node.0)) {
            node.mode = mode;
        }
    }

    /// Sets an extended attribute.
    pub fn set_xattr(&mut self, node: NodeId, name: &str, value: Vec<u8>) {
        if let Some(node) = self.nodes.get_mut(narrow(node.0)) {
            node.xattrs.insert(name.as_bytes().to_vec(), value);
        }
    }

    /// Makes a directory the root of a subvolume; the default one becomes the root.
    pub fn subvolume(&mut self, path: &str, default: bool) {
        let root = self.directory_at(path);
        if default {
            self.root = root;
        }
        let id = wide(self.subvolumes.len()).saturating_add(256);
        self.subvolumes.push(Subvolume {
            id,
            path: path.to_owned(),
            uuid: None,
            snapshot_of: None,
            read_only: false,
            default,
            root: NodeId(wide(root)),
        });
    }

    fn directory_at(&mut self, path: &str) -> usize {
        let mut at = 0;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            at = self.child(at, part, Node::of(NodeKind::Directory, Vec::new()), false);
        }
        at
    }

    fn put(&mut self, path: &str, node: Node) -> NodeId {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = self.directory_at(dir);
        NodeId(wide(self.child(dir, name, node, true)))
    }

    fn child(&mut self, dir: usize, name: &str, node: Node, replace: bool) -> usize {
        let new = self.nodes.len();
        let known = self
            .nodes
            .get(dir)
            .and_then(|dir| dir.children.get(name.as_bytes()));
        match known.copied() {
            Some(at) if !replace => at,
            _ => {
                self.nodes.push(node);
                if let Some(dir) = self.nodes.get_mut(dir) {
                    dir.children.insert(name.as_bytes().to_vec(), new);
                }
                new
            }
        }
    }

    fn node(&self, node: NodeId) -> Result<&Node> {
        self.nodes
            .get(narrow(node.0))
            .ok_or_else(|| DiskError::NotFound {
                what: format!("node {}", node.0),
            })
    }
}

impl FileSystem for MemoryTree {
    fn facts(&self) -> &FileSystemFacts {
        &self.facts
    }

    fn root(&self) -> NodeId {
        NodeId(wide(self.root))
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let node = self.node(node)?;
        Ok(Metadata {
            kind: node.kind,
            size: wide(node.content.len()),
            mode: node.mode,
            uid: 0,
            gid: 0,
            mtime: 1_700_000_000,
            links: 1,
        })
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let child = self.node(dir)?.children.get(name);
        Ok(child.map(|at| NodeId(wide(*at))))
    }

    fn read_dir(
        &self,
        dir: NodeId,
        visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<()> {
        for (name, at) in &self.node(dir)?.children {
            let node = NodeId(wide(*at));
            let kind = Some(self.node(node)?.kind);
            let name = name.clone();
            if visit(DirEntry { name, node, kind }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn read_file_at(&self, node: NodeId, position: u64, buf: &mut [u8]) -> Result<usize> {
        let content = &self.node(node)?.content;
        let rest = content.get(narrow(position)..).unwrap_or_default();
        let length = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..length), rest.get(..length)) {
            to.copy_from_slice(from);
        }
        Ok(length)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        Ok(self.node(node)?.content.clone())
    }

    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.node(node)?.xattrs.get(name).cloned())
    }

    fn subvolumes(&self) -> Result<Vec<Subvolume>> {
        Ok(self.subvolumes.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::GuestRoot;
    use std::sync::Arc;

    #[test]
    fn paths_stay_inside_and_links_are_followed() {
        let mut tree = MemoryTree::of(&[("/a/b/file", "text"), ("/x", "y")]);
        tree.link("/a/up", "../../../../x");
        tree.link("/loop", "loop");
        tree.link("/abs", "/a/b");
        let root = GuestRoot::new(Arc::new(tree));
        for _ in 0..2 {
            assert_eq!(root.text("/a/up", 9).unwrap().as_deref(), Some("y"));
            assert_eq!(root.text("/abs/file", 9).unwrap().as_deref(), Some("text"));
            assert!(root.find("/loop").is_err());
            assert!(!root.exists("/a/missing").unwrap());
            assert!(root.text("/abs/file", 3).is_err());
        }
        let layer = root.find("/abs/file").unwrap().unwrap();
        let layer = layer.layer().unwrap().unwrap();
        assert_eq!(crate::read_at::ReadAt::len(&layer), 4);
        let mut buf = [0; 2];
        crate::read_at::ReadAt::read_exact_at(&layer, 2, &mut buf).unwrap();
        assert_eq!(&buf, b"xt");
        assert!(crate::read_at::ReadAt::read_exact_at(&layer, 3, &mut buf).is_err());
    }

    #[test]
    fn a_mount_hides_what_is_beneath_it() {
        let mut root = GuestRoot::new(Arc::new(MemoryTree::of(&[("/m/old", "1")])));
        let mut other = MemoryTree::of(&[("/new", "2"), ("/sub/deep", "3")]);
        let sub = other.directory("/sub");
        let other: Arc<dyn FileSystem> = Arc::new(other);
        root.mount("/m", Arc::clone(&other));
        assert!(!root.exists("/m/old").unwrap());
        assert_eq!(root.text("/m/new", 9).unwrap().as_deref(), Some("2"));
        root.mount_node("/m/sub", other, sub);
        assert_eq!(root.text("/m/sub/deep", 9).unwrap().as_deref(), Some("3"));
    }
}
