//! Reports against the JSON Schema that is published: a field that one of them does not know is
//! drift.

use crate::support::{corpus, decompress};
use guestkit_inspector::budget::Limits;
use guestkit_inspector::guest::InspectOptions;
use guestkit_inspector::inspect::{Request, inspect};
use guestkit_inspector::source::HostRoots;
use jsonschema::Validator;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn schema() -> Validator {
    let path = "../schemas/json/guestkit_inspect.schema.json";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let schema = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    jsonschema::validator_for(&schema).unwrap()
}

fn report(image: &Path, further: &[PathBuf], options: &InspectOptions) -> Value {
    // An overlay lies in a folder beside its base.
    let roots = HostRoots::new([image.ancestors().nth(2).unwrap()]).unwrap();
    let request = Request {
        roots: &roots,
        path: image,
        further,
        format: None,
        limits: Limits::default(),
        cancelled: Arc::new(AtomicBool::new(false)),
    };
    let (report, _) = inspect(&request, options, &|_| {}).unwrap();
    serde_json::to_value(&report).unwrap()
}

fn complaints(schema: &Validator, report: &Value) -> Vec<String> {
    let shown = |e: jsonschema::ValidationError| format!("{}: {e}", e.instance_path);
    schema.iter_errors(report).map(shown).collect()
}

/// The report with all, with nothing, and after a deep scan.
fn agrees(schema: &Validator, image: &Path) -> Value {
    let nothing = InspectOptions::only(&[]).unwrap();
    let deep = InspectOptions {
        deep_scan: true,
        ..InspectOptions::default()
    };
    let all = InspectOptions::default();
    let [_, _, report] = [nothing, deep, all].map(|options| {
        let report = report(image, &[], &options);
        let name = image.display();
        assert_eq!(complaints(schema, &report), [""; 0], "{name}: {options:?}");
        report
    });
    report
}

#[test]
fn the_debian_guest_is_as_the_schema_says() {
    let schema = schema();
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/guests/deb12-gpt-ext4");
    let mut report = agrees(&schema, &guest.join("deb12-gpt-ext4.qcow2"));
    let overlay = guest.join("variants/overlay.qcow2");
    agrees(&schema, &overlay);
    let image = guest.join("deb12-gpt-ext4.qcow2");
    let both = self::report(&overlay, &[image], &InspectOptions::default());
    assert_eq!(complaints(&schema, &both), [""; 0]);
    assert_eq!(both["further"][0]["device"], "/dev/sdb");
    // Names that nobody announced are seen, and so are missing ones and other types.
    let changes: [(&str, Value); 5] = [
        ("", json!({"unheard_of": 1})),
        ("/packages/0", json!({"unheard_of": 1})),
        ("/users/0", json!({"password": "$6$hash"})),
        ("/image", json!({"virtual_size": -1})),
        ("/coverage", json!({"packages": "perhaps"})),
    ];
    for (place, change) in changes {
        let mut other = report.clone();
        let object = other.pointer_mut(place).unwrap().as_object_mut().unwrap();
        object.extend(change.as_object().unwrap().clone());
        assert_eq!(complaints(&schema, &other).len(), 1, "{place}: {change}");
    }
    report["packages"][0]
        .as_object_mut()
        .unwrap()
        .remove("purl");
    assert_eq!(complaints(&schema, &report).len(), 1);
}

#[test]
fn corpus_guests_are_as_the_schema_says() {
    let Some(dir) = corpus("guests against the JSON Schema") else {
        return;
    };
    let schema = schema();
    for image in [
        "deb12-gpt-ext4/deb12-gpt-ext4.qcow2",
        "fedora40-gpt-btrfs/fedora40-gpt-btrfs-streamOptimized.vmdk",
        "win11-mbr-ntfs/win11-mbr-ntfs-streamOptimized.vmdk",
    ] {
        let report = agrees(&schema, &dir.join("guests").join(image));
        assert_eq!(report["os"].as_array().unwrap().len(), 1, "{image}");
    }
    let scratch = tempfile::tempdir().unwrap();
    for (packed, name) in [
        (
            "fedora40-gpt-btrfs/fedora40-gpt-btrfs.vdi.zst",
            "fedora.vdi",
        ),
        ("win11-mbr-ntfs/win11-mbr-ntfs.vhdx.zst", "windows.vhdx"),
    ] {
        let mut file = decompress(&dir.join("guests").join(packed)).unwrap();
        let image = scratch.path().join(name);
        std::io::copy(&mut file, &mut std::fs::File::create(&image).unwrap()).unwrap();
        agrees(&schema, &image);
    }
}
