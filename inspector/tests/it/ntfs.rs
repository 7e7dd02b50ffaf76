//! NTFS features that the corpus lacks, against the files as they were before they were stored.

use crate::support::{Plain, Tree, budget, open_host, sha256, unpack_fixtures, walk};
use guestkit_inspector::fs::ntfs::Ntfs;
use guestkit_inspector::fs::{FileSystem, FileSystemFacts, NodeKind};
use guestkit_inspector::layers;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

const WALL: Duration = Duration::from_secs(20);

fn open(path: &Path) -> Ntfs {
    let layer = Plain::layer(File::open(path).unwrap());
    Ntfs::open(layer, FileSystemFacts::default()).unwrap()
}

/// A tree as the fixtures' scripts write it.
pub(crate) fn truth(path: &Path) -> Tree {
    std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| {
            let f: Vec<&str> = line.split('\t').collect();
            let name = (0..f[0].len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&f[0][at..at + 2], 16).unwrap())
                .collect();
            let kind = f[1].chars().next().unwrap();
            (name, (kind, f[2].parse().unwrap(), f[3].to_owned()))
        })
        .collect()
}

#[test]
fn every_feature_shows_the_files_as_they_were() {
    let dir = unpack_fixtures("ntfs");
    for name in ["compressed", "sectors-4k", "clusters-64k", "clusters-512"] {
        let fs = open(&dir.path().join(name).with_extension("img"));
        let truth = truth(&dir.path().join(name).with_extension("tsv"));
        let (mut tree, errors) = walk(&fs, true);
        assert_eq!(errors, [], "{name}");
        tree.retain(|path, _| !path.starts_with(b"$"));
        for (path, row) in &truth {
            let shown = String::from_utf8_lossy(path);
            assert_eq!(tree.get(path), Some(row), "{name}: {shown}");
            let mut node = fs.root();
            for part in path.split(|b| *b == b'/') {
                node = fs.lookup(node, part).unwrap().unwrap();
            }
        }
        assert_eq!(tree.len(), truth.len(), "{name}");
        assert_eq!(fs.facts().label.as_deref(), Some("Fixture ä"));
        assert!(!fs.facts().needs_recovery);
    }
}

#[test]
fn names_are_found_in_any_case_streams_by_their_names() {
    let dir = unpack_fixtures("ntfs");
    let fs = open(&dir.path().join("clusters-512.img"));
    let find = |dir, name: &str| fs.lookup(dir, name.as_bytes()).unwrap();
    let many = find(fs.root(), "MANY").unwrap();
    let upper = find(many, "ÄNAME-0030-OF-A-DIRECTORY-WITH-A-TREE.TXT");
    assert!(upper.is_some());
    assert_eq!(
        upper,
        find(many, "äname-0030-of-a-directory-with-a-tree.txt")
    );
    assert_eq!(
        find(many, "äname-0031-of-a-directory-with-a-tree.txt"),
        None
    );
    assert_eq!(find(many, ""), None);
    assert_eq!(fs.lookup(many, b"\xff").unwrap(), None);

    let file = find(fs.root(), "streams.txt").unwrap();
    assert_eq!(
        fs.streams(file).unwrap(),
        [(b"Zone.Identifier".to_vec(), 26), (b"big".to_vec(), 5000)]
    );
    let zone = find(fs.root(), "Streams.txt:zone.identifier").unwrap();
    let mut buf = [0; 64];
    assert_eq!(fs.read_file_at(zone, 0, &mut buf).unwrap(), 26);
    assert_eq!(&buf[..26], b"[ZoneTransfer]\r\nZoneId=3\r\n");
    assert_eq!(fs.metadata(zone).unwrap().kind, NodeKind::File);
    assert_eq!(find(fs.root(), "streams.txt:none"), None);
    assert_eq!(
        fs.metadata(find(fs.root(), "hard").unwrap()).unwrap().links,
        2
    );
}

#[test]
fn a_damaged_first_record_is_read_from_the_mirror() {
    let dir = unpack_fixtures("ntfs");
    let path = dir.path().join("clusters-512.img");
    let whole = walk(&open(&path), false).0;
    let mut bytes = std::fs::read(&path).unwrap();
    let mft = u64::from_le_bytes(bytes[0x30..0x38].try_into().unwrap()) as usize * 512;
    bytes[mft..mft + 4096].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let fs = open(&path);
    assert_eq!(fs.facts().label.as_deref(), Some("Fixture ä"));
    let mut tree = walk(&fs, false).0;
    tree.retain(|path, _| whole.contains_key(path));
    assert_eq!(tree, whole);
}

/// The Windows guest, converted by qemu-img where it is installed.
#[test]
fn windows_guest_agrees_with_its_truth() {
    let Some(corpus) = crate::support::corpus("the Windows guest") else {
        return;
    };
    let guest = corpus.join("guests/win11-mbr-ntfs");
    let name = "win11-mbr-ntfs-streamOptimized.vmdk";
    let container = open_host(&guest, name, &budget(WALL)).unwrap();
    let examined = layers::examine(&container).unwrap();
    let fs = &examined
        .mountable
        .iter()
        .find(|m| m.device == "/dev/sda2")
        .unwrap()
        .reader;
    let (tree, errors) = walk(fs.as_ref(), false);
    assert_eq!(errors, []);
    let text = std::fs::read_to_string(guest.join("truth/tree.tsv")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for line in text.lines().skip(1) {
        let f: Vec<&str> = line.split('\t').collect();
        seen.insert(f[0].as_bytes().to_vec());
        let (kind, size, _) = tree
            .get(f[0].as_bytes())
            .unwrap_or_else(|| panic!("{line}"));
        assert_eq!(kind.to_string(), f[1], "{line}");
        assert!(*kind != 'f' || size.to_string() == f[2], "{line}");
    }
    // The truth has files and directories only.
    let more: Vec<_> = tree
        .iter()
        .filter(|(path, _)| !path.starts_with(b"$") && !seen.contains(*path))
        .map(|(path, (_, _, target))| (String::from_utf8_lossy(path), target.as_str()))
        .collect();
    assert_eq!(more, [("Documents and Settings".into(), "/Users")]);
    let sums = std::fs::read_to_string(guest.join("truth/sha256.txt")).unwrap();
    for line in sums.lines() {
        let (sum, path) = line.split_once("  ").unwrap();
        let mut node = fs.root();
        for part in path.split('/') {
            node = fs.lookup(node, part.as_bytes()).unwrap().unwrap();
        }
        assert_eq!(sha256(fs.as_ref(), node).unwrap(), sum, "{path}");
    }
}
