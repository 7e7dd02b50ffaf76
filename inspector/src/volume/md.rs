//! md arrays, from the kernel's `md_p.h`: superblocks of versions 0.90 and 1, levels 0, 1 and
//! linear. Other levels are named.

use super::mapped::{Mapped, Piece};
use super::{Assembled, Member};
use crate::bytes::{Record, label, read_upto, size, uuid};
use crate::error::Result;
use crate::layer::Window;
use crate::probe::VolumeFacts;
use crate::read_at::{Layer, ReadAt};
use std::collections::BTreeMap;
use std::sync::Arc;

const MAGIC: u32 = 0xa92b_4efc;
const SECTOR: u64 = 512;
/// Devices of an array: the superblock of version 1 has room for 1920.
const DISKS_MAX: u32 = 1920;
const LINEAR: i32 = -1;
/// Words of a superblock of version 0.90.
const OLD_LEN: usize = 4096;
const RESHAPING: u32 = 4;
const RECOVERING: u32 = 2;

/// A superblock.
#[derive(Debug, Clone)]
pub(crate) struct SuperBlock {
    version: String,
    uuid: [u8; 16],
    name: Option<String>,
    level: i32,
    layout: u32,
    disks: u32,
    /// Bytes of a chunk.
    chunk: u64,
    /// Bytes that each member of a mirror gives.
    used: u64,
    /// Where the data are on this member.
    start: u64,
    len: u64,
    events: u64,
    /// Place in the array; `None` for a spare, a faulty or a half-filled member.
    role: Option<u32>,
    reshaping: bool,
    /// Number that version 0.90 remembers.
    minor: Option<u32>,
}

impl SuperBlock {
    /// Finds the superblock of a member.
    ///
    /// # Errors
    /// Read errors, and `Corrupt` for a superblock that ends early.
    pub(crate) fn read(layer: &dyn ReadAt) -> Result<Option<Self>> {
        let len = layer.len();
        // Version 1 stands at the end (1.0), at the start (1.1) or 4 KiB in (1.2).
        let at_end = len.saturating_sub(8 << 10) & !4095;
        for (position, minor) in [(at_end, 0u8), (0, 1), (4096, 2)] {
            let raw = read_upto(layer, position, 4096)?;
            let r = Record::new("md superblock", position, &raw);
            if r.u32_le(0).ok() == Some(MAGIC)
                && r.u32_le(4)? == 1
                // super_offset is in sectors and must be where the superblock was found.
                && r.u64_le(144)?.saturating_mul(SECTOR) == position
            {
                return Self::version_1(&r, minor).map(Some);
            }
        }
        let old_at = (len & !0xffff).saturating_sub(64 << 10);
        if len < 128 << 10 {
            return Ok(None);
        }
        let raw = read_upto(layer, old_at, OLD_LEN)?;
        Self::version_0(&Record::new("md superblock", old_at, &raw), old_at)
    }

    fn version_1(r: &Record<'_>, minor: u8) -> Result<Self> {
        let number = size(r.u32_le(160)?);
        let role = r.u16_le(256usize.saturating_add(number.saturating_mul(2)));
        let features = r.u32_le(8)?;
        let sectors = |at: usize| Ok(r.u64_le(at)?.saturating_mul(SECTOR));
        Ok(Self {
            version: format!("1.{minor}"),
            uuid: r.array(16)?,
            name: label(r.slice(32, 32)?),
            level: i32::from_le_bytes(r.array(72)?),
            layout: r.u32_le(76)?,
            disks: r.u32_le(92)?,
            chunk: u64::from(r.u32_le(88)?).saturating_mul(SECTOR),
            used: sectors(80)?,
            start: sectors(128)?,
            len: sectors(136)?,
            events: r.u64_le(200)?,
            // Roles from 0xfff0 on are no places. A member that is being filled is none either.
            role: role
                .ok()
                .filter(|role| *role < 0xfff0 && features & RECOVERING == 0)
                .map(u32::from),
            reshaping: features & RESHAPING != 0,
            minor: None,
        })
    }

    /// In the byte order of the machine that wrote it.
    fn version_0(r: &Record<'_>, position: u64) -> Result<Option<Self>> {
        let little = r.u32_le(0).ok() == Some(MAGIC);
        if !little && r.u32_be(0).ok() != Some(MAGIC) {
            return Ok(None);
        }
        let word = |index: usize| {
            let at = index.saturating_mul(4);
            if little { r.u32_le(at) } else { r.u32_be(at) }
        };
        if word(1)? != 0 {
            return Ok(None);
        }
        let mut id = [0; 16];
        for (slot, index) in id.chunks_exact_mut(4).zip([5usize, 13, 14, 15]) {
            slot.copy_from_slice(&word(index)?.to_be_bytes());
        }
        let (low, high) = if little { (39, 40) } else { (40, 39) };
        let state = word(996)?;
        Ok(Some(Self {
            version: format!("0.{}.{}", word(2)?, word(3)?),
            uuid: id,
            name: None,
            level: word(7)?.cast_signed(),
            layout: word(64)?,
            disks: word(10)?,
            chunk: u64::from(word(65)?),
            used: u64::from(word(8)?).saturating_mul(1024),
            start: 0,
            len: position,
            events: u64::from(word(low)?) | (u64::from(word(high)?) << 32),
            // Bits: faulty 0, active 1, in sync 2.
            role: (state & 7 == 6).then_some(word(995)?),
            reshaping: false,
            minor: Some(word(11)?),
        }))
    }

    /// What is told of a member.
    pub(crate) fn facts(&self) -> VolumeFacts {
        VolumeFacts {
            version: Some(self.version.clone()),
            uuid: uuid(&self.uuid),
            label: self.name.clone(),
            level: Some(level_name(self.level)),
            disks: Some(self.disks),
            ..VolumeFacts::of_type("linux_raid_member")
        }
    }

    /// `/dev/md/name` without the host before it, `/dev/mdN` where the name is a number.
    fn device(&self) -> String {
        if let Some(minor) = self.minor {
            return format!("/dev/md{minor}");
        }
        let name = self.name.as_deref().unwrap_or_default();
        let name = name.split_once(':').map_or(name, |(_, name)| name);
        let name: String = name.replace(['/', '\0'], "_");
        if name.is_empty() {
            return "/dev/md127".into();
        }
        if name.bytes().all(|b| b.is_ascii_digit()) {
            return format!("/dev/md{name}");
        }
        format!("/dev/md/{name}")
    }
}

fn level_name(level: i32) -> String {
    match level {
        LINEAR => "linear".into(),
        -4 => "multipath".into(),
        n if n >= 0 => format!("raid{n}"),
        n => format!("level {n}"),
    }
}

/// Puts members together. Each array is answered, with the reason when it cannot be read.
pub(crate) fn assemble(members: &[Member]) -> Result<Vec<(VolumeFacts, Assembled)>> {
    let mut arrays: BTreeMap<[u8; 16], Vec<(SuperBlock, &Member)>> = BTreeMap::new();
    for member in members {
        if let Some(sb) = SuperBlock::read(member.layer.as_ref())? {
            arrays.entry(sb.uuid).or_default().push((sb, member));
        }
    }
    Ok(arrays.into_values().filter_map(|a| array(&a)).collect())
}

fn array(members: &[(SuperBlock, &Member)]) -> Option<(VolumeFacts, Assembled)> {
    let (newest, _) = members.iter().max_by_key(|(sb, _)| sb.events)?;
    let mut places: BTreeMap<u32, (&SuperBlock, Layer)> = BTreeMap::new();
    for (sb, member) in members {
        // A member that missed events is stale; one event may be the last write's.
        if sb.events.saturating_add(1) < newest.events {
            continue;
        }
        if let Some(role) = sb.role {
            let data: Layer = Arc::new(Window::new(member.layer.clone(), sb.start, sb.len));
            places.entry(role).or_insert((sb, data));
        }
    }
    let facts = VolumeFacts {
        members: members.iter().map(|(_, m)| m.device.clone()).collect(),
        ..VolumeFacts {
            volume_type: "md_array".into(),
            ..newest.facts()
        }
    };
    let layer = put_together(newest, &places);
    let device = newest.device();
    Some((facts, Assembled { device, layer }))
}

fn put_together(
    sb: &SuperBlock,
    places: &BTreeMap<u32, (&SuperBlock, Layer)>,
) -> std::result::Result<Layer, String> {
    if sb.reshaping {
        return Err("an md array that is being reshaped".into());
    }
    if sb.level == 1 {
        let Some((_, leg)) = places.values().next() else {
            return Err("md raid1 without a member in sync".into());
        };
        let len = if sb.used == 0 { leg.len() } else { sb.used };
        return Ok(Arc::new(Window::new(leg.clone(), 0, len)));
    }
    if !matches!(sb.level, LINEAR | 0) {
        return Err(format!("md {}", level_name(sb.level)));
    }
    if sb.disks == 0 || sb.disks > DISKS_MAX {
        return Err(format!("an md array of {} devices", sb.disks));
    }
    let missing = (0..sb.disks).find(|role| !places.contains_key(role));
    if let Some(role) = missing {
        return Err(format!(
            "md {} with device {role} of {} missing",
            level_name(sb.level),
            sb.disks
        ));
    }
    let whole = |len: u64| {
        let odd = len.checked_rem(sb.chunk).unwrap_or(0);
        len.saturating_sub(odd)
    };
    let legs: Vec<(Layer, u64)> = places
        .range(0..sb.disks)
        .map(|(_, (_, layer))| (layer.clone(), whole(layer.len())))
        .collect();
    if sb.level == LINEAR {
        let pieces = legs.into_iter();
        let pieces = pieces.map(|(layer, len)| Piece::linear(layer, 0, len));
        return Ok(Arc::new(Mapped::new(pieces.collect())));
    }
    if sb.chunk == 0 {
        return Err("md raid0 without a chunk size".into());
    }
    Ok(Arc::new(Mapped::new(zones(sb, &legs))))
}

/// Members of raid0 that are larger than others go on in zones of their own.
fn zones(sb: &SuperBlock, legs: &[(Layer, u64)]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut start = 0u64;
    let mut total = 0u64;
    loop {
        let larger: Vec<_> = legs.iter().filter(|(_, len)| *len > start).collect();
        let Some(end) = larger.iter().map(|(_, len)| *len).min() else {
            return pieces;
        };
        let count = crate::bytes::wide(larger.len());
        let mut zone: Vec<_> = larger.iter().map(|(leg, _)| (leg.clone(), start)).collect();
        // Layout 1, of kernels before 3.14, counts chunks from the array's start, not the zone's.
        if sb.layout == 1 && start > 0 {
            let first = total.checked_div(sb.chunk).unwrap_or(0);
            let turn = first.checked_rem(count).unwrap_or(0);
            zone.rotate_left(crate::bytes::narrow(turn));
        }
        let len = end.saturating_sub(start).saturating_mul(count);
        pieces.push(Piece {
            len,
            stripe: sb.chunk,
            legs: zone,
        });
        total = total.saturating_add(len);
        start = end;
    }
}
