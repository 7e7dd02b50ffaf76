//! netplan(5): files merged by name, later ones over earlier ones.

use super::interface;
use crate::guest::yaml::{self, Node};
use crate::guest::{Scope, clean};
use crate::report::Interface;
use std::collections::BTreeMap;

/// Directories, least important first; a file in a later one hides its namesake.
const DIRS: [&str; 2] = ["/lib/netplan", "/etc/netplan"];
/// Groups of interfaces and their kind.
const GROUPS: [(&str, &str); 8] = [
    ("ethernets", "ethernet"),
    ("wifis", "wifi"),
    ("modems", "modem"),
    ("vlans", "vlan"),
    ("bonds", "bond"),
    ("bridges", "bridge"),
    ("tunnels", "tunnel"),
    ("vrfs", "vrf"),
];

pub(super) fn read(scope: &mut Scope<'_>) -> Vec<Interface> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for dir in DIRS {
        for name in scope.names(dir) {
            if name.ends_with(".yaml") {
                let path = format!("{dir}/{name}");
                files.insert(name, path);
            }
        }
    }
    let mut found: BTreeMap<String, Interface> = BTreeMap::new();
    for path in files.into_values() {
        let Some(text) = scope.text(&path) else {
            continue;
        };
        let Some(document) = yaml::parse(&text) else {
            scope.warn(
                "unsupported",
                &path,
                "YAML that is damaged or uses anchors or tags",
            );
            continue;
        };
        let Some(network) = document.get("network") else {
            continue;
        };
        for (group, kind) in GROUPS {
            let members = network.get(group).map(Node::pairs).unwrap_or_default();
            for (name, settings) in members {
                let known = found
                    .entry(name.clone())
                    .or_insert_with(|| interface("netplan", name, &path));
                known.kind = Some(kind.to_owned());
                known.path = clean(&path);
                apply(known, settings);
            }
        }
    }
    found.into_values().collect()
}

fn apply(interface: &mut Interface, settings: &Node) {
    if let Some(dhcp) = settings.get("dhcp4").or_else(|| settings.get("dhcp6")) {
        interface.dhcp = dhcp.is_true();
    }
    if let Some(dhcp) = settings.get("dhcp6") {
        interface.dhcp |= dhcp.is_true();
    }
    let texts = |node: Option<&Node>| -> Vec<String> {
        let items = node.map(Node::items).unwrap_or_default();
        items.iter().filter_map(Node::text).map(clean).collect()
    };
    for address in settings
        .get("addresses")
        .map(Node::items)
        .unwrap_or_default()
    {
        // An address may carry options of its own: {10.0.0.1/24: {label: x}}.
        let text = address.text().or_else(|| Some(&address.pairs().first()?.0));
        interface.addresses.extend(text.map(clean));
    }
    for key in ["gateway4", "gateway6"] {
        interface.gateways.extend(texts(settings.get(key)));
    }
    for route in settings.get("routes").map(Node::items).unwrap_or_default() {
        let to = route.get("to").and_then(Node::text).unwrap_or_default();
        if matches!(to, "default" | "0.0.0.0/0" | "::/0") {
            interface.gateways.extend(texts(route.get("via")));
        }
    }
    if let Some(servers) = settings.get("nameservers") {
        interface.dns.extend(texts(servers.get("addresses")));
    }
    let matched = settings
        .get("match")
        .and_then(|node| node.get("macaddress"));
    if let Some(mac) = settings.get("macaddress").or(matched).and_then(Node::text) {
        interface.mac = Some(clean(mac));
    }
}
