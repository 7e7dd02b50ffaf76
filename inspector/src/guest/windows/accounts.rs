//! Local accounts and groups: the SAM hive.
//!
//! Two binary values describe an account: `F` (fixed fields) and `V` (a table of offset, length
//! and flags, then the data). Their layout is known from Samba, chntpw's notes and Microsoft's
//! SAMR protocol documents; hashes are never decoded, only their length is looked at.

use super::keys::Reader;
use super::profiles::Profile;
use super::system::System;
use crate::bytes::{Record, text_utf16_le};
use crate::error::Result;
use crate::guest::clean;
use crate::guest::time;
use crate::registry::Key;
use crate::report::windows::Account;
use crate::report::{Group, User};
use std::collections::{BTreeMap, BTreeSet};

const ACCOUNT: &str = "SAM\\Domains\\Account";
const BUILTIN: &str = "SAM\\Domains\\Builtin";
/// The group Administrators.
const ADMINISTRATORS: u32 = 544;
/// Group None, the primary one of local accounts.
const NONE: u32 = 513;
/// Accounts that are reported.
const ACCOUNTS_MAX: usize = 100_000;
/// Groups of one domain.
const GROUPS_MAX: usize = 10_000;
/// Largest `V` and `C` value: Windows writes a few hundred bytes, a large group some 100 KiB.
const VALUE_MAX: usize = 4 << 20;
/// Offsets in `V` count from here.
const V_HEADER: usize = 0xcc;
/// Offsets in a group's `C` count from here.
const C_HEADER: usize = 0x34;
/// Well-known accounts, for hives whose names carry no number.
const WELL_KNOWN: [(&str, u32); 4] = [
    ("administrator", 500),
    ("guest", 501),
    ("defaultaccount", 503),
    ("wdagutilityaccount", 504),
];

pub(super) struct Accounts {
    pub(super) users: Vec<User>,
    pub(super) groups: Vec<Group>,
    pub(super) accounts: Vec<Account>,
}

pub(super) fn read(reader: &mut Reader, system: &System, profiles: &[Profile]) -> Accounts {
    let mut out = Accounts {
        users: Vec::new(),
        groups: Vec::new(),
        accounts: Vec::new(),
    };
    let Some(sam) = &system.sam else {
        return out;
    };
    let mut names: BTreeMap<u32, String> = BTreeMap::new();
    if let Some(users) = reader.key(sam, &format!("{ACCOUNT}\\Users")) {
        for key in reader.subkeys(&users) {
            if out.accounts.len() >= ACCOUNTS_MAX {
                let message = format!("more than {ACCOUNTS_MAX} accounts");
                reader.note("over_budget", "SAM", message);
                break;
            }
            if key.name().eq_ignore_ascii_case("Names") {
                continue;
            }
            if let Ok(rid) = u32::from_str_radix(key.name(), 16) {
                out.accounts.extend(account(reader, &key, rid));
            }
        }
        only_named(reader, &users, profiles, &mut out.accounts);
    }
    let paths: BTreeMap<Option<u32>, &str> = profiles
        .iter()
        .filter(|profile| is_local(&profile.sid) && profile.rid.is_some())
        .map(|profile| (profile.rid, profile.windows_path.as_str()))
        .collect();
    for account in &mut out.accounts {
        let path = paths.get(&account.rid);
        account.profile = path.map(|path| (*path).to_owned());
        if let Some(rid) = account.rid {
            names.insert(rid, account.name.clone());
        }
    }
    let mut administrators = BTreeSet::new();
    for domain in [ACCOUNT, BUILTIN] {
        let Some(aliases) = reader.key(sam, &format!("{domain}\\Aliases")) else {
            continue;
        };
        for key in reader.subkeys(&aliases).into_iter().take(GROUPS_MAX) {
            let Ok(rid) = u32::from_str_radix(key.name(), 16) else {
                continue;
            };
            let Some(value) = reader.values(&key).bytes(reader, "C", VALUE_MAX) else {
                continue;
            };
            match group(&value) {
                Ok((name, sids)) => {
                    if rid == ADMINISTRATORS {
                        administrators.extend(sids.iter().filter_map(|sid| local_rid(sid)));
                    }
                    let member = |sid: &String| match local_rid(sid).and_then(|rid| names.get(&rid))
                    {
                        Some(name) => name.clone(),
                        None => sid.clone(),
                    };
                    let mut members: Vec<String> = sids.iter().map(member).collect();
                    members.sort_unstable();
                    members.dedup();
                    out.groups.push(Group {
                        gid: rid,
                        name,
                        members,
                    });
                }
                Err(error) => {
                    let path = format!("{domain}\\Aliases\\{}", key.name());
                    reader.note("damaged", &path, error.to_string());
                }
            }
        }
    }
    out.groups.sort_unstable();
    for account in &mut out.accounts {
        account.administrator = account
            .rid
            .is_some_and(|rid| rid == 500 || administrators.contains(&rid));
    }
    out.accounts.sort_unstable();
    out.users = out.accounts.iter().filter_map(user).collect();
    out.users.sort_unstable();
    out
}

/// Accounts that have a name but no record: `Names` tells their number as the type of the default
/// value. Hives made by hand may lack even that.
fn only_named(
    reader: &mut Reader,
    users: &Key<'_>,
    profiles: &[Profile],
    accounts: &mut Vec<Account>,
) {
    let Some(names) = reader.below(users, "Names") else {
        return;
    };
    let mut rids: BTreeSet<u32> = accounts.iter().filter_map(|account| account.rid).collect();
    let mut there: BTreeSet<String> = accounts
        .iter()
        .map(|account| account.name.clone())
        .collect();
    let known: BTreeMap<String, u32> = profiles
        .iter()
        .filter(|profile| is_local(&profile.sid))
        .filter_map(|profile| Some((profile.name.to_lowercase(), profile.rid?)))
        .chain(WELL_KNOWN.map(|(name, rid)| (name.to_owned(), rid)))
        .collect();
    for key in reader.subkeys(&names).into_iter().take(ACCOUNTS_MAX) {
        let name = clean(key.name());
        let typed = reader
            .values(&key)
            .get("")
            .map(|value| value.kind().number());
        let rid = typed.or_else(|| known.get(&name.to_lowercase()).copied());
        let new_name = there.insert(name.clone());
        let new_rid = rid.is_none_or(|rid| rids.insert(rid));
        if !new_name || !new_rid {
            continue;
        }
        accounts.push(Account {
            rid,
            name,
            full_name: None,
            comment: None,
            disabled: false,
            locked: false,
            password: None,
            password_not_required: false,
            password_never_expires: false,
            administrator: false,
            last_login: None,
            password_set: None,
            logins: None,
            profile: None,
        });
    }
}

fn account(reader: &mut Reader, key: &Key<'_>, rid: u32) -> Option<Account> {
    let values = reader.values(key);
    let fixed = values.bytes(reader, "F", VALUE_MAX);
    let table = values.bytes(reader, "V", VALUE_MAX)?;
    match parse(rid, fixed.as_deref(), &table) {
        Ok(account) => Some(account),
        Err(error) => {
            reader.note(
                "damaged",
                &format!("{ACCOUNT}\\Users\\{}", key.name()),
                error.to_string(),
            );
            None
        }
    }
}

fn parse(rid: u32, fixed: Option<&[u8]>, table: &[u8]) -> Result<Account> {
    let table = Record::new("SAM account", 0, table);
    let part = |at: usize| -> Result<&[u8]> {
        let offset = crate::bytes::size(table.u32_le(at)?).saturating_add(V_HEADER);
        table.slice(
            offset,
            crate::bytes::size(table.u32_le(at.saturating_add(4))?),
        )
    };
    let text = |at: usize| -> Option<String> {
        let text = clean(&text_utf16_le(part(at).ok()?));
        (!text.is_empty()).then_some(text)
    };
    let mut account = Account {
        rid: Some(rid),
        name: clean(&text_utf16_le(part(0x0c)?)),
        full_name: text(0x18),
        comment: text(0x24),
        disabled: false,
        locked: false,
        password: part(0xa8).ok().and_then(password),
        password_not_required: false,
        password_never_expires: false,
        administrator: false,
        last_login: None,
        password_set: None,
        logins: None,
        profile: None,
    };
    if let Some(fixed) = fixed {
        let fixed = Record::new("SAM account", 0, fixed);
        // User account control bits of SAMR (MS-SAMR 2.2.1.12), as stored.
        let bits = fixed.u16_le(0x38)?;
        account.disabled = bits & 0x0001 != 0;
        account.password_not_required = bits & 0x0004 != 0;
        account.password_never_expires = bits & 0x0200 != 0;
        account.locked = bits & 0x0400 != 0;
        account.last_login = time::filetime(fixed.u64_le(0x08)?);
        account.password_set = time::filetime(fixed.u64_le(0x18)?);
        account.logins = fixed.u16_le(0x42).ok();
    }
    Ok(account)
}

/// State of the NT hash by its length alone: a header, then nothing or an encrypted hash. Revision
/// 1 (RC4) has 4 bytes of header and 16 of hash; revision 2 (AES, from Windows 10 1607 on) 24 of
/// header with salt and 32 of padded hash.
fn password(stored: &[u8]) -> Option<&'static str> {
    let revision = match stored.get(2..4) {
        Some([low, high]) => u16::from_le_bytes([*low, *high]),
        _ => return Some("empty"),
    };
    let header = match revision {
        1 => 4,
        2 => 24,
        _ => return None,
    };
    Some(if stored.len() > header {
        "set"
    } else {
        "empty"
    })
}

/// Name and members' SIDs of a group's `C` value: entries of 12 bytes from 0x10 on tell where name,
/// comment and members lie.
fn group(value: &[u8]) -> Result<(String, Vec<String>)> {
    let record = Record::new("SAM group", 0, value);
    let at = |offset: usize| -> Result<usize> { Ok(crate::bytes::size(record.u32_le(offset)?)) };
    let name = record.slice(at(0x10)?.saturating_add(C_HEADER), at(0x14)?)?;
    let mut place = at(0x28)?.saturating_add(C_HEADER);
    let count = at(0x30)?;
    let mut sids = Vec::new();
    for _ in 0..count.min(ACCOUNTS_MAX) {
        let (sid, length) = sid(&record, place)?;
        sids.push(sid);
        place = place.saturating_add(length);
    }
    Ok((clean(&text_utf16_le(name)), sids))
}

/// A security identifier (MS-DTYP 2.4.2.2) and its length.
fn sid(record: &Record<'_>, at: usize) -> Result<(String, usize)> {
    let revision = record.u8(at)?;
    let count = usize::from(record.u8(at.saturating_add(1))?);
    let authority = record
        .slice(at.saturating_add(2), 6)?
        .iter()
        .fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    let length = count.saturating_mul(4);
    let parts = record.slice(at.saturating_add(8), length)?;
    let mut text = format!("S-{revision}-{authority}");
    for part in parts.as_chunks::<4>().0 {
        text.push_str(&format!("-{}", u32::from_le_bytes(*part)));
    }
    Ok((text, length.saturating_add(8)))
}

/// Accounts of machines and domains begin so; the others are built in.
fn is_local(sid: &str) -> bool {
    sid.starts_with("S-1-5-21-")
}

fn local_rid(sid: &str) -> Option<u32> {
    is_local(sid).then(|| sid.rsplit('-').next()?.parse().ok())?
}

fn user(account: &Account) -> Option<User> {
    let password = if account.disabled || account.locked {
        Some("locked")
    } else {
        account.password
    };
    Some(User {
        uid: account.rid?,
        name: account.name.clone(),
        gid: NONE,
        gecos: account.full_name.clone().unwrap_or_default(),
        home: account.profile.clone().unwrap_or_default(),
        shell: String::new(),
        password,
        password_algorithm: (account.password == Some("set")).then_some("nt"),
        sudo: account.administrator,
        ssh_keys: Vec::new(),
    })
}
