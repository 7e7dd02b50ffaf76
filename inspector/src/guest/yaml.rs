//! As much of YAML as configuration of netplan and cloud-init uses: block and flow collections,
//! plain and quoted scalars, comments (YAML 1.2.2). Anchors, tags and merge keys are refused: a
//! document that needs them is `None`, never a wrong answer. Depth and nodes are bounded.

/// Nesting of collections.
const DEPTH_MAX: usize = 32;
/// Nodes of one document.
const NODES_MAX: usize = 100_000;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// Nothing, or `~`.
    Null,
    /// Text as written, quotes taken off.
    Text(String),
    /// Values in their order.
    List(Vec<Node>),
    /// Pairs in their order.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(pairs) => pairs.iter().find(|(name, _)| name == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// Pairs of a map.
    pub(super) fn pairs(&self) -> &[(String, Self)] {
        match self {
            Self::Map(pairs) => pairs,
            _ => &[],
        }
    }

    /// Values of a list; one text alone counts as a list of it.
    pub(super) fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            Self::Text(_) => std::slice::from_ref(self),
            _ => &[],
        }
    }

    /// Text.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is one of YAML's words for true.
    pub(super) fn is_true(&self) -> bool {
        let text = self.text().unwrap_or_default().to_ascii_lowercase();
        matches!(text.as_str(), "true" | "yes" | "on" | "y")
    }
}

struct Line {
    indent: usize,
    text: String,
}

/// Parses the first document; `None` for what is no YAML or not of this subset.
pub(super) fn parse(text: &str) -> Option<Node> {
    let mut lines = Vec::new();
    let mut open = 0_i32;
    for raw in text.lines() {
        let text = without_comment(raw);
        let trimmed = text.trim();
        if trimmed.is_empty() || raw.starts_with('%') {
            continue;
        }
        if trimmed == "---" {
            continue;
        }
        if trimmed == "..." {
            break;
        }
        let indent = text.bytes().take_while(|byte| *byte == b' ').count();
        if text.get(indent..)?.starts_with('\t') {
            return None;
        }
        // A flow collection goes on over several lines.
        match lines.last_mut() {
            Some(Line { text, .. }) if open > 0 => {
                text.push(' ');
                text.push_str(trimmed);
            }
            _ => lines.push(Line {
                indent,
                text: trimmed.to_owned(),
            }),
        }
        open = open.checked_add(open_brackets(trimmed))?;
    }
    let mut parser = Parser {
        lines,
        at: 0,
        nodes: 0,
    };
    if parser.lines.is_empty() {
        return Some(Node::Null);
    }
    let indent = parser.lines.first()?.indent;
    let node = parser.block(indent, 0)?;
    (parser.at == parser.lines.len()).then_some(node)
}

/// A line up to a `#` that begins a comment.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open && before != '\\' => quote = None,
            Some(_) => {}
            // A quote inside of a word is a letter like any other.
            None if matches!(c, '"' | '\'') && !before.is_alphanumeric() => quote = Some(c),
            None if c == '#' && before.is_whitespace() => {
                return line.get(..at).unwrap_or_default();
            }
            None => {}
        }
        before = c;
    }
    line
}

/// Brackets that a line opens and does not close.
fn open_brackets(line: &str) -> i32 {
    let mut open = 0_i32;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(mark), c) if c == mark => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => open = open.saturating_add(1),
            (None, ']' | '}') => open = open.saturating_sub(1),
            _ => {}
        }
    }
    open
}

struct Parser {
    lines: Vec<Line>,
    at: usize,
    nodes: usize,
}

impl Parser {
    fn count(&mut self, depth: usize) -> Option<()> {
        self.nodes = self.nodes.checked_add(1)?;
        (depth <= DEPTH_MAX && self.nodes <= NODES_MAX).then_some(())
    }

    /// A collection or a scalar whose lines begin at `indent`.
    fn block(&mut self, indent: usize, depth: usize) -> Option<Node> {
        self.count(depth)?;
        let line = self.lines.get(self.at)?;
        if line.text == "-" || line.text.starts_with("- ") {
            return self.list(indent, depth);
        }
        if split_key(&line.text).is_some() {
            return self.map(indent, depth);
        }
        let text = line.text.clone();
        self.at = self.at.checked_add(1)?;
        self.value(&text, depth)
    }

    fn list(&mut self, indent: usize, depth: usize) -> Option<Node> {
        let mut items = Vec::new();
        while let Some(line) = self.lines.get_mut(self.at) {
            let is_item = line.text == "-" || line.text.starts_with("- ");
            if line.indent != indent || !is_item {
                break;
            }
            let rest = line.text.get(1..).unwrap_or_default();
            let inner = rest.trim_start();
            if inner.is_empty() {
                self.at = self.at.checked_add(1)?;
                items.push(self.nested(indent, depth)?);
            } else {
                // What stands behind the dash is a block of its own, at its own column.
                let skipped = line.text.len().saturating_sub(inner.len());
                let text = inner.to_owned();
                line.indent = indent.checked_add(skipped)?;
                line.text = text;
                let inner = line.indent;
                items.push(self.block(inner, depth.checked_add(1)?)?);
            }
        }
        Some(Node::List(items))
    }

    fn map(&mut self, indent: usize, depth: usize) -> Option<Node> {
        let mut pairs = Vec::new();
        while let Some(line) = self.lines.get(self.at) {
            if line.indent != indent || line.text.starts_with("- ") {
                break;
            }
            let (key, rest) = split_key(&line.text)?;
            if key == "<<" || key.starts_with(['&', '*', '!', '?']) {
                return None;
            }
            let (key, rest) = (unquote(key)?, rest.to_owned());
            self.at = self.at.checked_add(1)?;
            let value = match rest.as_str() {
                "" => self.nested(indent, depth)?,
                text if text.starts_with(['|', '>']) => self.folded(indent),
                text => self.value(text, depth.checked_add(1)?)?,
            };
            pairs.push((key, value));
        }
        (!pairs.is_empty()).then_some(Node::Map(pairs))
    }

    /// What stands beneath a key or a dash: deeper lines, or a list at the same column.
    fn nested(&mut self, indent: usize, depth: usize) -> Option<Node> {
        match self.lines.get(self.at) {
            Some(line) if line.indent > indent => {
                let inner = line.indent;
                self.block(inner, depth.checked_add(1)?)
            }
            Some(line) if line.indent == indent && line.text.starts_with("- ") => {
                self.list(indent, depth.checked_add(1)?)
            }
            _ => Some(Node::Null),
        }
    }

    /// A block scalar: deeper lines, whose inner indentation nobody here needs.
    fn folded(&mut self, indent: usize) -> Node {
        let mut text = Vec::new();
        while let Some(line) = self.lines.get(self.at).filter(|line| line.indent > indent) {
            text.push(line.text.clone());
            self.at = self.at.saturating_add(1);
        }
        Node::Text(text.join("\n"))
    }

    /// A scalar or a flow collection on one line.
    fn value(&mut self, text: &str, depth: usize) -> Option<Node> {
        if text.starts_with(['&', '*', '!']) {
            return None;
        }
        if !text.starts_with(['[', '{']) {
            return scalar(text);
        }
        let chars: Vec<char> = text.chars().collect();
        let (node, rest) = self.flow(&chars, depth)?;
        rest.iter().all(|c| c.is_whitespace()).then_some(node)
    }

    fn flow<'c>(&mut self, chars: &'c [char], depth: usize) -> Option<(Node, &'c [char])> {
        self.count(depth)?;
        let chars = skip_blanks(chars);
        let inner = depth.checked_add(1)?;
        match chars {
            ['[', rest @ ..] => {
                let mut items = Vec::new();
                let mut rest = skip_blanks(rest);
                loop {
                    match rest {
                        [']', behind @ ..] => return Some((Node::List(items), behind)),
                        [',', behind @ ..] => rest = skip_blanks(behind),
                        _ => {
                            let (node, behind) = self.flow(rest, inner)?;
                            items.push(node);
                            rest = skip_blanks(behind);
                        }
                    }
                }
            }
            ['{', rest @ ..] => {
                let mut pairs = Vec::new();
                let mut rest = skip_blanks(rest);
                loop {
                    match rest {
                        ['}', behind @ ..] => return Some((Node::Map(pairs), behind)),
                        [',', behind @ ..] => rest = skip_blanks(behind),
                        _ => {
                            let (key, behind) = word(rest, true)?;
                            rest = skip_blanks(behind);
                            let mut value = Node::Null;
                            if let [':', behind @ ..] = rest {
                                let (node, behind) = self.flow(behind, inner)?;
                                value = node;
                                rest = skip_blanks(behind);
                            }
                            pairs.push((unquote(&key)?, value));
                        }
                    }
                }
            }
            _ => {
                let (text, rest) = word(chars, false)?;
                Some((scalar(&text)?, rest))
            }
        }
    }
}

fn skip_blanks(chars: &[char]) -> &[char] {
    let blanks = chars.iter().take_while(|c| c.is_whitespace()).count();
    chars.get(blanks..).unwrap_or_default()
}

/// A word of a flow collection with its quotes; a key also ends at a colon.
fn word(chars: &[char], is_key: bool) -> Option<(String, &[char])> {
    let first = *chars.first()?;
    if matches!(first, '"' | '\'') {
        let body = chars.get(1..)?;
        let end = body.iter().position(|c| *c == first)?.checked_add(2)?;
        return Some((chars.get(..end)?.iter().collect(), chars.get(end..)?));
    }
    if matches!(first, '&' | '*' | '!') {
        return None;
    }
    let mut end = 0_usize;
    while let Some(c) = chars.get(end) {
        // A colon inside of a word, as in an IPv6 address, ends nothing.
        let before_blank = chars
            .get(end.saturating_add(1))
            .is_none_or(|next| next.is_whitespace() || matches!(next, '[' | '{'));
        if matches!(c, ',' | ']' | '}' | '[' | '{') || (is_key && *c == ':' && before_blank) {
            break;
        }
        end = end.checked_add(1)?;
    }
    let text: String = chars.get(..end)?.iter().collect();
    let text = text.trim().to_owned();
    (!text.is_empty()).then(|| (text, chars.get(end..).unwrap_or_default()))
}

/// `key: rest`; `None` when a line is no pair.
fn split_key(text: &str) -> Option<(&str, &str)> {
    if text.starts_with(['[', '{']) {
        return None;
    }
    let start = match text.chars().next()? {
        quote @ ('"' | '\'') => text.get(1..)?.find(quote)?.checked_add(2)?,
        _ => 0,
    };
    let behind = text.get(start..)?;
    let colon = match behind.find(": ") {
        Some(at) => at,
        None => behind.strip_suffix(':')?.len(),
    };
    let at = start.checked_add(colon)?;
    let rest = text.get(at.checked_add(1)?..)?;
    Some((text.get(..at)?.trim(), rest.trim()))
}

fn scalar(text: &str) -> Option<Node> {
    match text {
        "" | "~" | "null" => Some(Node::Null),
        text => Some(Node::Text(unquote(text)?)),
    }
}

/// `None` for a quote that is not closed.
fn unquote(text: &str) -> Option<String> {
    let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        return Some(text.to_owned());
    };
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    Some(match quote {
        '\'' => inner.replace("''", "'"),
        _ => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Node {
        Node::Text(text.to_owned())
    }

    #[test]
    fn blocks_and_flows_are_read() {
        let node = parse(
            "# comment\n---\nnetwork:\n  version: 2\n  ethernets:\n    eth0: # the first\n      dhcp4: true\n      addresses: [10.0.0.2/24, \"2001:db8::1/64\"]\n      nameservers: {search: [a, b], addresses: [ 1.1.1.1,\n         8.8.8.8 ]}\n      routes:\n      - to: default\n        via: 10.0.0.1\n      -\n        to: 10.1.0.0/16\n    'id 1':\n      set-name: \"x#y\"\n",
        )
        .unwrap();
        let eth0 = node.get("network").unwrap().get("ethernets").unwrap();
        let eth0 = eth0.get("eth0").unwrap();
        assert!(eth0.get("dhcp4").unwrap().is_true());
        let addresses = eth0.get("addresses").unwrap().items();
        assert_eq!(addresses, [text("10.0.0.2/24"), text("2001:db8::1/64")]);
        let servers = eth0.get("nameservers").unwrap().get("addresses").unwrap();
        assert_eq!(servers.items().len(), 2);
        let routes = eth0.get("routes").unwrap().items();
        assert_eq!(routes[0].get("via"), Some(&text("10.0.0.1")));
        assert_eq!(routes[1].get("to"), Some(&text("10.1.0.0/16")));
        let other = node.get("network").unwrap().get("ethernets").unwrap();
        let other = other.get("id 1").unwrap();
        assert_eq!(other.get("set-name"), Some(&text("x#y")));
    }

    #[test]
    fn what_is_not_of_the_subset_is_refused() {
        for bad in [
            "a: &x 1\nb: *x\n",
            "<<: {a: 1}\n",
            "a: !!int 1\n",
            "a:\n\t- b\n",
            "a: [1, 2\n",
            "a: 'x\n",
            "a: b\n  - c\n",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(parse(&format!("a: {deep}")), None);
        let deep: String = (0..500).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        assert_eq!(parse(&deep), None);
        assert_eq!(parse(""), Some(Node::Null));
    }
}
