//! Container formats: from the files of an image to one virtual disk.
//!
//! The format is told by a validated header, never by the file's name. Read are raw, qcow, qcow2, VMDK,
//! VHD, VHDX, VDI and OVA; every other known format is recognised and refused by name.

mod magic;
mod mapped;
mod ova;
mod packed;
mod qcow;
mod qcow2;
mod tree;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;

pub use crate::source::chain::open_chain;

use crate::error::Result;
use crate::read_at::Layer;
use crate::source::Opener;
use mapped::Mapped;
use std::sync::Arc;
use tree::{Growth, Header, Node, Related, Role};

/// Formats that are read, as `image.format` names them.
pub const FORMATS: &[&str] = &["ova", "qcow", "qcow2", "raw", "vdi", "vhdx", "vmdk", "vpc"];

/// Files in a chain at most, below the image itself: backing files and parents.
pub const CHAIN_MAX: usize = 16;

/// Files of an image at most, all extents and parents counted: as many descriptors as one message
/// over a Unix socket carries (SCM_MAX_FD is 253), with a few to spare. 500 GB in pieces of 2 GB.
pub const FILES_MAX: usize = 250;

/// What the container says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct ContainerFacts {
    /// `raw`, `qcow`, `qcow2`, `vmdk`, `vpc`, `vhdx` or `vdi`, as qemu-img names them; `ova`.
    pub format: String,
    /// Kind within the format, in its own words: `streamOptimized`, `dynamic`, …
    pub variant: Option<String>,
    /// Version of the format, where it has one.
    pub version: Option<u32>,
    /// Size of the virtual disk in bytes.
    pub virtual_size: u64,
    /// Bytes the image file and its extents take up on the host's disk.
    pub actual_size: u64,
    /// Length of the image file.
    pub file_size: u64,
    /// Cluster size in bytes.
    pub cluster_size: Option<u64>,
    /// Compression method that the header announces for compressed clusters.
    pub compression: Option<String>,
    /// Whether clusters are compressed; unknown where only the tables could tell.
    pub compressed: Option<bool>,
    /// Whether the disk is encrypted.
    pub encrypted: bool,
    /// Whether the image was not closed cleanly; its reference counts may be wrong, its data not.
    pub dirty: bool,
    /// Whether a tool marked the image as corrupt.
    pub corrupt: bool,
    /// Internal snapshots.
    pub snapshots: u32,
    /// Features in the header, by name.
    pub features: Vec<String>,
    /// Backing files and parents, nearest first, named as the images name them.
    pub backing: Vec<Backing>,
    /// Files that hold parts of the disk, named as the image names them.
    pub extents: Vec<String>,
    /// What was left out or not trusted.
    pub warnings: Vec<String>,
}

/// One step of a backing chain.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Backing {
    /// Name as stored in the overlay.
    pub name: String,
    /// Format of the backing file.
    pub format: String,
    /// Size of its virtual disk.
    pub virtual_size: u64,
}

/// An opened image: facts and the virtual disk.
pub struct Container {
    /// What the container says of itself.
    pub facts: ContainerFacts,
    /// The virtual disk.
    pub disk: Layer,
}

/// Opens an image with all the files it names. `declared` is the format that the caller expects; it
/// must agree with what is found.
///
/// # Errors
/// `Corrupt` for a damaged image or another format than declared; `Unsupported` for formats and
/// features that are not read; `Denied` for names that policy refuses.
pub fn open(opener: &dyn Opener, declared: Option<&str>) -> Result<Container> {
    build(Growth::new(opener).image(declared)?)
}

/// Opens all the files of an image and parses their headers, no more.
pub(crate) fn discover(opener: &dyn Opener, declared: Option<&str>) -> Result<()> {
    Growth::new(opener).image(declared).map(|_| ())
}

/// The disk of a tree. Recurses at most [`CHAIN_MAX`] deep: that is how deep a tree grows.
fn build(node: Node) -> Result<Container> {
    let Node {
        source,
        header,
        related,
    } = node;
    let file = Arc::clone(&source.layer);
    let (extents, below): (Vec<Related>, Vec<Related>) =
        related.into_iter().partition(|r| r.role == Role::Extent);
    let parent = match below.into_iter().next() {
        Some(related) => Some(Parent::build(related)?),
        None => None,
    };
    let disk = parent.as_ref().map(|p| Arc::clone(&p.container.disk));
    let mut container = match header {
        Header::Raw => raw(file),
        Header::Qcow2(header) => {
            let facts = header.facts();
            Container {
                facts,
                disk: Arc::new(Mapped::new(qcow2::Map::new(file, *header)?, disk)),
            }
        }
        Header::Qcow(header) => Container {
            facts: header.facts(),
            disk: Arc::new(Mapped::new(qcow::Map::new(file, header), disk)),
        },
        Header::Vmdk(header) => {
            let mut parts = Vec::new();
            for extent in &extents {
                let layer = Arc::clone(&extent.node.source.layer);
                parts.push((extent.name.as_slice(), layer));
            }
            header.open(file, &parts, parent.as_ref())?
        }
        Header::Vhd(header) => header.open(file, parent.as_ref())?,
        Header::Vhdx(header) => header.open(file, parent.as_ref())?,
        Header::Vdi(header) => header.open(file),
        Header::Ova(package) => {
            return open_package(&package, extents, source.layer.len(), source.allocated);
        }
    };
    let facts = &mut container.facts;
    facts.file_size = source.layer.len();
    facts.actual_size = source.allocated;
    for extent in extents {
        facts.actual_size = facts
            .actual_size
            .saturating_add(extent.node.source.allocated);
        facts.extents.push(shown(&extent.name));
    }
    if let Some(parent) = parent {
        let below = parent.container.facts;
        facts.backing.push(Backing {
            name: shown(&parent.name),
            format: below.format,
            virtual_size: below.virtual_size,
        });
        facts.backing.extend(below.backing);
        facts.warnings.extend(below.warnings);
    }
    Ok(container)
}

/// What lies below an image.
struct Parent {
    name: Vec<u8>,
    container: Container,
    /// What the formats say that their parents must be.
    identity: Identity,
}

/// What tells a file from another one with the same name.
#[derive(Default)]
struct Identity {
    /// Content identifier of a VMDK.
    content_id: Option<u32>,
    /// Unique identifier and time stamp of a VHD.
    vhd: Option<([u8; 16], u32)>,
    /// Data write identifier of a VHDX.
    data_write: Option<[u8; 16]>,
}

impl Parent {
    fn build(related: Related) -> Result<Self> {
        let mut identity = Identity::default();
        match &related.node.header {
            Header::Vmdk(header) => identity.content_id = header.content_id(),
            Header::Vhd(header) => identity.vhd = Some(header.identity()),
            Header::Vhdx(header) => identity.data_write = Some(header.data_write()),
            _ => {}
        }
        Ok(Self {
            name: related.name,
            container: build(related.node)?,
            identity,
        })
    }
}

fn raw(disk: Layer) -> Container {
    Container {
        facts: ContainerFacts {
            format: "raw".into(),
            virtual_size: disk.len(),
            compressed: Some(false),
            ..ContainerFacts::default()
        },
        disk,
    }
}

/// The disk inside an archive, with the archive's name and size around it.
fn open_package(
    package: &ova::Package,
    inner: Vec<Related>,
    file_size: u64,
    allocated: u64,
) -> Result<Container> {
    let Some(inner) = inner.into_iter().next() else {
        return Err(mapped::unsupported("OVA without a disk"));
    };
    let name = shown(&inner.name);
    let mut container = build(inner.node)?;
    let facts = &mut container.facts;
    facts.variant = Some(match facts.variant.take() {
        Some(variant) => format!("{} {variant}", facts.format),
        None => facts.format.clone(),
    });
    facts.format = "ova".into();
    facts.file_size = file_size;
    facts.actual_size = allocated;
    facts.extents = vec![name];
    facts.warnings.splice(0..0, package.warnings().to_vec());
    Ok(container)
}

/// A stored name as text.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
