//! Every image of the corpus against the answers of reference tools.

use crate::support::{
    Plain, Row, Tree, corpus, decompress, manifest, open_alone, sha256_layer, walk,
};
use guestkit_inspector::fs::{FileSystem, NodeId};
use guestkit_inspector::layers::{self, Examined};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Wall time that any image may take.
const WALL: Duration = Duration::from_secs(20);

fn expected(dir: &Path, row: &Row) -> Option<Value> {
    let path = format!("expected/images/{}.json", row.path);
    let text = std::fs::read_to_string(dir.join(path)).ok()?;
    serde_json::from_str(&text).ok()
}

/// Each file system of an expected document with the device it lies on here.
fn expected_filesystems(doc: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    if doc["fs"].is_object() {
        found.push(("/dev/sda".to_owned(), &doc["fs"]));
    }
    let lvm = &doc["fs"]["lvm"];
    for (name, lv) in lvm["lvs"].as_object().into_iter().flatten() {
        let device = format!("/dev/{}/{name}", lvm["vg"].as_str().unwrap_or_default());
        found.push((device, &lv["fs"]));
    }
    for part in doc["partitions"].as_array().into_iter().flatten() {
        if part["fs"].is_object() && part["size"] != 0 {
            found.push((format!("/dev/sda{}", part["number"]), &part["fs"]));
        }
    }
    found
}

fn expected_tree(fs: &Value) -> Option<Tree> {
    let rows = fs["tree"].as_array()?;
    let mut tree = Tree::new();
    for row in rows {
        let kind = row[1].as_str()?.chars().next()?;
        let path = row[0].as_str()?.as_bytes().to_vec();
        tree.insert(path, (kind, row[2].as_u64()?, row[3].as_str()?.to_owned()));
    }
    Some(tree)
}

fn same(expected: &(char, u64, String), found: &(char, u64, String)) -> bool {
    expected.0 == found.0
        && match expected.0 {
            // The corpus has no sums for files over 64 MiB.
            // Of files that the reference could not open there is none either.
            'f' => {
                expected.1 == found.1
                    && (expected.2.is_empty()
                        || expected.2.starts_with("ERR")
                        || expected.2 == found.2)
            }
            // ntfs-3g leaves links of Linux' ntfs3 unread, and puts its mount point before absolute targets.
            'l' => {
                expected.2.starts_with("unsupported reparse tag")
                    || expected.2.strip_prefix("MOUNT").unwrap_or(&expected.2) == found.2
            }
            _ => true,
        }
}

/// Every name is found by look-up too: that goes through hashed indexes.
fn lookups_agree(fs: &dyn FileSystem, tree: &Tree) -> Result<(), String> {
    for path in tree.keys() {
        let mut node = fs.root();
        for part in path.split(|b| *b == b'/') {
            node = fs
                .lookup(node, part)
                .map_err(|e| e.to_string())?
                .ok_or_else(|| format!("{} not found by name", String::from_utf8_lossy(path)))?;
        }
        fs.metadata(NodeId(node.0)).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn compare(examined: &Examined, device: &str, fs: &Value) -> Result<&'static str, String> {
    let layer = examined
        .layers
        .filesystems
        .iter()
        .find(|f| f.device == device);
    let Some(layer) = layer else {
        return Err(format!("{device}: no file system found"));
    };
    if let Some(feature) = &layer.unsupported {
        return Ok(Box::leak(
            format!("unsupported: {feature}").into_boxed_str(),
        ));
    }
    let Some(mountable) = examined.mountable.iter().find(|m| m.device == device) else {
        return Err(format!("{device}: {:?}", layer.damage));
    };
    let expected = expected_tree(fs).ok_or("no tree")?;
    let (found, errors) = walk(mountable.reader.as_ref(), true);
    if let Some((path, e)) = errors.first() {
        if e.to_string().starts_with("unsupported") {
            return Ok(Box::leak(e.to_string().into_boxed_str()));
        }
        return Err(format!("{}: {e}", String::from_utf8_lossy(path)));
    }
    for (path, row) in &expected {
        let shown = String::from_utf8_lossy(path);
        match found.get(path) {
            None => return Err(format!("{shown} is missing")),
            Some(got) if !same(row, got) => {
                return Err(format!("{shown}: {got:?}, expected {row:?}"));
            }
            Some(_) => {}
        }
    }
    if layer.needs_recovery && layer.fs_type.starts_with("ext") && device == "/dev/sda" {
        // The corpus was read without replaying journals; e2fsck lists 773 directories after it.
        let directories = found.values().filter(|row| row.0 == 'd').count();
        assert_eq!(directories, 774, "with lost+found");
        lookups_agree(mountable.reader.as_ref(), &found)?;
        return Ok("identical to e2fsck after replay");
    }
    if fs["tree_truncated"].is_null() && found.len() != expected.len() {
        let extra: Vec<_> = found
            .keys()
            .filter(|path| !expected.contains_key(*path))
            .map(|path| String::from_utf8_lossy(path).into_owned())
            .collect();
        return Err(format!("too many entries: {extra:?}"));
    }
    lookups_agree(mountable.reader.as_ref(), &found)?;
    Ok("identical")
}

fn examine(dir: &Path, row: &Row) -> Result<Option<Examined>, String> {
    let Some(file) = decompress(&dir.join(&row.path)) else {
        return Ok(None);
    };
    let container = open_alone(Plain::layer(file), WALL).map_err(|e| e.to_string())?;
    layers::examine(&container)
        .map(Some)
        .map_err(|e| e.to_string())
}

/// Trees of all ext file systems of valid images.
#[test]
fn ext_trees_are_identical_or_unsupported() {
    trees("ext");
}

/// Trees of all NTFS file systems of valid raw and qcow2 images.
#[test]
fn ntfs_trees_are_identical() {
    let counts = trees("ntfs");
    let read = |answer: &String| matches!(answer.as_str(), "identical" | "container not read");
    assert!(counts.keys().all(read), "{counts:?}");
}

/// Among them log replay, several versions, RAID profiles, all checksums.
#[test]
fn xfs_and_btrfs_trees_are_identical() {
    for prefix in ["xfs", "btrfs"] {
        let counts = trees(prefix);
        let refused = counts
            .keys()
            .find(|answer| answer.starts_with("unsupported"));
        assert_eq!(refused, None, "{prefix}");
    }
}

/// Trees of all squashfs file systems of valid raw and qcow2 images.
#[test]
fn squashfs_trees_are_identical() {
    let counts = trees("squashfs");
    assert!(
        counts.keys().all(|answer| answer == "identical"),
        "{counts:?}"
    );
}

/// Trees of all EROFS file systems of valid raw and qcow2 images.
#[test]
fn erofs_trees_are_identical() {
    let counts = trees("erofs");
    assert!(
        counts.keys().all(|answer| answer == "identical"),
        "{counts:?}"
    );
    assert!(counts.is_empty() || counts["identical"] >= 6, "{counts:?}");
}

/// The fsck.fat cases: circles, chains to free clusters and to other files, bad names. Sizes bound
/// the chains, so that what is left is read.
#[test]
fn damaged_fat_images_end_with_an_answer() {
    let Some(dir) = corpus("damaged FAT images") else {
        return;
    };
    let mut images = 0;
    for row in manifest(&dir) {
        if row.kind != "corrupt" || row.filesystem != "vfat" {
            continue;
        }
        #[allow(clippy::disallowed_methods)] // a test may look at the clock
        let start = Instant::now();
        let examined = examine(&dir, &row).unwrap().unwrap();
        for m in &examined.mountable {
            let (tree, errors) = walk(m.reader.as_ref(), true);
            println!("{}: {} entries, {errors:?}", row.path, tree.len());
            assert!(!tree.is_empty(), "{}", row.path);
        }
        assert!(start.elapsed() < WALL, "{}", row.path);
        images += 1;
    }
    assert!(images >= 7);
}

/// Compares all trees of file systems whose type begins with `prefix`.
fn trees(prefix: &str) -> BTreeMap<String, u32> {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    let Some(dir) = corpus(&format!("trees of {prefix} file systems")) else {
        return counts;
    };
    let mut wrong = Vec::new();
    for row in manifest(&dir) {
        if !row.kind.starts_with("valid") {
            continue;
        }
        let Some(doc) = expected(&dir, &row) else {
            continue;
        };
        let of_type = |fs: &Value| {
            fs["blkid"]["TYPE"]
                .as_str()
                .is_some_and(|t| t.starts_with(prefix))
        };
        let wanted: Vec<_> = expected_filesystems(&doc)
            .into_iter()
            .filter(|(_, fs)| of_type(fs) && fs["tree"].is_array())
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let examined = examine(&dir, &row);
        for (device, fs) in wanted {
            let outcome = match &examined {
                Ok(Some(examined)) => compare(examined, &device, fs),
                Ok(None) => Ok("too large"),
                Err(e) if e == "unsupported: vhd" => Ok("container not read"),
                Err(e) => Err(e.clone()),
            };
            match outcome {
                Ok(answer) => *counts.entry(answer.into()).or_default() += 1,
                Err(e) => wrong.push(format!("{} {device}: {e}", row.path)),
            }
        }
    }
    println!("{prefix} trees: {counts:?}, wrong: {}", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    counts
}

/// Names as `fls` of the Sleuth Kit lists them, without what it adds itself: path → kind.
fn listed_by_fls(fs: &Value) -> Option<BTreeMap<String, char>> {
    let lines = fs["fls"].as_array()?;
    // Nothing at all, not even its own pseudo files: fls could not read it.
    if lines.is_empty() || fs["fls_entries"].as_u64() != Some(lines.len() as u64) {
        return None;
    }
    let mut names = BTreeMap::new();
    for line in lines {
        let (head, name) = line.as_str()?.split_once('\t')?;
        let kind = head.chars().next()?;
        let own = ["$ALLOC_BITMAP", "$UPCASE_TABLE", "$OrphanFiles"].contains(&name);
        let deleted = head.contains('*');
        if own || deleted || matches!(kind, 'v' | 'V') || name.ends_with("(Volume Label Entry)") {
            continue;
        }
        names.insert(name.to_owned(), if kind == 'd' { 'd' } else { 'f' });
    }
    Some(names)
}

/// Names of FAT and exFAT volumes; `fls` gives no content, the fixtures do that.
#[test]
fn fat_and_exfat_names_are_those_of_fls() {
    names_are_those_of_fls(&["vfat", "exfat"]);
}

/// Names of ISO 9660 volumes. `fls` knows no Rock Ridge: of those only the count is compared.
#[test]
fn iso_names_are_those_of_fls() {
    names_are_those_of_fls(&["iso9660"]);
}

fn names_are_those_of_fls(types: &[&str]) {
    let Some(dir) = corpus(&format!("names of {types:?} file systems")) else {
        return;
    };
    let (mut same, mut unknown, mut wrong) = (0, 0, Vec::new());
    for row in manifest(&dir) {
        let Some(doc) = expected(&dir, &row).filter(|_| row.kind.starts_with("valid")) else {
            continue;
        };
        let of_type = |fs: &Value| {
            let found = fs["blkid"]["TYPE"].as_str();
            found.is_some_and(|found| types.contains(&found))
        };
        let mut wanted = expected_filesystems(&doc);
        wanted.retain(|(_, fs)| of_type(fs));
        if wanted.is_empty() {
            continue;
        }
        let examined = examine(&dir, &row).unwrap().unwrap();
        for (device, fs) in wanted {
            let mountable = examined.mountable.iter().find(|m| m.device == device);
            let reader = &mountable
                .unwrap_or_else(|| panic!("{} {device}", row.path))
                .reader;
            let (tree, errors) = walk(reader.as_ref(), true);
            if !errors.is_empty() {
                wrong.push(format!("{} {device}: {errors:?}", row.path));
            }
            if let Err(e) = lookups_agree(reader.as_ref(), &tree) {
                wrong.push(format!("{} {device}: {e}", row.path));
            }
            let Some(names) = listed_by_fls(fs) else {
                unknown += 1;
                continue;
            };
            let found: BTreeMap<String, char> = tree
                .iter()
                .map(|(path, row)| (String::from_utf8_lossy(path).into_owned(), row.0))
                .collect();
            let rock_ridge = reader.facts().features.iter().any(|f| f == "rockridge");
            if found == names || (rock_ridge && found.len() == names.len()) {
                same += 1;
            } else {
                wrong.push(format!("{} {device}: {found:?}, fls {names:?}", row.path));
            }
        }
    }
    println!(
        "names of {types:?}: {same} as fls, {unknown} not read by fls; wrong {}",
        wrong.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Formats whose readers are compared with qemu-img.
const FORMATS: [&str; 6] = ["raw", "qcow2", "vmdk", "vpc", "vhdx", "vdi"];

/// Sizes, contents, partition tables and identifiers of all valid images.
#[test]
fn containers_tables_and_identifiers_agree() {
    let Some(dir) = corpus("containers, tables and identifiers") else {
        return;
    };
    let mut checked = [0u32; 4];
    let mut wrong = Vec::new();
    for row in manifest(&dir) {
        let Some(doc) = expected(&dir, &row) else {
            continue;
        };
        let format = doc["format"].as_str().unwrap_or_default();
        if !row.kind.starts_with("valid") || !FORMATS.contains(&format) {
            continue;
        }
        let mut check = |what: &str, found: String, expected: String| {
            if found != expected {
                wrong.push(format!("{} {what}: {found}, expected {expected}", row.path));
            }
        };
        let file = decompress(&dir.join(&row.path)).unwrap();
        let container = match open_alone(Plain::layer(file), WALL) {
            Ok(container) => container,
            // An archive without a disk, and a disk without its parent: qemu-img takes the one for
            // raw and reads zeros for the other.
            Err(e)
                if e.to_string() == "unsupported: OVA without a disk"
                    || row.path == "dfvfs/ntfs-differential.vhd.zst" =>
            {
                continue;
            }
            Err(e) => {
                check("open", e.to_string(), "success".into());
                continue;
            }
        };
        if row.path == "dfvfs/ntfs-parent.vhd.zst" {
            // A fixed VHD is a raw disk and a footer: qemu-img takes it for a raw one.
            let facts = &container.facts;
            let found = (facts.format.as_str(), facts.virtual_size + 512);
            assert_eq!(Some(found.1), doc["virtual-size"].as_u64());
            assert_eq!(found.0, "vpc");
        } else {
            check("format", container.facts.format.clone(), format.into());
            // qemu counts whole sectors.
            let sectors = container.facts.virtual_size.div_ceil(512) * 512;
            check("size", sectors.to_string(), doc["virtual-size"].to_string());
        }
        if let Some(sum) = doc["raw_sha256"].as_str()
            && container.disk.len() <= 1 << 30
        {
            let found = sha256_layer(container.disk.as_ref());
            check(
                "content",
                found.unwrap_or_else(|e| e.to_string()),
                sum.into(),
            );
        }
        checked[0] += 1;
        let examined = layers::examine(&container).unwrap();
        let disk = &examined.layers.disk;
        let table = doc["partitiontable"]["label"].as_str().unwrap_or("none");
        if doc["partitiontable"].is_object() {
            check("table", disk.table.clone(), table.into());
            checked[1] += 1;
        }
        if matches!(table, "gpt" | "dos") {
            compare_partitions(&doc, &examined, &mut check);
            checked[2] += 1;
        }
        for (device, fs) in expected_filesystems(&doc) {
            checked[3] += compare_ids(&examined, &device, &fs["blkid"], &mut check);
        }
    }
    println!(
        "containers {}, tables {}, partition lists {}, identified contents {}; wrong {}",
        checked[0],
        checked[1],
        checked[2],
        checked[3],
        wrong.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn compare_partitions(
    doc: &Value,
    examined: &Examined,
    check: &mut impl FnMut(&str, String, String),
) {
    let disk = &examined.layers.disk;
    let unit = doc["partitiontable"]["sectorsize"].as_u64().unwrap_or(512);
    let id = doc["partitiontable"]["id"].as_str().unwrap_or_default();
    check(
        "table id",
        disk.id.clone().unwrap_or_default().to_lowercase(),
        id.trim_start_matches("0x").to_lowercase(),
    );
    let expected = doc["partitions"].as_array().cloned().unwrap_or_default();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    // sfdisk lists empty MBR entries whose unused fields are not zero.
    let wanted: Vec<_> = expected
        .iter()
        .filter(|p| p["size"] != 0)
        .map(|p| {
            (
                p["number"].as_u64().unwrap(),
                p["start"].as_u64().unwrap(),
                p["size"].as_u64().unwrap(),
                text(&p["type"]),
                text(&p["name"]),
                text(&p["attrs"]),
                p["bootable"].as_bool().unwrap_or(false),
            )
        })
        .collect();
    let found: Vec<_> = disk
        .partitions
        .iter()
        .map(|p| {
            (
                u64::from(p.index),
                p.start / unit,
                p.size / unit,
                p.part_type.clone(),
                p.name.clone().unwrap_or_default(),
                p.flags.join(" "),
                p.bootable && disk.table == "dos",
            )
        })
        .collect();
    check("partitions", format!("{found:?}"), format!("{wanted:?}"));
}

fn compare_ids(
    examined: &Examined,
    device: &str,
    blkid: &Value,
    check: &mut impl FnMut(&str, String, String),
) -> u32 {
    let text = |key: &str| from_cat_v(blkid[key].as_str().unwrap_or_default());
    if text("TYPE").is_empty() {
        return 0;
    }
    let fs = examined
        .layers
        .filesystems
        .iter()
        .find(|f| f.device == device);
    let volume = examined.layers.volumes.iter().find(|v| v.device == device);
    let found = fs
        .map(|f| (f.fs_type.clone(), f.uuid.clone(), f.label.clone()))
        .or(volume.map(|v| {
            (
                v.facts.volume_type.clone(),
                v.facts.uuid.clone(),
                v.facts.label.clone(),
            )
        }));
    let (fs_type, uuid, label) = found.unwrap_or_default();
    // Identifiers that would need the file system's trees are not told; told ones must be right.
    let told = |found: &Option<String>, key| match fs_type.as_str() {
        "hfsplus" if found.is_none() => String::new(),
        _ => text(key),
    };
    let expected = format!(
        "{} {} {}",
        text("TYPE"),
        told(&uuid, "UUID"),
        told(&label, "LABEL")
    );
    let found = format!(
        "{fs_type} {} {}",
        uuid.unwrap_or_default(),
        label.unwrap_or_default()
    );
    check(device, found, expected);
    1
}

/// blkid prints bytes beyond ASCII as `cat -v` does (`M-e`, `M-^]`, `M-BM- `).
fn from_cat_v(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match rest {
            [b'M', b'-', b'\\', c, after @ ..] => (0x80 | c, after),
            [b'M', b'-', b'^', c, after @ ..] => (0x80 | (c ^ 0x40), after),
            [b'M', b'-', c, after @ ..] => (0x80 | c, after),
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    bytes
        .utf8_chunks()
        .map(|chunk| {
            let invalid: String = chunk
                .invalid()
                .iter()
                .map(|b| format!("\\x{b:02x}"))
                .collect();
            chunk.valid().to_owned() + &invalid
        })
        .collect()
}

/// The e2fsck cases and the fuzzed btrfs images, most of them damaged: an answer or an error in bounded time, never a panic.
#[test]
fn damaged_images_end_with_an_answer() {
    let Some(dir) = corpus("damaged ext, xfs and btrfs images") else {
        return;
    };
    let (mut read, mut partial, mut refused) = (0, 0, 0);
    let mut slowest = (Duration::ZERO, String::new());
    for row in manifest(&dir) {
        let read_here = ["ext", "xfs", "btrfs"]
            .iter()
            .any(|prefix| row.filesystem.starts_with(prefix));
        if !read_here || !(row.container == "raw" || row.container.starts_with("qcow2")) {
            continue;
        }
        let Some(file) = decompress(&dir.join(&row.path)) else {
            continue;
        };
        #[allow(clippy::disallowed_methods)] // a test may look at the clock
        let start = Instant::now();
        let outcome = open_alone(Plain::layer(file), WALL).and_then(|c| layers::examine(&c));
        match outcome {
            Err(_) => refused += 1,
            Ok(examined) if examined.mountable.is_empty() => refused += 1,
            Ok(examined) => {
                let mut damaged = 0;
                for m in &examined.mountable {
                    damaged += walk(m.reader.as_ref(), true).1.len();
                }
                if damaged == 0 {
                    read += 1
                } else {
                    partial += 1
                }
            }
        }
        if start.elapsed() > slowest.0 {
            slowest = (start.elapsed(), row.path.clone());
        }
    }
    println!(
        "ext, xfs, btrfs images: {read} read whole, {partial} in part, {refused} refused; slowest {slowest:?}"
    );
    assert!(slowest.0 < WALL + Duration::from_secs(1));
}

/// The sound ones among the e2fsck cases: features as dumpe2fs names them, as many names in the
/// root directory as debugfs lists.
#[test]
fn sound_e2fsck_cases_agree_with_dumpe2fs_and_debugfs() {
    let Some(dir) = corpus("sound e2fsck cases") else {
        return;
    };
    let text = std::fs::read_to_string(dir.join("expected/e2fsprogs.tsv")).unwrap();
    let answers: BTreeMap<&str, Vec<&str>> = text
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .map(|f| (f[0], f))
        .collect();
    let (mut same, mut unsupported, mut refused, mut wrong) = (0, 0, 0, Vec::new());
    for row in manifest(&dir) {
        let Some(answer) = answers.get(row.path.as_str()) else {
            continue;
        };
        // Where dumpe2fs itself fails there is nothing to compare with.
        if row.kind != "valid" || answer[4] != "0" {
            continue;
        }
        let file = decompress(&dir.join(&row.path)).unwrap();
        let layer = Plain::layer(file);
        let mut expected: Vec<_> = answer[5].split(' ').filter(|f| !f.is_empty()).collect();
        expected.sort_unstable();
        let examined = open_alone(layer, WALL)
            .and_then(|c| layers::examine(&c))
            .unwrap();
        let Some(fs) = examined.layers.filesystems.first() else {
            wrong.push(format!("{}: {:?}", row.path, examined.layers.disk));
            continue;
        };
        if fs.features != expected {
            wrong.push(format!(
                "{}: {:?}, expected {expected:?}",
                row.path, fs.features
            ));
        }
        let Some(mountable) = examined.mountable.first() else {
            match &fs.unsupported {
                Some(_) => unsupported += 1,
                None => wrong.push(format!("{}: {:?}", row.path, fs.damage)),
            }
            continue;
        };
        let (tree, errors) = walk(mountable.reader.as_ref(), true);
        let names = tree.keys().filter(|path| !path.contains(&b'/')).count() + 2;
        let listed: usize = answer[6].parse().unwrap_or(0);
        // A tree of depth 7: refused as the kernel does, though e2fsck would make it flat.
        if row.path.contains("f_extent_too_deep") {
            assert_eq!(errors.len(), 1);
            refused += 1;
        } else if names != listed || !errors.is_empty() {
            wrong.push(format!(
                "{}: {names} names, debugfs {listed}; {errors:?}",
                row.path
            ));
        } else {
            same += 1;
        }
    }
    println!(
        "sound e2fsck cases: {same} agree, {unsupported} unsupported, {refused} refused, {} wrong",
        wrong.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every other file of the corpus, whatever it is.
#[test]
fn nothing_in_the_corpus_panics() {
    let Some(dir) = corpus("everything else in the corpus") else {
        return;
    };
    let mut answers: BTreeMap<String, u32> = BTreeMap::new();
    for row in manifest(&dir) {
        if row.container == "-" || row.container.starts_with("text") {
            continue;
        }
        let Some(file) = decompress(&dir.join(&row.path)) else {
            continue;
        };
        let answer = match open_alone(Plain::layer(file), WALL) {
            Ok(container) => match layers::examine(&container) {
                Ok(e) if e.layers.recognised => "recognised".to_owned(),
                Ok(_) => "nothing recognised".to_owned(),
                Err(e) => e.to_string(),
            },
            Err(e) => e.to_string(),
        };
        *answers.entry(answer).or_default() += 1;
    }
    println!("{answers:#?}");
}
