//! What can be asked of an opened image, and the answer as bytes: the same for the command, the
//! worker and a confined child.

use crate::container::Container;
use crate::error::{DiskError, Result};
use crate::fs::{Metadata, NodeKind};
use crate::guest::{self, InspectOptions};
use crate::layers::{self, Examined};
use crate::report::{cyclonedx, spdx, table};
use crate::vfs::{Found, GuestRoot};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::Write;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// For people.
    Table,
    /// As [`Form::Table`], for a terminal with colours.
    Colour,
    /// One JSON document a line.
    Json,
    /// A bill of materials of a report: CycloneDX 1.6.
    CycloneDx,
    /// A bill of materials of a report: SPDX 2.3.
    Spdx,
}

impl Form {
    /// Whether it tells systems and packages alone, of a report and of nothing else.
    #[must_use]
    pub fn is_sbom(self) -> bool {
        matches!(self, Self::CycloneDx | Self::Spdx)
    }
}

/// A place in a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file system to look in (`/dev/sda2`); without it the guest's root and what fstab mounts
    /// beneath it.
    pub device: Option<String>,
    /// Path from its root.
    pub path: String,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// The whole report.
    Report {
        /// Form of the answer.
        form: Form,
        /// Sections. Of a bill of materials only `packages` and `deep_scan` count: for it no other
        /// section is read.
        options: InspectOptions,
    },
    /// Container, partitions, volumes, file systems.
    Layers {
        /// Form of the answer.
        form: Form,
    },
    /// Names in a directory, with their attributes.
    List {
        /// Form of the answer.
        form: Form,
        /// The directory, or one file.
        place: Place,
    },
    /// The bytes of a file.
    Cat {
        /// The file.
        place: Place,
    },
    /// Everything beneath a directory.
    Tree {
        /// Form of the answer.
        form: Form,
        /// Where to begin.
        place: Place,
        /// Whether to sum the content of files.
        sha256: bool,
    },
}

impl Task {
    fn form(&self) -> Option<Form> {
        match self {
            Self::Report { form, .. }
            | Self::Layers { form }
            | Self::List { form, .. }
            | Self::Tree { form, .. } => Some(*form),
            Self::Cat { .. } => None,
        }
    }
}

/// What a bill of materials tells, and nothing that has to be read for other sections. A deep scan
/// stays: it reads the licences of Debian's packages.
fn packages_of(options: &InspectOptions) -> InspectOptions {
    InspectOptions {
        packages: options.packages,
        services: false,
        users: false,
        network: false,
        security: false,
        storage: false,
        databases: false,
        kernels: false,
        deep_scan: options.deep_scan,
    }
}

/// Nodes that a tree may have.
const TREE_MAX: u64 = 5_000_000;
/// Directories inside directories: deeper than any real tree, little enough for memory.
const DEPTH_MAX: usize = 512;

/// Answers a task. `progress` is told each phase as it begins.
///
/// # Errors
/// What the layers answer; `Corrupt` for an image in which nothing is recognised; `NotFound` for a
/// path or a device that is not there; `Unsupported` for a bill of materials of anything but a
/// report; `Io` when `out` cannot take the answer.
pub fn perform(
    task: &Task,
    containers: &[Container],
    out: &mut dyn Write,
    progress: &dyn Fn(&'static str),
) -> Result<()> {
    let is_report = matches!(task, Task::Report { .. });
    if task.form().is_some_and(Form::is_sbom) && !is_report {
        return Err(DiskError::Unsupported {
            feature: "a bill of materials of anything but a report".to_owned(),
        });
    }
    progress("layers");
    let examined = match is_report {
        true => layers::examine_partly(containers)?,
        false => layers::examine_all(containers)?,
    };
    if !examined.layers.recognised && examined.cut_short.is_none() {
        return Err(crate::inspect::unrecognised());
    }
    match task {
        Task::Report { form, options } => {
            let options = match form.is_sbom() {
                true => &packages_of(options),
                false => options,
            };
            let report = guest::describe(examined, options, progress);
            match form {
                Form::Json => json(out, &report),
                Form::CycloneDx => json(out, &cyclonedx::render(&report, None)),
                Form::Spdx => json(out, &spdx::render(&report, None)),
                Form::Table => write(out, table::render(&report, false).as_bytes()),
                Form::Colour => write(out, table::render(&report, true).as_bytes()),
            }
        }
        Task::Layers { form } => {
            progress("write");
            match form {
                Form::Table => write(out, table::layers(&examined.layers, false).as_bytes()),
                Form::Colour => write(out, table::layers(&examined.layers, true).as_bytes()),
                Form::Json | Form::CycloneDx | Form::Spdx => json(out, &examined.layers),
            }
        }
        Task::List { form, place } => {
            progress("list");
            list(*form, &find(examined, place)?, &place.path, out)
        }
        Task::Cat { place } => {
            progress("read");
            let found = find(examined, place)?;
            if found.metadata()?.kind != NodeKind::File {
                return Err(DiskError::NotFound {
                    what: format!("{} is no regular file", place.path),
                });
            }
            found.read_all(|piece| write(out, piece))
        }
        Task::Tree {
            form,
            place,
            sha256,
        } => {
            progress("tree");
            let mut walk = Walk {
                form: *form,
                sha256: *sha256,
                out,
                nodes: 0,
            };
            walk.directory(&find(examined, place)?, &mut Vec::new(), 0)
        }
    }
}

fn find(examined: Examined, place: &Place) -> Result<Found> {
    let root = match &place.device {
        None => guest::main_root(&examined)?,
        Some(device) => examined
            .mountable
            .iter()
            .find(|mountable| mountable.device == *device)
            .map(|mountable| GuestRoot::new(mountable.reader.clone())),
    };
    let root = root.ok_or_else(|| DiskError::NotFound {
        what: match &place.device {
            Some(device) => format!("a readable file system on {device}"),
            None => "a readable file system".to_owned(),
        },
    })?;
    root.find(&place.path)?.ok_or_else(|| DiskError::NotFound {
        what: place.path.clone(),
    })
}

fn list(form: Form, found: &Found, path: &str, out: &mut dyn Write) -> Result<()> {
    if found.metadata()?.kind != NodeKind::Directory {
        let name = path.rsplit('/').next().unwrap_or(path);
        return row(form, found, name.as_bytes(), None, out);
    }
    for (name, child) in found.children()? {
        row(form, &child, &name, None, out)?;
    }
    Ok(())
}

/// A walk in the order of names, depth first.
struct Walk<'a> {
    form: Form,
    sha256: bool,
    out: &'a mut dyn Write,
    nodes: u64,
}

impl Walk<'_> {
    fn directory(&mut self, found: &Found, path: &mut Vec<u8>, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(DiskError::OverBudget {
                budget: format!("{DEPTH_MAX} directories inside each other"),
            });
        }
        if found.metadata()?.kind != NodeKind::Directory {
            return self.node(found, path);
        }
        for (name, child) in found.children()? {
            self.nodes = self.nodes.saturating_add(1);
            if self.nodes > TREE_MAX {
                return Err(DiskError::OverBudget {
                    budget: format!("{TREE_MAX} nodes"),
                });
            }
            let length = path.len();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            self.node(&child, path)?;
            if child.metadata()?.kind == NodeKind::Directory {
                self.directory(&child, path, depth.saturating_add(1))?;
            }
            path.truncate(length);
        }
        Ok(())
    }

    fn node(&mut self, found: &Found, path: &[u8]) -> Result<()> {
        let sum = if self.sha256 && found.metadata()?.kind == NodeKind::File {
            let mut sum = Sha256::new();
            found.read_all(|piece| {
                sum.update(piece);
                Ok(())
            })?;
            Some(hex::encode(sum.finalize()))
        } else {
            None
        };
        row(self.form, found, path, sum.as_deref(), self.out)
    }
}

#[derive(Serialize)]
struct Row<'a> {
    path: String,
    kind: char,
    mode: String,
    uid: u32,
    gid: u32,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<&'a str>,
}

fn row(
    form: Form,
    found: &Found,
    path: &[u8],
    sum: Option<&str>,
    out: &mut dyn Write,
) -> Result<()> {
    let metadata = found.metadata()?;
    let target = match metadata.kind {
        NodeKind::Symlink => Some(printable(&found.read_link()?)),
        _ => None,
    };
    let row = Row {
        path: printable(path),
        kind: letter(&metadata),
        mode: format!("{:04o}", metadata.mode),
        uid: metadata.uid,
        gid: metadata.gid,
        size: metadata.size,
        target,
        sha256: sum,
    };
    if form == Form::Json {
        return json(out, &row);
    }
    let last = match (&row.target, row.sha256) {
        (Some(target), _) => format!("\t-> {target}"),
        (None, Some(sum)) => format!("\t{sum}"),
        (None, None) => String::new(),
    };
    let Row {
        path,
        kind,
        mode,
        uid,
        gid,
        size,
        ..
    } = &row;
    let text = format!("{path}\t{kind}\t{mode}\t{uid}\t{gid}\t{size}{last}\n");
    write(out, text.as_bytes())
}

/// The letters of `find -type`.
fn letter(metadata: &Metadata) -> char {
    match metadata.kind {
        NodeKind::File => 'f',
        NodeKind::Directory => 'd',
        NodeKind::Symlink => 'l',
        NodeKind::CharDevice => 'c',
        NodeKind::BlockDevice => 'b',
        NodeKind::Fifo => 'p',
        NodeKind::Socket => 's',
    }
}

/// A name of a guest, safe on a terminal: control characters, backslashes and bytes that are no
/// UTF-8 as `\xNN`.
fn printable(name: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    write!(out, "\\x{byte:02x}").unwrap_or_default();
                }
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").unwrap_or_default();
        }
    }
    out
}

fn json(out: &mut dyn Write, value: &impl Serialize) -> Result<()> {
    let mut bytes = serde_json::to_vec(value).map_err(|error| DiskError::Io {
        position: 0,
        message: error.to_string(),
    })?;
    bytes.push(b'\n');
    write(out, &bytes)
}

fn write(out: &mut dyn Write, bytes: &[u8]) -> Result<()> {
    out.write_all(bytes).map_err(|error| not_written(&error))
}

pub(crate) fn not_written(error: &std::io::Error) -> DiskError {
    DiskError::Io {
        position: 0,
        message: format!("write the answer: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn names_cannot_steer_a_terminal() {
        assert_eq!(printable(b"a\x1b[31m\\\xff\n"), "a\\x1b[31m\\x5c\\xff\\x0a");
        assert_eq!(printable("ö".as_bytes()), "ö");
    }
}
