//! sshd_config(5) after Include and Match, sysctl, SELinux, AppArmor, sudoers(5).

use super::{Scope, clean, ini};
use crate::error::Result;
use crate::report::{MatchBlock, Security};
use std::collections::BTreeMap;

/// Files that Include may pull in.
const INCLUDES_MAX: usize = 64;

pub(super) fn read(scope: &mut Scope<'_>) -> Result<Security> {
    let mut security = Security {
        apparmor: scope.exists("/etc/apparmor.d"),
        sudoers: sudoers(scope),
        sysctl: sysctl(scope),
        ..Security::default()
    };
    if let Some(text) = scope.text("/etc/selinux/config") {
        security.selinux = ini::assignments(&text)
            .into_iter()
            .find(|(key, _)| key == "SELINUX")
            .map(|(_, value)| clean(&value));
    }
    if scope.exists("/etc/ssh/sshd_config") {
        let mut sshd = Sshd::default();
        sshd.read(scope, "/etc/ssh/sshd_config");
        security.sshd = Some(sshd.global);
        security.sshd_match = sshd.blocks;
    }
    Ok(security)
}

#[derive(Default)]
struct Sshd {
    global: BTreeMap<String, String>,
    blocks: Vec<MatchBlock>,
    in_match: bool,
    files: usize,
}

impl Sshd {
    fn read(&mut self, scope: &mut Scope<'_>, path: &str) {
        self.files = self.files.saturating_add(1);
        if self.files > INCLUDES_MAX {
            scope.warn(
                "over_budget",
                path,
                format!("more than {INCLUDES_MAX} included files"),
            );
            return;
        }
        let Some(text) = scope.text(path) else {
            return;
        };
        // A Match block ends with its file.
        let before = self.in_match;
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line
                .split_once(|c: char| c.is_whitespace() || c == '=')
                .unwrap_or((line, ""));
            let value = value.trim_start_matches(['=', ' ', '\t']).trim();
            match key.to_ascii_lowercase().as_str() {
                "include" => {
                    for pattern in value.split_whitespace() {
                        for file in included(scope, pattern) {
                            self.read(scope, &file);
                        }
                    }
                }
                "match" => {
                    self.in_match = true;
                    self.blocks.push(MatchBlock {
                        criteria: clean(value),
                        options: BTreeMap::new(),
                    });
                }
                key => {
                    let options = match self.blocks.last_mut() {
                        Some(block) if self.in_match => &mut block.options,
                        _ => &mut self.global,
                    };
                    // The first value wins.
                    options
                        .entry(key.to_owned())
                        .or_insert_with(|| clean(value));
                }
            }
        }
        self.in_match = before;
    }
}

/// Files of an Include pattern: one `*` in the last component is what is in use.
fn included(scope: &mut Scope<'_>, pattern: &str) -> Vec<String> {
    let path = if pattern.starts_with('/') {
        pattern.to_owned()
    } else {
        format!("/etc/ssh/{pattern}")
    };
    let Some((dir, last)) = path.rsplit_once('/') else {
        return Vec::new();
    };
    let Some((start, end)) = last.split_once('*') else {
        return vec![path];
    };
    scope
        .names(dir)
        .into_iter()
        .filter(|name| !name.starts_with('.') && name.starts_with(start) && name.ends_with(end))
        .map(|name| format!("{dir}/{name}"))
        .collect()
}

fn sysctl(scope: &mut Scope<'_>) -> BTreeMap<String, String> {
    let mut files = Vec::new();
    for dir in ["/usr/lib/sysctl.d", "/etc/sysctl.d"] {
        files.extend(
            scope
                .names(dir)
                .into_iter()
                .filter(|name| name.ends_with(".conf"))
                .map(|name| (name.clone(), format!("{dir}/{name}"))),
        );
    }
    // By file name; /etc wins over /usr/lib for the same name, and comes later here.
    let by_name: BTreeMap<String, String> = files.into_iter().collect();
    let mut settings = BTreeMap::new();
    let paths = by_name.into_values().chain(["/etc/sysctl.conf".to_owned()]);
    for path in paths {
        let text = scope.text(&path).unwrap_or_default();
        for (key, value) in ini::assignments(&text) {
            if !key.starts_with(';') {
                settings.insert(clean(key.trim_start_matches('-')), clean(&value));
            }
        }
    }
    settings
}

/// Rules of sudoers and sudoers.d, without comments, defaults and includes.
pub(super) fn sudoers(scope: &mut Scope<'_>) -> Vec<String> {
    let mut files = vec!["/etc/sudoers".to_owned()];
    files.extend(
        scope
            .names("/etc/sudoers.d")
            .iter()
            .filter(|name| !name.contains('.') && !name.ends_with('~') && *name != "README")
            .map(|name| format!("/etc/sudoers.d/{name}")),
    );
    let mut rules = Vec::new();
    for path in files {
        let text = scope.text(&path).unwrap_or_default();
        for line in text.lines().map(str::trim) {
            let skipped = line.is_empty()
                || line.starts_with(['#', '@'])
                || line.starts_with("Defaults")
                || line.contains("_Alias");
            if !skipped {
                rules.push(clean(
                    &line.split_whitespace().collect::<Vec<_>>().join(" "),
                ));
            }
        }
    }
    rules
}
