//! Users who have a profile: ProfileList of SOFTWARE.

use super::keys::Reader;
use super::system::System;

const PROFILE_LIST: &str = "Microsoft\\Windows NT\\CurrentVersion\\ProfileList";

/// Profiles of one system: terminal servers have some thousand.
const PROFILES_MAX: usize = 20_000;

/// A user's profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) sid: String,
    /// Last part of the SID.
    pub(super) rid: Option<u32>,
    /// `C:\Users\Alice`.
    pub(super) windows_path: String,
    /// `/Users/Alice`, where it lies on the system's own drive.
    pub(super) path: Option<String>,
    /// Last part of the path.
    pub(super) name: String,
}

pub(super) fn read(
    reader: &mut Reader,
    system: &System,
    system_root: Option<&str>,
) -> Vec<Profile> {
    let drive = drive(system_root);
    let Some(list) = reader.key(system.software.as_ref(), PROFILE_LIST) else {
        return Vec::new();
    };
    let mut profiles = Vec::new();
    for key in reader.subkeys(&list).into_iter().take(PROFILES_MAX) {
        let values = reader.values(&key);
        let Some(windows_path) = values.text(reader, "ProfileImagePath") else {
            continue;
        };
        let sid = crate::guest::clean(key.name());
        profiles.push(Profile {
            rid: sid.rsplit('-').next().and_then(|part| part.parse().ok()),
            path: guest_path(&windows_path, &system.directory, &drive),
            name: windows_path
                .rsplit('\\')
                .next()
                .unwrap_or_default()
                .to_owned(),
            sid,
            windows_path,
        });
    }
    profiles.sort_by(|a, b| a.sid.cmp(&b.sid));
    profiles
}

/// Drive of `SystemRoot`, `C:\Windows`.
fn drive(system_root: Option<&str>) -> String {
    let letter = system_root
        .and_then(|path| path.split_once(':'))
        .map_or("c", |(letter, _)| letter);
    format!("{}:", letter.to_ascii_lowercase())
}

/// A path of the guest on its system drive, `/` for `\`. Other drives are other file systems.
/// `drive` is the system drive's letter with its colon, in lower case.
pub(super) fn guest_path(path: &str, system_directory: &str, drive: &str) -> Option<String> {
    let lower = path.to_ascii_lowercase();
    for variable in ["%systemroot%", "%windir%"] {
        if lower.starts_with(variable) {
            let rest = path.get(variable.len()..)?;
            return Some(format!("{system_directory}{}", rest.replace('\\', "/")));
        }
    }
    let rest = if lower.starts_with("%systemdrive%") {
        path.get("%systemdrive%".len()..)?
    } else if lower.starts_with(drive) {
        path.get(drive.len()..)?
    } else {
        return None;
    };
    rest.starts_with('\\').then(|| rest.replace('\\', "/"))
}

#[cfg(test)]
mod tests {
    use super::guest_path;

    #[test]
    fn paths_on_the_system_drive() {
        let path = |text| guest_path(text, "/Windows", &super::drive(Some("C:\\WINDOWS")));
        assert_eq!(path("C:\\Users\\A").unwrap(), "/Users/A");
        assert_eq!(path("%SystemDrive%\\Users\\A").unwrap(), "/Users/A");
        assert_eq!(
            path("%systemroot%\\ServiceProfiles\\X").unwrap(),
            "/Windows/ServiceProfiles/X"
        );
        assert_eq!(super::drive(None), "c:");
        assert_eq!((path("D:\\x"), path("\\\\server\\x")), (None, None));
    }
}
