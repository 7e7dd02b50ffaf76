//! The Debian 12 guest: partitions, every file, and what that costs.

use crate::support::{budget, corpus, open_host, walk};
use guestkit_inspector::layers;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// path → (kind, size, sum or target) from tree.tsv.
fn truth(dir: &Path) -> BTreeMap<Vec<u8>, (char, u64, String)> {
    let text = std::fs::read_to_string(dir.join("truth/tree.tsv")).unwrap();
    text.lines()
        .skip(1)
        .map(|line| {
            let f: Vec<&str> = line.split('\t').collect();
            let path = unescape(f[0]);
            let kind = f[1].chars().next().unwrap();
            let row = match kind {
                'd' => ('d', 0, String::new()),
                'f' => ('f', f[5].parse().unwrap(), f[6].to_owned()),
                'l' => (
                    'l',
                    0,
                    String::from_utf8_lossy(&unescape(f[6])).into_owned(),
                ),
                _ => ('o', 0, String::new()),
            };
            (path, row)
        })
        .collect()
}

/// Python's `unicode_escape` over latin-1 text.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c as u32 as u8);
            continue;
        }
        match chars.next() {
            Some('x') => {
                let digits: String = chars.by_ref().take(2).collect();
                out.push(u8::from_str_radix(&digits, 16).unwrap());
            }
            Some('n') => out.push(b'\n'),
            Some('t') => out.push(b'\t'),
            Some(other) => out.push(other as u8),
            None => {}
        }
    }
    out
}

fn every_file(name: &str) {
    let Some(dir) = corpus("the Debian guest") else {
        return;
    };
    let guest = dir.join("guests/deb12-gpt-ext4");
    let budget = budget(Duration::from_secs(120));
    let container = open_host(&guest, name, &budget).unwrap();
    let examined = layers::examine(&container).unwrap();
    let opened = budget.spent();
    let parts: serde_json::Value = serde_json::from_str(
        &std::fs::read_to_string(guest.join("truth/partitions.json")).unwrap(),
    )
    .unwrap();
    let table = &parts["partitiontable"];
    let disk = &examined.layers.disk;
    assert_eq!(disk.table, table["label"].as_str().unwrap());
    assert_eq!(disk.id.as_deref(), table["id"].as_str());
    let expected = table["partitions"].as_array().unwrap();
    assert_eq!(disk.partitions.len(), expected.len());
    for (found, expected) in disk.partitions.iter().zip(expected) {
        assert_eq!(found.start / 512, expected["start"].as_u64().unwrap());
        assert_eq!(found.size / 512, expected["size"].as_u64().unwrap());
        assert_eq!(found.part_type, expected["type"].as_str().unwrap());
        assert_eq!(found.uuid.as_deref(), expected["uuid"].as_str());
        assert_eq!(found.name.as_deref(), expected["name"].as_str());
    }
    let content: Vec<_> = disk
        .partitions
        .iter()
        .map(|p| p.content.as_deref())
        .collect();
    assert_eq!(content, [Some("vfat"), Some("ext4"), Some("swap")]);
    let ids: Vec<_> = examined
        .layers
        .filesystems
        .iter()
        .map(|fs| (fs.uuid.as_deref().unwrap(), fs.label.as_deref().unwrap()))
        .collect();
    assert_eq!(
        ids,
        [
            ("1234-ABCD", "EFI-SYSTEM"),
            ("11111111-2222-3333-4444-555555555501", "debroot"),
            ("11111111-2222-3333-4444-555555555503", "swap"),
        ]
    );
    let devices = |m: &&layers::Mountable| m.device == "/dev/sda2";
    let root = examined.mountable.iter().find(devices).unwrap();
    let (_, errors) = walk(root.reader.as_ref(), false);
    assert_eq!(errors, []);
    let walked = budget.spent();
    let (mut tree, errors) = walk(root.reader.as_ref(), true);
    assert_eq!(errors, []);
    let hashed = budget.spent();
    for row in tree.values_mut() {
        if row.0 == 'l' {
            row.1 = 0;
        }
    }
    let truth = truth(&guest);
    for (path, row) in &truth {
        let shown = String::from_utf8_lossy(path);
        let found = tree
            .get(path)
            .unwrap_or_else(|| panic!("{shown} is missing"));
        // The truth has no sum for the sparse file of 1 GiB.
        let sum_known = row.0 != 'f' || !row.2.is_empty();
        assert_eq!((found.0, found.1), (row.0, row.1), "{shown}");
        assert!(!sum_known || found.2 == row.2, "{shown}");
    }
    let extra: Vec<_> = tree
        .keys()
        .filter(|path| !truth.contains_key(*path))
        .map(|path| String::from_utf8_lossy(path))
        .collect();
    assert!(extra.is_empty() || extra == ["lost+found"], "{extra:?}");
    println!(
        "{name}: {} entries identical; open {} B in {} reads, {:?}; names and inodes {} B in {} reads, {:?}; all sums {} B, {:?}",
        truth.len(),
        opened.bytes_read,
        opened.reads,
        opened.elapsed,
        walked.bytes_read,
        walked.reads,
        walked.elapsed,
        hashed.bytes_read,
        hashed.elapsed,
    );
}

#[test]
fn every_file_of_the_guest() {
    every_file("deb12-gpt-ext4.qcow2");
}

#[test]
fn every_file_of_the_guest_through_an_overlay() {
    every_file("variants/overlay.qcow2");
}
