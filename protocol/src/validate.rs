//! The rules of the envelope: what is checked before anything runs.

use crate::document::envelope::{JobEnvelope, KIND};
use crate::error_code;
use std::fmt;

/// The longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_MAX: usize = 512;
/// The longest operation name and payload type, in bytes.
pub const NAME_MAX: usize = 256;
/// From here on a timeout is a warning: 24 hours in seconds.
pub const TIMEOUT_WARNING_SECONDS: u64 = 24 * 3600;

/// A field that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Dotted path in the JSON form, for example `execution.priority`.
    pub field: &'static str,
    /// What was found and what is allowed.
    pub reason: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

/// Everything in which a job breaks the rules; at least one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidationError {
    /// The fields, in the order of the envelope.
    pub errors: Vec<FieldError>,
}

impl ValidationError {
    /// `UNSUPPORTED_VERSION` if the version is the problem, else `INVALID_JOB`.
    pub fn code(&self) -> &'static str {
        if self.errors.iter().any(|error| error.field == "version") {
            error_code::UNSUPPORTED_VERSION
        } else {
            error_code::INVALID_JOB
        }
    }
}

impl fmt::Display for ValidationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ValidationError {}

/// Something lawful that is worth a look; same shape as an error.
pub type Warning = FieldError;

impl JobEnvelope {
    /// Checks every rule of the envelope. The answer lists what is lawful but worth a look.
    ///
    /// # Errors
    /// All fields that break a rule.
    pub fn validate(&self) -> Result<Vec<Warning>, ValidationError> {
        check(self)
    }
}

pub(crate) fn check(job: &JobEnvelope) -> Result<Vec<Warning>, ValidationError> {
    let mut rules = Rules::default();
    rules.identity(job);
    rules.operation(job);
    rules.execution(job);
    rules.rest(job);
    if rules.errors.is_empty() {
        Ok(rules.warnings)
    } else {
        Err(ValidationError {
            errors: rules.errors,
        })
    }
}

#[derive(Default)]
struct Rules {
    errors: Vec<FieldError>,
    warnings: Vec<Warning>,
}

impl Rules {
    fn refuse(&mut self, field: &'static str, reason: impl Into<String>) {
        self.errors.push(FieldError {
            field,
            reason: reason.into(),
        });
    }

    fn identity(&mut self, job: &JobEnvelope) {
        if let Some(reason) = unsupported_version(&job.version) {
            self.refuse("version", reason);
        }
        if !is_job_id(&job.job_id) {
            let found = shorten(&job.job_id);
            self.refuse(
                "job_id",
                format!("{found:?} is not 8 to 128 of A-Z a-z 0-9 . _ : -"),
            );
        }
        if job.kind != KIND {
            self.refuse("kind", format!("{:?} is not {KIND:?}", shorten(&job.kind)));
        }
    }

    fn operation(&mut self, job: &JobEnvelope) {
        let operation = job.operation.as_str();
        if !is_name(operation) {
            self.refuse(
                "operation",
                format!(
                    "{:?} is no namespaced name such as guestkit.inspect",
                    shorten(operation)
                ),
            );
        }
        let payload_type = job.payload.r#type.as_str();
        let versioned = payload_type
            .rsplit_once(".v")
            .is_some_and(|(name, number)| {
                is_name(name)
                    && (1..=9).contains(&number.len())
                    && number.bytes().all(|digit| digit.is_ascii_digit())
            });
        if !versioned {
            self.refuse(
                "payload.type",
                format!(
                    "{:?} is not namespace.operation.version, such as guestkit.inspect.v1",
                    shorten(payload_type)
                ),
            );
        } else if !payload_type.starts_with(operation) {
            self.warnings.push(FieldError {
                field: "payload.type",
                reason: format!("{payload_type:?} is not a type of the operation {operation:?}"),
            });
        }
    }

    fn execution(&mut self, job: &JobEnvelope) {
        let execution = &job.execution;
        if let Some(key) = &execution.idempotency_key
            && !is_idempotency_key(key)
        {
            self.refuse(
                "execution.idempotency_key",
                format!("it has {} bytes; 1 to {IDEMPOTENCY_KEY_MAX} without control characters are allowed", key.len()),
            );
        }
        if execution.max_attempts < 1 {
            self.refuse("execution.max_attempts", "0 is less than 1");
        }
        if execution.attempt < 1 {
            self.refuse("execution.attempt", "0 is less than 1");
        } else if execution.attempt > execution.max_attempts {
            self.refuse(
                "execution.attempt",
                format!(
                    "{} is more than max_attempts, {}",
                    execution.attempt, execution.max_attempts
                ),
            );
        }
        if execution.max_attempts > i32::MAX as u32 {
            self.refuse("execution.max_attempts", "it is more than 2^31-1");
        }
        if execution.timeout_seconds < 1 || execution.timeout_seconds > crate::wire::LONG_MAX as u64
        {
            self.refuse("execution.timeout_seconds", "it is not between 1 and 2^53");
        } else if execution.timeout_seconds > TIMEOUT_WARNING_SECONDS {
            self.warnings.push(FieldError {
                field: "execution.timeout_seconds",
                reason: format!("{} is more than 24 hours", execution.timeout_seconds),
            });
        }
        if !(1..=10).contains(&execution.priority) {
            self.refuse(
                "execution.priority",
                format!(
                    "{} is not between 1 and 10 (10 is the most urgent)",
                    execution.priority
                ),
            );
        }
        if execution
            .deadline
            .is_some_and(|deadline| deadline < job.created_at)
        {
            self.warnings.push(FieldError {
                field: "execution.deadline",
                reason: "it is before created_at".to_owned(),
            });
        }
    }

    fn rest(&mut self, job: &JobEnvelope) {
        let constraints = &job.constraints;
        if let Some(version) = &constraints.minimum_worker_version
            && let Err(error) = semver::Version::parse(version)
        {
            self.refuse(
                "constraints.minimum_worker_version",
                format!(
                    "{:?} is no semantic version such as 1.2.0: {error}",
                    shorten(version)
                ),
            );
        }
        if constraints
            .maximum_disk_size_gb
            .is_some_and(|size| size > crate::wire::LONG_MAX as u64)
        {
            self.refuse("constraints.maximum_disk_size_gb", "it is more than 2^53");
        }
        if job.routing.worker_pool.as_deref() == Some("") {
            self.refuse(
                "routing.worker_pool",
                "it is empty; leave it out for the default pool",
            );
        }
    }
}

/// Why a version is not readable; `None` when it is.
pub(crate) fn unsupported_version(version: &str) -> Option<String> {
    let mut parts = version.split('.');
    let numbers = |part: &str| {
        !part.is_empty() && part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit())
    };
    let readable =
        parts.next() == Some("1") && parts.next().is_some_and(numbers) && parts.all(numbers);
    (!readable).then(|| {
        format!(
            "{:?} is not supported; this reader knows 1.x",
            shorten(version)
        )
    })
}

/// 8 to 128 of `[A-Za-z0-9._:-]`.
pub fn is_job_id(text: &str) -> bool {
    (8..=128).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte))
}

/// 1 to [`IDEMPOTENCY_KEY_MAX`] bytes without control characters.
pub fn is_idempotency_key(text: &str) -> bool {
    (1..=IDEMPOTENCY_KEY_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// At least two parts with dots between them, each of letters, digits, `_` and `-`.
fn is_name(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    text.len() <= NAME_MAX && text.contains('.') && text.split('.').all(part)
}

/// So much of a text as belongs in a message.
fn shorten(text: &str) -> &str {
    &text[..text.floor_char_boundary(80)]
}
