//! The schema registry: Confluent-framed jobs, and a registry that is down or lies.

use crate::fleet::{Fleet, by_job, echo, wait_until};
use guestkit_kafka::TopicNames;
use guestkit_kafka::registry::{Patience, RegistrySchemas, subjects};
use guestkit_protocol::{Framing, NoRegistry, decode_job, encode};
use std::collections::BTreeMap;
use std::time::Duration;
use xtask::cluster::{Authority, HttpFault, Registry};

const LIMIT: Duration = Duration::from_secs(90);

/// Registers all schemas of a fleet; answers with their ids by subject.
pub(crate) fn register(fleet: &Fleet, url: &str) -> BTreeMap<String, u32> {
    let registry = RegistrySchemas::new(url, Patience::default()).unwrap();
    let names = TopicNames::new(&fleet.prefix, None).unwrap();
    subjects(&names)
        .into_iter()
        .map(|subject| {
            let id = registry.register(&subject.name, subject.schema).unwrap();
            (subject.name, id)
        })
        .collect()
}

fn confluent(job_id: &str, schema_id: u32) -> Vec<u8> {
    let job = decode_job(&echo(job_id, None, "{}"), &NoRegistry).unwrap();
    encode(&job, Framing::Confluent { schema_id }).unwrap()
}

#[test]
fn jobs_wait_for_a_registry_that_is_down_or_fails_and_nothing_is_dead_lettered() {
    let registry = Registry::start().unwrap();
    let fault = HttpFault::in_front_of(registry.address()).unwrap();
    let url = fault.url();
    let fleet = Fleet::new("registry", 3);
    let ids = register(&fleet, registry.url());
    let id = ids[&format!("{}.jobs-value", fleet.prefix)];

    // Down at start: the worker waits, then goes on by itself.
    registry.stop().unwrap();
    let mut worker = fleet.worker(&["--schema-registry-url", &url, "--result-format", "json"]);
    fleet.publish(Some(0), None, &confluent("at-start-01", id));
    fleet.publish(Some(0), None, &echo("behind-it-1", None, "{}"));
    fleet.flush();
    wait_until("the job waits", LIMIT, || {
        worker.log().contains("waits for its schema")
    });
    assert!(worker.is_running());
    assert!(fleet.results_now().len() <= 1);
    registry.restart().unwrap();
    assert_eq!(by_job(&fleet.results(2, LIMIT)).len(), 2);

    // Answering 500 for a schema id that is not known yet, then back.
    fault.fail(500);
    let other = RegistrySchemas::new(registry.url(), Patience::default()).unwrap();
    // The same schema under another name has another text, so another id.
    let renamed = schema_with_other_doc("the same, told in other words");
    let second = other
        .register(&format!("{}.jobs-value", fleet.prefix), &renamed)
        .unwrap();
    assert_ne!(second, id);
    fleet.publish(Some(1), None, &confluent("in-middle-1", second));
    fleet.flush();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(fleet.results_now().len(), 2, "it waits");
    fault.heal();
    assert_eq!(by_job(&fleet.results(3, LIMIT)).len(), 3);

    // Down in the middle: what needs a schema that is not known yet waits; what does not goes on.
    let renamed = schema_with_other_doc("and once more");
    let third = other
        .register(&format!("{}.jobs-value", fleet.prefix), &renamed)
        .unwrap();
    registry.stop().unwrap();
    fleet.publish(Some(1), None, &confluent("no-server-1", third));
    fleet.publish(Some(2), None, &confluent("known-id-01", id));
    fleet.publish(Some(2), None, &echo("needs-none1", None, "{}"));
    fleet.flush();
    let known = by_job(&fleet.results(5, LIMIT));
    assert_eq!(known.len(), 5);
    assert!(!known.contains_key("no-server-1"));
    registry.restart().unwrap();
    assert_eq!(by_job(&fleet.results(6, LIMIT)).len(), 6);
    assert!(fleet.read_all("dead-letters", LIMIT).is_empty());
    fleet.wait_no_lag(LIMIT);
    assert_eq!(worker.terminate(), 0);
}

fn schema_with_other_doc(doc: &str) -> String {
    use guestkit_protocol::{Document, JobEnvelope};
    let schema: serde_json::Value = serde_json::from_str(JobEnvelope::SCHEMA).unwrap();
    let mut schema = schema;
    schema["doc"] = doc.into();
    schema.to_string()
}

#[test]
fn a_worker_waits_at_start_until_the_registry_is_there() {
    let registry = Registry::start().unwrap();
    let fleet = Fleet::new("reg-start", 2);
    let id = register(&fleet, registry.url())[&format!("{}.jobs-value", fleet.prefix)];
    registry.stop().unwrap();
    let mut worker = fleet.worker(&["--schema-registry-url", registry.url()]);
    fleet.publish(None, None, &confluent("waiting-001", id));
    fleet.flush();
    wait_until("the worker waits", LIMIT, || {
        worker.log().contains("waiting for the schema registry")
    });
    registry.restart().unwrap();
    // Results are Confluent-framed now: decoding them needs the registry too.
    let seen = fleet.read("results", LIMIT, |seen| !seen.is_empty());
    let schemas = RegistrySchemas::new(registry.url(), Patience::default()).unwrap();
    let result: guestkit_protocol::JobResult = loop {
        match guestkit_protocol::decode(seen[0].value.as_deref().unwrap(), &schemas) {
            Ok(result) => break result,
            Err(error) => assert!(
                matches!(error, guestkit_protocol::DecodeError::Temporary(_)),
                "{error}"
            ),
        }
    };
    assert_eq!(seen[0].value.as_deref().unwrap()[0], 0);
    assert_eq!(result.job_id, "waiting-001");
    assert_eq!(worker.terminate(), 0);
}

#[test]
fn records_that_no_schema_can_read_are_dead_letters_that_say_why() {
    let registry = Registry::start().unwrap();
    let fleet = Fleet::new("reg-bad", 2);
    register(&fleet, registry.url());
    let client = RegistrySchemas::new(registry.url(), Patience::default()).unwrap();
    let recursive = r#"{"type":"record","name":"JobEnvelope","namespace":"io.guestkit.v1","fields":[{"name":"next","type":["null","io.guestkit.v1.JobEnvelope"],"default":null}]}"#;
    let recursive = client
        .register(&format!("{}-recursive", fleet.prefix), recursive)
        .unwrap();
    // Items that take no bytes: four bytes ask for 134 million of them, half a gigabyte.
    let nothings = r#"{"type":"record","name":"JobEnvelope","namespace":"io.guestkit.v1","fields":[{"name":"list","type":{"type":"array","items":"null"}}]}"#;
    let nothings = client
        .register(&format!("{}-nothings", fleet.prefix), nothings)
        .unwrap();
    let foreign = r#"{"type":"record","name":"Pet","namespace":"zoo","fields":[{"name":"name","type":"string"}]}"#;
    let foreign = client
        .register(&format!("{}-foreign", fleet.prefix), foreign)
        .unwrap();
    let jobs = client
        .resolve(
            &format!("{}.jobs-value", fleet.prefix),
            <guestkit_protocol::JobEnvelope as guestkit_protocol::Document>::SCHEMA,
        )
        .unwrap()
        .unwrap();
    let framed = |id: u32, datum: &[u8]| {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.extend_from_slice(datum);
        bytes
    };
    let cases: [(&str, Vec<u8>, &str); 6] = [
        (
            "four bytes",
            framed(nothings, &[0xfe, 0xff, 0xff, 0x7f]),
            "no bytes",
        ),
        ("recursive", framed(recursive, &[2; 64]), "recurs"),
        ("foreign", framed(foreign, b"\x06Rex"), "Pet"),
        (
            "huge",
            framed(jobs, &[2, 0x80, 0xCA, 0xB5, 0xEE, 0x01]),
            "byte",
        ),
        ("id 0", framed(0, &[0, 0, 0, 9, 1]), "apicurio"),
        ("unknown id", framed(987_654, &[1, 2, 3]), "987654"),
    ];
    let mut worker = fleet.worker(&[
        "--schema-registry-url",
        registry.url(),
        "--schema-unknown-after",
        "3s",
    ]);
    for (name, value, _) in &cases {
        fleet.publish_with(Some(1), Some(b"k"), value, &[("case", name.as_bytes())]);
    }
    fleet.publish(Some(1), None, &echo("good-job-01", None, "{}"));
    fleet.flush();
    let letters = fleet.dead_letters(cases.len(), LIMIT);
    for (name, value, part) in &cases {
        let letter = letters
            .iter()
            .find(|seen| seen.header("case") == *name)
            .unwrap_or_else(|| panic!("{name}: no dead letter"));
        assert_eq!(letter.value.as_deref(), Some(value.as_slice()));
        assert_eq!(letter.key.as_deref(), Some(&b"k"[..]));
        assert_eq!(letter.header("guestkit_reason"), "INVALID_JOB");
        let message = letter.header("guestkit_error").to_lowercase();
        assert!(message.contains(&part.to_lowercase()), "{name}: {message}");
    }
    assert_eq!(
        fleet.read("results", LIMIT, |seen| !seen.is_empty()).len(),
        1
    );
    fleet.wait_no_lag(LIMIT);
    assert!(worker.is_running());
    assert_eq!(worker.terminate(), 0);
}

#[test]
fn a_registry_behind_tls_and_a_password_is_waited_for_and_never_blamed_on_a_job() {
    const RIGHT: &str = "right-registry-word";
    const WRONG: &str = "wrong-registry-word";
    let registry = Registry::start().unwrap();
    let authority = Authority::new().unwrap();
    let front = HttpFault::tls_in_front_of(registry.address(), &authority.server().unwrap());
    let front = front.unwrap();
    front.demand("worker", RIGHT);
    let fleet = Fleet::new("reg-secure", 1);
    let subject = format!("{}.jobs-value", fleet.prefix);
    let id = register(&fleet, registry.url())[&subject];
    let file = |name: &str, text: &str| {
        let file = fleet.dir.path().join(name);
        std::fs::write(&file, format!("{text}\n")).unwrap();
        file.display().to_string()
    };
    let (right, wrong) = (file("right", RIGHT), file("wrong", WRONG));
    let ca = authority.file().display().to_string();
    let url = front.url();
    let start = |password: &str, ca: Option<&str>| {
        let mut arguments = vec!["--schema-registry-url", &url];
        arguments.extend(["--schema-registry-user", "worker"]);
        arguments.extend(["--schema-registry-password-file", password]);
        arguments.extend(ca.iter().flat_map(|ca| ["--schema-registry-ca", *ca]));
        fleet.worker(&arguments)
    };
    fleet.publish(Some(0), None, &confluent("first-job-01", id));
    fleet.flush();

    let mut refused = start(&wrong, Some(&ca));
    wait_until("it gives up", LIMIT, || !refused.is_running());
    assert_eq!(refused.ended(), Some(3));
    let log = refused.log();
    assert!(log.contains("does not take the user and password"), "{log}");
    assert!(!log.contains(WRONG), "{log}");

    // Nobody vouches for the registry: it is as good as not there.
    let suspicious = start(&right, None);
    wait_until("it says whom it does not believe", LIMIT, || {
        suspicious.log().contains("invalid peer certificate")
    });
    drop(suspicious);

    let mut worker = start(&right, Some(&ca));
    let count = |count: usize| {
        fleet
            .read("results", LIMIT, |seen| seen.len() >= count)
            .len()
    };
    assert_eq!(count(1), 1);
    // The password changes under a worker that runs; the schema is one that it does not know yet.
    front.demand("worker", "another-word");
    let other = schema_with_other_doc("told behind a password");
    let direct = RegistrySchemas::new(registry.url(), Patience::default()).unwrap();
    let second = direct.register(&subject, &other).unwrap();
    fleet.publish(Some(0), None, &confluent("second-job-1", second));
    fleet.flush();
    wait_until("the job waits", LIMIT, || {
        let log = worker.log();
        log.contains("waits for its schema") && log.contains("does not take the user and password")
    });
    front.demand("worker", RIGHT);
    assert_eq!(count(2), 2);
    assert!(fleet.read_all("dead-letters", LIMIT).is_empty());
    assert_eq!(worker.terminate(), 0);
    assert!(!worker.log().contains(RIGHT));
}
