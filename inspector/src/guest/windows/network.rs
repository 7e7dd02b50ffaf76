//! Network: the interfaces of Tcpip, names, and the firewall's profiles.

use super::keys::{Reader, Values};
use super::system::System;
use crate::guest::{Scope, clean};
use crate::report::windows::{FirewallProfile, Windows, WindowsInterface};
use crate::report::{Firewall, HostLine, Interface, Network};

const TCPIP: &str = "Services\\Tcpip\\Parameters";
/// Class of network adapters: names of connections stand below.
const CONNECTIONS: &str = "Control\\Network\\{4D36E972-E325-11CE-BFC1-08002BE10318}";
const FIREWALL: &str = "Services\\SharedAccess\\Parameters\\FirewallPolicy";
const FIREWALL_POLICY: &str = "Policies\\Microsoft\\WindowsFirewall";
/// Interfaces of one system, those of removed adapters included.
const INTERFACES_MAX: usize = 1_000;

pub(super) fn read(
    scope: &mut Scope<'_>,
    reader: &mut Reader,
    system: &System,
    windows: &Windows,
) -> (Network, Vec<WindowsInterface>) {
    let interfaces = interfaces(reader, system);
    let mut network = Network::default();
    if let Some((hive, path)) = system.control(TCPIP) {
        let values = reader.values_at(hive, &path);
        network.dns = list(reader, &values, "NameServer");
        network.search = list(reader, &values, "SearchList");
        let place = format!("{}\\{path}\\Interfaces", hive.name);
        for interface in &interfaces {
            network.dns.extend(interface.dns.iter().cloned());
            // The loopback and adapters that were never set up have a key too.
            if !interface.dhcp && interface.addresses.is_empty() {
                continue;
            }
            network.interfaces.push(Interface {
                name: interface
                    .name
                    .clone()
                    .unwrap_or_else(|| interface.guid.clone()),
                manager: "windows".to_owned(),
                dhcp: interface.dhcp,
                addresses: interface.addresses.clone(),
                gateways: interface.gateways.clone(),
                dns: interface.dns.clone(),
                kind: None,
                mac: None,
                path: format!("{place}\\{}", interface.guid),
            });
        }
    }
    if network.search.is_empty() {
        network.search.extend(windows.domain.clone());
    }
    network.dns.sort_unstable();
    network.dns.dedup();
    network.interfaces.sort_unstable();
    let path = format!("{}/System32/drivers/etc/hosts", system.directory);
    let hosts = scope.text(&path).unwrap_or_default();
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
    network.firewall = firewall(reader, system)
        .into_iter()
        .map(|profile| Firewall {
            name: "windows",
            enabled: Some(profile.enabled),
            default: Some(profile.profile.to_owned()),
            path: format!("SYSTEM\\{FIREWALL}"),
        })
        .collect();
    (network, interfaces)
}

fn interfaces(reader: &mut Reader, system: &System) -> Vec<WindowsInterface> {
    let mut found = Vec::new();
    let keys = system
        .control(&format!("{TCPIP}\\Interfaces"))
        .and_then(|(hive, path)| reader.key(hive, &path))
        .map(|key| reader.subkeys(&key))
        .unwrap_or_default();
    let connections = system
        .control(CONNECTIONS)
        .and_then(|(hive, path)| reader.key(hive, &path));
    for key in keys.iter().take(INTERFACES_MAX) {
        let values = reader.values(key);
        let connection = connections
            .as_ref()
            .and_then(|all| reader.below(all, &format!("{}\\Connection", key.name())));
        let name = connection.and_then(|key| reader.values(&key).text(reader, "Name"));
        let masks = values.texts(reader, "SubnetMask");
        let addresses = values
            .texts(reader, "IPAddress")
            .iter()
            .enumerate()
            .filter(|(_, address)| *address != "0.0.0.0")
            .map(
                |(n, address)| match masks.get(n).and_then(|mask| prefix(mask)) {
                    Some(prefix) => format!("{address}/{prefix}"),
                    None => address.clone(),
                },
            )
            .collect();
        let address = |reader: &mut Reader, name: &str| {
            values
                .text(reader, name)
                .filter(|address| address != "0.0.0.0" && address != "255.255.255.255")
        };
        found.push(WindowsInterface {
            guid: clean(key.name()),
            name,
            dhcp: values.number(reader, "EnableDHCP") == Some(1),
            addresses,
            gateways: values.texts(reader, "DefaultGateway"),
            dns: list(reader, &values, "NameServer"),
            dhcp_address: address(reader, "DhcpIPAddress"),
            dhcp_server: address(reader, "DhcpServer"),
            dhcp_dns: list(reader, &values, "DhcpNameServer"),
            domain: values
                .text(reader, "Domain")
                .or_else(|| values.text(reader, "DhcpDomain")),
        });
    }
    found.sort_unstable();
    found
}

/// Text with entries between blanks or commas.
fn list(reader: &mut Reader, values: &Values<'_>, name: &str) -> Vec<String> {
    let text = values.text(reader, name).unwrap_or_default();
    text.split([' ', ',', ';'])
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Length of a contiguous mask.
fn prefix(mask: &str) -> Option<u32> {
    let bits = u32::from(mask.parse::<std::net::Ipv4Addr>().ok()?);
    (bits.leading_ones() == bits.count_ones() && bits != 0).then(|| bits.count_ones())
}

/// The profiles with their effective settings: a policy wins over the local one. What says nothing
/// filters and blocks, as Windows does.
pub(super) fn firewall(reader: &mut Reader, system: &System) -> Vec<FirewallProfile> {
    let mut profiles = Vec::new();
    for (profile, key, policy_key) in [
        ("domain", "DomainProfile", "DomainProfile"),
        ("private", "StandardProfile", "PrivateProfile"),
        ("public", "PublicProfile", "PublicProfile"),
    ] {
        let local = system
            .control(&format!("{FIREWALL}\\{key}"))
            .and_then(|(hive, path)| reader.key(hive, &path))
            .map(|key| reader.values(&key));
        let policy = reader.values_at(
            system.software.as_ref(),
            &format!("{FIREWALL_POLICY}\\{policy_key}"),
        );
        let by_policy = policy.flag(reader, "EnableFirewall");
        let blocked_by_policy = policy.flag(reader, "DefaultInboundAction");
        let (Some(local), by_policy) = (local, by_policy) else {
            continue;
        };
        profiles.push(FirewallProfile {
            profile,
            enabled: by_policy
                .or_else(|| local.flag(reader, "EnableFirewall"))
                .unwrap_or(true),
            by_policy: by_policy.is_some(),
            block_inbound: blocked_by_policy
                .or_else(|| local.flag(reader, "DefaultInboundAction"))
                .unwrap_or(true),
        });
    }
    profiles
}

#[cfg(test)]
mod tests {
    use super::prefix;

    #[test]
    fn masks() {
        assert_eq!(prefix("255.255.252.0"), Some(22));
        assert_eq!(
            (prefix("255.0.255.0"), prefix("0.0.0.0"), prefix("x")),
            (None, None, None)
        );
    }
}
