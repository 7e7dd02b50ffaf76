//! Which operating system a root directory holds (os-release(5)).

use super::{CONFIG_MAX, clean, ini};
use crate::error::Result;
use crate::fs::NodeKind;
use crate::report::Os;
use crate::vfs::GuestRoot;
use std::collections::BTreeMap;

/// `None` when the file system is no root of a system: /boot and data have no os-release.
pub(super) fn detect(root: &GuestRoot, device: &str) -> Result<Option<Os>> {
    let mut evidence = Vec::new();
    let mut text = None;
    for path in ["/etc/os-release", "/usr/lib/os-release"] {
        // A damaged file is as good as a missing one here: the other may be whole.
        if let Ok(Some(found)) = root.text(path, CONFIG_MAX) {
            evidence.push(path.to_owned());
            text = Some(found);
            break;
        }
    }
    let Some(text) = text else {
        return Ok(None);
    };
    let release: BTreeMap<String, String> = ini::assignments(&text).into_iter().collect();
    let get = |key: &str| {
        release
            .get(key)
            .filter(|value| !value.is_empty())
            .map(|value| clean(value))
    };
    let distro = get("ID").unwrap_or_else(|| "linux".to_owned());
    let version = get("VERSION_ID");
    let mut numbers = version.as_deref().unwrap_or_default().split('.');
    let major = numbers.next().and_then(|text| text.parse().ok());
    let mut minor = numbers.next().and_then(|text| text.parse().ok());
    let mut line = |path: &str| {
        let found = root.text(path, CONFIG_MAX).ok().flatten()?;
        let first = found.lines().map(str::trim).find(|line| !line.is_empty())?;
        evidence.push(path.to_owned());
        Some(clean(first))
    };
    if minor.is_none() {
        // Debian's point release is told here only; the version to report is os-release's.
        minor = line("/etc/debian_version").and_then(|text| text.split('.').nth(1)?.parse().ok());
    }
    let hostname = line("/etc/hostname");
    let machine_id = line("/etc/machine-id").filter(|id| id != "uninitialized");
    let zone_file = line("/etc/timezone");
    let timezone = zone_of_link(root).or(zone_file);
    let arch = line("/var/lib/dpkg/arch").or_else(|| elf_arch(root));
    Ok(Some(Os {
        os_type: "linux".to_owned(),
        id_like: get("ID_LIKE")
            .map(|like| like.split_whitespace().map(str::to_owned).collect())
            .unwrap_or_default(),
        major,
        minor,
        codename: get("VERSION_CODENAME"),
        variant: get("VARIANT_ID").or_else(|| get("VARIANT")),
        product_name: get("NAME"),
        pretty_name: get("PRETTY_NAME"),
        build: get("BUILD_ID"),
        arch,
        hostname,
        machine_id,
        timezone,
        init: init(root),
        cpe: get("CPE_NAME").or_else(|| cpe(&distro, version.as_deref())),
        root: device.to_owned(),
        software: software(root),
        version,
        distro,
        evidence,
    }))
}

/// /etc/localtime points into the zone database, or is a copy that tells nothing.
fn zone_of_link(root: &GuestRoot) -> Option<String> {
    let link = root.find_link("/etc/localtime").ok()??;
    if link.metadata().ok()?.kind != NodeKind::Symlink {
        return None;
    }
    let target = String::from_utf8_lossy(&link.read_link().ok()?).into_owned();
    let (_, zone) = target.split_once("zoneinfo/")?;
    Some(clean(zone))
}

/// `e_machine` of a program that every system has (ELF-64, offset 0x12).
fn elf_arch(root: &GuestRoot) -> Option<String> {
    for path in ["/usr/bin/env", "/bin/sh", "/bin/busybox"] {
        let Ok(Some(found)) = root.find(path) else {
            continue;
        };
        let mut head = Vec::new();
        // One piece is enough; a read that fails tells nothing.
        let read = found.read_all(|piece| {
            head.extend_from_slice(piece.get(..64).unwrap_or(piece));
            Err(crate::error::DiskError::OverBudget {
                budget: "an ELF header".to_owned(),
            })
        });
        drop(read);
        if head.get(..4) != Some(b"\x7fELF") {
            continue;
        }
        let machine = head
            .get(0x12..0x14)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u16::from_le_bytes);
        let name = match machine {
            Some(0x03) => "i386",
            Some(0x28) => "armhf",
            Some(0x3e) => "amd64",
            Some(0xb7) => "arm64",
            Some(0xf3) => "riscv64",
            _ => continue,
        };
        return Some(name.to_owned());
    }
    None
}

fn init(root: &GuestRoot) -> Option<String> {
    let has = |path: &str| root.exists(path).unwrap_or(false);
    let name = if has("/usr/lib/systemd/systemd") || has("/lib/systemd/systemd") {
        "systemd"
    } else if has("/sbin/openrc") {
        "openrc"
    } else if has("/etc/init.d") {
        "sysv"
    } else {
        return None;
    };
    Some(name.to_owned())
}

/// A well-formed CPE 2.3 name of a distribution whose os-release has none.
fn cpe(distro: &str, version: Option<&str>) -> Option<String> {
    let (vendor, product) = match distro {
        "debian" => ("debian", "debian_linux"),
        "ubuntu" => ("canonical", "ubuntu_linux"),
        _ => return None,
    };
    Some(format!(
        "cpe:2.3:o:{vendor}:{product}:{}:*:*:*:*:*:*:*",
        version.unwrap_or("*")
    ))
}

/// What platform teams ask for first, told by a path that its package brings.
fn software(root: &GuestRoot) -> Vec<String> {
    let known = [
        ("cloud-init", "/usr/bin/cloud-init"),
        ("containerd", "/usr/bin/containerd"),
        ("docker", "/usr/bin/dockerd"),
        ("podman", "/usr/bin/podman"),
        ("open-vm-tools", "/usr/bin/vmtoolsd"),
        ("qemu-guest-agent", "/usr/sbin/qemu-ga"),
        ("walinuxagent", "/usr/sbin/waagent"),
    ];
    known
        .iter()
        .filter(|(_, path)| root.exists(path).unwrap_or(false))
        .map(|(name, _)| (*name).to_owned())
        .collect()
}
