//! VMDK, VHD, VHDX, VDI and OVA: fixtures that qemu-img made, and differencing disks of the corpus,
//! compared with what reference tools read from them.

use crate::build::{
    self, Change, LOG, MIB, NO_LOG, VHD_PARENT, VHDX_PARENT, Vhdx, differencing_vhd, fixed_vhd,
    log_entry, vhdx,
};
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
        let files = open_chain(&roots, Path::new(f[2]), None).unwrap();
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

/// Every sector of a disk from a rule, in order.
fn sectors(count: u64, size: usize, byte: impl Fn(u64) -> u8) -> Vec<u8> {
    (0..count).flat_map(|s| vec![byte(s); size]).collect()
}

fn content(root: &Path, name: &str) -> Vec<u8> {
    let container = open_host(root, name, &budget(WALL)).unwrap();
    let disk = container.disk;
    let mut all = vec![0; disk.len() as usize];
    disk.read_exact_at(0, &mut all).unwrap();
    reads_of_any_size_agree(disk.as_ref());
    all
}

#[test]
fn a_differencing_vhd_takes_each_sector_from_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    let below = |s: u64| 1 + (s % 100) as u8;
    let parent = fixed_vhd(sectors(256, 512, below), VHD_PARENT);
    put("base disk.vhd", &parent);
    let here: &[(usize, u8)] = &[(0, 201), (7, 202), (8, 203), (9, 204), (127, 205)];
    let child = |parent| {
        let relative = (b"W2ru", ".\\base disk.vhd");
        differencing_vhd(128 << 10, parent, &[relative], "", &[Some(here), None])
    };
    put("child.vhd", &child(VHD_PARENT));
    let expected = sectors(256, 512, |s| {
        let own = here.iter().find(|(sector, _)| *sector as u64 == s);
        own.map_or(below(s), |(_, byte)| *byte)
    });
    assert!(content(dir.path(), "child.vhd") == expected);
    // By an absolute Windows path, and by the name alone, it is the file beside.
    for (locators, unicode) in [
        (vec![(b"W2ku", "D:\\vm\\base disk.vhd")], ""),
        (vec![], "base disk.vhd"),
        (vec![(b"W2ru", ".\\moved\\base disk.vhd")], ""),
    ] {
        let bytes = differencing_vhd(
            128 << 10,
            VHD_PARENT,
            &locators,
            unicode,
            &[Some(here), None],
        );
        put("other.vhd", &bytes);
        assert!(content(dir.path(), "other.vhd") == expected);
    }
    put("stranger.vhd", &child([9; 16]));
    let error = open_host(dir.path(), "stranger.vhd", &budget(WALL));
    let told = error.err().unwrap().to_string();
    assert!(told.contains("the parent's identifier is"), "{told}");
}

#[test]
fn a_differencing_vhdx_takes_each_sector_from_where_it_is() {
    for sector in [512u32, 4096] {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        let per_block = MIB as u64 / u64::from(sector);
        let below = |s: u64| 1 + (s % 100) as u8;
        let size = usize::try_from(sector).unwrap();
        let what = Vhdx {
            size: 4 * MIB as u64,
            sector,
            id: VHDX_PARENT,
            locator: &[],
            table: &[(0, 6, 4), (1, 6, 5), (2, 6, 6), (3, 6, 7)],
            log_guid: NO_LOG,
            file_mib: 8,
        };
        let mut parent = vhdx(&what);
        build::put(&mut parent, 4 * MIB, &sectors(4 * per_block, size, below));
        put("parent.vhdx", &parent);
        // Blocks: partly here, not here, here as a whole, zeros; the bitmap follows the chunk.
        let ratio = (1usize << 23) * size / MIB;
        let here = [0u64, 7, 8, 9, per_block - 1];
        let locator = [
            ("parent_linkage", VHDX_PARENT),
            ("relative_path", ".\\parent.vhdx"),
        ];
        let child = |id: &'static str, locator: &[(&str, &str)]| {
            let mut child = vhdx(&Vhdx {
                id,
                locator,
                table: &[(0, 7, 4), (1, 0, 0), (2, 6, 5), (3, 2, 0), (ratio, 6, 6)],
                log_guid: NO_LOG,
                file_mib: 7,
                ..what
            });
            build::put(&mut child, 4 * MIB, &vec![210; MIB]);
            build::put(&mut child, 5 * MIB, &vec![220; MIB]);
            for s in here {
                child[6 * MIB + (s / 8) as usize] |= 1 << (s % 8);
            }
            child
        };
        let id = "{FFFFFFFF-0000-0000-0000-000000000001}";
        put("child.vhdx", &child(id, &locator));
        let expected = sectors(4 * per_block, size, |s| match s / per_block {
            0 if here.contains(&s) => 210,
            2 => 220,
            3 => 0,
            _ => below(s),
        });
        assert!(content(dir.path(), "child.vhdx") == expected);
        let stranger = [
            ("parent_linkage", "{00000000-0000-0000-0000-00000000000A}"),
            ("relative_path", "parent.vhdx"),
        ];
        put("stranger.vhdx", &child(id, &stranger));
        let error = open_host(dir.path(), "stranger.vhdx", &budget(WALL));
        let told = error.err().unwrap().to_string();
        assert!(told.contains("data write identifier"), "{told}");
    }
}

/// An image of two blocks, the second of which only the log knows of.
fn logged(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut image = vhdx(&Vhdx {
        size: 2 * MIB as u64,
        sector: 512,
        id: VHDX_PARENT,
        locator: &[],
        table: &[(0, 6, 4)],
        log_guid: LOG,
        file_mib: 6,
    });
    build::put(&mut image, 4 * MIB, &vec![0x31; MIB]);
    build::put(&mut image, 5 * MIB, &vec![0x32; MIB]);
    write(&mut image);
    image
}

fn table_with(second: u64) -> Vec<u8> {
    let mut sector = vec![0; 4096];
    build::put(&mut sector, 0, &(6u64 | 4 << 20).to_le_bytes());
    build::put(&mut sector, 8, &(6u64 | second << 20).to_le_bytes());
    sector
}

#[test]
fn a_log_is_replayed_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let file = 6 * MIB as u64;
    let table = 3 * MIB as u64;
    let data = 4 * MIB as u64;
    let (old, new) = (table_with(4), table_with(5));
    let last: Vec<u8> = (0..4096u32).map(|i| (i % 251) as u8).collect();
    // Entry 12 was written around the end of the log; its tail is entry 11. Entry 10 is older than
    // the tail, 3 is left over from an earlier time, and what follows 12 is damaged.
    let image = logged(|image| {
        let tail = (MIB - 12288) as u32;
        let e10 = log_entry(10, 0, file, &[Change::Data(data, &last)]);
        let e11 = log_entry(11, tail, file, &[Change::Data(table, &old)]);
        let changes = [
            Change::Data(table, &new),
            Change::Zeros(data + 8192, 16384),
            Change::Data(data + 12288, &last),
        ];
        let e12 = log_entry(12, tail, file, &changes);
        let mut e13 = log_entry(13, tail, file, &[Change::Zeros(data, 1 << 20)]);
        e13[100] ^= 1;
        let e3 = log_entry(3, 0, file, &[Change::Zeros(data, 1 << 20)]);
        build::write_log(image, MIB - 20480, &e10);
        build::write_log(image, MIB - 12288, &e11);
        build::write_log(image, MIB - 4096, &e12);
        let after = (MIB - 4096 + e12.len()) % MIB;
        build::write_log(image, after, &e13);
        build::write_log(image, after + 65536, &e3);
    });
    std::fs::write(dir.path().join("log.vhdx"), &image).unwrap();
    let mut expected = [vec![0x31; MIB], vec![0x32; MIB]].concat();
    expected[8192..8192 + 16384].fill(0);
    expected[12288..12288 + 4096].copy_from_slice(&last);
    let found = content(dir.path(), "log.vhdx");
    assert!(found == expected);
    let facts = open_host(dir.path(), "log.vhdx", &budget(WALL))
        .unwrap()
        .facts;
    assert!(facts.dirty);
    // The file is as it was.
    assert!(std::fs::read(dir.path().join("log.vhdx")).unwrap() == image);
}

#[test]
fn a_log_without_a_complete_sequence_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = 6 * MIB as u64;
    let zeros = [Change::Zeros(4 * MIB as u64, 4096)];
    let mut cases: Vec<(Vec<u8>, &str)> = vec![(logged(|_| {}), "no complete sequence")];
    // A tail that is not part of the run.
    let lost = log_entry(5, 65536, file, &zeros);
    cases.push((
        logged(|i| build::write_log(i, 0, &lost)),
        "no complete sequence",
    ));
    let cut = log_entry(5, 0, file + 1, &zeros);
    cases.push((logged(|i| build::write_log(i, 0, &cut)), "cut off"));
    let odd = log_entry(5, 0, file, &[Change::Zeros(4 * MIB as u64, 4097)]);
    cases.push((logged(|i| build::write_log(i, 0, &odd)), "4097 zeros"));
    let far = log_entry(5, 0, file, &[Change::Zeros(u64::MAX - 4095, 4096)]);
    cases.push((logged(|i| build::write_log(i, 0, &far)), "4096 zeros"));
    for (image, expected) in cases {
        std::fs::write(dir.path().join("log.vhdx"), image).unwrap();
        let error = open_host(dir.path(), "log.vhdx", &budget(WALL));
        let told = error.err().unwrap().to_string();
        assert!(told.contains(expected), "{told}");
    }
}

/// A log full of entries that claim to be as long as the log: checking them must not take for ever.
#[test]
fn a_log_of_liars_ends() {
    let dir = tempfile::tempdir().unwrap();
    let image = logged(|image| {
        let mut liar = log_entry(5, 0, 6 * MIB as u64, &[]);
        build::put(&mut liar, 8, &(MIB as u32).to_le_bytes());
        for at in (0..MIB).step_by(4096) {
            build::write_log(image, at, &liar);
        }
    });
    std::fs::write(dir.path().join("log.vhdx"), image).unwrap();
    let error = open_host(dir.path(), "log.vhdx", &budget(Duration::from_secs(2)));
    assert!(error.err().unwrap().to_string().contains("no complete"));
}

#[test]
fn a_vmdk_parent_must_be_the_one_that_was_named() {
    let dir = unpack_fixtures("containers");
    let path = dir.path().join("chain-base.vmdk");
    let mut base = std::fs::read(&path).unwrap();
    let at = base.windows(4).position(|w| w == b"CID=").unwrap();
    build::put(&mut base, at + 4, b"0badc0de");
    std::fs::write(&path, base).unwrap();
    let error = open_host(dir.path(), "chain-top.vmdk", &budget(WALL));
    let told = error.err().unwrap().to_string();
    assert!(told.contains("the parent's CID is 0badc0de"), "{told}");
}

#[test]
fn too_many_extents_are_refused_before_they_are_opened() {
    let dir = tempfile::tempdir().unwrap();
    let mut lines = Vec::new();
    for n in 0..300 {
        let name = format!("{n}.img");
        std::fs::write(dir.path().join(&name), vec![0; 512]).unwrap();
        lines.push(format!("RW 1 FLAT \"{name}\" 0"));
    }
    let put = |lines: &[String]| {
        std::fs::write(dir.path().join("many.vmdk"), build::vmdk(None, lines)).unwrap();
        open_host(dir.path(), "many.vmdk", &budget(WALL)).map(|c| c.disk.len())
    };
    assert_eq!(put(&lines[..249]), Ok(249 * 512));
    let told = put(&lines).unwrap_err().to_string();
    assert_eq!(told, "over budget: 250 files in an image");
    let many: Vec<_> = (0..1001).map(|_| "RW 1 ZERO".to_owned()).collect();
    let told = put(&many).unwrap_err().to_string();
    assert!(told.contains("more than 1000 extents"), "{told}");
}

#[test]
fn an_archive_without_a_descriptor_is_no_package() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..300).map(|n| format!("{n}.txt")).collect();
    let many: Vec<_> = names
        .iter()
        .map(|n| (n.as_str(), b'0', &b"x"[..]))
        .collect();
    let last = [many.as_slice(), &[("guest.ovf", b'0', &b"x"[..])]].concat();
    let first = [&[("guest.ovf", b'0', &b"x"[..])], many.as_slice()].concat();
    for (members, expected) in [
        (
            &many[..3],
            "unsupported: tar (decompress it first: tar -xf image.tar)",
        ),
        (
            &many,
            "unsupported: tar (decompress it first: tar -xf image.tar)",
        ),
        (
            &last,
            "unsupported: tar (decompress it first: tar -xf image.tar)",
        ),
        (&first, "OVA at byte 0: more than 256 members"),
        (&first[..9], "unsupported: OVA without a disk"),
    ] {
        std::fs::write(dir.path().join("a.tar"), build::tar(members)).unwrap();
        let error = open_host(dir.path(), "a.tar", &budget(WALL)).err().unwrap();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_fixed_vhd_is_told_by_its_footer_or_declared() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = fixed_vhd(vec![0x51; 64 << 10], VHD_PARENT);
    std::fs::write(dir.path().join("disk"), &bytes).unwrap();
    std::fs::write(dir.path().join("raw"), vec![0x51; 64 << 10]).unwrap();
    let roots = HostRoots::new([dir.path()]).unwrap();
    let open = |name: &str, declared| {
        let reading = Reading::new(budget(WALL));
        let opener = guestkit_inspector::source::HostOpener {
            roots: &roots,
            path: Path::new(name),
            reading: &reading,
        };
        let opened = guestkit_inspector::container::open(&opener, declared)?;
        Ok::<_, guestkit_inspector::DiskError>((opened.facts.format, opened.disk.len()))
    };
    let found = Ok(("vpc".to_owned(), 64 << 10));
    assert_eq!(open("disk", None), found);
    assert_eq!(open("disk", Some("vpc")), found);
    assert_eq!(open("disk", Some("vhd")), found);
    // A guest can write a footer into its own last sector: whoever says raw gets every byte.
    assert_eq!(
        open("disk", Some("raw")),
        Ok(("raw".into(), (64 << 10) + 512))
    );
    let told = open("raw", Some("vpc")).unwrap_err().to_string();
    assert!(told.contains("declared vpc, found raw"), "{told}");
}
