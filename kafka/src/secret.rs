//! A text that is never printed.

use std::fmt;
use std::str::FromStr;

/// What stands in printouts instead of a secret.
pub const REDACTED: &str = "[redacted]";

/// A password or token: printing it in any way prints [`REDACTED`].
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// A secret of this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for whoever checks it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// A text with user and password of every URL in it left out.
pub fn without_userinfo(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown += before;
        // The authority ends at the path; what stands before its last @ is user and password.
        let end = after
            .find(|c: char| matches!(c, '/' | '?' | '#' | ',') || c.is_whitespace())
            .unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                shown += REDACTED;
                shown.push('@');
                shown += host;
            }
            None => shown += authority,
        }
        rest = tail;
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_in_no_printout() {
        let secret: Secret = "hush".parse().unwrap();
        assert_eq!(secret.reveal(), "hush");
        for shown in [
            format!("{secret}"),
            format!("{secret:?}"),
            format!("{:#?}", Some(&secret)),
        ] {
            assert!(
                !shown.contains("hush") && shown.contains(REDACTED),
                "{shown}"
            );
        }
    }

    #[test]
    fn urls_lose_user_and_password_and_nothing_else() {
        for (text, shown) in [
            (
                "https://me:s3cret@registry:8081/apis",
                "https://[redacted]@registry:8081/apis",
            ),
            ("http://registry/a@b", "http://registry/a@b"),
            (
                "a http://u@h, https://p:w@x:1?q",
                "a http://[redacted]@h, https://[redacted]@x:1?q",
            ),
            ("https://u:p@ss@h", "https://[redacted]@h"),
            ("no url", "no url"),
        ] {
            assert_eq!(without_userinfo(text), shown);
        }
    }
}
