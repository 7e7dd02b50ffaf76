//! Init scripts: System V run levels, OpenRC run levels (rc-update(8)), upstart jobs (init(5)).

use crate::guest::{Scope, clean};
use crate::report::Service;
use std::collections::{BTreeMap, BTreeSet};

/// Scripts that are looked at.
const SCRIPTS_MAX: usize = 10_000;
/// Helpers that lie among the scripts.
const NO_SERVICE: [&str; 7] = [
    "README",
    "functions",
    "functions.sh",
    "skeleton",
    "rc",
    "rcS",
    "rc.status",
];

pub(super) fn services(scope: &mut Scope<'_>) -> Vec<Service> {
    let mut found = upstart(scope);
    let openrc = runlevels(scope);
    let (manager, levels) = if openrc.is_empty() {
        ("sysv", rc_links(scope))
    } else {
        ("openrc", openrc)
    };
    // Red Hat keeps the scripts below rc.d; /etc/init.d is a link to it.
    let dir = if scope.exists("/etc/init.d") {
        "/etc/init.d"
    } else {
        "/etc/rc.d/init.d"
    };
    for name in scope.names(dir).into_iter().take(SCRIPTS_MAX) {
        let is_left_over = name.contains(".dpkg-") || name.contains(".rpm") || name.ends_with('~');
        if name.starts_with('.') || is_left_over || NO_SERVICE.contains(&name.as_str()) {
            continue;
        }
        let runlevels: Vec<String> = levels
            .get(&name)
            .map(|levels| levels.iter().map(|level| clean(level)).collect())
            .unwrap_or_default();
        found.push(Service {
            manager,
            state: if runlevels.is_empty() {
                "disabled"
            } else {
                "enabled"
            },
            path: format!("{dir}/{}", clean(&name)),
            name: clean(&name),
            runlevels,
            ..Service::default()
        });
    }
    found
}

type Levels = BTreeMap<String, BTreeSet<String>>;

/// `/etc/runlevels/default/sshd`.
fn runlevels(scope: &mut Scope<'_>) -> Levels {
    let mut levels = Levels::new();
    for level in scope.names("/etc/runlevels").into_iter().take(64) {
        for name in scope.names(&format!("/etc/runlevels/{level}")) {
            levels.entry(name).or_default().insert(level.clone());
        }
    }
    levels
}

/// `/etc/rc3.d/S20ssh`: S, two digits, name.
fn rc_links(scope: &mut Scope<'_>) -> Levels {
    let mut levels = Levels::new();
    for level in ["S", "2", "3", "4", "5"] {
        let mut links = BTreeSet::new();
        for dir in ["/etc", "/etc/rc.d", "/etc/init.d"] {
            links.extend(scope.names(&format!("{dir}/rc{level}.d")));
        }
        for link in links {
            if let Some(name) = link.strip_prefix('S').and_then(|rest| rest.get(2..)) {
                let known = levels.entry(name.to_owned()).or_default();
                known.insert(level.to_owned());
            }
        }
    }
    levels
}

fn upstart(scope: &mut Scope<'_>) -> Vec<Service> {
    let dir = "/etc/init";
    let mut found = Vec::new();
    for file in scope.names(dir).into_iter().take(SCRIPTS_MAX) {
        let Some(name) = file.strip_suffix(".conf") else {
            continue;
        };
        let path = format!("{dir}/{file}");
        let mut text = scope.text(&path).unwrap_or_default();
        text.push('\n');
        // What stands in the override comes later and wins.
        text.push_str(
            &scope
                .text(&format!("{dir}/{name}.override"))
                .unwrap_or_default(),
        );
        let mut service = Service {
            manager: "upstart",
            state: "disabled",
            path: clean(&path),
            name: clean(name),
            ..Service::default()
        };
        for line in text.lines().map(str::trim) {
            if line.starts_with("start on") {
                service.state = "enabled";
            } else if line == "manual" {
                service.state = "disabled";
            } else if let Some(command) = line.strip_prefix("exec ") {
                service.exec.get_or_insert_with(|| clean(command));
            } else if let Some(user) = line.strip_prefix("setuid ") {
                service.user = Some(clean(user.trim()));
            }
        }
        found.push(service);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::memory::MemoryTree;
    use crate::guest::tests::with_scope;

    #[test]
    fn run_levels_tell_what_starts() {
        let mut tree = MemoryTree::of(&[
            ("/etc/rc.d/init.d/sshd", ""),
            ("/etc/rc.d/init.d/nfs", ""),
            ("/etc/rc.d/init.d/functions", ""),
            (
                "/etc/init/tty.conf",
                "start on runlevel [2345]\nexec /sbin/mingetty\n",
            ),
            ("/etc/init/quiet.conf", "start on x\n"),
            ("/etc/init/quiet.override", "manual\n"),
        ]);
        tree.link("/etc/rc.d/rc3.d/S55sshd", "../init.d/sshd");
        tree.link("/etc/rc.d/rc3.d/K60nfs", "../init.d/nfs");
        tree.link("/etc/init.d", "rc.d/init.d");
        let found = with_scope(tree, services);
        let rows: Vec<_> = found
            .iter()
            .map(|s| (&*s.name, s.manager, s.state))
            .collect();
        assert_eq!(
            rows,
            [
                ("quiet", "upstart", "disabled"),
                ("tty", "upstart", "enabled"),
                ("nfs", "sysv", "disabled"),
                ("sshd", "sysv", "enabled"),
            ]
        );
        let mut tree = MemoryTree::of(&[("/etc/init.d/sshd", "")]);
        tree.link("/etc/runlevels/default/sshd", "/etc/init.d/sshd");
        let found = with_scope(tree, services);
        assert_eq!((found[0].manager, found[0].state), ("openrc", "enabled"));
        assert_eq!(found[0].runlevels, ["default"]);
    }
}
