//! `error.code` of a result: the words that programs match on. Handlers may add their own.

/// The key was used before with another payload.
pub const IDEMPOTENCY_CONFLICT: &str = "IDEMPOTENCY_CONFLICT";
/// The job breaks a rule of the envelope, or is not readable at all.
pub const INVALID_JOB: &str = "INVALID_JOB";
/// The envelope's major version is not ours.
pub const UNSUPPORTED_VERSION: &str = "UNSUPPORTED_VERSION";
/// No worker of the pool knows the operation.
pub const HANDLER_NOT_FOUND: &str = "HANDLER_NOT_FOUND";
/// The worker can't satisfy the job's constraints.
pub const CONSTRAINT_UNSATISFIED: &str = "CONSTRAINT_UNSATISFIED";
/// There is no image at this path.
pub const IMAGE_NOT_FOUND: &str = "IMAGE_NOT_FOUND";
/// The path is not beneath a disk root.
pub const IMAGE_DENIED: &str = "IMAGE_DENIED";
/// The image is damaged, or not what the job says.
pub const IMAGE_INVALID: &str = "IMAGE_INVALID";
/// The image is sound but of a kind that is not supported.
pub const UNSUPPORTED: &str = "UNSUPPORTED";
/// The handler panicked.
pub const HANDLER_PANIC: &str = "HANDLER_PANIC";
/// The attempt took longer than `execution.timeout_seconds`.
pub const TIMEOUT: &str = "TIMEOUT";
/// `execution.deadline` passed.
pub const DEADLINE_EXCEEDED: &str = "DEADLINE_EXCEEDED";
/// The job was cancelled.
pub const CANCELLED: &str = "CANCELLED";
/// Every process that ran the job died.
pub const WORKER_LOST: &str = "WORKER_LOST";
/// The result is too large to publish and there is no artifact store.
pub const RESULT_TOO_LARGE: &str = "RESULT_TOO_LARGE";
/// A fault of ours.
pub const INTERNAL: &str = "INTERNAL";
