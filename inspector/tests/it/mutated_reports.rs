//! Whole reports of images whose bytes flip as they are read: container, partitions, volumes, file
//! systems and every section. Errors and partial reports are fine; a panic or no end is not.

use crate::support::{Plain, corpus, decompress};
use guestkit_inspector::budget::{Budget, Limits};
use guestkit_inspector::clock;
use guestkit_inspector::container;
use guestkit_inspector::error::Result;
use guestkit_inspector::guest::InspectOptions;
use guestkit_inspector::read_at::{Layer, ReadAt};
use guestkit_inspector::source::{MemoryOpener, Reading};
use guestkit_inspector::task::{self, Form, Task};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The issue's own number.
const MUTATED_READS_MIN: u64 = 20_000;
/// Every image is read at least so often.
const ROUNDS_MIN: u64 = 2;
/// The whole test; the rounds end earlier where the numbers are reached.
const TIME: Duration = Duration::from_secs(80);
/// One image.
const LIMITS: Limits = Limits {
    bytes: 64 << 20,
    reads: 20_000,
    steps: 2_000_000,
    wall: Duration::from_secs(5),
    ..Limits::DEFAULT
};
/// A report late by more than this has a loop that no budget sees.
const LATE: Duration = Duration::from_secs(10);

/// Flips some bytes of what is read; the same ones on every read of a run.
struct Flipping {
    inner: Layer,
    seed: u64,
    /// One in so many pieces of 64 bytes is hit.
    rarity: u64,
    /// Bytes at the beginning that stay: headers whose check would end everything at once.
    spared: u64,
    hits: Arc<AtomicU64>,
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl ReadAt for Flipping {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, position: u64, buf: &mut [u8]) -> Result<()> {
        self.inner.read_exact_at(position, buf)?;
        let end = position + buf.len() as u64;
        let mut hit = false;
        for piece in position / 64..end.div_ceil(64) {
            let random = mix(self.seed ^ mix(piece));
            let at = piece * 64 + (random >> 8) % 64;
            if !random.is_multiple_of(self.rarity) || at < position.max(self.spared) || at >= end {
                continue;
            }
            let byte = &mut buf[(at - position) as usize];
            *byte = match (random >> 16) % 4 {
                0 => 0,
                1 => 0xff,
                _ => *byte ^ (1 << ((random >> 24) % 8)),
            };
            hit = true;
        }
        self.hits.fetch_add(u64::from(hit), Ordering::Relaxed);
        Ok(())
    }
}

/// Images of guests, of file systems and of volumes: those of the repository and of the corpus.
fn images() -> Vec<(String, Layer)> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut paths: Vec<PathBuf> =
        vec![tests.join("data/guests/deb12-gpt-ext4/deb12-gpt-ext4.qcow2")];
    for folder in [
        "ext", "xfs", "btrfs", "ntfs", "fat", "exfat", "squashfs", "iso9660", "volumes",
    ] {
        let Ok(entries) = std::fs::read_dir(tests.join("fixtures").join(folder)) else {
            continue;
        };
        let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        found.retain(|path| path.to_string_lossy().contains(".img"));
        found.sort();
        found.truncate(4);
        paths.extend(found);
    }
    if let Some(dir) = corpus("mutated reports of the corpus' guests") {
        for guest in [
            "guests/deb12-gpt-ext4/deb12-gpt-ext4.qcow2",
            "guests/win11-mbr-ntfs/win11-mbr-ntfs-streamOptimized.vmdk",
            "guests/fedora40-gpt-btrfs/fedora40-gpt-btrfs-streamOptimized.vmdk",
            "dfvfs/ext2.vhd.zst",
            "dfvfs/ntfs-dynamic.vhdx.zst",
        ] {
            paths.push(dir.join(guest));
        }
    }
    let mut images = Vec::new();
    for path in paths {
        if path.exists()
            && let Some(file) = decompress(&path)
        {
            images.push((
                path.file_name().unwrap().to_string_lossy().into_owned(),
                Plain::layer(file),
            ));
        }
    }
    images
}

fn report(layer: Layer) -> Result<usize> {
    let budget = Budget::new(LIMITS, clock::monotonic(), Arc::default());
    let reading = Reading::new(Arc::clone(&budget));
    let opener = MemoryOpener {
        layer,
        reading: &reading,
    };
    let container = container::open(&opener, None)?;
    let task = Task::Report {
        form: Form::Json,
        options: InspectOptions::default(),
    };
    let mut out = Vec::new();
    task::perform(&task, &[container], &mut out, &|_| budget.begin_part())?;
    Ok(out.len())
}

#[test]
fn reports_of_flipping_images_end_without_a_panic() {
    let images = images();
    let hits = Arc::new(AtomicU64::new(0));
    let (mut reports, mut refused, mut round) = (0_u64, 0_u64, 0_u64);
    let start = now();
    let mut slowest = (Duration::ZERO, String::new());
    'rounds: while round < ROUNDS_MIN || hits.load(Ordering::Relaxed) < MUTATED_READS_MIN {
        for (n, (name, layer)) in images.iter().enumerate() {
            if start.elapsed() > TIME {
                break 'rounds;
            }
            let seed = mix(round * 1_000 + n as u64);
            let flipping = Flipping {
                inner: Arc::clone(layer),
                seed,
                rarity: [16, 64, 256, 1_024][(round % 4) as usize],
                spared: [0, 4_096, 1 << 20][(round % 3) as usize],
                hits: Arc::clone(&hits),
            };
            let begun = now();
            let outcome = catch_unwind(AssertUnwindSafe(|| report(Arc::new(flipping))));
            match outcome {
                Ok(Ok(_)) => reports += 1,
                Ok(Err(_)) => refused += 1,
                Err(_) => panic!("{name}: round {round}, image {n} panicked"),
            }
            if begun.elapsed() > slowest.0 {
                slowest = (begun.elapsed(), format!("{name}, round {round}"));
            }
        }
        round += 1;
    }
    let hits = hits.load(Ordering::Relaxed);
    println!(
        "{hits} mutated reads in {round} rounds of {} images: {reports} reports, {refused} refused; slowest {slowest:?}; {:?}",
        images.len(),
        start.elapsed()
    );
    assert!(slowest.0 < LATE, "{slowest:?}");
    assert!(reports > 0 && refused > 0);
    assert!(
        hits >= MUTATED_READS_MIN,
        "{hits} mutated reads in {TIME:?}"
    );
}

#[allow(clippy::disallowed_methods)] // a test may look at the clock
fn now() -> Instant {
    Instant::now()
}
