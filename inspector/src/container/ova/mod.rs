//! OVA: a tar archive with an OVF descriptor and disks (DMTF DSP0243, "Open Virtualization Format
//! Specification" 1.1.0). Nothing is extracted: the disk is a part of the archive.
//!
//! The descriptor decides which member is the disk, and only members of the archive are: a
//! reference to anything else is refused by name.

mod ovf;
mod tar;

use super::mapped::unsupported;
use crate::bytes::{narrow, read_vec};
use crate::error::{DiskError, Result};
use crate::layer::Window;
use crate::read_at::{Layer, ReadAt};
use std::sync::Arc;
use tar::Member;

/// A package has a descriptor, a manifest, a certificate, disks.
const MEMBERS_MAX: usize = 256;
/// An OVF descriptor is some kilobytes of XML.
const DESCRIPTOR_MAX: u64 = 1 << 20;

/// Which part of the archive is the disk.
#[derive(Debug, Clone)]
pub(super) struct Package {
    disk: Member,
    warnings: Vec<String>,
}

/// Whether a tar archive is a package. Its first member is the descriptor (DSP0243, 5.2 "OVF
/// package"); those that put it elsewhere are taken as well, if they are sound.
pub(super) fn is_package(layer: &dyn ReadAt) -> Result<bool> {
    for most in [1, MEMBERS_MAX] {
        match tar::members(layer, most) {
            Ok(members) if members.iter().any(is_descriptor) => return Ok(true),
            // Some other archive; that it is one is all that has to be said.
            Ok(_) | Err(DiskError::Corrupt { .. } | DiskError::OutOfBounds { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(false)
}

fn is_descriptor(member: &Member) -> bool {
    let name = member.name.to_ascii_lowercase();
    member.regular && name.ends_with(b".ovf")
}

impl Package {
    /// Reads the descriptor and finds the first disk.
    pub(super) fn read(layer: &dyn ReadAt) -> Result<Self> {
        let members = tar::members(layer, MEMBERS_MAX.saturating_add(1))?;
        if members.len() > MEMBERS_MAX {
            let problem = format!("more than {MEMBERS_MAX} members");
            return Err(super::mapped::corrupt("OVA", 0, problem));
        }
        let Some(descriptor) = members.iter().find(|m| is_descriptor(m)) else {
            return Err(unsupported("tar without an OVF descriptor"));
        };
        if descriptor.len > DESCRIPTOR_MAX {
            return Err(super::mapped::corrupt(
                "OVF descriptor",
                descriptor.start,
                format!("{} bytes", descriptor.len),
            ));
        }
        let text = read_vec(layer, descriptor.start, narrow(descriptor.len))?;
        let envelope = ovf::Envelope::parse(&text, descriptor.start)?;
        let mut disks = envelope.disks().into_iter();
        let Some(first) = disks.next() else {
            return Err(unsupported("OVA without a disk"));
        };
        let mut warnings: Vec<String> = disks
            .map(|other| format!("a further disk is not read: {}", other.href.escape_debug()))
            .collect();
        warnings.truncate(64);
        let disk = member(&members, first)?.clone();
        if !disk.regular {
            return Err(unsupported("OVA whose disk is no regular member"));
        }
        if let Some(how) = &first.compression {
            return Err(unsupported(format!(
                "OVA with a disk in {}",
                how.escape_debug()
            )));
        }
        if first.chunked {
            return Err(unsupported("OVA with a disk in chunks"));
        }
        Ok(Self { disk, warnings })
    }

    /// The disk's bytes within the archive.
    pub(super) fn disk(&self, archive: &Layer) -> Layer {
        let archive = Arc::clone(archive);
        Arc::new(Window::new(archive, self.disk.start, self.disk.len))
    }

    /// The disk's name in the archive.
    pub(super) fn name(&self) -> &[u8] {
        &self.disk.name
    }

    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// The member that a reference means.
fn member<'a>(members: &'a [Member], file: &ovf::File) -> Result<&'a Member> {
    let wanted = file.href.strip_prefix("./").unwrap_or(&file.href);
    let found = members.iter().find(|m| {
        let name = m.name.strip_prefix(b"./").unwrap_or(&m.name);
        name == wanted.as_bytes()
    });
    found.ok_or_else(|| {
        let shown: String = file.href.chars().take(256).collect();
        DiskError::Denied {
            reason: format!(
                "OVF reference {}: it leads out of the archive",
                shown.escape_debug()
            ),
        }
    })
}
