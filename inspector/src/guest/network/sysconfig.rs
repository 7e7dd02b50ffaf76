//! ifcfg files of Red Hat (network-scripts) and SUSE (wicked, ifcfg(5)).

use super::{interface, with_mask};
use crate::guest::{Scope, clean, ini};
use crate::report::Interface;
use std::collections::BTreeMap;

pub(super) fn read(scope: &mut Scope<'_>) -> Vec<Interface> {
    let mut found = files(scope, "/etc/sysconfig/network-scripts", "ifcfg");
    let mut suse = files(scope, "/etc/sysconfig/network", "wicked");
    if !suse.is_empty() {
        // destination gateway netmask interface
        let routes = scope
            .text("/etc/sysconfig/network/routes")
            .unwrap_or_default();
        for line in routes.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (["default", gateway, ..], device) = (words.as_slice(), words.get(3)) else {
                continue;
            };
            for one in &mut suse {
                if device.is_none_or(|device| *device == "-" || *device == one.name) {
                    one.gateways.push(clean(gateway));
                }
            }
        }
        found.append(&mut suse);
    }
    for name in scope.names("/etc/wicked/ifconfig") {
        let path = format!("/etc/wicked/ifconfig/{name}");
        scope.warn("unsupported", &path, "wicked's XML is not read");
    }
    found
}

fn files(scope: &mut Scope<'_>, dir: &str, manager: &str) -> Vec<Interface> {
    let mut found = Vec::new();
    for file in scope.names(dir) {
        let Some(name) = file.strip_prefix("ifcfg-") else {
            continue;
        };
        let is_left_over = name.ends_with('~') || name.contains(".rpm") || name.ends_with(".bak");
        if name == "lo" || name == "template" || is_left_over {
            continue;
        }
        let path = format!("{dir}/{file}");
        if let Some(text) = scope.text(&path) {
            let settings: BTreeMap<String, String> = ini::assignments(&text).into_iter().collect();
            found.push(of(manager, name, &path, &settings));
        }
    }
    found
}

fn of(manager: &str, name: &str, path: &str, settings: &BTreeMap<String, String>) -> Interface {
    let get = |key: &str| settings.get(key).filter(|value| !value.is_empty());
    let name = get("DEVICE").map_or(name, String::as_str);
    let mut one = interface(manager, name, path);
    let proto = get("BOOTPROTO")
        .map(|proto| proto.to_lowercase())
        .unwrap_or_default();
    one.dhcp = proto.starts_with("dhcp") || proto == "bootp" || proto.starts_with("auto");
    for (key, value) in settings {
        if value.is_empty() {
            continue;
        }
        // IPADDR, IPADDR0, IPADDR_1, with PREFIX or NETMASK of the same ending.
        if let Some(ending) = key.strip_prefix("IPADDR") {
            let mask = ["PREFIX", "PREFIXLEN", "NETMASK"]
                .iter()
                .find_map(|start| get(&format!("{start}{ending}")));
            one.addresses
                .push(with_mask(value, mask.map(String::as_str)));
        } else if key == "IPV6ADDR" || key == "IPV6ADDR_SECONDARIES" {
            one.addresses.extend(value.split_whitespace().map(clean));
        } else if key == "IPV6_DEFAULTGW" || key.starts_with("GATEWAY") && key != "GATEWAYDEV" {
            one.gateways.push(clean(value));
        } else if key.starts_with("DNS") && key.bytes().skip(3).all(|b| b.is_ascii_digit()) {
            one.dns.push(clean(value));
        }
    }
    one.mac = get("HWADDR")
        .or_else(|| get("MACADDR"))
        .map(|mac| clean(mac));
    one.kind = if get("VLAN").is_some() || get("ETHERDEVICE").is_some() {
        Some("vlan".to_owned())
    } else if get("BONDING_MASTER").is_some() || get("BONDING_OPTS").is_some() {
        Some("bond".to_owned())
    } else {
        get("TYPE").map(|kind| clean(&kind.to_lowercase()))
    };
    one
}
