//! Which operating system a root directory holds (os-release(5)).

use super::{CONFIG_MAX, clean, ini, legacy};
use crate::fs::NodeKind;
use crate::report::Os;
use crate::vfs::GuestRoot;
use std::collections::BTreeMap;

/// `None` when the file system is no root of a system: /boot and data have no os-release and none of
/// the files that came before it.
///
/// What cannot be read is as good as missing here; [`GuestRoot::take_trouble`] tells.
pub(super) fn detect(root: &GuestRoot, device: &str) -> Option<Os> {
    let mut evidence = Vec::new();
    let release = release(root, &mut evidence).or_else(|| legacy::release(root, &mut evidence))?;
    let get = |key: &str| {
        let value = release.get(key).map(|value| value.trim());
        value.filter(|value| !value.is_empty()).map(clean)
    };
    let distro = get("ID").unwrap_or_else(|| "linux".to_owned());
    let mut version = get("VERSION_ID");
    let mut line = |path: &str| {
        let found = first_line(root, path)?;
        evidence.push(path.to_owned());
        Some(found)
    };
    let mut debian_minor = None;
    if distro == "debian"
        && !version
            .as_deref()
            .is_some_and(|version| version.contains('.'))
    {
        // Debian's point release is told here only; the version to report is os-release's.
        let point = line("/etc/debian_version");
        debian_minor = point
            .as_deref()
            .and_then(|text| text.split('.').nth(1)?.parse().ok());
        // Testing and unstable have a name there, and no version.
        let is_number = |text: &String| text.starts_with(|c: char| c.is_ascii_digit());
        version = version.or_else(|| point.filter(is_number));
    }
    let mut numbers = version.as_deref().unwrap_or_default().split(['.', '-']);
    let major = numbers.next().and_then(|text| text.parse().ok());
    let minor = numbers.next().and_then(|text| text.parse().ok());
    let hostname = line("/etc/hostname").or_else(|| hostname(root));
    let machine_id = line("/etc/machine-id")
        .or_else(|| line("/var/lib/dbus/machine-id"))
        .filter(|id| id != "uninitialized");
    let zone_file = line("/etc/timezone");
    let timezone = zone_of_link(root)
        .or(zone_file)
        .or_else(|| zone_of_clock(root));
    let arch = line("/var/lib/dpkg/arch")
        .or_else(|| line("/etc/apk/arch"))
        .or_else(|| elf_arch(root));
    let (install_date, trace) = install_date(root);
    evidence.extend(trace);
    Some(Os {
        os_type: "linux".to_owned(),
        id_like: get("ID_LIKE")
            .map(|like| like.split_whitespace().map(str::to_owned).collect())
            .unwrap_or_default(),
        major,
        minor: minor.or(debian_minor),
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
        cpe: get("CPE_NAME")
            .and_then(|cpe| legacy::formatted_cpe(&cpe))
            .or_else(|| legacy::cpe(&distro, version.as_deref())),
        install_date: install_date.and_then(|at| super::time::unix(u64::try_from(at).ok()?)),
        root: device.to_owned(),
        subvolume: None,
        software: software(root),
        version,
        distro,
        evidence,
        ..Os::default()
    })
}

fn release(root: &GuestRoot, evidence: &mut Vec<String>) -> Option<BTreeMap<String, String>> {
    for path in ["/etc/os-release", "/usr/lib/os-release"] {
        // A damaged file is as good as a missing one here: the other may be whole.
        if let Ok(Some(text)) = root.text(path, CONFIG_MAX) {
            let release: BTreeMap<String, String> = ini::assignments(&text).into_iter().collect();
            if !release.is_empty() {
                evidence.push(path.to_owned());
                return Some(release);
            }
        }
    }
    None
}

/// First line of a file that says something.
pub(super) fn first_line(root: &GuestRoot, path: &str) -> Option<String> {
    let text = root.text(path, CONFIG_MAX).ok().flatten()?;
    let is_said = |line: &&str| !line.is_empty() && !line.starts_with('#');
    text.lines().map(str::trim).find(is_said).map(clean)
}

/// Older Red Hat systems have it in sysconfig, older SUSE ones in HOSTNAME.
fn hostname(root: &GuestRoot) -> Option<String> {
    if let Some(name) = first_line(root, "/etc/HOSTNAME") {
        return Some(name);
    }
    let text = root
        .text("/etc/sysconfig/network", CONFIG_MAX)
        .ok()
        .flatten()?;
    let settings = ini::assignments(&text);
    let found = settings.into_iter().find(|(key, _)| key == "HOSTNAME");
    found.map(|(_, name)| clean(&name))
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

fn zone_of_clock(root: &GuestRoot) -> Option<String> {
    let text = root
        .text("/etc/sysconfig/clock", CONFIG_MAX)
        .ok()
        .flatten()?;
    let settings = ini::assignments(&text);
    let is_zone = |(key, value): &(String, String)| {
        matches!(key.as_str(), "ZONE" | "TIMEZONE") && !value.is_empty()
    };
    settings
        .into_iter()
        .find(is_zone)
        .map(|(_, zone)| clean(&zone))
}

/// `e_machine` of a program that every system has (ELF header, offset 0x12), named as Debian does.
fn elf_arch(root: &GuestRoot) -> Option<String> {
    for path in [
        "/usr/bin/env",
        "/bin/sh",
        "/bin/busybox",
        "/sbin/init",
        "/lib64/ld-linux-x86-64.so.2",
    ] {
        let Ok(Some(found)) = root.find(path) else {
            continue;
        };
        let Ok(head) = found.head(64) else {
            continue;
        };
        if head.get(..4) != Some(b"\x7fELF") {
            continue;
        }
        let is_big = head.get(5) == Some(&2);
        let machine = head
            .get(0x12..0x14)
            .and_then(|bytes| bytes.try_into().ok())
            .map(if is_big {
                u16::from_be_bytes
            } else {
                u16::from_le_bytes
            });
        let name = match (machine, is_big) {
            (Some(0x03), false) => "i386",
            (Some(0x28), false) => "armhf",
            (Some(0x3e), false) => "amd64",
            (Some(0xb7), false) => "arm64",
            (Some(0xf3), false) => "riscv64",
            (Some(0x102), false) => "loong64",
            (Some(0x15), false) => "ppc64el",
            (Some(0x15), true) => "ppc64",
            (Some(0x16), true) => "s390x",
            _ => continue,
        };
        return Some(name.to_owned());
    }
    None
}

fn init(root: &GuestRoot) -> Option<String> {
    let has = |path: &str| root.exists(path).unwrap_or(false);
    let known = [
        ("systemd", "/usr/lib/systemd/systemd"),
        ("systemd", "/lib/systemd/systemd"),
        ("openrc", "/sbin/openrc"),
        ("openrc", "/usr/sbin/openrc"),
        ("openrc", "/etc/runlevels"),
        ("upstart", "/sbin/initctl"),
        ("runit", "/sbin/runit-init"),
        ("sysv", "/etc/inittab"),
        ("sysv", "/etc/init.d"),
    ];
    let found = known.iter().find(|(_, path)| has(path));
    found.map(|(name, _)| (*name).to_owned())
}

/// What installers leave behind; where there was none, the host key that the first start made.
fn install_date(root: &GuestRoot) -> (Option<i64>, Option<String>) {
    let traces = [
        "/var/log/installer/initial-status.gz",
        "/var/log/installer/syslog",
        "/var/log/installer/subiquity-server-debug.log",
        "/root/anaconda-ks.cfg",
        "/var/log/anaconda/anaconda.log",
        "/root/install.log",
        "/var/log/YaST2/y2start.log",
        "/etc/ssh/ssh_host_ed25519_key",
        "/etc/ssh/ssh_host_rsa_key",
    ];
    for path in traces {
        if let Ok(Some(found)) = root.find(path)
            && let Ok(metadata) = found.metadata()
            && metadata.mtime > 0
        {
            return (Some(metadata.mtime), Some(path.to_owned()));
        }
    }
    (None, None)
}

/// What platform teams ask for first, told by a path that its package brings.
fn software(root: &GuestRoot) -> Vec<String> {
    let known = [
        ("amazon-ssm-agent", "/usr/bin/amazon-ssm-agent"),
        ("cloud-init", "/usr/bin/cloud-init"),
        ("containerd", "/usr/bin/containerd"),
        ("cri-o", "/usr/bin/crio"),
        ("docker", "/usr/bin/dockerd"),
        ("google-guest-agent", "/usr/bin/google_guest_agent"),
        ("hyperv-daemons", "/usr/sbin/hypervkvpd"),
        ("ignition", "/usr/lib/dracut/modules.d/30ignition"),
        ("k3s", "/usr/local/bin/k3s"),
        ("kubelet", "/usr/bin/kubelet"),
        ("lxc", "/usr/bin/lxc-start"),
        ("lxd", "/snap/bin/lxd"),
        ("open-vm-tools", "/usr/bin/vmtoolsd"),
        ("podman", "/usr/bin/podman"),
        ("qemu-guest-agent", "/usr/sbin/qemu-ga"),
        ("qemu-guest-agent", "/usr/bin/qemu-ga"),
        ("runc", "/usr/bin/runc"),
        ("runc", "/usr/sbin/runc"),
        ("spice-vdagent", "/usr/bin/spice-vdagent"),
        ("virtualbox-guest-additions", "/usr/sbin/VBoxService"),
        ("walinuxagent", "/usr/sbin/waagent"),
        ("xe-guest-utilities", "/usr/sbin/xe-daemon"),
    ];
    let mut found: Vec<String> = known
        .iter()
        .filter(|(_, path)| root.exists(path).unwrap_or(false))
        .map(|(name, _)| (*name).to_owned())
        .collect();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::memory::MemoryTree;
    use std::sync::Arc;

    fn of(files: &[(&str, &str)]) -> Option<Os> {
        let root = GuestRoot::new(Arc::new(MemoryTree::of(files)));
        detect(&root, "/dev/sda1")
    }

    #[test]
    fn a_data_disk_is_no_system() {
        assert_eq!(of(&[("/data/etc/os-release", "ID=x")]), None);
        assert_eq!(of(&[("/etc/os-release", "")]), None);
    }

    #[test]
    fn the_version_is_that_of_os_release() {
        let os = of(&[
            ("/etc/os-release", "ID=debian\nVERSION_ID=\"13\"\n"),
            ("/etc/debian_version", "13.5\n"),
        ])
        .unwrap();
        assert_eq!(os.version.as_deref(), Some("13"));
        assert_eq!((os.major, os.minor), (Some(13), Some(5)));
        assert_eq!(
            os.cpe.as_deref(),
            Some("cpe:2.3:o:debian:debian_linux:13:*:*:*:*:*:*:*")
        );
        let sid = of(&[
            ("/etc/os-release", "ID=debian\n"),
            ("/etc/debian_version", "trixie/sid\n"),
        ]);
        assert_eq!(sid.unwrap().version, None);
    }

    #[test]
    fn older_places_are_known() {
        let os = of(&[
            ("/etc/redhat-release", "CentOS release 6.10 (Final)\n"),
            ("/etc/sysconfig/network", "NETWORKING=yes\nHOSTNAME=old\n"),
            ("/etc/sysconfig/clock", "ZONE=\"Europe/Berlin\"\n"),
            ("/etc/inittab", ""),
        ])
        .unwrap();
        assert_eq!(os.hostname.as_deref(), Some("old"));
        assert_eq!(os.timezone.as_deref(), Some("Europe/Berlin"));
        assert_eq!(os.init.as_deref(), Some("sysv"));
        assert_eq!(os.version.as_deref(), Some("6.10"));
    }
}
