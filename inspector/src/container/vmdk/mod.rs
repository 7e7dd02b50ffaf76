//! VMDK, from VMware's "Virtual Disk Format 5.0" (2011): a text descriptor and extents, each flat,
//! sparse, zero, or all in one file.
//!
//! Read are monolithicSparse, streamOptimized, monolithicFlat, twoGbMaxExtentSparse and -Flat,
//! vmfs and vmfsSparse, and chains of them. SEsparse and raw devices are refused by name.

mod descriptor;
mod sparse;

use super::mapped::{Mapped, corrupt, unsupported};
use super::tree::{Expected, Reference, Role, last_part, relative_to_here};
use super::{Container, ContainerFacts, Parent};
use crate::bytes::{narrow, read_upto, wide};
use crate::error::Result;
use crate::layer::{Window, check_range};
use crate::read_at::{Layer, ReadAt};
use descriptor::{Descriptor, Extent, Kind};
use sparse::Sparse;
use std::sync::Arc;

pub(super) const SECTOR: u64 = 512;
/// Text descriptors are 20 sectors; those of [`super::FILES_MAX`] extents come to a tenth of this.
const DESCRIPTOR_MAX: u64 = 256 << 10;
/// The largest disk that ESX makes is 62 TiB.
const DISK_MAX: u64 = 64 << 40;

/// A descriptor, or a sparse file that holds one.
#[derive(Debug, Clone)]
pub(super) enum Header {
    /// The file is text; the data lies in other files.
    Text(Descriptor),
    /// The file is the only extent of the disk.
    Sparse {
        sparse: Sparse,
        descriptor: Option<Descriptor>,
    },
}

impl Header {
    /// Reads the descriptor, alone or inside a sparse file.
    pub(super) fn read(layer: &dyn ReadAt) -> Result<Self> {
        let head = read_upto(layer, 0, 4)?;
        if head == b"COWD" {
            // Whether it has a parent stands in the descriptor only.
            return Err(unsupported("VMDK vmfsSparse extent without its descriptor"));
        }
        if head != b"KDMV" {
            let len = layer.len().min(DESCRIPTOR_MAX);
            return Descriptor::parse(&read_upto(layer, 0, narrow(len))?, 0).map(Self::Text);
        }
        let sparse = Sparse::read(layer)?;
        let descriptor = match sparse.descriptor() {
            None => None,
            Some((at, len)) => {
                let text = read_upto(layer, at, narrow(len.min(DESCRIPTOR_MAX)))?;
                // One extent of several has room for a descriptor and none in it.
                match text.first() {
                    None | Some(0) => None,
                    Some(_) => Some(Descriptor::parse(&text, at)?),
                }
            }
        };
        match descriptor {
            // A sparse file without capacity only carries the descriptor.
            Some(descriptor) if sparse.capacity() == 0 => Ok(Self::Text(descriptor)),
            Some(d) if d.extents.len() > 1 => Err(unsupported(format!(
                "VMDK of {} extents with an embedded descriptor",
                d.extents.len()
            ))),
            descriptor => Ok(Self::Sparse { sparse, descriptor }),
        }
    }

    fn descriptor(&self) -> Option<&Descriptor> {
        match self {
            Self::Text(descriptor) => Some(descriptor),
            Self::Sparse { descriptor, .. } => descriptor.as_ref(),
        }
    }

    /// Content identifier: changes when the disk is written.
    pub(super) fn content_id(&self) -> Option<u32> {
        self.descriptor().and_then(|d| d.content_id)
    }

    /// Extents and the parent.
    pub(super) fn references(&self) -> Vec<Reference> {
        let mut found: Vec<Reference> = Vec::new();
        if let Self::Text(descriptor) = self {
            for extent in &descriptor.extents {
                let names = vec![extent.name.clone()];
                if extent.kind != Kind::Zero && !found.iter().any(|r| r.names == names) {
                    found.push(Reference {
                        role: Role::Extent,
                        names,
                        expected: Expected::Raw,
                    });
                }
            }
        }
        if let Some((hint, _)) = self.descriptor().and_then(Descriptor::parent) {
            let text = String::from_utf8_lossy(hint);
            let mut names = vec![match relative_to_here(&text) {
                // As it is stored, if it can be a path at all.
                Some(path) if !text.contains('\\') && path == text => hint.to_vec(),
                Some(path) => path.into_bytes(),
                None => last_part(&text).as_bytes().to_vec(),
            }];
            let beside = last_part(&text).as_bytes().to_vec();
            if !names.contains(&beside) {
                names.push(beside);
            }
            found.push(Reference {
                role: Role::Backing,
                names,
                expected: Expected::Image(Some("vmdk".into())),
            });
        }
        found
    }

    /// The virtual disk. `files`: each extent file with the name it was found by.
    pub(super) fn open(
        self,
        file: Layer,
        files: &[(&[u8], Layer)],
        parent: Option<&Parent>,
    ) -> Result<Container> {
        if let (Some((_, wanted)), Some(parent)) =
            (self.descriptor().and_then(Descriptor::parent), parent)
            && parent.identity.content_id != Some(wanted)
        {
            let found = parent.identity.content_id.unwrap_or(0);
            let problem = format!("the parent's CID is {found:08x}, expected {wanted:08x}");
            return Err(corrupt("VMDK parent", 0, problem));
        }
        let below = parent.map(|p| Arc::clone(&p.container.disk));
        let mut facts = ContainerFacts {
            format: "vmdk".into(),
            variant: self.descriptor().and_then(|d| d.create_type.clone()),
            compressed: Some(false),
            ..ContainerFacts::default()
        };
        let disk = match self {
            Self::Sparse { sparse, descriptor } => {
                if descriptor.is_none() {
                    facts.variant = Some("sparse extent".into());
                    facts.warnings.push(
                        "a sparse extent without a descriptor: it may be one part of a disk".into(),
                    );
                }
                describe(&sparse, &mut facts);
                let disk: Layer = Arc::new(Mapped::new(sparse.map(file), below));
                disk
            }
            Self::Text(descriptor) => {
                let mut parts = Parts::default();
                for extent in &descriptor.extents {
                    let layer = files.iter().find(|(name, _)| *name == extent.name);
                    let layer = layer.map(|(_, layer)| Arc::clone(layer));
                    parts.add(extent, layer, below.as_ref(), &mut facts)?;
                }
                Arc::new(parts)
            }
        };
        facts.virtual_size = disk.len();
        Ok(Container { facts, disk })
    }
}

/// What a sparse extent tells of the image.
fn describe(sparse: &Sparse, facts: &mut ContainerFacts) {
    facts.cluster_size = Some(sparse.grain_bytes());
    facts.dirty |= sparse.unclean();
    facts.version = Some(sparse.version());
    if sparse.compressed() {
        facts.compressed = Some(true);
        facts.compression = Some("zlib".into());
    }
}

/// Extents one after the other.
#[derive(Default)]
struct Parts {
    /// (start in the disk, length, bytes or zeros)
    parts: Vec<(u64, u64, Option<Layer>)>,
    len: u64,
}

impl Parts {
    fn add(
        &mut self,
        extent: &Extent,
        file: Option<Layer>,
        below: Option<&Layer>,
        facts: &mut ContainerFacts,
    ) -> Result<()> {
        let start = self.len;
        let len = extent.sectors.saturating_mul(SECTOR);
        let name = String::from_utf8_lossy(&extent.name).into_owned();
        let file =
            || file.ok_or_else(|| corrupt("VMDK extent", 0, format!("{name}: no such file")));
        let below = || -> Option<Layer> {
            let below = Arc::clone(below?);
            Some(Arc::new(Window::new(below, start, len)))
        };
        let layer: Option<Layer> = match extent.kind {
            Kind::Zero => below(),
            Kind::Flat => {
                let file = file()?;
                let offset = extent.offset.saturating_mul(SECTOR);
                if offset.saturating_add(len) > file.len() {
                    facts.warnings.push(format!("extent {name} is cut short"));
                }
                Some(Arc::new(Window::new(file, offset, len)))
            }
            Kind::Sparse | Kind::VmfsSparse => {
                let file = file()?;
                let sparse = if extent.kind == Kind::Sparse {
                    Sparse::read(file.as_ref())?
                } else {
                    Sparse::read_cowd(file.as_ref())?
                };
                if sparse.capacity() < len {
                    let found = sparse.capacity();
                    let problem = format!("{name} holds {found} of {len} bytes");
                    return Err(corrupt("VMDK extent", 0, problem));
                }
                describe(&sparse, facts);
                Some(Arc::new(Mapped::new(sparse.map(file), below())))
            }
        };
        self.parts.push((start, len, layer));
        self.len = start.saturating_add(len);
        if self.len > DISK_MAX {
            return Err(corrupt("VMDK descriptor", 0, "a disk of more than 64 TiB"));
        }
        Ok(())
    }
}

impl ReadAt for Parts {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, position: u64, buf: &mut [u8]) -> Result<()> {
        check_range(position, buf.len(), self.len)?;
        let mut at = position;
        let mut rest = buf;
        let first = self
            .parts
            .partition_point(|(start, len, _)| start.saturating_add(*len) <= position);
        for (start, len, layer) in self.parts.iter().skip(first) {
            if rest.is_empty() {
                break;
            }
            let within = at.saturating_sub(*start);
            let here = narrow(len.saturating_sub(within)).min(rest.len());
            let (head, tail) = rest.split_at_mut(here);
            match layer {
                Some(layer) => layer.read_exact_at(within, head)?,
                None => head.fill(0),
            }
            at = at.saturating_add(wide(here));
            rest = tail;
        }
        Ok(())
    }
}
