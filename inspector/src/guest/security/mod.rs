//! Security settings: sshd, sysctl, SELinux, AppArmor, PAM, sudoers; in a deep scan, files that give
//! rights away.

mod files;
mod pam;
mod sshd;
pub(super) mod sudoers;
mod sysctl;

use super::{Scope, clean, ini};
use crate::error::Result;
use crate::report::Security;

pub(super) fn read(scope: &mut Scope<'_>) -> Result<Security> {
    let sudoers = sudoers::read(scope);
    let mut security = Security {
        apparmor: scope.exists("/etc/apparmor.d"),
        sudoers: sudoers.rules,
        sysctl: sysctl::read(scope),
        pam: pam::read(scope),
        ..Security::default()
    };
    if let Some(text) = scope.text("/etc/selinux/config") {
        for (key, value) in ini::assignments(&text) {
            match key.as_str() {
                "SELINUX" => security.selinux = Some(clean(&value)),
                "SELINUXTYPE" => security.selinux_policy = Some(clean(&value)),
                _ => {}
            }
        }
    }
    if let Some((global, blocks)) = sshd::read(scope) {
        security.sshd = Some(global);
        security.sshd_match = blocks;
    }
    if scope.deep {
        security.files = Some(files::read(scope)?);
    }
    Ok(security)
}
