//! Who asks: bearer tokens and the tenants they name.
//!
//! A token is kept as its SHA-256 only. A tenant's idempotency keys get its name as prefix, so that tenants
//! cannot meet; the operator (`*`) sees everything and has no prefix.

use crate::failure::{Failure, Outcome};
use sha2::{Digest, Sha256};
use std::path::Path;
use subtle::ConstantTimeEq;

/// The longest tokens file, in bytes: thousands of tenants.
const FILE_MAX: u64 = 1024 * 1024;
/// The longest name of a tenant: it becomes part of idempotency keys, which have 512 bytes.
const NAME_MAX: usize = 64;
/// The shortest token: 16 random characters cannot be guessed over a network.
const TOKEN_MIN: usize = 16;
/// The operator's name in the file.
const OPERATOR: &str = "*";

/// On whose behalf a request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// There are no tokens: everybody is everybody.
    Anyone,
    /// Sees and does everything.
    Operator,
    /// Sees its own jobs.
    Tenant(String),
}

impl Caller {
    /// What stands before this caller's idempotency keys.
    pub(crate) fn key_prefix(&self) -> String {
        match self {
            Self::Anyone | Self::Operator => String::new(),
            Self::Tenant(name) => format!("{name}/"),
        }
    }

    /// The tenant's name; empty for those who see everything.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Anyone | Self::Operator => "",
            Self::Tenant(name) => name,
        }
    }

    /// Whether a record with this idempotency key is the caller's business.
    pub(crate) fn owns_key(&self, key: &str) -> bool {
        match self {
            Self::Anyone | Self::Operator => true,
            Self::Tenant(name) => key
                .strip_prefix(name.as_str())
                .is_some_and(|rest| rest.starts_with('/')),
        }
    }
}

/// The tokens of a file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Tokens {
    entries: Vec<(Caller, [u8; 32])>,
}

impl Tokens {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let shown = path.display();
        let size = std::fs::metadata(path)
            .map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?
            .len();
        if size > FILE_MAX {
            return Err(Failure::usage(format!(
                "{shown} has {size} bytes, at most {FILE_MAX} are read"
            )));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
        Self::parse(&text).map_err(|reason| Failure::usage(format!("{shown}: {reason}")))
    }

    /// Lines `tenant:token` or `tenant:sha256:HEX`. Errors name the line, never what stands in it.
    fn parse(text: &str) -> Result<Self, String> {
        let mut entries = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, token) = line
                .split_once(':')
                .ok_or_else(|| format!("line {number}: expected tenant:token"))?;
            let lawful = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            let caller = if name == OPERATOR {
                Caller::Operator
            } else if (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(lawful) {
                Caller::Tenant(name.to_owned())
            } else {
                return Err(format!(
                    "line {number}: a tenant is 1 to {NAME_MAX} of A-Z a-z 0-9 . _ -, or * for the operator"
                ));
            };
            let hash = match token.strip_prefix("sha256:") {
                Some(digits) => {
                    let mut hash = [0; 32];
                    hex::decode_to_slice(digits, &mut hash).map_err(|_| {
                        format!("line {number}: expected 64 hexadecimal digits after sha256:")
                    })?;
                    hash
                }
                None if token.len() < TOKEN_MIN => {
                    return Err(format!(
                        "line {number}: the token has fewer than {TOKEN_MIN} characters"
                    ));
                }
                None => digest(token),
            };
            entries.push((caller, hash));
        }
        if entries.is_empty() {
            return Err("there is no token in it".to_owned());
        }
        Ok(Self { entries })
    }

    /// Whose token it is. Takes the same time for every token that is none.
    pub(crate) fn find(&self, token: &str) -> Option<Caller> {
        let wanted = digest(token);
        let mut found = None;
        for (caller, hash) in &self.entries {
            if bool::from(hash.ct_eq(&wanted)) {
                found = Some(caller);
            }
        }
        found.cloned()
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tokens", self.entries.len())
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_tenants() {
        let hash = hex::encode(digest("another-long-token"));
        let text = format!("# staff\nacme:0123456789abcdef\n\n*:sha256:{hash}\n");
        let tokens = Tokens::parse(&text).unwrap();
        assert_eq!(
            tokens.find("0123456789abcdef"),
            Some(Caller::Tenant("acme".to_owned()))
        );
        assert_eq!(tokens.find("another-long-token"), Some(Caller::Operator));
        for wrong in ["", "0123456789abcdeF", &hash] {
            assert_eq!(tokens.find(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{tokens:?}"), "2 tokens");
    }

    #[test]
    fn a_wrong_file_is_refused_without_showing_tokens() {
        for (text, line) in [
            ("acme", "line 1"),
            ("\nacme:short-secret", "line 2"),
            ("a/b:0123456789abcdef", "line 1"),
            (":0123456789abcdef", "line 1"),
            ("acme:sha256:12", "line 1"),
            ("# only\n", "no token"),
        ] {
            let error = Tokens::parse(text).unwrap_err();
            assert!(error.contains(line), "{text}: {error}");
            assert!(
                !error.contains("secret") && !error.contains("0123"),
                "{error}"
            );
        }
    }

    #[test]
    fn tenants_own_what_begins_with_their_name() {
        let acme = Caller::Tenant("acme".to_owned());
        assert!(acme.owns_key("acme/1") && !acme.owns_key("acme2/1") && !acme.owns_key("acme"));
        assert!(Caller::Operator.owns_key("acme/1") && Caller::Anyone.owns_key("x"));
        assert_eq!((acme.key_prefix().as_str(), acme.name()), ("acme/", "acme"));
    }
}
