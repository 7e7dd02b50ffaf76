//! What a collector gets to see of a job.

use crate::fleet::{Fleet, echo};
use guestkit_protocol::TraceContext;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// The longest request that the collector of these tests takes.
const BODY_MAX: usize = 16 << 20;

/// A collector: takes OTLP over HTTP and keeps the spans.
struct Collector {
    endpoint: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let spans = Arc::new(Mutex::new(Vec::new()));
        let kept = spans.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let kept = kept.clone();
                std::thread::spawn(move || serve(&stream.unwrap(), &kept));
            }
        });
        Self { endpoint, spans }
    }

    fn of_trace(&self, trace_id: u128) -> Vec<Span> {
        let spans = self.spans.lock().unwrap();
        let of = |span: &&Span| span.trace_id == trace_id.to_be_bytes();
        spans.iter().filter(of).cloned().collect()
    }
}

/// Requests of one connection until it ends.
fn serve(stream: &TcpStream, kept: &Mutex<Vec<Span>>) {
    let mut lines = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let line = line.to_ascii_lowercase();
        if let Some(number) = line.strip_prefix("content-length:") {
            length = number.trim().parse().unwrap();
            assert!(length < BODY_MAX);
        }
        if line.trim().is_empty() {
            let mut body = vec![0; length];
            lines.read_exact(&mut body).unwrap();
            let request = ExportTraceServiceRequest::decode(&body[..]).unwrap();
            for resource in request.resource_spans {
                for scope in resource.scope_spans {
                    kept.lock().unwrap().extend(scope.spans);
                }
            }
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
            (&*stream).write_all(answer.as_bytes()).unwrap();
        }
    }
}

fn attribute(span: &Span, name: &str) -> String {
    let found = span.attributes.iter().find(|pair| pair.key == name);
    match found.and_then(|pair| pair.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_job_is_one_trace_from_its_creator_to_its_result() {
    const CREATOR: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let creator = TraceContext::parse(CREATOR).unwrap();
    let collector = Collector::start();
    let fleet = Fleet::new("tracing", 1);
    let mut worker = fleet.worker(&[
        "--otlp-endpoint",
        &collector.endpoint,
        "--log-format",
        "json",
    ]);
    let header = [("traceparent", CREATOR.as_bytes())];
    let data = r#"{"progress_steps":2,"sleep_ms":300}"#;
    let failing =
        r#"{"fail":{"code":"NO_LUCK","message":"no luck","recoverable":false,"times":0}}"#;
    fleet.publish_with(None, None, &echo("traced-1", Some("one"), data), &header);
    fleet.publish_with(None, None, &echo("traced-2", Some("one"), data), &header);
    fleet.publish_with(None, None, &echo("traced-3", None, failing), &header);
    fleet.publish_with(None, None, b"no job at all", &header);
    let quiet = CREATOR.replace("-01", "-00").replace("4bf92f", "5bf92f");
    let unsampled = [("traceparent", quiet.as_bytes())];
    fleet.publish_with(None, None, &echo("unsampled-1", None, "{}"), &unsampled);
    fleet.publish(None, None, &echo("untraced-1", None, "{}"));
    fleet.flush();
    let results = fleet.read("results", LIMIT, |seen| seen.len() >= 5);
    let letters = fleet.dead_letters(1, LIMIT);
    assert_eq!((results.len(), letters.len()), (5, 1));
    // Leaving sends what is left.
    assert_eq!(worker.terminate(), 0);

    let spans = collector.of_trace(creator.trace_id());
    let of = |job: &str, name: &str| -> Span {
        let mut found: Vec<&Span> = spans
            .iter()
            .filter(|s| s.name == name && attribute(s, "messaging.message.id") == job)
            .collect();
        assert_eq!(found.len(), 1, "{name} of {job} in {spans:#?}");
        found.remove(0).clone()
    };
    let (process, commit) = (
        format!("process {}", fleet.topic("jobs")),
        format!("commit {}", fleet.topic("jobs")),
    );
    let span = of("traced-1", &process);
    assert_eq!(span.kind, SpanKind::Consumer as i32);
    assert_eq!(span.parent_span_id, creator.span_id().to_be_bytes());
    assert_eq!(span.links.len(), 1);
    assert_eq!(span.links[0].span_id, creator.span_id().to_be_bytes());
    for (name, value) in [
        ("messaging.system", "kafka"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.partition.id", "0"),
        ("messaging.kafka.offset", "0"),
        ("messaging.consumer.group.name", &fleet.group()),
        ("guestkit.status", "completed"),
    ] {
        assert_eq!(attribute(&span, name), value, "{name}");
    }
    for name in ["queue", "attempt", &commit] {
        let child = of("traced-1", name);
        assert_eq!(child.parent_span_id, span.span_id, "{name}");
        assert!(
            child.start_time_unix_nano >= span.start_time_unix_nano,
            "{name}"
        );
        assert!(
            child.end_time_unix_nano <= span.end_time_unix_nano,
            "{name}"
        );
    }
    let attempt = of("traced-1", "attempt");
    let ran = attempt.end_time_unix_nano - attempt.start_time_unix_nano;
    assert!(ran >= 300_000_000, "{ran}");
    let sections = spans.iter().filter(|s| s.parent_span_id == attempt.span_id);
    assert!(sections.count() > 0, "{spans:#?}");
    // The duplicate ran nothing, and is part of the trace all the same.
    let duplicate = of("traced-2", &process);
    assert_eq!(attribute(&duplicate, "guestkit.duplicate_of"), "traced-1");
    let failed = of("traced-3", &process);
    assert_eq!(attribute(&failed, "error.type"), "NO_LUCK");
    assert_eq!(failed.status.unwrap().code, 2);
    let letter = spans
        .iter()
        .find(|s| attribute(s, "error.type") == "INVALID_JOB");
    assert_eq!(letter.unwrap().links.len(), 1);

    // What a reader follows.
    for seen in &results {
        let result: guestkit_protocol::JobResult = guestkit_protocol::decode(
            seen.value.as_deref().unwrap(),
            &guestkit_protocol::NoRegistry,
        )
        .unwrap();
        let context = TraceContext::parse(&seen.header("traceparent")).unwrap();
        let document = &result.observability;
        assert_eq!(document.trace_id, Some(context.trace_id_text()));
        assert_eq!(document.span_id, Some(context.span_id_text()));
        match &*result.job_id {
            "unsampled-1" => {
                assert!(!context.is_sampled());
                assert_eq!(collector.of_trace(context.trace_id()).len(), 0);
            }
            // A trace begins here.
            "untraced-1" => assert!(collector.of_trace(context.trace_id()).len() >= 4),
            id => {
                let own = of(id, &process);
                assert_eq!(own.span_id, context.span_id().to_be_bytes());
                assert_eq!(document.parent_span_id, Some(creator.span_id_text()));
            }
        }
    }
    let progress = fleet.read("progress", LIMIT, |seen| !seen.is_empty());
    let context = TraceContext::parse(&progress[0].header("traceparent")).unwrap();
    assert_eq!(context.span_id().to_be_bytes(), span.span_id[..]);
    drop(worker);
}

#[test]
fn a_collector_that_is_away_costs_no_job() {
    let fleet = Fleet::new("no-collector", 1);
    let mut worker = fleet.worker(&["--otlp-endpoint", "http://127.0.0.1:1"]);
    for number in 0..50 {
        fleet.publish(
            None,
            None,
            &echo(&format!("lonely-{number:04}"), None, "{}"),
        );
    }
    fleet.flush();
    assert_eq!(fleet.results(50, LIMIT).len(), 50);
    assert_eq!(worker.terminate(), 0);
    let log = worker.log();
    assert_eq!(log.matches("spans not exported").count(), 1, "{log}");
}

#[test]
fn log_lines_name_the_trace() {
    const CREATOR: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let fleet = Fleet::new("trace-log", 1);
    let mut worker = fleet.worker_in(&[("GUESTKIT_LOG", "debug")], &["--log-format", "json"]);
    let header = [("traceparent", CREATOR.as_bytes())];
    fleet.publish_with(None, None, &echo("logged-01", None, "{}"), &header);
    fleet.flush();
    assert_eq!(fleet.results(1, LIMIT).len(), 1);
    assert_eq!(worker.terminate(), 0);
    let log = worker.log();
    let line = log.lines().find(|line| line.contains("job ended")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["span"]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(line["span"]["job_id"], "logged-01");
}
