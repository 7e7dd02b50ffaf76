//! NetworkManager's nm-settings-keyfile(5). Secrets in them are not repeated.

use super::interface;
use crate::guest::{Scope, clean, ini};
use crate::report::Interface;

const DIRS: [&str; 2] = [
    "/etc/NetworkManager/system-connections",
    "/usr/lib/NetworkManager/system-connections",
];

pub(super) fn read(scope: &mut Scope<'_>) -> Vec<Interface> {
    let mut found = Vec::new();
    for dir in DIRS {
        for name in scope.names(dir) {
            let path = format!("{dir}/{name}");
            let Some(text) = scope.text(&path) else {
                continue;
            };
            let mut one = interface("networkmanager", "", &path);
            for entry in ini::entries(&text) {
                apply(&mut one, &entry);
            }
            found.push(one);
        }
    }
    found
}

fn apply(one: &mut Interface, entry: &ini::Entry) {
    let value = clean(&entry.value);
    match (entry.section.as_str(), entry.key.as_str()) {
        ("connection", "interface-name") => one.name = value,
        ("connection", "id") if one.name.is_empty() => one.name = value,
        ("connection", "type") => {
            one.kind = Some(match value.as_str() {
                "802-3-ethernet" => "ethernet".to_owned(),
                "802-11-wireless" => "wifi".to_owned(),
                _ => value,
            });
        }
        ("ethernet" | "802-3-ethernet" | "wifi" | "802-11-wireless", "mac-address") => {
            one.mac = Some(value);
        }
        ("ipv4", "method") => one.dhcp |= value == "auto",
        // address1=10.0.0.2/24,10.0.0.1: the gateway may stand behind.
        ("ipv4" | "ipv6", key) if key.starts_with("address") => {
            let mut parts = value.split(',').map(str::trim);
            one.addresses.extend(parts.next().map(str::to_owned));
            one.gateways.extend(parts.next().map(str::to_owned));
        }
        ("ipv4" | "ipv6", "gateway") => one.gateways.push(value),
        ("ipv4" | "ipv6", "dns") => {
            let servers = value.split([';', ',']).filter(|server| !server.is_empty());
            one.dns.extend(servers.map(str::to_owned));
        }
        _ => {}
    }
}
