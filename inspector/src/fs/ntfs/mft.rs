//! The master file table: where FILE records are, and how a file's records come together.

use super::Ntfs;
use super::boot::Boot;
use super::content::read_clusters;
use super::inode::Inode;
use super::record::{
    Attribute, Clusters, Content, FileRecord, fix_up, joined, kind, record_number,
};
use crate::bytes::{Record, narrow, read_vec};
use crate::error::{DiskError, Result};
use crate::read_at::ReadAt;

/// Records that the mirror repeats at least.
const MIRRORED: u64 = 4;
/// Windows limits attribute lists to 256 KiB.
const LIST_MAX: u64 = 256 << 10;
/// Records of one file: a list has no more entries of 32 bytes.
const EXTENSIONS_MAX: usize = 8192;

/// One entry of an attribute list.
struct Listed {
    kind: u32,
    named: bool,
    record: u64,
}

fn listed(position: u64, bytes: &[u8]) -> Result<Vec<Listed>> {
    let r = Record::new("NTFS attribute list", position, bytes);
    let (mut entries, mut at) = (Vec::new(), 0usize);
    while at < bytes.len() {
        let len = usize::from(r.u16_le(at.saturating_add(4))?);
        if len < 24 {
            return Err(r.corrupt(at, format!("entry of {len} bytes")));
        }
        entries.push(Listed {
            kind: r.u32_le(at)?,
            named: r.u8(at.saturating_add(6))? > 0,
            record: record_number(r.u64_le(at.saturating_add(0x10))?),
        });
        at = at.saturating_add(len);
    }
    Ok(entries)
}

/// The value of an attribute list, which may lie in clusters.
fn list_bytes(device: &dyn ReadAt, boot: &Boot, list: &Attribute) -> Result<Vec<u8>> {
    if list.len() > LIST_MAX {
        return Err(DiskError::OverBudget {
            budget: format!("{LIST_MAX} bytes of an NTFS attribute list"),
        });
    }
    match &list.content {
        Content::Resident(bytes) => Ok(bytes.clone()),
        Content::Clusters(clusters) => {
            let mut bytes = vec![0; narrow(list.len())];
            read_clusters(device, boot.cluster, clusters, 0, &mut bytes)?;
            Ok(bytes)
        }
    }
}

fn record_at(device: &dyn ReadAt, boot: &Boot, position: u64) -> Result<FileRecord> {
    let mut bytes = read_vec(device, position, narrow(boot.record))?;
    fix_up("NTFS FILE record", b"FILE", position, &mut bytes)?;
    FileRecord::parse(position, &bytes)
}

/// Reads a record through the runs of the MFT; the first ones from the mirror when damaged.
fn record(
    device: &dyn ReadAt,
    boot: &Boot,
    mft: &Clusters,
    number: u64,
) -> Result<(u64, FileRecord)> {
    let at = number.saturating_mul(boot.record);
    if at.saturating_add(boot.record) > mft.size {
        return Err(DiskError::Corrupt {
            structure: "NTFS MFT",
            position: at,
            problem: format!("no record {number}"),
        });
    }
    let vcn = at.checked_div(boot.cluster).unwrap_or(0);
    let within = at.checked_rem(boot.cluster).unwrap_or(0);
    let position = mft.runs.at(vcn).and_then(|run| run.lcn).map_or(at, |lcn| {
        lcn.saturating_mul(boot.cluster).saturating_add(within)
    });
    let mut bytes = vec![0; narrow(boot.record)];
    let found = read_clusters(device, boot.cluster, mft, at, &mut bytes)
        .and_then(|()| fix_up("NTFS FILE record", b"FILE", position, &mut bytes))
        .and_then(|()| FileRecord::parse(position, &bytes));
    match found {
        Err(DiskError::Corrupt { .. } | DiskError::OutOfBounds { .. }) if number < MIRRORED => {
            let position = boot.mirror.saturating_add(at);
            Ok((position, record_at(device, boot, position)?))
        }
        other => Ok((position, other?)),
    }
}

/// Finds the clusters of the MFT: in its own first record, and in further ones when it has many
/// fragments, each of which the fragments before it lead to.
pub(super) fn locate(device: &dyn ReadAt, boot: &Boot) -> Result<Clusters> {
    let first = match record_at(device, boot, boot.mft).and_then(|r| data_of(boot.mft, r)) {
        Err(e @ (DiskError::Corrupt { .. } | DiskError::OutOfBounds { .. })) => {
            let mirrored = record_at(device, boot, boot.mirror);
            mirrored
                .and_then(|r| data_of(boot.mirror, r))
                .map_err(|_| e)?
        }
        other => other?,
    };
    let (mut mft, list) = first;
    let Some(list) = list else { return Ok(mft) };
    let entries = listed(boot.mft, &list_bytes(device, boot, &list)?)?;
    let mut last = 0;
    for entry in entries {
        if entry.kind != kind::DATA || entry.named || entry.record == last {
            continue;
        }
        last = entry.record;
        let (_, more) = record(device, boot, &mft, entry.record)?;
        for attribute in more.attributes {
            if let Content::Clusters(clusters) = attribute.content
                && attribute.kind == kind::DATA
                && attribute.name.is_empty()
            {
                mft.runs.append(clusters.runs)?;
            }
        }
    }
    Ok(mft)
}

fn data_of(position: u64, record: FileRecord) -> Result<(Clusters, Option<Attribute>)> {
    let list = record
        .attributes
        .iter()
        .find(|a| a.kind == kind::ATTRIBUTE_LIST);
    let list = list.cloned();
    let data = record
        .attributes
        .into_iter()
        .find(|a| a.is(kind::DATA, b""));
    match data.map(|d| d.content) {
        Some(Content::Clusters(clusters)) => Ok((clusters, list)),
        _ => Err(DiskError::Corrupt {
            structure: "NTFS MFT",
            position,
            problem: "its first record has no data".to_owned(),
        }),
    }
}

impl Ntfs {
    pub(super) fn read_inode(&self, number: u64) -> Result<Inode> {
        let device = self.device.as_ref();
        let (position, base) = record(device, &self.boot, &self.mft, number)?;
        let corrupt = |problem: &str| DiskError::Corrupt {
            structure: "NTFS FILE record",
            position,
            problem: format!("file {number}: {problem}"),
        };
        if !base.in_use {
            return Err(corrupt("not in use"));
        }
        if base.base != 0 {
            return Err(corrupt("it extends another file"));
        }
        let mut fragments = base.attributes;
        let list = fragments.iter().find(|a| a.kind == kind::ATTRIBUTE_LIST);
        if let Some(list) = list {
            let bytes = list_bytes(device, &self.boot, list)?;
            let mut records: Vec<u64> = listed(position, &bytes)?
                .into_iter()
                .map(|entry| entry.record)
                .filter(|record| *record != number)
                .collect();
            records.sort_unstable();
            records.dedup();
            if records.len() > EXTENSIONS_MAX {
                return Err(corrupt("too many records"));
            }
            for extension in records {
                let (_, more) = record(device, &self.boot, &self.mft, extension)?;
                // A record that was given to another file since then is not this one's.
                if more.in_use && more.base == number {
                    fragments.extend(more.attributes);
                }
            }
        }
        let mut inode = Inode {
            number,
            position,
            sequence: base.sequence,
            directory: base.directory,
            attributes: joined(fragments)?,
            reparse: None,
        };
        inode.reparse = match self.parse_reparse(&inode) {
            Err(DiskError::Corrupt { .. }) => None,
            other => other?,
        };
        Ok(inode)
    }
}
