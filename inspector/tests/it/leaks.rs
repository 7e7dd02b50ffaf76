//! Images that name files of the host: as extent, parent, or member of a package. Outside the roots
//! nothing is opened, whatever the name, and no byte of it is read.

use crate::build::{
    MIB, NO_LOG, VHD_PARENT, VHDX_PARENT, Vhdx, differencing_vhd, fixed_vhd, ovf, tar, vhdx, vmdk,
};
use crate::qcow2::image;
use crate::support::{budget, open_host};
use guestkit_inspector::container::open_chain;
use guestkit_inspector::error::DiskError;
use guestkit_inspector::source::HostRoots;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const WALL: Duration = Duration::from_secs(20);
const SECRET: &[u8] = b"a secret of the host that nothing may repeat.. ";

struct Place {
    _keep: tempfile::TempDir,
    root: PathBuf,
}

/// A root beside `outside.img`, whose content is `secret`, and links that lead there.
fn place(secret: &[u8]) -> Place {
    let keep = tempfile::tempdir().unwrap();
    let root = keep.path().join("root");
    fs::create_dir_all(root.join("sub")).unwrap();
    let outside = keep.path().join("outside.img");
    fs::write(&outside, secret).unwrap();
    symlink(&outside, root.join("link.img")).unwrap();
    symlink("../outside.img", root.join("relative-link.img")).unwrap();
    symlink("..", root.join("up")).unwrap();
    Place { root, _keep: keep }
}

/// Names that lead out, by every way there is.
fn names(place: &Place) -> Vec<String> {
    let outside = place.root.parent().unwrap().join("outside.img");
    let outside = outside.display().to_string();
    let json = format!("json:{{'driver':'raw','file.filename':'{outside}'}}");
    [
        "../outside.img",
        "sub/../../outside.img",
        "link.img",
        "relative-link.img",
        "up/outside.img",
        "/etc/passwd",
        "/dev/sda",
        "/proc/self/environ",
        "nbd://127.0.0.1/export",
        "file:/etc/passwd",
        "host_device:/dev/sda",
        outside.as_str(),
        json.as_str(),
    ]
    .map(str::to_owned)
    .to_vec()
}

fn repeated(len: usize) -> Vec<u8> {
    SECRET.iter().copied().cycle().take(len).collect()
}

/// The error on opening `bytes` as an image beneath the root, the same for a parent process.
fn refusal(place: &Place, bytes: &[u8]) -> DiskError {
    fs::write(place.root.join("image"), bytes).unwrap();
    let opened = open_host(&place.root, "image", &budget(WALL));
    let error = opened.err().expect("it was opened");
    let chain = open_chain(
        &HostRoots::new([&place.root]).unwrap(),
        Path::new("image"),
        None,
    );
    assert_eq!(chain.unwrap_err(), error, "the parent's walk differs");
    assert!(!error.to_string().contains("secret"), "{error}");
    error
}

/// Denied, and the message says which name.
fn denied(place: &Place, name: &str, bytes: &[u8]) {
    let error = refusal(place, bytes);
    assert!(
        matches!(error, DiskError::Denied { .. }),
        "{name}: {error:?}"
    );
    let told = error.to_string();
    let last = name.rsplit('/').next().unwrap().trim_end_matches("'}");
    assert!(told.contains(last), "{name}: {told}");
}

#[test]
fn vmdk_extents_and_parents_stay_beneath_the_roots() {
    let place = place(&repeated(64 << 10));
    for name in names(&place) {
        for kind in ["FLAT", "VMFS", "SPARSE", "VMFSSPARSE"] {
            let line = format!("RW 128 {kind} \"{name}\" 0");
            denied(&place, &name, &vmdk(None, &[line]));
        }
        // The second extent, after one that is fine.
        fs::write(place.root.join("good.img"), vec![0; 64 << 10]).unwrap();
        let lines = [
            "RW 128 FLAT \"good.img\" 0".to_owned(),
            format!("RW 128 FLAT \"{name}\" 0"),
        ];
        denied(&place, &name, &vmdk(None, &lines));
        let zeros = ["RW 128 ZERO".to_owned()];
        denied(&place, &name, &vmdk(Some((7, &name)), &zeros));
        // A sparse file without capacity carries a descriptor that counts.
        let mut sparse = vec![0; 8192];
        for (at, bytes) in [
            (0, b"KDMV".to_vec()),
            (4, 1u32.to_le_bytes().to_vec()),
            (20, 128u64.to_le_bytes().to_vec()),
            (28, 1u64.to_le_bytes().to_vec()),
            (36, 8u64.to_le_bytes().to_vec()),
            (44, 512u32.to_le_bytes().to_vec()),
            (512, vmdk(None, &[format!("RW 128 FLAT \"{name}\" 0")])),
        ] {
            crate::build::put(&mut sparse, at, &bytes);
        }
        denied(&place, &name, &sparse);
    }
}

#[test]
fn a_windows_name_of_a_vmdk_parent_means_the_file_beside() {
    let place = place(&vmdk(None, &["RW 128 ZERO".to_owned()]));
    let zeros = ["RW 128 ZERO".to_owned()];
    for name in ["C:\\vm\\outside.img", "\\\\host\\share\\outside.img"] {
        let error = refusal(&place, &vmdk(Some((7, name)), &zeros));
        assert!(matches!(error, DiskError::NotFound { .. }), "{error:?}");
    }
    let up = refusal(&place, &vmdk(Some((7, "..\\outside.img")), &zeros));
    assert!(matches!(up, DiskError::Denied { .. }), "{up:?}");
}

#[test]
fn vhd_parents_stay_beneath_the_roots() {
    // The file outside would be a perfect parent.
    let place = place(&fixed_vhd(repeated(128 << 10), VHD_PARENT));
    let child = |locators: &[(&[u8; 4], &str)], unicode: &str| {
        differencing_vhd(128 << 10, VHD_PARENT, locators, unicode, &[None, None])
    };
    for name in names(&place) {
        let windows = name.replace('/', "\\");
        denied(&place, &name, &child(&[(b"W2ru", &name)], "parent.vhd"));
        if !windows.starts_with('\\') {
            denied(&place, &name, &child(&[(b"W2ru", &windows)], ""));
        }
        // Absolute paths and bare names only mean what lies beside, but one that begins with a
        // slash is judged.
        for bytes in [
            child(&[(b"W2ku", &name)], ""),
            child(&[(b"W2ku", &windows)], ""),
            child(&[], &name),
        ] {
            let error = refusal(&place, &bytes);
            assert!(
                matches!(error, DiskError::Denied { .. } | DiskError::NotFound { .. }),
                "{name}: {error:?}"
            );
            if name.starts_with('/') && !bytes.contains(&b'\\') {
                assert!(matches!(error, DiskError::Denied { .. }), "{error:?}");
            }
        }
    }
}

#[test]
fn vhdx_parents_stay_beneath_the_roots() {
    let mut parent = vhdx(&Vhdx {
        size: MIB as u64,
        sector: 512,
        id: VHDX_PARENT,
        locator: &[],
        table: &[(0, 6, 4)],
        log_guid: NO_LOG,
        file_mib: 5,
    });
    crate::build::put(&mut parent, 4 * MIB, &repeated(MIB));
    let place = place(&parent);
    let child = |key: &str, name: &str| {
        vhdx(&Vhdx {
            size: MIB as u64,
            sector: 512,
            id: "{FFFFFFFF-0000-0000-0000-000000000001}",
            locator: &[("parent_linkage", VHDX_PARENT), (key, name)],
            table: &[],
            log_guid: NO_LOG,
            file_mib: 5,
        })
    };
    for name in names(&place) {
        denied(&place, &name, &child("relative_path", &name));
        let windows = name.replace('/', "\\");
        for bytes in [
            child("absolute_win32_path", &name),
            child("volume_path", &windows),
        ] {
            let error = refusal(&place, &bytes);
            assert!(
                matches!(error, DiskError::Denied { .. } | DiskError::NotFound { .. }),
                "{name}: {error:?}"
            );
        }
    }
}

#[test]
fn packages_hold_their_disks() {
    let place = place(&repeated(4096));
    let mut names = names(&place);
    names.push("missing.vmdk".into());
    names.push("http://127.0.0.1/disk.vmdk".into());
    names.push("file:///etc/passwd".into());
    for name in names {
        let name = name.replace('\'', "&quot;");
        let text = ovf(&name);
        let archive = tar(&[("guest.ovf", b'0', &text), ("disk.vmdk", b'0', SECRET)]);
        let error = refusal(&place, &archive);
        assert!(
            matches!(error, DiskError::Denied { .. }),
            "{name}: {error:?}"
        );
    }
    // A link in the archive with the right name is no disk either.
    let text = ovf("disk.vmdk");
    for kind in [b'1', b'2'] {
        let archive = tar(&[("guest.ovf", b'0', &text), ("disk.vmdk", kind, b"")]);
        let told = refusal(&place, &archive).to_string();
        assert_eq!(told, "unsupported: OVA whose disk is no regular member");
    }
}

#[test]
fn an_image_inside_a_package_names_no_files() {
    let place = place(&repeated(64 << 10));
    fs::write(place.root.join("beside.img"), repeated(64 << 10)).unwrap();
    let mut names = names(&place);
    // Not even a file that may be opened otherwise.
    names.push("beside.img".into());
    for name in names {
        for disk in [
            vmdk(None, &[format!("RW 128 FLAT \"{name}\" 0")]),
            vmdk(Some((7, &name)), &["RW 128 ZERO".to_owned()]),
            image(Some(&name), |_| {}),
            differencing_vhd(128 << 10, VHD_PARENT, &[(b"W2ru", &name)], "", &[None; 2]),
        ] {
            let text = ovf("disk.img");
            let archive = tar(&[("guest.ovf", b'0', &text), ("disk.img", b'0', &disk)]);
            let error = refusal(&place, &archive);
            assert!(
                matches!(error, DiskError::Denied { .. }),
                "{name}: {error:?}"
            );
        }
    }
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// While an image is opened and read, another process swaps the extent's name, and a directory on
/// its way, for links that lead out. Whatever is read is never the secret.
#[test]
fn swapping_a_name_while_it_is_opened_gains_nothing() {
    let place = place(&repeated(64 << 10));
    let good = vec![0x42u8; 64 << 10];
    let real = place.root.join("real");
    fs::create_dir(&real).unwrap();
    fs::write(real.join("outside.img"), &good).unwrap();
    fs::write(place.root.join("good.img"), &good).unwrap();
    let extents = [
        "RW 128 FLAT \"swapped.img\" 0".to_owned(),
        "RW 128 FLAT \"way/outside.img\" 0".to_owned(),
    ];
    fs::write(place.root.join("image"), vmdk(None, &extents)).unwrap();
    let stop = AtomicBool::new(false);
    let (mut read, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        // Set also when an assertion fails, or the other thread would go on for ever.
        let _stop = StopAtEnd(&stop);
        scope.spawn(|| {
            let file = place.root.join("swapped.img");
            let way = place.root.join("way");
            let next = place.root.join("next");
            while !stop.load(Ordering::Relaxed) {
                for (target, name) in [
                    ("good.img", &file),
                    ("real", &way),
                    ("../outside.img", &file),
                    ("..", &way),
                ] {
                    symlink(target, &next).unwrap();
                    fs::rename(&next, name).unwrap();
                }
            }
        });
        for _ in 0..3000 {
            match open_host(&place.root, "image", &budget(WALL)) {
                Ok(container) => {
                    let mut all = vec![0; container.disk.len() as usize];
                    container.disk.read_exact_at(0, &mut all).unwrap();
                    assert!(all.iter().all(|b| *b == 0x42), "the secret was read");
                    read += 1;
                }
                Err(DiskError::Denied { .. } | DiskError::NotFound { .. }) => refused += 1,
                // The kernel saw a rename and asked to try again more often than we do.
                Err(DiskError::Io { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    });
    println!("{read} read, {refused} refused");
    assert!(
        read > 0 && refused > 0,
        "the race was not run: {read} {refused}"
    );
}
