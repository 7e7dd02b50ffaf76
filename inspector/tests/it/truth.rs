//! Fixtures that the kernel made, against what the kernel shows of them: trees, content, owners,
//! times, extended attributes, subvolumes.

use crate::support::{Plain, budget, corpus, open_alone, open_host, sha256, unpack_fixtures, walk};
use guestkit_inspector::container::Container;
use guestkit_inspector::fs::{FileSystem, NodeId, NodeKind};
use guestkit_inspector::layers::{self, Examined, Mountable};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

const WALL: Duration = Duration::from_secs(20);

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn named(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(suffix))
        .collect();
    found.sort();
    found
}

fn container(path: &Path) -> Container {
    open_alone(Plain::layer(File::open(path).unwrap()), WALL).unwrap()
}

fn lookup(fs: &dyn FileSystem, path: &[u8]) -> NodeId {
    lookup_from(fs, fs.root(), path)
}

fn lookup_from(fs: &dyn FileSystem, top: NodeId, path: &[u8]) -> NodeId {
    path.split(|b| *b == b'/').fold(top, |dir, name| {
        let shown = || String::from_utf8_lossy(path).into_owned();
        fs.lookup(dir, name)
            .unwrap_or_else(|e| panic!("{}: {e}", shown()))
            .unwrap_or_else(|| panic!("{} not found", shown()))
    })
}

/// What the kernel shows of one device, and nothing else, is there.
fn agrees(what: &str, fs: &dyn FileSystem, lines: &[Vec<&str>]) {
    let (tree, errors) = walk(fs, true);
    assert_eq!(errors, [], "{what}");
    for f in lines {
        let path = unhex(f[1]);
        let shown = format!("{what}: {}", String::from_utf8_lossy(&path));
        let size = f[3].parse().unwrap();
        let kind = f[2].chars().next().unwrap();
        let row = tree.get(&path).unwrap_or_else(|| panic!("{shown} missing"));
        assert_eq!(*row, (kind, size, f[4].to_owned()), "{shown}");
        let node = lookup(fs, &path);
        let meta = fs.metadata(node).unwrap();
        let found = (
            format!("{:o}", meta.mode),
            meta.uid.to_string(),
            meta.gid.to_string(),
            meta.mtime.to_string(),
        );
        // A snapshot's stub of a subvolume has the time it is looked at.
        let stub = found.3 == "0" && kind == 'd';
        let time = if stub { "0" } else { f[8] };
        let wanted = (f[5].into(), f[6].into(), f[7].into(), time.into());
        assert_eq!(found, wanted, "{shown}");
        for pair in f[9].split(',').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap();
            let found = fs.xattr(node, name.as_bytes()).unwrap();
            assert_eq!(found, Some(unhex(value)), "{shown}: {name}");
        }
        assert_eq!(fs.xattr(node, b"user.absent").unwrap(), None, "{shown}");
    }
    assert_eq!(tree.len(), lines.len(), "{what}");
    let absent = fs.lookup(fs.root(), b"a-name-that-is-not-there").unwrap();
    assert_eq!(absent, None);
}

/// Compares each device of the truth of an image; answers how many files there were.
fn compare(name: &str, examined: &Examined, truth: &Path) -> usize {
    let text = std::fs::read_to_string(truth).unwrap();
    let mut devices: BTreeMap<&str, Vec<Vec<&str>>> = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        devices.entry(fields[0]).or_default().push(fields);
    }
    for (device, lines) in &devices {
        let found = |m: &&Mountable| m.device == *device;
        let Some(mountable) = examined.mountable.iter().find(found) else {
            panic!("{name}: no {device} in {:#?}", examined.layers);
        };
        agrees(
            &format!("{name} {device}"),
            mountable.reader.as_ref(),
            lines,
        );
    }
    text.lines().count()
}

fn folder(folder: &str) {
    let dir = unpack_fixtures(folder);
    let mut names = 0;
    let truths = named(dir.path(), ".tsv");
    assert!(truths.len() >= 4, "{folder}: {}", truths.len());
    for truth in &truths {
        let name = truth.file_stem().unwrap().to_str().unwrap();
        let mut images = vec![container(&dir.path().join(format!("{name}.img")))];
        let second = dir.path().join(format!("{name}-2.img"));
        if second.exists() {
            images.push(container(&second));
        }
        let examined = layers::examine_all(&images).unwrap();
        names += compare(name, &examined, truth);
        for fs in &examined.layers.filesystems {
            assert_eq!(fs.damage, None, "{name}");
        }
        let listed = dir.path().join(format!("{name}.subvolumes"));
        if let Ok(text) = std::fs::read_to_string(listed) {
            subvolumes(name, &text, examined.mountable[0].reader.as_ref());
        }
    }
    println!("{folder}: {} images, {names} names agree", truths.len());
}

fn subvolumes(name: &str, text: &str, fs: &dyn FileSystem) {
    let shown = |value: &Option<String>| value.clone().unwrap_or("-".into());
    let found: Vec<String> = fs
        .subvolumes()
        .unwrap()
        .iter()
        .filter(|s| s.id != 5)
        .map(|s| {
            let mode = if s.read_only { "ro" } else { "rw" };
            let default = if s.default { "default" } else { "-" };
            let (parent, uuid) = (shown(&s.snapshot_of), shown(&s.uuid));
            format!("{} {parent} {uuid} {mode} {default} {}", s.id, s.path)
        })
        .collect();
    assert_eq!(found, text.lines().collect::<Vec<_>>(), "{name}");
    for subvolume in fs.subvolumes().unwrap() {
        fs.read_dir(subvolume.root, &mut |_| std::ops::ControlFlow::Continue(()))
            .unwrap();
    }
}

#[test]
fn xfs_shows_what_the_kernel_shows() {
    folder("xfs");
}

#[test]
fn btrfs_shows_what_the_kernel_shows() {
    folder("btrfs");
}

#[test]
fn volumes_show_what_was_put_into_them() {
    folder("volumes");
}

/// The path of a truth tree: Latin-1 with the escapes of Python.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c as u8);
            continue;
        }
        match chars.next() {
            Some('x') => {
                let hex: String = chars.by_ref().take(2).collect();
                out.extend(u8::from_str_radix(&hex, 16));
            }
            Some('n') => out.push(b'\n'),
            Some('t') => out.push(b'\t'),
            Some('r') => out.push(b'\r'),
            other => out.extend(other.map(|c| c as u8)),
        }
    }
    out
}

/// The Fedora guest: root and home are subvolumes, and the snapshot beside them is none of its
/// systems.
#[test]
fn fedora_guest_agrees_with_its_truth() {
    let Some(dir) = corpus("the Fedora guest") else {
        return;
    };
    let guest = dir.join("guests/fedora40-gpt-btrfs");
    let image = "fedora40-gpt-btrfs-streamOptimized.vmdk";
    let container = open_host(&guest, image, &budget(WALL)).unwrap();
    let examined = layers::examine(&container).unwrap();
    let of_type = |wanted: &str| {
        let layers = &examined.layers.filesystems;
        let layer = layers.iter().find(|fs| fs.fs_type == wanted).unwrap();
        let found = |m: &&Mountable| m.device == layer.device;
        examined
            .mountable
            .iter()
            .find(found)
            .unwrap()
            .reader
            .clone()
    };
    let btrfs = of_type("btrfs");
    let subvolumes = btrfs.subvolumes().unwrap();
    let read = |name: &str| std::fs::read_to_string(guest.join("truth").join(name)).unwrap();
    let listed: Vec<String> = read("subvols.txt")
        .lines()
        .map(|line| {
            let f: Vec<&str> = line.split(' ').collect();
            format!("{} {} {}", f[1], f[8], f[10])
        })
        .collect();
    let found: Vec<String> = subvolumes
        .iter()
        .filter(|s| s.id != 5)
        .map(|s| format!("{} {} {}", s.id, s.uuid.clone().unwrap_or_default(), s.path))
        .collect();
    assert_eq!(found, listed);
    let top_of = |path: &str| subvolumes.iter().find(|s| s.path == path).unwrap().root;
    let mut checked = 0;
    for line in read("tree.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        let f: Vec<&str> = line.split('\t').collect();
        let path = unescape(f[0]);
        let (top, rest) = if let Some(rest) = path.strip_prefix(b"home/") {
            (top_of("home"), rest)
        } else {
            (top_of("root"), path.as_slice())
        };
        let fs = &btrfs;
        let node = lookup_from(fs.as_ref(), top, rest);
        let meta = fs.metadata(node).unwrap();
        let (kind, what) = match meta.kind {
            NodeKind::File => {
                assert_eq!(meta.size.to_string(), f[5], "{}", f[0]);
                // The truth has no sums of large files.
                let sum = (!f[6].is_empty()).then(|| sha256(fs.as_ref(), node).unwrap());
                ("f", sum.unwrap_or_default())
            }
            NodeKind::Directory => ("d", String::new()),
            NodeKind::Symlink => {
                let target = fs.read_link(node).unwrap();
                ("l", String::from_utf8(target).unwrap())
            }
            NodeKind::Fifo => ("p", String::new()),
            NodeKind::CharDevice => ("c", String::new()),
            _ => ("?", String::new()),
        };
        assert_eq!((kind, what.as_str()), (f[1], f[6]), "{}", f[0]);
        // What is mounted there hides the owner of these.
        if !matches!(f[0], "boot" | "home" | "boot/efi") {
            let mode = format!("{:o}", meta.mode);
            let owner = (meta.uid.to_string(), meta.gid.to_string());
            assert_eq!((mode.as_str(), &*owner.0, &*owner.1), (f[2], f[3], f[4]));
        }
        checked += 1;
    }
    assert_eq!(checked, 3155);
}

/// What was synced file by file lies in a log tree: that it is not replayed is said, and the rest
/// is read.
#[test]
fn a_log_tree_that_waits_is_told() {
    let dir = unpack_fixtures("btrfs");
    let container = container(&dir.path().join("fsync.img"));
    let examined = layers::examine(&container).unwrap();
    let layer = &examined.layers.filesystems[0];
    assert!(layer.needs_recovery);
    assert!(layer.warnings[0].starts_with("the log tree is not replayed"));
    let fs = examined.mountable[0].reader.as_ref();
    let (tree, errors) = walk(fs, true);
    assert_eq!(errors, []);
    assert!(tree.contains_key(&b"etc/tiny"[..]) && tree.len() > 300);
}

/// Opening costs few reads: a clean file system is not searched.
#[test]
fn opening_a_clean_file_system_reads_little() {
    for (folder, reads) in [("xfs", 30), ("btrfs", 30)] {
        let dir = unpack_fixtures(folder);
        let budget = budget(WALL);
        let path = dir.path().join("plain.img");
        let container = open_host(
            path.parent().unwrap(),
            path.file_name().unwrap().to_str().unwrap(),
            &budget,
        )
        .unwrap();
        let examined = layers::examine(&container).unwrap();
        let fs = examined.mountable[0].reader.as_ref();
        lookup(fs, b"etc/deep/er/still/noise");
        let spent = budget.spent();
        assert!(spent.reads <= reads, "{folder}: {spent:?}");
    }
}
