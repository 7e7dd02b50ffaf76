//! glob(7) as configuration files use it: `*`, `?`, `[…]`; a bounded match, without backtracking
//! beyond the last star.

use super::Scope;

/// Paths that one pattern may stand for.
const PATHS_MAX: usize = 1_000;

/// Whether a whole name fits a pattern.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0_usize, 0_usize);
    let mut star: Option<(usize, usize)> = None;
    while let Some(c) = name.get(n) {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p = p.saturating_add(1);
                continue;
            }
            Some('?') => Some(1),
            Some('[') => class(pattern.get(p..).unwrap_or_default(), *c),
            Some(other) if other == c => Some(1),
            _ => None,
        };
        match (step, star) {
            (Some(step), _) => {
                p = p.saturating_add(step);
                n = n.saturating_add(1);
            }
            // Let the last star take one more.
            (None, Some((at, taken))) => {
                let taken = taken.saturating_add(1);
                star = Some((at, taken));
                p = at.saturating_add(1);
                n = taken;
            }
            (None, None) => return false,
        }
    }
    pattern
        .get(p..)
        .unwrap_or_default()
        .iter()
        .all(|c| *c == '*')
}

/// Length of a `[…]` that fits `c`.
fn class(pattern: &[char], c: char) -> Option<usize> {
    // A closing bracket that comes first stands for itself.
    let body = pattern.get(1..)?;
    let negated = matches!(body.first(), Some('!' | '^'));
    let skipped = usize::from(negated);
    let first = skipped.saturating_add(1);
    let end = body.iter().skip(first).position(|c| *c == ']')?;
    let end = end.saturating_add(first);
    let inside = body.get(skipped..end)?;
    let mut fits = false;
    let mut rest = inside;
    loop {
        match rest {
            [from, '-', to, more @ ..] => {
                fits |= (*from..=*to).contains(&c);
                rest = more;
            }
            [one, more @ ..] => {
                fits |= *one == c;
                rest = more;
            }
            [] => break,
        }
    }
    (fits != negated).then(|| end.saturating_add(2))
}

/// Paths of the guest that fit a pattern, sorted; a name with a leading dot only when it is named.
pub(super) fn paths(scope: &mut Scope<'_>, pattern: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for dir in &found {
            if !part.contains(['*', '?', '[']) {
                next.push(format!("{dir}/{part}"));
                continue;
            }
            for name in scope.names(if dir.is_empty() { "/" } else { dir }) {
                let is_hidden = name.starts_with('.') && !part.starts_with('.');
                if !is_hidden && matches(part, &name) {
                    next.push(format!("{dir}/{name}"));
                }
            }
        }
        if next.len() > PATHS_MAX {
            scope.warn(
                "over_budget",
                pattern,
                format!("more than {PATHS_MAX} files"),
            );
            next.truncate(PATHS_MAX);
        }
        found = next;
    }
    found.retain(|path| !path.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_names() {
        for (pattern, name) in [
            ("*.conf", "a.conf"),
            ("a*b*c", "aXbXbXc"),
            ("[0-9][!a]?.x", "5bc.x"),
            ("*", ""),
            ("[]x]", "]"),
            ("getty@*.service", "getty@tty1.service"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.conf", "a.conf~"),
            ("a?", "a"),
            ("[a", "a"),
            ("[^a]", "a"),
            ("", "x"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        // Quadratic at worst: no pattern makes it run for ever.
        let long = "a".repeat(3_000);
        assert!(!matches(&format!("{}b", "*a".repeat(50)), &long));
    }
}
