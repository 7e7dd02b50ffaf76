//! extlinux and syslinux (syslinux wiki, "Config").

use super::Loader;
use crate::guest::{Scope, clean};
use crate::report::BootEntry;

const PATHS: [(&str, &str); 5] = [
    ("extlinux", "/boot/extlinux.conf"),
    ("extlinux", "/boot/extlinux/extlinux.conf"),
    ("syslinux", "/boot/syslinux/syslinux.cfg"),
    ("syslinux", "/boot/efi/EFI/syslinux/syslinux.cfg"),
    ("syslinux", "/boot/syslinux.cfg"),
];

pub(super) fn read(scope: &mut Scope<'_>) -> Option<Loader> {
    let (name, path, text) = PATHS
        .iter()
        .find_map(|(name, path)| Some((*name, *path, scope.text(path)?)))?;
    let mut entries: Vec<(String, BootEntry)> = Vec::new();
    let mut default = String::new();
    for line in text.lines().map(str::trim) {
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let value = value.trim();
        match (key.to_ascii_uppercase().as_str(), entries.last_mut()) {
            ("DEFAULT", None) => value.clone_into(&mut default),
            ("LABEL", _) => entries.push((
                value.to_owned(),
                BootEntry {
                    title: Some(clean(value)),
                    path: path.to_owned(),
                    ..BootEntry::default()
                },
            )),
            ("MENU", Some((_, entry))) => {
                let (what, rest) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
                match what.to_ascii_uppercase().as_str() {
                    "LABEL" => entry.title = Some(clean(&rest.replace('^', ""))),
                    "DEFAULT" => entry.default = true,
                    _ => {}
                }
            }
            ("LINUX" | "KERNEL", Some((_, entry))) => entry.kernel = Some(clean(value)),
            ("INITRD", Some((_, entry))) => entry.initrd = Some(clean(value)),
            ("APPEND", Some((_, entry))) => entry.command_line = Some(clean(value)),
            _ => {}
        }
    }
    if !entries.iter().any(|(_, entry)| entry.default) {
        let at = entries.iter().position(|(label, _)| *label == default);
        if let Some((_, entry)) = entries.get_mut(at.unwrap_or(0)) {
            entry.default = true;
        }
    }
    Some(Loader {
        name,
        entries: entries.into_iter().map(|(_, entry)| entry).collect(),
    })
}
