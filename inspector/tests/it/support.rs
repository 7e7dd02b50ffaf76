//! Corpus access, opening of images, tree walks.

use guestkit_inspector::budget::{Budget, Limits};
use guestkit_inspector::clock;
use guestkit_inspector::container::{self, Container};
use guestkit_inspector::error::{DiskError, Result};
use guestkit_inspector::fs::{FileSystem, NodeId, NodeKind};
use guestkit_inspector::read_at::{Layer, ReadAt};
use guestkit_inspector::source::{HostOpener, HostRoots, MemoryOpener, Reading};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The corpus, or `None` after one line that says what is not run. With `CI=true` that fails.
pub(crate) fn corpus(what: &str) -> Option<PathBuf> {
    let dir = std::env::var_os("GUESTKIT_CORPUS_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/disks"),
        PathBuf::from,
    );
    if dir.join("MANIFEST.tsv").is_file() {
        return Some(dir);
    }
    let line = format!("not run: {what}: no corpus at {}", dir.display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{line}");
    eprintln!("{line}");
    None
}

/// A row of MANIFEST.tsv.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) path: String,
    pub(crate) container: String,
    #[allow(dead_code)] // the table of tests/corpus has a column for it
    pub(crate) partitioning: String,
    pub(crate) filesystem: String,
    pub(crate) kind: String,
}

pub(crate) fn manifest(dir: &Path) -> Vec<Row> {
    let text = std::fs::read_to_string(dir.join("MANIFEST.tsv")).unwrap();
    text.lines()
        .skip(1)
        .map(|line| {
            let f: Vec<&str> = line.split('\t').collect();
            Row {
                path: f[0].into(),
                container: f[3].into(),
                partitioning: f[4].into(),
                filesystem: f[5].into(),
                kind: f[9].into(),
            }
        })
        .collect()
}

/// The row's image, decompressed into a sparse temporary file. `None` when it decompresses to
/// more than 4 GiB.
pub(crate) fn decompress(path: &Path) -> Option<File> {
    let file = File::open(path).unwrap();
    let mut source: Box<dyn Read> = match path.extension().and_then(|e| e.to_str()) {
        Some("zst") => Box::new(zstd::stream::read::Decoder::new(file).unwrap()),
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Some("xz") => Box::new(xz2::read::XzDecoder::new_multi_decoder(file)),
        Some("bz2") => Box::new(bzip2::read::MultiBzDecoder::new(file)),
        _ => return Some(file),
    };
    let mut out = tempfile::tempfile().unwrap();
    unpack(&mut source, out.try_clone().unwrap())?;
    out.rewind().unwrap();
    Some(out)
}

/// Writes what `source` gives, leaving holes for zeros. `None` beyond 4 GiB.
fn unpack(mut source: impl Read, mut out: File) -> Option<()> {
    let mut buf = vec![0; 1 << 16];
    let mut len = 0u64;
    loop {
        let mut got = 0;
        while got < buf.len() {
            match source.read(&mut buf[got..]).unwrap() {
                0 => break,
                n => got += n,
            }
        }
        if got == 0 {
            break;
        }
        if buf[..got].iter().any(|b| *b != 0) {
            out.seek(SeekFrom::Start(len)).unwrap();
            out.write_all(&buf[..got]).unwrap();
        }
        len += got as u64;
        if len > 4 << 30 {
            return None;
        }
    }
    out.set_len(len).unwrap();
    Some(())
}

/// A plain file as a layer.
pub(crate) struct Plain(File, u64);

impl Plain {
    pub(crate) fn layer(file: File) -> Layer {
        let len = file.metadata().unwrap().len();
        Arc::new(Self(file, len))
    }
}

impl ReadAt for Plain {
    fn len(&self) -> u64 {
        self.1
    }
    fn read_exact_at(&self, position: u64, buf: &mut [u8]) -> Result<()> {
        self.0
            .read_exact_at(buf, position)
            .map_err(|e| DiskError::OutOfBounds {
                position,
                wanted: buf.len() as u64,
                end: e.raw_os_error().map_or(self.1, |_| self.1),
            })
    }
}

pub(crate) fn budget(wall: Duration) -> Arc<Budget> {
    let limits = Limits {
        bytes: 4 << 30,
        reads: 10_000_000,
        wall,
        ..Limits::default()
    };
    Budget::new(limits, clock::monotonic(), Arc::new(AtomicBool::new(false)))
}

/// Opens an image that needs no other file.
pub(crate) fn open_alone(layer: Layer, wall: Duration) -> Result<Container> {
    let reading = Reading::new(budget(wall));
    let opener = MemoryOpener {
        layer,
        reading: &reading,
    };
    container::open(&opener, None)
}

/// Opens an image beneath `root`.
pub(crate) fn open_host(root: &Path, name: &str, budget: &Arc<Budget>) -> Result<Container> {
    let roots = HostRoots::new([root])?;
    let reading = Reading::new(Arc::clone(budget));
    let opener = HostOpener {
        roots: &roots,
        path: Path::new(name),
        reading: &reading,
    };
    container::open(&opener, None)
}

/// Path → (kind, size or device, sha256 or target), as the corpus writes it down.
pub(crate) type Tree = BTreeMap<Vec<u8>, (char, u64, String)>;

/// Walks a whole file system. Errors are collected, not fatal: (path, error).
pub(crate) fn walk(fs: &dyn FileSystem, hash: bool) -> (Tree, Vec<(Vec<u8>, DiskError)>) {
    let mut tree = Tree::new();
    let mut errors = Vec::new();
    let mut todo = vec![(fs.root(), Vec::new(), 0)];
    let mut seen = std::collections::HashSet::new();
    while let Some((dir, prefix, depth)) = todo.pop() {
        if depth > 128 || tree.len() > 300_000 || !seen.insert(dir) {
            continue;
        }
        let mut entries: Vec<(Vec<u8>, NodeId)> = Vec::new();
        if let Err(e) = fs.read_dir(dir, &mut |entry| {
            entries.push((entry.name, entry.node));
            ControlFlow::Continue(())
        }) {
            errors.push((prefix.clone(), e));
        }
        for (name, node) in entries {
            let mut path = prefix.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend(&name);
            match entry(fs, node, hash) {
                Ok(row) => {
                    if row.0 == 'd' {
                        todo.push((node, path.clone(), depth + 1));
                    }
                    tree.insert(path, row);
                }
                Err(e) => errors.push((path, e)),
            }
        }
    }
    (tree, errors)
}

fn entry(fs: &dyn FileSystem, node: NodeId, hash: bool) -> Result<(char, u64, String)> {
    let meta = fs.metadata(node)?;
    Ok(match meta.kind {
        NodeKind::Directory => ('d', 0, String::new()),
        NodeKind::File if hash => ('f', meta.size, sha256(fs, node)?),
        NodeKind::File => ('f', meta.size, String::new()),
        NodeKind::Symlink => {
            let target = fs.read_link(node)?;
            ('l', meta.size, String::from_utf8_lossy(&target).into())
        }
        _ => ('o', 0, String::new()),
    })
}

pub(crate) fn sha256(fs: &dyn FileSystem, node: NodeId) -> Result<String> {
    let mut sum = Sha256::new();
    let mut buf = vec![0; 256 << 10];
    let mut at = 0;
    loop {
        let n = fs.read_file_at(node, at, &mut buf)?;
        if n == 0 {
            return Ok(hex(&sum.finalize()));
        }
        sum.update(&buf[..n]);
        at += n as u64;
    }
}

pub(crate) fn sha256_layer(layer: &dyn ReadAt) -> Result<String> {
    let mut sum = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    while at < layer.len() {
        let n = (layer.len() - at).min(buf.len() as u64) as usize;
        layer.read_exact_at(at, &mut buf[..n])?;
        sum.update(&buf[..n]);
        at += n as u64;
    }
    Ok(hex(&sum.finalize()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The committed fixtures of a folder, unpacked into a temporary one.
pub(crate) fn unpack_fixtures(folder: &str) -> tempfile::TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(folder);
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.path().join(path.file_name().unwrap());
        if path.extension().is_some_and(|e| e == "gz") {
            let out = File::create(target.with_extension("")).unwrap();
            unpack(
                flate2::read::MultiGzDecoder::new(File::open(&path).unwrap()),
                out,
            );
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
    to
}
