//! Group metadata that was looked at: the one place that calls librdkafka directly.
//!
//! A transactional offset commit with generation −1 and an empty member id is *not fenced* by a
//! classic group (semantics.md, rule 2), and librdkafka can report just that for a moment. The safe
//! wrapper of rust-rdkafka does not show either field, so this module fetches the metadata once,
//! checks *that* object and sends it.
#![allow(unsafe_code)]

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka_sys::bindings as sys;
use std::ffi::CStr;
use std::ptr::NonNull;

/// Group metadata with a generation and a member id: the coordinator will fence it.
pub struct GroupMetadata {
    native: NonNull<sys::rd_kafka_consumer_group_metadata_t>,
}

// SAFETY: the object is immutable after creation and librdkafka ties it to no thread.
unsafe impl Send for GroupMetadata {}

impl Drop for GroupMetadata {
    fn drop(&mut self) {
        // SAFETY: `native` came from librdkafka and is destroyed here only.
        unsafe { sys::rd_kafka_consumer_group_metadata_destroy(self.native.as_ptr()) }
    }
}

/// Why metadata may not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "group metadata with generation {generation} and member id {member_id:?} would not be fenced"
)]
pub struct Unfenceable {
    /// Generation; −1 when the consumer is in no group.
    pub generation: i32,
    /// Member id; empty when the consumer is in no group.
    pub member_id: String,
}

/// Whether the coordinator would check metadata with these fields (rule 2).
pub fn check(generation: i32, member_id: &str) -> Result<(), Unfenceable> {
    if generation < 0 || member_id.is_empty() {
        return Err(Unfenceable {
            generation,
            member_id: member_id.to_owned(),
        });
    }
    Ok(())
}

/// Takes the group metadata of a consumer, if it can be fenced.
pub fn fetch<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Result<GroupMetadata, Unfenceable> {
    // SAFETY: the client is alive for the borrow; the returned object is owned by us or null.
    let native = unsafe { sys::rd_kafka_consumer_group_metadata(consumer.client().native_ptr()) };
    let Some(native) = NonNull::new(native) else {
        return check(-1, "").map(|()| unreachable!("an empty member id is refused"));
    };
    let metadata = GroupMetadata { native };
    // SAFETY: `native` is valid; the member id is a NUL-terminated string that lives as long.
    let (generation, member_id) = unsafe {
        let generation = sys::rd_kafka_consumer_group_metadata_generation_id(native.as_ptr());
        let member_id = sys::rd_kafka_consumer_group_metadata_member_id(native.as_ptr());
        let member_id = if member_id.is_null() {
            String::new()
        } else {
            CStr::from_ptr(member_id).to_string_lossy().into_owned()
        };
        (generation, member_id)
    };
    check(generation, &member_id)?;
    Ok(metadata)
}

/// How sending offsets failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct SendOffsetsError {
    /// librdkafka's code.
    pub code: RDKafkaErrorCode,
    /// Its words.
    pub message: String,
    /// The producer can do nothing more.
    pub fatal: bool,
    /// The same call may succeed.
    pub retriable: bool,
    /// The transaction has to be aborted.
    pub abortable: bool,
}

/// Adds offsets to the producer's transaction, under metadata that was checked.
pub fn send_offsets<C: ProducerContext>(
    producer: &BaseProducer<C>,
    offsets: &TopicPartitionList,
    metadata: &GroupMetadata,
    timeout_ms: i32,
) -> Result<(), SendOffsetsError> {
    // SAFETY: producer, list and metadata are alive for the call; the error, if any, is ours and
    // destroyed below.
    unsafe {
        let error = sys::rd_kafka_send_offsets_to_transaction(
            producer.client().native_ptr(),
            offsets.ptr(),
            metadata.native.as_ptr(),
            timeout_ms,
        );
        if error.is_null() {
            return Ok(());
        }
        let message = sys::rd_kafka_error_string(error);
        let described = SendOffsetsError {
            code: sys::rd_kafka_error_code(error).into(),
            message: CStr::from_ptr(message).to_string_lossy().into_owned(),
            fatal: sys::rd_kafka_error_is_fatal(error) != 0,
            retriable: sys::rd_kafka_error_is_retriable(error) != 0,
            abortable: sys::rd_kafka_error_txn_requires_abort(error) != 0,
        };
        sys::rd_kafka_error_destroy(error);
        Err(described)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_a_classic_group_would_accept_unfenced() {
        assert!(check(3, "consumer-1").is_ok());
        for (generation, member_id) in [(-1, ""), (-1, "consumer-1"), (3, "")] {
            assert!(check(generation, member_id).is_err());
        }
    }

    #[test]
    fn a_consumer_that_joined_no_group_has_no_metadata_to_use() {
        let consumer: BaseConsumer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", "127.0.0.1:1")
            .set("group.id", "nobody")
            .create()
            .expect("a consumer needs no broker to exist");
        let refused = fetch(&consumer).err().expect("never joined");
        assert_eq!((refused.generation, refused.member_id.as_str()), (-1, ""));
    }
}
