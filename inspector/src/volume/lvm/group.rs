//! A volume group: physical volumes, logical volumes, and how these map to those.

use super::VolumeGroup;
use super::text::{self, Section, Value};
use crate::layer::Window;
use crate::probe::{LogicalVolume, PhysicalVolume, VolumeFacts};
use crate::read_at::Layer;
use crate::volume::mapped::{Mapped, Piece};
use crate::volume::{Assembled, Member};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const SECTOR: u64 = 512;
/// Volumes under one another: a mirror of parts of a raid is three.
const DEPTH_MAX: usize = 8;
/// Pieces of all volumes of a group: a segment of a volume has one.
const PIECES_MAX: usize = 200_000;

pub(super) struct Group {
    pub(super) id: String,
    pub(super) seqno: u64,
    name: String,
    extent: u64,
    body: Section,
}

/// Physical volumes that are here, by uuid.
type Devices<'a> = BTreeMap<String, (&'a Member, Layer)>;

struct Maps<'a> {
    group: &'a Group,
    devices: &'a Devices<'a>,
    /// Volumes whose content is that of a snapshot's store, not a file system's.
    stores: BTreeSet<&'a str>,
    pieces: usize,
}

type Mapping<T> = std::result::Result<T, String>;

impl Group {
    pub(super) fn parse(raw: &[u8]) -> Mapping<Self> {
        let root = text::parse(raw)?;
        let (name, body) = root
            .sections
            .into_iter()
            .find(|(_, section)| section.text("id").is_some())
            .ok_or("no volume group")?;
        let extent = body.number("extent_size").unwrap_or(0);
        if extent == 0 || extent > u64::MAX / SECTOR / 2 {
            return Err(format!("extent_size {extent}"));
        }
        Ok(Self {
            id: body.text("id").unwrap_or_default().to_owned(),
            seqno: body.number("seqno").unwrap_or(0),
            name,
            extent: extent.saturating_mul(SECTOR),
            body,
        })
    }

    fn sections(&self, name: &str) -> impl Iterator<Item = (&String, &Section)> {
        self.body
            .section(name)
            .into_iter()
            .flat_map(|section| &section.sections)
    }

    pub(super) fn assemble(&self, devices: &Devices<'_>) -> VolumeGroup {
        let stores = self.sections("logical_volumes").flat_map(|(_, lv)| {
            lv.sections
                .values()
                .filter(|segment| segment.text("type") == Some("snapshot"))
                .filter_map(|segment| segment.text("cow_store"))
        });
        let mut maps = Maps {
            group: self,
            devices,
            stores: stores.collect(),
            pieces: 0,
        };
        let (mut lvs, mut volumes) = (Vec::new(), Vec::new());
        for (name, lv) in self.sections("logical_volumes") {
            if !lv.has("status", "VISIBLE") {
                continue;
            }
            let layer = maps.volume(name, 0);
            let device = format!("/dev/{}/{name}", self.name);
            lvs.push(LogicalVolume {
                name: name.clone(),
                device: device.clone(),
                uuid: lv.text("id").map(str::to_owned),
                size: self.extents(lv).saturating_mul(self.extent),
                types: types(lv),
                unsupported: layer.as_ref().err().cloned(),
            });
            volumes.push(Assembled { device, layer });
        }
        let pvs: Vec<_> = self
            .sections("physical_volumes")
            .map(|(_, pv)| {
                let uuid = pv.text("id").unwrap_or_default().to_owned();
                PhysicalVolume {
                    device: devices.get(&uuid).map(|(m, _)| m.device.clone()),
                    size: pv.number("dev_size").map(|n| n.saturating_mul(SECTOR)),
                    uuid,
                }
            })
            .collect();
        VolumeGroup {
            devices: pvs.iter().filter_map(|pv| pv.device.clone()).collect(),
            facts: VolumeFacts {
                uuid: Some(self.id.clone()),
                vg: Some(self.name.clone()),
                pvs,
                lvs,
                ..VolumeFacts::of_type("lvm2_group")
            },
            volumes,
            name: self.name.clone(),
        }
    }

    fn extents(&self, lv: &Section) -> u64 {
        segments(lv).fold(0, |sum, segment| {
            sum.saturating_add(segment.number("extent_count").unwrap_or(0))
        })
    }
}

fn segments(lv: &Section) -> impl Iterator<Item = &Section> {
    lv.sections
        .iter()
        .filter(|(name, _)| name.starts_with("segment"))
        .map(|(_, segment)| segment)
}

fn types(lv: &Section) -> Vec<String> {
    let types: BTreeSet<&str> = segments(lv).filter_map(|s| s.text("type")).collect();
    types.into_iter().map(str::to_owned).collect()
}

/// Texts and numbers by turns: `["pv0", 0, "pv1", 7]`.
fn pairs(list: &[Value]) -> Mapping<Vec<(&str, u64)>> {
    list.chunks(2)
        .map(|pair| match pair {
            [Value::Text(name), Value::Number(n)] => u64::try_from(*n)
                .map(|n| (name.as_str(), n))
                .map_err(|_| format!("extent {n}")),
            _ => Err("a damaged list of areas".to_owned()),
        })
        .collect()
}

/// The names of a list, without what stands between them.
fn names(list: &[Value]) -> Vec<&str> {
    list.iter()
        .filter_map(|value| match value {
            Value::Text(name) => Some(name.as_str()),
            _ => None,
        })
        .collect()
}

impl Maps<'_> {
    /// The content of a logical volume, hidden ones included.
    fn volume(&mut self, name: &str, depth: usize) -> Mapping<Layer> {
        if depth > DEPTH_MAX {
            return Err("logical volumes under one another in a circle".into());
        }
        if self.stores.contains(name) {
            return Err("lvm snapshot".into());
        }
        let group = self.group;
        let lv = group.body.section("logical_volumes");
        let Some(lv) = lv.and_then(|all| all.section(name)) else {
            return Err(format!("logical volume {name} is not in its group"));
        };
        let mut ordered: Vec<_> = segments(lv).collect();
        ordered.sort_by_key(|segment| segment.number("start_extent"));
        let mut pieces = Vec::new();
        let mut expected = 0u64;
        for segment in ordered {
            let start = segment.number("start_extent").unwrap_or(0);
            let count = segment.number("extent_count").unwrap_or(0);
            if start != expected {
                return Err(format!(
                    "logical volume {name} has a gap at extent {expected}"
                ));
            }
            expected = expected.saturating_add(count);
            self.pieces = self.pieces.saturating_add(1);
            if self.pieces > PIECES_MAX {
                return Err(format!("more than {PIECES_MAX} segments"));
            }
            pieces.push(self.piece(segment, count.saturating_mul(group.extent), depth)?);
        }
        Ok(Arc::new(Mapped::new(pieces)))
    }

    fn piece(&mut self, segment: &Section, len: u64, depth: usize) -> Mapping<Piece> {
        let kind = segment.text("type").unwrap_or_default();
        // Flags stand behind a plus sign.
        let kind = kind.split_once('+').map_or(kind, |(kind, _)| kind);
        match kind {
            "striped" | "linear" => {
                let areas = pairs(segment.list("stripes"))?;
                let mut legs = Vec::new();
                for (name, extent) in &areas {
                    legs.push(self.area(name, *extent, depth)?);
                }
                self.striped(segment, len, legs)
            }
            "mirror" => {
                let areas = pairs(segment.list("mirrors"))?;
                self.any_leg(len, &areas, depth)
            }
            "raid1" => {
                // Each leg has a volume of its own for bookkeeping, named first.
                let all = names(segment.list("raids"));
                let images: Vec<_> = all.chunks(2).filter_map(|pair| pair.get(1)).collect();
                let areas: Vec<_> = images.into_iter().map(|name| (*name, 0)).collect();
                self.any_leg(len, &areas, depth)
            }
            "raid0" | "raid0_meta" => {
                let mut images = names(segment.list("raid0_lvs"));
                if images.is_empty() {
                    let all = names(segment.list("raids"));
                    images = all.chunks(2).filter_map(|p| p.get(1).copied()).collect();
                }
                let mut legs = Vec::new();
                for name in images {
                    legs.push(self.area(name, 0, depth)?);
                }
                self.striped(segment, len, legs)
            }
            "zero" => Ok(Piece::zeros(len)),
            other => Err(format!("lvm {other}")),
        }
    }

    fn striped(&self, segment: &Section, len: u64, legs: Vec<(Layer, u64)>) -> Mapping<Piece> {
        if legs.is_empty() {
            return Err("a segment without areas".into());
        }
        let stripe = match legs.len() {
            1 => len.max(1),
            _ => segment
                .number("stripe_size")
                .unwrap_or(0)
                .saturating_mul(SECTOR),
        };
        if stripe == 0 {
            return Err("stripes without a size".into());
        }
        Ok(Piece { len, stripe, legs })
    }

    fn any_leg(&mut self, len: u64, areas: &[(&str, u64)], depth: usize) -> Mapping<Piece> {
        let mut problem = "a mirror without legs".to_owned();
        for (name, extent) in areas {
            match self.area(name, *extent, depth) {
                Ok((layer, start)) => return Ok(Piece::linear(layer, start, len)),
                Err(e) => problem = e,
            }
        }
        Err(problem)
    }

    /// An area: a physical volume from an extent on, or another logical volume.
    fn area(&mut self, name: &str, extent: u64, depth: usize) -> Mapping<(Layer, u64)> {
        let group = self.group;
        let offset = extent.saturating_mul(group.extent);
        let pv = group.body.section("physical_volumes");
        let Some(pv) = pv.and_then(|all| all.section(name)) else {
            let layer = self.volume(name, depth.saturating_add(1))?;
            return Ok((layer, offset));
        };
        let uuid = pv.text("id").unwrap_or_default();
        let Some((_, layer)) = self.devices.get(uuid) else {
            return Err(format!("lvm physical volume {uuid} is missing"));
        };
        let start = pv.number("pe_start").unwrap_or(0).saturating_mul(SECTOR);
        let extents = pv.number("pe_count").unwrap_or(0);
        let data = Window::new(layer.clone(), start, extents.saturating_mul(group.extent));
        Ok((Arc::new(data), offset))
    }
}
