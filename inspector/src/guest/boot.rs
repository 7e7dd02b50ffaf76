//! Kernels and boot loader.

use super::{Scope, clean, ini};
use crate::error::Result;
use crate::report::{Kernel, Kernels};
use std::collections::BTreeMap;

pub(super) fn read(scope: &mut Scope<'_>) -> Result<Kernels> {
    let names = scope.names("/boot");
    let bootloader = [
        ("grub", "/boot/grub/grub.cfg"),
        ("grub", "/boot/grub2/grub.cfg"),
        ("systemd-boot", "/boot/loader/loader.conf"),
        ("extlinux", "/boot/extlinux/extlinux.conf"),
        ("grub", "/etc/default/grub"),
    ]
    .into_iter()
    .find(|(_, path)| scope.exists(path))
    .map(|(name, _)| name.to_owned());
    let lines = command_lines(scope);
    let default_link = ["/vmlinuz", "/boot/vmlinuz"]
        .iter()
        .find_map(|path| scope.link(path))
        .and_then(|target| target.rsplit('/').next().map(str::to_owned));
    let default = default_link.or_else(|| lines.first().map(|(name, _)| name.clone()));
    let by_name: BTreeMap<String, String> = lines.into_iter().rev().collect();
    let mut installed: Vec<Kernel> = names
        .iter()
        .filter_map(|name| {
            let version = name.strip_prefix("vmlinuz-")?;
            let initramfs = [
                format!("initrd.img-{version}"),
                format!("initramfs-{version}.img"),
            ]
            .into_iter()
            .find(|candidate| names.contains(candidate))
            .map(|name| format!("/boot/{}", clean(&name)));
            Some(Kernel {
                version: clean(version),
                path: format!("/boot/{}", clean(name)),
                initramfs,
                default: default.as_deref() == Some(name),
                command_line: by_name.get(name).cloned(),
            })
        })
        .collect();
    installed.sort_unstable();
    Ok(Kernels {
        installed,
        bootloader,
        default_command_line: grub_default(scope),
    })
}

/// `linux /boot/vmlinuz-… options` of each entry, in order.
fn command_lines(scope: &mut Scope<'_>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for path in ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"] {
        let Some(text) = scope.text(path) else {
            continue;
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if !matches!(words.next(), Some("linux" | "linux16" | "linuxefi")) {
                continue;
            }
            if let Some(name) = words.next().and_then(|path| path.rsplit('/').next()) {
                let options = words.collect::<Vec<_>>().join(" ");
                found.push((name.to_owned(), clean(&options)));
            }
        }
    }
    found
}

fn grub_default(scope: &mut Scope<'_>) -> Option<String> {
    let text = scope.text("/etc/default/grub")?;
    let settings: BTreeMap<String, String> = ini::assignments(&text).into_iter().collect();
    let parts: Vec<&str> = ["GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"]
        .iter()
        .filter_map(|key| settings.get(*key))
        .map(String::as_str)
        .filter(|value| !value.is_empty())
        .collect();
    Some(clean(&parts.join(" "))).filter(|line| !line.is_empty())
}
