//! The registry's client: on a real registry, and on one that misbehaves.

use crate::{address, prefix};
use guestkit_kafka::registry::{COMPATIBILITY, Patience, RegistrySchemas, subjects};
use guestkit_kafka::{Fault, TopicNames};
use guestkit_protocol::{Document, JobEnvelope, SchemaFault, SchemaSource};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn quick() -> Patience {
    Patience {
        answer: Duration::from_secs(2),
        request: Duration::from_secs(2),
        unknown: Duration::from_millis(300),
        pause_min: Duration::from_millis(20),
        pause_max: Duration::from_millis(100),
    }
}

#[test]
fn schemas_are_registered_resolved_and_fetched() {
    let registry = RegistrySchemas::new(&address("GUESTKIT_TEST_REGISTRY_URL"), quick()).unwrap();
    let names = TopicNames::new(&prefix("schemas"), None).unwrap();
    for subject in subjects(&names) {
        assert_eq!(
            registry.resolve(&subject.name, subject.schema).unwrap(),
            None
        );
        let id = registry.register(&subject.name, subject.schema).unwrap();
        assert_eq!(
            registry.register(&subject.name, subject.schema).unwrap(),
            id
        );
        assert_eq!(
            registry.resolve(&subject.name, subject.schema).unwrap(),
            Some(id)
        );
        let found = registry.compatibility(&subject.name).unwrap();
        assert_eq!(found.as_deref(), Some(COMPATIBILITY));
        let schema = registry.writer_schema(id).unwrap();
        assert!(schema.is_ours() && schema.document() == subject.document);
    }
    // What could not be read by every reader is refused.
    let subject = &subjects(&names)[0].name;
    let other = r#"{"type":"record","name":"JobEnvelope","namespace":"io.guestkit.v1","fields":[{"name":"x","type":"long"}]}"#;
    let fault = registry.register(subject, other).unwrap_err();
    assert!(matches!(fault, Fault::Config(_)), "{fault}");
    // Unknown: temporary until it is proven for a while, then final.
    let fault = registry.writer_schema(2_000_000_000).unwrap_err();
    assert!(fault.is_temporary(), "{fault}");
    let last = (0..100).find_map(|_| {
        std::thread::sleep(Duration::from_millis(30));
        registry
            .writer_schema(2_000_000_000)
            .err()
            .filter(|fault| !fault.is_temporary())
    });
    assert!(
        matches!(last, Some(SchemaFault::Unknown { .. })),
        "{last:?}"
    );
}

/// The change of a schema that some reader or writer in the field could not follow.
#[test]
fn an_incompatible_change_is_refused_by_the_name_of_its_field() {
    let url = address("GUESTKIT_TEST_REGISTRY_URL");
    let registry = RegistrySchemas::new(&url, quick()).unwrap();
    let names = TopicNames::new(&prefix("compatibility"), None).unwrap();
    let subject = &subjects(&names)[0];
    let id = registry.register(&subject.name, subject.schema).unwrap();
    let changed = |change: &dyn Fn(&mut Vec<serde_json::Value>)| {
        let mut schema: serde_json::Value = serde_json::from_str(subject.schema).unwrap();
        let fields = schema["fields"].as_array_mut().unwrap();
        let execution = fields.iter_mut().find(|field| field["name"] == "execution");
        change(
            execution.unwrap()["type"][1]["fields"]
                .as_array_mut()
                .unwrap(),
        );
        schema.to_string()
    };
    let required = changed(&|fields| {
        fields.push(serde_json::json!({"name": "retries", "doc": "How often.", "type": "int"}));
    });
    let retyped = changed(&|fields| fields[0]["type"][1] = "long".into());
    for (schema, name) in [
        (&required, "execution.retries"),
        (&retyped, "execution.idempotency_key"),
    ] {
        let text = match registry.register(&subject.name, schema).unwrap_err() {
            Fault::Config(text) => text,
            other => panic!("{other}"),
        };
        assert!(text.contains(name) && text.contains("version 1"), "{text}");
        assert_eq!(registry.resolve(&subject.name, schema).unwrap(), None);
        // The registry itself refuses it too, whoever asks.
        let body = serde_json::json!({ "schema": schema }).to_string();
        assert_eq!(post(&url, &subject.name, &body), 409, "{name}");
    }
    // An optional field is no such change, and the first version stays what it is.
    let optional = changed(&|fields| {
        fields.push(serde_json::json!({
            "name": "retries", "doc": "How often.", "type": ["null", "int"], "default": null}));
    });
    assert_eq!(
        registry.breaches(&subject.name, &optional).unwrap(),
        [""; 0]
    );
    assert_ne!(registry.register(&subject.name, &optional).unwrap(), id);
    assert_eq!(
        registry.resolve(&subject.name, subject.schema).unwrap(),
        Some(id)
    );
}

/// Registers without the client's own checks; the answer is the status.
fn post(url: &str, subject: &str, body: &str) -> u16 {
    let (host, path) = url
        .trim_start_matches("http://")
        .split_once('/')
        .expect("a URL with a path");
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    write!(
        stream,
        "POST /{path}/subjects/{subject}/versions HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
         content-type: application/vnd.schemaregistry.v1+json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status).unwrap();
    status
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap()
}

/// A registry that answers every request with what it is told to.
fn fake(answer: Arc<Mutex<(u16, String)>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            for line in lines {
                if line.is_ok_and(|line| line.is_empty()) {
                    break;
                }
            }
            let (status, body) = answer.lock().unwrap().clone();
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
            )
            .ok();
        }
    });
    format!("http://{address}")
}

#[test]
fn a_fault_is_never_an_answer() {
    let answer = Arc::new(Mutex::new((500, String::new())));
    let registry = RegistrySchemas::new(&fake(answer.clone()), quick()).unwrap();
    for status in [500, 401, 403, 404, 408, 429, 503, 504] {
        *answer.lock().unwrap() = (status, "{}".to_owned());
        std::thread::sleep(Duration::from_millis(110));
        for _ in 0..20 {
            let fault = registry.writer_schema(7).unwrap_err();
            assert!(fault.is_temporary(), "{status}: {fault}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let schema = serde_json::json!({ "schema": JobEnvelope::SCHEMA }).to_string();
    *answer.lock().unwrap() = (200, schema);
    std::thread::sleep(Duration::from_millis(110));
    assert!(registry.writer_schema(7).unwrap().is_ours());
    // Known for ever, whatever comes.
    *answer.lock().unwrap() = (500, String::new());
    assert!(registry.writer_schema(7).is_ok());
}

#[test]
fn a_registry_that_is_down_is_unreachable_and_quick() {
    let registry = RegistrySchemas::new("http://127.0.0.1:1", quick()).unwrap();
    assert!(registry.writer_schema(1).unwrap_err().is_temporary());
    assert!(registry.resolve("a", "b").unwrap_err().is_unreachable());
    for url in ["", "nonsense", "ftp://x"] {
        assert!(RegistrySchemas::new(url, quick()).is_err(), "{url}");
    }
}
