//! GRUB 2: entries of grub.cfg, or boot loader entries where it says `blscfg`; the choice from
//! `set default` and the environment block (GRUB manual, "The GRUB environment block").

use super::{Loader, bls};
use crate::guest::{Scope, clean, ini};
use crate::report::BootEntry;
use std::collections::BTreeMap;

const DIRS: [&str; 2] = ["/boot/grub", "/boot/grub2"];

/// An entry with the names that it may be chosen by.
struct Named {
    entry: BootEntry,
    id: String,
    /// Place among its neighbours, menu by menu: `1>2`.
    place: String,
}

pub(super) fn read(scope: &mut Scope<'_>) -> Option<Loader> {
    let (dir, text) = DIRS.iter().find_map(|dir| {
        let text = scope.text(&format!("{dir}/grub.cfg"))?;
        Some((*dir, text))
    })?;
    let environment = scope.text(&format!("{dir}/grubenv")).unwrap_or_default();
    let environment: BTreeMap<String, String> =
        ini::assignments(&environment).into_iter().collect();
    let saved = environment.get("saved_entry").map(String::as_str);
    let set = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("set default="))
        .map(|value| value.trim_matches(['"', '\'']))
        .next_back();
    let choice = match set {
        Some(value) if value.starts_with('$') => saved,
        Some(value) => Some(value),
        None => saved,
    };
    let mut entries = entries(&text, &format!("{dir}/grub.cfg"));
    if text.lines().any(|line| line.trim() == "blscfg") {
        let bls = bls::entries(scope, &environment);
        return Some(Loader {
            name: "grub",
            entries: bls::choose(bls, choice),
        });
    }
    let choice = choice.filter(|choice| !choice.is_empty()).unwrap_or("0");
    let last = choice.rsplit('>').next().unwrap_or(choice);
    let at = entries
        .iter()
        .position(|named| named.place == choice)
        .or_else(|| {
            let is_named =
                |named: &Named| named.id == last || named.entry.title.as_deref() == Some(last);
            entries.iter().position(is_named)
        });
    // What names nothing falls back to the first entry, as GRUB does.
    if let Some(named) = entries.get_mut(at.unwrap_or(0)) {
        named.entry.default = true;
    }
    Some(Loader {
        name: "grub",
        entries: entries.into_iter().map(|named| named.entry).collect(),
    })
}

fn entries(text: &str, path: &str) -> Vec<Named> {
    let mut found: Vec<Named> = Vec::new();
    // For each open brace: whether it is a submenu, and how many entries came before it there.
    let mut counts = vec![0_usize];
    let mut menus: Vec<usize> = Vec::new();
    let mut open: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim) {
        let words = words(line);
        let texts: Vec<&str> = words.iter().map(String::as_str).collect();
        match texts.as_slice() {
            ["submenu", ..] => {
                menus.push(take_place(&mut counts));
                counts.push(0);
                open.push("submenu");
            }
            ["menuentry", title, rest @ ..] => {
                let place = take_place(&mut counts);
                let mut parts: Vec<String> = menus.iter().map(ToString::to_string).collect();
                parts.push(place.to_string());
                let id = rest
                    .iter()
                    .position(|word| matches!(*word, "--id" | "$menuentry_id_option"))
                    .and_then(|at| rest.get(at.saturating_add(1)));
                found.push(Named {
                    entry: BootEntry {
                        title: Some(clean(title)),
                        path: clean(path),
                        ..BootEntry::default()
                    },
                    id: id.map(|id| (*id).to_owned()).unwrap_or_default(),
                    place: parts.join(">"),
                });
                open.push("menuentry");
            }
            ["linux" | "linux16" | "linuxefi", kernel, options @ ..] => {
                if let Some(named) = found.last_mut() {
                    named.entry.kernel.get_or_insert_with(|| clean(kernel));
                    let line = clean(&options.join(" "));
                    named.entry.command_line.get_or_insert(line);
                }
            }
            ["initrd" | "initrd16" | "initrdefi", initrd, ..] => {
                if let Some(named) = found.last_mut() {
                    named.entry.initrd.get_or_insert_with(|| clean(initrd));
                }
            }
            ["}", ..] => {
                let closed = open.pop();
                if closed == Some("submenu") {
                    menus.pop();
                    counts.pop();
                }
            }
            // A function or a condition has braces of its own.
            [.., "{"] => open.push("other"),
            _ => {}
        }
    }
    // What is no Linux (memory tests, firmware setup) is an entry all the same.
    found
}

fn take_place(counts: &mut [usize]) -> usize {
    let Some(count) = counts.last_mut() else {
        return 0;
    };
    let place = *count;
    *count = count.saturating_add(1);
    place
}

/// Words of a line, quotes taken off.
fn words(line: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut begun = false;
    for c in line.chars() {
        match (quote, c) {
            (Some(mark), c) if c == mark => quote = None,
            (Some(_), c) => word.push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                begun = true;
            }
            (None, '#') if !begun => break,
            (None, c) if c.is_whitespace() => {
                if begun {
                    out.push(std::mem::take(&mut word));
                    begun = false;
                }
            }
            (None, c) => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        out.push(word);
    }
    out
}
