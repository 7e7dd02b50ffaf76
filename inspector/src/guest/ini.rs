//! Tolerant readers of the two formats that configuration comes in.

/// `KEY=value` lines as a shell would read them, comments left out.
pub(super) fn assignments(text: &str) -> Vec<(String, String)> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), unquote(value.trim())))
        .collect()
}

/// A value without its quotes and escapes.
pub(super) fn unquote(value: &str) -> String {
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
    let inner = match quote {
        Some(quote) => value
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote))
            .unwrap_or(value),
        None => value,
    };
    if quote == Some('\'') {
        return inner.to_owned();
    }
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            out.extend(chars.next());
        } else {
            out.push(c);
        }
    }
    out
}

/// One line of a file with `[sections]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) section: String,
    pub(super) key: String,
    pub(super) value: String,
}

/// Entries of a file with `[sections]`; a line that ends in a backslash goes on.
pub(super) fn entries(text: &str) -> Vec<Entry> {
    let mut out = Vec::new();
    let mut section = String::new();
    let mut pending = String::new();
    for line in text.lines() {
        let line = line.trim();
        // Comments are left out even between the pieces of a continued line (systemd.syntax(7)).
        if line.starts_with('#') || line.starts_with(';') {
            continue;
        }
        if let Some(begun) = line.strip_suffix('\\') {
            pending.push_str(begun.trim_end());
            pending.push(' ');
            continue;
        }
        let whole = format!("{pending}{line}");
        pending.clear();
        if let Some(name) = whole
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            name.clone_into(&mut section);
        } else if let Some((key, value)) = whole.split_once('=') {
            out.push(Entry {
                section: section.clone(),
                key: key.trim().to_owned(),
                value: value.trim().to_owned(),
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_comments_are_understood() {
        let found = assignments("# x=y\nA=\"b \\\"c\\\"\"\nD='e\\f'\nG=h\n");
        let pairs: Vec<(&str, &str)> = found
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(pairs, [("A", "b \"c\""), ("D", "e\\f"), ("G", "h")]);
    }

    #[test]
    fn sections_and_continued_lines_are_understood() {
        let found =
            entries("[Service]\nExecStart=/bin/a \\\n  --b \\\n#x=1\n  c\n[Install]\nWantedBy=c\n");
        assert_eq!(found[0].value, "/bin/a --b c");
        assert_eq!(found[1].section, "Install");
    }
}
