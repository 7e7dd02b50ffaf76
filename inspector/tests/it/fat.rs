//! FAT and exFAT features that the corpus lacks, against the files as they were before they were
//! stored.

use crate::ntfs::truth;
use crate::support::{Plain, open_alone, unpack_fixtures, walk};
use guestkit_inspector::fs::FileSystem;
use guestkit_inspector::layers;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn open(path: &Path) -> Arc<dyn FileSystem> {
    let layer = Plain::layer(File::open(path).unwrap());
    let container = open_alone(layer, Duration::from_secs(20)).unwrap();
    let examined = layers::examine(&container).unwrap();
    let shown = format!("{:?}", examined.layers.filesystems);
    let first = examined.mountable.into_iter().next();
    first.unwrap_or_else(|| panic!("{shown}")).reader
}

#[test]
fn every_width_shows_the_files_as_they_were() {
    let dir = unpack_fixtures("fat");
    for name in ["fat12", "fat16", "fat32", "exfat", "exfat-512"] {
        let fs = open(&dir.path().join(name).with_extension("img"));
        let truth = truth(&dir.path().join(name).with_extension("tsv"));
        let (tree, errors) = walk(fs.as_ref(), true);
        assert_eq!(errors, [], "{name}");
        for (path, row) in &truth {
            let shown = String::from_utf8_lossy(path);
            assert_eq!(tree.get(path), Some(row), "{name}: {shown}");
            let mut node = fs.root();
            for part in shown.to_uppercase().split('/') {
                node = fs
                    .lookup(node, part.as_bytes())
                    .unwrap()
                    .unwrap_or_else(|| panic!("{name}: {part}"));
            }
        }
        assert_eq!(tree.len(), truth.len(), "{name}");
        assert_eq!(fs.lookup(fs.root(), b"no such name").unwrap(), None);
        let label = if name.starts_with("ex") {
            "Fixture ä"
        } else {
            "FIXTURE"
        };
        assert_eq!(fs.facts().label.as_deref(), Some(label));
    }
}

#[test]
fn short_names_lead_to_files_with_long_ones() {
    let dir = unpack_fixtures("fat");
    let fs = open(&dir.path().join("fat16.img"));
    let long = fs.lookup(fs.root(), b"gap with a long name 1").unwrap();
    assert!(long.is_some());
    assert_eq!(fs.lookup(fs.root(), b"gapwit~2").unwrap(), long);
}
