//! Structures that lead back to themselves, and directories of a million names, in whole images: the
//! report ends in time, keeps what lies beside them, and says what it left out.

use crate::bombs::{ask, ext4, guest, report};
use guestkit_inspector::budget::Limits;
use guestkit_inspector::guest::InspectOptions;
use guestkit_inspector::isolate::Failure;
use guestkit_inspector::task::{Form, Place, Task};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

const BLOCK: usize = 4096;

fn place(path: &str) -> Place {
    Place {
        device: None,
        path: path.to_owned(),
    }
}

/// What `debugfs` says to a request about an image.
fn debugfs(image: &Path, request: &str) -> String {
    let out = Command::new("debugfs")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(["-w", "-R", request])
        .arg(image)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(out.status.success(), "{request}");
    String::from_utf8(out.stdout).unwrap()
}

/// `"Inode 12 is part of block group 0\n\tlocated at block 37, offset 0x0b00"`: where that is.
fn inode_at(image: &Path, path: &str) -> u64 {
    let text = debugfs(image, &format!("imap {path}"));
    let (_, place) = text.split_once("located at block ").unwrap();
    let (block, offset) = place.trim().split_once(", offset 0x").unwrap();
    let block: u64 = block.parse().unwrap();
    block * BLOCK as u64 + u64::from_str_radix(offset, 16).unwrap()
}

fn block_of(image: &Path, path: &str, logical: u64) -> u64 {
    let text = debugfs(image, &format!("bmap {path} {logical}"));
    text.trim().parse().unwrap()
}

/// A header of an extent node and index entries that all lead to `child`, one block apart.
fn index_node(entries: u16, depth: u16, child: u64) -> Vec<u8> {
    let mut node = Vec::new();
    for word in [0xf30a, entries, entries, depth, 0, 0] {
        node.extend(word.to_le_bytes());
    }
    for n in 0..u32::from(entries) {
        node.extend(n.to_le_bytes());
        node.extend((child as u32).to_le_bytes());
        node.extend([0; 4]);
    }
    node
}

fn has_warning(report: &Value, section: &str, code: &str) -> bool {
    let warnings = report["warnings"].as_array().unwrap();
    warnings
        .iter()
        .any(|w| w["section"] == section && w["code"] == code)
}

/// Extent trees whose index nodes lead to themselves, in the files that two sections need.
#[test]
fn extents_that_lead_back_cost_their_file() {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path();
    guest(dir);
    let tree = dir.join("tree");
    // `nodes`: the blocks that become extent nodes.
    fs::write(tree.join("nodes"), vec![1; 6 * BLOCK]).unwrap();
    let options = ["-b", "4096", "-O", "^metadata_csum,^has_journal"];
    if !ext4(dir, "extents.img", "32M", &options) {
        return;
    }
    let path = dir.join("extents.img");
    let image = File::options().write(true).open(&path).unwrap();
    let node = |n: u64| block_of(&path, "/nodes", n);
    let write = |bytes: &[u8], block: u64| {
        image.write_all_at(bytes, block * BLOCK as u64).unwrap();
    };
    // The status file: a node that is its own child, as deep as trees may be.
    let i_block = |path_inside: &str| inode_at(&path, path_inside) + 0x28;
    let status = i_block("/var/lib/dpkg/status");
    image
        .write_all_at(&index_node(4, 5, node(0)), status)
        .unwrap();
    write(&index_node(340, 4, node(0)), node(0));
    // passwd: four levels of nodes with 340 children each, every time the same: 13 thousand million
    // leaves of one extent.
    let passwd = i_block("/etc/passwd");
    image
        .write_all_at(&index_node(4, 4, node(1)), passwd)
        .unwrap();
    for level in 1..4 {
        let depth = 4 - level as u16;
        write(&index_node(340, depth, node(level + 1)), node(level));
    }
    let mut leaf = index_node(340, 0, node(5));
    for entry in leaf[12..].chunks_exact_mut(12) {
        let block = (node(5) as u32).to_le_bytes();
        entry[4..8].copy_from_slice(&[1, 0, 0, 0]);
        entry[8..].copy_from_slice(&block);
    }
    write(&leaf, node(4));
    debugfs(&path, "set_inode_field /etc/passwd size 1000000");
    debugfs(&path, "set_inode_field /var/lib/dpkg/status size 60000000");
    drop(image);

    let found = report(dir, "extents.img").json();
    let coverage = &found["coverage"];
    assert_eq!(coverage["os"], "ok", "{coverage}");
    assert_eq!(coverage["mounts"], "ok", "{coverage}");
    assert_ne!(coverage["packages"], "ok", "{coverage}");
    assert!(
        has_warning(&found, "packages", "damaged"),
        "{:#}",
        found["warnings"]
    );
    let cat = Task::Cat {
        place: place("/var/lib/dpkg/status"),
    };
    let ran = ask(dir, "extents.img", &cat, Limits::default());
    let Err(Failure::Image { message, .. }) = ran.answer else {
        panic!("a node that is its own child was read");
    };
    assert!(message.contains("depth"), "{message}");
}

/// Blocks of a directory with a million names of one file.
fn million_names(into: &Path, inode: u32) {
    let entry = |out: &mut Vec<u8>, inode: u32, name: &str, kind: u8, len: usize| {
        out.extend(inode.to_le_bytes());
        out.extend((len as u16).to_le_bytes());
        out.extend([name.len() as u8, kind]);
        out.extend(name.as_bytes());
        out.resize(out.len() + len - 8 - name.len(), 0);
    };
    let mut out = Vec::new();
    entry(&mut out, 2, ".", 2, 12);
    entry(&mut out, 2, "..", 2, 12);
    for n in 0..1_000_000 {
        // The last entry of a block takes the rest of it.
        let left = BLOCK - out.len() % BLOCK;
        let len = if left < 32 || n == 999_999 { left } else { 16 };
        entry(&mut out, inode, &format!("n{n:07}"), 1, len);
    }
    fs::write(into, out).unwrap();
}

#[test]
fn a_million_names_cost_their_section() {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path();
    guest(dir);
    let names = dir.join("tree/etc/sudoers.d");
    million_names(&names, 1);
    // Systemd's own directory has them too: the same blocks.
    fs::create_dir_all(dir.join("tree/etc/systemd")).unwrap();
    fs::hard_link(&names, dir.join("tree/etc/systemd/system")).unwrap();
    fs::write(dir.join("tree/etc/sudoers"), "@includedir /etc/sudoers.d\n").unwrap();
    let options = ["-b", "4096", "-O", "^metadata_csum,^has_journal"];
    if !ext4(dir, "million.img", "64M", &options) {
        return;
    }
    let path = dir.join("million.img");
    // Once more, now that the file's number is known: the same tree makes the same image.
    let text = debugfs(&path, "stat /etc/os-release");
    let number = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    million_names(&names, number);
    assert!(ext4(dir, "million.img", "64M", &options));
    debugfs(&path, "set_inode_field /etc/sudoers.d mode 040755");

    let found = report(dir, "million.img").json();
    let coverage = &found["coverage"];
    for section in ["disk", "os", "mounts", "packages", "network"] {
        assert_eq!(coverage[section], "ok", "{section}: {coverage}");
    }
    // Whether somebody may use sudo is among what is told of users.
    for section in ["services", "security", "users"] {
        assert_ne!(coverage[section], "ok", "{section}: {coverage}");
        assert!(
            has_warning(&found, section, "over_budget"),
            "{section}: {:#}",
            found["warnings"]
        );
    }
    let list = |path: &str| Task::List {
        form: Form::Table,
        place: place(path),
    };
    let all = ask(
        dir,
        "million.img",
        &list("/etc/sudoers.d"),
        Limits::default(),
    );
    let Err(Failure::Image { message, .. }) = all.answer else {
        panic!("a million names were listed");
    };
    assert!(message.contains("names in a directory"), "{message}");
    // One of them is found all the same.
    let last = list("/etc/sudoers.d/n0999999");
    let (bytes, _) = ask(dir, "million.img", &last, Limits::default())
        .answer
        .unwrap();
    assert!(bytes.starts_with(b"n0999999\tf\t"));
}

/// A Berkeley DB hash database whose one package lies on an overflow page that leads to itself.
fn overflow_cycle(length: u32) -> Vec<u8> {
    let mut pages = vec![0; 64 * BLOCK];
    let mut put = |at: usize, bytes: &[u8]| pages[at..at + bytes.len()].copy_from_slice(bytes);
    put(12, &0x0006_1561_u32.to_le_bytes());
    put(16, &9_u32.to_le_bytes());
    put(20, &(BLOCK as u32).to_le_bytes());
    put(25, &[8]);
    put(32, &63_u32.to_le_bytes());
    // Bucket 0 on page 1.
    put(96, &1_u32.to_le_bytes());
    let page = BLOCK;
    put(page + 8, &1_u32.to_le_bytes());
    put(page + 25, &[13]);
    // As many items as fit, all of them the same chain.
    let pairs = 150_usize;
    put(page + 20, &(2 * pairs as u16).to_le_bytes());
    for n in 0..pairs {
        let data = BLOCK - 5 - (n + 1) * 12;
        put(page + 26 + n * 4, &(BLOCK as u16 - 5).to_le_bytes());
        put(page + 28 + n * 4, &(data as u16).to_le_bytes());
        put(page + data, &[3]);
        put(page + data + 4, &2_u32.to_le_bytes());
        put(page + data + 8, &length.to_le_bytes());
    }
    // Page 2: one byte of data, and then page 2.
    put(2 * BLOCK + 8, &2_u32.to_le_bytes());
    put(2 * BLOCK + 16, &2_u32.to_le_bytes());
    put(2 * BLOCK + 22, &1_u16.to_le_bytes());
    put(2 * BLOCK + 25, &[7]);
    pages
}

#[test]
fn overflow_pages_that_lead_back_cost_the_packages() {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path();
    guest(dir);
    let tree = dir.join("tree");
    fs::remove_dir_all(tree.join("var/lib/dpkg")).unwrap();
    fs::create_dir_all(tree.join("var/lib/rpm")).unwrap();
    fs::write(tree.join("etc/os-release"), "ID=centos\nVERSION_ID=7\n").unwrap();
    fs::write(tree.join("var/lib/rpm/Packages"), overflow_cycle(200_000)).unwrap();
    if !ext4(dir, "overflow.img", "16M", &[]) {
        return;
    }
    let ran = report(dir, "overflow.img");
    let found = ran.json();
    let coverage = &found["coverage"];
    assert_eq!(coverage["users"], "ok", "{coverage}");
    assert_eq!(coverage["packages"], "partial", "{coverage}");
    let message = found["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|w| w["section"] == "packages")
        .map(|w| w["message"].to_string())
        .unwrap();
    assert!(message.contains("comes back"), "{message}");
    // The cycle is told at once, not after each byte of the claimed length.
    let (_, metrics) = ran.answer.unwrap();
    assert!(metrics.milliseconds < 2_000.0, "{}", metrics.milliseconds);
}

/// The fixture's hives, one with lists of subkeys that name themselves, on a FAT disk.
#[test]
fn registry_cells_in_circles_cost_their_section() {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path();
    let hives = crate::support::unpack_fixtures("windows");
    let software = fs::read(hives.path().join("SOFTWARE")).unwrap();
    let mut system = fs::read(hives.path().join("SYSTEM")).unwrap();
    lists_of_themselves(&mut system);
    let disk = fat(&[("SOFTWARE", &software), ("SYSTEM", &system)]);
    fs::write(dir.join("circles.img"), disk).unwrap();
    let ran = report(dir, "circles.img");
    let found = ran.json();
    assert_eq!(found["os"][0]["type"], "windows", "{found:#}");
    let coverage = found["coverage"].as_object().unwrap();
    assert_eq!(coverage["packages"], "ok", "{coverage:?}");
    assert_eq!(coverage["services"], "partial", "{coverage:?}");
    assert!(has_warning(&found, "services", "damaged"), "{found:#}");

    // Deep scans walk more; they end too.
    let task = Task::Report {
        form: Form::Json,
        options: InspectOptions {
            deep_scan: true,
            ..InspectOptions::default()
        },
    };
    assert!(ask(dir, "circles.img", &task, Limits::default()).is_civil());
}

/// Every list of subkeys but the root's becomes an index of lists that names itself.
fn lists_of_themselves(hive: &mut [u8]) {
    let word = |hive: &[u8], at: usize| u32::from_le_bytes(hive[at..at + 4].try_into().unwrap());
    let root = 4096 + word(hive, 0x24) as usize;
    let root_list = 4096 + word(hive, root + 4 + 0x1c) as usize;
    let (mut at, mut changed) = (4096, 0);
    while at + 8 < hive.len() {
        if hive[at..].starts_with(b"hbin") {
            at += 32;
        }
        let size = word(hive, at) as i32;
        let is_list = matches!(&hive[at + 4..at + 6], b"lf" | b"lh" | b"li" | b"ri");
        if size < 0 && is_list && at != root_list {
            let count = usize::from(u16::from_le_bytes([hive[at + 6], hive[at + 7]]));
            hive[at + 4..at + 6].copy_from_slice(b"ri");
            for n in 0..count {
                let own = (at as u32 - 4096).to_le_bytes();
                hive[at + 8 + n * 4..][..4].copy_from_slice(&own);
            }
            changed += 1;
        }
        at += size.unsigned_abs() as usize;
    }
    assert!(changed > 3, "{changed} lists of subkeys");
}

/// Sectors of 512 bytes, clusters of two, a FAT of 40 sectors, a root directory of 32.
const FAT_AT: usize = 512;
const ROOT_AT: usize = FAT_AT + 40 * 512;
const DATA_AT: usize = ROOT_AT + 32 * 512;
const CLUSTER: usize = 1024;
const CLUSTERS: usize = 8_000;

/// A FAT16 disk with these files in the folder where Windows keeps its hives.
fn fat(hives: &[(&str, &[u8])]) -> Vec<u8> {
    let mut disk = vec![0; DATA_AT + CLUSTERS * CLUSTER];
    let sectors = (disk.len() / 512) as u16;
    disk[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
    disk[3..11].copy_from_slice(b"MSWIN4.1");
    disk[11..13].copy_from_slice(&512_u16.to_le_bytes());
    disk[13] = 2;
    disk[14] = 1;
    disk[16] = 1;
    disk[17..19].copy_from_slice(&512_u16.to_le_bytes());
    disk[19..21].copy_from_slice(&sectors.to_le_bytes());
    disk[21] = 0xf8;
    disk[22] = 40;
    disk[38] = 0x29;
    disk[43..62].copy_from_slice(b"NO NAME    FAT16   ");
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[FAT_AT..FAT_AT + 4].copy_from_slice(&[0xf8, 0xff, 0xff, 0xff]);
    let mut next = 2_usize;
    let mut directory = ROOT_AT;
    for folder in ["WINDOWS", "SYSTEM32", "CONFIG"] {
        let first = fat_chain(&mut disk, &mut next, &[0; CLUSTER]);
        fat_entry(&mut disk, directory, folder, 0x10, first, 0);
        directory = DATA_AT + (first - 2) * CLUSTER;
    }
    for (n, (name, bytes)) in hives.iter().enumerate() {
        let first = fat_chain(&mut disk, &mut next, bytes);
        fat_entry(
            &mut disk,
            directory + n * 32,
            name,
            0x20,
            first,
            bytes.len(),
        );
    }
    disk
}

/// Writes bytes to the next clusters; the first of them.
fn fat_chain(disk: &mut [u8], next: &mut usize, bytes: &[u8]) -> usize {
    let first = *next;
    for piece in bytes.chunks(CLUSTER) {
        let at = DATA_AT + (*next - 2) * CLUSTER;
        disk[at..at + piece.len()].copy_from_slice(piece);
        let follows = (*next as u16 + 1).to_le_bytes();
        disk[FAT_AT + *next * 2..][..2].copy_from_slice(&follows);
        *next += 1;
    }
    disk[FAT_AT + (*next - 1) * 2..][..2].copy_from_slice(&[0xff, 0xff]);
    first
}

fn fat_entry(disk: &mut [u8], at: usize, name: &str, attributes: u8, first: usize, len: usize) {
    disk[at..at + 11].copy_from_slice(format!("{name:11}").as_bytes());
    disk[at + 11] = attributes;
    disk[at + 26..at + 28].copy_from_slice(&(first as u16).to_le_bytes());
    disk[at + 28..at + 32].copy_from_slice(&(len as u32).to_le_bytes());
}
