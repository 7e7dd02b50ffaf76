//! What can go wrong between us and the cluster, by what the caller can do about it.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// A failure, by what the caller can do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nobody answers, or not in time: try again later, or look at the address.
    #[error("cannot {what}: {reason}")]
    Unreachable {
        /// What was tried.
        what: String,
        /// Why not.
        reason: String,
    },
    /// The cluster or registry knows us and says no: credentials or access rules.
    #[error("cannot {what}: not allowed: {reason}")]
    Denied {
        /// What was tried.
        what: String,
        /// Why not.
        reason: String,
    },
    /// The configuration, the topics or the schemas are wrong; the text says how to mend it.
    #[error("{0}")]
    Config(String),
    /// Anything else.
    #[error("cannot {what}: {reason}")]
    Other {
        /// What was tried.
        what: String,
        /// Why not.
        reason: String,
    },
}

impl Fault {
    pub(crate) fn unreachable(what: impl Into<String>, reason: impl ToString) -> Self {
        Self::Unreachable {
            what: what.into(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn other(what: impl Into<String>, reason: impl ToString) -> Self {
        Self::Other {
            what: what.into(),
            reason: reason.to_string(),
        }
    }

    /// Sorts an error of librdkafka.
    pub fn of(what: impl Into<String>, error: &KafkaError) -> Self {
        let what = what.into();
        if let KafkaError::ClientConfig(_, reason, key, _) = error {
            return Self::Config(format!("kafka property {key}: {reason}"));
        }
        match error.rdkafka_error_code() {
            Some(code) => Self::of_code(what, code),
            None => Self::other(what, error),
        }
    }

    /// Sorts an error code of librdkafka or of a broker.
    pub fn of_code(what: impl Into<String>, code: Code) -> Self {
        let what = what.into();
        match code {
            Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::MessageTimedOut
            | Code::TimedOutQueue
            | Code::Resolve
            | Code::NetworkException
            | Code::BrokerNotAvailable
            | Code::LeaderNotAvailable
            | Code::CoordinatorNotAvailable => Self::unreachable(what, code),
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::SSL => Self::Denied {
                what,
                reason: code.to_string(),
            },
            _ => Self::other(what, code),
        }
    }

    /// Whether the same call can work later without anybody changing anything.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sorted_by_what_to_do() {
        let fault = |code| Fault::of("read", &KafkaError::MetadataFetch(code));
        assert!(fault(Code::BrokerTransportFailure).is_unreachable());
        assert!(matches!(
            fault(Code::SaslAuthenticationFailed),
            Fault::Denied { .. }
        ));
        assert!(matches!(
            fault(Code::UnknownTopicOrPartition),
            Fault::Other { .. }
        ));
    }
}
