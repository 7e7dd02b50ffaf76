//! The access rules that each kind of program needs on a cluster with an authorizer, and no more.
//!
//! One table for the command line (`guestkit-jobs topics acls`), the manifests and the documentation; tests
//! show on a real authorizer that each list is enough and that nothing in it can be left out.

use crate::topics::TopicNames;
use std::fmt;

/// What may be done, in the authorizer's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Fetch records; join a group and commit its offsets.
    Read,
    /// Append records; use a transactional id.
    Write,
    /// Create a topic.
    Create,
    /// See that it exists. [`Operation::Read`] and [`Operation::Write`] include it.
    Describe,
    /// Read settings.
    DescribeConfigs,
}

/// What it may be done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// A topic.
    Topic,
    /// A consumer group.
    Group,
    /// A transactional id.
    TransactionalId,
}

impl Operation {
    /// As `kafka-acls.sh` and Strimzi have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Create => "Create",
            Self::Describe => "Describe",
            Self::DescribeConfigs => "DescribeConfigs",
        }
    }
}

impl Operation {
    /// As Kafka's own errors and logs have it.
    pub const fn constant(self) -> &'static str {
        match self {
            Self::Read => "READ",
            Self::Write => "WRITE",
            Self::Create => "CREATE",
            Self::Describe => "DESCRIBE",
            Self::DescribeConfigs => "DESCRIBE_CONFIGS",
        }
    }
}

impl Resource {
    /// As Strimzi has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Group => "group",
            Self::TransactionalId => "transactionalId",
        }
    }

    /// The flag of `kafka-acls.sh`.
    pub const fn flag(self) -> &'static str {
        match self {
            Self::Topic => "--topic",
            Self::Group => "--group",
            Self::TransactionalId => "--transactional-id",
        }
    }
}

/// One operation on one resource: what an error says is missing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    /// What is done.
    pub operation: Operation,
    /// To what kind of thing.
    pub resource: Resource,
    /// To which.
    pub name: String,
}

impl Permission {
    /// An operation on a topic.
    pub fn topic(operation: Operation, name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            operation,
            resource: Resource::Topic,
            name,
        }
    }

    /// An operation on a group.
    pub fn group(operation: Operation, name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            operation,
            resource: Resource::Group,
            name,
        }
    }

    /// The use of a transactional id.
    pub fn transactional_id(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            operation: Operation::Write,
            resource: Resource::TransactionalId,
            name,
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.resource {
            Resource::TransactionalId => "transactional id",
            other => other.name(),
        };
        write!(
            f,
            "the client's principal lacks {} on {kind} {}: add this ACL (guestkit-jobs topics acls prints all)",
            self.operation.constant(),
            self.name
        )
    }
}

/// What a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `guestkit-worker`.
    Worker,
    /// `guestkit-jobs publish` and its shorthands, without `--wait`.
    Producer,
    /// `guestkit-jobs results`, `progress` and `dead-letters`.
    Reader,
    /// `guestkit-jobs gateway`.
    Gateway,
    /// `guestkit-jobs topics`, `status`, `cancel` and `dead-letters replay`.
    Operator,
}

impl Role {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 5] = [
        Self::Worker,
        Self::Producer,
        Self::Reader,
        Self::Gateway,
        Self::Operator,
    ];

    /// In lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Producer => "producer",
            Self::Reader => "reader",
            Self::Gateway => "gateway",
            Self::Operator => "operator",
        }
    }
}

/// Rules about one resource. All of them allow, from any host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its kind.
    pub resource: Resource,
    /// Its name, or the beginning of its name.
    pub name: String,
    /// Whether `name` is the beginning of names.
    pub is_prefix: bool,
    /// What is allowed.
    pub operations: Vec<Operation>,
    /// What for, in a few words.
    pub why: &'static str,
}

impl Rule {
    /// As Kafka and Strimzi call it.
    pub const fn pattern(&self) -> &'static str {
        if self.is_prefix { "prefix" } else { "literal" }
    }
}

/// The rules of a role, for one topic prefix, pool and group. With `reader_group` a reader may use that
/// consumer group; our own programs read without one.
pub fn least(
    role: Role,
    names: &TopicNames,
    group_id: &str,
    reader_group: Option<&str>,
) -> Vec<Rule> {
    use Operation::{Create, Describe, DescribeConfigs, Read, Write};
    let rule = |resource, name: &str, is_prefix, operations: &[Operation], why| Rule {
        resource,
        name: name.to_owned(),
        is_prefix,
        operations: operations.to_vec(),
        why,
    };
    let topic = |name: &str, operations: &[Operation], why| {
        rule(Resource::Topic, name, false, operations, why)
    };
    let group = names.group(group_id);
    match role {
        Role::Worker => vec![
            topic(
                &names.jobs,
                &[Read, Write],
                "takes jobs and commits offsets; forwards jobs to their slot",
            ),
            topic(
                &names.ledger,
                &[Read, Write],
                "restores slots and looks answers up; writes every decision",
            ),
            topic(&names.results, &[Write], "publishes results"),
            topic(&names.progress, &[Write], "publishes progress"),
            topic(
                &names.dead_letters,
                &[Write],
                "publishes what is no valid job",
            ),
            topic(&names.workers, &[Write], "tells the fleet that it is there"),
            rule(
                Resource::Group,
                &group,
                false,
                &[Read],
                "joins the group, reads and commits its offsets",
            ),
            rule(
                Resource::TransactionalId,
                &names.transactional_ids(group_id),
                true,
                &[Write],
                "writes transactions, and fences those of workers that died",
            ),
        ],
        Role::Producer => vec![
            topic(&names.jobs, &[Write], "publishes jobs"),
            topic(
                &names.ledger,
                &[Describe],
                "counts the slots; a client that leaves the partition to Kafka does without",
            ),
        ],
        Role::Reader => {
            let mut rules = vec![
                topic(&names.results, &[Read], "reads results"),
                topic(&names.progress, &[Read], "reads progress"),
                topic(&names.dead_letters, &[Read], "reads dead letters"),
            ];
            rules.extend(reader_group.map(|group| {
                rule(
                    Resource::Group,
                    group,
                    false,
                    &[Read],
                    "reads as a consumer group of its own",
                )
            }));
            rules
        }
        Role::Gateway => vec![
            topic(
                &names.jobs,
                &[Read, Write],
                "publishes jobs, finds older ones",
            ),
            topic(&names.ledger, &[Describe], "counts the slots"),
            topic(&names.results, &[Read], "answers with results"),
            topic(&names.progress, &[Read], "streams progress"),
            topic(&names.dead_letters, &[Read], "shows dead letters"),
            topic(&names.workers, &[Read], "shows the fleet"),
        ],
        Role::Operator => vec![
            rule(
                Resource::Topic,
                &format!("{}.", names.prefix),
                true,
                &[Create, DescribeConfigs, Read],
                "creates and checks the topics; reads them",
            ),
            topic(&names.jobs, &[Write], "publishes dead letters again"),
            topic(&names.control, &[Write], "cancels jobs"),
            rule(
                Resource::Group,
                &group,
                false,
                &[Describe],
                "shows the lag of the workers",
            ),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_prefix_pool_and_group() {
        let names = TopicNames::new("vm", Some("gpu")).unwrap();
        let rules = least(Role::Worker, &names, "g", None);
        let find = |resource| rules.iter().find(|rule| rule.resource == resource).unwrap();
        assert_eq!(find(Resource::Topic).name, "vm.jobs.gpu");
        assert_eq!(find(Resource::Group).name, "g.gpu");
        let ids = find(Resource::TransactionalId);
        assert_eq!((&*ids.name, ids.pattern()), ("vm.g.gpu.", "prefix"));
        assert!(names.transactional_id("g", "w", 0).starts_with(&ids.name));
        // Results are shared by all pools.
        assert!(rules.iter().any(|rule| rule.name == "vm.results"));
        let readers = least(Role::Reader, &names, "g", Some("mine"));
        assert!(readers.iter().any(|rule| rule.name == "mine"));
    }

    #[test]
    fn no_rule_says_more_than_it_needs() {
        let names = TopicNames::new("vm", None).unwrap();
        for role in Role::ALL {
            let rules = least(role, &names, "g", None);
            for rule in &rules {
                // Describe comes with Read and Write.
                let more = [Operation::Read, Operation::Write];
                let has_more = more.iter().any(|more| rule.operations.contains(more));
                assert!(
                    !(has_more && rule.operations.contains(&Operation::Describe)),
                    "{rule:?}"
                );
                assert!(!rule.why.is_empty());
            }
        }
    }
}
