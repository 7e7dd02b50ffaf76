//! The files of an image as a tree: which file names which, before any of them is read as a disk.
//!
//! Growing the tree reads headers, descriptors and parent locators only; a parent process does just
//! that, a confined child goes on from there.

use super::mapped::{corrupt, unsupported};
use super::{CHAIN_MAX, FILES_MAX, magic, ova, qcow, qcow2, vdi, vhd, vhdx, vmdk};
use crate::error::{DiskError, Result};
use crate::read_at::Layer;
use crate::source::{Opener, Source};

/// What a named file is to the one that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// What lies below: a backing file, a parent.
    Backing,
    /// A part of the same disk.
    Extent,
}

/// How the bytes of a named file are to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    /// As they are, never for a header.
    Raw,
    /// As an image of this format, or of the one that is found.
    Image(Option<String>),
}

/// A file that an image names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) role: Role,
    /// Names it may be found by, as stored, in the order to try: a name that is not found leads to
    /// the next one, a name that is denied to the end. Never empty.
    pub(super) names: Vec<Vec<u8>>,
    pub(super) expected: Expected,
}

/// A parsed header.
pub(super) enum Header {
    Raw,
    Qcow(qcow::Header),
    Qcow2(Box<qcow2::Header>),
    Vmdk(Box<vmdk::Header>),
    Vhd(Box<vhd::Header>),
    Vhdx(Box<vhdx::Header>),
    Vdi(vdi::Header),
    Ova(ova::Package),
}

impl Header {
    fn read(layer: &Layer, format: &str) -> Result<Self> {
        let bytes = layer.as_ref();
        Ok(match format {
            "raw" => Self::Raw,
            "qcow" => Self::Qcow(qcow::Header::read(bytes)?),
            "qcow2" => {
                let header = qcow2::Header::read(bytes)?;
                header.check_readable()?;
                Self::Qcow2(Box::new(header))
            }
            "vmdk" => Self::Vmdk(Box::new(vmdk::Header::read(bytes)?)),
            "vpc" => Self::Vhd(Box::new(vhd::Header::read(bytes)?)),
            "vhdx" => Self::Vhdx(Box::new(vhdx::Header::read(bytes)?)),
            "vdi" => Self::Vdi(vdi::Header::read(bytes)?),
            "ova" => Self::Ova(ova::Package::read(bytes)?),
            other => return Err(unsupported(magic::advice(other))),
        })
    }

    fn references(&self) -> Vec<Reference> {
        match self {
            Self::Raw | Self::Vdi(_) | Self::Ova(_) => Vec::new(),
            Self::Qcow(header) => header.backing.iter().cloned().collect(),
            Self::Qcow2(header) => header.backing.iter().cloned().collect(),
            Self::Vmdk(header) => header.references(),
            Self::Vhd(header) => header.parent().into_iter().collect(),
            Self::Vhdx(header) => header.parent().into_iter().collect(),
        }
    }
}

/// A file, its header, and the files it names.
pub(super) struct Node {
    pub(super) source: Source,
    pub(super) header: Header,
    pub(super) related: Vec<Related>,
}

/// A named file.
pub(super) struct Related {
    /// The name it was found by, as stored.
    pub(super) name: Vec<u8>,
    pub(super) role: Role,
    pub(super) node: Node,
}

/// Opens files from an image on.
pub(super) struct Growth<'a> {
    opener: &'a dyn Opener,
    files: usize,
    /// The files from the image down to the one at hand.
    path: Vec<(u64, u64)>,
}

impl<'a> Growth<'a> {
    pub(super) fn new(opener: &'a dyn Opener) -> Self {
        Self {
            opener,
            files: 0,
            path: Vec::new(),
        }
    }

    /// The tree of an image. `declared` is the format that the caller expects.
    pub(super) fn image(&mut self, declared: Option<&str>) -> Result<Node> {
        let image = self.opener.image()?;
        self.files = 1;
        let format = agreed(&image.layer, declared)?;
        self.node(image, format)
    }

    fn node(&mut self, source: Source, format: &str) -> Result<Node> {
        self.path.push(source.identity);
        let header = Header::read(&source.layer, format)?;
        let mut related = Vec::new();
        if let Header::Ova(package) = &header {
            let inner = source.part(package.disk(&source.layer));
            let format = magic::format_of(&inner.layer)?;
            if format == "ova" {
                return Err(unsupported("OVA within an OVA"));
            }
            let node = self.node(inner, format)?;
            related.push(Related {
                name: package.name().to_owned(),
                role: Role::Extent,
                node,
            });
        }
        for reference in header.references() {
            related.push(self.follow(&source, reference)?);
        }
        self.path.pop();
        Ok(Node {
            source,
            header,
            related,
        })
    }

    fn follow(&mut self, from: &Source, reference: Reference) -> Result<Related> {
        let (mut source, name) = self.first_found(from, reference.names)?;
        if self.path.contains(&source.identity) {
            let depth = self.path.len();
            return Err(corrupt(
                "backing chain",
                0,
                format!("a cycle at depth {depth}"),
            ));
        }
        if self.path.len() > CHAIN_MAX {
            return Err(over(format!("{CHAIN_MAX} backing files")));
        }
        if self.files >= FILES_MAX {
            return Err(over(format!("{FILES_MAX} files in an image")));
        }
        source.index = self.files;
        self.files = self.files.saturating_add(1);
        let node = match reference.expected {
            Expected::Raw => Node {
                source,
                header: Header::Raw,
                related: Vec::new(),
            },
            Expected::Image(declared) => {
                let format = agreed(&source.layer, declared.as_deref())?;
                self.node(source, format)?
            }
        };
        Ok(Related {
            name,
            role: reference.role,
            node,
        })
    }

    fn first_found(&self, from: &Source, names: Vec<Vec<u8>>) -> Result<(Source, Vec<u8>)> {
        let mut missing = None;
        for name in names {
            match self.opener.related(from, &name) {
                Ok(source) => return Ok((source, name)),
                // The first name is the best one to report.
                Err(e @ DiskError::NotFound { .. }) => missing = missing.or(Some(e)),
                Err(e) => return Err(e),
            }
        }
        Err(missing.unwrap_or_else(|| corrupt("parent locator", 0, "it holds no name")))
    }
}

/// The format of a file; it must agree with the declared one.
fn agreed(layer: &Layer, declared: Option<&str>) -> Result<&'static str> {
    let declared = declared.map(magic::canonical).filter(|d| *d != "auto");
    let found = magic::format_of(layer)?;
    match declared {
        None => {}
        Some(declared) if declared == found => {}
        // Only the end of the file says otherwise, and a guest may have written that: the caller's
        // word counts, and every byte is data.
        Some("raw") if magic::is_signed_at_the_end(layer, found)? => return Ok("raw"),
        Some(declared) => {
            let problem = format!("declared {declared}, found {found}");
            return Err(corrupt("image format", 0, problem));
        }
    }
    if layer.len() < 512 && found == "raw" {
        let problem = format!("{} bytes are no disk", layer.len());
        return Err(corrupt("image", 0, problem));
    }
    Ok(found)
}

fn over(budget: String) -> DiskError {
    DiskError::OverBudget { budget }
}

/// The last part of a name that Windows or Unix wrote.
pub(super) fn last_part(name: &str) -> &str {
    let part = name.rsplit(['/', '\\']).next().unwrap_or(name);
    // `C:disk.vhd`
    part.rsplit(':').next().unwrap_or(part)
}

/// A name that Windows wrote as a path; `None` for one that begins with a drive or a share, which
/// mean nothing here. A leading slash stays, for policy to judge.
pub(super) fn relative_to_here(name: &str) -> Option<String> {
    let unix = name.replace('\\', "/");
    let drive = unix.as_bytes().get(1) == Some(&b':');
    if drive || name.starts_with('\\') {
        return None;
    }
    let trimmed = unix.trim_start_matches("./");
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}
