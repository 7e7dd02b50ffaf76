//! The topics: names, settings, creating and checking them.

use crate::acls::{Operation, Permission};
use crate::connection::Connection;
use crate::fault::Fault;
use crate::metadata::{self, Cluster, Quiet};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The largest job record, in bytes.
pub const JOB_BYTES_MAX: u64 = 1024 * 1024;
/// The largest ledger, outcome or dead letter record: a whole job and something around it.
pub const WRAPPED_BYTES_MAX: u64 = JOB_BYTES_MAX + 64 * 1024;
/// The largest result record.
pub const RESULT_BYTES_MAX: u64 = 2 * 1024 * 1024;

const HOUR_MS: u64 = 3600 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The names of all topics and the group of one prefix and pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicNames {
    /// Prefix of all names.
    pub prefix: String,
    /// The pool, if it is not the default one.
    pub pool: Option<String>,
    /// Jobs of the pool.
    pub jobs: String,
    /// Ledger of the pool.
    pub ledger: String,
    /// Outcomes of the pool.
    pub outcomes: String,
    /// Results, shared by all pools.
    pub results: String,
    /// Progress.
    pub progress: String,
    /// Dead letters.
    pub dead_letters: String,
    /// Control requests.
    pub control: String,
    /// The worker directory.
    pub workers: String,
}

/// What a topic is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicKind {
    /// Jobs.
    Jobs,
    /// Ledger.
    Ledger,
    /// Results.
    Results,
    /// Progress.
    Progress,
    /// Dead letters.
    DeadLetters,
    /// Outcomes.
    Outcomes,
    /// Control.
    Control,
    /// Worker directory.
    Workers,
}

impl TopicNames {
    /// The names for a prefix and a pool; an empty pool is the default one.
    ///
    /// # Errors
    /// [`Fault::Config`] when Kafka would not take a name.
    pub fn new(prefix: &str, pool: Option<&str>) -> Result<Self, Fault> {
        let pool = pool.filter(|pool| !pool.is_empty() && *pool != guestkit_protocol::DEFAULT_POOL);
        for (what, text) in [("topic prefix", Some(prefix)), ("pool", pool)] {
            let Some(text) = text else { continue };
            let lawful = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if text.is_empty() || text.len() > 100 || !text.bytes().all(lawful) {
                return Err(Fault::Config(format!(
                    "{what} {text:?} is not 1 to 100 of A-Z a-z 0-9 . _ -"
                )));
            }
        }
        let shared = |name: &str| format!("{prefix}.{name}");
        let pooled = |name: &str| match pool {
            Some(pool) => format!("{prefix}.{name}.{pool}"),
            None => shared(name),
        };
        Ok(Self {
            prefix: prefix.to_owned(),
            pool: pool.map(str::to_owned),
            jobs: pooled("jobs"),
            ledger: pooled("ledger"),
            outcomes: pooled("outcomes"),
            results: shared("results"),
            progress: shared("progress"),
            dead_letters: shared("dead-letters"),
            control: shared("control"),
            workers: shared("workers"),
        })
    }

    /// The consumer group of this pool's workers.
    pub fn group(&self, group_id: &str) -> String {
        match &self.pool {
            Some(pool) => format!("{group_id}.{pool}"),
            None => group_id.to_owned(),
        }
    }

    /// The transactional id of a worker's lane.
    pub fn transactional_id(&self, group_id: &str, worker_id: &str, lane: u32) -> String {
        format!("{}{worker_id}.{lane}", self.transactional_ids(group_id))
    }

    /// What the transactional ids of all workers of this pool begin with.
    pub fn transactional_ids(&self, group_id: &str) -> String {
        format!("{}.{}.", self.prefix, self.group(group_id))
    }

    /// All topics with what they are for.
    pub fn all(&self) -> [(TopicKind, &str); 8] {
        [
            (TopicKind::Jobs, &self.jobs),
            (TopicKind::Ledger, &self.ledger),
            (TopicKind::Results, &self.results),
            (TopicKind::Progress, &self.progress),
            (TopicKind::DeadLetters, &self.dead_letters),
            (TopicKind::Outcomes, &self.outcomes),
            (TopicKind::Control, &self.control),
            (TopicKind::Workers, &self.workers),
        ]
    }
}

impl TopicKind {
    /// Whether its partition count is that of the jobs topic.
    pub const fn is_partitioned(self) -> bool {
        !matches!(self, Self::Control | Self::Workers)
    }

    /// Its settings, as Kafka names them.
    pub fn settings(self) -> Vec<(&'static str, String)> {
        let kept = |days: u64, bytes: u64| {
            vec![
                ("cleanup.policy", "delete".to_owned()),
                ("retention.ms", (days * DAY_MS).to_string()),
                ("max.message.bytes", bytes.to_string()),
            ]
        };
        match self {
            Self::Jobs => {
                let mut settings = kept(5, JOB_BYTES_MAX);
                settings.push(("segment.ms", DAY_MS.to_string()));
                // A producer's clock must not decide how long a job is kept.
                settings.push(("message.timestamp.type", "LogAppendTime".to_owned()));
                settings.push(("retention.bytes", "-1".to_owned()));
                settings
            }
            Self::Ledger => vec![
                ("cleanup.policy", "compact,delete".to_owned()),
                ("retention.ms", (7 * DAY_MS).to_string()),
                ("retention.bytes", "-1".to_owned()),
                ("segment.ms", (6 * HOUR_MS).to_string()),
                ("max.message.bytes", WRAPPED_BYTES_MAX.to_string()),
            ],
            Self::Results => kept(30, RESULT_BYTES_MAX),
            Self::Progress | Self::Control => kept(1, JOB_BYTES_MAX),
            Self::DeadLetters => kept(30, WRAPPED_BYTES_MAX),
            Self::Outcomes => kept(2, WRAPPED_BYTES_MAX),
            Self::Workers => vec![
                // Worker ids are random by default: those that are gone must not stay for ever. The
                // heartbeats of the living renew theirs.
                ("cleanup.policy", "compact,delete".to_owned()),
                ("retention.ms", (7 * DAY_MS).to_string()),
                // Only closed segments are compacted, and whoever lists the workers reads all of it.
                ("segment.ms", (HOUR_MS / 6).to_string()),
                ("min.cleanable.dirty.ratio", "0.1".to_owned()),
                // Whether a worker lives is judged by the brokers' clock, not by its own.
                ("message.timestamp.type", "LogAppendTime".to_owned()),
                ("max.message.bytes", JOB_BYTES_MAX.to_string()),
            ],
        }
    }

    fn size_needed(self) -> u64 {
        match self {
            Self::Results => RESULT_BYTES_MAX,
            Self::Ledger | Self::DeadLetters | Self::Outcomes => WRAPPED_BYTES_MAX,
            _ => 0,
        }
    }
}

/// What became of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It was created with so many partitions.
    New(u32),
    /// It was there already, with so many.
    Found(u32),
}

/// Creates what is missing; what is there is left as it is. The answer is in the order of
/// [`TopicNames::all`].
///
/// # Errors
/// See [`Fault`].
pub fn create(
    connection: &Connection,
    names: &TopicNames,
    partitions: u32,
    replication: Option<u16>,
    timeout: Duration,
) -> Result<Vec<(String, Created)>, Fault> {
    if partitions == 0 || partitions > 10_000 {
        return Err(Fault::Config(format!(
            "{partitions} partitions: 1 to 10000 are possible"
        )));
    }
    let cluster = seen(connection, names, timeout)?;
    // N is fixed when the ledger is made: what is still missing follows it.
    let partitions = cluster
        .topics
        .get(&names.ledger)
        .copied()
        .unwrap_or(partitions);
    let brokers = i32::try_from(cluster.brokers).unwrap_or(i32::MAX);
    let replication = replication.map_or(brokers.clamp(1, 3), i32::from);
    let missing: Vec<_> = names
        .all()
        .into_iter()
        .filter(|(_, name)| !cluster.topics.contains_key(*name))
        .collect();
    let settings: Vec<_> = missing
        .iter()
        .map(|(kind, _)| {
            let mut settings = kind.settings();
            if replication >= 3 {
                settings.push(("min.insync.replicas", "2".to_owned()));
            }
            settings
        })
        .collect();
    let topics: Vec<NewTopic<'_>> = missing
        .iter()
        .zip(&settings)
        .map(|((kind, name), settings)| {
            let count = if kind.is_partitioned() { partitions } else { 1 };
            let count = i32::try_from(count).unwrap_or(i32::MAX);
            let topic = NewTopic::new(name, count, TopicReplication::Fixed(replication));
            settings
                .iter()
                .fold(topic, |topic, (key, value)| topic.set(key, value))
        })
        .collect();
    if !topics.is_empty() {
        let admin = admin(connection)?;
        let options = AdminOptions::new()
            .operation_timeout(Some(timeout))
            .request_timeout(Some(timeout));
        let outcomes = wait(admin.create_topics(&topics, &options))?
            .map_err(|error| Fault::of("create topics", &error))?;
        for outcome in outcomes {
            match outcome {
                Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    let needs = [Permission::topic(Operation::Create, &name)];
                    let error = KafkaError::Global(code);
                    return Err(
                        match Fault::of_call(format!("create topic {name}"), &error, &needs) {
                            // Replication factor, policies of the cluster: for the operator to mend.
                            Fault::Other { what, reason } => {
                                Fault::Config(format!("cannot {what}: {reason}"))
                            }
                            other => other,
                        },
                    );
                }
            }
        }
        settle(connection, names, timeout)?;
    }
    Ok(names
        .all()
        .into_iter()
        .map(|(kind, name)| {
            let created = match cluster.topics.get(name) {
                Some(count) => Created::Found(*count),
                None if kind.is_partitioned() => Created::New(partitions),
                None => Created::New(1),
            };
            (name.to_owned(), created)
        })
        .collect())
}

fn seen(connection: &Connection, names: &TopicNames, timeout: Duration) -> Result<Cluster, Fault> {
    let wanted = names
        .all()
        .map(|(_, name)| Permission::topic(Operation::Describe, name));
    metadata::cluster_seen(connection, &wanted, timeout)
}

/// Waits until every broker that answers knows the new topics: creating returns a little earlier.
fn settle(connection: &Connection, names: &TopicNames, timeout: Duration) -> Result<(), Fault> {
    const PAUSE: Duration = Duration::from_millis(50);
    for _ in 0..100 {
        let cluster = metadata::cluster(connection, timeout)?;
        if names
            .all()
            .iter()
            .all(|(_, name)| cluster.topics.contains_key(*name))
        {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    Err(Fault::unreachable(
        "see the new topics",
        "brokers did not learn of them in time",
    ))
}

/// Something that is wrong with a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The topic.
    pub topic: String,
    /// Whether jobs can be lost or run twice, or nothing works at all; else it is advice.
    pub is_error: bool,
    /// What is wrong.
    pub problem: String,
    /// How to mend it.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = if self.is_error { "error" } else { "advice" };
        write!(
            f,
            "{weight}: {}: {}; {}",
            self.topic, self.problem, self.remedy
        )
    }
}

/// Checks all topics; an empty answer means that nothing is wrong.
///
/// # Errors
/// See [`Fault`]; what is wrong with a topic is a [`Finding`].
pub fn check(
    connection: &Connection,
    names: &TopicNames,
    timeout: Duration,
) -> Result<Vec<Finding>, Fault> {
    let cluster = seen(connection, names, timeout)?;
    let existing: Vec<&str> = names
        .all()
        .into_iter()
        .map(|(_, name)| name)
        .filter(|name| cluster.topics.contains_key(*name))
        .collect();
    let settings = if existing.is_empty() {
        BTreeMap::new()
    } else {
        describe(connection, &existing, timeout)?
    };
    Ok(judge(names, &cluster, &settings))
}

/// Settings of one topic.
type Settings = BTreeMap<String, String>;

fn describe(
    connection: &Connection,
    topics: &[&str],
    timeout: Duration,
) -> Result<BTreeMap<String, Settings>, Fault> {
    let admin = admin(connection)?;
    let wanted: Vec<_> = topics
        .iter()
        .map(|name| ResourceSpecifier::Topic(name))
        .collect();
    let options = AdminOptions::new().request_timeout(Some(timeout));
    let answers = wait(admin.describe_configs(&wanted, &options))?
        .map_err(|error| Fault::of("read the topics' settings", &error))?;
    let mut settings = BTreeMap::new();
    for answer in answers {
        let resource = answer.map_err(|code| {
            // The answer does not say for which topic.
            let needs = [Permission::topic(
                Operation::DescribeConfigs,
                topics.first().copied().unwrap_or_default(),
            )];
            Fault::of_call(
                "read the topics' settings",
                &KafkaError::Global(code),
                &needs,
            )
        })?;
        if let rdkafka::admin::OwnedResourceSpecifier::Topic(name) = resource.specifier {
            // The wrapper drops the error of a single topic; every topic has settings.
            if resource.entries.is_empty() {
                let need = Permission::topic(Operation::DescribeConfigs, name);
                return Err(Fault::Denied {
                    what: "read the topics' settings".to_owned(),
                    reason: need.to_string(),
                });
            }
            let entries = resource.entries.into_iter();
            let values = entries.filter_map(|entry| Some((entry.name, entry.value?)));
            settings.insert(name, values.collect());
        }
    }
    Ok(settings)
}

/// What is wrong, from what the cluster says. Pure.
fn judge(
    names: &TopicNames,
    cluster: &Cluster,
    settings: &BTreeMap<String, Settings>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |topic: &str, is_error, problem: String, remedy: String| {
        findings.push(Finding {
            topic: topic.to_owned(),
            is_error,
            problem,
            remedy,
        });
    };
    let number = |topic: &str, name: &str| -> Option<i64> {
        settings.get(topic)?.get(name)?.trim().parse().ok()
    };
    let alter = |topic: &str, setting: &str| {
        format!(
            "kafka-configs --alter --entity-type topics --entity-name {topic} --add-config {setting}"
        )
    };
    for (kind, topic) in names.all() {
        let Some(count) = cluster.topics.get(topic) else {
            let remedy = "run `guestkit-jobs topics create`".to_owned();
            find(topic, true, "it does not exist".to_owned(), remedy);
            continue;
        };
        let slots = cluster.topics.get(&names.ledger).copied().unwrap_or(0);
        if kind.is_partitioned() && *count < slots {
            find(
                topic,
                true,
                format!("it has {count} partitions, the ledger has {slots}"),
                format!("kafka-topics --alter --topic {topic} --partitions {slots}"),
            );
        }
        let Some(found) = settings.get(topic) else {
            continue;
        };
        let policy = found.get("cleanup.policy").map(|policy| {
            let mut words: Vec<&str> = policy.split(',').map(str::trim).collect();
            words.sort_unstable();
            words.join(",")
        });
        let wanted = match kind {
            TopicKind::Ledger | TopicKind::Workers => "compact,delete",
            _ => "delete",
        };
        if let Some(policy) = policy
            && policy != wanted
        {
            // One that is only compacted works, it just grows for ever.
            let is_error = wanted == "delete" || policy == "delete";
            let bracketed = format!("cleanup.policy=[{wanted}]");
            find(
                topic,
                is_error,
                format!("its cleanup.policy is {policy}, not {wanted}"),
                alter(topic, &bracketed),
            );
        }
        let needed = kind.size_needed();
        if let Some(size) = number(topic, "max.message.bytes")
            && u64::try_from(size).is_ok_and(|size| size < needed)
        {
            find(
                topic,
                true,
                format!("its max.message.bytes is {size}, less than {needed}"),
                alter(topic, &format!("max.message.bytes={needed}")),
            );
        }
    }
    if let Some(bytes) = number(&names.jobs, "retention.bytes")
        && bytes >= 0
    {
        let problem = format!("its retention.bytes is {bytes}: a backlog can be cut");
        find(
            &names.jobs,
            true,
            problem,
            alter(&names.jobs, "retention.bytes=-1"),
        );
    }
    if let Some(bytes) = number(&names.ledger, "retention.bytes")
        && bytes >= 0
    {
        let problem = format!("its retention.bytes is {bytes}: answers can be forgotten early");
        find(
            &names.ledger,
            true,
            problem,
            alter(&names.ledger, "retention.bytes=-1"),
        );
    }
    if settings
        .get(&names.jobs)
        .and_then(|found| found.get("message.timestamp.type"))
        .is_some_and(|kind| kind != "LogAppendTime")
    {
        find(
            &names.jobs,
            false,
            "its records have the producers' times: a wrong clock decides how long a job is kept"
                .to_owned(),
            alter(&names.jobs, "message.timestamp.type=LogAppendTime"),
        );
    }
    if let Some(finding) = retention_rule(names, &number) {
        findings.push(finding);
    }
    findings
}

/// Answers must be kept at least as long as a job can come again.
fn retention_rule(
    names: &TopicNames,
    number: &dyn Fn(&str, &str) -> Option<i64>,
) -> Option<Finding> {
    // -1 is for ever.
    let forever = |ms: i64| if ms < 0 { i64::MAX } else { ms };
    let ledger = forever(number(&names.ledger, "retention.ms")?);
    let jobs = forever(number(&names.jobs, "retention.ms")?);
    let segment = number(&names.jobs, "segment.ms")?;
    let needed = jobs.saturating_add(segment);
    (ledger < needed).then(|| Finding {
        topic: names.ledger.clone(),
        is_error: true,
        problem: format!(
            "its retention.ms is {ledger}, less than the jobs topic's retention.ms and segment.ms together, {needed}: \
             a job that is read again could run again"
        ),
        remedy: if needed == i64::MAX {
            format!("give {} a retention.ms", names.jobs)
        } else {
            format!(
                "kafka-configs --alter --entity-type topics --entity-name {} --add-config retention.ms={needed}",
                names.ledger
            )
        },
    })
}

fn admin(connection: &Connection) -> Result<AdminClient<Quiet>, Fault> {
    connection
        .client_config()
        .create_with_context(Quiet)
        .map_err(|error| Fault::of("create an admin client", &error))
}

/// Admin calls are futures that their own thread completes.
fn wait<T: Send>(future: impl Future<Output = T> + Send) -> Result<T, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| Fault::other("wait for the cluster", error))?;
    crate::wait::block_on(&runtime, async { Ok(future.await) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> TopicNames {
        TopicNames::new("vm", None).unwrap()
    }

    fn as_created(names: &TopicNames) -> (Cluster, BTreeMap<String, Settings>) {
        let topics = names
            .all()
            .into_iter()
            .map(|(kind, name)| (name.to_owned(), if kind.is_partitioned() { 12 } else { 1 }))
            .collect();
        let settings = names
            .all()
            .into_iter()
            .map(|(kind, name)| {
                let values = kind.settings().into_iter();
                let values = values.map(|(key, value)| (key.to_owned(), value));
                (name.to_owned(), values.collect())
            })
            .collect();
        (Cluster { brokers: 3, topics }, settings)
    }

    #[test]
    fn names_follow_prefix_and_pool() {
        let plain = names();
        assert_eq!(plain.jobs, "vm.jobs");
        assert_eq!(plain.group("g"), "g");
        assert_eq!(plain.transactional_id("g", "w", 2), "vm.g.w.2");
        let pooled = TopicNames::new("vm", Some("gpu")).unwrap();
        assert_eq!(
            (&*pooled.ledger, &*pooled.results),
            ("vm.ledger.gpu", "vm.results")
        );
        assert_eq!(pooled.outcomes, "vm.outcomes.gpu");
        assert_eq!(pooled.group("g"), "g.gpu");
        assert_eq!(TopicNames::new("vm", Some("")).unwrap(), plain);
        for prefix in ["", "a b", "ä", &"x".repeat(101)] {
            assert!(TopicNames::new(prefix, None).is_err(), "{prefix}");
        }
    }

    #[test]
    fn what_create_makes_passes_the_check() {
        let names = names();
        let (cluster, settings) = as_created(&names);
        assert_eq!(judge(&names, &cluster, &settings), []);
    }

    #[test]
    fn each_fault_is_found_with_its_remedy() {
        let names = names();
        for (topic, setting, value, part) in [
            ("vm.ledger", "cleanup.policy", "delete", "compact"),
            ("vm.jobs", "cleanup.policy", "compact", "delete"),
            (
                "vm.ledger",
                "retention.ms",
                "1000",
                "retention.ms=518400000",
            ),
            ("vm.jobs", "retention.ms", "-1", "give vm.jobs"),
            ("vm.jobs", "retention.bytes", "100", "retention.bytes=-1"),
            (
                "vm.jobs",
                "message.timestamp.type",
                "CreateTime",
                "LogAppendTime",
            ),
            (
                "vm.results",
                "max.message.bytes",
                "1048588",
                "max.message.bytes=2097152",
            ),
        ] {
            let (cluster, mut settings) = as_created(&names);
            let found = settings.get_mut(topic).unwrap();
            found.insert(setting.to_owned(), value.to_owned());
            let findings = judge(&names, &cluster, &settings);
            assert_eq!(findings.len(), 1, "{setting}: {findings:?}");
            assert!(findings[0].remedy.contains(part), "{findings:?}");
        }
        let (mut cluster, settings) = as_created(&names);
        cluster.topics.insert("vm.jobs".to_owned(), 6);
        cluster.topics.remove("vm.workers");
        let findings = judge(&names, &cluster, &settings);
        assert!(
            findings[0].remedy.contains("--partitions 12"),
            "{findings:?}"
        );
        assert!(
            findings[1].problem.contains("does not exist"),
            "{findings:?}"
        );
        // For ever is long enough.
        let (cluster, mut settings) = as_created(&names);
        let ledger = settings.get_mut("vm.ledger").unwrap();
        ledger.insert("retention.ms".to_owned(), "-1".to_owned());
        assert_eq!(judge(&names, &cluster, &settings), []);
    }
}
