//! Host files: nothing outside the roots is opened, by any name, from any place.

use crate::qcow2::image;
use crate::support::{budget, open_host};
use guestkit_inspector::container::{self, open_chain};
use guestkit_inspector::error::DiskError;
use guestkit_inspector::layers;
use guestkit_inspector::source::{ChainOpener, HostRoots, Reading};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

const WALL: Duration = Duration::from_secs(20);
const SECRET: &str = "a secret of the host that no error may repeat";

struct Place {
    _keep: tempfile::TempDir,
    root: std::path::PathBuf,
    outside: std::path::PathBuf,
}

/// A root with an image folder, beside a file with a secret.
fn place() -> Place {
    let keep = tempfile::tempdir().unwrap();
    let root = keep.path().join("root");
    fs::create_dir_all(root.join("sub")).unwrap();
    let outside = keep.path().join("outside.raw");
    fs::write(&outside, SECRET.repeat(100)).unwrap();
    Place {
        root,
        outside,
        _keep: keep,
    }
}

fn overlay(place: &Place, name: &str, backing: &str) {
    fs::write(place.root.join(name), image(Some(backing), |_| {})).unwrap();
}

fn failure(place: &Place, name: &str) -> DiskError {
    let error = match open_host(&place.root, name, &budget(WALL)) {
        Err(e) => e,
        Ok(_) => panic!("{name} was opened"),
    };
    let chain = open_chain(
        &HostRoots::new([&place.root]).unwrap(),
        Path::new(name),
        None,
    );
    assert_eq!(chain.unwrap_err(), error, "the parent's walk differs");
    assert!(!error.to_string().contains("secret"), "{error}");
    error
}

#[test]
fn backing_names_that_leave_the_roots_are_denied() {
    let place = place();
    symlink(&place.outside, place.root.join("link.raw")).unwrap();
    symlink("../outside.raw", place.root.join("relative-link.raw")).unwrap();
    symlink("/", place.root.join("slash")).unwrap();
    let outside = place.outside.display().to_string();
    let json = format!("json:{{\"driver\":\"raw\",\"file.filename\":\"{outside}\"}}");
    let names = [
        "/etc/passwd",
        "../outside.raw",
        "sub/../../outside.raw",
        "link.raw",
        "relative-link.raw",
        "slash/etc/passwd",
        "nbd://127.0.0.1/export",
        "nbd:unix:/tmp/socket",
        "file:/etc/passwd",
        "fat:/etc",
        "host_device:/dev/sda",
        "/dev/sda",
        "/proc/self/environ",
        outside.as_str(),
        json.as_str(),
        ".",
        "sub",
    ];
    for name in names {
        overlay(&place, "overlay.qcow2", name);
        let error = failure(&place, "overlay.qcow2");
        assert!(
            matches!(error, DiskError::Denied { .. }),
            "{name}: {error:?}"
        );
    }
    let mut sneaky = image(Some("nul.raw"), |_| {});
    sneaky[0x203] = 0;
    fs::write(place.root.join("nul.qcow2"), sneaky).unwrap();
    assert!(matches!(
        failure(&place, "nul.qcow2"),
        DiskError::Denied { .. }
    ));
}

#[test]
fn the_image_itself_must_lie_beneath_a_root() {
    let place = place();
    fs::write(place.root.join("disk.raw"), vec![0; 4096]).unwrap();
    symlink(&place.outside, place.root.join("link.raw")).unwrap();
    let roots = HostRoots::new([&place.root]).unwrap();
    roots.open(Path::new("disk.raw")).unwrap();
    roots.open(&place.root.join("disk.raw")).unwrap();
    roots.open(&place.root.join("sub/../disk.raw")).unwrap();
    for denied in ["link.raw", "../outside.raw", "/etc/passwd", "sub"] {
        let error = roots.open(Path::new(denied)).unwrap_err();
        assert!(
            matches!(error, DiskError::Denied { .. }),
            "{denied}: {error:?}"
        );
    }
    let missing = roots.open(Path::new("missing.raw")).unwrap_err();
    assert!(matches!(missing, DiskError::NotFound { .. }));
    let none = HostRoots::default()
        .open(Path::new("disk.raw"))
        .unwrap_err();
    assert!(matches!(none, DiskError::Denied { .. }));
}

#[test]
fn pipes_sockets_and_devices_are_denied_without_hanging() {
    let place = place();
    let _listener = std::os::unix::net::UnixListener::bind(place.root.join("socket")).unwrap();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        place.root.join("pipe"),
        rustix::fs::Mode::from_raw_mode(0o600),
    )
    .unwrap();
    let roots = HostRoots::new([place.root.as_path(), Path::new("/dev")]).unwrap();
    for name in ["pipe", "socket", "/dev/null", "/dev/zero"] {
        let error = roots.open(Path::new(name)).unwrap_err();
        assert!(
            matches!(error, DiskError::Denied { .. }),
            "{name}: {error:?}"
        );
    }
}

#[test]
fn a_relative_path_is_tried_in_the_order_of_the_roots() {
    let keep = tempfile::tempdir().unwrap();
    let (a, b) = (keep.path().join("a"), keep.path().join("b"));
    fs::create_dir_all(&a).unwrap();
    fs::create_dir_all(&b).unwrap();
    fs::write(a.join("both"), vec![0; 512]).unwrap();
    fs::write(b.join("both"), vec![0; 1024]).unwrap();
    fs::write(b.join("second"), vec![0; 2048]).unwrap();
    let roots = HostRoots::new([&a, &b]).unwrap();
    assert_eq!(roots.open(Path::new("both")).unwrap().len, 512);
    assert_eq!(roots.open(Path::new("second")).unwrap().len, 2048);
}

#[test]
fn chains_end() {
    let place = place();
    overlay(&place, "self.qcow2", "self.qcow2");
    overlay(&place, "a.qcow2", "sub/b.qcow2");
    overlay(&place, "sub/b.qcow2", "../a.qcow2");
    for name in ["self.qcow2", "a.qcow2"] {
        assert!(failure(&place, name).to_string().contains("cycle"));
    }
    fs::write(place.root.join("0.qcow2"), image(None, |_| {})).unwrap();
    for n in 1..=17 {
        overlay(&place, &format!("{n}.qcow2"), &format!("{}.qcow2", n - 1));
    }
    // 16 backing files are read, 17 are not.
    let deepest = open_host(&place.root, "16.qcow2", &budget(WALL)).unwrap();
    assert_eq!(deepest.facts.backing.len(), 16);
    assert!(matches!(
        failure(&place, "17.qcow2"),
        DiskError::OverBudget { .. }
    ));
}

#[test]
fn a_raw_backing_file_is_never_probed() {
    let place = place();
    // The base's content is a qcow2 header that names a secret; the overlay says it is raw.
    let outside = place.outside.display().to_string();
    fs::write(place.root.join("base"), image(Some(&outside), |_| {})).unwrap();
    let top = image(Some("base"), |i| {
        i[104..108].copy_from_slice(&0xe279_2acau32.to_be_bytes());
        i[108..112].copy_from_slice(&3u32.to_be_bytes());
        i[112..115].copy_from_slice(b"raw");
    });
    fs::write(place.root.join("top.qcow2"), top).unwrap();
    let disk = open_host(&place.root, "top.qcow2", &budget(WALL))
        .unwrap()
        .disk;
    let mut head = [0; 4];
    disk.read_exact_at(0, &mut head).unwrap();
    assert_eq!(&head, b"QFI\xfb");
}

#[test]
fn a_chain_opened_by_a_parent_is_read_without_opening_anything() {
    let dir = crate::support::unpack_fixtures("qcow2");
    let roots = HostRoots::new([dir.path()]).unwrap();
    let files = open_chain(&roots, Path::new("chain-top.qcow2"), Some("qcow2")).unwrap();
    assert_eq!(files.len(), 3);
    for name in ["chain-top.qcow2", "chain-mid.qcow2", "base.raw"] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    let reading = Reading::new(budget(WALL));
    let opener = ChainOpener {
        files,
        reading: &reading,
    };
    let container = container::open(&opener, Some("qcow2")).unwrap();
    let sums = fs::read_to_string(dir.path().join("SHA256")).unwrap();
    let sum = crate::support::sha256_layer(container.disk.as_ref()).unwrap();
    assert!(sums.contains(&format!("{sum} 6291456 chain-top.qcow2")));
}

#[test]
fn a_parent_opens_no_file_of_an_image_that_is_not_what_was_declared() {
    let place = place();
    overlay(&place, "overlay.qcow2", "/etc/passwd");
    let roots = HostRoots::new([&place.root]).unwrap();
    for declared in ["raw", "vmdk"] {
        let error = open_chain(&roots, Path::new("overlay.qcow2"), Some(declared)).unwrap_err();
        let expected = format!("declared {declared}, found qcow2");
        assert!(error.to_string().contains(&expected), "{error}");
    }
}

#[test]
fn declared_formats_must_agree() {
    let place = place();
    fs::write(place.root.join("q"), image(None, |_| {})).unwrap();
    fs::write(place.root.join("r"), vec![0; 4096]).unwrap();
    fs::write(place.root.join("short"), vec![0; 100]).unwrap();
    let open = |name: &str, declared| {
        let roots = HostRoots::new([&place.root]).unwrap();
        let reading = Reading::new(budget(WALL));
        let opener = guestkit_inspector::source::HostOpener {
            roots: &roots,
            path: Path::new(name),
            reading: &reading,
        };
        container::open(&opener, declared).map(|c| c.facts.format)
    };
    assert_eq!(open("q", Some("qcow2")).unwrap(), "qcow2");
    assert_eq!(open("r", Some("raw")).unwrap(), "raw");
    assert_eq!(open("q", Some("auto")).unwrap(), "qcow2");
    for (name, declared) in [
        ("q", "raw"),
        ("r", "qcow2"),
        ("q", "vmdk"),
        ("short", "raw"),
    ] {
        let error = open(name, Some(declared)).unwrap_err();
        assert!(
            matches!(error, DiskError::Corrupt { .. }),
            "{name} {declared}: {error:?}"
        );
    }
}

#[test]
fn what_is_no_image_is_told_to_be_unrecognised() {
    let place = place();
    fs::write(place.root.join("text"), SECRET.repeat(100)).unwrap();
    let container = open_host(&place.root, "text", &budget(WALL)).unwrap();
    let examined = layers::examine(&container).unwrap();
    assert!(!examined.layers.recognised);
    assert_eq!(examined.layers.disk.table, "none");
}
