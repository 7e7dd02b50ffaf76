//! systemd units with their enabled state, as `systemctl list-unit-files` tells it
//! (systemd.unit(5), systemctl(1), systemd.preset(5)).

use crate::guest::{Scope, clean, glob, ini};
use crate::report::Service;
use std::collections::{BTreeMap, BTreeSet};

/// Where units lie; earlier directories win. /lib is /usr/lib on merged systems.
const UNIT_DIRS: [&str; 4] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
const PRESET_DIRS: [&str; 3] = [
    "/etc/systemd/system-preset",
    "/usr/lib/systemd/system-preset",
    "/lib/systemd/system-preset",
];
/// Files of unit and preset directories that are read.
const FILES_MAX: usize = 20_000;
/// Values of one key that are kept.
const VALUES_MAX: usize = 64;

/// What the directories hold, before any unit is read.
#[derive(Default)]
struct Found {
    /// Unit name to its path.
    paths: BTreeMap<String, String>,
    /// `.d` directory to where it lies, most important place first.
    drop_ins: BTreeMap<String, Vec<String>>,
    /// Names that some `.wants`, `.requires` or `.upholds` directory starts.
    wanted: BTreeSet<String>,
    /// Units that have a further name by a link of the administrator.
    aliased: BTreeSet<String>,
    files: usize,
}

pub(super) fn units(scope: &mut Scope<'_>) -> Vec<Service> {
    let mut found = Found::default();
    let merged = scope.link("/lib").is_some();
    for dir in UNIT_DIRS {
        if !(merged && dir.starts_with("/lib/")) {
            found.directory(scope, dir);
        }
    }
    // Instances of templates exist only as links.
    for name in &found.wanted {
        if let Some(template) = template_of(name)
            && !found.paths.contains_key(name)
            && let Some(path) = found.paths.get(&template).cloned()
        {
            found.paths.insert(name.clone(), path);
        }
    }
    let presets = presets(scope, merged);
    let paths = std::mem::take(&mut found.paths);
    paths
        .into_iter()
        .map(|(name, path)| {
            let mut service = unit(scope, &found, name, path);
            if matches!(service.state, "enabled" | "disabled") {
                service.preset = preset(&presets, &service.name);
            }
            service
        })
        .collect()
}

fn is_reported(name: &str) -> bool {
    [".service", ".timer", ".socket", ".path"]
        .iter()
        .any(|ending| name.ends_with(ending))
}

/// `getty@.service` of `getty@tty1.service`.
fn template_of(name: &str) -> Option<String> {
    let (stem, ending) = name.split_once('@')?;
    let (_, kind) = ending.rsplit_once('.')?;
    Some(format!("{stem}@.{kind}"))
}

impl Found {
    fn directory(&mut self, scope: &mut Scope<'_>, dir: &str) {
        let is_config = dir == UNIT_DIRS[0];
        for name in scope.names(dir) {
            self.files = self.files.saturating_add(1);
            if self.files > FILES_MAX {
                scope.warn("over_budget", dir, format!("more than {FILES_MAX} files"));
                return;
            }
            let path = format!("{dir}/{name}");
            let is_install_dir = [".wants", ".requires", ".upholds"]
                .iter()
                .any(|ending| name.ends_with(ending));
            if is_install_dir {
                // Vendors start units so as well, but those are not for the administrator to disable.
                if is_config {
                    self.wanted.extend(scope.names(&path));
                }
            } else if name.ends_with(".d") {
                self.drop_ins.entry(name).or_default().push(path);
            } else if is_reported(&name) {
                if is_config && let Some(target) = scope.link(&path) {
                    let target = target.rsplit('/').next().unwrap_or_default();
                    if target != name {
                        self.aliased.insert(target.to_owned());
                    }
                }
                self.paths.entry(name).or_insert(path);
            }
        }
    }

    fn is_enabled(&self, name: &str) -> bool {
        if self.wanted.contains(name) || self.aliased.contains(name) {
            return true;
        }
        // A template is enabled when an instance is.
        name.contains("@.")
            && self
                .wanted
                .iter()
                .any(|wanted| template_of(wanted).as_deref() == Some(name))
    }

    /// Drop-ins of a unit in the order they are read: by file name, of one name the most important.
    fn drop_ins_of(&self, scope: &mut Scope<'_>, name: &str) -> Vec<String> {
        if self.drop_ins.is_empty() {
            return Vec::new();
        }
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for dir in drop_in_dirs(name) {
            for path in self.drop_ins.get(&dir).into_iter().flatten() {
                for file in scope.names(path) {
                    if file.ends_with(".conf") {
                        let full = format!("{path}/{file}");
                        files.entry(file).or_insert(full);
                    }
                }
            }
        }
        files.into_values().collect()
    }
}

/// `a-b@c.service` has drop-ins in `a-b@c.service.d`, `a-b@.service.d`, `a-.service.d`, `service.d`.
fn drop_in_dirs(name: &str) -> Vec<String> {
    let Some((stem, kind)) = name.rsplit_once('.') else {
        return Vec::new();
    };
    let mut dirs = vec![format!("{name}.d")];
    dirs.extend(template_of(name).map(|template| format!("{template}.d")));
    let mut rest = stem;
    while let Some((before, _)) = rest.rsplit_once('-') {
        dirs.push(format!("{before}-.{kind}.d"));
        rest = before;
    }
    dirs.push(format!("{kind}.d"));
    dirs
}

fn unit(scope: &mut Scope<'_>, found: &Found, name: String, path: String) -> Service {
    let mut service = Service {
        manager: "systemd",
        state: "disabled",
        path: clean(&path),
        name: clean(&name),
        ..Service::default()
    };
    if let Some(target) = scope.link(&path) {
        let file = target.rsplit('/').next().unwrap_or_default();
        if target == "/dev/null" {
            service.state = "masked";
            return service;
        }
        let is_instance = template_of(&name).as_deref() == Some(file);
        if file != name && !is_instance {
            service.state = "alias";
            return service;
        }
    }
    let Some(text) = scope.text(&path) else {
        return service;
    };
    if text.trim().is_empty() {
        service.state = "masked";
        return service;
    }
    let mut entries = ini::entries(&text);
    for file in found.drop_ins_of(scope, &name) {
        if let Some(text) = scope.text(&file) {
            entries.extend(ini::entries(&text));
            service.drop_ins.push(clean(&file));
        }
    }
    let installs = |keys: &[&str]| {
        let mut install = entries.iter().filter(|entry| entry.section == "Install");
        install.any(|entry| keys.contains(&entry.key.as_str()) && !entry.value.is_empty())
    };
    service.state = if found.is_enabled(&name) {
        "enabled"
    } else if installs(&["WantedBy", "RequiredBy", "UpheldBy", "Alias"]) {
        "disabled"
    } else if installs(&["Also", "DefaultInstance"]) {
        "indirect"
    } else {
        "static"
    };
    for entry in &entries {
        apply(&mut service, entry);
    }
    service
}

fn apply(service: &mut Service, entry: &ini::Entry) {
    let value = clean(&entry.value);
    match (entry.section.as_str(), entry.key.as_str()) {
        // An empty assignment takes back what came before.
        ("Service", "ExecStart") if value.is_empty() => service.exec = None,
        ("Service", "ExecStart") => {
            service.exec.get_or_insert(value);
        }
        ("Service", "User") => service.user = Some(value).filter(|user| !user.is_empty()),
        ("Timer", key) if key.starts_with("On") => list(&mut service.schedule, key, &value),
        ("Socket", key) if key.starts_with("Listen") => list(&mut service.listen, key, &value),
        _ => {}
    }
}

/// Adds `key=value`; an empty value takes back what came before.
fn list(values: &mut Vec<String>, key: &str, value: &str) {
    if value.is_empty() {
        values.clear();
    } else if values.len() < VALUES_MAX {
        values.push(format!("{}={value}", clean(key)));
    }
}

/// Lines of all preset files: whether to enable, and which units. The first that fits counts.
fn presets(scope: &mut Scope<'_>, merged: bool) -> Vec<(bool, String)> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for dir in PRESET_DIRS {
        if merged && dir.starts_with("/lib/") {
            continue;
        }
        for name in scope.names(dir).into_iter().take(FILES_MAX) {
            if name.ends_with(".preset") {
                let path = format!("{dir}/{name}");
                files.entry(name).or_insert(path);
            }
        }
    }
    let mut lines = Vec::new();
    for path in files.into_values() {
        let text = scope.text(&path).unwrap_or_default();
        lines.extend(text.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let enable = match words.next()? {
                "enable" => true,
                "disable" => false,
                _ => return None,
            };
            Some((enable, words.next()?.to_owned()))
        }));
    }
    lines
}

/// What the vendor's presets say of a unit; none where there are no presets.
fn preset(presets: &[(bool, String)], name: &str) -> Option<&'static str> {
    if presets.is_empty() {
        return None;
    }
    let found = presets
        .iter()
        .find(|(_, pattern)| glob::matches(pattern, name));
    // What no line names is enabled.
    match found {
        Some((false, _)) => Some("disabled"),
        _ => Some("enabled"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::memory::MemoryTree;
    use crate::guest::tests::with_scope;

    fn tree() -> MemoryTree {
        let service =
            "[Service]\nExecStart=/bin/x\nUser=u\n[Install]\nWantedBy=multi-user.target\n";
        let mut tree = MemoryTree::of(&[
            ("/usr/lib/systemd/system/on.service", service),
            ("/usr/lib/systemd/system/off.service", service),
            (
                "/usr/lib/systemd/system/static.service",
                "[Service]\nExecStart=/bin/y\n",
            ),
            ("/usr/lib/systemd/system/gone.service", service),
            ("/usr/lib/systemd/system/tty@.service", service),
            (
                "/usr/lib/systemd/system/t.timer",
                "[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n",
            ),
            (
                "/etc/systemd/system/on.service.d/10-x.conf",
                "[Service]\nExecStart=\nExecStart=/bin/z\n",
            ),
            (
                "/usr/lib/systemd/system/service.d/90.conf",
                "[Service]\nUser=v\n",
            ),
            (
                "/usr/lib/systemd/system-preset/90.preset",
                "disable off*\nenable *\n",
            ),
        ]);
        for (path, target) in [
            ("/etc/systemd/system/gone.service", "/dev/null"),
            (
                "/etc/systemd/system/other.service",
                "/usr/lib/systemd/system/on.service",
            ),
            (
                "/etc/systemd/system/a.target.wants/on.service",
                "/usr/lib/systemd/system/on.service",
            ),
            (
                "/etc/systemd/system/a.target.wants/tty@1.service",
                "/usr/lib/systemd/system/tty@.service",
            ),
        ] {
            tree.link(path, target);
        }
        tree
    }

    #[test]
    fn states_drop_ins_and_presets() {
        let units = with_scope(tree(), units);
        let of = |name: &str| units.iter().find(|unit| unit.name == name).unwrap();
        let states: Vec<_> = units.iter().map(|u| (u.name.as_str(), u.state)).collect();
        assert_eq!(
            states,
            [
                ("gone.service", "masked"),
                ("off.service", "disabled"),
                ("on.service", "enabled"),
                ("other.service", "alias"),
                ("static.service", "static"),
                ("t.timer", "disabled"),
                ("tty@.service", "enabled"),
                ("tty@1.service", "enabled"),
            ]
        );
        assert_eq!(of("on.service").exec.as_deref(), Some("/bin/z"));
        assert_eq!(of("off.service").user.as_deref(), Some("v"));
        assert_eq!(of("on.service").drop_ins.len(), 2);
        assert_eq!(of("t.timer").schedule, ["OnCalendar=daily"]);
        assert_eq!(of("off.service").preset, Some("disabled"));
        assert_eq!(of("on.service").preset, Some("enabled"));
    }
}
