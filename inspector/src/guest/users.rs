//! passwd(5), shadow(5), group(5): who there is, and the state of passwords. Never a hash.

use super::{Scope, clean};
use crate::error::Result;
use crate::report::{Group, User};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Groups whose members become root by sudo on Debian, Ubuntu and Red Hat.
const ADMIN_GROUPS: [&str; 3] = ["sudo", "wheel", "admin"];
/// Users that are reported.
const USERS_MAX: usize = 100_000;

type Password = (Option<&'static str>, Option<&'static str>);

pub(super) fn read(scope: &mut Scope<'_>) -> Result<(Vec<User>, Vec<Group>)> {
    let groups = groups(scope);
    let passwords = passwords(scope);
    let admins: BTreeSet<&str> = groups
        .iter()
        .filter(|group| ADMIN_GROUPS.contains(&group.name.as_str()))
        .flat_map(|group| group.members.iter().map(String::as_str))
        .collect();
    let sudoers: BTreeSet<String> = super::security::sudoers(scope)
        .iter()
        .filter_map(|rule| rule.split_whitespace().next().map(str::to_owned))
        .collect();
    let text = scope.text("/etc/passwd").unwrap_or_default();
    let mut users = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if users.len() >= USERS_MAX {
            scope.warn(
                "over_budget",
                "/etc/passwd",
                format!("more than {USERS_MAX} users"),
            );
            break;
        }
        let fields: Vec<&str> = line.split(':').collect();
        let [name, hash, uid, gid, gecos, home, shell] = fields.as_slice() else {
            scope.warn("malformed", "/etc/passwd", "a line without seven fields");
            continue;
        };
        let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else {
            scope.warn(
                "malformed",
                "/etc/passwd",
                format!("user {} without numbers", clean(name)),
            );
            continue;
        };
        let (password, password_algorithm) = match passwords.get(*name) {
            Some(known) => *known,
            // Where there is no shadow line, an x says nothing.
            None if *hash == "x" => (None, None),
            None => state(hash),
        };
        users.push(User {
            uid,
            gid,
            name: clean(name),
            gecos: clean(gecos),
            home: clean(home),
            shell: clean(shell),
            password,
            password_algorithm,
            sudo: uid == 0 || admins.contains(name) || sudoers.contains(*name),
            ssh_keys: Vec::new(),
        });
    }
    for user in &mut users {
        if user.home.starts_with('/') && user.home != "/" && user.home != "/nonexistent" {
            user.ssh_keys = ssh_keys(scope, &user.home);
        }
    }
    users.sort_unstable();
    Ok((users, groups))
}

fn groups(scope: &mut Scope<'_>) -> Vec<Group> {
    let text = scope.text("/etc/group").unwrap_or_default();
    let mut groups: Vec<Group> = text
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, gid, members] = fields.as_slice() else {
                return None;
            };
            let mut members: Vec<String> = members
                .split(',')
                .filter(|member| !member.is_empty())
                .map(clean)
                .collect();
            members.sort_unstable();
            Some(Group {
                gid: gid.parse().ok()?,
                name: clean(name),
                members,
            })
        })
        .collect();
    groups.sort_unstable();
    groups
}

fn passwords(scope: &mut Scope<'_>) -> BTreeMap<String, Password> {
    let text = scope.text("/etc/shadow").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            Some((fields.next()?.to_owned(), state(fields.next()?)))
        })
        .collect()
}

/// What a password field says (shadow(5), crypt(5)).
fn state(field: &str) -> Password {
    if field.is_empty() {
        return (Some("empty"), None);
    }
    let hash = field.trim_start_matches('!');
    if hash.is_empty() || hash == "*" || hash == "x" {
        return (Some("none"), None);
    }
    let state = if field.starts_with('!') {
        "locked"
    } else {
        "set"
    };
    (Some(state), algorithm(hash))
}

fn algorithm(hash: &str) -> Option<&'static str> {
    let mut parts = hash.split('$');
    if parts.next() != Some("") {
        return (hash.len() == 13).then_some("des");
    }
    match parts.next()? {
        "1" => Some("md5"),
        "2a" | "2b" | "2x" | "2y" => Some("bcrypt"),
        "5" => Some("sha256"),
        "6" => Some("sha512"),
        "7" => Some("scrypt"),
        "y" => Some("yescrypt"),
        "gy" => Some("gost-yescrypt"),
        _ => None,
    }
}

/// Fingerprints as `ssh-keygen -l` prints them.
fn ssh_keys(scope: &mut Scope<'_>, home: &str) -> Vec<String> {
    let text = scope
        .text(&format!("{home}/.ssh/authorized_keys"))
        .unwrap_or_default();
    let mut keys: Vec<String> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| {
            // Options may come first: the key is the word behind its type.
            let mut words = line.split_whitespace();
            words.find(|word| {
                word.starts_with("ssh-") || word.starts_with("ecdsa-") || word.starts_with("sk-")
            })?;
            let blob = STANDARD.decode(words.next()?).ok()?;
            Some(format!(
                "SHA256:{}",
                STANDARD_NO_PAD.encode(Sha256::digest(blob))
            ))
        })
        .collect();
    keys.sort_unstable();
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_states_are_told_without_the_hash() {
        assert_eq!(state(""), (Some("empty"), None));
        assert_eq!(state("*"), (Some("none"), None));
        assert_eq!(state("!"), (Some("none"), None));
        assert_eq!(state("!*"), (Some("none"), None));
        assert_eq!(state("$6$salt$hash"), (Some("set"), Some("sha512")));
        assert_eq!(state("!$y$j9T$x$y"), (Some("locked"), Some("yescrypt")));
        assert_eq!(state("abcdefghijklm"), (Some("set"), Some("des")));
    }
}
