//! Container headers, tables and logs with bytes changed and ends cut off: opening and reading ends
//! with an answer, in bounded time, without a panic. Checksums are made right again after the
//! change, or nothing behind them would ever be reached.

use crate::build::{
    self, Change, LOG, NO_LOG, VHD_PARENT, VHDX_PARENT, Vhdx, differencing_vhd, fixed_vhd,
    log_entry, vhdx,
};
use crate::harness::seal::{MIB, reseal_vhd, reseal_vhdx};
use crate::support::{budget, unpack_fixtures};
use guestkit_inspector::container;
use guestkit_inspector::error::{DiskError, Result};
use guestkit_inspector::layer::Memory;
use guestkit_inspector::source::{Opener, Reading, Source};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WALL: Duration = Duration::from_secs(5);
/// Mutations of each format.
const RUNS: u64 = 2000;

type Files = BTreeMap<String, Vec<u8>>;

/// Files by name, all in memory.
struct Folder<'a> {
    image: Arc<Memory>,
    files: &'a Files,
    reading: &'a Reading,
}

impl Opener for Folder<'_> {
    fn image(&self) -> Result<Source> {
        let layer = Arc::clone(&self.image);
        Ok(self.reading.source(layer, (0, 0)))
    }

    fn related(&self, _: &Source, name: &[u8]) -> Result<Source> {
        let name = String::from_utf8_lossy(name).into_owned();
        let at = self.files.keys().position(|known| *known == name);
        let (Some(at), Some(bytes)) = (at, self.files.get(&name)) else {
            return Err(DiskError::NotFound { what: name });
        };
        let layer = Arc::new(Memory(bytes.clone()));
        Ok(self.reading.source(layer, (1, at as u64)))
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end.max(1)
    }
}

/// Where the structures of an image are: offsets and lengths worth changing.
fn structures(name: &str, image: &[u8]) -> Vec<(usize, usize)> {
    let len = image.len();
    match name.rsplit('.').next().unwrap() {
        "vhd" => vec![
            (0, 96),
            (512, 64),
            (512 + 0x240, 72),
            (0x600, 16),
            (0x2000, 16),
            (len - 512, 96),
        ],
        "vhdx" => vec![
            (0x10000, 96),
            (0x20000, 96),
            (0x30000, 96),
            (MIB, 8192),
            (2 * MIB, 256),
            (2 * MIB + 0x10000, 512),
            (3 * MIB, 256),
        ],
        "vdi" => vec![(0x40, 0x180), (512, 512), (0x154, 0x40)],
        "vmdk" if image.starts_with(b"KDMV") => {
            vec![
                (0, 80),
                (512, 1024),
                (0x2800, 0x3000),
                (len.saturating_sub(1536), 1536),
            ]
        }
        "ova" => vec![(0, 2560), (2560, 4096), (len / 2, 4096)],
        _ => vec![(0, len.min(512)), (0x1000.min(len - 1), 0x1000)],
    }
}

fn mutate(name: &str, original: &[u8], random: &mut Random) -> Vec<u8> {
    let mut image = original.to_vec();
    let places = structures(name, original);
    for _ in 0..1 + random.below(4) {
        let (start, len) = places[random.below(places.len())];
        let at = (start + random.below(len)).min(image.len() - 1);
        match random.below(5) {
            0 => image[at] = 0xff,
            1 => image[at] = 0,
            2 => image[at] ^= 1 << random.below(8),
            3 => image[at] = random.below(256) as u8,
            // A field of four bytes with an extreme value.
            _ => {
                let extreme = [0u32, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX];
                let value = extreme[random.below(extreme.len())].to_le_bytes();
                let at = at & !3;
                let end = (at + 4).min(image.len());
                image[at..end].copy_from_slice(&value[..end - at]);
            }
        }
    }
    match name.rsplit('.').next().unwrap() {
        "vhd" => reseal_vhd(&mut image),
        "vhdx" => reseal_vhdx(&mut image),
        _ => {}
    }
    if random.below(10) == 0 {
        image.truncate(random.below(image.len()));
    }
    image
}

/// Opens and reads some of the disk: start, middle, end.
fn read(image: Vec<u8>, files: &Files) -> Result<()> {
    let reading = Reading::new(budget(WALL));
    let opener = Folder {
        image: Arc::new(Memory(image)),
        files,
        reading: &reading,
    };
    let container = container::open(&opener, None)?;
    let len = container.disk.len();
    let mut buf = vec![0; 96 << 10];
    for at in [0, len / 2 + 77, len.saturating_sub(70_000)] {
        let n = (len.saturating_sub(at)).min(buf.len() as u64) as usize;
        container.disk.read_exact_at(at, &mut buf[..n])?;
    }
    Ok(())
}

fn run(images: &[&str], files: &Files) {
    let (mut whole, mut refused) = (0, 0);
    let mut slowest = Duration::ZERO;
    for (index, name) in images.iter().enumerate() {
        let original = &files[*name];
        read(original.clone(), files).unwrap_or_else(|e| panic!("{name}: {e}"));
        for seed in 0..RUNS.div_ceil(images.len() as u64) {
            let mut random = Random((seed + 1) * 0x9e37_79b9 + index as u64 * 7919);
            for _ in 0..4 {
                random.below(2);
            }
            let image = mutate(name, original, &mut random);
            #[allow(clippy::disallowed_methods)] // a test may look at the clock
            let start = Instant::now();
            let outcome =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(image, files)));
            match outcome.unwrap_or_else(|_| panic!("{name}: seed {seed} panicked")) {
                Ok(()) => whole += 1,
                Err(_) => refused += 1,
            }
            slowest = slowest.max(start.elapsed());
        }
    }
    println!("{images:?}: {whole} read, {refused} refused; slowest {slowest:?}");
    assert!(slowest < WALL, "{slowest:?}");
    // Both happen, or the mutations miss what they are for.
    assert!(whole > 50 && refused > 50, "{whole} {refused}");
}

fn fixtures() -> Files {
    let dir = unpack_fixtures("containers");
    let mut files = Files::new();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = Path::new(path.file_name().unwrap()).display().to_string();
        files.insert(name, std::fs::read(&path).unwrap());
    }
    files
}

#[test]
fn mutated_vmdk() {
    let names = [
        "monolithicSparse.vmdk",
        "streamOptimized.vmdk",
        "monolithicFlat.vmdk",
        "parts.vmdk",
        "zeros.vmdk",
        "chain-mid.vmdk",
    ];
    run(&names, &fixtures());
}

#[test]
fn mutated_vhd() {
    let mut files = fixtures();
    let parent = fixed_vhd(vec![7; 128 << 10], VHD_PARENT);
    let here: &[(usize, u8)] = &[(0, 1), (9, 2), (127, 3)];
    let locators = [(b"W2ru", ".\\p.vhd"), (b"W2ku", "C:\\p.vhd")];
    let child = differencing_vhd(
        128 << 10,
        VHD_PARENT,
        &locators,
        "p.vhd",
        &[Some(here), None],
    );
    files.insert("p.vhd".into(), parent);
    files.insert("child.vhd".into(), child);
    let names = ["dynamic.vhd", "fixed.vhd", "child.vhd", "p.vhd"];
    run(&names, &files);
}

#[test]
fn mutated_vhdx() {
    let mut files = fixtures();
    let what = Vhdx {
        size: 2 * MIB as u64,
        sector: 512,
        id: VHDX_PARENT,
        locator: &[],
        table: &[(0, 6, 4), (1, 6, 5)],
        log_guid: NO_LOG,
        file_mib: 6,
    };
    files.insert("p.vhdx".into(), vhdx(&what));
    let locator = [("parent_linkage", VHDX_PARENT), ("relative_path", "p.vhdx")];
    let child = vhdx(&Vhdx {
        id: "{FFFFFFFF-0000-0000-0000-000000000001}",
        locator: &locator,
        table: &[(0, 7, 4), (1, 0, 0), (4096, 6, 5)],
        ..what
    });
    files.insert("child.vhdx".into(), child);
    let mut logged = vhdx(&Vhdx {
        log_guid: LOG,
        ..what
    });
    let sector = vec![5; 4096];
    let data = 4 * MIB as u64;
    let changes = [
        Change::Data(data, &sector),
        Change::Zeros(data + 8192, 8192),
    ];
    let entry = log_entry(9, 0, 6 * MIB as u64, &changes);
    build::write_log(&mut logged, 0, &entry);
    files.insert("logged.vhdx".into(), logged);
    let names = ["dynamic.vhdx", "p.vhdx", "child.vhdx", "logged.vhdx"];
    run(&names, &files);
}

#[test]
fn mutated_vdi() {
    run(&["dynamic.vdi", "static.vdi"], &fixtures());
}

#[test]
fn mutated_packages() {
    let names = ["package.ova", "package-pax.ova", "package-gnu.ova"];
    run(&names, &fixtures());
}

#[test]
fn mutated_qcow() {
    let names = ["old.qcow", "old-compressed.qcow", "old-backed.qcow"];
    run(&names, &fixtures());
}
