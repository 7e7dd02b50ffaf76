//! What the worker relies on in a broker: one suite, run on SimBroker (`tests/sim`) and on real
//! Kafka (`tests/it`). Where the two differ, the simulator is wrong.

use guestkit_worker::transaction_records::Place;

/// Why a transactional call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Fatal: this producer is over.
    Fatal,
    /// The group refuses the metadata: abort, the producer lives.
    Stale,
}

/// A transaction is about to change an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pending;

/// A cluster with a jobs topic of two partitions and a compacted ledger.
pub(crate) trait Cluster {
    /// A transactional producer.
    type Producer;
    /// A member of the group.
    type Member;
    /// What a consumer shows as its membership.
    type Metadata;

    fn init(&mut self, transactional_id: &str) -> Self::Producer;
    /// Writes, in the transaction that the producer has open (it begins one).
    fn produce(&mut self, by: &mut Self::Producer, to: (Place, u32), key: &str, value: &str);
    fn send_offsets(
        &mut self,
        by: &mut Self::Producer,
        metadata: &Self::Metadata,
        partition: u32,
        next_offset: i64,
    ) -> Result<(), Refused>;
    fn end(&mut self, by: &mut Self::Producer, commit: bool) -> Result<(), Refused>;
    fn write_plain(&mut self, to: (Place, u32), key: &str, value: &str);
    /// Joins, and waits until every member has its share.
    fn join(&mut self) -> Self::Member;
    fn metadata(&mut self, member: &Self::Member) -> Self::Metadata;
    /// Metadata of a consumer that is in no group.
    fn unjoined(&mut self) -> Self::Metadata;
    /// All records that a reader gets: offset, key, value.
    fn read(&mut self, from: (Place, u32), read_committed: bool) -> Vec<(i64, String, String)>;
    fn high_watermark(&mut self, of: (Place, u32)) -> i64;
    fn last_stable(&mut self, of: (Place, u32)) -> i64;
    /// The group's offset, unless a transaction is about to change it.
    fn stable_offset(&mut self, partition: u32) -> Result<Option<i64>, Pending>;
    /// Waits until what is decided is compacted.
    fn compact(&mut self, of: (Place, u32));
}

const RESULTS: (Place, u32) = (Place::Results, 0);
const LEDGER: (Place, u32) = (Place::Ledger, 0);

fn values<C: Cluster>(on: &mut C, from: (Place, u32), read_committed: bool) -> Vec<String> {
    let records = on.read(from, read_committed);
    records.into_iter().map(|(_, _, value)| value).collect()
}

pub(crate) fn a_commit_shows_everything_an_abort_nothing<C: Cluster>(on: &mut C) {
    let member = on.join();
    let metadata = on.metadata(&member);
    let mut producer = on.init("writer");
    on.produce(&mut producer, RESULTS, "a", "committed");
    on.produce(&mut producer, LEDGER, "a", "committed");
    on.send_offsets(&mut producer, &metadata, 0, 3).unwrap();
    on.end(&mut producer, true).unwrap();
    on.produce(&mut producer, RESULTS, "b", "aborted");
    on.send_offsets(&mut producer, &metadata, 0, 9).unwrap();
    on.end(&mut producer, false).unwrap();
    assert_eq!(values(on, RESULTS, true), ["committed"]);
    assert_eq!(values(on, LEDGER, true), ["committed"]);
    assert_eq!(on.stable_offset(0), Ok(Some(3)));
    assert_eq!(
        values(on, RESULTS, false),
        ["committed", "aborted"],
        "read uncommitted shows what was written"
    );
}

pub(crate) fn what_is_open_hides_what_comes_after_it<C: Cluster>(on: &mut C) {
    let mut producer = on.init("writer");
    on.write_plain(LEDGER, "before", "1");
    on.produce(&mut producer, LEDGER, "open", "2");
    on.write_plain(LEDGER, "after", "3");
    assert_eq!(values(on, LEDGER, true), ["1"]);
    assert_eq!(values(on, LEDGER, false), ["1", "2", "3"]);
    assert_eq!(on.last_stable(LEDGER), 1);
    assert_eq!(on.high_watermark(LEDGER), 3);
    on.end(&mut producer, true).unwrap();
    assert_eq!(values(on, LEDGER, true), ["1", "2", "3"]);
}

pub(crate) fn control_records_leave_gaps<C: Cluster>(on: &mut C) {
    let mut producer = on.init("writer");
    on.produce(&mut producer, RESULTS, "a", "1");
    on.end(&mut producer, true).unwrap();
    on.produce(&mut producer, RESULTS, "b", "2");
    on.end(&mut producer, true).unwrap();
    let offsets: Vec<i64> = on
        .read(RESULTS, true)
        .into_iter()
        .map(|(offset, _, _)| offset)
        .collect();
    assert_eq!(offsets, [0, 2]);
    assert_eq!(
        on.high_watermark(RESULTS),
        4,
        "the last one shows only in the end"
    );
}

pub(crate) fn a_stale_generation_is_refused_and_its_producer_lives<C: Cluster>(on: &mut C) {
    let first = on.join();
    let stale = on.metadata(&first);
    let second = on.join();
    let mut producer = on.init("writer");
    on.produce(&mut producer, RESULTS, "a", "stale");
    let refused = on.send_offsets(&mut producer, &stale, 0, 5);
    assert_eq!(refused, Err(Refused::Stale));
    on.end(&mut producer, false).unwrap();
    let current = on.metadata(&second);
    on.produce(&mut producer, RESULTS, "a", "current");
    on.send_offsets(&mut producer, &current, 0, 6).unwrap();
    on.end(&mut producer, true).unwrap();
    assert_eq!(values(on, RESULTS, true), ["current"]);
    assert_eq!(on.stable_offset(0), Ok(Some(6)));
}

/// Why the edge looks at metadata before it uses it: a classic group does not.
pub(crate) fn metadata_of_nobody_is_not_fenced<C: Cluster>(on: &mut C) {
    let _member = on.join();
    let nobody = on.unjoined();
    let mut producer = on.init("writer");
    on.produce(&mut producer, RESULTS, "a", "of nobody");
    on.send_offsets(&mut producer, &nobody, 0, 5).unwrap();
    on.end(&mut producer, true).unwrap();
    assert_eq!(on.stable_offset(0), Ok(Some(5)));
}

/// Why ownership and metadata are taken together: the group never looks at the partition.
pub(crate) fn any_member_commits_any_partition<C: Cluster>(on: &mut C) {
    let first = on.join();
    let _second = on.join();
    let metadata = on.metadata(&first);
    let mut producer = on.init("writer");
    for partition in [0, 1] {
        on.send_offsets(&mut producer, &metadata, partition, 7)
            .unwrap();
    }
    on.end(&mut producer, true).unwrap();
    assert_eq!(on.stable_offset(0), Ok(Some(7)));
    assert_eq!(on.stable_offset(1), Ok(Some(7)));
}

pub(crate) fn the_stable_offset_waits_for_a_pending_one<C: Cluster>(on: &mut C) {
    let member = on.join();
    let metadata = on.metadata(&member);
    let mut producer = on.init("writer");
    assert_eq!(on.stable_offset(0), Ok(None));
    on.send_offsets(&mut producer, &metadata, 0, 4).unwrap();
    assert_eq!(on.stable_offset(0), Err(Pending));
    assert_eq!(on.stable_offset(1), Ok(None), "others do not wait");
    on.end(&mut producer, true).unwrap();
    assert_eq!(on.stable_offset(0), Ok(Some(4)));
}

pub(crate) fn a_new_producer_ends_the_old_ones_transaction<C: Cluster>(on: &mut C) {
    let member = on.join();
    let metadata = on.metadata(&member);
    let mut old = on.init("writer");
    on.produce(&mut old, LEDGER, "a", "of the old one");
    on.send_offsets(&mut old, &metadata, 0, 4).unwrap();
    let mut new = on.init("writer");
    assert_eq!(on.stable_offset(0), Ok(None), "nothing is pending");
    assert_eq!(on.last_stable(LEDGER), on.high_watermark(LEDGER));
    assert_eq!(on.end(&mut old, true), Err(Refused::Fatal));
    on.produce(&mut new, LEDGER, "b", "of the new one");
    on.end(&mut new, true).unwrap();
    assert_eq!(values(on, LEDGER, true), ["of the new one"]);
}

/// After a commit nobody heard of, a new producer leaves nothing undecided: what is read then counts.
pub(crate) fn renewal_decides_an_unknown_commit<C: Cluster>(on: &mut C) {
    let member = on.join();
    let metadata = on.metadata(&member);
    for (n, applied) in [(1, true), (2, false)] {
        let mut producer = on.init("writer");
        let value = n.to_string();
        on.produce(&mut producer, LEDGER, "slot", &value);
        on.send_offsets(&mut producer, &metadata, 0, n).unwrap();
        if applied {
            // Its answer is lost.
            on.end(&mut producer, true).unwrap();
        }
        let _renewed = on.init("writer");
        assert_eq!(on.last_stable(LEDGER), on.high_watermark(LEDGER));
        assert_eq!(values(on, LEDGER, true), ["1"]);
        assert_eq!(on.stable_offset(0), Ok(Some(1)));
    }
}

pub(crate) fn compaction_keeps_the_newest_of_a_key<C: Cluster>(on: &mut C) {
    let mut producer = on.init("writer");
    for n in 0..3 {
        on.produce(&mut producer, LEDGER, "slot", &n.to_string());
        on.end(&mut producer, true).unwrap();
    }
    on.produce(&mut producer, LEDGER, "slot", "aborted");
    on.end(&mut producer, false).unwrap();
    on.compact(LEDGER);
    let mut slots = on.read(LEDGER, true);
    slots.retain(|(_, key, _)| key == "slot");
    let newest = (4, "slot".to_owned(), "2".to_owned());
    assert_eq!(slots, [newest], "the newest committed, at its offset");
}
