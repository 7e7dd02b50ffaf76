//! cron: crontab(5) of the system and of users, directories of scripts, anacrontab(5).

use crate::guest::{Scope, clean};
use crate::report::CronEntry;

/// Entries that are reported.
const ENTRIES_MAX: usize = 10_000;
/// Where users' own tables lie: Debian, Red Hat, SUSE, Alpine. Their lines name no user.
const SPOOLS: [&str; 4] = [
    "/var/spool/cron/crontabs",
    "/var/spool/cron",
    "/var/spool/cron/tabs",
    "/etc/crontabs",
];

pub(super) fn entries(scope: &mut Scope<'_>) -> Vec<CronEntry> {
    let mut found = Vec::new();
    let mut files = vec!["/etc/crontab".to_owned()];
    let tables = scope.names("/etc/cron.d");
    files.extend(
        tables
            .iter()
            .filter(|name| is_used(name))
            .map(|name| format!("/etc/cron.d/{name}")),
    );
    for path in files {
        let text = scope.text(&path).unwrap_or_default();
        found.extend(
            text.lines()
                .filter_map(|line| system_line(&path, line.trim())),
        );
    }
    for dir in SPOOLS {
        for user in scope.names(dir) {
            let path = format!("{dir}/{user}");
            let is_file = is_used(&user) && !matches!(user.as_str(), "crontabs" | "tabs");
            if is_file && let Some(text) = scope.text(&path) {
                let lines = text.lines();
                found.extend(lines.filter_map(|line| user_line(&path, &user, line.trim())));
            }
        }
    }
    for period in ["hourly", "daily", "weekly", "monthly"] {
        for dir in ["/etc/cron.", "/etc/periodic/"] {
            let dir = format!("{dir}{period}");
            for name in scope.names(&dir) {
                if is_used(&name) {
                    found.push(script(&format!("{dir}/{name}"), period));
                }
            }
        }
    }
    let anacron = "/etc/anacrontab";
    let text = scope.text(anacron).unwrap_or_default();
    found.extend(
        text.lines()
            .filter_map(|line| anacron_line(anacron, line.trim())),
    );
    if found.len() > ENTRIES_MAX {
        scope.warn(
            "over_budget",
            "",
            format!("more than {ENTRIES_MAX} cron entries"),
        );
        found.truncate(ENTRIES_MAX);
    }
    found
}

/// Leftovers of editors and package managers are not run.
fn is_used(name: &str) -> bool {
    let is_left_over = [".rpmsave", ".rpmnew", ".rpmorig", ".swp", "~", ".update"]
        .iter()
        .any(|ending| name.ends_with(ending));
    !name.starts_with('.') && !is_left_over && !name.contains(".dpkg-") && !name.contains(".cron")
}

fn script(path: &str, period: &str) -> CronEntry {
    CronEntry {
        path: clean(path),
        schedule: format!("@{period}"),
        user: "root".to_owned(),
        command: clean(path),
    }
}

/// When to run, and the words behind; `None` for comments and settings.
fn schedule(line: &str) -> Option<(String, Vec<&str>)> {
    let first = line.chars().next()?;
    if !(first.is_ascii_digit() || matches!(first, '*' | '@')) {
        return None;
    }
    let fields = if first == '@' { 1 } else { 5 };
    let words: Vec<&str> = line.split_whitespace().collect();
    let (when, rest) = words.split_at_checked(fields)?;
    Some((when.join(" "), rest.to_vec()))
}

fn entry(path: &str, when: &str, user: &str, command: &[&str]) -> Option<CronEntry> {
    Some(CronEntry {
        path: clean(path),
        schedule: clean(when),
        user: clean(user),
        command: clean(&command.join(" ")),
    })
    .filter(|entry| !entry.command.is_empty())
}

/// `minute hour day month weekday user command`, or `@daily user command`.
fn system_line(path: &str, line: &str) -> Option<CronEntry> {
    let (when, rest) = schedule(line)?;
    let (user, command) = rest.split_first()?;
    entry(path, &when, user, command)
}

fn user_line(path: &str, user: &str, line: &str) -> Option<CronEntry> {
    let (when, command) = schedule(line)?;
    entry(path, &when, user, &command)
}

/// `period delay name command`: the period in days, or `@monthly`.
fn anacron_line(path: &str, line: &str) -> Option<CronEntry> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [period, delay, _, command @ ..] = words.as_slice() else {
        return None;
    };
    let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    if !(period.starts_with('@') || is_number(period)) || !is_number(delay) {
        return None;
    }
    let when = if period.starts_with('@') {
        (*period).to_owned()
    } else {
        format!("every {period} days")
    };
    entry(path, &when, "root", command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::memory::MemoryTree;
    use crate::guest::tests::with_scope;

    #[test]
    fn lines_are_told_from_settings_and_comments() {
        let entry = system_line("f", "17 *	* * *	root    cd / && run-parts").unwrap();
        assert_eq!(entry.schedule, "17 * * * *");
        assert_eq!(entry.user, "root");
        assert_eq!(entry.command, "cd / && run-parts");
        assert_eq!(system_line("f", "@daily bob x").unwrap().schedule, "@daily");
        assert_eq!(system_line("f", "SHELL=/bin/sh"), None);
        assert_eq!(system_line("f", "# 1 2 3 4 5 root x"), None);
        let entry = user_line("f", "al", "5 4 * * 0 backup --all").unwrap();
        assert_eq!((&*entry.user, &*entry.command), ("al", "backup --all"));
        let entry = anacron_line("f", "7 25 cron.weekly nice run-parts /etc/cron.weekly").unwrap();
        assert_eq!(entry.schedule, "every 7 days");
        assert_eq!(anacron_line("f", "RANDOM_DELAY=45 a b c"), None);
    }

    #[test]
    fn tables_of_users_and_scripts_are_found() {
        let tree = MemoryTree::of(&[
            ("/var/spool/cron/crontabs/al", "@reboot x\n"),
            ("/var/spool/cron/crontabs/.hidden", "@reboot y\n"),
            ("/etc/cron.daily/logrotate", "#!/bin/sh"),
            ("/etc/cron.d/a.dpkg-old", "@daily root x\n"),
        ]);
        let found = with_scope(tree, entries);
        let rows: Vec<_> = found.iter().map(|e| (&*e.user, &*e.schedule)).collect();
        assert_eq!(rows, [("al", "@reboot"), ("root", "@daily")]);
    }
}
