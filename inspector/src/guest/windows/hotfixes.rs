//! Updates: packages of Component Based Servicing, put together by KB number.

use super::keys::{Reader, Values};
use super::purl;
use super::system::System;
use crate::guest::clean;
use crate::guest::time;
use crate::report::windows::Hotfix;
use crate::report::{Os, Package};
use std::collections::BTreeMap;

const PACKAGES: &str = "Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\Packages";
/// Before Vista.
const HOTFIX: &str = "Microsoft\\Windows NT\\CurrentVersion\\HotFix";

/// States by `CurrentState` (DISM's, in the registry's numbers), the strongest first: an update is
/// installed when one of its packages is.
const STATES: [(u32, &str); 7] = [
    (0x70, "installed"),
    (0x80, "installed"),
    (0x60, "install_pending"),
    (0x05, "uninstall_pending"),
    (0x50, "superseded"),
    (0x40, "staged"),
    (0x00, "absent"),
];

struct Found {
    rank: usize,
    version: Option<(Vec<u32>, String)>,
    installed: u64,
    packages: u32,
}

pub(super) fn read(reader: &mut Reader, system: &System) -> Vec<Hotfix> {
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    if let Some(packages) = reader.key(system.software.as_ref(), PACKAGES) {
        for key in reader.subkeys(&packages) {
            // Thousands of keys are features and languages: only updates are looked into.
            let name = key.name();
            if !name.contains("RollupFix") && kb(name).is_none() {
                continue;
            }
            let values = reader.values(&key);
            add(reader, name, &values, &mut found);
        }
    }
    let mut hotfixes: Vec<Hotfix> = found
        .into_iter()
        .map(|(id, found)| Hotfix {
            id,
            state: STATES
                .get(found.rank)
                .map_or("unknown", |(_, state)| *state),
            version: found.version.map(|(_, text)| text),
            installed: time::filetime(found.installed),
            packages: found.packages,
        })
        .collect();
    if hotfixes.is_empty()
        && let Some(old) = reader.key(system.software.as_ref(), HOTFIX)
    {
        for key in reader.subkeys(&old) {
            hotfixes.extend(kb(key.name()).map(|id| Hotfix {
                id,
                state: "installed",
                version: None,
                installed: None,
                packages: 1,
            }));
        }
        hotfixes.sort_unstable();
    }
    hotfixes
}

fn add(reader: &mut Reader, name: &str, values: &Values<'_>, found: &mut BTreeMap<String, Found>) {
    let mut id = kb(name);
    // Cumulative updates tell their number only where their files came from.
    for value in ["InstallName", "InstallLocation"] {
        id = id.or_else(|| values.text(reader, value).as_deref().and_then(kb));
    }
    let version = name.rsplit('~').next().unwrap_or_default();
    let id = id.unwrap_or_else(|| {
        let short = name.split('~').next().unwrap_or(name);
        clean(&format!("{short}~{version}"))
    });
    let state = values.dword(reader, "CurrentState").unwrap_or(0);
    let rank = STATES
        .iter()
        .position(|(known, _)| *known == state)
        .unwrap_or(STATES.len());
    let low = values.number(reader, "InstallTimeLow").unwrap_or(0);
    let high = values.number(reader, "InstallTimeHigh").unwrap_or(0);
    let installed = high.checked_shl(32).unwrap_or(0) | (low & 0xffff_ffff);
    let numbers: Vec<u32> = version
        .split('.')
        .map_while(|part| part.parse().ok())
        .collect();
    let version = (!numbers.is_empty()).then(|| (numbers, clean(version)));
    let entry = found.entry(id).or_insert(Found {
        rank: STATES.len(),
        version: None,
        installed: 0,
        packages: 0,
    });
    entry.rank = entry.rank.min(rank);
    entry.version = entry.version.take().max(version);
    entry.installed = entry.installed.max(installed);
    entry.packages = entry.packages.saturating_add(1);
}

/// The number of a knowledge base article: KB and six or more digits.
fn kb(text: &str) -> Option<String> {
    let upper = text.to_ascii_uppercase();
    for (at, _) in upper.match_indices("KB") {
        let rest = upper.get(at.checked_add(2)?..)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if (6..=8).contains(&digits) {
            return Some(format!("KB{}", rest.get(..digits)?));
        }
    }
    None
}

/// An installed update as a package among those of other systems.
pub(super) fn package(hotfix: &Hotfix, os: &Os) -> Option<Package> {
    if hotfix.state != "installed" {
        return None;
    }
    let version = hotfix.version.clone().unwrap_or_default();
    Some(Package {
        purl: purl::generic(Some("Microsoft"), &hotfix.id, &version),
        name: hotfix.id.clone(),
        full_version: version.clone(),
        manager: "windows_update",
        epoch: None,
        version,
        release: None,
        arch: os.arch.clone().unwrap_or_default(),
        source: None,
        source_version: None,
        size: None,
        status: "installed".to_owned(),
        license: None,
        vendor: Some("Microsoft".to_owned()),
        install_time: None,
    })
}

#[cfg(test)]
mod tests {
    use super::kb;

    #[test]
    fn numbers_of_articles() {
        assert_eq!(
            kb("Package_for_KB5032190~31bf3856ad364e35~amd64~~22621.2715.1.5").as_deref(),
            Some("KB5032190")
        );
        assert_eq!(
            kb("C:\\x\\windows10.0-kb4586786-x64.cab").as_deref(),
            Some("KB4586786")
        );
        assert_eq!(
            (kb("KB12345"), kb("KB"), kb("keyboard KBD")),
            (None, None, None)
        );
    }
}
