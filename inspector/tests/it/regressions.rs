//! Inputs that once broke a reader, and the seeds of the fuzz targets.
//!
//! `tests/regressions/TARGET/…`: bytes as `fuzz/` found them. For a target that changes an image the
//! file's name begins with the image's: `base=NAME,…`, from `tests/fixtures` or the corpus.

use crate::harness::{self, TARGETS, Target};
use crate::support::{self, corpus, manifest};
use guestkit_inspector::read_at::Layer;
use guestkit_inspector::source::FileLayer;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Larger images are no good base: most of them is file content.
const BASE_MAX: u64 = 64 << 20;
/// Image files that are changed in memory, as a whole.
const CHANGED_MAX: u64 = 16 << 20;
/// Seeds beyond this slow a fuzzer down more than they help.
const SEED_MAX: u64 = 512 << 10;
/// Images of one kind.
const BASES_MAX: usize = 12;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn layer(path: &Path) -> Option<Layer> {
    let file = support::decompress(path)?;
    let length = file.metadata().unwrap().len();
    (length <= BASE_MAX).then(|| -> Layer { Arc::new(FileLayer::new(Arc::new(file), length)) })
}

/// Images that a target's inputs change, by name.
fn bases(name: &str, target: &Target) -> BTreeMap<String, PathBuf> {
    match target {
        Target::Disk => disks(name),
        Target::Changed(format) => image_files(format),
        Target::Container(_) | Target::File(..) => BTreeMap::new(),
    }
}

/// Files of a format among the fixtures.
fn image_files(format: &str) -> BTreeMap<String, PathBuf> {
    let ending = if format == "vpc" { "vhd" } else { format };
    let files = fs::read_dir(here("tests/fixtures/containers")).unwrap();
    files
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let name = path.file_name()?.to_string_lossy().into_owned();
            let fits = name.ends_with(&format!(".{ending}.gz"))
                && layer(&path).is_some_and(|layer| layer.len() <= CHANGED_MAX);
            fits.then_some((name, path))
        })
        .collect()
}

fn disks(target: &str) -> BTreeMap<String, PathBuf> {
    let folder = match target {
        "ext" | "xfs" | "btrfs" | "ntfs" | "fat" | "exfat" | "iso9660" | "squashfs" => target,
        _ => "volumes",
    };
    let mut found = BTreeMap::new();
    let mut add = |path: PathBuf| {
        let parts: Vec<_> = path
            .iter()
            .rev()
            .take(2)
            .map(|p| p.to_string_lossy())
            .collect();
        found.insert(format!("{}_{}", parts[1], parts[0]), path);
    };
    for entry in fs::read_dir(here("tests/fixtures").join(folder))
        .into_iter()
        .flatten()
    {
        let path = entry.unwrap().path();
        let name = path.to_string_lossy().into_owned();
        if (name.ends_with(".img.gz") || name.ends_with(".iso.gz"))
            && (folder != "volumes" || name.contains(target))
        {
            add(path);
        }
    }
    if let Some(dir) = corpus("bases of fuzz targets") {
        for row in manifest(&dir) {
            let path = row.path.to_lowercase();
            let fits = match target {
                "gpt" | "mbr" | "md" => path.contains(target),
                "lvm" => row.filesystem == "LVM2_member" || path.contains("lvm"),
                "luks" => row.filesystem.starts_with("crypto"),
                "ext" => row.filesystem.starts_with("ext"),
                "fat" => row.filesystem.starts_with("vfat"),
                other => row.filesystem == other,
            };
            if fits && row.container == "raw" && row.kind == "valid" {
                add(dir.join(&row.path));
            }
        }
    }
    found
}

#[test]
fn what_was_once_found_stays_fixed() {
    let mut replayed = 0;
    for (name, target) in TARGETS {
        let folder = here("tests/regressions").join(name);
        let all = match folder.is_dir() {
            true => bases(name, target),
            false => continue,
        };
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let file_name = path.file_name().unwrap().to_string_lossy().into_owned();
            let base = file_name
                .strip_prefix("base=")
                .and_then(|rest| rest.split_once(','))
                .map(|(base, _)| base.to_owned());
            let layers: Vec<Layer> = base
                .and_then(|base| all.get(&base))
                .and_then(|path| layer(path))
                .into_iter()
                .collect();
            harness::run(*target, &fs::read(&path).unwrap(), &layers);
            replayed += 1;
        }
    }
    println!("{replayed} inputs replayed");
}

#[test]
fn every_target_takes_anything() {
    let junk: Vec<u8> = (0..20_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let text = b"[a]\nb = c\nd: e\n\t- f\n{\"g\": [1, 2]}\nh\\\n  i\n\n#\n\0\xff".repeat(40);
    for (name, target) in TARGETS {
        let all = bases(name, target);
        let layers: Vec<Layer> = all
            .values()
            .find_map(|path| layer(path))
            .into_iter()
            .collect();
        for data in [&b""[..], b"\0", &junk[..5_000], &junk, &text] {
            harness::run(*target, data, &layers);
        }
    }
}

/// Writes `corpus/TARGET` and `bases/TARGET` beneath the folder that the environment names: what
/// `./dev fuzz` starts from.
#[test]
#[ignore = "writes files; ./dev fuzz runs it"]
fn write_seeds() {
    let into = PathBuf::from(std::env::var_os("GUESTKIT_FUZZ_DIR").unwrap());
    for (name, target) in TARGETS {
        let seeds = into.join("corpus").join(name);
        fs::create_dir_all(&seeds).unwrap();
        match target {
            Target::Disk | Target::Changed(_) => {
                let folder = into.join("bases").join(name);
                fs::create_dir_all(&folder).unwrap();
                let fitting = bases(name, target).into_iter().filter_map(|(base, path)| {
                    let file = support::decompress(&path)?;
                    (file.metadata().unwrap().len() <= BASE_MAX).then_some((base, file))
                });
                for (base, mut file) in fitting.take(BASES_MAX) {
                    copy(&mut file, &folder.join(base));
                }
                let change = [0, 0x38, 4, 0, 0, 0, 1, 2, 3];
                fs::write(seeds.join("one"), change).unwrap();
                fs::write(seeds.join("many"), change.repeat(9)).unwrap();
            }
            Target::Container(format) => containers(format, &seeds),
            Target::File(path, _) => files(name, path, &seeds),
        }
        println!("{name}: {} seeds", fs::read_dir(&seeds).unwrap().count());
    }
}

fn copy(from: &mut File, to: &Path) {
    from.rewind().unwrap();
    let mut out = File::create(to).unwrap();
    std::io::copy(from, &mut out).unwrap();
}

fn containers(format: &str, seeds: &Path) {
    let mut paths = Vec::new();
    for folder in ["qcow2", "containers"] {
        for entry in fs::read_dir(here("tests/fixtures").join(folder))
            .into_iter()
            .flatten()
        {
            paths.push(entry.unwrap().path());
        }
    }
    if let Some(dir) = corpus("seeds of containers") {
        paths.extend(manifest(&dir).iter().map(|row| dir.join(&row.path)));
    }
    for (n, path) in paths.iter().enumerate() {
        let name = path.to_string_lossy();
        if !name.contains(format) {
            continue;
        }
        let Some(mut file) = support::decompress(path) else {
            continue;
        };
        if file.metadata().unwrap().len() <= SEED_MAX {
            copy(&mut file, &seeds.join(format!("{n}")));
        }
    }
}

/// Files of that name in the corpus, and a line of what every such file may begin with.
fn files(target: &str, path: &str, seeds: &Path) {
    fs::write(seeds.join("line"), b"# a comment\n[Unit]\na=b\nc: d\n").unwrap();
    let Some(dir) = corpus("seeds of files") else {
        return;
    };
    let wanted: &[&str] = match target {
        "rpm-bdb" => &["Packages"],
        "rpm-ndb" => &["Packages.db"],
        "rpm-sqlite" => &["rpmdb.sqlite"],
        "hive-system" | "hive-software" | "hive-sam" => &["hive", "minimal", "special"],
        "dpkg" => &["dpkg", "status"],
        "apk" => &["apk", "installed"],
        "os-release" => &["os-release"],
        _ => &[path],
    };
    for (n, row) in manifest(&dir).iter().enumerate() {
        if !wanted.iter().any(|w| row.path.contains(w)) {
            continue;
        }
        let Some(file) = support::decompress(&dir.join(&row.path)) else {
            continue;
        };
        let mut bytes = Vec::new();
        if file.take(SEED_MAX + 1).read_to_end(&mut bytes).is_ok()
            && u64::try_from(bytes.len()).is_ok_and(|length| length <= SEED_MAX)
        {
            fs::write(seeds.join(format!("{n}")), bytes).unwrap();
        }
    }
}
