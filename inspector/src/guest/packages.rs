//! Installed packages, whatever manager brought them. A system may have several.

use super::{Scope, apk, dpkg, pacman, rpm};
use crate::error::{DiskError, Result};
use crate::report::Package;

/// Packages, sorted. A system without any database is not a system without packages.
///
/// # Errors
/// `Unsupported` when no database is found, else what reading it fails with.
pub(super) fn read(scope: &mut Scope<'_>) -> Result<Vec<Package>> {
    let mut packages = Vec::new();
    let mut managers = 0_usize;
    let readers = [
        dpkg::read,
        dpkg::read_opkg,
        rpm::read,
        apk::read,
        pacman::read,
    ];
    for reader in readers {
        if let Some(found) = reader(scope)? {
            managers = managers.saturating_add(1);
            packages.extend(found);
        }
    }
    if managers == 0 {
        return Err(DiskError::Unsupported {
            feature: "no known package manager".to_owned(),
        });
    }
    packages.sort_unstable();
    Ok(packages)
}
