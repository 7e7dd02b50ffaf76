//! RFC 8785 (JSON Canonicalization Scheme) over raw text, and the strict check that goes before it.
//!
//! One pass, bounded depth, no tree. Where RFC 8785 would lose digits we differ on purpose: a number whose
//! magnitude is beyond 2^53, or that underflows to zero, keeps its text unless its shortest double form has
//! the same decimal value. Otherwise two different payloads would have one hash.

use crate::json_text::JsonFault;
use std::borrow::Cow;
use std::cmp::Ordering;

/// How deeply objects and lists may nest: serde_json's own limit, so that all readers here agree.
pub const DEPTH_MAX: usize = 127;

/// Checks that `text` is exactly one acceptable JSON value.
pub(crate) fn check(text: &str) -> Result<(), JsonFault> {
    Pass::<false>::new(text).run().map(drop)
}

/// The canonical form of a JSON value.
///
/// # Errors
/// The text is not exactly one JSON value, nests deeper than [`DEPTH_MAX`], repeats a name in an object, or
/// has half a surrogate pair.
pub fn canonical_json(text: &str) -> Result<Vec<u8>, JsonFault> {
    Pass::<true>::new(text).run()
}

/// A member of an object that is being read: its name and where its canonical text lies in the output.
struct Member<'a> {
    name: Cow<'a, str>,
    start: usize,
    end: usize,
}

struct Pass<'a, const WRITE: bool> {
    text: &'a str,
    bytes: &'a [u8],
    position: usize,
    out: Vec<u8>,
    /// Members of all open objects; each object owns the tail from where it began.
    members: Vec<Member<'a>>,
}

impl<'a, const WRITE: bool> Pass<'a, WRITE> {
    fn new(text: &'a str) -> Self {
        let out = if WRITE {
            Vec::with_capacity(text.len())
        } else {
            Vec::new()
        };
        Self {
            text,
            bytes: text.as_bytes(),
            position: 0,
            out,
            members: Vec::new(),
        }
    }

    fn run(mut self) -> Result<Vec<u8>, JsonFault> {
        self.space();
        self.value(0)?;
        self.space();
        match self.peek() {
            None => Ok(self.out),
            Some(_) => Err(self.fault("something follows the value")),
        }
    }

    fn fault(&self, reason: impl Into<String>) -> JsonFault {
        JsonFault {
            position: self.position,
            reason: reason.into(),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.position).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.position += 1;
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        if WRITE {
            self.out.extend_from_slice(bytes);
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonFault> {
        if self.peek() == Some(byte) {
            self.position += 1;
            Ok(())
        } else {
            Err(self.unexpected(&format!("\"{}\"", byte as char)))
        }
    }

    fn unexpected(&self, wanted: &str) -> JsonFault {
        match self
            .text
            .get(self.position..)
            .and_then(|rest| rest.chars().next())
        {
            None => self.fault(format!("the text ends where {wanted} is expected")),
            Some(found) => self.fault(format!("found {found:?} where {wanted} is expected")),
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), JsonFault> {
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => {
                let start = self.position;
                let text = self.string()?;
                self.put_string(start, &text, matches!(text, Cow::Owned(_)));
                Ok(())
            }
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.unexpected("a value")),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), JsonFault> {
        if self
            .bytes
            .get(self.position..)
            .is_some_and(|rest| rest.starts_with(word.as_bytes()))
        {
            self.position += word.len();
            self.put(word.as_bytes());
            Ok(())
        } else {
            Err(self.unexpected(word))
        }
    }

    fn open(&mut self, depth: usize, bracket: u8) -> Result<(), JsonFault> {
        if depth >= DEPTH_MAX {
            return Err(self.fault(format!("nested deeper than {DEPTH_MAX}")));
        }
        self.position += 1;
        self.put(&[bracket]);
        self.space();
        Ok(())
    }

    fn list(&mut self, depth: usize) -> Result<(), JsonFault> {
        self.open(depth, b'[')?;
        if self.peek() != Some(b']') {
            loop {
                self.value(depth + 1)?;
                self.space();
                if self.peek() != Some(b',') {
                    break;
                }
                self.position += 1;
                self.put(b",");
                self.space();
            }
        }
        self.expect(b']')?;
        self.put(b"]");
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), JsonFault> {
        self.open(depth, b'{')?;
        let first = self.members.len();
        if self.peek() != Some(b'}') {
            loop {
                if self.peek() != Some(b'"') {
                    return Err(self.unexpected("a name in quotes"));
                }
                let name_at = self.position;
                let name = self.string()?;
                let start = self.out.len();
                self.put_string(name_at, &name, matches!(name, Cow::Owned(_)));
                self.space();
                self.expect(b':')?;
                self.put(b":");
                self.space();
                self.value(depth + 1)?;
                let end = self.out.len();
                self.members.push(Member { name, start, end });
                self.space();
                if self.peek() != Some(b',') {
                    break;
                }
                self.position += 1;
                self.put(b",");
                self.space();
            }
        }
        self.expect(b'}')?;
        self.close_object(first)?;
        self.put(b"}");
        Ok(())
    }

    /// Puts the members of the innermost object in order and refuses a name that comes twice.
    fn close_object(&mut self, first: usize) -> Result<(), JsonFault> {
        let members = self.members.get_mut(first..).unwrap_or_default();
        let in_order = members
            .windows(2)
            .all(|pair| utf16_order(&pair[0].name, &pair[1].name).is_lt());
        if !in_order {
            let begin = members.first().map_or(0, |member| member.start);
            members.sort_by(|a, b| utf16_order(&a.name, &b.name));
            if let Some(pair) = members.windows(2).find(|pair| pair[0].name == pair[1].name) {
                let reason = format!("the name {:?} comes twice", pair[0].name);
                return Err(self.fault(reason));
            }
            if WRITE {
                let mut sorted = Vec::with_capacity(self.out.len() - begin);
                for member in &*members {
                    if !sorted.is_empty() {
                        sorted.push(b',');
                    }
                    sorted.extend_from_slice(&self.out[member.start..member.end]);
                }
                self.out.truncate(begin);
                self.out.extend_from_slice(&sorted);
            }
        }
        self.members.truncate(first);
        Ok(())
    }

    /// A string with its quotes; the result is its value.
    fn string(&mut self) -> Result<Cow<'a, str>, JsonFault> {
        self.position += 1;
        let start = self.position;
        let mut unescaped: Option<String> = None;
        let mut copied = start;
        loop {
            match self.peek() {
                None => return Err(self.fault("the text ends inside a string")),
                Some(b'"') => {
                    let rest = &self.text[copied..self.position];
                    self.position += 1;
                    return Ok(match unescaped {
                        None => Cow::Borrowed(rest),
                        Some(mut value) => {
                            value.push_str(rest);
                            Cow::Owned(value)
                        }
                    });
                }
                Some(b'\\') => {
                    let plain = &self.text[copied..self.position];
                    let value = unescaped.get_or_insert_default();
                    value.push_str(plain);
                    let escaped = self.escape()?;
                    if let Some(value) = &mut unescaped {
                        value.push(escaped);
                    }
                    copied = self.position;
                }
                Some(byte) if byte < 0x20 => {
                    return Err(self.fault("a control character inside a string must be escaped"));
                }
                // The run of plain bytes at once: most of a payload is such runs.
                Some(_) => {
                    let rest = self.bytes.get(self.position..).unwrap_or_default();
                    let plain = rest
                        .iter()
                        .position(|byte| matches!(byte, b'"' | b'\\') || *byte < 0x20);
                    self.position += plain.unwrap_or(rest.len());
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonFault> {
        let kind = self.bytes.get(self.position + 1).copied();
        let plain = match kind {
            Some(byte @ (b'"' | b'\\' | b'/')) => byte as char,
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.fault("unknown escape in a string")),
        };
        self.position += 2;
        Ok(plain)
    }

    fn unicode_escape(&mut self) -> Result<char, JsonFault> {
        let high = self.hex_unit()?;
        let code = match high {
            0xD800..=0xDBFF => {
                let at = self.position;
                let low = if self.peek() == Some(b'\\') {
                    self.hex_unit().ok()
                } else {
                    None
                };
                match low {
                    Some(low @ 0xDC00..=0xDFFF) => {
                        0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)
                    }
                    _ => {
                        self.position = at;
                        return Err(self.fault("half a surrogate pair in a string"));
                    }
                }
            }
            other => other,
        };
        char::from_u32(code).ok_or_else(|| self.fault("half a surrogate pair in a string"))
    }

    /// `\uXXXX`
    fn hex_unit(&mut self) -> Result<u32, JsonFault> {
        let digits = self.bytes.get(self.position + 2..self.position + 6);
        let is_unit = self.bytes.get(self.position + 1) == Some(&b'u');
        let Some(digits) =
            digits.filter(|digits| is_unit && digits.iter().all(u8::is_ascii_hexdigit))
        else {
            return Err(self.fault("\\u needs four hexadecimal digits"));
        };
        self.position += 6;
        Ok(digits.iter().fold(0, |unit, digit| {
            unit * 16 + (*digit as char).to_digit(16).unwrap_or_default()
        }))
    }

    /// Writes the string that began at `start` in the form of RFC 8785, 3.2.2.2.
    fn put_string(&mut self, start: usize, value: &str, escaped: bool) {
        if !WRITE {
            return;
        }
        if !escaped {
            // Without an escape it is canonical already.
            let source = &self.bytes[start..start + value.len() + 2];
            self.out.extend_from_slice(source);
            return;
        }
        self.out.push(b'"');
        for byte in value.bytes() {
            match byte {
                b'"' => self.out.extend_from_slice(b"\\\""),
                b'\\' => self.out.extend_from_slice(b"\\\\"),
                0x08 => self.out.extend_from_slice(b"\\b"),
                0x09 => self.out.extend_from_slice(b"\\t"),
                0x0a => self.out.extend_from_slice(b"\\n"),
                0x0c => self.out.extend_from_slice(b"\\f"),
                0x0d => self.out.extend_from_slice(b"\\r"),
                0..0x20 => self
                    .out
                    .extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
                _ => self.out.push(byte),
            }
        }
        self.out.push(b'"');
    }

    fn digits(&mut self) -> Result<(), JsonFault> {
        let start = self.position;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.position += 1;
        }
        if self.position == start {
            Err(self.unexpected("a digit"))
        } else {
            Ok(())
        }
    }

    fn number(&mut self) -> Result<(), JsonFault> {
        let start = self.position;
        let mut whole = true;
        if self.peek() == Some(b'-') {
            self.position += 1;
        }
        if self.peek() == Some(b'0') {
            self.position += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            whole = false;
            self.position += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            whole = false;
            self.position += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.position += 1;
            }
            self.digits()?;
        }
        if WRITE {
            let text = &self.text[start..self.position];
            // Up to 15 digits a whole number is its own canonical form; -0 is the exception.
            if whole && text.len() <= 15 && text != "-0" {
                self.out.extend_from_slice(text.as_bytes());
            } else {
                put_number(&mut self.out, text);
            }
        }
        Ok(())
    }
}

/// Names sort by their UTF-16 code units (RFC 8785, 3.2.3).
fn utf16_order(a: &str, b: &str) -> Ordering {
    if a.is_ascii() && b.is_ascii() {
        a.cmp(b)
    } else {
        a.encode_utf16().cmp(b.encode_utf16())
    }
}

fn put_number(out: &mut Vec<u8>, text: &str) {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0; // 2^53
    let value: f64 = text.parse().unwrap_or(f64::NAN);
    let mut buffer = ryu_js::Buffer::new();
    if value.is_finite() {
        let shortest = buffer.format_finite(value);
        let ordinary = value != 0.0 && value.abs() < EXACT_MAX;
        if ordinary || decimal(shortest) == decimal(text) {
            out.extend_from_slice(shortest.as_bytes());
            return;
        }
    }
    out.extend_from_slice(text.as_bytes());
}

/// The decimal value of a JSON number: sign, significant digits, and the power of ten of the last of them.
fn decimal(text: &str) -> Option<(bool, String, i128)> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let negative = mantissa.starts_with('-');
    let mantissa = mantissa.trim_start_matches('-');
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let dropped = digits.len() - significant.len();
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Some((false, String::new(), 0));
    }
    // Only an absurd exponent fails to parse; such a number keeps its text.
    let exponent: i128 = exponent.parse().ok()?;
    let power = exponent
        .checked_sub(fraction.len() as i128)?
        .checked_add(dropped as i128)?;
    Some((negative, significant.to_owned(), power))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        String::from_utf8(canonical_json(text).unwrap()).unwrap()
    }

    /// RFC 8785, 3.2.2 and 3.2.3.
    #[test]
    fn the_examples_of_the_rfc() {
        let sample = r#"{
            "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
            "literals": [null, true, false]
        }"#;
        let expected = concat!(
            r#"{"literals":[null,true,false],"#,
            r#""numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"#,
            r#""string":"€$\u000f\nA'B\"\\\\\"/"}"#
        );
        assert_eq!(canonical(sample), expected);

        let names =
            r#"{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}"#;
        assert_eq!(
            canonical(names),
            "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"ö\":7,\"€\":1,\"😀\":5,\"\u{fb33}\":3}"
        );
    }

    /// RFC 8785, appendix B: each of these is its own canonical form.
    #[test]
    fn the_numbers_of_the_rfc() {
        for number in [
            "0",
            "5e-324",
            "-5e-324",
            "1.7976931348623157e+308",
            "9007199254740992",
            "-9007199254740992",
            "295147905179352830000",
            "9.999999999999997e+22",
            "1e+23",
            "1.0000000000000001e+23",
            "999999999999999700000",
            "999999999999999900000",
            "1e+21",
            "9.999999999999997e-7",
            "0.000001",
            "333333333.3333332",
            "333333333.33333325",
            "333333333.3333334",
            "333333333.33333343",
            "-0.0000033333333333333333",
            "1424953923781206.2",
        ] {
            assert_eq!(canonical(number), number);
        }
        for (text, expected) in [
            ("-0", "0"),
            ("-0.0", "0"),
            ("0e999999999999999999999", "0"),
            ("1.0", "1"),
            ("100", "100"),
            ("1e2", "100"),
            ("1000000000000000000000", "1e+21"),
            ("1.50", "1.5"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_outside_the_double_keep_their_text() {
        for number in [
            "9007199254740993",
            "123456789012345678e0",
            "1e400",
            "-1E+400",
            "1e-400",
            "12345678901234567890123",
            "1e99999999999999999999999999999999999999999",
        ] {
            assert_eq!(canonical(number), number);
        }
        assert_ne!(canonical("9007199254740993"), canonical("9007199254740992"));
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        for (text, position) in [
            ("", 0),
            ("{", 1),
            ("[1,]", 3),
            ("{\"a\":1,}", 7),
            ("01", 1),
            ("1.", 2),
            ("-", 1),
            ("+1", 0),
            (".5", 0),
            ("nul", 0),
            ("NaN", 0),
            ("\"\t\"", 1),
            ("\"\\x\"", 1),
            ("\"\\ud800\"", 7),
            ("\"\\udc00\"", 7),
            ("\"\\u12g4\"", 1),
            ("\"abc", 4),
            ("1 2", 2),
            ("{a:1}", 1),
            ("'a'", 0),
            ("\"\\", 1),
            ("[1 2]", 3),
            ("\u{a0}1", 0),
        ] {
            let fault = canonical_json(text).unwrap_err();
            assert_eq!(fault.position, position, "{text:?}: {fault}");
            assert_eq!(check(text).unwrap_err(), fault, "{text:?}");
        }
    }

    #[test]
    fn a_name_that_comes_twice_is_refused() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"b":2,"\u0061":3}"#,
            r#"[{"x":{"k":[],"j":0,"k":{}}}]"#,
        ] {
            let fault = check(text).unwrap_err();
            assert!(fault.reason.contains("twice"), "{fault}");
            assert!(canonical_json(text).is_err());
        }
        assert!(check(r#"{"a":{"a":{"a":1}},"b":{"a":1}}"#).is_ok());
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(check(&nested(DEPTH_MAX)).is_ok());
        assert!(
            check(&nested(DEPTH_MAX + 1))
                .unwrap_err()
                .reason
                .contains("deeper")
        );
        assert!(check(&"[".repeat(1_000_000)).is_err());
        assert!(check(&"{\"a\":".repeat(1_000_000)).is_err());
    }

    #[test]
    fn order_and_space_do_not_matter_and_it_is_a_fixed_point() {
        let one = r#" { "b" : [ 1 , { "z":1, "y" : "\u00e4" } ] , "a" : { } } "#;
        let other = r#"{"a":{},"b":[1.0,{"y":"ä","z":1e0}]}"#;
        assert_eq!(canonical(one), canonical(other));
        assert_eq!(canonical(&canonical(one)), canonical(one));
    }
}
