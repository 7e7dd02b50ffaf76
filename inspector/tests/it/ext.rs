//! ext fixtures: one tree under many features, and journals that wait to be replayed.

use crate::support::{Plain, Tree, open_alone, sha256, unpack_fixtures, walk};
use guestkit_inspector::fs::FileSystem;
use guestkit_inspector::layers;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn open(path: &Path) -> (layers::Layers, Arc<dyn FileSystem>) {
    let layer = Plain::layer(File::open(path).unwrap());
    let container = open_alone(layer, Duration::from_secs(20)).unwrap();
    let examined = layers::examine(&container).unwrap();
    let layers = examined.layers;
    let Some(first) = examined.mountable.into_iter().next() else {
        panic!("{}: {:?}", path.display(), layers.filesystems);
    };
    (layers, first.reader)
}

fn images(dir: &Path, prefix: &str) -> Vec<std::path::PathBuf> {
    let mut images: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(prefix) && name.ends_with(".img")
        })
        .collect();
    images.sort();
    images
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn every_feature_shows_the_same_tree() {
    let dir = unpack_fixtures("ext");
    let truth: Tree = std::fs::read_to_string(dir.path().join("tree.tsv"))
        .unwrap()
        .lines()
        .map(|line| {
            let f: Vec<&str> = line.split('\t').collect();
            let kind = f[1].chars().next().unwrap();
            (unhex(f[0]), (kind, f[2].parse().unwrap(), f[3].to_owned()))
        })
        .collect();
    let images = images(dir.path(), "ext");
    assert_eq!(images.len(), 15);
    for path in images {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let (layers, fs) = open(&path);
        let (tree, errors) = walk(fs.as_ref(), true);
        assert_eq!(errors, [], "{name}");
        for (path, row) in &truth {
            let shown = String::from_utf8_lossy(path);
            assert_eq!(tree.get(path), Some(row), "{name}: {shown}");
        }
        assert_eq!(tree.len(), truth.len(), "{name}");
        let facts = &layers.filesystems[0];
        assert!(
            name.starts_with(&facts.fs_type),
            "{name}: {}",
            facts.fs_type
        );
        assert_eq!(facts.label.as_deref(), Some("fixture"));
        assert_eq!(facts.warnings, [""; 0], "{name}");
        let many = fs.lookup(fs.root(), b"many").unwrap().unwrap();
        let empty = tree.keys().filter(|path| path.starts_with(b"many/"));
        for path in empty {
            let found = fs.lookup(many, &path[5..]).unwrap();
            assert!(found.is_some(), "{name}: {}", String::from_utf8_lossy(path));
        }
        assert_eq!(fs.lookup(many, b"a-name-that-is-not-there").unwrap(), None);
    }
}

#[test]
fn journals_are_replayed_as_e2fsck_does() {
    let dir = unpack_fixtures("ext");
    let images = images(dir.path(), "journal");
    assert_eq!(images.len(), 4);
    for path in images {
        let (layers, fs) = open(&path);
        let facts = &layers.filesystems[0];
        assert!(facts.needs_recovery);
        assert_eq!(facts.warnings, [""; 0], "{}", path.display());
        let sums = std::fs::read_to_string(path.with_extension("sum")).unwrap();
        for line in sums.lines() {
            let (name, sum) = line.split_once(' ').unwrap();
            let node = fs.lookup(fs.root(), name.as_bytes()).unwrap().unwrap();
            let found = sha256(fs.as_ref(), node).unwrap();
            assert_eq!(found, sum, "{} {name}", path.display());
        }
        let node = fs.lookup(fs.root(), b"a").unwrap().unwrap();
        let mut head = [0; 20];
        fs.read_file_at(node, 0, &mut head).unwrap();
        assert_eq!(
            &head, b"\xc0\x3b\x39\x98new content of a",
            "the escaped magic"
        );
    }
}
