//! Where things lie.

use std::path::{Path, PathBuf};

/// The root of the workspace that this crate was compiled in.
#[must_use]
pub fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Downloads and the state of `./dev kafka`: `$GUESTKIT_DEV_DIR`, else `.dev` in the workspace.
#[must_use]
pub fn dev_dir() -> PathBuf {
    std::env::var_os("GUESTKIT_DEV_DIR").map_or_else(|| root().join(".dev"), PathBuf::from)
}
