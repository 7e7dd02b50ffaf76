//! Damaged images of the corpus end with an answer. The sound ones are compared with the answers of
//! reference tools by the program in `tests/corpus`.

use crate::support::{Plain, Row, corpus, decompress, manifest, open_alone, walk};
use guestkit_inspector::layers::{self, Examined};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Wall time that any image may take.
const WALL: Duration = Duration::from_secs(20);

fn examine(dir: &Path, row: &Row) -> Result<Option<Examined>, String> {
    let Some(file) = decompress(&dir.join(&row.path)) else {
        return Ok(None);
    };
    let container = open_alone(Plain::layer(file), WALL).map_err(|e| e.to_string())?;
    layers::examine(&container)
        .map(Some)
        .map_err(|e| e.to_string())
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
