//! A fleet on a Kafka that lets nobody in unasked: each way to come in, just the access rules that are
//! written down, and permissions that are taken away while workers run.

use crate::fleet::{Access, Fleet, Properties, by_job, echo, wait_until};
use guestkit_kafka::TopicNames;
use guestkit_kafka::acls::{Permission, Role, least};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use xtask::cluster::{Acl, SecureKafka};

const LIMIT: Duration = Duration::from_secs(90);

fn kafka() -> &'static SecureKafka {
    xtask::cluster::secure_kafka().unwrap()
}

/// A user that nothing was allowed to yet.
fn new_user() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("user-{:02}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A fleet whose workers come in by password and may do what their role needs, and nothing else.
pub(crate) fn fleet(name: &str, partitions: i32) -> Fleet {
    let user = new_user();
    let fleet = fleet_of(name, partitions, kafka().scram(&user));
    let rules: Vec<Acl> = rules(&fleet, &user)
        .into_iter()
        .map(|(acl, _)| acl)
        .collect();
    kafka().allow(&rules).unwrap();
    fleet
}

/// A fleet whose workers come in like this, and to which nothing is allowed yet.
fn fleet_of(name: &str, partitions: i32, workers: Properties) -> Fleet {
    let access = Access {
        clients: kafka().scram("admin"),
        workers,
    };
    Fleet::with_access(kafka().bootstrap(), access, name, partitions, |_| {
        Vec::new()
    })
}

/// What is written down for workers: one rule for each operation, and how an error names it.
fn rules(fleet: &Fleet, user: &str) -> Vec<(Acl, Permission)> {
    rules_for(&fleet.prefix, &fleet.group(), user)
}

fn rules_for(prefix: &str, group: &str, user: &str) -> Vec<(Acl, Permission)> {
    let names = TopicNames::new(prefix, None).unwrap();
    let mut all = Vec::new();
    for rule in least(Role::Worker, &names, group, None) {
        for operation in &rule.operations {
            let (resource, word) = (rule.resource.name(), operation.name());
            all.push((
                Acl::named(user, resource, &rule.name, rule.is_prefix, word),
                Permission {
                    operation: *operation,
                    resource: rule.resource,
                    name: rule.name.clone(),
                },
            ));
        }
    }
    all
}

/// Something of everything: a job on its slot and on another, progress, and what is no job.
fn publish_all_kinds(fleet: &Fleet, round: usize) -> usize {
    let steps = r#"{"progress_steps":2,"sleep_ms":20}"#;
    for partition in 0..fleet.partitions {
        let job_id = format!("job-{round:03}-{partition}");
        fleet.publish(Some(partition), None, &echo(&job_id, None, steps));
    }
    // One key on every partition: all but one are forwarded.
    for partition in 0..fleet.partitions {
        let job_id = format!("same-{round:03}-{partition}");
        let key = format!("same-{round}");
        fleet.publish(Some(partition), None, &echo(&job_id, Some(&key), "{}"));
    }
    fleet.publish(Some(0), None, b"\x7fno job");
    fleet.flush();
    2 * fleet.partitions as usize
}

#[test]
fn the_rules_of_a_worker_are_enough() {
    let fleet = fleet("enough", 2);
    let mut worker = fleet.worker(&[]);
    let count = publish_all_kinds(&fleet, 0);
    assert_eq!(by_job(&fleet.results(count, LIMIT)).len(), count);
    assert_eq!(fleet.dead_letters(1, LIMIT).len(), 1);
    assert!(
        !fleet
            .read("progress", LIMIT, |seen| !seen.is_empty())
            .is_empty()
    );
    fleet.wait_no_lag(LIMIT);
    assert_eq!(worker.terminate(), 0);
    let log = worker.log();
    assert!(
        !log.contains("not allowed") && !log.contains("authorization"),
        "{log}"
    );
    assert!(!log.contains("-secret"), "{log}");
}

#[test]
fn each_rule_of_a_worker_is_needed_and_an_error_names_it() {
    let count = rules_for("prefix", "group", "nobody").len();
    std::thread::scope(|scope| {
        for left_out in 0..count {
            scope.spawn(move || {
                let user = new_user();
                let fleet = fleet_of("needed", 2, kafka().scram(&user));
                let mut rules = rules(&fleet, &user);
                let (_, missing) = rules.remove(left_out);
                let rules: Vec<Acl> = rules.into_iter().map(|(acl, _)| acl).collect();
                kafka().allow(&rules).unwrap();
                publish_all_kinds(&fleet, 0);
                let mut worker = fleet.worker(&[]);
                let words = missing.to_string();
                let (named, _) = words.split_once(": add this ACL").unwrap();
                wait_until(&format!("a log line that says {named}"), LIMIT, || {
                    worker.log().contains(named)
                });
                // It does not start, or it goes on trying.
                assert!(matches!(worker.ended(), None | Some(2)), "{named}");
            });
        }
    });
}

#[test]
fn a_permission_that_goes_and_comes_back_costs_no_job() {
    let user = new_user();
    let fleet = fleet_of("regained", 2, kafka().scram(&user));
    let rules = rules(&fleet, &user);
    let all: Vec<Acl> = rules.iter().map(|(acl, _)| acl.clone()).collect();
    kafka().allow(&all).unwrap();
    let mut workers = [fleet.worker(&[]), fleet.worker(&[])];
    let mut published = publish_all_kinds(&fleet, 0);
    fleet.results(published, LIMIT);
    for (round, (acl, missing)) in rules.iter().enumerate() {
        kafka().forbid(std::slice::from_ref(acl)).unwrap();
        published += publish_all_kinds(&fleet, round + 1);
        std::thread::sleep(Duration::from_millis(1_500));
        kafka().allow(std::slice::from_ref(acl)).unwrap();
        let answered = by_job(&fleet.results(published, LIMIT));
        assert_eq!(answered.len(), published, "after {missing}");
    }
    fleet.wait_no_lag(LIMIT);
    assert_eq!(
        fleet.dead_letters(rules.len() + 1, LIMIT).len(),
        rules.len() + 1
    );
    crate::guarantees::assert_all(&fleet, &guestkit_protocol::NoRegistry);
    for worker in &mut workers {
        assert!(worker.is_running(), "a lost permission ends no worker");
        assert_eq!(worker.terminate(), 0);
    }
}

#[test]
fn workers_come_in_by_certificate_and_by_token() {
    let by_certificate = kafka().certificate("by-certificate").unwrap();
    let ways = [
        (
            "by-certificate",
            by_certificate,
            kafka().certificate_bootstrap(),
        ),
        (
            "by-token",
            kafka().token("by-token"),
            kafka().bootstrap().to_owned(),
        ),
    ];
    for (user, properties, bootstrap) in ways {
        let fleet = fleet_of(user, 1, properties);
        let rules: Vec<Acl> = rules(&fleet, user)
            .into_iter()
            .map(|(acl, _)| acl)
            .collect();
        kafka().allow(&rules).unwrap();
        let mut worker = fleet.worker_at(&bootstrap, &[]);
        fleet.publish(Some(0), None, &echo("some-job-01", None, "{}"));
        fleet.flush();
        assert_eq!(fleet.results(1, LIMIT).len(), 1, "{user}");
        assert_eq!(worker.terminate(), 0);
    }
}

#[test]
fn a_worker_that_is_not_let_in_says_why() {
    let mut wrong = kafka().scram("admin");
    wrong.retain(|(name, _)| *name != "sasl.password");
    wrong.push(("sasl.password", "not-the-word".to_owned()));
    let fleet = fleet_of("refused", 1, wrong);
    let mut worker = fleet.worker(&[]);
    wait_until("the worker gives up", LIMIT, || !worker.is_running());
    assert_eq!(worker.ended(), Some(3));
    let log = worker.log();
    assert!(log.contains("uthentication"), "{log}");
    assert!(!log.contains("not-the-word"), "{log}");
}
