//! Finds a Windows system in a file system and opens its hives.

use super::keys::{Named, Reader};
use crate::error::Result;
use crate::guest::code_of;
use crate::read_at::Layer;
use crate::registry::{Hive, Recovery};
use crate::report::windows::HiveFacts;
use crate::vfs::GuestRoot;
use std::sync::Arc;

/// Names of the system directory that setup gave: NT to 2000 used the second.
const USUAL: [&str; 2] = ["Windows", "WINNT"];
/// Directories of a root that are tried beside them.
const TRIED_MAX: usize = 200;
/// Log files of a hive ("Multiple transaction log files").
const LOGS: [&str; 3] = [".LOG1", ".LOG2", ".LOG"];

/// A Windows system with its machine-wide hives open.
pub(in crate::guest) struct System {
    /// `/Windows`.
    pub(super) directory: String,
    pub(super) software: Option<Named>,
    pub(super) system: Option<Named>,
    pub(super) sam: Option<Named>,
    /// `ControlSet001`, from `Select\Current`.
    pub(super) control_set: Option<String>,
    pub(super) control_sets: Vec<String>,
    pub(super) hives: Vec<HiveFacts>,
    /// What could not be read up to now.
    pub(super) reader: Reader,
}

impl System {
    /// `None` when there is no Windows here. Only file systems that Windows starts from are asked.
    pub(in crate::guest) fn find(root: &GuestRoot, fs_type: &str) -> Result<Option<Self>> {
        if !matches!(fs_type, "ntfs" | "vfat" | "refs") {
            return Ok(None);
        }
        for name in USUAL {
            let directory = format!("/{name}");
            if root.exists(&software_path(&directory))? {
                return Ok(Some(Self::open(root, directory)));
            }
        }
        // A directory of another name: setup lets people choose.
        for name in root.list("/")?.iter().take(TRIED_MAX) {
            let directory = format!("/{}", name.text());
            if root.exists(&software_path(&directory))? {
                return Ok(Some(Self::open(root, directory)));
            }
        }
        Ok(None)
    }

    fn open(root: &GuestRoot, directory: String) -> Self {
        let mut reader = Reader::default();
        let mut hives = Vec::new();
        let config = format!("{directory}/System32/config");
        let mut open = |reader: &mut Reader, name: &str| {
            let path = format!("{config}/{name}");
            open_hive(root, reader, &mut hives, &format!("HKLM\\{name}"), &path)
        };
        let software = open(&mut reader, "SOFTWARE");
        let system = open(&mut reader, "SYSTEM");
        let sam = open(&mut reader, "SAM");
        let (control_set, control_sets) = match &system {
            Some(system) => control_sets(&mut reader, system),
            None => (None, Vec::new()),
        };
        Self {
            directory,
            software,
            system,
            sam,
            control_set,
            control_sets,
            hives,
            reader,
        }
    }

    /// A path in the control set that boots next.
    pub(super) fn control(&self, path: &str) -> Option<(&Named, String)> {
        let system = self.system.as_ref()?;
        let set = self.control_set.as_ref()?;
        Some((system, format!("{set}\\{path}")))
    }
}

fn software_path(directory: &str) -> String {
    format!("{directory}/System32/config/SOFTWARE")
}

/// Opens one hive with its logs; one that cannot be read is noted and costs itself only.
pub(super) fn open_hive(
    root: &GuestRoot,
    reader: &mut Reader,
    hives: &mut Vec<HiveFacts>,
    name: &str,
    path: &str,
) -> Option<Named> {
    let opened = (|| {
        let Some(primary) = layer(root, path)? else {
            return Ok(None);
        };
        let logs = || {
            let mut logs = Vec::new();
            for ending in LOGS {
                logs.extend(layer(root, &format!("{path}{ending}"))?);
            }
            Ok(logs)
        };
        Hive::open(primary, logs).map(Some)
    })();
    let hive = match opened {
        Ok(hive) => hive?,
        Err(error) => {
            reader.note(code_of(&error), path, error.to_string());
            return None;
        }
    };
    if hive.recovery() == Recovery::NotRecovered {
        reader.note(
            "dirty",
            path,
            "the last write had not ended and no transaction log fits".to_owned(),
        );
    }
    hives.push(HiveFacts {
        name: name.to_owned(),
        path: path.to_owned(),
        recovery: hive.recovery(),
    });
    Some(Named {
        name: name.to_owned(),
        path: path.to_owned(),
        hive,
    })
}

fn layer(root: &GuestRoot, path: &str) -> Result<Option<Layer>> {
    let Some(found) = root.find(path)? else {
        return Ok(None);
    };
    Ok(found.layer()?.map(|layer| -> Layer { Arc::new(layer) }))
}

/// The control set that boots next: `Select\Current`, else `Default`, else `LastKnownGood`, else
/// the first there is.
fn control_sets(reader: &mut Reader, system: &Named) -> (Option<String>, Vec<String>) {
    let mut sets: Vec<String> = match system.hive.root() {
        Ok(root) => reader
            .subkeys(&root)
            .iter()
            .map(|key| key.name().to_owned())
            .filter(|name| name.to_ascii_lowercase().starts_with("controlset"))
            .collect(),
        Err(error) => {
            reader.note(code_of(&error), &system.path, error.to_string());
            return (None, Vec::new());
        }
    };
    sets.sort_unstable();
    let select = reader.values_at(system, "Select");
    for name in ["Current", "Default", "LastKnownGood"] {
        let Some(number) = select.number(reader, name) else {
            continue;
        };
        let wanted = format!("ControlSet{number:03}");
        if let Some(set) = sets.iter().find(|set| set.eq_ignore_ascii_case(&wanted)) {
            return (Some(set.clone()), sets);
        }
    }
    (sets.first().cloned(), sets)
}
