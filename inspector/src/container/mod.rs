//! Container formats: from the files of an image to one virtual disk.
//!
//! The format is told by a validated header, never by the file's name. Read today: raw and qcow2.
//! Every other known format is recognised and refused by name.

mod magic;
pub mod qcow2;

use crate::bytes::read_upto;
use crate::error::{DiskError, Result};
use crate::read_at::Layer;
use crate::source::{HostFile, HostRoots, Opener, Source};
use std::path::Path;
use std::sync::Arc;

/// Formats that are read, as `image.format` names them.
pub const FORMATS: &[&str] = &["qcow2", "raw"];

/// Files in a chain at most: the image and its backing files.
pub const CHAIN_MAX: usize = 16;

/// What the container says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct ContainerFacts {
    /// `raw` or `qcow2`.
    pub format: String,
    /// Version of the format, where it has one.
    pub version: Option<u32>,
    /// Size of the virtual disk in bytes.
    pub virtual_size: u64,
    /// Bytes the image file takes up on the host's disk.
    pub actual_size: u64,
    /// Length of the image file.
    pub file_size: u64,
    /// Cluster size in bytes.
    pub cluster_size: Option<u64>,
    /// Compression method that the header announces for compressed clusters.
    pub compression: Option<String>,
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
    /// Backing files, nearest first, named as the images name them.
    pub backing: Vec<Backing>,
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

/// Opens an image with its backing files. `declared` is the format that the caller expects; it
/// must agree with what is found.
///
/// # Errors
/// `Corrupt` for a damaged image or another format than declared; `Unsupported` for formats and
/// features that are not read; `Denied` for names that policy refuses.
pub fn open(opener: &dyn Opener, declared: Option<&str>) -> Result<Container> {
    let image = opener.image()?;
    if image.layer.len() < 512 {
        return Err(DiskError::Corrupt {
            structure: "image",
            position: 0,
            problem: format!("{} bytes are no disk", image.layer.len()),
        });
    }
    let format = magic::format_of(&image.layer)?;
    if let Some(declared) = declared.map(magic::canonical)
        && declared != "auto"
        && declared != format
        // Declared raw, any content is a disk: then its bytes are data and no header counts.
        && declared != "raw"
    {
        return Err(DiskError::Corrupt {
            structure: "image format",
            position: 0,
            problem: format!("declared {declared}, found {format}"),
        });
    }
    if declared.map(magic::canonical) == Some("raw") && format != "raw" {
        return Err(DiskError::Corrupt {
            structure: "image format",
            position: 0,
            problem: format!("declared raw, found {format}"),
        });
    }
    let mut seen = Vec::new();
    open_source(opener, image, format, &mut seen)
}

fn open_source(
    opener: &dyn Opener,
    source: Source,
    format: &'static str,
    seen: &mut Vec<(u64, u64)>,
) -> Result<Container> {
    if seen.contains(&source.identity) {
        return Err(DiskError::Corrupt {
            structure: "backing chain",
            position: 0,
            problem: format!("a cycle at depth {}", seen.len()),
        });
    }
    if seen.len() > CHAIN_MAX {
        return Err(DiskError::OverBudget {
            budget: format!("{CHAIN_MAX} backing files"),
        });
    }
    seen.push(source.identity);
    match format {
        "raw" => Ok(raw(&source)),
        "qcow2" => {
            let header = qcow2::Header::read(source.layer.as_ref())?;
            header.check_readable()?;
            let backing = match &header.backing {
                None => None,
                Some(reference) => {
                    let file = opener.backing(&source, &reference.name)?;
                    let format = backing_format(reference, &file)?;
                    Some((reference.clone(), open_source(opener, file, format, seen)?))
                }
            };
            qcow2(&source, header, backing)
        }
        other => Err(unsupported(other)),
    }
}

fn backing_format(reference: &qcow2::Reference, file: &Source) -> Result<&'static str> {
    match reference.format.as_deref().map(magic::canonical) {
        // Said to be raw: its bytes are never taken for a header.
        Some("raw") => Ok("raw"),
        declared => {
            let found = magic::format_of(&file.layer)?;
            match declared {
                Some(declared) if declared != found => Err(DiskError::Corrupt {
                    structure: "backing file",
                    position: 0,
                    problem: format!("declared {declared}, found {found}"),
                }),
                _ => Ok(found),
            }
        }
    }
}

fn raw(source: &Source) -> Container {
    Container {
        facts: ContainerFacts {
            format: "raw".into(),
            virtual_size: source.layer.len(),
            actual_size: source.allocated,
            file_size: source.layer.len(),
            ..ContainerFacts::default()
        },
        disk: Arc::clone(&source.layer),
    }
}

fn qcow2(
    source: &Source,
    header: qcow2::Header,
    backing: Option<(qcow2::Reference, Container)>,
) -> Result<Container> {
    let mut facts = header.facts();
    facts.actual_size = source.allocated;
    facts.file_size = source.layer.len();
    let mut below = None;
    if let Some((reference, container)) = backing {
        facts.backing.push(Backing {
            name: String::from_utf8_lossy(&reference.name).into_owned(),
            format: container.facts.format,
            virtual_size: container.facts.virtual_size,
        });
        facts.backing.extend(container.facts.backing);
        below = Some(container.disk);
    }
    let disk = qcow2::Qcow2::new(Arc::clone(&source.layer), header, below)?;
    Ok(Container {
        facts,
        disk: Arc::new(disk),
    })
}

fn unsupported(format: &str) -> DiskError {
    DiskError::Unsupported {
        feature: format.to_owned(),
    }
}

/// Opens an image and every backing file it names, reading only headers: for a parent process that
/// hands the open files to a confined child ([`crate::source::ChainOpener`]).
///
/// # Errors
/// As [`open`].
pub fn open_chain(roots: &HostRoots, path: &Path) -> Result<Vec<HostFile>> {
    let mut chain = vec![roots.open(path)?];
    loop {
        let Some(last) = chain.last() else {
            return Ok(chain);
        };
        let file = last.file.try_clone().map_err(|e| DiskError::Io {
            position: 0,
            message: e.to_string(),
        })?;
        let layer = crate::source::FileLayer::new(file, last.len);
        let head = read_upto(&layer, 0, 4)?;
        // Another format or a damaged header: the child will say so, it needs no further file.
        if head != qcow2::MAGIC {
            return Ok(chain);
        }
        let Ok(header) = qcow2::Header::read(&layer) else {
            return Ok(chain);
        };
        header.check_readable()?;
        let Some(reference) = header.backing else {
            return Ok(chain);
        };
        let next = roots.open_backing(last, &reference.name)?;
        if chain.iter().any(|file| file.identity == next.identity) {
            return Err(DiskError::Corrupt {
                structure: "backing chain",
                position: 0,
                problem: format!("a cycle at depth {}", chain.len()),
            });
        }
        if chain.len() > CHAIN_MAX {
            return Err(DiskError::OverBudget {
                budget: format!("{CHAIN_MAX} backing files"),
            });
        }
        let raw = reference.format.as_deref() == Some("raw");
        chain.push(next);
        if raw {
            return Ok(chain);
        }
    }
}
