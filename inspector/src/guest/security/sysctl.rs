//! sysctl.d(5): files by name over all directories, of one name that of the more important
//! directory; the last value wins. `/etc/sysctl.conf` comes last (sysctl(8), `--system`).

use crate::guest::{Scope, clean, ini};
use std::collections::BTreeMap;

/// Least important first.
const DIRS: [&str; 4] = [
    "/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/etc/sysctl.d",
];
/// Settings that are reported.
const SETTINGS_MAX: usize = 10_000;

pub(super) fn read(scope: &mut Scope<'_>) -> BTreeMap<String, String> {
    let merged = scope.link("/lib").is_some();
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for dir in DIRS {
        if merged && dir.starts_with("/lib/") {
            continue;
        }
        for name in scope.names(dir) {
            if name.ends_with(".conf") {
                let path = format!("{dir}/{name}");
                files.insert(name, path);
            }
        }
    }
    let mut settings = BTreeMap::new();
    let paths = files.into_values().chain(["/etc/sysctl.conf".to_owned()]);
    for path in paths {
        // A file is masked by a link to /dev/null, which is none of the guest's files.
        let text = scope.text(&path).unwrap_or_default();
        for (key, value) in ini::assignments(&text) {
            if key.starts_with(';') || settings.len() >= SETTINGS_MAX {
                continue;
            }
            let key = normal(key.trim_start_matches('-').trim());
            settings.insert(clean(&key), clean(&value));
        }
    }
    settings
}

/// `net/ipv4/ip_forward` is `net.ipv4.ip_forward`: the first separator says which is meant.
fn normal(key: &str) -> String {
    match key.find(['/', '.']) {
        Some(at) if key.get(at..).is_some_and(|rest| rest.starts_with('/')) => {
            let swap = |c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            };
            key.chars().map(swap).collect()
        }
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::memory::MemoryTree;
    use crate::guest::tests::with_scope;

    #[test]
    fn the_last_file_by_name_wins_and_etc_hides_its_namesake() {
        let tree = MemoryTree::of(&[
            (
                "/usr/lib/sysctl.d/50-a.conf",
                "kernel.a = 1\nkernel.hidden=1\n",
            ),
            ("/etc/sysctl.d/50-a.conf", "kernel.a=2\n# x=y\n"),
            (
                "/usr/lib/sysctl.d/90-z.conf",
                "-net/ipv4/conf/eth0.1/x = 3\n",
            ),
            ("/etc/sysctl.conf", "kernel.last=4\nkernel.a=5\n"),
        ]);
        let found = with_scope(tree, read);
        let rows: Vec<_> = found
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(
            rows,
            [
                ("kernel.a", "5"),
                ("kernel.last", "4"),
                ("net.ipv4.conf.eth0/1.x", "3")
            ]
        );
    }
}
