//! Kernels and boot loader: which kernels are there, which one starts, with which command line.

mod bls;
mod extlinux;
mod grub;

use super::{Scope, clean, ini};
use crate::error::Result;
use crate::report::{BootEntry, Kernel, Kernels};
use std::collections::BTreeMap;

/// Boot entries that are reported.
const ENTRIES_MAX: usize = 1_000;
/// Starts of names of kernel images.
const IMAGES: [&str; 4] = ["vmlinuz-", "vmlinux-", "Image-", "kernel-"];

/// What one boot loader's configuration says.
#[derive(Default)]
struct Loader {
    name: &'static str,
    entries: Vec<BootEntry>,
}

pub(super) fn read(scope: &mut Scope<'_>) -> Result<Kernels> {
    // A boot loader with entries is the one that starts; defaults alone only say which was meant.
    let readers = [grub::read, bls::read, extlinux::read];
    let found: Vec<Loader> = readers.iter().filter_map(|reader| reader(scope)).collect();
    let chosen = found.iter().position(|loader| !loader.entries.is_empty());
    let mut found = found;
    let loader = match chosen {
        Some(at) => Some(found.swap_remove(at)),
        None => found.into_iter().next(),
    };
    let mut kernels = Kernels {
        default_command_line: grub_default(scope),
        ..Kernels::default()
    };
    if let Some(loader) = loader {
        kernels.bootloader = Some(loader.name.to_owned());
        kernels.entries = loader.entries;
    } else if scope.exists("/etc/default/grub") {
        kernels.bootloader = Some("grub".to_owned());
    }
    if kernels.entries.len() > ENTRIES_MAX {
        let problem = format!("more than {ENTRIES_MAX} boot entries");
        scope.warn("over_budget", "", problem);
        kernels.entries.truncate(ENTRIES_MAX);
    }
    kernels.installed = installed(scope, &kernels.entries);
    Ok(kernels)
}

fn installed(scope: &mut Scope<'_>, entries: &[BootEntry]) -> Vec<Kernel> {
    let names = scope.names("/boot");
    let default_entry = entries.iter().find(|entry| entry.default);
    let link = ["/vmlinuz", "/boot/vmlinuz", "/boot/Image"]
        .iter()
        .find_map(|path| scope.link(path));
    let default = default_entry
        .and_then(|entry| entry.kernel.clone())
        .or(link)
        .map(|path| base(&path).to_owned());
    let mut command_lines: BTreeMap<&str, &str> = BTreeMap::new();
    for entry in entries {
        if let (Some(kernel), Some(line)) = (&entry.kernel, &entry.command_line) {
            // The first entry of a kernel is the plain one; rescue entries come behind.
            command_lines.entry(base(kernel)).or_insert(line);
        }
    }
    let mut found = Vec::new();
    for name in &names {
        let Some(version) = IMAGES.iter().find_map(|start| name.strip_prefix(start)) else {
            continue;
        };
        let initramfs = [
            format!("initrd.img-{version}"),
            format!("initramfs-{version}.img"),
            format!("initrd-{version}"),
            format!("initramfs-{version}"),
        ]
        .into_iter()
        .find(|candidate| names.contains(candidate))
        .map(|name| format!("/boot/{}", clean(&name)));
        found.push(Kernel {
            version: clean(version),
            path: format!("/boot/{}", clean(name)),
            initramfs,
            default: default.as_deref() == Some(name),
            command_line: command_lines
                .get(name.as_str())
                .map(|line| (*line).to_owned()),
        });
    }
    // Some keep the image beside the modules, and put a copy on a boot partition that is not mounted.
    for version in scope.names("/usr/lib/modules") {
        let version = clean(&version);
        let path = format!("/usr/lib/modules/{version}/vmlinuz");
        if !found.iter().any(|kernel| kernel.version == version) && scope.exists(&path) {
            found.push(Kernel {
                version,
                path,
                initramfs: None,
                default: false,
                command_line: None,
            });
        }
    }
    found.sort_unstable();
    found
}

/// Last component of a path.
fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Command line that new entries of GRUB get.
fn grub_default(scope: &mut Scope<'_>) -> Option<String> {
    let mut text = scope.text("/etc/default/grub").unwrap_or_default();
    // Later files add to what came before (cloud images keep theirs here).
    for name in scope.names("/etc/default/grub.d") {
        if name.ends_with(".cfg") {
            let path = format!("/etc/default/grub.d/{name}");
            text.push('\n');
            text.push_str(&scope.text(&path).unwrap_or_default());
        }
    }
    let settings: BTreeMap<String, String> = ini::assignments(&text).into_iter().collect();
    let parts: Vec<&str> = ["GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"]
        .iter()
        .filter_map(|key| settings.get(*key))
        .map(String::as_str)
        .filter(|value| !value.is_empty())
        .collect();
    Some(clean(&parts.join(" "))).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::memory::MemoryTree;
    use crate::guest::tests::with_scope;

    fn of(files: &[(&str, &str)]) -> Kernels {
        with_scope(MemoryTree::of(files), |scope| read(scope).unwrap())
    }

    #[test]
    fn grub_says_which_kernel_starts() {
        let found = of(&[
            ("/boot/vmlinuz-1", ""),
            ("/boot/initrd.img-1", ""),
            ("/boot/vmlinuz-2", ""),
            (
                "/boot/grub/grub.cfg",
                "set default=\"${saved_entry}\"\nmenuentry 'A' --id a {\n linux /vmlinuz-2 root=x ro quiet\n initrd /initrd.img-2\n}\nsubmenu 'more' {\n menuentry \"B\" --id b {\n  linux /vmlinuz-1 root=x single\n }\n}\n",
            ),
            (
                "/boot/grub/grubenv",
                "# GRUB Environment Block\nsaved_entry=more>b\n####",
            ),
            (
                "/etc/default/grub",
                "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\nGRUB_CMDLINE_LINUX=\"a=b\"\n",
            ),
        ]);
        assert_eq!(found.bootloader.as_deref(), Some("grub"));
        assert_eq!(found.default_command_line.as_deref(), Some("a=b quiet"));
        assert_eq!(found.entries.len(), 2);
        let rows: Vec<_> = found
            .installed
            .iter()
            .map(|k| (&*k.version, k.default))
            .collect();
        assert_eq!(rows, [("1", true), ("2", false)]);
        assert_eq!(
            found.installed[0].command_line.as_deref(),
            Some("root=x single")
        );
        assert_eq!(
            found.installed[0].initramfs.as_deref(),
            Some("/boot/initrd.img-1")
        );
    }

    #[test]
    fn boot_loader_entries_are_read() {
        let files = [
            (
                "/boot/loader/entries/m-6.8.conf",
                "title Fedora (6.8)\nversion 6.8\nlinux /vmlinuz-6.8\ninitrd /i.img\noptions root=x $kernelopts\n",
            ),
            (
                "/boot/loader/entries/m-6.10.conf",
                "title Fedora (6.10)\nversion 6.10\nlinux /vmlinuz-6.10\noptions root=y\n",
            ),
            ("/boot/vmlinuz-6.8", ""),
            ("/boot/vmlinuz-6.10", ""),
        ];
        let found = of(&files);
        assert_eq!(found.bootloader.as_deref(), Some("systemd-boot"));
        let default = |found: &Kernels| -> Vec<String> {
            let kernels = found.installed.iter().filter(|kernel| kernel.default);
            kernels.map(|kernel| kernel.version.clone()).collect()
        };
        // Without a choice the newest starts: 6.10 comes after 6.8.
        assert_eq!(default(&found), ["6.10"]);
        let mut files = files.to_vec();
        files.push(("/boot/grub2/grub.cfg", "blscfg\n"));
        files.push((
            "/boot/grub2/grubenv",
            "saved_entry=m-6.8\nkernelopts=quiet splash\n",
        ));
        let found = of(&files);
        assert_eq!(found.bootloader.as_deref(), Some("grub"));
        assert_eq!(default(&found), ["6.8"]);
        let kernel = found.installed.iter().find(|k| k.version == "6.8").unwrap();
        assert_eq!(kernel.command_line.as_deref(), Some("root=x quiet splash"));
    }

    #[test]
    fn extlinux_is_read() {
        let found = of(&[
            (
                "/boot/extlinux.conf",
                "DEFAULT menu.c32\nDEFAULT virt\nLABEL lts\n  LINUX vmlinuz-lts\nLABEL virt\n  MENU LABEL Linux virt\n  LINUX vmlinuz-virt\n  INITRD initramfs-virt\n  APPEND root=UUID=x quiet\n",
            ),
            ("/boot/vmlinuz-virt", ""),
            ("/boot/initramfs-virt", ""),
        ]);
        assert_eq!(found.bootloader.as_deref(), Some("extlinux"));
        assert!(found.installed[0].default);
        assert_eq!(
            found.installed[0].initramfs.as_deref(),
            Some("/boot/initramfs-virt")
        );
        assert_eq!(found.entries[1].title.as_deref(), Some("Linux virt"));
    }
}
