//! ISO 9660 features that the corpus lacks, against the files as they were before they were stored.

use crate::ntfs::truth;
use crate::support::{Plain, open_alone, unpack_fixtures, walk};
use guestkit_inspector::layers;
use std::fs::File;
use std::time::Duration;

#[test]
fn every_tree_shows_the_files_as_they_were() {
    let dir = unpack_fixtures("iso");
    for (name, features) in [
        ("rock-genisoimage", &["joliet", "rockridge"][..]),
        ("rock-xorriso", &["rockridge"]),
        ("zisofs", &["rockridge"]),
        ("joliet", &["joliet"]),
        ("plain", &[]),
    ] {
        let image = dir.path().join(name).with_extension("img");
        let layer = Plain::layer(File::open(image).unwrap());
        let container = open_alone(layer, Duration::from_secs(20)).unwrap();
        let examined = layers::examine(&container).unwrap();
        let fs = &examined.mountable.first().unwrap().reader;
        assert_eq!(fs.facts().features, features, "{name}");
        let (mut tree, errors) = walk(fs.as_ref(), true);
        assert_eq!(errors, [], "{name}");
        // Where genisoimage moved deep directories to.
        if name != "rock-xorriso" {
            tree.remove(&b"rr_moved"[..]);
        }
        let truth = truth(&dir.path().join(name).with_extension("tsv"));
        for (path, row) in &truth {
            let shown = String::from_utf8_lossy(path);
            assert_eq!(tree.get(path), Some(row), "{name}: {shown}");
            let mut node = fs.root();
            for part in path.split(|b| *b == b'/') {
                node = fs.lookup(node, part).unwrap().unwrap();
            }
        }
        assert_eq!(tree.len(), truth.len(), "{name}");
    }
}
