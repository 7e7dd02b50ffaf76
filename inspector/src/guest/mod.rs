//! Facts about a guest: each section on its own, so that damage costs one section and not the
//! report.

mod apk;
mod boot;
mod cloud;
mod databases;
mod device;
mod dpkg;
mod fstab;
mod glob;
mod ini;
mod legacy;
mod network;
mod os;
mod packages;
mod pacman;
mod purl;
mod roots;
mod rpm;
mod security;
mod services;
mod time;
mod users;
mod windows;
mod yaml;

use crate::error::{DiskError, Result};
use crate::layers::{Examined, Layers};
use crate::report::{Coverage, InspectReport, MountEntry, Os, OtherSystem, Sections, Warning};
use crate::vfs::GuestRoot;

/// Which sections are wanted: what is left out is not read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InspectOptions {
    /// Packages and databases need the package database.
    pub packages: bool,
    /// Services, timers, cron.
    pub services: bool,
    /// Users and groups.
    pub users: bool,
    /// Network.
    pub network: bool,
    /// sshd, sysctl, sudoers, ….
    pub security: bool,
    /// Swap, crypttab.
    pub storage: bool,
    /// Database servers.
    pub databases: bool,
    /// Kernels and boot loader.
    pub kernels: bool,
    /// Reads much more: licences of Debian packages, a walk of all files for set-uid programs,
    /// world-writable files and file capabilities.
    #[serde(default)]
    pub deep_scan: bool,
}

impl Default for InspectOptions {
    fn default() -> Self {
        Self {
            packages: true,
            services: true,
            users: true,
            network: true,
            security: true,
            storage: true,
            databases: true,
            kernels: true,
            deep_scan: false,
        }
    }
}

impl InspectOptions {
    /// Only the named sections (and the operating system itself).
    ///
    /// # Errors
    /// Names a section that does not exist.
    pub fn only(names: &[String]) -> std::result::Result<Self, String> {
        let mut options = Self {
            packages: false,
            services: false,
            users: false,
            network: false,
            security: false,
            storage: false,
            databases: false,
            kernels: false,
            deep_scan: false,
        };
        for name in names {
            match name.as_str() {
                "packages" => options.packages = true,
                "services" => options.services = true,
                "users" => options.users = true,
                "network" => options.network = true,
                "security" => options.security = true,
                "storage" => options.storage = true,
                "databases" => options.databases = true,
                "kernels" => options.kernels = true,
                "os" | "mounts" => {}
                other => {
                    return Err(format!(
                        "no section {other:?}: os, mounts, packages, services, users, network, security, storage, databases, kernels"
                    ));
                }
            }
        }
        Ok(options)
    }
}

/// Largest configuration file that is read.
pub(crate) const CONFIG_MAX: u64 = 1 << 20;
/// Largest package database in text that is read: Debian's whole archive has 60 MiB.
pub(crate) const PACKAGE_DB_MAX: u64 = 64 << 20;
/// Packages of one manager that are reported.
pub(crate) const PACKAGES_MAX: usize = 200_000;
/// Systems of one disk that are described; a disk of many is made to cost time.
const SYSTEMS_MAX: usize = 16;
/// Warnings of one section.
const WARNINGS_MAX: usize = 200;
/// Longest string of a guest that is repeated.
const STRING_MAX: usize = 4_096;

/// What a section has to work with.
pub(crate) struct Scope<'a> {
    pub(crate) root: &'a GuestRoot,
    pub(crate) layers: &'a Layers,
    pub(crate) os: &'a Os,
    /// Whether what costs many reads is wanted.
    pub(crate) deep: bool,
    section: &'static str,
    warnings: Vec<Warning>,
}

impl Scope<'_> {
    /// Notes what is odd. A section without end of oddities has said enough with the first ones.
    pub(crate) fn warn(&mut self, code: &'static str, path: &str, message: impl Into<String>) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(Warning {
                section: self.section,
                code,
                path: clean(path),
                message: clean(&message.into()),
            });
        }
    }

    /// A file that may be missing; one that cannot be read costs itself only.
    pub(crate) fn text(&mut self, path: &str) -> Option<String> {
        match self.root.text(path, CONFIG_MAX) {
            Ok(text) => text,
            Err(error) => {
                self.warn(code_of(&error), path, error.to_string());
                None
            }
        }
    }

    /// Names of a directory that may be missing.
    pub(crate) fn names(&mut self, path: &str) -> Vec<String> {
        match self.root.list(path) {
            Ok(names) => names.iter().map(crate::vfs::Name::text).collect(),
            Err(error) => {
                self.warn(code_of(&error), path, error.to_string());
                Vec::new()
            }
        }
    }

    pub(crate) fn exists(&mut self, path: &str) -> bool {
        match self.root.exists(path) {
            Ok(exists) => exists,
            Err(error) => {
                self.warn(code_of(&error), path, error.to_string());
                false
            }
        }
    }

    /// Target of a link, as text.
    pub(crate) fn link(&mut self, path: &str) -> Option<String> {
        let target = self.root.find_link(path).and_then(|found| match found {
            Some(found) if found.metadata()?.kind == crate::fs::NodeKind::Symlink => {
                found.read_link().map(Some)
            }
            _ => Ok(None),
        });
        match target {
            Ok(target) => target.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => {
                self.warn(code_of(&error), path, error.to_string());
                None
            }
        }
    }
}

fn code_of(error: &DiskError) -> &'static str {
    match error {
        DiskError::OverBudget { .. } => "over_budget",
        DiskError::Unsupported { .. } => "unsupported",
        DiskError::Denied { .. } => "denied",
        DiskError::NotFound { .. } => "not_found",
        _ => "damaged",
    }
}

/// Text of a guest, fit to be repeated: no control characters, not without end.
pub(crate) fn clean(text: &str) -> String {
    let end = text.floor_char_boundary(STRING_MAX);
    let text = text.get(..end).unwrap_or_default();
    // Nearly all text is plain; a report has thousands of pieces of it.
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return text.to_owned();
    }
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// An operating system that was found.
struct System {
    root: GuestRoot,
    os: Os,
    /// What detecting told, when it is a Windows.
    windows: Option<windows::Detected>,
}

/// Operating systems of an image.
struct Systems {
    /// With their roots, in the order of their devices.
    found: Vec<System>,
    /// Devices that could not be searched to the end, and why.
    trouble: Vec<(String, DiskError)>,
}

fn systems(examined: &Examined) -> Systems {
    let mut found = Vec::new();
    let mut trouble = Vec::new();
    for candidate in &examined.mountable {
        let before = found.len();
        let mut here = Vec::new();
        found.extend(
            roots::systems(candidate, &mut here)
                .into_iter()
                .map(|(root, os)| System {
                    root,
                    os,
                    windows: None,
                }),
        );
        if found.len() == before {
            let root = GuestRoot::new(candidate.reader.clone());
            let fs_type = &candidate.reader.facts().fs_type;
            // Directories that cannot be read tell of no system.
            let detected = windows::detect(&root, fs_type, &candidate.device).unwrap_or_default();
            here.extend(root.take_trouble());
            found.extend(detected.map(|(os, detected)| System {
                root,
                os,
                windows: Some(detected),
            }));
        }
        // One reason a device will do.
        let reason = here.into_iter().next();
        trouble.extend(reason.map(|reason| (candidate.device.clone(), reason)));
        if found.len() >= SYSTEMS_MAX {
            found.truncate(SYSTEMS_MAX);
            break;
        }
    }
    Systems { found, trouble }
}

impl Systems {
    /// Says how far disk and systems could be told, in the sections that every report has.
    fn cover(trouble: Vec<(String, DiskError)>, cut_short: Option<DiskError>, out: &mut Sections) {
        let mut coverage = Coverage::Ok;
        let mut warn = |section, code, path: &str, message: String| {
            out.warnings.push(Warning {
                section,
                code,
                path: path.to_owned(),
                message: clean(&message),
            });
        };
        for (device, error) in trouble {
            coverage = match (&error, coverage) {
                (DiskError::OverBudget { .. }, _) | (_, Coverage::OverBudget) => {
                    Coverage::OverBudget
                }
                _ => Coverage::Partial,
            };
            let message = format!("not all of it was searched for systems: {error}");
            warn("os", code_of(&error), &device, message);
        }
        let mut disk = Coverage::Ok;
        if let Some(error) = cut_short {
            disk = Coverage::OverBudget;
            let message = format!("not all of the disk was looked at: {error}");
            warn("disk", code_of(&error), "", message);
            if coverage == Coverage::Ok {
                coverage = Coverage::Partial;
            }
        }
        out.coverage.insert("disk", disk);
        out.coverage.insert("os", coverage);
        out.warnings.sort();
    }
}

/// The root of the first operating system with what its fstab mounts; without one, of the first
/// file system that can be read.
///
/// # Errors
/// Only when a budget is used up.
pub fn main_root(examined: &Examined) -> Result<Option<GuestRoot>> {
    let Systems { found, trouble } = systems(examined);
    let is_over = |(_, error): &(String, DiskError)| matches!(error, DiskError::OverBudget { .. });
    if let (true, Some((_, error))) = (found.is_empty(), trouble.into_iter().find(is_over)) {
        return Err(error);
    }
    if let Some(System {
        mut root,
        os,
        windows,
    }) = found.into_iter().next()
    {
        if windows.is_some() {
            return Ok(Some(root));
        }
        let mut unused = Sections::default();
        let guest = Guest {
            layers: &examined.layers,
            os: &os,
            deep: false,
        };
        let mounts = guest.run(&root, &mut unused, "mounts", true, fstab::read);
        mount_all(&mut root, &mounts.unwrap_or_default(), examined, &os);
        return Ok(Some(root));
    }
    let first = examined.mountable.first();
    Ok(first.map(|first| GuestRoot::new(first.reader.clone())))
}

fn mount_all(root: &mut GuestRoot, mounts: &[MountEntry], examined: &Examined, os: &Os) {
    for (at, fs, node) in fstab::to_mount(mounts, &examined.mountable, os) {
        root.mount_node(&at, fs, node);
    }
}

/// Finds the operating systems of an examined image and describes each.
///
/// A budget that is used up, at whatever point, ends in gaps that `coverage` tells.
pub fn describe(
    examined: Examined,
    options: &InspectOptions,
    progress: &dyn Fn(&'static str),
) -> InspectReport {
    progress("os");
    let Systems { found, trouble } = systems(&examined);
    let mut report = InspectReport::of(examined.layers.clone());
    for (
        n,
        System {
            mut root,
            os,
            windows,
        },
    ) in found.into_iter().enumerate()
    {
        let layers = &examined.layers;
        let guest = Guest {
            layers,
            os: &os,
            deep: options.deep_scan,
        };
        let sections = match windows {
            Some(found) => windows::sections(&root, layers, &os, found, options, progress),
            None => guest.describe(&mut root, &examined, options, progress),
        };
        report.os.push(os);
        if n == 0 {
            report.sections = sections;
        } else {
            report.more.push(OtherSystem { os: n, sections });
        }
    }
    Systems::cover(trouble, examined.cut_short, &mut report.sections);
    report
}

/// Runs one section of a guest, whatever it is.
fn run<T>(
    root: &GuestRoot,
    layers: &Layers,
    os: &Os,
    out: &mut Sections,
    section: &'static str,
    wanted: bool,
    read: impl FnOnce(&mut Scope<'_>) -> Result<T>,
) -> Option<T> {
    let guest = Guest {
        layers,
        os,
        deep: false,
    };
    guest.run(root, out, section, wanted, read)
}

/// One operating system in the making of its sections.
struct Guest<'a> {
    layers: &'a Layers,
    os: &'a Os,
    deep: bool,
}

impl Guest<'_> {
    fn describe(
        &self,
        root: &mut GuestRoot,
        examined: &Examined,
        options: &InspectOptions,
        progress: &dyn Fn(&'static str),
    ) -> Sections {
        let mut out = Sections::default();
        progress("mounts");
        let mounts = self.run(root, &mut out, "mounts", true, fstab::read);
        mount_all(
            root,
            mounts.as_deref().unwrap_or_default(),
            examined,
            self.os,
        );
        let root = &*root;
        progress("packages");
        let wanted = options.packages || options.databases;
        let packages = self.run(root, &mut out, "packages", wanted, packages::read);
        out.databases = self.run(root, &mut out, "databases", options.databases, |scope| {
            databases::read(scope, packages.as_deref().unwrap_or_default())
        });
        if options.packages {
            out.packages = packages;
        } else {
            out.coverage.insert("packages", Coverage::Skipped);
        }
        out.kernels = self.run(root, &mut out, "kernels", options.kernels, boot::read);
        progress("users");
        let accounts = self.run(root, &mut out, "users", options.users, users::read);
        if let Some((users, groups)) = accounts {
            out.users = Some(users);
            out.groups = Some(groups);
        }
        progress("services");
        out.services = self.run(root, &mut out, "services", options.services, services::read);
        // What runs here beyond units: asked for together with them.
        out.cloud = self.run(root, &mut out, "cloud", options.services, cloud::read);
        progress("network");
        out.network = self.run(root, &mut out, "network", options.network, network::read);
        progress("security");
        out.security = self.run(root, &mut out, "security", options.security, security::read);
        out.storage = self.run(root, &mut out, "storage", options.storage, |scope| {
            fstab::storage(scope, mounts.as_deref().unwrap_or_default())
        });
        out.mounts = mounts;
        out.warnings.sort();
        out
    }

    /// Runs one section: what it could tell, and how far.
    fn run<T>(
        &self,
        root: &GuestRoot,
        out: &mut Sections,
        section: &'static str,
        wanted: bool,
        read: impl FnOnce(&mut Scope<'_>) -> Result<T>,
    ) -> Option<T> {
        if !wanted {
            out.coverage.insert(section, Coverage::Skipped);
            return None;
        }
        let mut scope = Scope {
            root,
            layers: self.layers,
            os: self.os,
            deep: self.deep,
            section,
            warnings: Vec::new(),
        };
        // What another section met is not this one's.
        drop(root.take_trouble());
        let result = read(&mut scope);
        if let (true, Some(error @ DiskError::OverBudget { .. })) =
            (scope.warnings.is_empty(), root.take_trouble())
            && result.is_ok()
        {
            scope.warn(code_of(&error), "", error.to_string());
        }
        let mut coverage = if scope.warnings.is_empty() {
            Coverage::Ok
        } else {
            Coverage::Partial
        };
        let value = match result {
            Ok(value) => Some(value),
            Err(error) => {
                coverage = match &error {
                    DiskError::Unsupported { .. } => Coverage::Unsupported,
                    DiskError::Denied { .. } => Coverage::Denied,
                    DiskError::OverBudget { .. } => Coverage::OverBudget,
                    _ => Coverage::Partial,
                };
                scope.warn(code_of(&error), "", error.to_string());
                None
            }
        };
        out.warnings.append(&mut scope.warnings);
        out.coverage.insert(section, coverage);
        value
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::container::ContainerFacts;
    use crate::fs::memory::MemoryTree;
    use crate::partition::Disk;
    use std::sync::Arc;

    /// Runs a section's reader over a tree; it must not warn.
    pub(crate) fn with_scope<T>(tree: MemoryTree, read: impl FnOnce(&mut Scope<'_>) -> T) -> T {
        let (value, warnings) = warned(tree, read);
        assert_eq!(warnings, []);
        value
    }

    pub(crate) fn warned<T>(
        tree: MemoryTree,
        read: impl FnOnce(&mut Scope<'_>) -> T,
    ) -> (T, Vec<Warning>) {
        let root = GuestRoot::new(Arc::new(tree));
        let layers = Layers {
            image: ContainerFacts::default(),
            disk: Disk::default(),
            further: Vec::new(),
            volumes: Vec::new(),
            filesystems: Vec::new(),
            recognised: true,
        };
        let mut scope = Scope {
            root: &root,
            layers: &layers,
            os: &Os::default(),
            deep: true,
            section: "test",
            warnings: Vec::new(),
        };
        let value = read(&mut scope);
        (value, scope.warnings)
    }
}
