//! Volumes made of other layers: LVM2 logical volumes and md arrays.

pub(crate) mod lvm;
pub(crate) mod mapped;
pub(crate) mod md;

use crate::read_at::Layer;

/// A layer that says it is part of a volume.
#[derive(Clone)]
pub(crate) struct Member {
    /// `/dev/sda2`.
    pub(crate) device: String,
    /// Its bytes.
    pub(crate) layer: Layer,
}

/// What members were put together to.
pub(crate) struct Assembled {
    /// `/dev/vg/lv`, `/dev/md/name`.
    pub(crate) device: String,
    /// Its bytes, or why there are none.
    pub(crate) layer: Result<Layer, String>,
}
