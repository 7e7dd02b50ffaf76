//! Debian's and Alpine's interfaces(5).

use super::{interface, with_mask};
use crate::guest::{Scope, clean, glob};
use crate::report::Interface;

/// Files that `source` may pull in.
const FILES_MAX: usize = 64;

pub(super) fn read(scope: &mut Scope<'_>) -> Vec<Interface> {
    let mut found = Vec::new();
    let mut todo = vec!["/etc/network/interfaces".to_owned()];
    let mut files = 0_usize;
    while let Some(path) = todo.pop() {
        files = files.saturating_add(1);
        if files > FILES_MAX {
            scope.warn(
                "over_budget",
                &path,
                format!("more than {FILES_MAX} included files"),
            );
            break;
        }
        let text = scope.text(&path).unwrap_or_default().replace("\\\n", " ");
        let mut more = file(scope, &path, &text, &mut found);
        more.reverse();
        todo.append(&mut more);
    }
    // inet and inet6 are two stanzas of one interface.
    let mut merged: Vec<Interface> = Vec::new();
    for one in found {
        match merged.iter_mut().find(|known| known.name == one.name) {
            Some(known) => {
                known.dhcp |= one.dhcp;
                known.addresses.extend(one.addresses);
                known.gateways.extend(one.gateways);
                known.dns.extend(one.dns);
                known.mac = known.mac.take().or(one.mac);
                known.kind = known.kind.take().or(one.kind);
            }
            None => merged.push(one),
        }
    }
    merged.retain(|interface| interface.name != "lo");
    merged
}

/// Reads one file; answers which files it names.
fn file(scope: &mut Scope<'_>, path: &str, text: &str, found: &mut Vec<Interface>) -> Vec<String> {
    let mut more = Vec::new();
    let mut current: Option<Interface> = None;
    let mut mask: Option<String> = None;
    let mut finish = |current: &mut Option<Interface>, mask: &mut Option<String>| {
        if let Some(mut done) = current.take() {
            let mask = mask.take();
            for address in &mut done.addresses {
                *address = with_mask(address, mask.as_deref());
            }
            found.push(done);
        }
    };
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["iface", name, rest @ ..] => {
                finish(&mut current, &mut mask);
                let mut begun = interface("ifupdown", name, path);
                begun.dhcp = rest.iter().any(|word| matches!(*word, "dhcp" | "auto"));
                current = Some(begun);
            }
            ["auto" | "mapping" | "allow-hotplug" | "allow-auto", ..] => {
                finish(&mut current, &mut mask);
            }
            ["source", pattern, ..] => {
                more.extend(glob::paths(scope, &absolute(pattern)));
            }
            ["source-directory", dir, ..] => {
                let dir = absolute(dir);
                let names = scope.names(&dir);
                more.extend(names.iter().map(|name| format!("{dir}/{name}")));
            }
            [key, values @ ..] => {
                if let Some(current) = &mut current {
                    option(current, &mut mask, key, values);
                }
            }
            [] => {}
        }
    }
    finish(&mut current, &mut mask);
    more
}

fn option(current: &mut Interface, mask: &mut Option<String>, key: &str, values: &[&str]) {
    let Some(first) = values.first() else {
        return;
    };
    match key {
        "address" => current.addresses.push(clean(first)),
        "netmask" => *mask = Some((*first).to_owned()),
        "gateway" => current.gateways.push(clean(first)),
        "dns-nameservers" | "dns-nameserver" => {
            current.dns.extend(values.iter().map(|value| clean(value)));
        }
        "hwaddress" => current.mac = values.last().map(|mac| clean(mac)),
        "vlan-raw-device" | "vlan_raw_device" => current.kind = Some("vlan".to_owned()),
        "bridge_ports" | "bridge-ports" => current.kind = Some("bridge".to_owned()),
        "bond-mode" | "bond_mode" | "bond-slaves" => current.kind = Some("bond".to_owned()),
        _ => {}
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/etc/network/{path}")
    }
}
