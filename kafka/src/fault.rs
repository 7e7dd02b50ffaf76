//! What can go wrong between us and the cluster, by what the caller can do about it.

use crate::acls::{Permission, Resource};
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
    /// The other side does not believe who we are, or we do not believe who it is: credentials, certificates.
    #[error("cannot {what}: {reason}")]
    Unauthenticated {
        /// What was tried.
        what: String,
        /// Why not.
        reason: String,
    },
    /// The cluster or registry knows us and says no: access rules.
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

    /// Sorts an error of a call that needs permissions: one that is missing is named.
    pub fn of_call(what: impl Into<String>, error: &KafkaError, needs: &[Permission]) -> Self {
        match error
            .rdkafka_error_code()
            .and_then(|code| missing(code, needs))
        {
            Some(permission) => Self::Denied {
                what: what.into(),
                reason: permission.to_string(),
            },
            None => Self::of(what, error),
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
            Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL => {
                Self::Unauthenticated {
                    what,
                    reason: code.to_string(),
                }
            }
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed => Self::Denied {
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

/// Which of the permissions that a call needs an answer says is missing.
pub fn missing(code: Code, needs: &[Permission]) -> Option<&Permission> {
    let resource = match code {
        Code::TopicAuthorizationFailed => Resource::Topic,
        Code::GroupAuthorizationFailed => Resource::Group,
        Code::TransactionalIdAuthorizationFailed => Resource::TransactionalId,
        _ => return None,
    };
    needs.iter().find(|need| need.resource == resource)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acls::Operation;

    #[test]
    fn errors_are_sorted_by_what_to_do() {
        let fault = |code| Fault::of("read", &KafkaError::MetadataFetch(code));
        assert!(fault(Code::BrokerTransportFailure).is_unreachable());
        assert!(matches!(
            fault(Code::SaslAuthenticationFailed),
            Fault::Unauthenticated { .. }
        ));
        assert!(matches!(
            fault(Code::UnknownTopicOrPartition),
            Fault::Other { .. }
        ));
    }

    #[test]
    fn a_missing_permission_is_named() {
        let needs = [
            Permission::topic(Operation::Write, "vm.results"),
            Permission::group(Operation::Read, "workers"),
        ];
        let fault = |code| Fault::of_call("x", &KafkaError::MessageProduction(code), &needs);
        for (code, words) in [
            (Code::TopicAuthorizationFailed, "WRITE on topic vm.results"),
            (Code::GroupAuthorizationFailed, "READ on group workers"),
        ] {
            let text = fault(code).to_string();
            assert!(text.contains(words), "{text}");
        }
        assert!(matches!(
            fault(Code::TransactionalIdAuthorizationFailed),
            Fault::Denied { .. }
        ));
        assert!(fault(Code::RequestTimedOut).is_unreachable());
    }
}
