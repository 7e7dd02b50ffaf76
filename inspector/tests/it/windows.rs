//! Windows guests: the fixture's hives in a tree of their own, and the corpus' guest.

use crate::support::{corpus, decompress, open_host, unpack_fixtures};
use guestkit_inspector::error::{DiskError, Result};
use guestkit_inspector::fs::{DirEntry, FileSystem, FileSystemFacts, Metadata, NodeId, NodeKind};
use guestkit_inspector::guest::{InspectOptions, describe};
use guestkit_inspector::layers::{self, Examined, FileSystemLayer, Layers, Mountable};
use guestkit_inspector::partition::{Disk, Partition};
use guestkit_inspector::report::InspectReport;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Files in memory, names without regard to case: what a report needs of NTFS.
struct Tree {
    facts: FileSystemFacts,
    /// Parent, name, content; `None` for a directory.
    nodes: Vec<(usize, String, Option<Vec<u8>>)>,
    bytes_read: AtomicU64,
}

impl Tree {
    fn new(files: &[(&str, Vec<u8>)]) -> Self {
        let mut tree = Self {
            facts: FileSystemFacts {
                fs_type: "ntfs".to_owned(),
                ..FileSystemFacts::default()
            },
            nodes: vec![(0, String::new(), None)],
            bytes_read: AtomicU64::new(0),
        };
        for (path, content) in files {
            let (dirs, name) = path.rsplit_once('/').unwrap_or(("", path));
            let mut at = 0;
            for dir in dirs.split('/').filter(|dir| !dir.is_empty()) {
                at = match tree.child(at, dir) {
                    Some(found) => found,
                    None => {
                        tree.nodes.push((at, dir.to_owned(), None));
                        tree.nodes.len() - 1
                    }
                };
            }
            tree.nodes
                .push((at, (*name).to_owned(), Some(content.clone())));
        }
        tree
    }

    fn child(&self, dir: usize, name: &str) -> Option<usize> {
        let same = |(n, node): &(usize, &(usize, String, Option<Vec<u8>>))| {
            *n > 0 && node.0 == dir && node.1.to_lowercase() == name.to_lowercase()
        };
        self.nodes.iter().enumerate().find(same).map(|(n, _)| n)
    }
}

impl FileSystem for Tree {
    fn facts(&self) -> &FileSystemFacts {
        &self.facts
    }
    fn root(&self) -> NodeId {
        NodeId(0)
    }
    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let content = &self.nodes[node.0 as usize].2;
        Ok(Metadata {
            kind: match content {
                Some(_) => NodeKind::File,
                None => NodeKind::Directory,
            },
            size: content.as_ref().map_or(0, |content| content.len() as u64),
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: 0,
            links: 1,
        })
    }
    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let name = String::from_utf8_lossy(name);
        Ok(self.child(dir.0 as usize, &name).map(|n| NodeId(n as u64)))
    }
    fn read_dir(
        &self,
        dir: NodeId,
        visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<()> {
        for (n, (parent, name, _)) in self.nodes.iter().enumerate().skip(1) {
            let entry = DirEntry {
                name: name.clone().into_bytes(),
                node: NodeId(n as u64),
                kind: None,
            };
            if *parent as u64 == dir.0 && visit(entry).is_break() {
                break;
            }
        }
        Ok(())
    }
    fn read_file_at(&self, node: NodeId, position: u64, buf: &mut [u8]) -> Result<usize> {
        let content = self.nodes[node.0 as usize].2.as_deref().unwrap_or_default();
        let from = content.get(position as usize..).unwrap_or_default();
        let len = from.len().min(buf.len());
        buf[..len].copy_from_slice(&from[..len]);
        self.bytes_read.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }
    fn read_link(&self, _node: NodeId) -> Result<Vec<u8>> {
        Err(DiskError::NotFound {
            what: "a link".to_owned(),
        })
    }
}

fn partition(index: u32, start: u64, uuid: &str) -> Partition {
    Partition {
        index,
        start,
        size: 356_515_840,
        uuid: Some(uuid.to_owned()),
        ..Partition::default()
    }
}

/// A disk with a table of this kind and the tree on its second partition.
fn examined(tree: Tree, table: &str) -> Examined {
    let disk = Disk {
        table: table.to_owned(),
        id: Some("0xdeadbeef".to_owned()),
        partitions: vec![
            partition(1, 1_048_576, "deadbeef-01"),
            partition(2, 53_477_376, "33221100-5544-7766-8899-AABBCCDDEEFF"),
        ],
        ..Disk::default()
    };
    let layer = FileSystemLayer {
        subvolumes: Vec::new(),
        device: "/dev/sda2".to_owned(),
        fs_type: "ntfs".to_owned(),
        uuid: None,
        label: None,
        size: None,
        block_size: None,
        features: Vec::new(),
        needs_recovery: false,
        readable: true,
        unsupported: None,
        damage: None,
        warnings: Vec::new(),
    };
    Examined {
        cut_short: None,
        layers: Layers {
            further: Vec::new(),
            image: Default::default(),
            disk,
            volumes: Vec::new(),
            filesystems: vec![layer],
            recognised: true,
        },
        mountable: vec![Mountable {
            device: "/dev/sda2".to_owned(),
            partition: Some(2),
            partuuid: None,
            partlabel: None,
            reader: Arc::new(tree),
        }],
    }
}

const CONFIG: &str = "windows/SYSTEM32/Config";

/// The tree of the fixtures; `system` names the SYSTEM hive that is taken, its logs with it.
fn tree(system: &str) -> Tree {
    let dir = unpack_fixtures("windows");
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    let mut files = vec![
        (format!("{CONFIG}/SOFTWARE"), read("SOFTWARE")),
        (format!("{CONFIG}/system"), read(system)),
        (format!("{CONFIG}/Sam"), read("SAM")),
        ("Users/Zoë/ntuser.dat".to_owned(), read("NTUSER.DAT")),
        ("Windows/System32/ntoskrnl.exe".to_owned(), b"MZ".to_vec()),
        ("bootmgr".to_owned(), Vec::new()),
        (
            "Windows/System32/drivers/etc/hosts".to_owned(),
            b"# none\n192.0.2.99 build.example.test build\n".to_vec(),
        ),
    ];
    for ending in ["LOG1", "LOG2"] {
        if let Ok(log) = std::fs::read(dir.path().join(format!("{system}.{ending}"))) {
            files.push((format!("{CONFIG}/system.{ending}"), log));
        }
    }
    let files: Vec<_> = files
        .iter()
        .map(|(path, c)| (path.as_str(), c.clone()))
        .collect();
    Tree::new(&files)
}

fn report(examined: Examined, options: &InspectOptions) -> (InspectReport, Value) {
    let report = describe(examined, options, &|_| {});
    let value = serde_json::to_value(&report).unwrap();
    (report, value)
}

/// The fields of `found` that `expected` has.
fn same(found: &Value, expected: Value, what: &str) {
    let mut picked = serde_json::Map::new();
    for key in expected.as_object().unwrap().keys() {
        picked.insert(key.clone(), found[key].clone());
    }
    assert_eq!(Value::Object(picked), expected, "{what}");
}

fn named<'v>(list: &'v Value, field: &str, name: &str) -> &'v Value {
    let found = list.as_array().unwrap().iter().find(|v| v[field] == name);
    found.unwrap_or_else(|| panic!("{name} is missing in {list:#}"))
}

#[test]
fn a_server_is_described() {
    let (_, doc) = report(examined(tree("SYSTEM"), "dos"), &InspectOptions::default());
    for (section, coverage) in doc["coverage"].as_object().unwrap() {
        assert_eq!(coverage, "ok", "{section}: {:#}", doc["warnings"]);
    }
    same(
        &doc["os"][0],
        json!({
            "type": "windows", "distro": "windows", "version": "10.0.17763", "major": 10, "minor": 0,
            "variant": "Server Core", "product_name": "Windows Server 2019 Standard",
            "pretty_name": "Windows Server 2019 Standard 1809", "arch": "amd64",
            "build": "17763.5122", "edition": "ServerStandard",
            "install_date": "2020-09-13T12:26:40Z", "hostname": "win-srv19",
            "machine_id": "0f1e2d3c-0000-4444-8888-aaaabbbbcccc",
            "timezone": "Tokyo Standard Time", "root": "/dev/sda2",
            "cpe": "cpe:2.3:o:microsoft:windows_server_2019:10.0.17763.5122:*:*:*:*:*:x64:*",
            "software": ["qemu-guest-agent", "virtio-scsi"],
        }),
        "os",
    );
    let windows = &doc["windows"];
    same(
        windows,
        json!({
            "product_name_registry": "Windows Server 2019 Standard", "display_version": "1809",
            "current_version": "6.3", "build": 17763, "ubr": 5122,
            "registered_owner": "Windows User", "registered_organization": "Contoso 日本",
            "system_root": "C:\\Windows", "root_path": "/Windows",
            "current_control_set": "ControlSet003",
            "control_sets": ["ControlSet001", "ControlSet002", "ControlSet003"],
            "computer_name": "WIN-SRV19", "domain": "corp.example.test", "timezone_bias": -540,
            "last_shutdown": "2020-11-16T11:33:20Z",
            "rdp": {"enabled": true, "network_level_authentication": true, "port": 3390},
            "uac": {"enabled": false, "consent_prompt_admin": 5, "secure_desktop": true},
            "smb1": {"server": true, "client": false},
            "firewall": [
                {"profile": "domain", "enabled": false, "by_policy": true, "block_inbound": true},
                {"profile": "private", "enabled": true, "by_policy": false, "block_inbound": false},
                {"profile": "public", "enabled": false, "by_policy": false, "block_inbound": true},
            ],
        }),
        "windows",
    );
    assert!(!doc.to_string().contains("not to be told"), "a password");
    same(
        &windows["policies"],
        json!({"auto_logon_user": "kiosk", "lsa_protection": true, "lm_compatibility_level": 5,
               "smb_signing_required": true, "secure_boot": null}),
        "policies",
    );
    let hives: Vec<_> = windows["hives"].as_array().unwrap().iter().collect();
    assert_eq!(hives.len(), 4, "{hives:?}");
    assert_eq!(
        doc["storage"]["swap"],
        json!(["C:\\pagefile.sys", "D:\\page file.sys"])
    );
    same(
        &doc["kernels"],
        json!({"bootloader": "bootmgr", "installed": [{"version": "10.0.17763",
            "path": "/Windows/System32/ntoskrnl.exe", "initramfs": null, "default": true,
            "command_line": null}]}),
        "kernels",
    );
    let databases = &doc["databases"];
    same(
        named(databases, "kind", "mssql"),
        json!({"package": "MSSQL15.MSSQLSERVER", "version": "15.0.2000.5", "data": ["D:\\MSSQL\\DATA"]}),
        "mssql",
    );
    assert_eq!(named(databases, "kind", "postgresql")["version"], "15.4");
}

#[test]
fn software_of_all_views_and_users() {
    let (_, doc) = report(examined(tree("SYSTEM"), "dos"), &InspectOptions::default());
    let packages = &doc["packages"];
    let names: Vec<_> = packages
        .as_array()
        .unwrap()
        .iter()
        .map(|package| package["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "Hidden part",
            "KB5005112",
            "KB5032196",
            "Old 32-bit App",
            "Per-user Editor",
            "Visual C++ Runtime"
        ]
    );
    same(
        named(packages, "name", "Old 32-bit App"),
        json!({"manager": "windows", "version": "1.2", "arch": "i386",
               "purl": "pkg:generic/Acme%20%2F%20Sons/Old%2032-bit%20App@1.2"}),
        "WOW6432Node",
    );
    same(
        named(packages, "name", "KB5032196"),
        json!({"manager": "windows_update", "version": "17763.5122.1.6", "arch": "amd64"}),
        "a cumulative update",
    );
    let applications = &doc["windows"]["applications"];
    same(
        named(applications, "name", "Per-user Editor"),
        json!({"user": "Zoë", "wow64": false, "version": "3.0", "key": "Editor"}),
        "of a user",
    );
    same(
        named(applications, "name", "Visual C++ Runtime"),
        json!({"msi": true, "size": 2_097_152, "install_date": "20210102", "hidden": false}),
        "msi",
    );
    assert_eq!(named(applications, "name", "Hidden part")["hidden"], true);
    let hotfixes = &doc["windows"]["hotfixes"];
    same(
        named(hotfixes, "id", "KB5005112"),
        json!({"state": "installed", "packages": 2, "installed": "2020-11-16T11:33:20Z"}),
        "an update of two packages",
    );
    let superseded = "Package_for_RollupFix~17763.1.1.0";
    assert_eq!(named(hotfixes, "id", superseded)["state"], "superseded");
    assert_eq!(hotfixes.as_array().unwrap().len(), 3);
}

#[test]
fn services_accounts_and_interfaces() {
    let (_, doc) = report(examined(tree("SYSTEM"), "dos"), &InspectOptions::default());
    let units = &doc["services"]["units"];
    same(
        named(units, "name", "QEMU-GA"),
        json!({"manager": "windows", "state": "delayed", "user": "LocalSystem",
               "path": "HKLM\\SYSTEM\\ControlSet003\\Services\\QEMU-GA",
               "exec": "\"C:\\Program Files\\Qemu-ga\\qemu-ga.exe\" -d"}),
        "a service",
    );
    let services = &doc["windows"]["services"];
    assert_eq!(
        services.as_array().unwrap().len(),
        5,
        "NoType is none: {services:#}"
    );
    same(
        named(services, "name", "LanmanServer"),
        json!({"kind": "share_process", "start": "automatic",
               "service_dll": "%SystemRoot%\\system32\\srvsvc.dll",
               "display_name": "@%systemroot%\\system32\\srvsvc.dll,-100"}),
        "a hosted service",
    );
    same(
        named(services, "name", "vioscsi"),
        json!({"kind": "kernel_driver", "start": "boot", "group": "SCSI miniport", "user": null}),
        "a driver",
    );
    let users = &doc["users"];
    for (name, expected) in [
        (
            "Administrator",
            json!({"uid": 500, "password": "set", "sudo": true,
            "home": "C:\\Users\\Administrator"}),
        ),
        (
            "Guest",
            json!({"uid": 501, "password": "locked", "sudo": false}),
        ),
        (
            "Zoë",
            json!({"uid": 1001, "password": "set", "sudo": true, "gecos": "Zoë Doe",
            "home": "%SystemDrive%\\Users\\Zoë", "password_algorithm": "nt"}),
        ),
        (
            "kiosk",
            json!({"uid": 1002, "password": "locked", "sudo": false}),
        ),
        ("orphan", json!({"uid": 1003, "password": null})),
    ] {
        same(named(users, "name", name), expected, name);
    }
    assert_eq!(users.as_array().unwrap().len(), 5);
    let accounts = &doc["windows"]["accounts"];
    same(
        named(accounts, "name", "kiosk"),
        json!({"locked": true, "disabled": false, "password": "empty", "logins": 5}),
        "a locked account",
    );
    same(
        named(accounts, "name", "Guest"),
        json!({"disabled": true, "password": "empty", "password_not_required": true,
               "password_never_expires": true, "last_login": null}),
        "a disabled account",
    );
    assert_eq!(
        named(accounts, "name", "Administrator")["last_login"],
        "2020-11-16T11:33:20Z"
    );
    let groups = &doc["groups"];
    same(
        named(groups, "name", "Administrators"),
        json!({"gid": 544, "members": ["Administrator", "Zoë"]}),
        "administrators",
    );
    assert_eq!(
        named(groups, "name", "operators")["members"],
        json!(["kiosk"])
    );
    assert_eq!(
        named(groups, "name", "Users")["members"],
        json!(["S-1-5-11", "S-1-5-4"])
    );
    let network = &doc["network"];
    let interfaces = &network["interfaces"];
    same(
        named(interfaces, "name", "Ethernet"),
        json!({"manager": "windows", "dhcp": false, "gateways": ["192.0.2.1"],
               "addresses": ["192.0.2.10/24", "192.0.2.11/25"]}),
        "a static interface",
    );
    let profile = |name: &str, enabled: bool| {
        json!({"name": "windows", "enabled": enabled, "default": name,
               "path": "SYSTEM\\Services\\SharedAccess\\Parameters\\FirewallPolicy"})
    };
    same(
        network,
        json!({"dns": ["192.0.2.53", "192.0.2.54"], "firewall": [profile("domain", false), profile("private", true), profile("public", false)],
               "search": ["corp.example.test", "example.test"],
               "hosts": [{"address": "192.0.2.99", "names": ["build.example.test", "build"]}]}),
        "network",
    );
    let guid = "{AAAAAAAA-0000-0000-0000-000000000002}";
    same(
        named(&doc["windows"]["interfaces"], "guid", guid),
        json!({"dhcp": true, "dhcp_address": "198.51.100.7", "dhcp_server": "198.51.100.1",
               "dhcp_dns": ["198.51.100.2", "198.51.100.3"], "name": null}),
        "a DHCP interface",
    );
}

#[test]
fn drive_letters_of_both_tables() {
    for (table, letter, other, spec) in [
        ("dos", "C:", "D:", "signature=0xdeadbeef offset=53477376"),
        (
            "gpt",
            "D:",
            "C:",
            "partuuid=33221100-5544-7766-8899-AABBCCDDEEFF",
        ),
    ] {
        let (_, doc) = report(examined(tree("SYSTEM"), table), &InspectOptions::default());
        let mounts = &doc["mounts"];
        assert_eq!(
            mounts.as_array().unwrap().len(),
            3,
            "volumes without a letter are left out"
        );
        same(
            named(mounts, "target", letter),
            json!({"device": "/dev/sda2", "fs_type": "ntfs", "spec": spec}),
            table,
        );
        assert_eq!(named(mounts, "target", other)["device"], Value::Null);
        assert_eq!(
            named(mounts, "target", "E:")["spec"],
            "\\??\\IDE#CdRomQEMU_DVD-ROM"
        );
    }
}

#[test]
fn dirty_hives_tell_what_their_logs_hold() {
    for system in ["SYSTEM.new", "SYSTEM.old"] {
        let (_, doc) = report(examined(tree(system), "dos"), &InspectOptions::default());
        assert_eq!(doc["windows"]["computer_name"], "RENAMED-BY-LOG");
        let hive = named(&doc["windows"]["hives"], "name", "HKLM\\SYSTEM");
        assert_eq!(hive["recovery"]["state"], "replayed");
        let late = doc["services"]["units"].as_array().unwrap().iter();
        let late = late.filter(|unit| unit["name"].as_str().unwrap().starts_with("Late"));
        assert_eq!(late.count(), 60);
        assert_eq!(doc["coverage"]["windows"], "ok");
    }
}

#[test]
fn damage_costs_its_section_only() {
    let dir = unpack_fixtures("windows");
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    let files = [
        ("WINNT/system32/config/software", read("SOFTWARE")),
        ("WINNT/system32/config/system", b"no hive at all".to_vec()),
    ];
    let (_, doc) = report(
        examined(Tree::new(&files), "dos"),
        &InspectOptions::default(),
    );
    assert_eq!(doc["os"][0]["product_name"], "Windows Server 2019 Standard");
    assert_eq!(doc["coverage"]["windows"], "partial");
    assert_eq!(doc["coverage"]["packages"], "ok");
    assert_eq!(doc["windows"]["root_path"], "/WINNT");
    let warning = &doc["warnings"][0];
    assert_eq!(
        (&warning["section"], &warning["code"]),
        (&json!("windows"), &json!("damaged"))
    );
    // Neither is there without the hives: a data disk.
    let (_, doc) = report(
        examined(Tree::new(&[("data/x", Vec::new())]), "dos"),
        &InspectOptions::default(),
    );
    assert_eq!(doc["os"], json!([]));
}

#[test]
fn what_is_not_asked_for_is_not_read() {
    let count = |options: &InspectOptions| {
        let tree = Arc::new(tree("SYSTEM"));
        let mut examined = examined(Tree::new(&[]), "dos");
        examined.mountable[0].reader = tree.clone();
        let (_, doc) = report(examined, options);
        (tree.bytes_read.load(Ordering::Relaxed), doc)
    };
    let (all, _) = count(&InspectOptions::default());
    let (few, doc) = count(&InspectOptions::only(&["os".to_owned()]).unwrap());
    assert_eq!(doc["windows"]["services"], Value::Null);
    assert_eq!(doc["coverage"]["services"], "skipped");
    assert!(few < all, "{few} of {all}");
}

/// 600 reports over hives with flipped bytes: no panic, each in bounded time.
#[test]
fn reports_of_mutated_hives_end() {
    let dir = unpack_fixtures("windows");
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    let (software, system, sam, user) = (
        read("SOFTWARE"),
        read("SYSTEM"),
        read("SAM"),
        read("NTUSER.DAT"),
    );
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut partial = 0;
    for seed in 0..600_u32 {
        let mut flip = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            for _ in 0..1 << (seed % 8) {
                // The base block stays whole: most would end there.
                let at = 4096 + random() as usize % (bytes.len() - 4096);
                bytes[at] ^= 1 << (random() % 8);
            }
            bytes
        };
        let files = [
            ("Windows/System32/config/SOFTWARE", flip(&software)),
            ("Windows/System32/config/SYSTEM", flip(&system)),
            ("Windows/System32/config/SAM", flip(&sam)),
            ("Users/Zoë/NTUSER.DAT", flip(&user)),
        ];
        #[allow(clippy::disallowed_methods)] // a test may look at the clock
        let start = std::time::Instant::now();
        let (_, doc) = report(
            examined(Tree::new(&files), "dos"),
            &InspectOptions::default(),
        );
        assert!(start.elapsed() < Duration::from_secs(5), "seed {seed}");
        partial += usize::from(!doc["warnings"].as_array().unwrap().is_empty());
    }
    println!("600 reports of mutated hives, {partial} with warnings");
    assert!((100..600).contains(&partial), "{partial}");
}

/// Lists whose keys lead back to the root.
#[test]
fn cells_in_circles_end() {
    let dir = unpack_fixtures("windows");
    let mut software = std::fs::read(dir.path().join("SOFTWARE")).unwrap();
    // Every list of subkeys has its first element point to the root key.
    let root = software[36..40].to_vec();
    for at in (4096..software.len() - 16).step_by(8) {
        if software[at + 4..at + 6] == *b"lh" {
            software[at + 8..at + 12].copy_from_slice(&root);
        }
    }
    let files = [("Windows/System32/config/SOFTWARE", software)];
    #[allow(clippy::disallowed_methods)] // a test may look at the clock
    let start = std::time::Instant::now();
    let (_, doc) = report(
        examined(Tree::new(&files), "dos"),
        &InspectOptions::default(),
    );
    assert_eq!(doc["os"][0]["type"], "windows");
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// SYSTEM and SAM of a real Windows 7, told by hivex: the layout of accounts and groups is not only
/// what the fixtures' maker believes. `Members` of the SAM lists memberships a second time.
#[test]
fn hives_of_a_real_windows_7() {
    let Some(dir) = corpus("hives of a real Windows 7") else {
        return;
    };
    let fixtures = unpack_fixtures("windows");
    let read = |name: &str| {
        let mut bytes = Vec::new();
        let mut file = decompress(&dir.join(name)).unwrap();
        std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        bytes
    };
    let software = std::fs::read(fixtures.path().join("SOFTWARE")).unwrap();
    let files = [
        ("Windows/System32/config/SOFTWARE", software),
        ("Windows/System32/config/SYSTEM", read("regipy/SYSTEM.xz")),
        ("Windows/System32/config/SAM", read("regipy/SAM.xz")),
    ];
    let (_, doc) = report(
        examined(Tree::new(&files), "dos"),
        &InspectOptions::default(),
    );
    for (section, coverage) in doc["coverage"].as_object().unwrap() {
        assert_eq!(coverage, "ok", "{section}: {:#}", doc["warnings"]);
    }
    same(
        &doc["os"][0],
        json!({"hostname": "WKS-WIN732BITA", "arch": "i386", "timezone": "Eastern Standard Time"}),
        "os",
    );
    let mut starts = std::collections::BTreeMap::new();
    for unit in doc["services"]["units"].as_array().unwrap() {
        let state = unit["state"]
            .as_str()
            .unwrap()
            .replace("delayed", "automatic");
        *starts.entry(state).or_insert(0) += 1;
    }
    let starts: Vec<_> = starts.into_iter().collect();
    let expected = [
        ("automatic", 61),
        ("boot", 36),
        ("disabled", 9),
        ("manual", 282),
        ("system", 28),
    ];
    assert_eq!(starts, expected.map(|(state, n)| (state.to_owned(), n)));
    let accounts: Vec<_> = doc["windows"]["accounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| {
            json!([
                a["rid"],
                a["name"],
                a["disabled"],
                a["password"],
                a["administrator"],
                a["logins"]
            ])
        })
        .collect();
    assert_eq!(
        Value::from(accounts),
        json!([
            [500, "Administrator", true, "set", true, 6],
            [501, "Guest", true, "empty", false, 0],
            [1000, "Preston", false, "set", true, 4],
        ])
    );
    let groups: Vec<_> = doc["groups"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|group| group["members"] != json!([]))
        .map(|group| json!([group["gid"], group["name"], group["members"]]))
        .collect();
    assert_eq!(
        Value::from(groups),
        json!([
            [544, "Administrators", ["Administrator", "Preston"]],
            [545, "Users", ["Preston", "S-1-5-11", "S-1-5-4"]],
            [546, "Guests", ["Guest"]],
            [568, "IIS_IUSRS", ["S-1-5-17"]],
        ])
    );
    assert_eq!(doc["groups"].as_array().unwrap().len(), 14);
    let interfaces: Vec<_> = doc["network"]["interfaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| {
            json!([
                i["addresses"][0].as_str().unwrap().split('/').next(),
                i["gateways"]
            ])
        })
        .collect();
    assert_eq!(interfaces.len(), 2);
    assert!(interfaces.contains(&json!(["10.3.58.5", ["10.3.58.1"]])));
    assert!(interfaces.contains(&json!(["192.168.1.123", ["192.168.1.1"]])));
    assert_eq!(doc["windows"]["rdp"]["enabled"], true);
    let letters: Vec<_> = doc["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["target"])
        .collect();
    assert_eq!(letters, ["A:", "C:", "D:", "E:"]);
}

/// The corpus' Windows 11: everything that its registry exports and virt-inspector say.
#[test]
fn the_guest_of_the_corpus_agrees_with_its_truth() {
    let Some(dir) = corpus("the Windows guest") else {
        return;
    };
    let guest = dir.join("guests/win11-mbr-ntfs");
    let Some(examined) = open_guest(&guest) else {
        return;
    };
    check_guest(examined, &guest);
}

/// `None`, after one line, while the container or the file system is not read.
fn open_guest(guest: &Path) -> Option<Examined> {
    let budget = crate::support::budget(Duration::from_secs(60));
    let container = match open_host(guest, "win11-mbr-ntfs-streamOptimized.vmdk", &budget) {
        Err(DiskError::Unsupported { feature }) => {
            eprintln!("not run: the Windows guest: {feature}");
            return None;
        }
        other => other.unwrap(),
    };
    let examined = layers::examine(&container).unwrap();
    if examined.mountable.is_empty() {
        eprintln!("not run: the Windows guest: its file system is not read");
        return None;
    }
    Some(examined)
}

fn check_guest(examined: Examined, guest: &Path) {
    let (_, doc) = report(examined, &InspectOptions::default());
    let text = std::fs::read_to_string(guest.join("truth/partitions.json")).unwrap();
    let truth: Value = serde_json::from_str(&text).unwrap();
    let expected = truth["partitiontable"]["partitions"].as_array().unwrap();
    let found = doc["disk"]["partitions"].as_array().unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(
            found["start"].as_u64().unwrap(),
            expected["start"].as_u64().unwrap() * 512
        );
        assert_eq!(
            found["size"].as_u64().unwrap(),
            expected["size"].as_u64().unwrap() * 512
        );
    }
    same(
        &doc["os"][0],
        json!({
            "type": "windows", "product_name": "Windows 11 Pro", "major": 10, "minor": 0,
            "pretty_name": "Windows 11 Pro 23H2", "version": "10.0.22631", "build": "22631.2715",
            "variant": "Client", "edition": "Professional", "arch": "i386", "root": "/dev/sda2",
            "hostname": "DESKTOP-ALICE", "timezone": "W. Europe Standard Time",
            "install_date": "2023-11-14T22:13:20Z", "software": ["virtio-scsi"],
            "cpe": "cpe:2.3:o:microsoft:windows_11_23h2:10.0.22631.2715:*:*:*:*:*:x86:*",
        }),
        "os",
    );
    same(
        &doc["windows"],
        json!({
            "product_name_registry": "Windows 10 Pro", "edition_id": "Professional",
            "display_version": "23H2", "current_version": "6.3", "build": 22631, "ubr": 2715,
            "installation_type": "Client", "registered_owner": "Alice",
            "registered_organization": "Example GmbH", "product_id": "00330-80000-00000-AA000",
            "system_root": "C:\\Windows", "root_path": "/Windows",
            "current_control_set": "ControlSet002",
            "control_sets": ["ControlSet001", "ControlSet002"],
            "computer_name": "DESKTOP-ALICE", "hostname": "DESKTOP-ALICE",
            "domain": "corp.example.test", "timezone_bias": -60,
        }),
        "windows",
    );
    let applications: Vec<_> = doc["windows"]["applications"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| {
            json!([
                a["key"],
                a["name"],
                a["version"],
                a["publisher"],
                a["install_location"],
                a["wow64"],
                a["hidden"]
            ])
        })
        .collect();
    assert_eq!(
        Value::from(applications),
        json!([
            [
                "7-Zip",
                "7-Zip 23.01 (x64)",
                "23.01",
                "Igor Pavlov",
                "C:\\Program Files\\7-Zip\\",
                false,
                false
            ],
            ["KB5000001", "Hidden update", null, null, null, false, true],
            [
                "Notepad++",
                "Notepad++ (32-bit x86)",
                "8.6",
                "Notepad++ Team",
                null,
                true,
                false
            ],
            [
                "{11111111-AAAA-BBBB-CCCC-000000000001}",
                "QEMU guest agent",
                "107.0.1",
                "RedHat",
                null,
                false,
                false
            ],
        ])
    );
    assert_eq!(
        doc["users"]
            .as_array()
            .unwrap()
            .iter()
            .map(|u| json!([u["uid"], u["name"], u["home"]]))
            .collect::<Vec<_>>(),
        [
            json!([500, "Administrator", ""]),
            json!([1001, "Alice", "C:\\Users\\Alice"])
        ]
    );
    let units: Vec<_> = doc["services"]["units"]
        .as_array()
        .unwrap()
        .iter()
        .map(|u| json!([u["name"], u["state"], u["exec"], u["user"]]))
        .collect();
    assert_eq!(
        Value::from(units),
        json!([
            [
                "TermService",
                "manual",
                "%SystemRoot%\\System32\\svchost.exe -k NetworkService",
                "NT Authority\\NetworkService"
            ],
            ["vioscsi", "boot", "System32\\drivers\\vioscsi.sys", null],
        ])
    );
    same(
        &doc["network"]["interfaces"][0],
        json!({"name": "{22222222-AAAA-BBBB-CCCC-000000000001}", "dhcp": false,
               "addresses": ["192.0.2.77"], "gateways": ["192.0.2.1"]}),
        "network",
    );
    assert_eq!(
        doc["network"]["hosts"],
        json!([{"address": "127.0.0.1", "names": ["localhost"]}])
    );
    // The entry's offset (0x6500000) is that of no partition, so virt-inspector maps no drive either.
    same(
        &doc["mounts"][0],
        json!({"target": "C:", "spec": "signature=0xdeadbeef offset=105906176", "device": null}),
        "mounts",
    );
}
