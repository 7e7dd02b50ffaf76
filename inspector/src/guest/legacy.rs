//! Systems from before os-release: what their own files say, in the words of os-release(5); and
//! names of systems in the form of CPE 2.3 (NIST IR 7695).

use super::os::first_line;
use super::{CONFIG_MAX, ini};
use crate::vfs::GuestRoot;
use std::collections::BTreeMap;

/// Largest BusyBox that is searched for its version.
const BUSYBOX_MAX: u64 = 2 << 20;

type Release = BTreeMap<String, String>;
/// Looks into one kind of file: its path and what it says.
type Reader = fn(&GuestRoot) -> Option<(String, Release)>;

/// Files of one line, as `NAME release VERSION (Codename)`.
const RELEASE_FILES: [&str; 7] = [
    "/etc/oracle-release",
    "/etc/centos-release",
    "/etc/redhat-release",
    "/etc/system-release",
    "/etc/fedora-release",
    "/usr/lib/system-release",
    "/etc/mariner-release",
];

/// Start of a name and the ID that os-release would have.
const NAMES: [(&str, &str); 12] = [
    ("red hat enterprise", "rhel"),
    ("centos", "centos"),
    ("rocky", "rocky"),
    ("almalinux", "almalinux"),
    ("oracle", "ol"),
    ("enterprise linux enterprise linux", "ol"),
    ("scientific", "scientific"),
    ("fedora", "fedora"),
    ("amazon", "amzn"),
    ("virtuozzo", "virtuozzo"),
    ("cbl-mariner", "mariner"),
    ("photon", "photon"),
];

pub(super) fn release(root: &GuestRoot, evidence: &mut Vec<String>) -> Option<Release> {
    let readers: [Reader; 7] = [one_line, suse, lsb, system_cpe, alpine, by_name, busybox];
    for reader in readers {
        if let Some((path, release)) = reader(root) {
            evidence.push(path);
            return Some(release);
        }
    }
    None
}

fn of(fields: &[(&str, &str)]) -> Release {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    fields.iter().map(owned).collect()
}

fn one_line(root: &GuestRoot) -> Option<(String, Release)> {
    RELEASE_FILES.iter().find_map(|path| {
        let release = release_line(&first_line(root, path)?)?;
        Some(((*path).to_owned(), release))
    })
}

/// `CentOS release 6.10 (Final)`.
fn release_line(line: &str) -> Option<Release> {
    let (name, rest) = line
        .split_once(" release ")
        .or_else(|| line.split_once(' '))?;
    let (version, codename) = match rest.split_once('(') {
        Some((version, codename)) => (version.trim(), codename.trim_end_matches(')').trim()),
        None => (rest.trim(), ""),
    };
    let version = version.split_whitespace().next().unwrap_or_default();
    if !version.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let small = name.to_lowercase();
    let known = NAMES.iter().find(|(start, _)| small.starts_with(start));
    let first = small.split_whitespace().next().unwrap_or("linux");
    let id = known.map_or(first, |(_, id)| *id);
    let name = name.trim_end_matches(" Linux Server");
    let mut release = of(&[
        ("ID", id),
        ("NAME", name),
        ("VERSION_ID", version),
        ("PRETTY_NAME", line),
    ]);
    if !codename.is_empty() {
        release.insert("VERSION_CODENAME".to_owned(), codename.to_lowercase());
    }
    if matches!(id, "centos" | "rocky" | "almalinux" | "ol" | "scientific") {
        release.insert("ID_LIKE".to_owned(), "rhel fedora".to_owned());
    }
    Some(release)
}

/// `SUSE Linux Enterprise Server 11 (x86_64)`, then VERSION and PATCHLEVEL.
fn suse(root: &GuestRoot) -> Option<(String, Release)> {
    let path = "/etc/SuSE-release";
    let text = root.text(path, CONFIG_MAX).ok().flatten()?;
    let line = text.lines().next()?.trim();
    let settings: Release = ini::assignments(&text).into_iter().collect();
    let version = settings.get("VERSION")?;
    let id = match line.to_lowercase() {
        line if line.starts_with("opensuse") => "opensuse",
        line if line.contains("desktop") => "sled",
        _ => "sles",
    };
    let version = match settings.get("PATCHLEVEL").filter(|level| *level != "0") {
        Some(level) => format!("{version}.{level}"),
        None => version.clone(),
    };
    let release = of(&[
        ("ID", id),
        ("ID_LIKE", "suse"),
        ("NAME", line.split(" (").next().unwrap_or(line)),
        ("VERSION_ID", &version),
        ("PRETTY_NAME", line),
    ]);
    Some((path.to_owned(), release))
}

/// Ubuntu and its derivatives.
fn lsb(root: &GuestRoot) -> Option<(String, Release)> {
    let path = "/etc/lsb-release";
    let text = root.text(path, CONFIG_MAX).ok().flatten()?;
    let settings: Release = ini::assignments(&text).into_iter().collect();
    let get = |key: &str| settings.get(key).map(String::as_str).unwrap_or_default();
    let id = get("DISTRIB_ID").to_lowercase();
    if id.is_empty() {
        return None;
    }
    let release = of(&[
        ("ID", &id),
        ("NAME", get("DISTRIB_ID")),
        ("VERSION_ID", get("DISTRIB_RELEASE")),
        ("VERSION_CODENAME", get("DISTRIB_CODENAME")),
        ("PRETTY_NAME", get("DISTRIB_DESCRIPTION")),
    ]);
    Some((path.to_owned(), release))
}

/// `cpe:/o:centos:linux:6:GA`: part, vendor, product, version.
fn system_cpe(root: &GuestRoot) -> Option<(String, Release)> {
    let path = "/etc/system-release-cpe";
    let line = first_line(root, path)?;
    let parts: Vec<&str> = line.strip_prefix("cpe:/o:")?.split(':').collect();
    let [vendor, _, version, ..] = parts.as_slice() else {
        return None;
    };
    let release = of(&[
        ("ID", if *vendor == "redhat" { "rhel" } else { vendor }),
        ("NAME", vendor),
        ("VERSION_ID", version),
        ("CPE_NAME", &line),
    ]);
    Some((path.to_owned(), release))
}

fn alpine(root: &GuestRoot) -> Option<(String, Release)> {
    let path = "/etc/alpine-release";
    let version = first_line(root, path)?;
    let release = of(&[
        ("ID", "alpine"),
        ("NAME", "Alpine Linux"),
        ("VERSION_ID", &version),
    ]);
    Some((path.to_owned(), release))
}

/// Files whose being there says enough.
fn by_name(root: &GuestRoot) -> Option<(String, Release)> {
    let known = [
        ("/etc/debian_version", "debian", "Debian GNU/Linux"),
        ("/etc/arch-release", "arch", "Arch Linux"),
        ("/etc/gentoo-release", "gentoo", "Gentoo"),
        ("/etc/slackware-version", "slackware", "Slackware"),
    ];
    known.into_iter().find_map(|(path, id, name)| {
        root.exists(path).ok().filter(|exists| *exists)?;
        let mut release = of(&[("ID", id), ("NAME", name)]);
        let line = first_line(root, path).unwrap_or_default();
        let version = line
            .split_whitespace()
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        if let Some(version) = version {
            release.insert("VERSION_ID".to_owned(), version.to_owned());
        }
        Some((path.to_owned(), release))
    })
}

/// An image that is little more than BusyBox: its version is text inside the program.
fn busybox(root: &GuestRoot) -> Option<(String, Release)> {
    let path = "/bin/busybox";
    let bytes = root.read(path, BUSYBOX_MAX).ok().flatten()?;
    let mark = b"BusyBox v";
    let at = bytes.windows(mark.len()).position(|part| part == mark)?;
    let rest = bytes.get(at.checked_add(mark.len())?..)?;
    let is_version = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let version: Vec<u8> = rest
        .iter()
        .copied()
        .take_while(is_version)
        .take(16)
        .collect();
    let version = String::from_utf8(version)
        .ok()
        .filter(|text| !text.is_empty())?;
    let release = of(&[
        ("ID", "busybox"),
        ("NAME", "busybox"),
        ("VERSION_ID", &version),
        ("PRETTY_NAME", &format!("BusyBox v{version}")),
    ]);
    Some((path.to_owned(), release))
}

/// A CPE name of a distribution whose os-release has none.
pub(super) fn cpe(distro: &str, version: Option<&str>) -> Option<String> {
    let (vendor, product) = match distro {
        "debian" => ("debian", "debian_linux"),
        "ubuntu" => ("canonical", "ubuntu_linux"),
        "alpine" => ("alpinelinux", "alpine_linux"),
        "arch" => ("archlinux", "arch_linux"),
        "centos" => ("centos", "centos"),
        "rhel" => ("redhat", "enterprise_linux"),
        "fedora" => ("fedoraproject", "fedora"),
        "ol" => ("oracle", "linux"),
        "amzn" => ("amazon", "linux"),
        "mariner" => ("microsoft", "cbl-mariner"),
        "azurelinux" => ("microsoft", "azure_linux"),
        "photon" => ("vmware", "photon_os"),
        "gentoo" => ("gentoo", "linux"),
        _ => return None,
    };
    let version = version.map_or_else(|| "*".to_owned(), escape);
    Some(format!(
        "cpe:2.3:o:{vendor}:{product}:{version}:*:*:*:*:*:*:*"
    ))
}

/// A name in either binding (`cpe:/o:…`, `cpe:2.3:o:…`) as a whole formatted string of eleven parts.
pub(super) fn formatted_cpe(name: &str) -> Option<String> {
    let (parts, is_uri) = match name.strip_prefix("cpe:2.3:") {
        Some(parts) => (parts, false),
        None => (name.strip_prefix("cpe:/")?, true),
    };
    let mut out: Vec<String> = parts
        .split(':')
        .take(11)
        .map(|part| match part {
            "" => "*".to_owned(),
            part if is_uri => escape(part),
            part => part.to_owned(),
        })
        .collect();
    out.resize(11, "*".to_owned());
    Some(format!("cpe:2.3:{}", out.join(":")))
}

/// Quotes what a formatted string does not leave plain.
fn escape(part: &str) -> String {
    let mut out = String::new();
    for c in part.chars() {
        if !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '*')) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_lines_are_taken_apart() {
        for (line, id, version) in [
            (
                "Red Hat Enterprise Linux release 8.10 (Ootpa)",
                "rhel",
                "8.10",
            ),
            ("CentOS release 5.7 (Final)", "centos", "5.7"),
            ("Oracle Linux Server release 7.9", "ol", "7.9"),
            ("Amazon Linux release 2 (Karoo)", "amzn", "2"),
            ("Fedora release 20 (Heisenbug)", "fedora", "20"),
            ("CBL-Mariner 2.0.20220527", "mariner", "2.0.20220527"),
        ] {
            let release = release_line(line).unwrap();
            assert_eq!((&*release["ID"], &*release["VERSION_ID"]), (id, version));
        }
        assert_eq!(release_line("rawhide"), None);
    }

    #[test]
    fn cpe_names_have_eleven_parts() {
        assert_eq!(
            formatted_cpe("cpe:/o:redhat:enterprise_linux:8::baseos").as_deref(),
            Some("cpe:2.3:o:redhat:enterprise_linux:8:*:baseos:*:*:*:*:*")
        );
        assert_eq!(
            formatted_cpe("cpe:2.3:o:amazon:amazon_linux:2").as_deref(),
            Some("cpe:2.3:o:amazon:amazon_linux:2:*:*:*:*:*:*:*")
        );
        assert_eq!(formatted_cpe("nonsense"), None);
        assert_eq!(escape("1+2"), "1\\+2");
    }
}
