//! The worker's only edge to Kafka.
//!
//! | part | its thread | what it does |
//! |---|---|---|
//! | [`member`] | consumer group | joins, answers rebalances, gives out group metadata; reads no data |
//! | [`fetcher`] | fetch | reads and decodes the jobs of restored partitions |
//! | [`writer`] | transactions | commits one transaction at a time |
//! | [`plain`] | librdkafka's own | MARK and progress: idempotent, outside transactions |
//! | [`ledger_reader`] | restore, look-ups | reads ledgers back |
//! | [`log_ends`] | log-ends | asks where the partitions begin and end |
//!
//! Membership and data have a consumer each. The member is polled whatever the load, and a
//! partition is read only once it is restored, from an offset that the engine names: no seek, no
//! race between a rebalance and a fetch.

pub mod fetcher;
pub mod figures;
pub mod group_metadata;
pub mod ledger_reader;
pub mod log_ends;
pub mod member;
pub mod ownership;
pub mod permissions;
pub mod plain;
pub mod writer;

use guestkit_kafka::{Permission, missing};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

/// Names this process works with; resolved once.
#[derive(Debug, Clone)]
pub struct Topics {
    /// Jobs of this worker's pool.
    pub jobs: String,
    /// Ledger of this worker's pool.
    pub ledger: String,
    /// Results.
    pub results: String,
    /// Progress.
    pub progress: String,
    /// Dead letters.
    pub dead_letters: String,
    /// Partition count of the ledger.
    pub slots: u32,
}

/// A call to the cluster that did not work out.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {}", reason(.source, .missing.as_deref()))]
pub struct BrokerError {
    /// What was tried.
    pub what: &'static str,
    /// Why not.
    #[source]
    pub source: KafkaError,
    /// The permission that an authorizer missed.
    pub missing: Option<Box<Permission>>,
}

fn reason(source: &KafkaError, missing: Option<&Permission>) -> String {
    missing.map_or_else(|| source.to_string(), Permission::to_string)
}

impl BrokerError {
    pub(crate) fn of(what: &'static str, source: KafkaError) -> Self {
        Self {
            what,
            source,
            missing: None,
        }
    }

    /// The same, of a call that needs permissions: the missing one is named.
    pub(crate) fn needing(mut self, needs: &[Permission]) -> Self {
        let code = self.source.rdkafka_error_code();
        let missing = code.and_then(|code| missing(code, needs)).cloned();
        self.missing = missing.map(Box::new);
        self
    }

    /// Whether the call ran out of time, as opposed to being refused.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        use rdkafka::error::RDKafkaErrorCode as Code;
        matches!(
            self.source.rdkafka_error_code(),
            Some(Code::OperationTimedOut | Code::RequestTimedOut | Code::MessageTimedOut)
        )
    }
}

/// librdkafka's log lines in our log: its errors are warnings here, since it goes on by itself.
pub(crate) fn log_librdkafka(client: &str, level: RDKafkaLogLevel, facility: &str, message: &str) {
    if facility == "CONFWARN" {
        // One connection serves producers and consumers: each ignores the other's properties.
        tracing::trace!(target: "librdkafka", client, facility, "{message}");
        return;
    }
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => {
            tracing::warn!(target: "librdkafka", client, facility, "{message}");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::debug!(target: "librdkafka", client, facility, "{message}");
        }
        RDKafkaLogLevel::Debug => {
            tracing::trace!(target: "librdkafka", client, facility, "{message}");
        }
    }
}
