//! Facts about a guest: each section on its own, so that damage costs one section and not the
//! report.

mod boot;
mod databases;
mod dpkg;
mod fstab;
mod ini;
mod network;
mod os;
mod security;
mod services;
mod users;

use crate::error::{DiskError, Result};
use crate::layers::{Examined, Layers, Mountable};
use crate::report::{Coverage, InspectReport, Os, OtherSystem, Sections, Warning};
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
/// Longest string of a guest that is repeated.
const STRING_MAX: usize = 4_096;

/// What a section has to work with.
pub(crate) struct Scope<'a> {
    pub(crate) root: &'a GuestRoot,
    pub(crate) layers: &'a Layers,
    pub(crate) os: &'a Os,
    section: &'static str,
    warnings: Vec<Warning>,
}

impl Scope<'_> {
    pub(crate) fn warn(&mut self, code: &'static str, path: &str, message: impl Into<String>) {
        self.warnings.push(Warning {
            section: self.section,
            code,
            path: path.to_owned(),
            message: message.into(),
        });
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
    text.get(..end)
        .unwrap_or_default()
        .chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// The root of the first operating system with what its fstab mounts; without one, of the first
/// file system that can be read.
///
/// # Errors
/// Only when a budget is used up.
pub fn main_root(examined: &Examined) -> Result<Option<GuestRoot>> {
    for candidate in &examined.mountable {
        let mut root = GuestRoot::new(candidate.reader.clone());
        let Some(os) = os::detect(&root, &candidate.device)? else {
            continue;
        };
        let mut unused = Sections::default();
        let mounts = run(
            &root,
            &examined.layers,
            &os,
            &mut unused,
            "mounts",
            true,
            fstab::read,
        );
        let mounts = mounts.unwrap_or_default();
        for (at, fs) in fstab::to_mount(&mounts, &examined.mountable, &os.root) {
            root.mount(&at, fs);
        }
        return Ok(Some(root));
    }
    Ok(examined
        .mountable
        .first()
        .map(|first| GuestRoot::new(first.reader.clone())))
}

/// Finds the operating systems of an examined image and describes each.
///
/// # Errors
/// Only when a budget is used up before anything could be told.
pub fn describe(
    examined: Examined,
    options: &InspectOptions,
    progress: &dyn Fn(&'static str),
) -> Result<InspectReport> {
    let Examined { layers, mountable } = examined;
    let mut systems = Vec::new();
    for candidate in &mountable {
        progress("os");
        let root = GuestRoot::new(candidate.reader.clone());
        if let Some(os) = os::detect(&root, &candidate.device)? {
            systems.push((root, os));
        }
    }
    let mut report = InspectReport::of(layers.clone());
    for (n, (mut root, os)) in systems.into_iter().enumerate() {
        let sections = system(&mut root, &layers, &mountable, &os, options, progress);
        report.os.push(os);
        if n == 0 {
            report.sections = sections;
        } else {
            report.more.push(OtherSystem { os: n, sections });
        }
    }
    Ok(report)
}

fn system(
    root: &mut GuestRoot,
    layers: &Layers,
    mountable: &[Mountable],
    os: &Os,
    options: &InspectOptions,
    progress: &dyn Fn(&'static str),
) -> Sections {
    let mut out = Sections::default();
    progress("mounts");
    let mounts = run(root, layers, os, &mut out, "mounts", true, fstab::read);
    if let Some(mounts) = &mounts {
        for (at, fs) in fstab::to_mount(mounts, mountable, &os.root) {
            root.mount(&at, fs);
        }
    }
    let root = &*root;
    progress("packages");
    let wants_packages = options.packages || options.databases;
    let packages = run(
        root,
        layers,
        os,
        &mut out,
        "packages",
        wants_packages,
        dpkg::read,
    );
    if options.databases {
        let known = packages.clone().unwrap_or_default();
        out.databases = run(root, layers, os, &mut out, "databases", true, |scope| {
            databases::read(scope, &known)
        });
    } else {
        out.coverage.insert("databases", Coverage::Skipped);
    }
    if options.packages {
        out.packages = packages;
    }
    out.kernels = run(
        root,
        layers,
        os,
        &mut out,
        "kernels",
        options.kernels,
        boot::read,
    );
    progress("users");
    let accounts = run(
        root,
        layers,
        os,
        &mut out,
        "users",
        options.users,
        users::read,
    );
    if let Some((users, groups)) = accounts {
        out.users = Some(users);
        out.groups = Some(groups);
    }
    progress("services");
    out.services = run(
        root,
        layers,
        os,
        &mut out,
        "services",
        options.services,
        services::read,
    );
    progress("network");
    out.network = run(
        root,
        layers,
        os,
        &mut out,
        "network",
        options.network,
        network::read,
    );
    progress("security");
    out.security = run(
        root,
        layers,
        os,
        &mut out,
        "security",
        options.security,
        security::read,
    );
    out.storage = run(
        root,
        layers,
        os,
        &mut out,
        "storage",
        options.storage,
        |scope| fstab::storage(scope, mounts.as_deref().unwrap_or_default()),
    );
    out.mounts = mounts;
    out.warnings.sort();
    out
}

/// Runs one section: what it could tell, and how far.
fn run<T>(
    root: &GuestRoot,
    layers: &Layers,
    os: &Os,
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
        layers,
        os,
        section,
        warnings: Vec::new(),
    };
    let result = read(&mut scope);
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
