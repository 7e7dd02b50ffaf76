//! Package URLs (package-url specification): canonical, qualifiers sorted by name.

use crate::report::Os;

/// A package URL in the making.
pub(super) struct Purl {
    text: String,
    qualifiers: Vec<(&'static str, String)>,
}

impl Purl {
    pub(super) fn of(kind: &str, namespace: &str, name: &str, version: &str) -> Self {
        let mut text = format!("pkg:{kind}");
        for part in [namespace, name] {
            if !part.is_empty() {
                text.push('/');
                text.push_str(&encode(part));
            }
        }
        if !version.is_empty() {
            text.push('@');
            text.push_str(&encode(version));
        }
        Self {
            text,
            qualifiers: Vec::new(),
        }
    }

    /// Adds a qualifier; an empty value is the same as none.
    pub(super) fn with(mut self, key: &'static str, value: Option<&str>) -> Self {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.qualifiers.push((key, encode(value)));
        }
        self
    }

    pub(super) fn text(mut self) -> String {
        self.qualifiers.sort_unstable();
        for (n, (key, value)) in self.qualifiers.iter().enumerate() {
            self.text.push(if n == 0 { '?' } else { '&' });
            self.text.push_str(key);
            self.text.push('=');
            self.text.push_str(value);
        }
        self.text
    }
}

/// `debian-12`, as matchers expect it; a rolling distribution has no number.
pub(super) fn distro(os: &Os) -> Option<String> {
    if os.distro.is_empty() {
        return None;
    }
    Some(match &os.version {
        Some(version) => format!("{}-{version}", os.distro),
        None => os.distro.clone(),
    })
}

/// Percent-encodes what the specification does not leave plain.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '~' | ':') {
            out.push(c);
        } else {
            out.push('%');
            for digit in [byte >> 4, byte & 0x0f] {
                let digit = char::from_digit(u32::from(digit), 16).unwrap_or('0');
                out.push(digit.to_ascii_uppercase());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qualifiers_are_sorted_and_encoded() {
        let purl = Purl::of("deb", "debian", "g++", "1:2+b1")
            .with("distro", Some("debian-12"))
            .with("arch", Some("amd64"))
            .with("upstream", Some("a@1 é"))
            .with("epoch", None);
        assert_eq!(
            purl.text(),
            "pkg:deb/debian/g%2B%2B@1:2%2Bb1?arch=amd64&distro=debian-12&upstream=a%401%20%C3%A9"
        );
        assert_eq!(Purl::of("apk", "", "x", "").text(), "pkg:apk/x");
    }
}
