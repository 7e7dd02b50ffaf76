//! Membership in the consumer group: assignments come in, group metadata goes out.
//!
//! This consumer never reads data: its partitions are paused as soon as they are assigned. Polling
//! it is therefore never held up by load, and its callbacks are the only place where ownership
//! changes.

use super::BrokerError;
use super::figures::{Figures, REPORT_MS};
use super::group_metadata::{self, GroupMetadata};
use super::ownership::Ownership;
use super::permissions;
use crate::engine::Event;
use crate::engine::transaction::{AbortReason, Epoch};
use crate::health::Heart;
use guestkit_kafka::Permission;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a revoke may wait for the last transaction of the partitions it takes (rule 10).
const RELEASE_MAX: Duration = Duration::from_secs(2);
/// One poll of the group: bounds how late the thread notices that it should stop.
const POLL: Duration = Duration::from_millis(100);

/// Where events go: the engine's queue.
pub type Events = tokio::sync::mpsc::Sender<Event>;

/// Partitions whose last transaction is over, told by the engine to the waiting callback.
#[derive(Debug, Default)]
pub struct Releases {
    told: Mutex<BTreeSet<(u32, Epoch)>>,
    changed: Condvar,
}

impl Releases {
    /// A partition has nothing more to commit.
    pub fn tell(&self, partition: u32, epoch: Epoch) {
        self.told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((partition, epoch));
        self.changed.notify_all();
    }

    /// Waits until all of `wanted` is told, at most `limit`; answers whether it is.
    fn wait(&self, wanted: &[(u32, Epoch)], limit: Duration) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut told, timeout) = self
            .changed
            .wait_timeout_while(told, limit, |told| {
                !wanted.iter().all(|part| told.contains(part))
            })
            .unwrap_or_else(PoisonError::into_inner);
        for part in wanted {
            told.remove(part);
        }
        !timeout.timed_out()
    }
}

struct MemberContext {
    ownership: Arc<Ownership>,
    releases: Arc<Releases>,
    events: Events,
    topic: String,
    rebalances: AtomicU64,
    figures: Arc<Figures>,
}

impl MemberContext {
    fn partitions(&self, list: &TopicPartitionList) -> Vec<u32> {
        list.elements_for_topic(&self.topic)
            .iter()
            .filter_map(|element| u32::try_from(element.partition()).ok())
            .collect()
    }

    fn send(&self, event: Event) {
        if self.events.blocking_send(event).is_err() {
            tracing::debug!("the engine is gone; a rebalance event has no taker");
        }
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let partitions = self.partitions(list);
        let mut unread = TopicPartitionList::new();
        for partition in &partitions {
            let partition = i32::try_from(*partition).unwrap_or(i32::MAX);
            if let Err(error) = unread.add_partition_offset(&self.topic, partition, Offset::End) {
                tracing::error!(partition, %error, "cannot take an assigned partition");
            }
        }
        if let Err(error) = consumer.incremental_assign(&unread) {
            tracing::error!(%error, "cannot take assigned partitions");
            return;
        }
        // The fetcher reads the data; what slips in before the pause is thrown away.
        if let Err(error) = consumer.pause(&unread) {
            tracing::warn!(%error, "cannot pause the member's partitions");
        }
        for partition in partitions {
            let epoch = self.ownership.add(partition);
            tracing::info!(partition, epoch, "partition assigned");
            self.send(Event::Assigned { partition, epoch });
        }
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let owned: Vec<(u32, Epoch)> = self
            .partitions(list)
            .into_iter()
            .filter_map(|partition| Some((partition, self.ownership.epoch(partition)?)))
            .collect();
        let lost = consumer.assignment_lost();
        if !lost && !owned.is_empty() {
            for (partition, epoch) in &owned {
                self.send(Event::Revoking {
                    partition: *partition,
                    epoch: *epoch,
                });
            }
            if !self.releases.wait(&owned, RELEASE_MAX) {
                tracing::warn!(
                    "last transaction took too long; the next owner reads what became of it"
                );
            }
        }
        let numbers: Vec<u32> = owned.iter().map(|(partition, _)| *partition).collect();
        self.ownership.remove(&numbers);
        for (partition, epoch) in owned {
            tracing::info!(partition, epoch, lost, "partition revoked");
            self.send(Event::Lost { partition, epoch });
        }
        if let Err(error) = consumer.incremental_unassign(list) {
            tracing::warn!(%error, "cannot give up revoked partitions");
        }
    }
}

impl ClientContext for MemberContext {
    fn stats(&self, statistics: rdkafka::Statistics) {
        self.figures.take(&statistics);
    }

    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        super::log_librdkafka("member", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "member reports");
    }
}

impl ConsumerContext for MemberContext {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        err: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        self.rebalances.fetch_add(1, Ordering::Relaxed);
        match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list),
            _ => self.revoke(consumer, list),
        }
    }
}

/// A member of the consumer group, with its thread.
pub struct Member {
    consumer: Arc<BaseConsumer<MemberContext>>,
    ownership: Arc<Ownership>,
    releases: Arc<Releases>,
    stop: Arc<AtomicBool>,
    /// Turns of the thread, for the health check.
    heart: Arc<Heart>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Member {
    /// Joins the group of `connection`'s `group.id` for one topic.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn join(
        connection: &ClientConfig,
        topic: &str,
        ownership: Arc<Ownership>,
        events: Events,
    ) -> Result<Arc<Self>, BrokerError> {
        let releases = Arc::new(Releases::default());
        let context = MemberContext {
            ownership: ownership.clone(),
            releases: releases.clone(),
            events,
            topic: topic.to_owned(),
            rebalances: AtomicU64::new(0),
            figures: Arc::default(),
        };
        let consumer: BaseConsumer<MemberContext> = connection
            .clone()
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("auto.offset.reset", "latest")
            // Nothing is read here: keep what slips in before a pause small.
            .set("queued.min.messages", "1")
            .set("fetch.message.max.bytes", "1024")
            .set("statistics.interval.ms", REPORT_MS)
            .create_with_context(context)
            .map_err(|source| BrokerError::of("create the group member", source))?;
        consumer
            .subscribe(&[topic])
            .map_err(|source| BrokerError::of("subscribe to the jobs topic", source))?;
        let consumer = Arc::new(consumer);
        let stop = Arc::new(AtomicBool::new(false));
        let heart = Arc::new(Heart::default());
        let needs = permissions::of_group(connection, topic);
        let thread = spawn(consumer.clone(), stop.clone(), heart.clone(), needs)?;
        Ok(Arc::new(Self {
            consumer,
            ownership,
            releases,
            stop,
            heart,
            thread: Mutex::new(Some(thread)),
        }))
    }

    /// Group metadata, taken while all of `wanted` is owned in just these assignments (rule 3).
    ///
    /// # Errors
    /// The reason to abort for.
    pub fn metadata_for(
        &self,
        wanted: impl IntoIterator<Item = (u32, Epoch)>,
    ) -> Result<GroupMetadata, AbortReason> {
        match self
            .ownership
            .while_owned(wanted, || group_metadata::fetch(&self.consumer))
        {
            Err(_) => Err(AbortReason::NotOwned),
            Ok(Err(_)) => Err(AbortReason::Unfenceable),
            Ok(Ok(metadata)) => Ok(metadata),
        }
    }

    /// Where the engine tells that a partition has nothing more to commit.
    #[must_use]
    pub fn releases(&self) -> &Releases {
        &self.releases
    }

    /// What is owned.
    #[must_use]
    pub fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// Beats ten times a second while the thread lives.
    #[must_use]
    pub fn heart(&self) -> Arc<Heart> {
        self.heart.clone()
    }

    /// What librdkafka says of this client.
    #[must_use]
    pub fn figures(&self) -> Arc<Figures> {
        self.consumer.context().figures.clone()
    }

    /// Rebalance callbacks so far.
    #[must_use]
    pub fn rebalances(&self) -> u64 {
        self.consumer.context().rebalances.load(Ordering::Relaxed)
    }

    /// Leaves the group: revokes everything, waits for the last transactions, says goodbye.
    pub fn leave(&self) {
        self.stop.store(true, Ordering::Release);
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the group member's thread panicked");
        }
    }
}

fn spawn(
    consumer: Arc<BaseConsumer<MemberContext>>,
    stop: Arc<AtomicBool>,
    heart: Arc<Heart>,
    needs: [Permission; 2],
) -> Result<JoinHandle<()>, BrokerError> {
    std::thread::Builder::new()
        .name("kafka-member".to_owned())
        .spawn(move || {
            while !stop.load(Ordering::Acquire) {
                poll_once(&consumer, &needs);
                heart.beat();
            }
            // The unsubscribe brings a revoke of everything, served by the polls below.
            consumer.unsubscribe();
            for _ in 0..LEAVE_POLLS {
                poll_once(&consumer, &needs);
                heart.beat();
                if consumer.assignment().is_ok_and(|list| list.count() == 0) {
                    break;
                }
            }
        })
        .map_err(|error| {
            BrokerError::of(
                "start the member thread",
                KafkaError::ClientCreation(error.to_string()),
            )
        })
}

/// Polls that an orderly leave may take: three seconds, one more than a revoke may wait.
const LEAVE_POLLS: usize = 30;

fn poll_once(consumer: &BaseConsumer<MemberContext>, needs: &[Permission]) {
    match consumer.poll(POLL) {
        // What was fetched before the pause took effect; the fetcher reads it for real.
        None | Some(Ok(_)) => {}
        Some(Err(error)) if permissions::noticed(&error, needs) => {}
        Some(Err(error)) => tracing::debug!(%error, "group member"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A classic group takes offsets under generation −1 and an empty member id from anybody
    /// (semantics.md, rule 2). Whatever is owned, a member that is in no group gets no metadata.
    #[test]
    fn a_member_without_a_generation_commits_nothing() {
        let mut connection = ClientConfig::new();
        connection
            .set("bootstrap.servers", "127.0.0.1:1")
            .set("group.id", "nobody");
        let ownership = Arc::new(Ownership::default());
        let (events, _incoming) = tokio::sync::mpsc::channel(1);
        let member = Member::join(&connection, "jobs", ownership.clone(), events)
            .expect("a member needs no broker to exist");
        let epoch = ownership.add(0);
        let refused = member.metadata_for([(0, epoch)]).err();
        assert_eq!(refused, Some(AbortReason::Unfenceable));
        // What is not owned any more is refused before that.
        ownership.remove(&[0]);
        let refused = member.metadata_for([(0, epoch)]).err();
        assert_eq!(refused, Some(AbortReason::NotOwned));
        member.leave();
    }
}
