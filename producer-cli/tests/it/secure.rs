//! The command line against a Kafka that lets nobody in unasked: each way to come in, and the least
//! that each role may do.

use guestkit_kafka::TopicNames;
use guestkit_kafka::acls::{Operation, Permission, Role, Rule, least};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use xtask::cluster::{Acl, SecureKafka};

const GROUP: &str = "guestkit-workers";
const JOB: &str = include_str!("../../../schemas/examples/echo.json");

/// The broker of these tests, with the users `user-00` to `user-39`, `owner` and `token`.
fn kafka() -> &'static SecureKafka {
    static KAFKA: OnceLock<SecureKafka> = OnceLock::new();
    KAFKA.get_or_init(|| {
        let users: Vec<String> = (0..40).map(|number| format!("user-{number:02}")).collect();
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        SecureKafka::start(&users).unwrap()
    })
}

/// A user that nothing was allowed to yet.
fn new_user() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("user-{:02}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn new_prefix(name: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{name}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

type Properties = Vec<(&'static str, String)>;

fn jobs(
    servers: &str,
    prefix: &str,
    properties: &Properties,
    arguments: &[&str],
    input: &str,
) -> (i32, String) {
    let variables: BTreeMap<String, &String> = properties
        .iter()
        .map(|(name, value)| {
            let variable = format!("KAFKA_{}", name.to_uppercase().replace('.', "_"));
            (variable, value)
        })
        .collect();
    let mut child = Command::new(env!("CARGO_BIN_EXE_guestkit-jobs"))
        .args(["--topic-prefix", prefix, "--bootstrap-servers", servers])
        .args(["--timeout", "20s"])
        .args(arguments)
        .env_remove("GUESTKIT_SCHEMA_REGISTRY_URL")
        .envs(variables)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses its arguments does not read.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    let errors = String::from_utf8(stderr).unwrap();
    (status.code().unwrap_or(-1), errors)
}

fn as_user(user: &str, prefix: &str, arguments: &[&str]) -> (i32, String) {
    let kafka = kafka();
    jobs(
        kafka.bootstrap(),
        prefix,
        &kafka.scram(user),
        arguments,
        JOB,
    )
}

/// One rule for the broker for each operation of a rule of ours.
fn acls(user: &str, rules: &[Rule]) -> Vec<(Acl, Permission)> {
    let each = rules.iter().flat_map(|rule| {
        rule.operations.iter().map(move |operation| {
            let (resource, operation_name) = (rule.resource.name(), operation.name());
            let acl = Acl::named(user, resource, &rule.name, rule.is_prefix, operation_name);
            let permission = Permission {
                operation: *operation,
                resource: rule.resource,
                name: rule.name.clone(),
            };
            (acl, permission)
        })
    });
    each.collect()
}

fn rules(role: Role, prefix: &str) -> Vec<Rule> {
    let names = TopicNames::new(prefix, None).unwrap();
    least(role, &names, GROUP, None)
}

/// Everything that programs of a role do.
fn commands(role: Role) -> &'static [&'static [&'static str]] {
    match role {
        Role::Producer => &[&["publish", "-"]],
        Role::Reader => &[&["results"], &["progress"], &["dead-letters", "list"]],
        Role::Operator => &[
            &["topics", "create", "--partitions", "2"],
            &["topics", "check"],
            &["status"],
            &["cancel", "some-job-0001"],
            &["dead-letters", "replay", "0/0"],
        ],
        Role::Worker | Role::Gateway => &[],
    }
}

/// A dead letter to replay; the topics, unless the user is to make them.
fn prepare(prefix: &str) {
    use guestkit_kafka::connection::{Connection, Sources};
    use guestkit_kafka::produce::{Outgoing, Producer};
    let create = ["topics", "create", "--partitions", "2"];
    let (code, errors) = as_user("admin", prefix, &create);
    assert_eq!(code, 0, "{errors}");
    let kafka = kafka();
    let properties = kafka.scram("admin").into_iter();
    let properties = properties.map(|(name, value)| (name.to_owned(), value));
    let connection = Connection::new(
        kafka.bootstrap(),
        Sources {
            file: &properties.collect(),
            environment: &guestkit_kafka::Properties::new(),
            read_file: &|path| std::fs::read_to_string(path),
        },
    )
    .unwrap();
    let producer = Producer::new(&connection, std::time::Duration::from_secs(20)).unwrap();
    let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
    let letter = Outgoing {
        topic: format!("{prefix}.dead-letters"),
        partition: 0,
        key: None,
        value: Some(vec![1]),
        headers: vec![
            header("guestkit_source_topic", &format!("{prefix}.jobs")),
            header("guestkit_source_partition", "1"),
        ],
    };
    producer.send(&letter, 0).unwrap();
    assert!(producer.finish()[0].outcome.is_ok());
}

#[test]
fn the_rules_of_each_role_are_enough_and_each_is_needed() {
    for role in [Role::Producer, Role::Reader, Role::Operator] {
        let prefix = new_prefix(role.name());
        prepare(&prefix);
        let user = new_user();
        let all = acls(&user, &rules(role, &prefix));
        let allowed: Vec<Acl> = all.iter().map(|(acl, _)| acl.clone()).collect();
        kafka().allow(&allowed).unwrap();
        for command in commands(role) {
            let (code, errors) = as_user(&user, &prefix, command);
            // Nobody serves these jobs, and status says so without an error.
            let not_served = *command == ["status"] && code == 1 && errors.is_empty();
            assert!(code == 0 || not_served, "{command:?}: {code} {errors}");
        }
        for (left_out, (_, rule)) in all.iter().enumerate() {
            let user = new_user();
            // Only who may create topics meets topics that are not there.
            let prefix = match rule.operation {
                Operation::Create => new_prefix("new"),
                _ => prefix.clone(),
            };
            let mut some = acls(&user, &rules(role, &prefix));
            let (_, missing) = some.remove(left_out);
            let allowed: Vec<Acl> = some.into_iter().map(|(acl, _)| acl).collect();
            kafka().allow(&allowed).unwrap();
            let failed: Vec<String> = commands(role)
                .iter()
                .map(|command| as_user(&user, &prefix, command))
                .filter(|(code, _)| *code != 0)
                .map(|(_, errors)| errors)
                .collect();
            let kind = missing.resource.name();
            // Read and Write include Describe: that is missing too, and can be met first.
            let named = [missing.operation, Operation::Describe].map(|operation| {
                let operation = operation.constant();
                format!("lacks {operation} on {kind} {}", missing.name)
            });
            assert!(
                failed
                    .iter()
                    .any(|errors| named.iter().any(|named| errors.contains(named))),
                "without {missing:?}: {failed:?}"
            );
        }
    }
}

#[test]
fn every_way_to_come_in_works_and_a_wrong_one_says_so() {
    let kafka = kafka();
    let prefix = new_prefix("ways");
    prepare(&prefix);
    let status = ["topics", "check"];
    let certificate = kafka.certificate("admin").unwrap();
    for (servers, properties) in [
        (kafka.bootstrap().to_owned(), kafka.scram("admin")),
        (kafka.bootstrap().to_owned(), kafka.token("admin")),
        (kafka.certificate_bootstrap(), certificate.clone()),
    ] {
        let (code, errors) = jobs(&servers, &prefix, &properties, &status, "");
        assert_eq!(code, 0, "{properties:?}: {errors}");
    }
    let with = |properties: &Properties, name: &str, value: &str| -> Properties {
        let mut changed = properties.clone();
        changed.retain(|(found, _)| *found != name);
        changed.push((
            match name {
                "sasl.password" => "sasl.password",
                _ => "ssl.ca.location",
            },
            value.to_owned(),
        ));
        changed
    };
    let other = xtask::cluster::Authority::new().unwrap();
    let stranger = other.file().display().to_string();
    let mut nameless = certificate.clone();
    nameless.retain(|(name, _)| !matches!(*name, "ssl.certificate.location" | "ssl.key.location"));
    let password = with(&kafka.scram("admin"), "sasl.password", "wrong-secret-word");
    for (servers, properties, words) in [
        (kafka.bootstrap().to_owned(), password, "uthentication"),
        (
            kafka.bootstrap().to_owned(),
            with(&kafka.scram("admin"), "ssl.ca.location", &stranger),
            "certificate verify failed",
        ),
        (kafka.certificate_bootstrap(), nameless, "SSL"),
    ] {
        let (code, errors) = jobs(&servers, &prefix, &properties, &status, "");
        assert_eq!(code, 3, "{properties:?}: {errors}");
        assert!(errors.contains(words), "{properties:?}: {errors}");
        assert!(!errors.contains("wrong-secret-word"), "{errors}");
    }
    // Who may do nothing sees no topic, and is told why.
    let (code, errors) = as_user(&new_user(), &prefix, &["results"]);
    assert_eq!(code, 1, "{errors}");
    let named = format!("lacks READ on topic {prefix}.results");
    assert!(errors.contains(&named), "{errors}");
}

#[test]
fn a_password_comes_from_a_file_and_is_never_shown() {
    let kafka = kafka();
    let prefix = new_prefix("file");
    let directory = tempfile::tempdir().unwrap();
    let file: PathBuf = directory.path().join("password");
    std::fs::write(&file, "admin-secret\n").unwrap();
    let mut properties = kafka.scram("admin");
    properties.retain(|(name, _)| *name != "sasl.password");
    properties.push(("sasl.password.file", file.display().to_string()));
    let create = ["topics", "create", "--partitions", "1"];
    let (code, errors) = jobs(kafka.bootstrap(), &prefix, &properties, &create, "");
    assert_eq!(code, 0, "{errors}");
    assert!(!errors.contains("admin-secret"), "{errors}");
}

#[test]
fn a_registry_that_does_not_let_us_in_is_exit_code_3_and_its_password_is_never_shown() {
    use xtask::cluster::{Authority, HttpFault};
    let authority = Authority::new().unwrap();
    // Knows no schema: who is let in learns that they are missing.
    let empty = HttpFault::alone().unwrap();
    let front = HttpFault::tls_in_front_of(empty.address(), &authority.server().unwrap()).unwrap();
    front.demand("me", "registry-word");
    let ca = authority.file().display().to_string();
    let check = |url: &str, more: &[&str]| {
        let registry = ["--schema-registry-ca", &ca, "--schema-registry-url", url];
        let arguments = [&registry[..], more, &["schemas", "check"]].concat();
        jobs("127.0.0.1:1", "vm", &Vec::new(), &arguments, "")
    };
    let with_user = |user: &str| front.url().replace("://", &format!("://{user}@"));
    let given = [
        "--schema-registry-user",
        "me",
        "--schema-registry-password",
        "registry-word",
    ];
    let missing = "subjects are not as they should be";
    for (code, words, (found, errors)) in [
        (1, missing, check(&front.url(), &given)),
        (1, missing, check(&with_user("me:registry-word"), &[])),
        (
            3,
            "user and password",
            check(&with_user("me:other-word"), &[]),
        ),
        (3, "user and password", check(&front.url(), &[])),
        (
            2,
            "give one of them",
            check(&with_user("me:other-word"), &given),
        ),
    ] {
        assert!(found == code && errors.contains(words), "{found}: {errors}");
        assert!(
            !errors.contains("other-word") && !errors.contains("registry-word"),
            "{errors}"
        );
    }
}
