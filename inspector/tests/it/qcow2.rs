//! qcow2: fixtures that qemu-img made, compared with what qemu-img reads from them; and headers
//! that are nonsense.

use crate::support::{budget, open_alone, open_host, sha256_layer, unpack_fixtures};
use guestkit_inspector::error::DiskError;
use guestkit_inspector::layer::Memory;
use guestkit_inspector::read_at::ReadAt;
use std::sync::Arc;
use std::time::Duration;

const WALL: Duration = Duration::from_secs(20);

#[test]
fn fixtures_read_as_qemu_img_reads_them() {
    let dir = unpack_fixtures("qcow2");
    let sums = std::fs::read_to_string(dir.path().join("SHA256")).unwrap();
    let mut count = 0;
    for line in sums.lines() {
        let f: Vec<&str> = line.split(' ').collect();
        let container = open_host(dir.path(), f[2], &budget(WALL)).unwrap();
        assert_eq!(container.facts.format, "qcow2", "{line}");
        assert_eq!(container.disk.len().to_string(), f[1], "{line}");
        assert_eq!(
            sha256_layer(container.disk.as_ref()).unwrap(),
            f[0],
            "{line}"
        );
        reads_of_any_size_agree(container.disk.as_ref());
        count += 1;
    }
    assert_eq!(count, 13);
}

/// Reads that begin and end anywhere give the same bytes as one long read.
pub(crate) fn reads_of_any_size_agree(disk: &dyn ReadAt) {
    let mut whole = vec![0; disk.len() as usize];
    disk.read_exact_at(0, &mut whole).unwrap();
    let mut seed = 7u64;
    for _ in 0..300 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = (seed >> 20) as usize % whole.len();
        let len = ((seed >> 5) as usize % 100_000).min(whole.len() - at);
        let mut part = vec![1; len];
        disk.read_exact_at(at as u64, &mut part).unwrap();
        assert!(part == whole[at..at + len], "{len} bytes at {at}");
    }
}

#[test]
fn facts_tell_version_compression_and_chain() {
    let dir = unpack_fixtures("qcow2");
    let open = |name| open_host(dir.path(), name, &budget(WALL)).unwrap().facts;
    assert_eq!(open("v2.qcow2").version, Some(2));
    assert_eq!(open("zstd.qcow2").compression.as_deref(), Some("zstd"));
    assert_eq!(open("zlib-2m.qcow2").cluster_size, Some(2 << 20));
    assert_eq!(open("mixed.qcow2").snapshots, 1);
    assert_eq!(open("subclusters-16k.qcow2").features, ["extended l2"]);
    let chain = open("chain-top.qcow2").backing;
    let names: Vec<_> = chain
        .iter()
        .map(|b| (b.name.as_str(), b.format.as_str()))
        .collect();
    assert_eq!(names, [("chain-mid.qcow2", "qcow2"), ("base.raw", "raw")]);
    assert_eq!(chain[1].virtual_size, 3_144_192);
}

/// An empty image of 1 MiB with clusters of 64 KiB; `edit` may change any byte.
pub(crate) fn image(backing: Option<&str>, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut image = vec![0; 0x40000];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &3u32.to_be_bytes());
    put(0x14, &16u32.to_be_bytes());
    put(0x18, &(1u64 << 20).to_be_bytes());
    put(0x24, &1u32.to_be_bytes());
    put(0x28, &0x30000u64.to_be_bytes());
    put(0x30, &0x10000u64.to_be_bytes());
    put(0x38, &1u32.to_be_bytes());
    put(0x60, &4u32.to_be_bytes());
    put(0x64, &104u32.to_be_bytes());
    if let Some(name) = backing {
        put(8, &0x200u64.to_be_bytes());
        put(0x10, &(name.len() as u32).to_be_bytes());
        put(0x200, name.as_bytes());
    }
    edit(&mut image);
    image
}

fn open_bytes(bytes: Vec<u8>) -> Result<Vec<u8>, DiskError> {
    let container = open_alone(Arc::new(Memory(bytes)), WALL)?;
    let mut all = vec![0; container.disk.len().min(1 << 20) as usize];
    container.disk.read_exact_at(0, &mut all)?;
    Ok(all)
}

fn refused(edit: impl FnOnce(&mut Vec<u8>)) -> String {
    open_bytes(image(None, edit)).unwrap_err().to_string()
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

#[test]
fn an_empty_image_reads_zeros() {
    assert_eq!(open_bytes(image(None, |_| {})).unwrap(), vec![0; 1 << 20]);
}

#[test]
fn nonsense_headers_are_refused_in_words() {
    let cases: [(&str, String); 13] = [
        (
            "l1_size",
            refused(|i| put(i, 0x24, &u32::MAX.to_be_bytes())),
        ),
        (
            "l1_table_offset",
            refused(|i| put(i, 0x28, &(1u64 << 60).to_be_bytes())),
        ),
        (
            "l1_table_offset",
            refused(|i| put(i, 0x28, &0x30001u64.to_be_bytes())),
        ),
        ("covers", refused(|i| put(i, 0x18, &u64::MAX.to_be_bytes()))),
        (
            "cluster_bits 8",
            refused(|i| put(i, 0x14, &8u32.to_be_bytes())),
        ),
        (
            "cluster_bits 63",
            refused(|i| put(i, 0x14, &63u32.to_be_bytes())),
        ),
        (
            "refcount_order 7",
            refused(|i| put(i, 0x60, &7u32.to_be_bytes())),
        ),
        (
            "header_length",
            refused(|i| put(i, 0x64, &u32::MAX.to_be_bytes())),
        ),
        ("version 4", refused(|i| put(i, 4, &4u32.to_be_bytes()))),
        (
            "encryption (luks)",
            refused(|i| put(i, 0x20, &2u32.to_be_bytes())),
        ),
        (
            "external data file",
            refused(|i| put(i, 0x48, &4u64.to_be_bytes())),
        ),
        (
            "feature bit 40",
            refused(|i| put(i, 0x48, &(1u64 << 40).to_be_bytes())),
        ),
        (
            "extended L2",
            refused(|i| {
                put(i, 0x48, &(1u64 << 4).to_be_bytes());
                put(i, 0x14, &12u32.to_be_bytes());
                put(i, 0x24, &8u32.to_be_bytes());
            }),
        ),
    ];
    for (expected, found) in cases {
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

#[test]
fn unknown_features_are_named_from_the_table() {
    let message = refused(|i| {
        put(i, 0x48, &(1u64 << 7).to_be_bytes());
        put(i, 104, &0x6803_f857u32.to_be_bytes());
        put(i, 108, &48u32.to_be_bytes());
        put(i, 112, &[0, 7]);
        put(i, 114, b"time travel");
    });
    assert_eq!(message, "unsupported: qcow2 feature bit 7 (time travel)");
}

#[test]
fn tables_and_clusters_outside_the_file_are_corrupt() {
    for entry in [0x8000_0000_0100_0000u64, 0x8000_0000_0003_0200, !0] {
        let message = refused(|i| put(i, 0x30000, &entry.to_be_bytes()));
        assert!(message.contains("qcow2 L"), "{message}");
    }
    // An L2 table whose entries point to itself, past the end, and to deflated garbage.
    for entry in [
        0x8000_0000_0100_0000u64,
        0x7fff_ffff_ffff_ffff,
        0x4000_0000_0003_0000,
    ] {
        let message = refused(|i| {
            put(i, 0x30000, &0x8000_0000_0002_0000u64.to_be_bytes());
            put(i, 0x20000, &entry.to_be_bytes());
        });
        assert!(message.contains("cluster"), "{message}");
    }
}

#[test]
fn dirty_and_corrupt_marks_are_told_and_read_past() {
    let bytes = image(None, |i| put(i, 0x48, &3u64.to_be_bytes()));
    let facts = open_alone(Arc::new(Memory(bytes)), WALL).unwrap().facts;
    assert!(facts.dirty && facts.corrupt);
}

#[test]
fn refcount_nonsense_does_not_matter_for_reading() {
    let bytes = image(None, |i| {
        put(i, 0x30, &u64::MAX.to_be_bytes());
        put(i, 0x38, &u32::MAX.to_be_bytes());
    });
    assert_eq!(open_bytes(bytes).unwrap(), vec![0; 1 << 20]);
}
