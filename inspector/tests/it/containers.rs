//! VMDK, VHD, VHDX, VDI and OVA: fixtures that qemu-img made, and differencing disks of the corpus,
//! compared with what reference tools read from them.

use crate::qcow2::reads_of_any_size_agree;
use crate::support::{budget, corpus, decompress, open_host, sha256_layer, unpack_fixtures};
use guestkit_inspector::container::{ContainerFacts, open_chain};
use guestkit_inspector::source::{ChainOpener, HostRoots, Reading};
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

/// The format that a fixture's name stands for.
fn format_of(name: &str) -> &str {
    match name.rsplit('.').next().unwrap() {
        "vhd" => "vpc",
        other => other,
    }
}

#[test]
fn fixtures_read_as_qemu_img_reads_them() {
    let dir = unpack_fixtures("containers");
    let sums = std::fs::read_to_string(dir.path().join("SHA256")).unwrap();
    let mut count = 0;
    for line in sums.lines() {
        let f: Vec<&str> = line.split(' ').collect();
        let container = open_host(dir.path(), f[2], &budget(WALL)).unwrap();
        assert_eq!(container.facts.format, format_of(f[2]), "{line}");
        assert_eq!(container.facts.virtual_size.to_string(), f[1], "{line}");
        assert_eq!(container.disk.len().to_string(), f[1], "{line}");
        let sum = sha256_layer(container.disk.as_ref()).unwrap();
        assert_eq!(sum, f[0], "{line}");
        if container.disk.len() < 10 << 20 {
            reads_of_any_size_agree(container.disk.as_ref());
        }
        count += 1;
    }
    assert_eq!(count, 26);
}

/// What a child that was handed the files reads is what the parent reads.
#[test]
fn every_fixture_reads_the_same_from_handed_over_files() {
    let dir = unpack_fixtures("containers");
    let sums = std::fs::read_to_string(dir.path().join("SHA256")).unwrap();
    let roots = HostRoots::new([dir.path()]).unwrap();
    for line in sums.lines().filter(|line| !line.contains("sparse.")) {
        let f: Vec<&str> = line.split(' ').collect();
        let files = open_chain(&roots, Path::new(f[2])).unwrap();
        let reading = Reading::new(budget(WALL));
        let opener = ChainOpener {
            files,
            reading: &reading,
        };
        let container = guestkit_inspector::container::open(&opener, None).unwrap();
        let sum = sha256_layer(container.disk.as_ref()).unwrap();
        assert_eq!(sum, f[0], "{line}");
        let alone = open_host(dir.path(), f[2], &budget(WALL)).unwrap();
        assert_eq!(container.facts, alone.facts, "{line}");
    }
}

#[test]
fn facts_tell_variant_extents_and_parents() {
    let dir = unpack_fixtures("containers");
    let open = |name: &str| -> ContainerFacts {
        open_host(dir.path(), name, &budget(WALL)).unwrap().facts
    };
    for (name, variant) in [
        ("monolithicSparse.vmdk", "monolithicSparse"),
        ("streamOptimized.vmdk", "streamOptimized"),
        ("monolithicFlat.vmdk", "monolithicFlat"),
        ("twoGbMaxExtentSparse.vmdk", "twoGbMaxExtentSparse"),
        ("twoGbMaxExtentSparse-s001.vmdk", "sparse extent"),
        ("fixed.vhd", "fixed"),
        ("dynamic.vhd", "dynamic"),
        ("fixed.vhdx", "fixed"),
        ("dynamic.vhdx", "dynamic"),
        ("static.vdi", "static"),
        ("dynamic.vdi", "dynamic"),
        ("package.ova", "vmdk streamOptimized"),
    ] {
        let facts = open(name);
        assert_eq!(facts.variant.as_deref(), Some(variant), "{name}");
        assert_eq!(
            facts.compressed,
            Some(variant.contains("streamOptimized")),
            "{name}"
        );
    }
    let parts = open("parts.vmdk");
    assert_eq!(
        parts.extents,
        ["parts-f001.vmdk", "parts-s002.vmdk", "parts-s003.vmdk"]
    );
    assert!(parts.actual_size > 0 && parts.file_size < 512);
    let names: Vec<_> = open("chain-top.vmdk").backing;
    let names: Vec<_> = names.iter().map(|b| b.name.as_str()).collect();
    assert_eq!(names, ["chain-mid.vmdk", "chain-base.vmdk"]);
    let package = open("package.ova");
    assert_eq!(package.extents, ["streamOptimized.vmdk"]);
    assert_eq!(package.warnings, ["a further disk is not read: other.vmdk"]);
    assert_eq!(open("sectors-4k.vhdx").features, ["4096 byte sectors"]);
}

#[test]
fn what_is_not_read_is_named() {
    let dir = unpack_fixtures("containers");
    let at = |name: &str| dir.path().join(name);
    let raw = std::fs::read(at("base.raw")).unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, &raw).unwrap();
    std::fs::write(at("disk.gz"), gz.finish().unwrap()).unwrap();
    std::fs::write(at("disk.zst"), zstd::bulk::compress(&raw, 1).unwrap()).unwrap();
    let mut xz = xz2::write::XzEncoder::new(Vec::new(), 0);
    std::io::Write::write_all(&mut xz, &raw).unwrap();
    std::fs::write(at("disk.xz"), xz.finish().unwrap()).unwrap();
    let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    std::io::Write::write_all(&mut bz, &raw).unwrap();
    std::fs::write(at("disk.bz2"), bz.finish().unwrap()).unwrap();
    for (name, expected) in [
        ("qed.img", "unsupported: qed"),
        ("parallels.img", "unsupported: parallels"),
        (
            "disk.gz",
            "unsupported: gzip (decompress it first: gzip -d image.gz)",
        ),
        (
            "disk.zst",
            "unsupported: zstd (decompress it first: zstd -d image.zst)",
        ),
        (
            "disk.xz",
            "unsupported: xz (decompress it first: xz -d image.xz)",
        ),
        (
            "disk.bz2",
            "unsupported: bzip2 (decompress it first: bzip2 -d image.bz2)",
        ),
    ] {
        let error = open_host(dir.path(), name, &budget(WALL)).err().unwrap();
        assert_eq!(error.to_string(), expected);
    }
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
