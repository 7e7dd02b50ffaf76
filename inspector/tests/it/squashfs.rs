//! squashfs features that the corpus lacks, against the files as they were before they were stored.

use crate::ntfs::truth;
use crate::support::{Plain, open_alone, unpack_fixtures, walk};
use guestkit_inspector::layers;
use std::fs::File;
use std::time::Duration;

#[test]
fn every_compressor_shows_the_files_as_they_were() {
    let dir = unpack_fixtures("squashfs");
    let truth = truth(&dir.path().join("tree.tsv"));
    let mut images = 0;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "img") {
            continue;
        }
        images += 1;
        let name = path.file_stem().unwrap().to_str().unwrap();
        let layer = Plain::layer(File::open(&path).unwrap());
        let container = open_alone(layer, Duration::from_secs(20)).unwrap();
        let examined = layers::examine(&container).unwrap();
        let shown = format!("{:?}", examined.layers.filesystems);
        let fs = &examined.mountable.first().expect(&shown).reader;
        let (tree, errors) = walk(fs.as_ref(), true);
        assert_eq!(errors, [], "{name}");
        let find = |path: &[u8]| {
            let mut node = fs.root();
            for part in path.split(|b| *b == b'/') {
                node = fs.lookup(node, part).unwrap().unwrap();
            }
            node
        };
        for (path, row) in &truth {
            let shown = String::from_utf8_lossy(path);
            assert_eq!(tree.get(path), Some(row), "{name}: {shown}");
            find(path);
        }
        assert_eq!(tree.len(), truth.len(), "{name}");

        let owned = fs.metadata(find(b"etc/hostname")).unwrap();
        assert_eq!((owned.mode, owned.uid, owned.gid), (0o4640, 1000, 1001));
        assert_eq!(fs.metadata(find(b"shared")).unwrap().links, 2);
        let capability = [
            1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        for file in [&b"bin/ping"[..], b"bin/ping2"] {
            let found = fs.xattr(find(file), b"security.capability").unwrap();
            assert_eq!(found.as_deref(), Some(&capability[..]), "{name}");
        }
        assert_eq!(
            fs.xattr(find(b"empty"), b"security.capability").unwrap(),
            None
        );
        assert_eq!(fs.xattr(find(b"bin/ping"), b"user.none").unwrap(), None);
    }
    assert_eq!(images, 8);
}
