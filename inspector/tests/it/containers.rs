//! VMDK, VHD, VHDX, VDI and OVA: fixtures that qemu-img made, and differencing disks of the corpus,
//! compared with what reference tools read from them.

use crate::support::{budget, corpus, decompress, open_host, sha256_layer};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

const WALL: Duration = Duration::from_secs(30);

/// Puts an image of the corpus, decompressed, into `to`.
fn unpack(corpus: &Path, name: &str, to: &Path) {
    let mut from = decompress(&corpus.join(name)).unwrap();
    let base = Path::new(name).file_stem().unwrap();
    let mut out = File::create(to.join(base)).unwrap();
    std::io::copy(&mut from, &mut out).unwrap();
}

/// What qemu-img does not read: sums by libvhdi 20240509 (differencing disks) and by
/// `qemu-img check -r all` (a log to be replayed).
#[test]
fn differencing_disks_and_logs_of_the_corpus() {
    let Some(corpus) = corpus("differencing disks and logs") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "dfvfs/ntfs-differential.vhd.zst",
        "dfvfs/ntfs-parent.vhd.zst",
        "dfvfs/ntfs-differential.vhdx.zst",
        "dfvfs/ntfs-parent.vhdx.zst",
        "LTRData-DiscUtils/Vhdx/Data/vhdx-log-replay.vhdx.gz",
    ] {
        unpack(&corpus, name, dir.path());
    }
    for (name, sum, variant, below) in [
        (
            "ntfs-parent.vhd",
            "c91d1766dd4b3327f33a082cbf958d3566dd84a3d71c2473a5ae6155e53171de",
            "fixed",
            None,
        ),
        (
            "ntfs-differential.vhd",
            "b7922a46a6b08fa4f4fc0c51a25d5587d1d49f15cfade45ca740dd07110ae144",
            "differencing",
            Some("ntfs-parent.vhd"),
        ),
        (
            "ntfs-differential.vhdx",
            "1ef1fb5360247aa7d36a38415bc7bf6e1e52f62af5e6bd1283815e82584c7efc",
            "differencing",
            Some("ntfs-parent.vhdx"),
        ),
        (
            "vhdx-log-replay.vhdx",
            "3ba3b309425b7ff5e8e0199edceed95226250f880c53b24e8eae93865f3fad5e",
            "dynamic",
            None,
        ),
    ] {
        let container = open_host(dir.path(), name, &budget(WALL)).unwrap();
        assert_eq!(
            sha256_layer(container.disk.as_ref()).unwrap(),
            sum,
            "{name}"
        );
        let facts = container.facts;
        assert_eq!(facts.variant.as_deref(), Some(variant), "{name}");
        let named = facts.backing.first().map(|b| b.name.as_str());
        assert_eq!(named, below, "{name}");
        assert_eq!(facts.dirty, name.contains("log"), "{name}");
    }
    // Without its parent a differencing disk is no disk.
    for name in ["ntfs-parent.vhd", "ntfs-parent.vhdx"] {
        std::fs::remove_file(dir.path().join(name)).unwrap();
    }
    for name in ["ntfs-differential.vhd", "ntfs-differential.vhdx"] {
        let error = open_host(dir.path(), name, &budget(WALL)).err().unwrap();
        assert!(error.to_string().starts_with("not found: "), "{error}");
    }
}
