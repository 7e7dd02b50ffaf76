//! Every reader behind one call: a target's name and bytes. Shared by the fuzz targets (`fuzz/`), which
//! make up the bytes, and by the tests, which replay what was once found.
//!
//! Small formats are the bytes themselves. Disks and file systems are too large for that: there the
//! bytes are a list of changes to a real image ([`Patched`]), aimed at what a reader reads of it.

mod memory_fs;
mod patch;
pub(crate) mod seal;

use guestkit_inspector::budget::{Budget, Limits};
use guestkit_inspector::clock;
use guestkit_inspector::container::{self, Container};
use guestkit_inspector::error::{DiskError, Result};
use guestkit_inspector::fs::{FileSystem, NodeKind};
use guestkit_inspector::guest::{self, InspectOptions};
use guestkit_inspector::layer::Memory;
use guestkit_inspector::layers;
use guestkit_inspector::read_at::{Layer, ReadAt};
use guestkit_inspector::source::{MemoryOpener, Opener, Reading, Source};
use memory_fs::MemoryFs;
pub(crate) use patch::Patched;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// What one input may cost: little, so that many are tried.
pub(crate) const LIMITS: Limits = Limits {
    bytes: 16 << 20,
    reads: 20_000,
    steps: 400_000,
    wall: Duration::from_secs(5),
    ..Limits::DEFAULT
};

/// How a target's bytes are read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// The bytes are an image file of this format.
    Container(&'static str),
    /// The bytes are changes to an image file of this format: too large for inputs of their own.
    Changed(&'static str),
    /// The bytes are changes to a disk.
    Disk,
    /// The bytes are this file of a guest.
    File(&'static str, System),
}

/// The guest around a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    /// Debian with systemd.
    Debian,
    /// Fedora.
    Fedora,
    /// Alpine.
    Alpine,
    /// Arch.
    Arch,
    /// Windows.
    Windows,
    /// Nothing but the file.
    Bare,
}

use System::{Alpine, Arch, Bare, Debian, Fedora, Windows};

/// All targets, by name.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("qcow2", Target::Container("qcow2")),
    ("vmdk", Target::Container("vmdk")),
    ("vhd", Target::Changed("vpc")),
    ("vhdx", Target::Changed("vhdx")),
    ("vdi", Target::Changed("vdi")),
    ("ova", Target::Container("ova")),
    ("gpt", Target::Disk),
    ("mbr", Target::Disk),
    ("lvm", Target::Disk),
    ("md", Target::Disk),
    ("luks", Target::Disk),
    ("ext", Target::Disk),
    ("xfs", Target::Disk),
    ("btrfs", Target::Disk),
    ("ntfs", Target::Disk),
    ("fat", Target::Disk),
    ("exfat", Target::Disk),
    ("iso9660", Target::Disk),
    ("squashfs", Target::Disk),
    (
        "hive-system",
        Target::File("Windows/System32/config/SYSTEM", Windows),
    ),
    (
        "hive-software",
        Target::File("Windows/System32/config/SOFTWARE", Windows),
    ),
    (
        "hive-sam",
        Target::File("Windows/System32/config/SAM", Windows),
    ),
    (
        "hive-log",
        Target::File("Windows/System32/config/SYSTEM.LOG1", Windows),
    ),
    ("rpm-bdb", Target::File("var/lib/rpm/Packages", Fedora)),
    ("rpm-ndb", Target::File("var/lib/rpm/Packages.db", Fedora)),
    (
        "rpm-sqlite",
        Target::File("var/lib/rpm/rpmdb.sqlite", Fedora),
    ),
    ("dpkg", Target::File("var/lib/dpkg/status", Debian)),
    ("apk", Target::File("lib/apk/db/installed", Alpine)),
    (
        "pacman",
        Target::File("var/lib/pacman/local/bash-5.2-1/desc", Arch),
    ),
    (
        "systemd-unit",
        Target::File("etc/systemd/system/a.service", Debian),
    ),
    (
        "systemd-preset",
        Target::File("etc/systemd/system-preset/10-a.preset", Fedora),
    ),
    ("cron", Target::File("etc/crontab", Debian)),
    ("sshd", Target::File("etc/ssh/sshd_config", Debian)),
    ("sudoers", Target::File("etc/sudoers", Debian)),
    ("fstab", Target::File("etc/fstab", Debian)),
    ("crypttab", Target::File("etc/crypttab", Debian)),
    ("passwd", Target::File("etc/passwd", Debian)),
    ("shadow", Target::File("etc/shadow", Debian)),
    ("group", Target::File("etc/group", Debian)),
    ("os-release", Target::File("etc/os-release", Bare)),
    ("interfaces", Target::File("etc/network/interfaces", Debian)),
    ("netplan", Target::File("etc/netplan/01.yaml", Debian)),
    (
        "networkmanager",
        Target::File(
            "etc/NetworkManager/system-connections/a.nmconnection",
            Fedora,
        ),
    ),
    (
        "networkd",
        Target::File("etc/systemd/network/a.network", Debian),
    ),
    (
        "ifcfg",
        Target::File("etc/sysconfig/network-scripts/ifcfg-eth0", Fedora),
    ),
    ("sysctl", Target::File("etc/sysctl.conf", Debian)),
    ("grub", Target::File("boot/grub/grub.cfg", Debian)),
];

/// Reads `data` as a target does. Errors are fine; a panic or no end is not.
///
/// `bases`: the images that [`Target::Disk`] and [`Target::Changed`] change.
pub(crate) fn run(target: Target, data: &[u8], bases: &[Layer]) {
    // Whatever the outcome, it is one.
    drop(match target {
        Target::Container(format) => image(data.to_vec(), format),
        Target::Changed(format) => changed(data, bases, format),
        Target::Disk => disk(data, bases),
        Target::File(path, system) => file(data, path, system),
    });
}

fn budget() -> Arc<Budget> {
    Budget::new(LIMITS, clock::monotonic(), Arc::default())
}

/// An image with further files, each of them a disk of zeros.
struct Lonely<'a>(MemoryOpener<'a>);

impl Opener for Lonely<'_> {
    fn image(&self) -> Result<Source> {
        self.0.image()
    }

    fn related(&self, _: &Source, name: &[u8]) -> Result<Source> {
        let zeros: Layer = Arc::new(Memory(vec![0; 1 << 16]));
        let identity = u64::try_from(name.len()).unwrap_or(0).wrapping_add(1);
        Ok(self.0.reading.source(zeros, (1, identity)))
    }
}

fn open(layer: Layer, budget: &Arc<Budget>, format: Option<&str>) -> Result<Container> {
    let reading = Reading::new(Arc::clone(budget));
    let opener = MemoryOpener {
        layer,
        reading: &reading,
    };
    container::open(&Lonely(opener), format)
}

/// Checksums are made right again after the changes.
fn changed(data: &[u8], bases: &[Layer], format: &str) -> Result<()> {
    let Some(patched) = Patched::new(data, bases) else {
        return Ok(());
    };
    let mut bytes = vec![0; usize::try_from(patched.len()).unwrap_or(0)];
    patched.read_exact_at(0, &mut bytes)?;
    match format {
        "vpc" => seal::reseal_vhd(&mut bytes),
        "vhdx" => seal::reseal_vhdx(&mut bytes),
        _ => {}
    }
    image(bytes, format)
}

fn image(bytes: Vec<u8>, format: &str) -> Result<()> {
    let container = open(Arc::new(Memory(bytes)), &budget(), Some(format))?;
    let length = container.disk.len();
    let mut buffer = vec![0; 70_000];
    for position in [0, length / 2, length.saturating_sub(70_000), 1 << 40] {
        // Errors are fine.
        drop(container.disk.read_exact_at(position, &mut buffer));
    }
    drop(
        container
            .disk
            .read_exact_at(length.saturating_sub(1), &mut buffer[..1]),
    );
    describe(&container)
}

fn disk(data: &[u8], bases: &[Layer]) -> Result<()> {
    let Some(patched) = Patched::new(data, bases) else {
        return Ok(());
    };
    let container = open(Arc::new(patched), &budget(), Some("raw"))?;
    let examined = layers::examine(&container)?;
    for mountable in &examined.mountable {
        walk(mountable.reader.as_ref());
    }
    describe(&container)
}

fn describe(container: &Container) -> Result<()> {
    let examined = layers::examine(container)?;
    let report = guest::describe(examined, &InspectOptions::default(), &|_| {});
    serde_json::to_vec(&report)
        .map(drop)
        .map_err(|error| DiskError::Io {
            position: 0,
            message: error.to_string(),
        })
}

/// A smallest disk with a file system, which is then replaced by a [`MemoryFs`].
fn file(data: &[u8], path: &str, system: System) -> Result<()> {
    let container = open(Arc::new(Memory(carrier())), &budget(), Some("raw"))?;
    let mut examined = layers::examine(&container)?;
    let Some(mountable) = examined.mountable.first_mut() else {
        unreachable!("the carrier has a file system");
    };
    mountable.reader = Arc::new(MemoryFs::new(path, data, system));
    let report = guest::describe(examined, &InspectOptions::default(), &|_| {});
    serde_json::to_vec(&report)
        .map(drop)
        .map_err(|error| DiskError::Io {
            position: 0,
            message: error.to_string(),
        })
}

/// An empty ext2 file system.
fn carrier() -> Vec<u8> {
    use std::io::Read;
    let packed = include_bytes!("carrier.img.gz");
    let mut image = Vec::new();
    let read = flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut image);
    assert!(read.is_ok(), "the carrier is no gzip");
    image
}

/// Looks at the first nodes of a tree in every way there is.
pub(crate) fn walk(fs: &dyn FileSystem) -> usize {
    let mut damage = 0;
    let mut nodes = 0;
    let mut todo = vec![(fs.root(), 0)];
    let mut buffer = vec![0; 64 << 10];
    damage += usize::from(fs.subvolumes().is_err());
    while let Some((directory, depth)) = todo.pop() {
        let mut entries = Vec::new();
        let read = fs.read_dir(directory, &mut |entry| {
            entries.push(entry);
            match entries.len() {
                0..100 => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        });
        damage += usize::from(read.is_err());
        for entry in entries {
            nodes += 1;
            if nodes > 400 {
                return damage;
            }
            damage += usize::from(fs.lookup(directory, &entry.name).is_err());
            damage += usize::from(fs.xattr(entry.node, b"security.selinux").is_err());
            match fs.metadata(entry.node).map(|metadata| metadata.kind) {
                Ok(NodeKind::Directory) if depth < 5 && todo.len() < 50 => {
                    todo.push((entry.node, depth + 1));
                }
                Ok(NodeKind::Symlink) => damage += usize::from(fs.read_link(entry.node).is_err()),
                Ok(_) => {
                    for position in [0, 60_000, 1 << 33, u64::MAX - 5] {
                        let read = fs.read_file_at(entry.node, position, &mut buffer);
                        damage += usize::from(read.is_err());
                    }
                }
                Err(_) => damage += 1,
            }
        }
    }
    damage
}
