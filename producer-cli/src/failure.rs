//! Failures with their exit codes.

use guestkit_kafka::Fault;
use std::fmt;

/// Why a command did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// 1 a job failed or an error, 2 wrong usage or an invalid job, 3 unreachable, 4 out of time.
    pub(crate) code: u8,
    /// For people; empty when everything is said already.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn error(message: impl fmt::Display) -> Self {
        Self::of(1, message)
    }
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::of(2, message)
    }
    pub(crate) fn out_of_time(message: impl fmt::Display) -> Self {
        Self::of(4, message)
    }
    /// Everything was said already.
    pub(crate) fn silent(code: u8) -> Self {
        Self::of(code, "")
    }
    fn of(code: u8, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let code = match &fault {
            Fault::Unreachable { .. } | Fault::Unauthenticated { .. } => 3,
            Fault::Config(_) => 2,
            Fault::Denied { .. } | Fault::Other { .. } => 1,
        };
        Self::of(code, fault)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::error(error)
    }
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;
