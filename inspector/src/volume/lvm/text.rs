//! LVM2's text metadata: sections of settings, in braces.

use std::collections::BTreeMap;

/// Sections above one another; LVM nests four deep.
const DEPTH_MAX: usize = 8;
/// Settings and sections in one text: a volume group of thousands of segments.
const NODES_MAX: usize = 500_000;

/// A setting's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Number(i64),
    Text(String),
    List(Vec<Value>),
}

/// Settings and sections by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Section {
    values: BTreeMap<String, Value>,
    pub(super) sections: BTreeMap<String, Section>,
}

impl Section {
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.values.get(name)? {
            Value::Number(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn list(&self, name: &str) -> &[Value] {
        match self.values.get(name) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.get(name)
    }

    /// Whether a list of texts holds `flag`.
    pub(super) fn has(&self, list: &str, flag: &str) -> bool {
        let mut texts = self.list(list).iter();
        texts.any(|value| matches!(value, Value::Text(text) if text == flag))
    }
}

/// Parses a whole text. The error says what stands where it should not.
pub(super) fn parse(text: &[u8]) -> Result<Section, String> {
    let mut parser = Parser {
        text,
        at: 0,
        nodes: 0,
    };
    let root = parser.section(0)?;
    match parser.peek() {
        None => Ok(root),
        Some(byte) => Err(parser.problem(byte)),
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    nodes: usize,
}

impl Parser<'_> {
    /// The next byte that is no blank, comment or end of text.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at).copied()? {
                b'#' => {
                    let rest = self.text.get(self.at..).unwrap_or_default();
                    let len = rest.iter().position(|b| *b == b'\n');
                    self.at = self.at.saturating_add(len.unwrap_or(rest.len()));
                }
                0 => return None,
                byte if byte.is_ascii_whitespace() || byte == b',' => self.step(),
                byte => return Some(byte),
            }
        }
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    fn problem(&self, byte: u8) -> String {
        format!("unexpected {:?} at byte {}", char::from(byte), self.at)
    }

    fn count(&mut self) -> Result<(), String> {
        self.nodes = self.nodes.saturating_add(1);
        if self.nodes > NODES_MAX {
            return Err(format!("more than {NODES_MAX} settings"));
        }
        Ok(())
    }

    /// Settings up to a closing brace or the end.
    fn section(&mut self, depth: usize) -> Result<Section, String> {
        if depth > DEPTH_MAX {
            return Err(format!("more than {DEPTH_MAX} sections in one another"));
        }
        let mut section = Section::default();
        while let Some(byte) = self.peek() {
            if byte == b'}' {
                break;
            }
            self.count()?;
            let name = self.word()?;
            match self.peek() {
                Some(b'{') => {
                    self.step();
                    let inner = self.section(depth.saturating_add(1))?;
                    if self.peek() != Some(b'}') {
                        return Err(format!("section {name:?} does not end"));
                    }
                    self.step();
                    section.sections.insert(name, inner);
                }
                Some(b'=') => {
                    self.step();
                    let value = self.value(true)?;
                    section.values.insert(name, value);
                }
                Some(byte) => return Err(self.problem(byte)),
                None => return Err(format!("the text ends after {name:?}")),
            }
        }
        Ok(section)
    }

    fn word(&mut self) -> Result<String, String> {
        if self.peek() == Some(b'"') {
            return self.quoted();
        }
        let rest = self.text.get(self.at..).unwrap_or_default();
        let is_word = |b: &u8| b.is_ascii_alphanumeric() || b"_-+./@:".contains(b);
        let word: Vec<u8> = rest.iter().copied().take_while(|b| is_word(b)).collect();
        if word.is_empty() {
            return Err(self.problem(rest.first().copied().unwrap_or(0)));
        }
        self.at = self.at.saturating_add(word.len());
        Ok(String::from_utf8_lossy(&word).into_owned())
    }

    /// A string; a backslash makes the next byte an ordinary one.
    fn quoted(&mut self) -> Result<String, String> {
        let start = self.at;
        self.step();
        let mut out = Vec::new();
        loop {
            match self.text.get(self.at).copied() {
                None | Some(0) => return Err(format!("the string at byte {start} does not end")),
                Some(b'"') => {
                    self.step();
                    return Ok(String::from_utf8_lossy(&out).into_owned());
                }
                Some(b'\\') => {
                    self.step();
                    out.extend(self.text.get(self.at));
                }
                Some(byte) => out.push(byte),
            }
            self.step();
        }
    }

    fn value(&mut self, lists: bool) -> Result<Value, String> {
        self.count()?;
        match self.peek() {
            Some(b'[') if lists => {
                self.step();
                let mut list = Vec::new();
                while self.peek() != Some(b']') {
                    list.push(self.value(false)?);
                }
                self.step();
                Ok(Value::List(list))
            }
            Some(b'"') => self.quoted().map(Value::Text),
            Some(_) => {
                let word = self.word()?;
                Ok(word.parse().map_or(Value::Text(word), Value::Number))
            }
            None => Err("the text ends in a value".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_lists_comments_and_escapes() {
        let text = b"vg {\n# a comment with } in it\nid = \"a-b\"\nseqno = 3 # here too\n\
            list = [\"x\", 4, \"y]\"]\nempty = []\ninner { size = -1 }\n}\n\
            description = \"made by \\\"someone\\\" with \\\\ and {\"\n\0junk";
        let root = parse(text).unwrap();
        let vg = root.section("vg").unwrap();
        assert_eq!((vg.text("id"), vg.number("seqno")), (Some("a-b"), Some(3)));
        assert!(vg.has("list", "y]") && !vg.has("list", "z") && vg.list("empty").is_empty());
        assert_eq!(vg.list("list")[1], Value::Number(4));
        assert_eq!(vg.section("inner").unwrap().number("size"), None);
        let description = root.text("description").unwrap();
        assert_eq!(description, "made by \"someone\" with \\ and {");
    }

    #[test]
    fn damaged_texts_are_refused() {
        for text in [
            "a {",
            "a = ",
            "a = [1",
            "a = \"x",
            "a b",
            "}",
            "= 1",
            "a = [[1]]",
            "a = {",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        let deep = "a {".repeat(100_000);
        assert!(parse(deep.as_bytes()).is_err());
    }
}
