//! Network configuration: interfaces(5), systemd.network(5), NetworkManager keyfiles, resolver.

use super::{Scope, clean, ini};
use crate::error::Result;
use crate::report::{HostLine, Interface, Network};

pub(super) fn read(scope: &mut Scope<'_>) -> Result<Network> {
    let mut network = Network::default();
    ifupdown(scope, &mut network);
    networkd(scope, &mut network);
    network_manager(scope, &mut network);
    let netplan = scope.names("/etc/netplan");
    for name in netplan.iter().filter(|name| name.ends_with(".yaml")) {
        scope.warn(
            "unsupported",
            &format!("/etc/netplan/{name}"),
            "netplan files are not read yet",
        );
    }
    let resolv = scope.text("/etc/resolv.conf").unwrap_or_default();
    for line in resolv.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => network.dns.extend(words.next().map(clean)),
            Some("search" | "domain") => network.search.extend(words.map(clean)),
            _ => {}
        }
    }
    let hosts = scope.text("/etc/hosts").unwrap_or_default();
    network.hosts = hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(HostLine {
                address: clean(words.next()?),
                names: words.map(clean).collect(),
            })
        })
        .collect();
    for (name, path) in [
        ("firewalld", "/etc/firewalld/firewalld.conf"),
        ("iptables", "/etc/iptables/rules.v4"),
        ("nftables", "/etc/nftables.conf"),
        ("ufw", "/etc/ufw/ufw.conf"),
    ] {
        if scope.exists(path) {
            network.firewall.push(name.to_owned());
        }
    }
    network.interfaces.sort_unstable();
    Ok(network)
}

fn ifupdown(scope: &mut Scope<'_>, network: &mut Network) {
    let mut files = vec!["/etc/network/interfaces".to_owned()];
    let dir = "/etc/network/interfaces.d";
    files.extend(scope.names(dir).iter().map(|name| format!("{dir}/{name}")));
    for path in files {
        let text = scope.text(&path).unwrap_or_default();
        let mut current: Option<Interface> = None;
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["iface", name, rest @ ..] => {
                    network.interfaces.extend(current.take());
                    if *name != "lo" {
                        current = Some(Interface {
                            name: clean(name),
                            manager: "ifupdown".to_owned(),
                            dhcp: rest.contains(&"dhcp") || rest.contains(&"auto"),
                            path: clean(&path),
                            ..Interface::default()
                        });
                    }
                }
                ["address", value, ..] => {
                    if let Some(interface) = &mut current {
                        interface.addresses.push(clean(value));
                    }
                }
                ["gateway", value, ..] => {
                    if let Some(interface) = &mut current {
                        interface.gateways.push(clean(value));
                    }
                }
                ["dns-nameservers", values @ ..] => {
                    network.dns.extend(values.iter().map(|value| clean(value)));
                }
                _ => {}
            }
        }
        network.interfaces.extend(current);
    }
}

fn networkd(scope: &mut Scope<'_>, network: &mut Network) {
    let dir = "/etc/systemd/network";
    for name in scope.names(dir) {
        if !name.ends_with(".network") {
            continue;
        }
        let path = format!("{dir}/{name}");
        let mut interface = Interface {
            manager: "networkd".to_owned(),
            path: clean(&path),
            ..Interface::default()
        };
        let text = scope.text(&path).unwrap_or_default();
        for entry in ini::entries(&text) {
            match (entry.section.as_str(), entry.key.as_str()) {
                ("Match", "Name") => interface.name = clean(&entry.value),
                ("Network", "DHCP") => interface.dhcp = !matches!(&*entry.value, "no" | "false"),
                ("Network" | "Address", "Address") => interface.addresses.push(clean(&entry.value)),
                ("Network" | "Route", "Gateway") => interface.gateways.push(clean(&entry.value)),
                ("Network", "DNS") => network.dns.push(clean(&entry.value)),
                _ => {}
            }
        }
        network.interfaces.push(interface);
    }
}

fn network_manager(scope: &mut Scope<'_>, network: &mut Network) {
    let dir = "/etc/NetworkManager/system-connections";
    for name in scope.names(dir) {
        let path = format!("{dir}/{name}");
        let mut interface = Interface {
            manager: "networkmanager".to_owned(),
            path: clean(&path),
            ..Interface::default()
        };
        let text = scope.text(&path).unwrap_or_default();
        for entry in ini::entries(&text) {
            match (entry.section.as_str(), entry.key.as_str()) {
                ("connection", "interface-name") => interface.name = clean(&entry.value),
                ("connection", "id") if interface.name.is_empty() => {
                    interface.name = clean(&entry.value);
                }
                ("ipv4", "method") => interface.dhcp = entry.value == "auto",
                ("ipv4" | "ipv6", key) if key.starts_with("address") => {
                    interface.addresses.push(clean(&entry.value));
                }
                ("ipv4" | "ipv6", "gateway") => interface.gateways.push(clean(&entry.value)),
                _ => {}
            }
        }
        network.interfaces.push(interface);
    }
}
