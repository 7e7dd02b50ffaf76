//! sudoers(5) with its includes: rules as they are written, and who they are for.

use crate::guest::{Scope, clean};
use std::collections::{BTreeMap, BTreeSet};

/// Files that are read, includes counted.
const FILES_MAX: usize = 256;
/// Depth of includes: sudo's own limit.
const DEPTH_MAX: usize = 128;
/// Rules that are reported.
const RULES_MAX: usize = 10_000;
/// Members of aliases that are followed.
const STEPS_MAX: usize = 10_000;

/// What sudoers says.
#[derive(Debug, Default)]
pub(in crate::guest) struct Sudoers {
    /// Rules without comments, defaults and aliases, in their order.
    pub(in crate::guest) rules: Vec<String>,
    aliases: BTreeMap<String, Vec<String>>,
    files: usize,
}

/// Users, and groups whose members, may run commands as somebody else.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::guest) struct Trusted {
    pub(in crate::guest) users: BTreeSet<String>,
    pub(in crate::guest) groups: BTreeSet<String>,
    pub(in crate::guest) all: bool,
}

pub(in crate::guest) fn read(scope: &mut Scope<'_>) -> Sudoers {
    let mut sudoers = Sudoers::default();
    let path = ["/etc/sudoers", "/usr/etc/sudoers"]
        .into_iter()
        .find(|path| scope.exists(path));
    if let Some(path) = path {
        sudoers.file(scope, path, 0);
    }
    sudoers
}

impl Sudoers {
    fn file(&mut self, scope: &mut Scope<'_>, path: &str, depth: usize) {
        self.files = self.files.saturating_add(1);
        if self.files > FILES_MAX || depth > DEPTH_MAX {
            let problem = format!("more than {FILES_MAX} included files");
            return scope.warn("over_budget", path, problem);
        }
        let text = scope.text(path).unwrap_or_default().replace("\\\n", " ");
        for line in text.lines().map(str::trim) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let below = depth.saturating_add(1);
            match words.as_slice() {
                ["@include" | "#include", file, ..] => {
                    self.file(scope, &absolute(file), below);
                }
                ["@includedir" | "#includedir", dir, ..] => {
                    let dir = absolute(dir);
                    for name in scope.names(&dir) {
                        // Names with a dot or a tilde at the end are left out (sudoers(5)).
                        if !name.contains('.') && !name.ends_with('~') {
                            self.file(scope, &format!("{dir}/{name}"), below);
                        }
                    }
                }
                [] => {}
                [first, ..] if first.starts_with('#') && !is_uid(first) => {}
                [first, ..] if first.starts_with("Defaults") => {}
                [
                    "User_Alias" | "Runas_Alias" | "Host_Alias" | "Cmnd_Alias" | "Cmd_Alias",
                    ..,
                ] => {
                    if words.first() == Some(&"User_Alias") {
                        self.alias(line);
                    }
                }
                _ if self.rules.len() >= RULES_MAX => {}
                _ => self.rules.push(clean(&words.join(" "))),
            }
        }
    }

    /// `User_Alias A = x, %y : B = z`.
    fn alias(&mut self, line: &str) {
        let line = line.strip_prefix("User_Alias").unwrap_or(line);
        for part in line.split(':') {
            if let Some((name, members)) = part.split_once('=') {
                let members = members.split(',').map(|member| member.trim().to_owned());
                self.aliases
                    .insert(name.trim().to_owned(), members.collect());
            }
        }
    }

    /// Who the rules are for, aliases resolved.
    pub(in crate::guest) fn trusted(&self) -> Trusted {
        let mut trusted = Trusted::default();
        let mut todo = Vec::new();
        for who in self.rules.iter().filter_map(|rule| who(rule)) {
            todo.extend(who.split(',').map(|one| one.trim().to_owned()));
        }
        let mut steps = 0_usize;
        while let Some(one) = todo.pop() {
            steps = steps.saturating_add(1);
            if steps > STEPS_MAX {
                break;
            }
            if one == "ALL" {
                trusted.all = true;
            } else if let Some(group) = one.strip_prefix('%') {
                trusted.groups.insert(group.trim_matches('"').to_owned());
            } else if let Some(members) = self.aliases.get(&one) {
                todo.extend(members.iter().cloned());
            } else if !one.starts_with(['!', '+']) {
                trusted.users.insert(one.trim_matches('"').to_owned());
            }
        }
        trusted
    }
}

/// The user list of `alice, bob ALL=(ALL) ALL`: up to the blank that no comma stands before.
fn who(rule: &str) -> Option<String> {
    let (before, _) = rule.split_once('=')?;
    let mut out = String::new();
    for word in before.split_whitespace() {
        if !out.is_empty() && !out.ends_with(',') && !word.starts_with(',') {
            break;
        }
        out.push_str(word);
    }
    Some(out)
}

/// `#1000` names a user by number; `# comment` does not.
fn is_uid(word: &str) -> bool {
    let rest = word.trim_start_matches('#');
    !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit())
}

fn absolute(path: &str) -> String {
    let path = path.trim_matches('"');
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/etc/{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::memory::MemoryTree;
    use crate::guest::tests::with_scope;

    #[test]
    fn includes_and_aliases_are_followed() {
        let tree = MemoryTree::of(&[
            (
                "/etc/sudoers",
                "Defaults env_reset\n# %wheel ALL=(ALL) ALL\nUser_Alias ADMINS = alice, %ops : X = bob\nroot ALL=(ALL:ALL) ALL\nADMINS, carl ALL = \\\n  NOPASSWD: ALL\n#1000 ALL=ALL\n#includedir /etc/sudoers.d\n",
            ),
            ("/etc/sudoers.d/dave", "dave ALL=(root) /bin/x\n"),
            ("/etc/sudoers.d/old.bak", "eve ALL=ALL\n"),
        ]);
        let found = with_scope(tree, read);
        assert_eq!(
            found.rules,
            [
                "root ALL=(ALL:ALL) ALL",
                "ADMINS, carl ALL = NOPASSWD: ALL",
                "#1000 ALL=ALL",
                "dave ALL=(root) /bin/x"
            ]
        );
        let trusted = found.trusted();
        let users: Vec<_> = trusted.users.iter().map(String::as_str).collect();
        assert_eq!(users, ["#1000", "alice", "carl", "dave", "root"]);
        assert_eq!(trusted.groups.len(), 1);
        assert!(trusted.groups.contains("ops") && !trusted.all);
    }

    #[test]
    fn circles_end() {
        let sudoers = Sudoers {
            rules: vec!["A ALL=ALL".to_owned()],
            aliases: [("A".to_owned(), vec!["A".to_owned(), "A".to_owned()])].into(),
            files: 0,
        };
        assert_eq!(sudoers.trusted(), Trusted::default());
    }
}
