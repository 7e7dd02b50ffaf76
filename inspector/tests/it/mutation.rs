//! Bytes that flip as they are read: whatever an image holds, reading it ends, in bounded time and
//! without a panic.

use crate::support::{Plain, budget, unpack_fixtures, walk};
use guestkit_inspector::budget::Budget;
use guestkit_inspector::container::{self, Container};
use guestkit_inspector::error::{DiskError, Result};
use guestkit_inspector::layers;
use guestkit_inspector::read_at::{Layer, ReadAt};
use guestkit_inspector::source::{MemoryOpener, Opener, Reading, Source};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const WALL: Duration = Duration::from_secs(5);
/// Flips in every n-th 64-byte piece: from every piece to hardly any.
const RARITIES: [u64; 6] = [1, 4, 16, 64, 256, 1024];

struct Flipping {
    inner: Layer,
    seed: u64,
    rarity: u64,
}

fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

impl ReadAt for Flipping {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, position: u64, buf: &mut [u8]) -> Result<()> {
        self.inner.read_exact_at(position, buf)?;
        let end = position + buf.len() as u64;
        for piece in position / 64..end.div_ceil(64) {
            let random = mix(self.seed ^ mix(piece));
            let at = piece * 64 + (random >> 8) % 64;
            if !random.is_multiple_of(self.rarity) || at < position || at >= end {
                continue;
            }
            let byte = &mut buf[(at - position) as usize];
            // A bit, a large value, or zero: fields fail in different ways.
            *byte = match (random >> 16) % 4 {
                0 => 0,
                1 => 0xff,
                _ => *byte ^ (1 << ((random >> 24) % 8)),
            };
        }
        Ok(())
    }
}

/// The image and, for overlays, a base that flips as well.
struct Mutated<'a> {
    image: Layer,
    base: Option<Layer>,
    reading: &'a Reading,
}

impl Opener for Mutated<'_> {
    fn image(&self) -> Result<Source> {
        let opener = MemoryOpener {
            layer: Arc::clone(&self.image),
            reading: self.reading,
        };
        opener.image()
    }

    fn related(&self, from: &Source, _: &[u8]) -> Result<Source> {
        let base = self.base.clone().ok_or(DiskError::NotFound {
            what: "base".into(),
        })?;
        Ok(self.reading.source(base, (1, from.index as u64)))
    }
}

fn open(path: &Path, base: &Path, seed: u64, budget: &Arc<Budget>) -> Result<Container> {
    let rarity = RARITIES[(seed % RARITIES.len() as u64) as usize];
    let flip = |path: &Path, seed| -> Layer {
        Arc::new(Flipping {
            inner: Plain::layer(File::open(path).unwrap()),
            seed,
            rarity,
        })
    };
    let reading = Reading::new(Arc::clone(budget));
    let opener = Mutated {
        image: flip(path, mix(seed)),
        base: Some(flip(base, mix(!seed))),
        reading: &reading,
    };
    container::open(&opener, None)
}

/// Runs `per_image` mutations of every image; prints and answers what became of them.
fn run(images: &[PathBuf], base: &Path, per_image: u64) -> [u32; 3] {
    let mut outcomes = [0; 3];
    let mut slowest = (Duration::ZERO, String::new());
    for path in images {
        for seed in 0..per_image {
            let budget = budget(WALL);
            #[allow(clippy::disallowed_methods)] // a test may look at the clock
            let start = Instant::now();
            let name = path.file_name().unwrap().to_str().unwrap();
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let container = open(path, base, seed, &budget)?;
                let mut some = vec![0; 128 << 10];
                let len = some.len().min(container.disk.len() as usize);
                // Errors are fine here; panics are not.
                drop(container.disk.read_exact_at(0, &mut some[..len]));
                let examined = layers::examine(&container)?;
                let mut damage = 0;
                for m in &examined.mountable {
                    damage += walk(m.reader.as_ref(), false).1.len();
                    damage += read_some_files(m.reader.as_ref());
                }
                Ok::<_, DiskError>(!examined.mountable.is_empty() && damage == 0)
            }));
            let outcome = outcome.unwrap_or_else(|_| panic!("{name}: seed {seed} panicked"));
            outcomes[match outcome {
                Ok(true) => 0,
                Ok(false) => 1,
                Err(_) => 2,
            }] += 1;
            if start.elapsed() > slowest.0 {
                slowest = (start.elapsed(), format!("{name} seed {seed}"));
            }
        }
    }
    println!(
        "{} mutated images: {} read whole, {} in part, {} refused; slowest {slowest:?}",
        outcomes.iter().sum::<u32>(),
        outcomes[0],
        outcomes[1],
        outcomes[2]
    );
    assert!(slowest.0 < WALL + Duration::from_secs(2), "{slowest:?}");
    outcomes
}

/// Content of the first 40 files and links, at most 1 MiB each.
fn read_some_files(fs: &dyn guestkit_inspector::fs::FileSystem) -> usize {
    let mut nodes = Vec::new();
    let mut damage = 0;
    let mut todo = vec![(fs.root(), 0)];
    while let Some((dir, depth)) = todo.pop() {
        let read = fs.read_dir(dir, &mut |entry| {
            nodes.push(entry.node);
            if depth < 4 && todo.len() < 20 {
                todo.push((entry.node, depth + 1));
            }
            match nodes.len() {
                0..200 => std::ops::ControlFlow::Continue(()),
                _ => std::ops::ControlFlow::Break(()),
            }
        });
        damage += usize::from(read.is_err());
        if nodes.len() >= 200 {
            break;
        }
    }
    drop(fs.subvolumes());
    let mut buf = vec![0; 1 << 20];
    for node in nodes.into_iter().take(40) {
        let file = fs.read_file_at(node, 0, &mut buf);
        let far = fs.read_file_at(node, u64::MAX - 5, &mut buf);
        let link = fs.read_link(node);
        for name in ["security.selinux", "user.large", "user.number-007"] {
            drop(fs.xattr(node, name.as_bytes()));
        }
        damage += usize::from(file.is_err() && link.is_err() && far.is_err());
    }
    damage
}

fn all(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    found.sort();
    found
}

#[test]
fn mutated_ext_images() {
    let dir = unpack_fixtures("ext");
    let images = all(dir.path(), "img");
    assert!(run(&images, &images[0], 100).iter().sum::<u32>() >= 1900);
}

#[test]
fn mutated_fat_and_exfat_images() {
    let dir = unpack_fixtures("fat");
    let images = all(dir.path(), "img");
    let counts = run(&images, &images[0], 800);
    assert!(counts.iter().sum::<u32>() >= 4000);
}

#[test]
fn mutated_iso_images() {
    let dir = unpack_fixtures("iso");
    let images = all(dir.path(), "img");
    let counts = run(&images, &images[0], 500);
    assert!(counts.iter().sum::<u32>() >= 2000);
}

#[test]
fn mutated_squashfs_images() {
    let dir = unpack_fixtures("squashfs");
    let images = all(dir.path(), "img");
    let counts = run(&images, &images[0], 300);
    assert!(counts.iter().sum::<u32>() >= 2000);
}

#[test]
fn mutated_ntfs_images() {
    let dir = unpack_fixtures("ntfs");
    let images = all(dir.path(), "img");
    assert!(run(&images, &images[0], 500).iter().sum::<u32>() >= 2000);
}

fn mutated(folder: &str, least: u32) {
    let dir = unpack_fixtures(folder);
    let images = all(dir.path(), "img");
    let per_image = u64::from(least).div_ceil(images.len() as u64);
    assert!(run(&images, &images[0], per_image).iter().sum::<u32>() >= least);
}

#[test]
fn mutated_xfs_images() {
    mutated("xfs", 2000);
}

#[test]
fn mutated_erofs_images() {
    mutated("erofs", 2000);
}

#[test]
fn mutated_btrfs_images() {
    mutated("btrfs", 800);
    let dir = unpack_fixtures("btrfs");
    let images = [dir.path().join("sum-blake2.img")];
    assert!(run(&images, &images[0], 1500).iter().sum::<u32>() >= 1500);
}

#[test]
fn mutated_volumes() {
    mutated("volumes", 2000);
}

#[test]
fn mutated_qcow2_images() {
    let dir = unpack_fixtures("qcow2");
    let images = all(dir.path(), "qcow2");
    let base = dir.path().join("base.raw");
    assert!(run(&images, &base, 100).iter().sum::<u32>() >= 1300);
}

#[test]
fn mutated_corpus_images() {
    let Some(dir) = crate::support::corpus("mutated corpus images") else {
        return;
    };
    let unpacked = tempfile::tempdir().unwrap();
    let mut images = vec![dir.join("guests/deb12-gpt-ext4/deb12-gpt-ext4.qcow2")];
    for name in [
        "dfvfs/gpt.raw.zst",
        "dfvfs/mbr.raw.zst",
        "dfvfs/lvm.raw.zst",
        "dfvfs/luks1.raw.zst",
        "dfvfs/fat12.raw.zst",
        "dfvfs/ntfs.raw.zst",
        "dfvfs/iso9660.raw.zst",
        "dfvfs/apfs.raw.zst",
        "dfvfs/hfsplus.raw.zst",
        "dfvfs/xfs.raw.zst",
        "dfvfs/ext2.qcow2.zst",
        "syzkaller/iso9660/iso9660_12.img.zst",
        "util-linux/blkid/images-fs/mdraid.img.xz",
        "util-linux/blkid/images-fs/luks2.img.xz",
        "util-linux/blkid/images-fs/swap1.img.xz",
        "util-linux/blkid/images-fs/fat32_xp_label1.img.xz",
    ] {
        let target = unpacked.path().join(name.replace('/', "_"));
        let mut out = File::create(&target).unwrap();
        let mut from = crate::support::decompress(&dir.join(name)).unwrap();
        if from.metadata().unwrap().len() > 64 << 20 {
            continue;
        }
        std::io::copy(&mut from, &mut out).unwrap();
        images.push(target);
    }
    run(&images, &images[0], 60);
}
