//! passwd(5), shadow(5), group(5): who there is, and the state of passwords. Never a hash.

use super::{Scope, clean};
use crate::error::Result;
use crate::report::{Group, User};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Keys of one user that are reported.
const KEYS_MAX: usize = 1_000;
/// Users that are reported.
const USERS_MAX: usize = 100_000;

type Password = (Option<&'static str>, Option<&'static str>);

pub(super) fn read(scope: &mut Scope<'_>) -> Result<(Vec<User>, Vec<Group>)> {
    let groups = groups(scope);
    let passwords = passwords(scope);
    let trusted = super::security::sudoers::read(scope).trusted();
    let trusted_groups: Vec<&Group> = groups
        .iter()
        .filter(|group| trusted.groups.contains(&group.name))
        .collect();
    let may_sudo = |name: &str, uid: u32, gid: u32| {
        let is_member =
            |group: &&Group| group.gid == gid || group.members.iter().any(|member| member == name);
        uid == 0
            || trusted.all
            || trusted.users.contains(name)
            || trusted.users.contains(&format!("#{uid}"))
            || trusted_groups.iter().any(is_member)
    };
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
            sudo: may_sudo(name, uid, gid),
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
        "sha1" => Some("sha1"),
        "argon2i" | "argon2d" | "argon2id" => Some("argon2"),
        "3" => Some("nt"),
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
    // OpenSSH still reads the older second name by default.
    let second = scope.text(&format!("{home}/.ssh/authorized_keys2"));
    let mut keys: Vec<String> = text
        .lines()
        .chain(second.as_deref().unwrap_or_default().lines())
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
    keys.dedup();
    keys.truncate(KEYS_MAX);
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

#[cfg(test)]
mod tree_tests {
    use super::*;
    use crate::fs::memory::MemoryTree;
    use crate::guest::tests::{warned, with_scope};

    #[test]
    fn sudo_comes_from_the_rules_and_no_hash_comes_out() {
        let tree = MemoryTree::of(&[
            (
                "/etc/passwd",
                "root:x:0:0:root:/root:/bin/bash\nal:x:1000:1000:Al:/home/al:/bin/sh\nbo:x:1001:10::/home/bo:/bin/sh\nold:$1$abc$def:5:5::/:/bin/sh\n",
            ),
            (
                "/etc/shadow",
                "root:*:1::::::\nal:$6$SALT$HASH:1::::::\nbo:!$y$SALT$HASH:1::::::\n",
            ),
            ("/etc/group", "wheel:x:10:al\nroot:x:0:\n"),
            ("/etc/sudoers", "# %wheel ALL=(ALL) ALL\nbo ALL=(ALL) ALL\n"),
            (
                "/home/al/.ssh/authorized_keys",
                "# c\nfrom=\"10.0.0.1\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== a@b\n",
            ),
        ]);
        let (users, groups) = with_scope(tree, |scope| read(scope).unwrap());
        let rows: Vec<_> = users
            .iter()
            .map(|u| (&*u.name, u.password, u.password_algorithm, u.sudo))
            .collect();
        assert_eq!(
            rows,
            [
                ("root", Some("none"), None, true),
                ("old", Some("set"), Some("md5"), false),
                ("al", Some("set"), Some("sha512"), false),
                ("bo", Some("locked"), Some("yescrypt"), true),
            ]
        );
        assert!(users[2].ssh_keys[0].starts_with("SHA256:"));
        let text = serde_json::to_string(&(users, groups)).unwrap();
        assert!(!text.contains("HASH") && !text.contains("SALT") && !text.contains("$1$"));
    }

    #[test]
    fn lines_that_are_none_are_told() {
        let tree = MemoryTree::of(&[("/etc/passwd", "a:b\nc:x:y:0::/:/bin/sh\n")]);
        let ((users, _), warnings) = warned(tree, |scope| read(scope).unwrap());
        assert!(users.is_empty());
        assert_eq!(warnings.len(), 2);
    }
}
