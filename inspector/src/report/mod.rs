//! The document `guestkit.inspect` v1: facts and warnings only, the same bytes on every run.
//!
//! Sections at the top describe the first operating system; each further one of a multi-boot disk
//! has its own under `more`.

pub mod cyclonedx;
mod sbom;
pub mod spdx;
pub mod table;
pub mod windows;

use crate::layers::{FileSystemLayer, FurtherDisk, Layers, Volume};
use crate::partition::Disk;
use serde::Serialize;
use std::collections::BTreeMap;

/// Value of `schema`.
pub const SCHEMA: &str = "guestkit.inspect.v1";

/// The document.
#[derive(Debug, Clone, Serialize)]
pub struct InspectReport {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// The container.
    pub image: crate::container::ContainerFacts,
    /// Partition table.
    pub disk: Disk,
    /// Further disks of the same machine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub further: Vec<FurtherDisk>,
    /// LVM, md, LUKS and others.
    pub volumes: Vec<Volume>,
    /// File systems and swap.
    pub filesystems: Vec<FileSystemLayer>,
    /// Operating systems.
    pub os: Vec<Os>,
    /// What was found in the first of them.
    #[serde(flatten)]
    pub sections: Sections,
    /// What was found in the others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<OtherSystem>,
}

/// A further operating system of a multi-boot disk.
#[derive(Debug, Clone, Serialize)]
pub struct OtherSystem {
    /// Its place in `os`.
    pub os: usize,
    /// What was found in it.
    #[serde(flatten)]
    pub sections: Sections,
}

/// What is said of one operating system. An absent section was not asked for, or cannot be told;
/// `coverage` says which.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Sections {
    /// fstab with resolved devices.
    pub mounts: Option<Vec<MountEntry>>,
    /// Installed packages.
    pub packages: Option<Vec<Package>>,
    /// Kernels and boot loader.
    pub kernels: Option<Kernels>,
    /// Users.
    pub users: Option<Vec<User>>,
    /// Groups.
    pub groups: Option<Vec<Group>>,
    /// Services, timers, cron.
    pub services: Option<Services>,
    /// Network.
    pub network: Option<Network>,
    /// Security settings.
    pub security: Option<Security>,
    /// Swap and encrypted devices.
    pub storage: Option<Storage>,
    /// Installed database servers.
    pub databases: Option<Vec<Database>>,
    /// cloud-init and container runtimes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud: Option<Cloud>,
    /// What is special to Windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<windows::Windows>,
    /// How far each section could be told.
    pub coverage: BTreeMap<&'static str, Coverage>,
    /// What is odd, sorted.
    pub warnings: Vec<Warning>,
}

/// How far a section could be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Coverage {
    /// Whole.
    Ok,
    /// With gaps that `warnings` name.
    Partial,
    /// This kind of guest is not read yet.
    Unsupported,
    /// Policy forbids it.
    Denied,
    /// A budget was used up.
    OverBudget,
    /// Not asked for.
    Skipped,
}

/// Something odd.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Warning {
    /// Section.
    pub section: &'static str,
    /// Short, for machines.
    pub code: &'static str,
    /// Path in the guest.
    pub path: String,
    /// For people.
    pub message: String,
}

/// An operating system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Os {
    /// `linux`, `windows`.
    #[serde(rename = "type")]
    pub os_type: String,
    /// `ID` of os-release: debian, ubuntu, ….
    pub distro: String,
    /// `ID_LIKE`.
    pub id_like: Vec<String>,
    /// `VERSION_ID`.
    pub version: Option<String>,
    /// First number of the version.
    pub major: Option<u32>,
    /// Second number: of the version, or of the point release.
    pub minor: Option<u32>,
    /// Code name.
    pub codename: Option<String>,
    /// Variant.
    pub variant: Option<String>,
    /// `NAME`.
    pub product_name: Option<String>,
    /// `PRETTY_NAME`.
    pub pretty_name: Option<String>,
    /// As Debian or the kernel name it: amd64, arm64, ….
    pub arch: Option<String>,
    /// `BUILD_ID`.
    pub build: Option<String>,
    /// Edition of Windows: Professional, ServerStandard, ….
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edition: Option<String>,
    /// When it was installed, UTC, as the installer's traces say.
    pub install_date: Option<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// systemd's machine id.
    pub machine_id: Option<String>,
    /// Time zone.
    pub timezone: Option<String>,
    /// systemd, sysv, openrc, ….
    pub init: Option<String>,
    /// CPE 2.3.
    pub cpe: Option<String>,
    /// Device of the root file system.
    pub root: String,
    /// Subvolume of it that is the root, where there are several.
    pub subvolume: Option<String>,
    /// Files that said so.
    pub evidence: Vec<String>,
    /// Container runtimes, cloud-init, virtual machine tools that are installed.
    pub software: Vec<String>,
}

/// A line of fstab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MountEntry {
    /// As written: `UUID=…`, `/dev/sda1`.
    pub spec: String,
    /// The device of this disk that it means, where there is one.
    pub device: Option<String>,
    /// Mount point; `none` for swap.
    pub target: String,
    /// Type.
    pub fs_type: String,
    /// Options.
    pub options: Vec<String>,
    /// For dump.
    pub dump: u32,
    /// Order of fsck.
    pub pass: u32,
}

/// An installed package.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Whole version as the package manager prints it.
    pub full_version: String,
    /// dpkg, opkg, rpm, apk, pacman.
    pub manager: &'static str,
    /// Epoch.
    pub epoch: Option<u32>,
    /// Version without epoch and release.
    pub version: String,
    /// Release or Debian revision.
    pub release: Option<String>,
    /// Architecture; empty for what belongs to none (rpm's gpg-pubkey).
    pub arch: String,
    /// Source package, where it differs.
    pub source: Option<String>,
    /// Version of the source package, where it differs.
    pub source_version: Option<String>,
    /// Package URL.
    pub purl: String,
    /// Installed size in bytes.
    pub size: Option<u64>,
    /// As dpkg says it: `install ok installed`.
    pub status: String,
    /// Licence, where the package manager knows it.
    pub license: Option<String>,
    /// Who built it, where the package manager knows it.
    pub vendor: Option<String>,
    /// When it was installed or last updated, in seconds since 1970 UTC.
    pub install_time: Option<i64>,
}

/// Kernels and boot loader.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Kernels {
    /// Kernels, sorted by version text.
    pub installed: Vec<Kernel>,
    /// grub, systemd-boot, extlinux.
    pub bootloader: Option<String>,
    /// Command line that the boot loader's defaults give.
    pub default_command_line: Option<String>,
    /// Entries of the boot loader's menu, in its order.
    pub entries: Vec<BootEntry>,
}

/// An entry of a boot loader's menu.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct BootEntry {
    /// What the menu shows.
    pub title: Option<String>,
    /// Kernel image, as the boot loader names it.
    pub kernel: Option<String>,
    /// First initial ramdisk.
    pub initrd: Option<String>,
    /// Command line.
    pub command_line: Option<String>,
    /// Whether it starts when nobody chooses.
    pub default: bool,
    /// File that says so.
    pub path: String,
}

/// A kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Kernel {
    /// Version.
    pub version: String,
    /// Its image.
    pub path: String,
    /// Its initramfs.
    pub initramfs: Option<String>,
    /// Whether `/vmlinuz` or the boot loader's first entry is this one.
    pub default: bool,
    /// Command line of its boot entry.
    pub command_line: Option<String>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct User {
    /// Number.
    pub uid: u32,
    /// Name.
    pub name: String,
    /// Primary group.
    pub gid: u32,
    /// Full name and the like.
    pub gecos: String,
    /// Home directory.
    pub home: String,
    /// Shell.
    pub shell: String,
    /// none, locked, set, empty; absent when it cannot be told. Never a hash.
    pub password: Option<&'static str>,
    /// Algorithm of the password hash.
    pub password_algorithm: Option<&'static str>,
    /// Whether it may become root by sudo.
    pub sudo: bool,
    /// Fingerprints of keys that may log in.
    pub ssh_keys: Vec<String>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Group {
    /// Number.
    pub gid: u32,
    /// Name.
    pub name: String,
    /// Members, sorted.
    pub members: Vec<String>,
}

/// Services and whatever else starts by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Services {
    /// Units and init scripts.
    pub units: Vec<Service>,
    /// cron entries.
    pub cron: Vec<CronEntry>,
}

/// A service, timer or socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Service {
    /// systemd's with their ending: `ssh.service`.
    pub name: String,
    /// systemd, sysv, openrc, upstart.
    pub manager: &'static str,
    /// enabled, disabled, static, indirect, masked, alias.
    pub state: &'static str,
    /// Where it is defined.
    pub path: String,
    /// First ExecStart.
    pub exec: Option<String>,
    /// User it runs as.
    pub user: Option<String>,
    /// What the vendor's presets say: enabled or disabled; absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<&'static str>,
    /// Drop-ins that were read, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop_ins: Vec<String>,
    /// When a timer fires: `OnCalendar=daily`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schedule: Vec<String>,
    /// Where a socket listens: `ListenStream=22`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listen: Vec<String>,
    /// Run levels of an init script.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runlevels: Vec<String>,
}

/// A cron entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct CronEntry {
    /// File.
    pub path: String,
    /// When.
    pub schedule: String,
    /// As whom.
    pub user: String,
    /// What.
    pub command: String,
}

/// Network configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Network {
    /// Configured interfaces.
    pub interfaces: Vec<Interface>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Search domains.
    pub search: Vec<String>,
    /// Lines of /etc/hosts.
    pub hosts: Vec<HostLine>,
    /// Firewalls that are configured.
    pub firewall: Vec<Firewall>,
}

/// A firewall.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Firewall {
    /// firewalld, iptables, nftables, ufw.
    pub name: &'static str,
    /// Whether it starts with the system; absent when it cannot be told.
    pub enabled: Option<bool>,
    /// Default zone of firewalld, or default policy of ufw for what comes in.
    pub default: Option<String>,
    /// Its configuration.
    pub path: String,
}

/// A configured interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Interface {
    /// Name or match.
    pub name: String,
    /// ifupdown, networkd, networkmanager, netplan, ifcfg, wicked.
    pub manager: String,
    /// ethernet, vlan, bond, bridge, wifi, …, where the configuration says so.
    pub kind: Option<String>,
    /// Hardware address that it is matched by, or given.
    pub mac: Option<String>,
    /// Whether addresses come by DHCP.
    pub dhcp: bool,
    /// Static addresses.
    pub addresses: Vec<String>,
    /// Gateways.
    pub gateways: Vec<String>,
    /// Name servers of this interface.
    pub dns: Vec<String>,
    /// File.
    pub path: String,
}

/// A line of /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct HostLine {
    /// Address.
    pub address: String,
    /// Names.
    pub names: Vec<String>,
}

/// Security settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Security {
    /// Global options of sshd after Include; the first value wins.
    pub sshd: Option<BTreeMap<String, String>>,
    /// Options inside Match blocks.
    pub sshd_match: Vec<MatchBlock>,
    /// enforcing, permissive, disabled.
    pub selinux: Option<String>,
    /// Whether AppArmor profiles are there.
    pub apparmor: bool,
    /// sysctl settings; the last file wins.
    pub sysctl: BTreeMap<String, String>,
    /// Rules of sudoers, without comments, defaults and aliases.
    pub sudoers: Vec<String>,
    /// Name of SELinux' policy: targeted, mls, ….
    pub selinux_policy: Option<String>,
    /// Modules of PAM services, without their arguments.
    pub pam: Vec<PamService>,
    /// Files that give rights away; only after a deep scan.
    pub files: Option<RightsFiles>,
}

/// A service of PAM.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PamService {
    /// File name in pam.d.
    pub name: String,
    /// Type, control and module of each line, in their order.
    pub rules: Vec<String>,
}

/// Files that give rights away, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RightsFiles {
    /// Set-uid files.
    pub suid: Vec<String>,
    /// Set-gid programs.
    pub sgid: Vec<String>,
    /// Files and directories that everybody may write; not those with the sticky bit.
    pub world_writable: Vec<String>,
    /// Programs with capabilities.
    pub capabilities: Vec<CapableFile>,
}

/// A program with capabilities.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct CapableFile {
    /// Path.
    pub path: String,
    /// Permitted capabilities: `cap_net_raw`.
    pub capabilities: Vec<String>,
}

/// A Match block of sshd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MatchBlock {
    /// Its criteria.
    pub criteria: String,
    /// Its options.
    pub options: BTreeMap<String, String>,
}

/// Swap and encrypted devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Storage {
    /// Swap of fstab.
    pub swap: Vec<String>,
    /// Lines of crypttab: name, device.
    pub crypttab: Vec<CryptEntry>,
}

/// A line of crypttab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CryptEntry {
    /// Name of the mapping.
    pub name: String,
    /// Device as written.
    pub device: String,
    /// The device of this disk that it means, where there is one.
    pub resolved: Option<String>,
    /// Options.
    pub options: Vec<String>,
}

/// cloud-init and container runtimes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cloud {
    /// cloud-init, where it is installed.
    pub cloud_init: Option<CloudInit>,
    /// Container runtimes.
    pub runtimes: Vec<ContainerRuntime>,
}

/// What cloud-init was told, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CloudInit {
    /// Instance that it last ran for.
    pub instance_id: Option<String>,
    /// Where that one's data came from.
    pub datasource: Option<String>,
    /// Whether it is switched off.
    pub disabled: bool,
    /// Directories of seeds on the disk.
    pub seeds: Vec<String>,
    /// Sources that it is to try, in their order.
    pub datasources: Vec<String>,
}

/// A container runtime.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ContainerRuntime {
    /// docker, podman, containerd, ….
    pub name: &'static str,
    /// Where its data lies, if it is there.
    pub root: Option<String>,
    /// Containers, running or not; absent when it cannot be told.
    pub containers: Option<usize>,
    /// Images.
    pub images: Option<usize>,
}

/// An installed database server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Database {
    /// postgresql, mysql, ….
    pub kind: &'static str,
    /// Package that brings it.
    pub package: String,
    /// Its version.
    pub version: String,
    /// Data directories that its configuration names, or the usual ones that exist.
    pub data: Vec<String>,
}

/// What the inspection cost. Stands beside the document, never in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, serde::Deserialize)]
pub struct InspectMetrics {
    /// Bytes read from the image files.
    pub bytes_read: u64,
    /// Reads of the image files.
    pub reads: u64,
    /// Wall time.
    pub milliseconds: f64,
    /// Most memory that the confined child had at one time; unknown without one.
    pub peak_memory_bytes: Option<u64>,
    /// Processor time of the confined child; unknown without one.
    pub cpu_ms: Option<u64>,
    /// How the readers were confined: `none`, or what the child gave up, for example
    /// `landlock-abi-7+seccomp+rlimits`.
    pub isolation: String,
}

impl InspectReport {
    /// A report of layers alone.
    #[must_use]
    pub fn of(layers: Layers) -> Self {
        Self {
            schema: SCHEMA,
            image: layers.image,
            disk: layers.disk,
            further: layers.further,
            volumes: layers.volumes,
            filesystems: layers.filesystems,
            os: Vec::new(),
            sections: Sections::default(),
            more: Vec::new(),
        }
    }
}
