//! EROFS features that the corpus lacks, against the files as they were before they were stored.

use crate::ntfs::truth;
use crate::support::{Plain, open_alone, unpack_fixtures, walk};
use guestkit_inspector::fs::NodeId;
use guestkit_inspector::layers;
use std::fs::File;
use std::time::Duration;

#[test]
fn every_layout_shows_the_files_as_they_were() {
    let dir = unpack_fixtures("erofs");
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
        assert_eq!(fs.facts().warnings, [""; 0], "{name}");
        assert_eq!(fs.facts().label.as_deref(), Some("erofs-label"));
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
        assert_eq!(fs.lookup(fs.root(), b"none").unwrap(), None);

        // Any place of a file is the same as in one read from its beginning.
        for file in [&b"mixed"[..], b"prose.txt", b"zeros", b"random.bin"] {
            let node = find(file);
            let whole = read(fs.as_ref(), node, 0, 400_000);
            for at in (0..whole.len() + 5000).step_by(3001) {
                let part = read(fs.as_ref(), node, at as u64, 5000);
                let end = whole.len().min(at + 5000);
                assert_eq!(part, whole[at.min(end)..end], "{name} at {at}");
            }
        }

        let owned = fs.metadata(find(b"etc/hostname")).unwrap();
        assert_eq!((owned.mode, owned.uid, owned.gid), (0o4640, 1000, 1001));
        assert_eq!(owned.mtime, 1_600_000_000, "{name}");
        assert_eq!(fs.metadata(find(b"shared")).unwrap().links, 2);
        let capability = [
            1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        for file in [&b"bin/ping"[..], b"bin/ping2"] {
            let found = fs.xattr(find(file), b"security.capability").unwrap();
            assert_eq!(found.as_deref(), Some(&capability[..]), "{name}");
        }
        let own = fs.xattr(find(b"bin/ping"), b"user.own").unwrap();
        assert_eq!(own.as_deref(), Some(&b"only here"[..]), "{name}");
        for (file, attribute) in [
            (&b"empty"[..], &b"security.capability"[..]),
            (b"bin/ping", b"user.o"),
        ] {
            assert_eq!(fs.xattr(find(file), attribute).unwrap(), None, "{name}");
        }
    }
    assert_eq!(images, 16);
}

fn read(fs: &dyn guestkit_inspector::fs::FileSystem, node: NodeId, at: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0; len];
    let got = fs.read_file_at(node, at, &mut buf).unwrap();
    buf.truncate(got);
    buf
}
