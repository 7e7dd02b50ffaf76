//! What is special to a Windows guest. What it has in common with others stands in the common
//! sections: users, groups, services, packages, network, mounts.

use crate::registry::Recovery;
use serde::Serialize;

/// A Windows system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Windows {
    /// `Windows 11 Pro`: by build number, because Windows 11 still calls itself 10.
    pub product_name: Option<String>,
    /// `ProductName` as the registry has it.
    pub product_name_registry: Option<String>,
    /// `EditionID`: Professional, ServerStandard, ….
    pub edition_id: Option<String>,
    /// 23H2; before Windows 10 20H2 the `ReleaseId`, 1809.
    pub display_version: Option<String>,
    /// `CurrentVersion`: 6.1, 6.3.
    pub current_version: Option<String>,
    /// Build number.
    pub build: Option<u32>,
    /// Update build revision: the last part of 10.0.22631.2715.
    pub ubr: Option<u32>,
    /// Client, Server, Server Core.
    pub installation_type: Option<String>,
    /// Service Pack 1.
    pub service_pack: Option<String>,
    /// Product id, no key.
    pub product_id: Option<String>,
    /// Owner told at installation.
    pub registered_owner: Option<String>,
    /// Organisation told at installation.
    pub registered_organization: Option<String>,
    /// Installation time, UTC.
    pub install_date: Option<String>,
    /// Last orderly shutdown, UTC.
    pub last_shutdown: Option<String>,
    /// `C:\Windows` as the guest calls it.
    pub system_root: Option<String>,
    /// `/Windows` in its file system.
    pub root_path: String,
    /// `ControlSet002`, the one that boots next.
    pub current_control_set: Option<String>,
    /// All control sets.
    pub control_sets: Vec<String>,
    /// NetBIOS name.
    pub computer_name: Option<String>,
    /// DNS name without domain.
    pub hostname: Option<String>,
    /// DNS domain.
    pub domain: Option<String>,
    /// Name of the time zone; the common section has the same.
    pub timezone: Option<String>,
    /// Minutes that UTC is ahead of local time in winter.
    pub timezone_bias: Option<i32>,
    /// Hives that were read, and what had to be done for that.
    pub hives: Vec<HiveFacts>,
    /// Installed applications.
    pub applications: Option<Vec<Application>>,
    /// Updates.
    pub hotfixes: Option<Vec<Hotfix>>,
    /// Services and drivers.
    pub services: Option<Vec<WindowsService>>,
    /// Local accounts.
    pub accounts: Option<Vec<Account>>,
    /// Network interfaces with what DHCP last gave.
    pub interfaces: Option<Vec<WindowsInterface>>,
    /// Firewall profiles.
    pub firewall: Option<Vec<FirewallProfile>>,
    /// Remote Desktop.
    pub rdp: Option<Rdp>,
    /// User Account Control.
    pub uac: Option<Uac>,
    /// Version 1 of SMB.
    pub smb1: Option<Smb1>,
    /// Other settings that an auditor asks for.
    pub policies: Option<Policies>,
}

/// A registry hive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct HiveFacts {
    /// SOFTWARE, SYSTEM, SAM, or a user's.
    pub name: String,
    /// Path in the guest.
    pub path: String,
    /// What had to be done to read it.
    pub recovery: Recovery,
}

/// An application of the Uninstall keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Application {
    /// `DisplayName`.
    pub name: String,
    /// `DisplayVersion`.
    pub version: Option<String>,
    /// Name of its key, often a product code.
    pub key: String,
    /// Who made it.
    pub publisher: Option<String>,
    /// Day of installation, as its installer wrote it (20231114).
    pub install_date: Option<String>,
    /// Where it lies.
    pub install_location: Option<String>,
    /// Bytes, as its installer estimated.
    pub size: Option<u64>,
    /// Whether it stands among the 32-bit applications of a 64-bit system.
    pub wow64: bool,
    /// The user who installed it for themselves; none for all users.
    pub user: Option<String>,
    /// Not shown to people (`SystemComponent`).
    pub hidden: bool,
    /// Installed by Windows Installer.
    pub msi: bool,
}

/// An update.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Hotfix {
    /// `KB5032190`, or the name of a package that tells no number.
    pub id: String,
    /// installed, superseded, staged, install_pending, uninstall_pending, absent, unknown.
    pub state: &'static str,
    /// Newest version among its packages.
    pub version: Option<String>,
    /// When it was installed, UTC.
    pub installed: Option<String>,
    /// Packages that it consists of.
    pub packages: u32,
}

/// A service or driver.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct WindowsService {
    /// Name of its key.
    pub name: String,
    /// `DisplayName`; a resource reference begins with @.
    pub display_name: Option<String>,
    /// kernel_driver, file_system_driver, own_process, share_process, user_service, ….
    pub kind: &'static str,
    /// boot, system, automatic, delayed, manual, disabled, unknown.
    pub start: &'static str,
    /// Its program or driver.
    pub image_path: Option<String>,
    /// Its library, where svchost runs it.
    pub service_dll: Option<String>,
    /// Account that it runs as.
    pub user: Option<String>,
    /// Boot group.
    pub group: Option<String>,
}

/// A local account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Account {
    /// Relative identifier; 500 is the built-in administrator.
    pub rid: Option<u32>,
    /// Name.
    pub name: String,
    /// Full name.
    pub full_name: Option<String>,
    /// Description.
    pub comment: Option<String>,
    /// Whether nobody may log in with it.
    pub disabled: bool,
    /// Whether too many failed log-ins locked it.
    pub locked: bool,
    /// set, empty, or absent when it cannot be told. Never a hash.
    pub password: Option<&'static str>,
    /// Whether an empty password is allowed.
    pub password_not_required: bool,
    /// Whether its password never expires.
    pub password_never_expires: bool,
    /// Whether it is a member of Administrators.
    pub administrator: bool,
    /// Last log-in, UTC.
    pub last_login: Option<String>,
    /// When the password was set, UTC.
    pub password_set: Option<String>,
    /// Number of log-ins.
    pub logins: Option<u16>,
    /// Its profile directory.
    pub profile: Option<String>,
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct WindowsInterface {
    /// GUID.
    pub guid: String,
    /// Name of the connection, `Ethernet`.
    pub name: Option<String>,
    /// Whether it asks DHCP.
    pub dhcp: bool,
    /// Static addresses, with prefix length where a mask is there.
    pub addresses: Vec<String>,
    /// Static gateways.
    pub gateways: Vec<String>,
    /// Static name servers.
    pub dns: Vec<String>,
    /// Address that DHCP last gave.
    pub dhcp_address: Option<String>,
    /// Server that gave it.
    pub dhcp_server: Option<String>,
    /// Name servers that DHCP gave.
    pub dhcp_dns: Vec<String>,
    /// Domain of the connection.
    pub domain: Option<String>,
}

/// A profile of the firewall.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FirewallProfile {
    /// domain, private, public.
    pub profile: &'static str,
    /// Whether it filters.
    pub enabled: bool,
    /// Whether a policy says so rather than the local setting.
    pub by_policy: bool,
    /// Whether inbound connections are blocked unless a rule allows them.
    pub block_inbound: bool,
}

/// Remote Desktop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rdp {
    /// Whether connections are accepted.
    pub enabled: bool,
    /// Whether the client must authenticate before a session is made.
    pub network_level_authentication: Option<bool>,
    /// TCP port.
    pub port: Option<u32>,
}

/// User Account Control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Uac {
    /// `EnableLUA`; on where nothing is said.
    pub enabled: bool,
    /// `ConsentPromptBehaviorAdmin`: 0 asks never, 2 and 5 ask.
    pub consent_prompt_admin: Option<u32>,
    /// Whether it asks on a desktop of its own.
    pub secure_desktop: Option<bool>,
}

/// SMB version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Smb1 {
    /// Whether the server speaks it.
    pub server: bool,
    /// Whether the client speaks it.
    pub client: bool,
}

/// Settings that an auditor asks for; none where the registry says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Policies {
    /// Who is logged in at start without being asked; their password is never told.
    pub auto_logon_user: Option<String>,
    /// `RunAsPPL`: whether the process that holds secrets is protected.
    pub lsa_protection: Option<bool>,
    /// `LmCompatibilityLevel`: 5 refuses LM and NTLMv1.
    pub lm_compatibility_level: Option<u32>,
    /// `UseLogonCredential`: whether WDigest keeps passwords in clear.
    pub wdigest_plaintext: Option<bool>,
    /// `LimitBlankPasswordUse`: whether empty passwords work at the console only.
    pub limit_blank_passwords: Option<bool>,
    /// Whether SMB servers must sign.
    pub smb_signing_required: Option<bool>,
    /// Whether the guest was booted with Secure Boot.
    pub secure_boot: Option<bool>,
    /// Whether Defender is turned off by policy.
    pub defender_disabled: Option<bool>,
    /// `NoAutoUpdate`: whether updates are off by policy.
    pub automatic_updates_disabled: Option<bool>,
}
