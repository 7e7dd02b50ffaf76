//! Which firewalls are configured, and whether they start.

use crate::guest::{Scope, clean, ini};
use crate::report::Firewall;

/// Directories whose links start a unit.
const WANTS: [&str; 3] = ["multi-user.target", "sysinit.target", "basic.target"];

pub(super) fn read(scope: &mut Scope<'_>) -> Vec<Firewall> {
    let known = [
        (
            "firewalld",
            "/etc/firewalld/firewalld.conf",
            "firewalld.service",
        ),
        (
            "iptables",
            "/etc/iptables/rules.v4",
            "netfilter-persistent.service",
        ),
        ("iptables", "/etc/sysconfig/iptables", "iptables.service"),
        ("nftables", "/etc/nftables.conf", "nftables.service"),
        (
            "nftables",
            "/etc/sysconfig/nftables.conf",
            "nftables.service",
        ),
        (
            "SuSEfirewall2",
            "/etc/sysconfig/SuSEfirewall2",
            "SuSEfirewall2.service",
        ),
        ("ufw", "/etc/ufw/ufw.conf", "ufw.service"),
    ];
    let mut found = Vec::new();
    for (name, path, unit) in known {
        if !scope.exists(path) {
            continue;
        }
        let mut enabled = starts(scope, unit);
        let mut default = None;
        match name {
            "ufw" => {
                // Its own switch counts: the unit starts in any case.
                enabled = setting(scope, path, "ENABLED").map(|value| value == "yes");
                default = setting(scope, "/etc/default/ufw", "DEFAULT_INPUT_POLICY");
            }
            "firewalld" => default = setting(scope, path, "DefaultZone"),
            _ => {}
        }
        found.push(Firewall {
            name,
            enabled,
            default,
            path: path.to_owned(),
        });
    }
    found.sort_unstable();
    found
}

/// `None` on a system without systemd.
fn starts(scope: &mut Scope<'_>, unit: &str) -> Option<bool> {
    if !scope.exists("/etc/systemd/system") {
        return None;
    }
    let mut links = WANTS
        .iter()
        .map(|target| format!("/etc/systemd/system/{target}.wants/{unit}"));
    Some(links.any(|path| scope.link(&path).is_some()))
}

fn setting(scope: &mut Scope<'_>, path: &str, key: &str) -> Option<String> {
    let text = scope.text(path)?;
    let settings = ini::assignments(&text);
    let found = settings.into_iter().find(|(name, _)| name == key);
    found.map(|(_, value)| clean(&value))
}
