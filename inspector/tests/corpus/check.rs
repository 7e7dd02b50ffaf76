//! One row: what we read against what reference tools say.

use crate::WALL;
use crate::answers::Answer;
use crate::support::{
    Plain, Row, Tree, budget, decompress, open_alone, open_host, sha256_layer, walk,
};
use guestkit_inspector::container::Container;
use guestkit_inspector::error::DiskError;
use guestkit_inspector::fs::FileSystem;
use guestkit_inspector::layers::{self, Examined, FileSystemLayer};
use serde_json::Value;
use std::path::Path;

/// Whole disks are summed up to this size: 10 GiB of zeros take half a minute in a test build, and the
/// trees inside are summed anyway.
const CONTENT_MAX: u64 = 2 << 30;

pub(crate) enum Verdict {
    Identical,
    Unsupported(String),
    Wrong(String),
}

/// Why a comparison did not end well: a feature we name, or a difference.
enum Miss {
    Unsupported(String),
    Wrong(String),
}

type Checked = Result<(), Miss>;

impl From<DiskError> for Miss {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::Unsupported { feature } => Self::Unsupported(feature),
            other => Self::Wrong(other.to_string()),
        }
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Checked {
    if found == expected {
        return Ok(());
    }
    Err(Miss::Wrong(format!(
        "{what}: {found:?}, expected {expected:?}"
    )))
}

pub(crate) fn row(dir: &Path, row: &Row, answer: &Answer) -> Verdict {
    match compare(dir, row, answer) {
        Ok(()) => Verdict::Identical,
        Err(Miss::Unsupported(feature)) => Verdict::Unsupported(feature),
        Err(Miss::Wrong(why)) => Verdict::Wrong(why),
    }
}

fn compare(dir: &Path, row: &Row, answer: &Answer) -> Checked {
    // What was unpacked has to stay while it is read.
    let (container, _unpacked) = open(dir, row)?;
    let examined = layers::examine(&container)?;
    match answer {
        Answer::Image(doc) => {
            compare_container(&container, doc)?;
            compare_table(&examined, doc)?;
            for (device, fs) in filesystems(doc, &examined) {
                compare_ids(&examined, &device, &fs["blkid"])?;
                compare_tree(&examined, &device, fs, &doc["libguestfs"])?;
            }
            Ok(())
        }
        Answer::Ext { features, names } => {
            let fs = first(&examined)?;
            same("features", &fs.features, features)?;
            let Some(mountable) = examined.mountable.first() else {
                return Err(unread(fs));
            };
            let (tree, errors) = walk(mountable.reader.as_ref(), true);
            // A tree of depth 7: refused as the kernel does, though e2fsck would make it flat.
            if row.path.contains("f_extent_too_deep") && errors.len() == 1 {
                return Ok(());
            }
            if let Some((path, error)) = errors.first() {
                return Err(at(path, error.clone()));
            }
            let found = tree.keys().filter(|path| !path.contains(&b'/')).count() + 2;
            same("names in the root directory", &found, names)
        }
        Answer::Type(fs_type) => {
            let fs = first(&examined)?;
            same("type", &fs.fs_type, fs_type)?;
            let Some(mountable) = examined.mountable.first() else {
                return Err(unread(fs));
            };
            match walk(mountable.reader.as_ref(), true).1.first() {
                Some((path, error)) => Err(at(path, error.clone())),
                None => Ok(()),
            }
        }
        Answer::Guest(tree) => {
            let root = guestkit_inspector::guest::main_root(&examined)?
                .ok_or_else(|| Miss::Wrong("no root".into()))?;
            // The tree is that of the root file system: what is mounted hides some of it.
            let mounts = mounts(dir, row);
            for (path, kind, size, last) in tree {
                if mounts.iter().any(|at| path.starts_with(at)) {
                    continue;
                }
                guest_node(&root, path, *kind, *size, last)?;
            }
            Ok(())
        }
    }
}

/// Mount points of the guest's fstab, as prefixes of what lies beneath them.
fn mounts(dir: &Path, row: &Row) -> Vec<Vec<u8>> {
    let guest = row.path.split('/').take(2).collect::<Vec<_>>().join("/");
    let fstab = std::fs::read_to_string(dir.join(guest).join("truth/fstab")).unwrap_or_default();
    fstab
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.strip_prefix('/'))
        .filter(|at| !at.is_empty())
        .map(|at| format!("{at}/").into_bytes())
        .collect()
}

fn guest_node(
    root: &guestkit_inspector::vfs::GuestRoot,
    path: &[u8],
    kind: char,
    size: u64,
    last: &str,
) -> Checked {
    use guestkit_inspector::fs::NodeKind;
    let Ok(text) = std::str::from_utf8(path) else {
        return Ok(()); // names that are no UTF-8 are compared by the guest's own tests
    };
    let found = root
        .find_link(text)?
        .ok_or_else(|| Miss::Wrong(format!("{text} is missing")))?;
    let metadata = found.metadata()?;
    match (kind, metadata.kind) {
        ('d', NodeKind::Directory) => Ok(()),
        ('l', NodeKind::Symlink) => same(
            text,
            &String::from_utf8_lossy(&found.read_link()?).into_owned(),
            &last.to_owned(),
        ),
        ('f', NodeKind::File) => {
            same(text, &metadata.size, &size)?;
            if last.len() == 64 {
                let mut sum = <sha2::Sha256 as sha2::Digest>::new();
                found.read_all(|piece| {
                    sha2::Digest::update(&mut sum, piece);
                    Ok(())
                })?;
                let sum = sha2::Digest::finalize(sum);
                same(text, &crate::support::hex(&sum), &last.to_owned())?;
            }
            Ok(())
        }
        ('d' | 'l' | 'f', other) => Err(Miss::Wrong(format!("{text}: {other:?}, expected {kind}"))),
        _ => Ok(()),
    }
}

/// Where an image is unpacked to, with the files that it names.
struct Unpacked {
    _folder: tempfile::TempDir,
}

fn unpack(path: &Path, into: &Path) -> Result<String, Miss> {
    let mut file = decompress(path).ok_or_else(|| Miss::Wrong("larger than 4 GiB".into()))?;
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    let mut out = std::fs::File::create(into.join(&name)).unwrap();
    std::io::copy(&mut file, &mut out).unwrap();
    Ok(name)
}

/// Opens the row's image. One that names further files gets those that lie beside it in the corpus.
fn open(dir: &Path, row: &Row) -> Result<(Container, Option<Unpacked>), Miss> {
    let path = dir.join(&row.path);
    let packed = matches!(
        path.extension().and_then(|end| end.to_str()),
        Some("zst" | "gz" | "xz" | "bz2")
    );
    if !packed {
        // Everything in its folder and the one above is allowed.
        let folder = path.parent().and_then(Path::parent).unwrap_or(dir);
        let name = path.strip_prefix(folder).unwrap().display().to_string();
        return Ok((open_host(folder, &name, &budget(WALL))?, None));
    }
    let file = decompress(&path).ok_or_else(|| Miss::Wrong("larger than 4 GiB".into()))?;
    let refused = match open_alone(Plain::layer(file), WALL) {
        Ok(container) => return Ok((container, None)),
        Err(error @ DiskError::Denied { .. }) => error.to_string(),
        Err(error) => return Err(error.into()),
    };
    let folder = tempfile::tempdir().unwrap();
    let name = unpack(&path, folder.path())?;
    for beside in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let beside = beside.unwrap().path();
        let stem = beside.file_stem().unwrap().to_string_lossy().into_owned();
        if beside != path && refused.contains(&stem) {
            unpack(&beside, folder.path())?;
        }
    }
    let container = open_host(folder.path(), &name, &budget(WALL))?;
    Ok((container, Some(Unpacked { _folder: folder })))
}

fn first(examined: &Examined) -> Result<&FileSystemLayer, Miss> {
    examined
        .layers
        .filesystems
        .first()
        .ok_or_else(|| Miss::Wrong("no file system found".into()))
}

fn unread(fs: &FileSystemLayer) -> Miss {
    match &fs.unsupported {
        Some(feature) => Miss::Unsupported(feature.clone()),
        None => Miss::Wrong(format!("{}: {:?}", fs.device, fs.damage)),
    }
}

fn at(path: &[u8], error: DiskError) -> Miss {
    match Miss::from(error) {
        Miss::Wrong(why) => Miss::Wrong(format!("{}: {why}", String::from_utf8_lossy(path))),
        named => named,
    }
}

fn compare_container(container: &Container, doc: &Value) -> Checked {
    let facts = &container.facts;
    let format = doc["format"].as_str().unwrap_or_default();
    let size = doc["virtual-size"].as_u64().unwrap_or_default();
    if format == "luks" {
        // A volume here, not a container; its type and uuid are compared below.
        return Ok(());
    }
    if format == "raw" && facts.format != "raw" {
        // qemu-img takes a fixed VHD for raw, its footer for a last sector; an archive for a disk.
        if facts.format == "vpc" {
            return same("size", &(facts.virtual_size + 512), &size);
        }
        return Ok(());
    }
    if doc["qemu_img_error"].is_null() {
        same("format", &facts.format.as_str(), &format)?;
        // qemu counts whole sectors.
        same("size", &(facts.virtual_size.div_ceil(512) * 512), &size)?;
    }
    if let Some(sum) = doc["raw_sha256"].as_str()
        && facts.virtual_size <= CONTENT_MAX
        // qemu-img reads a differencing VHD without its parent.
        && (facts.format != "vpc" || facts.backing.is_empty())
    {
        same(
            "content",
            &sha256_layer(container.disk.as_ref())?,
            &sum.to_owned(),
        )?;
    }
    Ok(())
}

fn compare_table(examined: &Examined, doc: &Value) -> Checked {
    let disk = &examined.layers.disk;
    let Some(label) = doc["partitiontable"]["label"].as_str() else {
        return Ok(());
    };
    same("table", &disk.table.as_str(), &label)?;
    if !matches!(label, "gpt" | "dos") {
        return Ok(());
    }
    let unit = doc["partitiontable"]["sectorsize"].as_u64().unwrap_or(512);
    let id = doc["partitiontable"]["id"].as_str().unwrap_or_default();
    same(
        "table id",
        &disk.id.clone().unwrap_or_default().to_lowercase(),
        &id.trim_start_matches("0x").to_lowercase(),
    )?;
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    // sfdisk lists empty MBR entries whose unused fields are not zero.
    let expected: Vec<_> = doc["partitions"]
        .as_array()
        .into_iter()
        .flatten()
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
    same("partitions", &found, &expected)
}

/// Each file system of the answer with the device it lies on here.
fn filesystems<'a>(doc: &'a Value, examined: &Examined) -> Vec<(String, &'a Value)> {
    let mut found = Vec::new();
    if doc["fs"].is_object() {
        found.push(("/dev/sda".to_owned(), &doc["fs"]));
    }
    for part in doc["partitions"].as_array().into_iter().flatten() {
        if part["fs"].is_object() && part["size"] != 0 {
            found.push((format!("/dev/sda{}", part["number"]), &part["fs"]));
        }
    }
    for lvm in found.clone().iter().map(|(_, fs)| &fs["lvm"]) {
        let group = lvm["vg"].as_str().unwrap_or_default();
        for (name, lv) in lvm["lvs"].as_object().into_iter().flatten() {
            if lv["fs"].is_object() {
                found.push((format!("/dev/{group}/{name}"), &lv["fs"]));
            }
        }
    }
    // A table inside what is one file system as a whole (hybrid images) was not probed by blkid.
    found.retain(|(device, fs)| {
        device != "/dev/sda"
            || !fs["blkid"]["TYPE"].is_null()
            || examined.layers.disk.table == "none"
    });
    found
}

fn compare_ids(examined: &Examined, device: &str, blkid: &Value) -> Checked {
    let text = |key: &str| from_cat_v(blkid[key].as_str().unwrap_or_default());
    if text("TYPE").is_empty() {
        return Ok(());
    }
    let layers = &examined.layers;
    let fs = layers.filesystems.iter().find(|f| f.device == device);
    let volume = layers.volumes.iter().find(|v| v.device == device);
    let found = fs
        .map(|f| (f.fs_type.clone(), f.uuid.clone(), f.label.clone()))
        .or(volume.map(|v| {
            let facts = &v.facts;
            (
                facts.volume_type.clone(),
                facts.uuid.clone(),
                facts.label.clone(),
            )
        }));
    let (fs_type, uuid, label) = found.unwrap_or_default();
    // Identifiers that would need the file system's trees are not told; told ones must be right.
    let told = |found: &Option<String>, key| match fs_type.as_str() {
        "hfsplus" if found.is_none() => String::new(),
        _ => text(key),
    };
    let expected = [text("TYPE"), told(&uuid, "UUID"), told(&label, "LABEL")];
    let found = [
        fs_type.clone(),
        uuid.unwrap_or_default(),
        label.unwrap_or_default(),
    ];
    same(device, &found, &expected)
}

fn compare_tree(examined: &Examined, device: &str, fs: &Value, libguestfs: &Value) -> Checked {
    let has_tree = fs["tree"].is_array() || fs["fls"].is_array();
    let by_libguestfs = mounted_by_libguestfs(device, fs, libguestfs);
    if !has_tree && by_libguestfs.is_none() {
        return Ok(());
    }
    let layers = &examined.layers;
    let Some(layer) = layers.filesystems.iter().find(|f| f.device == device) else {
        return Err(Miss::Wrong(format!("{device}: no file system found")));
    };
    let Some(mountable) = examined.mountable.iter().find(|m| m.device == device) else {
        return Err(unread(layer));
    };
    let (found, errors) = walk(mountable.reader.as_ref(), true);
    if let Some((path, error)) = errors.first() {
        return Err(at(path, error.clone()));
    }
    lookups_agree(mountable.reader.as_ref(), &found)?;
    if let Some(answer) = by_libguestfs {
        for (path, sum) in answer["sha256"].as_object().into_iter().flatten() {
            let got = found.get(path.as_bytes()).map(|row| row.2.as_str());
            same(path, &got, &sum.as_str())?;
        }
        let paths = answer["paths"].as_array().map_or(0, Vec::len);
        return same("number of paths", &found.len(), &paths);
    }
    if fs["fls"].is_array() {
        return names_of_fls(&found, fs);
    }
    let expected = expected_tree(fs);
    if layer.needs_recovery && layer.fs_type.starts_with("ext") && expected.len() < found.len() {
        // The corpus was read without replaying journals; e2fsck lists 773 directories after it.
        let directories = found.values().filter(|row| row.0 == 'd').count();
        return same("directories, with lost+found", &directories, &774);
    }
    for (path, row) in &expected {
        let shown = String::from_utf8_lossy(path);
        let Some(got) = found.get(path) else {
            return Err(Miss::Wrong(format!("{shown} is missing")));
        };
        let alike = row.0 == got.0
            && match row.0 {
                // No sums for files over 64 MiB, nor for those that the tool could not read (ERR2).
                'f' => row.1 == got.1 && (!is_sum(&row.2) || row.2 == got.2),
                // ntfs-3g puts its own mount point before absolute targets, and gives up on some.
                'l' => {
                    row.2.strip_prefix("MOUNT").unwrap_or(&row.2) == got.2
                        || row.2.starts_with("unsupported reparse tag")
                }
                _ => true,
            };
        if !alike {
            return Err(Miss::Wrong(format!("{shown}: {got:?}, expected {row:?}")));
        }
    }
    if fs["tree_truncated"].is_null() && found.len() != expected.len() {
        let extra: Vec<_> = found
            .keys()
            .filter(|path| !expected.contains_key(*path))
            .map(|path| String::from_utf8_lossy(path).into_owned())
            .collect();
        return Err(Miss::Wrong(format!("too many entries: {extra:?}")));
    }
    Ok(())
}

fn is_sum(text: &str) -> bool {
    text.len() == 64
}

/// Where the kernel refused to mount, libguestfs may have an answer.
fn mounted_by_libguestfs<'a>(device: &str, fs: &Value, libguestfs: &'a Value) -> Option<&'a Value> {
    if fs["mount_error"].is_null() {
        return None;
    }
    let digits = |name: &str| name.trim_start_matches(char::is_alphabetic).to_owned();
    let part = digits(device.trim_start_matches("/dev/"));
    libguestfs
        .as_object()?
        .iter()
        .find(|(name, answer)| {
            digits(name.trim_start_matches("/dev/")) == part && answer["count"] != 0
        })
        .map(|(_, answer)| answer)
}

fn expected_tree(fs: &Value) -> Tree {
    let mut tree = Tree::new();
    for row in fs["tree"].as_array().into_iter().flatten() {
        let kind = row[1].as_str().and_then(|kind| kind.chars().next());
        let path = row[0].as_str().unwrap_or_default().as_bytes().to_vec();
        let last = row[3].as_str().unwrap_or_default().to_owned();
        tree.insert(
            path,
            (kind.unwrap_or('?'), row[2].as_u64().unwrap_or(0), last),
        );
    }
    tree
}

/// `fls -r -p` prints `r/r 5:\tname`; names that begin with `$` are its own.
fn names_of_fls(found: &Tree, fs: &Value) -> Checked {
    let lines = fs["fls"].as_array().map_or(0, Vec::len);
    if lines == 0 || fs["fls_entries"].as_u64() != u64::try_from(lines).ok() {
        // Nothing at all, not even its own pseudo files: fls could not read it.
        return Ok(());
    }
    let mut expected = std::collections::BTreeMap::new();
    for line in fs["fls"].as_array().into_iter().flatten() {
        let line = line.as_str().unwrap_or_default();
        let Some((left, name)) = line.split_once(":\t") else {
            continue;
        };
        if left.contains('*') || name.contains("(Volume Label Entry)") || name.starts_with('$') {
            continue;
        }
        let kind = match left.split(['/', ' ']).nth(1) {
            Some("d") => 'd',
            Some("l") => 'l',
            _ => 'f',
        };
        expected.insert(name.to_owned(), kind);
    }
    let found: std::collections::BTreeMap<String, char> = found
        .iter()
        .map(|(path, row)| (String::from_utf8_lossy(path).into_owned(), row.0))
        .collect();
    if fs["blkid"]["TYPE"] == "iso9660" {
        // fls shows the short names of ISO 9660 and takes links for files; like the kernel we prefer
        // Rock Ridge and Joliet: as many directories and as many others.
        let directories = |kinds: Vec<char>| {
            let all = kinds.len();
            let directories = kinds.iter().filter(|kind| **kind == 'd').count();
            (directories, all - directories)
        };
        return same(
            "directories and files",
            &directories(found.into_values().collect()),
            &directories(expected.into_values().collect()),
        );
    }
    same("names", &found, &expected)
}

/// Every name is found by look-up too: that goes through hashed indexes.
fn lookups_agree(fs: &dyn FileSystem, tree: &Tree) -> Checked {
    for path in tree.keys() {
        let mut node = fs.root();
        for part in path.split(|b| *b == b'/') {
            node = fs.lookup(node, part)?.ok_or_else(|| {
                Miss::Wrong(format!(
                    "{} not found by name",
                    String::from_utf8_lossy(path)
                ))
            })?;
        }
        fs.metadata(node)?;
    }
    Ok(())
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
