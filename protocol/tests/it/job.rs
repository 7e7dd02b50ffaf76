//! Validation, builder, constraints, payload hash.

use crate::job;
use guestkit_protocol::*;
use serde_json::json;

/// A change of a job.
type Change = fn(&mut JobEnvelope);

#[test]
fn every_rule_names_its_field() {
    let rules: &[(&str, Change)] = &[
        ("version", |job| job.version = "2.1".to_owned()),
        ("job_id", |job| job.job_id = "seven-7".to_owned()),
        ("job_id", |job| job.job_id = "x".repeat(129)),
        ("job_id", |job| job.job_id = "with space".to_owned()),
        ("job_id", |job| job.job_id = "with/slash".to_owned()),
        ("job_id", |job| job.job_id = "ümläutss".to_owned()),
        ("kind", |job| job.kind = "vmoperation".to_owned()),
        ("operation", |job| job.operation = "inspect".to_owned()),
        ("operation", |job| job.operation = "guestkit.".to_owned()),
        ("operation", |job| {
            job.operation = "guestkit..inspect".to_owned()
        }),
        ("operation", |job| {
            job.operation = "guestkit.in spect".to_owned()
        }),
        ("operation", |job| {
            job.operation = format!("a.{}", "b".repeat(300))
        }),
        ("payload.type", |job| {
            job.payload.r#type = "guestkit.inspect".to_owned()
        }),
        ("payload.type", |job| {
            job.payload.r#type = "guestkit.inspect.v".to_owned()
        }),
        ("payload.type", |job| {
            job.payload.r#type = "guestkit.inspect.v1x".to_owned()
        }),
        ("payload.type", |job| {
            job.payload.r#type = "guestkit.inspect.1".to_owned()
        }),
        ("payload.type", |job| {
            job.payload.r#type = "inspect.v1".to_owned()
        }),
        ("payload.type", |job| job.payload.r#type = ".v1".to_owned()),
        ("execution.idempotency_key", |job| {
            job.execution.idempotency_key = Some(String::new())
        }),
        ("execution.idempotency_key", |job| {
            job.execution.idempotency_key = Some("k".repeat(513))
        }),
        ("execution.idempotency_key", |job| {
            job.execution.idempotency_key = Some("ö".repeat(257))
        }),
        ("execution.idempotency_key", |job| {
            job.execution.idempotency_key = Some("\0slot".to_owned())
        }),
        ("execution.idempotency_key", |job| {
            job.execution.idempotency_key = Some("a\u{85}".to_owned())
        }),
        ("execution.max_attempts", |job| {
            job.execution.max_attempts = 0
        }),
        ("execution.max_attempts", |job| {
            job.execution.max_attempts = u32::MAX
        }),
        ("execution.attempt", |job| job.execution.attempt = 0),
        ("execution.attempt", |job| job.execution.attempt = 2),
        ("execution.timeout_seconds", |job| {
            job.execution.timeout_seconds = 0
        }),
        ("execution.timeout_seconds", |job| {
            job.execution.timeout_seconds = u64::MAX
        }),
        ("execution.priority", |job| job.execution.priority = 0),
        ("execution.priority", |job| job.execution.priority = 11),
        ("constraints.minimum_worker_version", |job| {
            job.constraints.minimum_worker_version = Some("1.2".to_owned());
        }),
        ("constraints.maximum_disk_size_gb", |job| {
            job.constraints.maximum_disk_size_gb = Some(u64::MAX)
        }),
        ("routing.worker_pool", |job| {
            job.routing.worker_pool = Some(String::new())
        }),
    ];
    assert_eq!(job().validate(), Ok(Vec::new()));
    for (index, (field, change)) in rules.iter().enumerate() {
        let mut job = job();
        change(&mut job);
        let error = job.validate().unwrap_err();
        assert!(
            error.errors.iter().any(|error| error.field == *field),
            "rule {index}: {error}"
        );
        assert!(error.to_string().contains(&format!("{field}: ")), "{error}");
        assert_eq!(
            error.code() == error_code::UNSUPPORTED_VERSION,
            *field == "version"
        );
    }
}

#[test]
fn what_stands_at_the_edge_of_a_rule_is_lawful() {
    let edges: &[Change] = &[
        |job| job.job_id = "A-z_0.:9".to_owned(),
        |job| job.job_id = "x".repeat(128),
        |job| job.operation = "a.b".to_owned(),
        |job| job.operation = "hyper2kvm.import.disk-image_2".to_owned(),
        |job| job.payload.r#type = "hyper2kvm.import.v12".to_owned(),
        |job| job.execution.idempotency_key = Some("k".repeat(512)),
        |job| job.execution.idempotency_key = Some("schlüssel mit leerzeichen / 🗝".to_owned()),
        |job| {
            job.execution.max_attempts = 9;
            job.execution.attempt = 9;
        },
        |job| job.execution.priority = 1,
        |job| job.execution.priority = 10,
        |job| job.execution.timeout_seconds = 86_400,
        |job| job.constraints.minimum_worker_version = Some("1.2.3-rc.1+build".to_owned()),
    ];
    for (index, change) in edges.iter().enumerate() {
        let mut job = job();
        change(&mut job);
        assert!(job.validate().is_ok(), "edge {index}: {:?}", job.validate());
    }
}

#[test]
fn warnings_are_no_errors() {
    let mut job = job();
    job.execution.timeout_seconds = 86_401;
    job.execution.deadline = Some(job.created_at.plus_millis(-1));
    job.payload.r#type = "hyper2kvm.import.v1".to_owned();
    let warnings = job.validate().unwrap();
    let fields: Vec<_> = warnings.iter().map(|warning| warning.field).collect();
    assert_eq!(
        fields,
        [
            "payload.type",
            "execution.timeout_seconds",
            "execution.deadline"
        ]
    );
}

#[test]
fn the_builder_sets_what_it_says() {
    let at = Timestamp::parse("2026-11-24T14:20:00Z").unwrap();
    let job = JobBuilder::new()
        .operation("guestkit.convert")
        .payload(
            "guestkit.convert.v1",
            &json!({"image": {"path": "a.vmdk"}, "output": {"format": "qcow2"}}),
        )
        .job_id("convert-0001")
        .created_at(at)
        .idempotency_key("convert/a")
        .priority(9)
        .max_attempts(4)
        .timeout_seconds(60)
        .deadline(at.plus_millis(60_000))
        .name("a")
        .label("team", "x")
        .worker_pool("fast")
        .correlation_id("c-1")
        .submitted_by("me")
        .build()
        .unwrap();
    let expected = json!({
        "version": "1.0", "job_id": "convert-0001", "created_at": "2026-11-24T14:20:00Z", "kind": "VMOperation",
        "operation": "guestkit.convert",
        "payload": {"type": "guestkit.convert.v1", "data": {"image": {"path": "a.vmdk"}, "output": {"format": "qcow2"}}},
        "metadata": {"name": "a", "labels": {"team": "x"}},
        "execution": {"idempotency_key": "convert/a", "attempt": 1, "max_attempts": 4, "timeout_seconds": 60,
                      "deadline": "2026-11-24T14:21:00Z", "priority": 9, "cancellable": true},
        "routing": {"worker_pool": "fast"},
        "observability": {"correlation_id": "c-1"},
        "audit": {"submitted_by": "me"}
    });
    assert_eq!(serde_json::to_value(&job).unwrap(), expected);
    assert!(job.is_for_pool("fast") && !job.is_for_pool("default"));
    assert!(crate::job().is_for_pool("fast"));
}

#[test]
fn what_is_not_given_has_a_fixed_default() {
    let job = inspect_job("a.qcow2").build().unwrap();
    assert_eq!(job.created_at.as_millis(), 0);
    assert!(job.job_id.starts_with("job-") && job.job_id.len() == 36);
    assert_eq!(inspect_job("a.qcow2").build().unwrap(), job);
    assert_ne!(inspect_job("b.qcow2").build().unwrap().job_id, job.job_id);
    assert_ne!(
        inspect_job("a.qcow2")
            .idempotency_key("k")
            .build()
            .unwrap()
            .job_id,
        job.job_id
    );
    assert_ne!(profile_job("a.qcow2").build().unwrap().job_id, job.job_id);
}

#[test]
fn each_shorthand_is_a_valid_job_with_a_payload_of_its_type() {
    use guestkit_protocol::payload::*;
    let jobs = [
        inspect_job("a.qcow2"),
        profile_job("a.qcow2"),
        convert_job("a.qcow2", "raw", "a.raw"),
        fix_job("a.qcow2"),
        compare_job("a.qcow2", "b.qcow2"),
    ];
    for builder in jobs {
        let job = builder.build().unwrap();
        assert_eq!(job.validate(), Ok(Vec::new()));
        assert_eq!(job.payload.r#type, format!("{}.v1", job.operation));
        let payload: ImagePayload = job.payload.data.read().unwrap();
        assert_eq!(payload.image, ImageRef::at("a.qcow2"));
    }
    let echo = echo_job(&json!({"sleep_ms": 3, "x": "y"})).build().unwrap();
    assert_eq!(
        echo.payload.data.read::<EchoRequests>().unwrap().sleep_ms,
        3
    );
    let compare: ComparePayload = compare_job("a", "b")
        .build()
        .unwrap()
        .payload
        .data
        .read()
        .unwrap();
    assert_eq!(compare.baseline, Some(ImageRef::at("b")));
}

#[test]
fn the_builder_refuses_what_is_invalid() {
    let error = inspect_job("a")
        .priority(12)
        .job_id("short")
        .build()
        .unwrap_err();
    let BuildError::Invalid(error) = error else {
        panic!("{error}")
    };
    assert_eq!(error.errors.len(), 2);
    let map: std::collections::BTreeMap<(u8, u8), u8> = [((1, 2), 3)].into();
    assert!(matches!(echo_job(&map).build(), Err(BuildError::Data(_))));
}

#[test]
fn the_hash_covers_operation_type_and_payload_only() {
    let base = job().payload_hash().unwrap();
    let same: &[Change] = &[
        |job| job.job_id = "another-0001".to_owned(),
        |job| job.execution.priority = 1,
        |job| job.created_at = Timestamp::default(),
        |job| {
            job.payload.data =
                JsonText::new(r#" { "image" : {"path":"debian-12.qcow\u0032"}} "#).unwrap()
        },
        |job| job.payload.extensions.insert("x", JsonText::default()),
    ];
    for (index, change) in same.iter().enumerate() {
        let mut job = job();
        change(&mut job);
        assert_eq!(job.payload_hash().unwrap(), base, "{index}");
    }
    let other: &[Change] = &[
        |job| job.operation = "guestkit.profile".to_owned(),
        |job| job.payload.r#type = "guestkit.inspect.v2".to_owned(),
        |job| job.payload.data = JsonText::new(r#"{"image":{"path":"debian-13.qcow2"}}"#).unwrap(),
        |job| {
            job.payload.data =
                JsonText::new(r#"{"image":{"path":"debian-12.qcow2"},"a":null}"#).unwrap()
        },
    ];
    for (index, change) in other.iter().enumerate() {
        let mut job = job();
        change(&mut job);
        assert_ne!(job.payload_hash().unwrap(), base, "{index}");
    }
    // printf 'system.echo\0system.echo.v1\0{"a":1.5,"b":"\u00e9"}' | sha256sum
    let hash = PayloadHash::of(
        "system.echo",
        "system.echo.v1",
        "{ \"b\" : \"\\u00e9\", \"a\" : 1.50 }",
    )
    .unwrap();
    assert_eq!(hash.to_string(), KNOWN_HASH);
    assert_eq!(format!("{:08x}", hash.fingerprint()), KNOWN_HASH[..8]);
}

const KNOWN_HASH: &str = "d265ed081157328a5a13d5f25c79de070423a6909264f684b0625d11dc84e79d";

#[test]
fn constraints_list_all_that_is_unmet() {
    let mut job = job();
    job.constraints.required_capabilities = vec![
        "guestkit.inspect".to_owned(),
        "qcow2".to_owned(),
        "lvm".to_owned(),
    ];
    job.constraints.required_features = vec!["lvm".to_owned()];
    job.constraints.minimum_worker_version = Some("1.2.0".to_owned());
    job.constraints.maximum_disk_size_gb = Some(500);
    job.constraints.require_privileged = true;
    job.constraints.allowed_worker_pools = vec!["default".to_owned()];
    let set = |name: &str| [name.to_owned()].into();
    let able = Capabilities {
        version: "1.10.0".to_owned(),
        operations: set("guestkit.inspect"),
        features: set("lvm"),
        disk_formats: set("qcow2"),
        max_disk_size_gb: Some(500),
        privileged: true,
        worker_pool: None,
    };
    assert_eq!(job.check_constraints(&able), Ok(()));
    let unable = Capabilities {
        version: "1.2.0-rc.1".to_owned(),
        max_disk_size_gb: Some(499),
        worker_pool: Some("gpu".to_owned()),
        ..Capabilities::default()
    };
    let unmet = job.check_constraints(&unable).unwrap_err();
    assert_eq!(unmet.len(), 8, "{unmet:?}");
    assert!(unmet.contains(&Unmet::Feature("lvm".to_owned())));
    assert!(unmet.contains(&Unmet::DiskSize {
        wanted: 500,
        worker: 499
    }));
    assert_eq!(
        crate::job().check_constraints(&Capabilities::default()),
        Ok(())
    );
    let unlimited = Capabilities {
        max_disk_size_gb: None,
        ..able
    };
    assert_eq!(job.check_constraints(&unlimited), Ok(()));
}
