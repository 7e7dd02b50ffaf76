//! Package URLs of Windows software.
//!
//! No type of the specification is meant for it, and no advisory database has one: type `generic`
//! with the publisher as namespace names it without claiming more. Matchers go by the CPE of the
//! operating system, whose version holds the patch level.

/// `pkg:generic/Igor%20Pavlov/7-Zip@23.01`.
pub(super) fn generic(publisher: Option<&str>, name: &str, version: &str) -> String {
    let mut out = "pkg:generic/".to_owned();
    if let Some(publisher) = publisher {
        encode(publisher, &mut out);
        out.push('/');
    }
    encode(name, &mut out);
    if !version.is_empty() {
        out.push('@');
        encode(version, &mut out);
    }
    out
}

/// Percent-encodes what the specification does not leave plain.
fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '~') {
            out.push(c);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_with_slashes_and_blanks_stay_one_part() {
        assert_eq!(
            super::generic(Some("A/B"), "7-Zip 23.01 (x64)", "23.01"),
            "pkg:generic/A%2FB/7-Zip%2023.01%20%28x64%29@23.01"
        );
        assert_eq!(super::generic(None, "x", ""), "pkg:generic/x");
    }
}
