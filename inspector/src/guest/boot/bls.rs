//! Boot loader entries, type #1 (UAPI.1, "Boot Loader Specification"), of systemd-boot and GRUB.

use super::Loader;
use crate::guest::{Scope, clean, glob};
use crate::report::BootEntry;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Where the boot partition may be mounted.
const ROOTS: [&str; 4] = ["/boot", "/efi", "/boot/efi", "/boot/EFI"];
/// Entries that are read.
const FILES_MAX: usize = 1_000;

pub(super) struct Named {
    entry: BootEntry,
    /// File name without its ending.
    id: String,
    version: String,
}

/// systemd-boot.
pub(super) fn read(scope: &mut Scope<'_>) -> Option<Loader> {
    let config = ROOTS
        .iter()
        .find_map(|root| scope.text(&format!("{root}/loader/loader.conf")));
    let entries = entries(scope, &BTreeMap::new());
    if config.is_none() && entries.is_empty() {
        return None;
    }
    let config = config.unwrap_or_default();
    let choice = config.lines().find_map(|line| {
        let (key, value) = line.trim().split_once(char::is_whitespace)?;
        (key == "default").then(|| value.trim())
    });
    Some(Loader {
        name: "systemd-boot",
        entries: choose(entries, choice),
    })
}

/// All entries, the newest version first.
pub(super) fn entries(scope: &mut Scope<'_>, environment: &BTreeMap<String, String>) -> Vec<Named> {
    let mut found: Vec<Named> = Vec::new();
    for root in ROOTS {
        let dir = format!("{root}/loader/entries");
        for name in scope.names(&dir).into_iter().take(FILES_MAX) {
            let Some(id) = name.strip_suffix(".conf") else {
                continue;
            };
            let path = format!("{dir}/{name}");
            if let Some(text) = scope.text(&path) {
                found.push(entry(id, &path, &text, environment));
            }
        }
    }
    found.sort_by(|a, b| compare(&b.version, &a.version).then_with(|| b.id.cmp(&a.id)));
    found
}

/// Marks the entry that starts: the chosen one, else the first.
pub(super) fn choose(entries: Vec<Named>, choice: Option<&str>) -> Vec<BootEntry> {
    let choice = choice.unwrap_or_default().trim_end_matches(".conf");
    let by_number = choice.parse::<usize>().ok().filter(|n| *n < entries.len());
    let is_chosen = |named: &Named| {
        !choice.is_empty()
            && (glob::matches(choice, &named.id) || named.entry.title.as_deref() == Some(choice))
    };
    let at = entries
        .iter()
        .position(is_chosen)
        .or(by_number)
        .unwrap_or(0);
    entries
        .into_iter()
        .enumerate()
        .map(|(n, mut named)| {
            named.entry.default = n == at;
            named.entry
        })
        .collect()
}

fn entry(id: &str, path: &str, text: &str, environment: &BTreeMap<String, String>) -> Named {
    let mut entry = BootEntry {
        path: clean(path),
        ..BootEntry::default()
    };
    let mut version = String::new();
    let mut options = Vec::new();
    for line in text.lines().map(str::trim) {
        let Some((key, value)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        let value = value.trim();
        match key {
            "title" => entry.title = Some(clean(value)),
            "version" => version = clean(value),
            "linux" | "efi" => entry.kernel = Some(clean(value)),
            "initrd" => {
                let first = value.split_whitespace().next().unwrap_or_default();
                entry.initrd.get_or_insert_with(|| clean(first));
            }
            "options" => options.extend(value.split_whitespace().filter_map(|word| {
                // GRUB of Red Hat 8 keeps the options in its environment block.
                match word.strip_prefix('$') {
                    Some(name) => environment.get(name.trim_matches(['{', '}'])).cloned(),
                    None => Some(word.to_owned()),
                }
            })),
            _ => {}
        }
    }
    entry.command_line = Some(clean(&options.join(" "))).filter(|line| !line.is_empty());
    Named {
        entry,
        id: id.to_owned(),
        version,
    }
}

/// Compares versions piece by piece: numbers by value, the rest by text.
fn compare(a: &str, b: &str) -> Ordering {
    let pieces = |text: &str| -> Vec<(u64, String)> {
        text.split(['.', '-', '_', '+', '~'])
            .map(|piece| (piece.parse().unwrap_or(0), piece.to_owned()))
            .collect()
    };
    pieces(a).cmp(&pieces(b))
}
