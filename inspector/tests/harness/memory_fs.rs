//! A file system of a few files in memory.

use super::System;
use guestkit_inspector::error::{DiskError, Result};
use guestkit_inspector::fs::{DirEntry, FileSystem, FileSystemFacts, Metadata, NodeId, NodeKind};
use std::ops::ControlFlow;

struct Node {
    parent: usize,
    name: Vec<u8>,
    content: Option<Vec<u8>>,
}

/// A tree; node 0 is its root.
pub(super) struct MemoryFs {
    nodes: Vec<Node>,
    facts: FileSystemFacts,
}

impl MemoryFs {
    pub(super) fn new(path: &str, data: &[u8], system: System) -> Self {
        let mut fs = Self {
            nodes: vec![Node {
                parent: 0,
                name: Vec::new(),
                content: None,
            }],
            facts: FileSystemFacts {
                fs_type: if system == System::Windows {
                    "ntfs"
                } else {
                    "ext4"
                }
                .to_owned(),
                ..FileSystemFacts::default()
            },
        };
        for (around, content) in around(system) {
            fs.add(around, content.as_bytes());
        }
        fs.add(path, data);
        fs
    }

    fn add(&mut self, path: &str, content: &[u8]) {
        let mut here = 0;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            let parent = here;
            let known = self.child(parent, part.as_bytes());
            here = known.unwrap_or(self.nodes.len());
            if known.is_none() {
                self.nodes.push(Node {
                    parent,
                    name: part.as_bytes().to_vec(),
                    content: None,
                });
            }
            if last && let Some(node) = self.nodes.get_mut(here) {
                node.content = Some(content.to_vec());
            }
        }
    }

    fn child(&self, parent: usize, name: &[u8]) -> Option<usize> {
        (1..self.nodes.len()).find(|n| {
            self.nodes
                .get(*n)
                .is_some_and(|node| node.parent == parent && node.name.eq_ignore_ascii_case(name))
        })
    }

    fn node(&self, node: NodeId) -> Result<&Node> {
        usize::try_from(node.0)
            .ok()
            .and_then(|n| self.nodes.get(n))
            .ok_or(DiskError::NotFound {
                what: "node".to_owned(),
            })
    }
}

fn id(n: usize) -> NodeId {
    NodeId(u64::try_from(n).unwrap_or(u64::MAX))
}

impl FileSystem for MemoryFs {
    fn facts(&self) -> &FileSystemFacts {
        &self.facts
    }

    fn root(&self) -> NodeId {
        NodeId(0)
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let content = self.node(node)?.content.as_ref();
        Ok(Metadata {
            kind: content.map_or(NodeKind::Directory, |_| NodeKind::File),
            size: content.map_or(0, |c| u64::try_from(c.len()).unwrap_or(0)),
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 0,
            links: 1,
        })
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let dir = usize::try_from(dir.0).unwrap_or(usize::MAX);
        Ok(self.child(dir, name).map(id))
    }

    fn read_dir(
        &self,
        dir: NodeId,
        visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<()> {
        let dir = usize::try_from(dir.0).unwrap_or(usize::MAX);
        for (n, node) in self.nodes.iter().enumerate().skip(1) {
            let entry = DirEntry {
                name: node.name.clone(),
                node: id(n),
                kind: None,
            };
            if node.parent == dir && visit(entry).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn read_file_at(&self, node: NodeId, position: u64, buf: &mut [u8]) -> Result<usize> {
        let content = self.node(node)?.content.as_deref().unwrap_or_default();
        let from = usize::try_from(position).unwrap_or(usize::MAX);
        let rest = content.get(from..).unwrap_or_default();
        let length = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..length), rest.get(..length)) {
            to.copy_from_slice(from);
        }
        Ok(length)
    }

    fn read_link(&self, _: NodeId) -> Result<Vec<u8>> {
        Err(DiskError::NotFound {
            what: "link".to_owned(),
        })
    }
}

/// What makes the rest of a guest recognisable.
fn around(system: System) -> &'static [(&'static str, &'static str)] {
    match system {
        System::Debian => &[
            ("etc/os-release", "ID=debian\nVERSION_ID=12\n"),
            ("bin/sh", ""),
            ("usr/lib/systemd/systemd", ""),
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
            (
                "usr/lib/systemd/system/a.service",
                "[Service]\nExecStart=/bin/a\n[Install]\nWantedBy=multi-user.target\n",
            ),
        ],
        System::Fedora => &[
            ("etc/os-release", "ID=fedora\nVERSION_ID=40\n"),
            ("bin/sh", ""),
            ("usr/lib/systemd/systemd", ""),
            (
                "usr/lib/systemd/system/a.service",
                "[Service]\nExecStart=/bin/a\n[Install]\nWantedBy=multi-user.target\n",
            ),
        ],
        System::Alpine => &[
            ("etc/os-release", "ID=alpine\nVERSION_ID=3.20\n"),
            ("bin/sh", ""),
        ],
        System::Arch => &[("etc/os-release", "ID=arch\n"), ("bin/sh", "")],
        System::Windows => &[
            ("Windows/System32/ntoskrnl.exe", "MZ"),
            ("Windows/System32/config/SYSTEM", "regf"),
            ("Windows/System32/config/SOFTWARE", "regf"),
            ("Windows/explorer.exe", "MZ"),
        ],
        System::Bare => &[("bin/sh", "")],
    }
}
