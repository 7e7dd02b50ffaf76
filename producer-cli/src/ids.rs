//! The only source of randomness: job ids.

/// A new job id: `inspect-` and 16 random hexadecimal digits.
pub(crate) fn job_id(name: &str) -> String {
    format!("{name}-{:016x}", rand::random::<u64>())
}
