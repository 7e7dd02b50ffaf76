//! Network configuration: interfaces by whatever manages them, resolver, hosts, firewalls.

mod firewall;
mod ifupdown;
mod keyfile;
mod netplan;
mod networkd;
mod sysconfig;

use super::{Scope, clean};
use crate::error::Result;
use crate::report::{HostLine, Interface, Network};

/// Interfaces, hosts and name servers that are reported.
const LINES_MAX: usize = 10_000;

pub(super) fn read(scope: &mut Scope<'_>) -> Result<Network> {
    let mut network = Network::default();
    let readers = [
        ifupdown::read,
        netplan::read,
        networkd::read,
        keyfile::read,
        sysconfig::read,
    ];
    for reader in readers {
        let found = reader(scope);
        network.interfaces.extend(found);
    }
    resolver(scope, &mut network);
    network.firewall = firewall::read(scope);
    for interface in &mut network.interfaces {
        interface.addresses.sort_unstable();
        interface.addresses.dedup();
        interface.gateways.sort_unstable();
        interface.gateways.dedup();
        network.dns.extend(interface.dns.iter().cloned());
    }
    // Name servers in the order in which they are asked.
    let mut seen = std::collections::BTreeSet::new();
    network.dns.retain(|server| seen.insert(server.clone()));
    network.interfaces.sort_unstable();
    network.interfaces.truncate(LINES_MAX);
    Ok(network)
}

fn resolver(scope: &mut Scope<'_>, network: &mut Network) {
    let resolv = scope.text("/etc/resolv.conf").unwrap_or_default();
    for line in resolv.lines().take(LINES_MAX) {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => network.dns.extend(words.next().map(clean)),
            Some("search" | "domain") => network.search.extend(words.map(clean)),
            _ => {}
        }
    }
    let resolved = scope.text("/etc/systemd/resolved.conf").unwrap_or_default();
    for entry in super::ini::entries(&resolved) {
        let values = entry.value.split_whitespace().map(clean);
        match (entry.section.as_str(), entry.key.as_str()) {
            ("Resolve", "DNS") => network.dns.extend(values),
            ("Resolve", "Domains") => network.search.extend(values),
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
        .take(LINES_MAX)
        .collect();
}

/// An interface of a manager and a file, all else still unknown.
fn interface(manager: &str, name: &str, path: &str) -> Interface {
    Interface {
        name: clean(name),
        manager: manager.to_owned(),
        path: clean(path),
        ..Interface::default()
    }
}

/// `10.0.0.1` and `255.255.255.0` as `10.0.0.1/24`; a mask may be a length already.
fn with_mask(address: &str, mask: Option<&str>) -> String {
    let address = clean(address);
    let Some(mask) = mask.filter(|mask| !mask.is_empty() && !address.contains('/')) else {
        return address;
    };
    let length = match mask.parse::<std::net::Ipv4Addr>() {
        Ok(mask) => mask.to_bits().leading_ones().to_string(),
        Err(_) => clean(mask.trim_start_matches('/')),
    };
    format!("{address}/{length}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::memory::MemoryTree;
    use crate::guest::tests::{warned, with_scope};

    fn of(files: &[(&str, &str)]) -> Network {
        with_scope(MemoryTree::of(files), |scope| read(scope).unwrap())
    }

    #[test]
    fn masks_become_lengths() {
        assert_eq!(with_mask("10.0.0.1", Some("255.255.252.0")), "10.0.0.1/22");
        assert_eq!(with_mask("10.0.0.1", Some("24")), "10.0.0.1/24");
        assert_eq!(with_mask("10.0.0.1/8", Some("255.0.0.0")), "10.0.0.1/8");
        assert_eq!(with_mask("fe80::1", None), "fe80::1");
    }

    #[test]
    fn each_manager_is_read() {
        let network = of(&[
            (
                "/etc/network/interfaces",
                "auto lo eth0\niface lo inet loopback\niface eth0 inet static\n  address 10.0.0.2\n  netmask 255.255.255.0\n  gateway 10.0.0.1\niface eth0 inet6 auto\nsource interfaces.d/*\n",
            ),
            ("/etc/network/interfaces.d/x", "iface eth1 inet dhcp\n"),
            (
                "/etc/netplan/01.yaml",
                "network:\n  ethernets:\n    eth2:\n      dhcp4: yes\n      match: {macaddress: '52:54:00:00:00:01'}\n",
            ),
            (
                "/etc/netplan/02.yaml",
                "network:\n  ethernets:\n    eth2:\n      dhcp4: no\n      addresses: [10.2.0.2/24]\n      routes: [{to: default, via: 10.2.0.1}]\n      nameservers: {addresses: [9.9.9.9]}\n  vlans:\n    v5: {id: 5, link: eth2}\n",
            ),
            (
                "/etc/systemd/network/10.network",
                "[Match]\nName=en*\n[Network]\nDHCP=ipv4\nDNS=1.1.1.1\n[Route]\nGateway=10.3.0.1\n",
            ),
            (
                "/etc/NetworkManager/system-connections/w.nmconnection",
                "[connection]\nid=w\ntype=wifi\n[wifi-security]\npsk=secret\n[ipv4]\nmethod=manual\naddress1=10.4.0.2/24,10.4.0.1\ndns=8.8.8.8;8.8.4.4;\n",
            ),
            (
                "/etc/sysconfig/network-scripts/ifcfg-em1",
                "DEVICE=em1\nBOOTPROTO=none\nIPADDR=10.5.0.2\nPREFIX=16\nGATEWAY=10.5.0.1\nDNS1=10.5.0.3\nHWADDR=00:11:22:33:44:55\n",
            ),
            (
                "/etc/sysconfig/network/ifcfg-eth9",
                "BOOTPROTO='dhcp'\nSTARTMODE='auto'\n",
            ),
            ("/etc/sysconfig/network/routes", "default 10.6.0.1 - -\n"),
            ("/etc/resolv.conf", "nameserver 1.1.1.1\nsearch a b\n"),
            ("/etc/hosts", "127.0.0.1 localhost # x\n"),
            ("/etc/ufw/ufw.conf", "ENABLED=yes\n"),
        ]);
        let get = |name: &str| network.interfaces.iter().find(|i| i.name == name).unwrap();
        let eth0 = get("eth0");
        assert_eq!(
            (eth0.addresses[0].as_str(), eth0.dhcp),
            ("10.0.0.2/24", true)
        );
        assert!(get("eth1").dhcp);
        let eth2 = get("eth2");
        assert_eq!(eth2.addresses, ["10.2.0.2/24"]);
        assert_eq!(eth2.gateways, ["10.2.0.1"]);
        assert!(!eth2.dhcp);
        assert_eq!(eth2.mac.as_deref(), Some("52:54:00:00:00:01"));
        assert_eq!(get("v5").kind.as_deref(), Some("vlan"));
        assert!(get("en*").dhcp);
        let wifi = get("w");
        assert_eq!(wifi.addresses, ["10.4.0.2/24"]);
        assert_eq!(wifi.gateways, ["10.4.0.1"]);
        assert_eq!(get("em1").addresses, ["10.5.0.2/16"]);
        assert!(get("eth9").dhcp);
        assert_eq!(get("eth9").gateways, ["10.6.0.1"]);
        let mut dns = network.dns.clone();
        assert_eq!(dns[0], "1.1.1.1", "that of resolv.conf is asked first");
        dns.sort_unstable();
        assert_eq!(
            dns,
            ["1.1.1.1", "10.5.0.3", "8.8.4.4", "8.8.8.8", "9.9.9.9"]
        );
        assert_eq!(network.firewall[0].enabled, Some(true));
        let json = serde_json::to_string(&network).unwrap();
        assert!(!json.contains("secret"));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let tree = MemoryTree::of(&[("/etc/netplan/x.yaml", "a: &b 1\n")]);
        let (_, warnings) = warned(tree, |scope| read(scope).unwrap());
        assert_eq!(warnings[0].code, "unsupported");
    }
}
