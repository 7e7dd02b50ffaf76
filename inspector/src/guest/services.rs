//! systemd units with their enabled state (systemctl(1), systemd.unit(5)), init scripts, cron.

use super::{Scope, clean, ini};
use crate::error::Result;
use crate::report::{CronEntry, Service, Services};
use std::collections::{BTreeMap, BTreeSet};

/// Where units lie; earlier directories win. /lib is /usr/lib on merged systems.
const UNIT_DIRS: [&str; 3] = [
    "/etc/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

pub(super) fn read(scope: &mut Scope<'_>) -> Result<Services> {
    let mut units = systemd(scope);
    if units.is_empty() {
        units = sysv(scope);
    }
    let mut cron = cron(scope);
    cron.sort_unstable();
    Ok(Services { units, cron })
}

fn is_reported(name: &str) -> bool {
    name.ends_with(".service") || name.ends_with(".timer") || name.ends_with(".socket")
}

fn systemd(scope: &mut Scope<'_>) -> Vec<Service> {
    let mut paths: BTreeMap<String, String> = BTreeMap::new();
    let mut wanted = BTreeSet::new();
    for dir in UNIT_DIRS {
        if dir == "/lib/systemd/system" && scope.link("/lib").is_some() {
            continue;
        }
        for name in scope.names(dir) {
            let path = format!("{dir}/{name}");
            let is_install_dir = name.ends_with(".wants") || name.ends_with(".requires");
            if dir == UNIT_DIRS[0] && is_install_dir {
                wanted.extend(scope.names(&path));
            } else if is_reported(&name) {
                paths.entry(name).or_insert(path);
            }
        }
    }
    // Instances of templates exist only as links.
    for name in &wanted {
        if let Some((stem, ending)) = name.split_once('@')
            && let Some((_, kind)) = ending.rsplit_once('.')
            && !paths.contains_key(name)
            && let Some(path) = paths.get(&format!("{stem}@.{kind}")).cloned()
        {
            paths.insert(name.clone(), path);
        }
    }
    paths
        .into_iter()
        .map(|(name, path)| unit(scope, name, path, &wanted))
        .collect()
}

fn unit(scope: &mut Scope<'_>, name: String, path: String, wanted: &BTreeSet<String>) -> Service {
    let mut service = Service {
        manager: "systemd",
        state: "disabled",
        exec: None,
        user: None,
        path: clean(&path),
        name: clean(&name),
    };
    if let Some(target) = scope.link(&path) {
        let file = target.rsplit('/').next().unwrap_or_default();
        if target == "/dev/null" {
            service.state = "masked";
            return service;
        }
        if file != name && !name.contains('@') {
            service.state = "alias";
            return service;
        }
    }
    let Some(text) = scope.text(&path) else {
        return service;
    };
    if text.is_empty() {
        service.state = "masked";
        return service;
    }
    let mut entries = ini::entries(&text);
    let drop_ins = format!("/etc/systemd/system/{name}.d");
    for file in scope.names(&drop_ins) {
        if file.ends_with(".conf")
            && let Some(text) = scope.text(&format!("{drop_ins}/{file}"))
        {
            entries.extend(ini::entries(&text));
        }
    }
    let has_install = entries.iter().any(|entry| entry.section == "Install");
    service.state = if wanted.contains(&name) {
        "enabled"
    } else if has_install {
        "disabled"
    } else {
        "static"
    };
    for entry in entries.iter().filter(|entry| entry.section == "Service") {
        match (entry.key.as_str(), entry.value.as_str()) {
            // An empty assignment takes back what came before.
            ("ExecStart", "") => service.exec = None,
            ("ExecStart", value) => {
                service.exec.get_or_insert_with(|| clean(value));
            }
            ("User", value) => service.user = Some(clean(value)).filter(|user| !user.is_empty()),
            _ => {}
        }
    }
    service
}

fn sysv(scope: &mut Scope<'_>) -> Vec<Service> {
    let mut started = BTreeSet::new();
    for level in ["2", "3", "5"] {
        for link in scope.names(&format!("/etc/rc{level}.d")) {
            // S, two digits, name.
            if let Some(name) = link.strip_prefix('S').and_then(|rest| rest.get(2..)) {
                started.insert(name.to_owned());
            }
        }
    }
    scope
        .names("/etc/init.d")
        .into_iter()
        .filter(|name| !name.starts_with('.') && name != "README" && name != "functions")
        .map(|name| Service {
            manager: "sysv",
            state: if started.contains(&name) {
                "enabled"
            } else {
                "disabled"
            },
            path: format!("/etc/init.d/{}", clean(&name)),
            exec: None,
            user: None,
            name: clean(&name),
        })
        .collect()
}

fn cron(scope: &mut Scope<'_>) -> Vec<CronEntry> {
    let mut files = vec!["/etc/crontab".to_owned()];
    files.extend(
        scope
            .names("/etc/cron.d")
            .iter()
            .filter(|name| !name.starts_with('.'))
            .map(|name| format!("/etc/cron.d/{name}")),
    );
    let mut entries = Vec::new();
    for path in files {
        let Some(text) = scope.text(&path) else {
            continue;
        };
        entries.extend(
            text.lines()
                .filter_map(|line| cron_line(&path, line.trim())),
        );
    }
    entries
}

/// `minute hour day month weekday user command`, or `@daily user command` (crontab(5)).
fn cron_line(path: &str, line: &str) -> Option<CronEntry> {
    let first = line.chars().next()?;
    if !(first.is_ascii_digit() || matches!(first, '*' | '@')) {
        return None;
    }
    let fields = if first == '@' { 1 } else { 5 };
    let words: Vec<&str> = line.split_whitespace().collect();
    let (schedule, rest) = words.split_at_checked(fields)?;
    let (user, command) = rest.split_first()?;
    Some(CronEntry {
        path: clean(path),
        schedule: clean(&schedule.join(" ")),
        user: clean(user),
        command: clean(&command.join(" ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cron_lines_are_told_from_settings_and_comments() {
        let entry = cron_line("f", "17 *	* * *	root    cd / && run-parts").unwrap();
        assert_eq!(entry.schedule, "17 * * * *");
        assert_eq!(entry.user, "root");
        assert_eq!(entry.command, "cd / && run-parts");
        assert_eq!(cron_line("f", "@daily bob x").unwrap().schedule, "@daily");
        assert_eq!(cron_line("f", "SHELL=/bin/sh"), None);
        assert_eq!(cron_line("f", "# 1 2 3 4 5 root x"), None);
    }
}
