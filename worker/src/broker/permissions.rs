//! What an authorizer denies, in words that name the missing permission.
//!
//! A worker that lacks a permission at its start does not start; one that loses it goes on trying, loses no
//! job, and says every so often what it waits for.

use crate::clock::now_ms;
use crate::engine::record::Millis;
use guestkit_kafka::acls::{Operation, Permission};
use guestkit_kafka::metadata::Quiet;
use guestkit_kafka::{Fault, missing};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The same permission is reported no more often: every retry meets it again.
const REPORT_PAUSE_MS: Millis = 10_000;
/// How long one question of the check at the start may take.
const QUESTION_MAX: Duration = Duration::from_secs(10);
/// Polls of 50 ms for the answer to a first fetch.
const POLLS_MAX: usize = 100;
/// Permissions whose last report is remembered: one worker has some ten.
const REPORTS_MAX: usize = 100;

/// Reports that a permission is missing, unless that was said a moment ago.
pub(crate) fn report(permission: &Permission) {
    static REPORTED: Mutex<BTreeMap<Permission, Millis>> = Mutex::new(BTreeMap::new());
    let now = now_ms();
    let mut reported = REPORTED.lock().unwrap_or_else(PoisonError::into_inner);
    let is_news = reported
        .get(permission)
        .is_none_or(|at| now - at >= REPORT_PAUSE_MS);
    if is_news && reported.len() < REPORTS_MAX {
        reported.insert(permission.clone(), now);
        drop(reported);
        tracing::error!("not allowed: {permission}");
    }
}

/// Reports the permission that an error says is missing; answers whether it does.
pub(crate) fn noticed(error: &KafkaError, needs: &[Permission]) -> bool {
    let code = error.rdkafka_error_code();
    let found = code.and_then(|code| missing(code, needs));
    if let Some(permission) = found {
        report(permission);
    }
    found.is_some()
}

/// What membership in the group needs, and its offsets.
pub(crate) fn of_group(connection: &ClientConfig, jobs: &str) -> [Permission; 2] {
    [
        Permission::group(
            Operation::Read,
            connection.get("group.id").unwrap_or_default(),
        ),
        Permission::topic(Operation::Read, jobs),
    ]
}

/// The permission that a log line of a transactional producer is about. Which topic it may not write to
/// stands nowhere else.
pub(crate) fn in_log_line(message: &str) -> Option<Permission> {
    let (_, rest) = message.split_once("Failed to add partition \"")?;
    let (topic, rest) = rest.split_once('"')?;
    rest.contains("authorization failed")
        .then(|| Permission::topic(Operation::Write, topic))
}

/// Tries at the start what can be tried without a trace: group, offsets, fetches, transactional id. Writing
/// is met with the first job.
///
/// # Errors
/// [`Fault::Denied`] names the permission; others as they come.
pub fn check(
    connection: &ClientConfig,
    jobs: &str,
    ledger: &str,
    transactional_id: &str,
) -> Result<(), Fault> {
    let consumer: BaseConsumer<Quiet> = connection
        .clone()
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "10")
        // A dead worker's open transaction is no reason to wait here.
        .set("isolation.level", "read_uncommitted")
        .create_with_context(Quiet)
        .map_err(|error| Fault::of("create a consumer", &error))?;
    let mut first = TopicPartitionList::new();
    first.add_partition(jobs, 0);
    if let Err(error) = consumer.committed_offsets(first, QUESTION_MAX) {
        let needs = of_group(connection, jobs);
        only_denied(Fault::of_call("read the group's offsets", &error, &needs))?;
    }
    for topic in [jobs, ledger] {
        try_fetch(&consumer, topic)?;
    }
    drop(consumer);
    let what = || format!("use the transactional id {transactional_id}");
    let producer: BaseProducer = connection
        .clone()
        .set("transactional.id", transactional_id)
        .set("retry.backoff.ms", "1")
        .set("retry.backoff.max.ms", "10")
        .create()
        .map_err(|error| Fault::of("create a transactional producer", &error))?;
    let needs = [Permission::transactional_id(transactional_id)];
    producer
        .client()
        .fetch_metadata(Some(ledger), QUESTION_MAX)
        .and_then(|_| producer.init_transactions(QUESTION_MAX))
        .or_else(|error| only_denied(Fault::of_call(what(), &error, &needs)))
}

/// A cluster that does not answer now may do so later: everything else is met again by whoever needs it.
fn only_denied(fault: Fault) -> Result<(), Fault> {
    match fault {
        Fault::Denied { .. } => Err(fault),
        _ => Ok(()),
    }
}

/// Fetches nothing, from the end; a topic that may not be read answers with that.
fn try_fetch(consumer: &BaseConsumer<Quiet>, topic: &str) -> Result<(), Fault> {
    let what = || format!("read {topic}");
    let mut end = TopicPartitionList::new();
    end.add_partition_offset(topic, 0, Offset::End)
        .and_then(|()| consumer.assign(&end))
        .map_err(|error| Fault::of(what(), &error))?;
    let needs = [Permission::topic(Operation::Read, topic)];
    for _ in 0..POLLS_MAX {
        match consumer.poll(Duration::from_millis(50)) {
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error))
                if error.rdkafka_error_code()
                    == Some(RDKafkaErrorCode::TopicAuthorizationFailed) =>
            {
                return Err(Fault::of_call(what(), &error, &needs));
            }
            Some(Err(_)) | None => {}
        }
    }
    // Slow is not denied.
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_names_the_topic() {
        let line = "[thrd:x]: x/1: Failed to add partition \"vm.results\" [3] to transaction: Broker: Topic authorization failed";
        assert_eq!(
            in_log_line(line),
            Some(Permission::topic(Operation::Write, "vm.results"))
        );
        assert_eq!(in_log_line("Failed to add partition \"x\" [3]: down"), None);
        assert_eq!(in_log_line("authorization failed"), None);
    }

    #[test]
    fn only_what_an_error_is_about_is_noticed() {
        let needs = [Permission::topic(Operation::Read, "vm.jobs")];
        let error = |code| KafkaError::MessageConsumption(code);
        assert!(noticed(
            &error(RDKafkaErrorCode::TopicAuthorizationFailed),
            &needs
        ));
        assert!(!noticed(
            &error(RDKafkaErrorCode::GroupAuthorizationFailed),
            &needs
        ));
        assert!(!noticed(&error(RDKafkaErrorCode::Resolve), &needs));
    }
}
