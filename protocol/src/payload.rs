//! Typed payloads: what stands in `payload.data` of the operations that this project defines.
//!
//! Other tools define their own. Fields that a type does not know are ignored here; they stay in the
//! envelope, and count for the payload hash.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A disk image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRef {
    /// Where it is: an absolute path beneath a disk root of the worker, or relative to one.
    pub path: String,
    /// Its format, for example `qcow2`; found out where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Its SHA-256: `sha256:` and 64 hexadecimal digits, or the digits alone. See [`ImageRef::sha256`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// The size of the file in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Whether it may only be read. Default: true.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub read_only: bool,
}

const fn yes() -> bool {
    true
}

// serde asks by reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_yes(value: &bool) -> bool {
    *value
}

/// Defaults are left out: the payload hash of a job must not depend on whether its producer spells
/// them out by way of this library.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl ImageRef {
    /// An image of which only the path is known.
    pub fn at(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            format: None,
            checksum: None,
            size_bytes: None,
            read_only: true,
        }
    }

    /// The bytes of `checksum`, if there is one.
    ///
    /// # Errors
    /// It is neither `sha256:` and 64 hexadecimal digits nor the digits alone.
    pub fn sha256(&self) -> Result<Option<[u8; 32]>, String> {
        let Some(text) = &self.checksum else {
            return Ok(None);
        };
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|error| {
            format!("image.checksum: expected sha256: and 64 hexadecimal digits ({error})")
        })?;
        Ok(Some(bytes))
    }
}

/// Where and how a handler's document is written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OutputSpec {
    /// The format, for example `json` or `qcow2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// The name of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The compression, for example `zstd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
}

/// `guestkit.inspect.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectPayload {
    /// The disk.
    pub image: ImageRef,
    /// What to look for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub options: InspectOptions,
    /// Where the document goes; without it it is the result's `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputSpec>,
}

/// What an inspection looks for; `None` means the handler's default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InspectOptions {
    /// Whether every file may be walked.
    #[serde(skip_serializing_if = "is_default")]
    pub deep_scan: bool,
    /// Installed packages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_packages: Option<bool>,
    /// Services and timers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_services: Option<bool>,
    /// Users and groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_users: Option<bool>,
    /// Network configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_network: Option<bool>,
    /// Security configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_security: Option<bool>,
    /// Partitions, volumes and file systems.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_storage: Option<bool>,
    /// Databases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_databases: Option<bool>,
}

/// `guestkit.convert.v1`, `guestkit.profile.v1` and `guestkit.fix.v1`: the same shape, options of their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImagePayload {
    /// The disk.
    pub image: ImageRef,
    /// Options of the operation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, serde_json::Value>,
    /// Where the outcome goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputSpec>,
}

/// `guestkit.compare.v1`: two disks, or a disk against an earlier result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComparePayload {
    /// The disk to judge.
    pub image: ImageRef,
    /// The disk that it should be like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<ImageRef>,
    /// Or the inspect document that it should be like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_document: Option<serde_json::Value>,
    /// What to compare.
    #[serde(default, skip_serializing_if = "is_default")]
    pub options: InspectOptions,
    /// Where the outcome goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputSpec>,
}

/// The requests in `system.echo.v1`; the rest of the data is returned as it came.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EchoRequests {
    /// How long to sleep, in milliseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub sleep_ms: u64,
    /// How many progress events to send, spread over the sleep.
    #[serde(skip_serializing_if = "is_default")]
    pub progress_steps: u32,
    /// How to fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail: Option<EchoFailure>,
    /// To how many bytes to pad the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_bytes: Option<u64>,
    /// How to kill the worker: `panic`, `abort`, `exit`, `oom` or `overflow`; only where test faults are allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crash: Option<String>,
}

/// A failure that a `system.echo` asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EchoFailure {
    /// The error code; empty means `INTERNAL`.
    pub code: String,
    /// The message.
    pub message: String,
    /// Whether another attempt may follow.
    pub recoverable: bool,
    /// How many attempts fail; 0 means all.
    pub times: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_has_the_default() {
        let payload: InspectPayload =
            serde_json::from_str(r#"{"image":{"path":"a"},"x":1}"#).unwrap();
        assert!(payload.image.read_only && !payload.options.deep_scan);
        assert_eq!(payload.options.include_packages, None);
        let echo: EchoRequests =
            serde_json::from_str(r#"{"hello":[1],"fail":{"times":2}}"#).unwrap();
        assert_eq!(echo.fail.map(|fail| fail.times), Some(2));
        assert!(serde_json::from_str::<InspectPayload>("{}").is_err());
    }

    #[test]
    fn a_checksum_has_two_spellings() {
        let digits = "0aF1".repeat(16);
        for (text, lawful) in [
            (format!("sha256:{digits}"), true),
            (digits.clone(), true),
            (format!("md5:{digits}"), false),
            (digits[1..].to_owned(), false),
            (String::new(), false),
        ] {
            let image = ImageRef {
                checksum: Some(text.clone()),
                ..ImageRef::at("a")
            };
            assert_eq!(image.sha256().is_ok(), lawful, "{text}");
        }
        assert_eq!(ImageRef::at("a").sha256(), Ok(None));
    }
}
