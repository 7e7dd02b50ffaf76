//! LVM2: physical volumes, their metadata and the logical volumes made of them.
//!
//! Linear, striped, mirrored (any leg that is there), raid0 and raid1 volumes are read; others
//! are named.

mod group;
mod label;
mod text;

pub(crate) use label::facts;

use super::{Assembled, Member};
use crate::error::{DiskError, Result};
use crate::probe::VolumeFacts;
use crate::read_at::Layer;
use group::Group;
use label::Pv;
use std::collections::BTreeMap;

/// A volume group with its logical volumes.
pub(crate) struct VolumeGroup {
    pub(crate) facts: VolumeFacts,
    /// Visible volumes, in the order of their names.
    pub(crate) volumes: Vec<Assembled>,
    /// Devices of its physical volumes, as far as they are here.
    pub(crate) devices: Vec<String>,
    pub(crate) name: String,
}

/// Puts volume groups together from the physical volumes that are there.
pub(crate) fn assemble(members: &[Member]) -> Result<Vec<VolumeGroup>> {
    let mut devices: BTreeMap<String, (&Member, Layer)> = BTreeMap::new();
    let mut newest: BTreeMap<String, Group> = BTreeMap::new();
    for member in members {
        let pv = match Pv::read(member.layer.as_ref()) {
            Ok(Some(pv)) => pv,
            Ok(None) | Err(DiskError::Corrupt { .. } | DiskError::OutOfBounds { .. }) => continue,
            Err(e) => return Err(e),
        };
        devices
            .entry(pv.uuid.clone())
            .or_insert((member, member.layer.clone()));
        // Some physical volumes carry no metadata: others of their group do.
        for text in pv.metadata(member.layer.as_ref())? {
            let Ok(group) = Group::parse(&text) else {
                continue;
            };
            let older = newest
                .get(&group.id)
                .is_some_and(|known| known.seqno >= group.seqno);
            if !older {
                newest.insert(group.id.clone(), group);
            }
        }
    }
    Ok(newest
        .into_values()
        .map(|group| group.assemble(&devices))
        .collect())
}
