//! Facts of a Windows guest: read from its registry hives, positionally and only what is needed.

mod accounts;
mod applications;
mod databases;
mod hotfixes;
mod keys;
mod mounts;
mod network;
mod os;
mod profiles;
mod purl;
mod security;
mod services;
mod system;

pub(super) use system::System;

use super::{InspectOptions, Scope, run};
use crate::error::Result;
use crate::layers::Layers;
use crate::report::windows::Windows;
use crate::report::{Kernel, Kernels, Os, Sections, Security, Storage};
use crate::vfs::GuestRoot;
use keys::Reader;
use profiles::Profile;

/// A system that was found, with what detecting it told.
pub(super) struct Detected {
    system: System,
    windows: Windows,
}

/// `None` when the file system holds no Windows.
pub(super) fn detect(
    root: &GuestRoot,
    fs_type: &str,
    device: &str,
) -> Result<Option<(Os, Detected)>> {
    let Some(mut system) = System::find(root, fs_type)? else {
        return Ok(None);
    };
    let (os, windows) = os::read(root, &mut system, device);
    Ok(Some((os, Detected { system, windows })))
}

/// Fills the common sections and the one of its own.
pub(super) fn sections(
    root: &GuestRoot,
    layers: &Layers,
    os: &Os,
    detected: Detected,
    options: &InspectOptions,
    progress: &dyn Fn(&'static str),
) -> Sections {
    let Detected {
        mut system,
        mut windows,
    } = detected;
    let mut out = Sections::default();
    let mut profiles: Vec<Profile> = Vec::new();
    // What detection could not read, and the profiles that three sections need.
    run(root, layers, os, &mut out, "windows", true, |scope| {
        let mut reader = std::mem::take(&mut system.reader);
        profiles = profiles::read(&mut reader, &system, windows.system_root.as_deref());
        reader.finish(scope);
        Ok(())
    });
    progress("mounts");
    out.mounts = run(root, layers, os, &mut out, "mounts", true, |scope| {
        with(scope, |_, reader| mounts::read(reader, &system, layers))
    });
    progress("packages");
    out.packages = run(
        root,
        layers,
        os,
        &mut out,
        "packages",
        options.packages,
        |scope| {
            with(scope, |scope, reader| {
                let applications = applications::read(scope, reader, &mut system, &profiles);
                let hotfixes = hotfixes::read(reader, &system);
                let mut packages: Vec<_> = applications
                    .iter()
                    .map(|application| applications::package(application, os))
                    .chain(hotfixes.iter().filter_map(|fix| hotfixes::package(fix, os)))
                    .collect();
                packages.sort_unstable();
                windows.applications = Some(applications);
                windows.hotfixes = Some(hotfixes);
                packages
            })
        },
    );
    out.databases = run(
        root,
        layers,
        os,
        &mut out,
        "databases",
        options.databases,
        |scope| with(scope, |_, reader| databases::read(reader, &system)),
    );
    out.kernels = run(
        root,
        layers,
        os,
        &mut out,
        "kernels",
        options.kernels,
        |scope| Ok(kernels(scope, &system, os)),
    );
    progress("users");
    let accounts = run(
        root,
        layers,
        os,
        &mut out,
        "users",
        options.users,
        |scope| {
            with(scope, |_, reader| {
                accounts::read(reader, &system, &profiles)
            })
        },
    );
    if let Some(accounts) = accounts {
        out.users = Some(accounts.users);
        out.groups = Some(accounts.groups);
        windows.accounts = Some(accounts.accounts);
    }
    progress("services");
    out.services = run(
        root,
        layers,
        os,
        &mut out,
        "services",
        options.services,
        |scope| {
            with(scope, |_, reader| {
                let (services, details) = services::read(reader, &system);
                windows.services = Some(details);
                services
            })
        },
    );
    progress("network");
    out.network = run(
        root,
        layers,
        os,
        &mut out,
        "network",
        options.network,
        |scope| {
            with(scope, |scope, reader| {
                let (network, interfaces) = network::read(scope, reader, &system, &windows);
                windows.interfaces = Some(interfaces);
                network
            })
        },
    );
    progress("security");
    out.security = run(
        root,
        layers,
        os,
        &mut out,
        "security",
        options.security,
        |scope| {
            with(scope, |_, reader| {
                windows.firewall = Some(network::firewall(reader, &system));
                windows.rdp = security::rdp(reader, &system);
                windows.uac = Some(security::uac(reader, &system));
                windows.smb1 = security::smb1(reader, &system, &windows);
                windows.policies = Some(security::policies(reader, &system));
                Security::default()
            })
        },
    );
    out.storage = run(
        root,
        layers,
        os,
        &mut out,
        "storage",
        options.storage,
        |scope| {
            with(scope, |_, reader| Storage {
                swap: security::paging_files(reader, &system),
                ..Storage::default()
            })
        },
    );
    system.hives.sort_unstable();
    windows.hives = system.hives;
    out.windows = Some(windows);
    out.warnings.sort();
    out
}

/// Reads tolerantly; what was damaged becomes warnings of the section.
fn with<'a, T>(
    scope: &mut Scope<'a>,
    read: impl FnOnce(&mut Scope<'a>, &mut Reader) -> T,
) -> Result<T> {
    let mut reader = Reader::default();
    let value = read(scope, &mut reader);
    reader.finish(scope);
    Ok(value)
}

/// Windows has one kernel, of the system's own version.
fn kernels(scope: &mut Scope<'_>, system: &System, os: &Os) -> Kernels {
    let path = format!("{}/System32/ntoskrnl.exe", system.directory);
    let installed = if scope.exists(&path) {
        vec![Kernel {
            version: os.version.clone().unwrap_or_default(),
            path,
            initramfs: None,
            default: true,
            command_line: None,
        }]
    } else {
        Vec::new()
    };
    let bootloader = ["/bootmgr", "/ntldr"]
        .into_iter()
        .find(|path| scope.exists(path))
        .map(|path| path.trim_start_matches('/').to_owned());
    Kernels {
        entries: Vec::new(),
        installed,
        bootloader,
        default_command_line: None,
    }
}
