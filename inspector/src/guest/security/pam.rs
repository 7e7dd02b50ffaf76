//! pam.d(5): which modules a service goes through. Arguments are left out: they may hold secrets.

use crate::guest::{Scope, clean};
use crate::report::PamService;

/// Services and rules of one that are reported.
const SERVICES_MAX: usize = 200;
const RULES_MAX: usize = 200;

pub(super) fn read(scope: &mut Scope<'_>) -> Vec<PamService> {
    let mut found = Vec::new();
    let dir = "/etc/pam.d";
    for name in scope.names(dir) {
        if name.starts_with('.') || name.contains(".dpkg-") || name.contains(".rpm") {
            continue;
        }
        if found.len() >= SERVICES_MAX {
            scope.warn(
                "over_budget",
                dir,
                format!("more than {SERVICES_MAX} services"),
            );
            break;
        }
        let text = scope.text(&format!("{dir}/{name}")).unwrap_or_default();
        let text = text.replace("\\\n", " ");
        let rules = text.lines().filter_map(rule).take(RULES_MAX).collect();
        found.push(PamService {
            name: clean(&name),
            rules,
        });
    }
    found
}

/// `auth [success=1 default=ignore] pam_unix.so nullok` as type, control and module.
fn rule(line: &str) -> Option<String> {
    let line = line.split('#').next()?.trim();
    let (kind, rest) = line.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let end = if rest.starts_with('[') {
        rest.find(']')?.checked_add(1)?
    } else {
        rest.find(char::is_whitespace).unwrap_or(rest.len())
    };
    let (control, behind) = rest.split_at_checked(end)?;
    let words = [
        kind,
        control,
        behind.split_whitespace().next().unwrap_or_default(),
    ];
    Some(clean(words.join(" ").trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_lose_their_arguments() {
        for (line, expected) in [
            (
                "auth [success=1 default=ignore] pam_unix.so nullok secret=x",
                "auth [success=1 default=ignore] pam_unix.so",
            ),
            ("@include common-auth", "@include common-auth"),
            (
                "-session\toptional\tpam_systemd.so",
                "-session optional pam_systemd.so",
            ),
        ] {
            assert_eq!(rule(line).as_deref(), Some(expected));
        }
        assert_eq!(rule("# auth x y"), None);
        assert_eq!(rule("auth [x"), None);
    }
}
