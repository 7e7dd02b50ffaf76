//! Remote Desktop, User Account Control, SMB 1, and what else an auditor asks for.

use super::keys::{Reader, Values};
use super::system::System;
use crate::report::windows::{Policies, Rdp, Smb1, Uac, Windows};

const TERMINAL_SERVER: &str = "Control\\Terminal Server";
const TERMINAL_POLICY: &str = "Policies\\Microsoft\\Windows NT\\Terminal Services";
const UAC: &str = "Microsoft\\Windows\\CurrentVersion\\Policies\\System";
const WINLOGON: &str = "Microsoft\\Windows NT\\CurrentVersion\\Winlogon";
/// From this build (1709) on SMB 1 is a feature that has to be installed.
const SMB1_OPTIONAL: u32 = 16_299;
/// `Start` of a service that is off.
const DISABLED: u64 = 4;

fn control<'s>(reader: &mut Reader, system: &'s System, path: &str) -> Values<'s> {
    match system.control(path) {
        Some((hive, path)) => reader.values_at(hive, &path),
        None => Values::default(),
    }
}

pub(super) fn rdp(reader: &mut Reader, system: &System) -> Option<Rdp> {
    let local = control(reader, system, TERMINAL_SERVER);
    let policy = reader.values_at(system.software.as_ref(), TERMINAL_POLICY);
    let denied = policy
        .flag(reader, "fDenyTSConnections")
        .or_else(|| local.flag(reader, "fDenyTSConnections"))?;
    let tcp = control(
        reader,
        system,
        &format!("{TERMINAL_SERVER}\\WinStations\\RDP-Tcp"),
    );
    Some(Rdp {
        enabled: !denied,
        network_level_authentication: policy
            .flag(reader, "UserAuthentication")
            .or_else(|| tcp.flag(reader, "UserAuthentication")),
        port: tcp.dword(reader, "PortNumber"),
    })
}

pub(super) fn uac(reader: &mut Reader, system: &System) -> Uac {
    let values = reader.values_at(system.software.as_ref(), UAC);
    Uac {
        enabled: values.flag(reader, "EnableLUA").unwrap_or(true),
        consent_prompt_admin: values.dword(reader, "ConsentPromptBehaviorAdmin"),
        secure_desktop: values.flag(reader, "PromptOnSecureDesktop"),
    }
}

/// The server speaks it when `SMB1` says so; where nothing is said, when its driver is there. The
/// client speaks it when its mini-redirector may start.
pub(super) fn smb1(reader: &mut Reader, system: &System, windows: &Windows) -> Option<Smb1> {
    system.control_set.as_ref()?;
    let mut may_start = |service: &str| {
        let values = control(reader, system, &format!("Services\\{service}"));
        values
            .number(reader, "Start")
            .is_some_and(|start| start != DISABLED)
    };
    let (client, server_driver) = (may_start("mrxsmb10"), may_start("srv"));
    let values = control(reader, system, "Services\\LanmanServer\\Parameters");
    let always = windows.build.is_some_and(|build| build < SMB1_OPTIONAL);
    let there = always || server_driver;
    let server = there && values.flag(reader, "SMB1").unwrap_or(true);
    Some(Smb1 { server, client })
}

pub(super) fn policies(reader: &mut Reader, system: &System) -> Policies {
    let winlogon = reader.values_at(system.software.as_ref(), WINLOGON);
    let auto = winlogon.text(reader, "AutoAdminLogon").as_deref() == Some("1")
        || winlogon.number(reader, "AutoAdminLogon") == Some(1);
    let lsa = control(reader, system, "Control\\Lsa");
    let wdigest = control(reader, system, "Control\\SecurityProviders\\WDigest");
    let server = control(reader, system, "Services\\LanmanServer\\Parameters");
    let boot = control(reader, system, "Control\\SecureBoot\\State");
    let defender = reader.values_at(
        system.software.as_ref(),
        "Policies\\Microsoft\\Windows Defender",
    );
    let updates = reader.values_at(
        system.software.as_ref(),
        "Policies\\Microsoft\\Windows\\WindowsUpdate\\AU",
    );
    Policies {
        auto_logon_user: auto
            .then(|| winlogon.text(reader, "DefaultUserName"))
            .flatten(),
        lsa_protection: lsa.flag(reader, "RunAsPPL"),
        lm_compatibility_level: lsa.dword(reader, "LmCompatibilityLevel"),
        wdigest_plaintext: wdigest.flag(reader, "UseLogonCredential"),
        limit_blank_passwords: lsa.flag(reader, "LimitBlankPasswordUse"),
        smb_signing_required: server.flag(reader, "RequireSecuritySignature"),
        secure_boot: boot.flag(reader, "UEFISecureBootEnabled"),
        defender_disabled: defender.flag(reader, "DisableAntiSpyware"),
        automatic_updates_disabled: updates.flag(reader, "NoAutoUpdate"),
    }
}

/// Paging files, as written: `C:\pagefile.sys 0 0`, `?:\pagefile.sys`.
pub(super) fn paging_files(reader: &mut Reader, system: &System) -> Vec<String> {
    let values = control(
        reader,
        system,
        "Control\\Session Manager\\Memory Management",
    );
    let mut files: Vec<String> = values
        .texts(reader, "PagingFiles")
        .iter()
        .filter_map(|line| {
            // Smallest and largest size follow the path.
            let sizes = |c: char| c.is_ascii_digit() || c == ' ';
            let path = match line.rfind(".sys") {
                Some(at) => line.get(..at.saturating_add(4))?,
                None => line.trim_end_matches(sizes),
            };
            (!path.is_empty()).then(|| path.to_owned())
        })
        .collect();
    files.sort_unstable();
    files.dedup();
    files
}
