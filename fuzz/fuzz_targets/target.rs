//! Every fuzz target: its name says which reader it feeds (`inspector/tests/harness`).
#![no_main]

#[path = "../../inspector/tests/harness/mod.rs"]
mod harness;

use guestkit_inspector::read_at::Layer;
use guestkit_inspector::source::FileLayer;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, LazyLock};

const NAME: &str = env!("CARGO_BIN_NAME");

static TARGET: LazyLock<harness::Target> = LazyLock::new(|| {
    let known = harness::TARGETS.iter().find(|(name, _)| *name == NAME);
    known.expect("no such target in the harness").1
});

/// Images to change, in the order of their names: `bases/TARGET`.
static BASES: LazyLock<Vec<Layer>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bases").join(NAME);
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| -> Layer {
            let file = File::open(path).expect("open a base");
            let length = file.metadata().expect("length of a base").len();
            Arc::new(FileLayer::new(Arc::new(file), length))
        })
        .collect()
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::run(*TARGET, data, &BASES));
