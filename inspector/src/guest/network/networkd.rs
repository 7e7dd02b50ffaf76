//! systemd.network(5).

use super::interface;
use crate::guest::{Scope, clean, ini};
use crate::report::Interface;
use std::collections::BTreeMap;

/// Least important first. What lies in /usr/lib are examples and containers' defaults.
const DIRS: [&str; 2] = ["/usr/local/lib/systemd/network", "/etc/systemd/network"];

pub(super) fn read(scope: &mut Scope<'_>) -> Vec<Interface> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for dir in DIRS {
        for name in scope.names(dir) {
            if name.ends_with(".network") {
                let path = format!("{dir}/{name}");
                files.insert(name, path);
            }
        }
    }
    let mut found = Vec::new();
    for (file, path) in files {
        let mut text = scope.text(&path).unwrap_or_default();
        let drop_ins = format!("{path}.d");
        for name in scope.names(&drop_ins) {
            if name.ends_with(".conf") {
                text.push('\n');
                text.push_str(
                    &scope
                        .text(&format!("{drop_ins}/{name}"))
                        .unwrap_or_default(),
                );
            }
        }
        let mut one = interface("networkd", &file, &path);
        for entry in ini::entries(&text) {
            let value = clean(&entry.value);
            match (entry.section.as_str(), entry.key.as_str()) {
                ("Match", "Name") => one.name = value,
                ("Match", "MACAddress") => one.mac = Some(value),
                ("Network", "DHCP") => {
                    one.dhcp = !matches!(value.as_str(), "no" | "false" | "none");
                }
                ("Network" | "Address", "Address") => one.addresses.push(value),
                ("Network" | "Route", "Gateway") => one.gateways.push(value),
                ("Network", "DNS") => one.dns.extend(value.split_whitespace().map(clean)),
                _ => {}
            }
        }
        found.push(one);
    }
    found
}
