//! Installed applications: the Uninstall keys of the machine (both views) and of each user.

use super::keys::{Named, Reader, Values};
use super::profiles::Profile;
use super::purl;
use super::system::{System, open_hive};
use crate::guest::Scope;
use crate::report::windows::Application;
use crate::report::{Os, Package};

const UNINSTALL: &str = "Microsoft\\Windows\\CurrentVersion\\Uninstall";
/// Applications of one system.
const APPLICATIONS_MAX: usize = 20_000;
/// User hives that are opened.
const USERS_MAX: usize = 200;

pub(super) fn read(
    scope: &Scope<'_>,
    reader: &mut Reader,
    system: &mut System,
    profiles: &[Profile],
) -> Vec<Application> {
    let mut found = Vec::new();
    list(
        reader,
        system.software.as_ref(),
        UNINSTALL,
        false,
        None,
        &mut found,
    );
    let wow = format!("WOW6432Node\\{UNINSTALL}");
    list(
        reader,
        system.software.as_ref(),
        &wow,
        true,
        None,
        &mut found,
    );
    for profile in profiles.iter().take(USERS_MAX) {
        let Some(directory) = &profile.path else {
            continue;
        };
        let path = format!("{directory}/NTUSER.DAT");
        let name = format!("HKU\\{}", profile.sid);
        let hive = open_hive(scope.root, reader, &mut system.hives, &name, &path);
        let user = Some(profile.name.as_str());
        for (view, wow64) in [("Software", false), ("Software\\WOW6432Node", true)] {
            let path = format!("{view}\\{UNINSTALL}");
            list(reader, hive.as_ref(), &path, wow64, user, &mut found);
        }
    }
    if profiles.len() > USERS_MAX {
        let message = format!("applications of {USERS_MAX} users are read");
        reader.note("over_budget", "ProfileList", message);
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn list(
    reader: &mut Reader,
    hive: Option<&Named>,
    path: &str,
    wow64: bool,
    user: Option<&str>,
    found: &mut Vec<Application>,
) {
    let Some(key) = reader.key(hive, path) else {
        return;
    };
    for key in reader.subkeys(&key) {
        if found.len() >= APPLICATIONS_MAX {
            let message = format!("more than {APPLICATIONS_MAX} applications");
            reader.note("over_budget", path, message);
            return;
        }
        let values = reader.values(&key);
        found.extend(application(reader, key.name(), &values, wow64, user));
    }
}

/// Keys without a name are parts of others, or left over.
fn application(
    reader: &mut Reader,
    key: &str,
    values: &Values<'_>,
    wow64: bool,
    user: Option<&str>,
) -> Option<Application> {
    Some(Application {
        name: values.text(reader, "DisplayName")?,
        version: values.text(reader, "DisplayVersion"),
        key: crate::guest::clean(key),
        publisher: values.text(reader, "Publisher"),
        install_date: values.text(reader, "InstallDate"),
        install_location: values.text(reader, "InstallLocation"),
        // Kibibytes.
        size: values
            .number(reader, "EstimatedSize")
            .map(|kib| kib.saturating_mul(1_024)),
        wow64,
        user: user.map(str::to_owned),
        hidden: values.number(reader, "SystemComponent") == Some(1),
        msi: values.number(reader, "WindowsInstaller") == Some(1),
    })
}

/// The application as a package among those of other systems.
pub(super) fn package(application: &Application, os: &Os) -> Package {
    let version = application.version.clone().unwrap_or_default();
    let arch = match (&os.arch, application.wow64) {
        (_, true) => "i386",
        (Some(arch), false) => arch,
        (None, false) => "",
    };
    Package {
        purl: purl::generic(
            application.publisher.as_deref(),
            &application.name,
            &version,
        ),
        name: application.name.clone(),
        full_version: version.clone(),
        manager: "windows",
        epoch: None,
        version,
        release: None,
        arch: arch.to_owned(),
        source: None,
        source_version: None,
        size: application.size,
        status: "installed".to_owned(),
        license: None,
        vendor: application.publisher.clone(),
        install_time: None,
    }
}
