//! Which Windows it is.

use super::keys::Reader;
use super::system::System;
use crate::guest::clean;
use crate::guest::time;
use crate::report::Os;
use crate::report::windows::Windows;
use crate::vfs::GuestRoot;

const VERSION_KEY: &str = "Microsoft\\Windows NT\\CurrentVersion";
/// From this build on a client is Windows 11, whatever `ProductName` says.
const WINDOWS_11: u32 = 22_000;
/// Reads of a program's header.
const PE_HEAD: usize = 4_096;

/// Client releases: build and the name that CPE names carry.
const CLIENTS: [(u32, &str); 19] = [
    (10_240, "1507"),
    (10_586, "1511"),
    (14_393, "1607"),
    (15_063, "1703"),
    (16_299, "1709"),
    (17_134, "1803"),
    (17_763, "1809"),
    (18_362, "1903"),
    (18_363, "1909"),
    (19_041, "2004"),
    (19_042, "20h2"),
    (19_043, "21h1"),
    (19_044, "21h2"),
    (19_045, "22h2"),
    (22_000, "21h2"),
    (22_621, "22h2"),
    (22_631, "23h2"),
    (26_100, "24h2"),
    (26_200, "25h2"),
];
/// Server releases.
const SERVERS: [(u32, &str); 12] = [
    (14_393, "2016"),
    (16_299, "1709"),
    (17_134, "1803"),
    (17_763, "2019"),
    (18_362, "1903"),
    (18_363, "1909"),
    (19_041, "2004"),
    (19_042, "20h2"),
    (20_348, "2022"),
    (25_398, "2022_23h2"),
    (26_100, "2025"),
    (26_200, "2025"),
];

/// Describes the system; `device` holds its root directory.
pub(super) fn read(root: &GuestRoot, system: &mut System, device: &str) -> (Os, Windows) {
    let mut reader = std::mem::take(&mut system.reader);
    let mut windows = version(&mut reader, system);
    identity(&mut reader, system, &mut windows);
    windows.root_path.clone_from(&system.directory);
    windows.control_sets.clone_from(&system.control_sets);
    windows.current_control_set.clone_from(&system.control_set);
    let arch = arch(&mut reader, system, root);
    let software = reader
        .values_at(system.software.as_ref(), "Microsoft\\Cryptography")
        .text(&mut reader, "MachineGuid");
    let values = reader.values_at(system.software.as_ref(), VERSION_KEY);
    let major = values.dword(&mut reader, "CurrentMajorVersionNumber");
    let minor = values.dword(&mut reader, "CurrentMinorVersionNumber");
    let numbers = windows.current_version.as_deref().unwrap_or_default();
    let mut numbers = numbers.split('.').map(|part| part.parse().ok());
    let (first, second) = (numbers.next().flatten(), numbers.next().flatten());
    let (major, minor) = (major.or(first), minor.or(second));
    let version = match (major, minor, windows.build) {
        (Some(major), Some(minor), Some(build)) => Some(format!("{major}.{minor}.{build}")),
        _ => None,
    };
    let os = Os {
        os_type: "windows".to_owned(),
        distro: "windows".to_owned(),
        cpe: cpe(&windows, major, minor, arch.as_deref()),
        major,
        minor,
        variant: windows.installation_type.clone(),
        product_name: windows.product_name.clone(),
        pretty_name: pretty(&windows),
        build: windows.build.map(|build| match windows.ubr {
            Some(ubr) => format!("{build}.{ubr}"),
            None => build.to_string(),
        }),
        edition: windows.edition_id.clone(),
        install_date: windows.install_date.clone(),
        arch,
        hostname: windows
            .hostname
            .clone()
            .or_else(|| windows.computer_name.clone()),
        machine_id: software,
        timezone: windows.timezone.clone(),
        root: device.to_owned(),
        evidence: system.hives.iter().map(|hive| hive.path.clone()).collect(),
        software: tools(&mut reader, system),
        version,
        ..Os::default()
    };
    windows.hives.clone_from(&system.hives);
    system.reader = reader;
    (os, windows)
}

fn version(reader: &mut Reader, system: &System) -> Windows {
    let values = reader.values_at(system.software.as_ref(), VERSION_KEY);
    let text = |reader: &mut Reader, name: &str| values.text(reader, name);
    let build = text(reader, "CurrentBuildNumber")
        .or_else(|| text(reader, "CurrentBuild"))
        .and_then(|text| text.parse().ok());
    let product = text(reader, "ProductName");
    let installation = text(reader, "InstallationType");
    let is_client = installation
        .as_deref()
        .is_none_or(|kind| kind.eq_ignore_ascii_case("client"));
    Windows {
        product_name: product
            .as_ref()
            .map(|name| match name.strip_prefix("Windows 10") {
                Some(rest) if is_client && build >= Some(WINDOWS_11) => {
                    format!("Windows 11{rest}")
                }
                _ => name.clone(),
            }),
        product_name_registry: product,
        edition_id: text(reader, "EditionID"),
        display_version: text(reader, "DisplayVersion").or_else(|| text(reader, "ReleaseId")),
        current_version: text(reader, "CurrentVersion"),
        build,
        ubr: values.dword(reader, "UBR"),
        installation_type: installation,
        service_pack: text(reader, "CSDVersion"),
        product_id: text(reader, "ProductId"),
        registered_owner: text(reader, "RegisteredOwner"),
        registered_organization: text(reader, "RegisteredOrganization"),
        install_date: values.number(reader, "InstallDate").and_then(time::unix),
        system_root: text(reader, "SystemRoot"),
        ..Windows::default()
    }
}

fn identity(reader: &mut Reader, system: &System, windows: &mut Windows) {
    let mut control = |path: &str| match system.control(path) {
        Some((hive, path)) => reader.values_at(hive, &path),
        None => Default::default(),
    };
    let computer = control("Control\\ComputerName\\ComputerName");
    let tcpip = control("Services\\Tcpip\\Parameters");
    let zone = control("Control\\TimeZoneInformation");
    let shutdown = control("Control\\Windows");
    windows.computer_name = computer.text(reader, "ComputerName");
    windows.hostname = tcpip
        .text(reader, "Hostname")
        .or_else(|| tcpip.text(reader, "NV Hostname"));
    windows.domain = tcpip
        .text(reader, "Domain")
        .or_else(|| tcpip.text(reader, "NV Domain"));
    windows.timezone = zone
        .text(reader, "TimeZoneKeyName")
        .or_else(|| zone.text(reader, "StandardName"));
    windows.timezone_bias = zone.dword(reader, "Bias").map(u32::cast_signed);
    windows.last_shutdown = shutdown
        .bytes(reader, "ShutdownTime", 8)
        .and_then(|bytes| bytes.try_into().ok().map(u64::from_le_bytes))
        .and_then(time::filetime);
}

/// PROCESSOR_ARCHITECTURE of the system's environment, else what its programs are made for.
fn arch(reader: &mut Reader, system: &System, root: &GuestRoot) -> Option<String> {
    let told = system
        .control("Control\\Session Manager\\Environment")
        .map(|(hive, path)| reader.values_at(hive, &path))
        .and_then(|values| values.text(reader, "PROCESSOR_ARCHITECTURE"))
        .and_then(|name| match name.to_ascii_uppercase().as_str() {
            "AMD64" => Some("amd64"),
            "ARM64" => Some("arm64"),
            "X86" => Some("i386"),
            "ARM" => Some("armhf"),
            "IA64" => Some("ia64"),
            _ => None,
        });
    let found = told.or_else(|| {
        ["ntoskrnl.exe", "ntdll.dll", "cmd.exe"]
            .iter()
            .find_map(|name| machine(root, &format!("{}/System32/{name}", system.directory)))
    });
    found.map(str::to_owned)
}

/// `Machine` of a program's COFF header (PE format, "MS-DOS Stub": offset 0x3c).
fn machine(root: &GuestRoot, path: &str) -> Option<&'static str> {
    let layer = root.find(path).ok()??.layer().ok()??;
    let head = crate::bytes::read_upto(&layer, 0, PE_HEAD).ok()?;
    let record = crate::bytes::Record::new("PE header", 0, &head);
    if record.slice(0, 2).ok()? != b"MZ" {
        return None;
    }
    let at = usize::try_from(record.u32_le(0x3c).ok()?).ok()?;
    if record.slice(at, 4).ok()? != b"PE\0\0" {
        return None;
    }
    match record.u16_le(at.checked_add(4)?).ok()? {
        0x014c => Some("i386"),
        0x8664 => Some("amd64"),
        0xaa64 => Some("arm64"),
        0x01c4 => Some("armhf"),
        0x0200 => Some("ia64"),
        _ => None,
    }
}

fn pretty(windows: &Windows) -> Option<String> {
    let mut name = windows.product_name.clone()?;
    let parts = [&windows.display_version, &windows.service_pack];
    for part in parts.into_iter().flatten() {
        name.push(' ');
        name.push_str(part);
    }
    Some(clean(&name))
}

/// The name under which the National Vulnerability Database keeps this release:
/// `cpe:2.3:o:microsoft:windows_11_23h2:10.0.22631.2715:*:*:*:*:*:x64:*`. Releases before
/// Windows 10 have no version there but `-` or `r2`, and their service pack as update.
fn cpe(
    windows: &Windows,
    major: Option<u32>,
    minor: Option<u32>,
    arch: Option<&str>,
) -> Option<String> {
    let build = windows.build?;
    let server = windows
        .installation_type
        .as_deref()
        .map(|kind| kind.to_ascii_lowercase().starts_with("server"))
        .unwrap_or_else(|| {
            let name = windows.product_name.as_deref().unwrap_or_default();
            name.contains("Server")
        });
    let hardware = match arch {
        Some("amd64") => "x64",
        Some("arm64") => "arm64",
        Some("i386") => "x86",
        _ => "*",
    };
    let update = windows
        .service_pack
        .as_deref()
        .and_then(|pack| pack.strip_prefix("Service Pack "))
        .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or_else(|| "-".to_owned(), |number| format!("sp{number}"));
    let old = |product: &str, version: &str| {
        Some(format!(
            "cpe:2.3:o:microsoft:{product}:{version}:{update}:*:*:*:*:{hardware}:*"
        ))
    };
    match (major?, minor?, server) {
        (5, 0, _) => return old("windows_2000", "-"),
        (5, 1, _) => return old("windows_xp", "-"),
        (5, 2, true) => return old("windows_server_2003", "-"),
        (5, 2, false) => return old("windows_xp", "-"),
        (6, 0, true) => return old("windows_server_2008", "-"),
        (6, 0, false) => return old("windows_vista", "-"),
        (6, 1, true) => return old("windows_server_2008", "r2"),
        (6, 1, false) => return old("windows_7", "-"),
        (6, 2, true) => return old("windows_server_2012", "-"),
        (6, 2, false) => return old("windows_8", "-"),
        (6, 3, true) => return old("windows_server_2012", "r2"),
        (6, 3, false) => return old("windows_8.1", "-"),
        _ => {}
    }
    let table: &[(u32, &str)] = if server { &SERVERS } else { &CLIENTS };
    let known = table.iter().find(|(known, _)| *known == build);
    let release = match known {
        Some((_, release)) => (*release).to_owned(),
        // A release that is newer than this table says its own name.
        None => windows.display_version.as_ref()?.to_ascii_lowercase(),
    };
    if !release
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        return None;
    }
    let product = match (server, build >= WINDOWS_11) {
        (true, _) => "windows_server",
        (false, true) => "windows_11",
        (false, false) => "windows_10",
    };
    let ubr = windows.ubr.map(|ubr| format!(".{ubr}")).unwrap_or_default();
    Some(format!(
        "cpe:2.3:o:microsoft:{product}_{release}:10.0.{build}{ubr}:*:*:*:*:*:{hardware}:*"
    ))
}

/// What platform teams ask for first, told by the service that it brings.
fn tools(reader: &mut Reader, system: &System) -> Vec<String> {
    let known = [
        ("amazon-ssm-agent", "AmazonSSMAgent"),
        ("cloudbase-init", "cloudbase-init"),
        ("containerd", "containerd"),
        ("docker", "docker"),
        ("ec2launch", "Amazon EC2Launch"),
        ("google-guest-agent", "GCEAgent"),
        ("hyper-v-integration", "vmicheartbeat"),
        ("open-vm-tools", "VMTools"),
        ("qemu-guest-agent", "QEMU-GA"),
        ("spice-vdagent", "vdservice"),
        ("virtio-balloon", "BalloonService"),
        ("virtio-net", "netkvm"),
        ("virtio-scsi", "vioscsi"),
        ("virtio-storage", "viostor"),
        ("virtualbox-guest-additions", "VBoxService"),
        ("walinuxagent", "WindowsAzureGuestAgent"),
        ("xen-tools", "xenagent"),
    ];
    let Some(services) = system
        .control("Services")
        .and_then(|(hive, path)| reader.key(hive, &path))
    else {
        return Vec::new();
    };
    known
        .iter()
        .filter(|(_, service)| reader.below(&services, service).is_some())
        .map(|(name, _)| (*name).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(kind: &str, build: u32, ubr: Option<u32>, version: (u32, u32)) -> Option<String> {
        let windows = Windows {
            installation_type: Some(kind.to_owned()),
            build: Some(build),
            ubr,
            service_pack: (version == (6, 1)).then(|| "Service Pack 1".to_owned()),
            display_version: Some("26H2".to_owned()),
            ..Windows::default()
        };
        cpe(&windows, Some(version.0), Some(version.1), Some("amd64"))
    }

    #[test]
    fn names_for_vulnerability_databases() {
        for (found, expected) in [
            (
                name("Client", 22_631, Some(2_715), (10, 0)),
                "cpe:2.3:o:microsoft:windows_11_23h2:10.0.22631.2715:*:*:*:*:*:x64:*",
            ),
            (
                name("Client", 19_045, None, (10, 0)),
                "cpe:2.3:o:microsoft:windows_10_22h2:10.0.19045:*:*:*:*:*:x64:*",
            ),
            (
                name("Server Core", 20_348, Some(1), (10, 0)),
                "cpe:2.3:o:microsoft:windows_server_2022:10.0.20348.1:*:*:*:*:*:x64:*",
            ),
            (
                name("Server", 7_601, None, (6, 1)),
                "cpe:2.3:o:microsoft:windows_server_2008:r2:sp1:*:*:*:*:x64:*",
            ),
            (
                name("Client", 9_600, None, (6, 3)),
                "cpe:2.3:o:microsoft:windows_8.1:-:-:*:*:*:*:x64:*",
            ),
            (
                name("Client", 28_000, Some(5), (10, 0)),
                "cpe:2.3:o:microsoft:windows_11_26h2:10.0.28000.5:*:*:*:*:*:x64:*",
            ),
        ] {
            assert_eq!(found.as_deref(), Some(expected));
        }
    }
}
