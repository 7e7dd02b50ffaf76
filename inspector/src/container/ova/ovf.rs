//! The OVF descriptor: which files there are (`References`) and which of them are disks
//! (`DiskSection`).

use super::super::mapped::corrupt;
use crate::error::Result;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// Elements of each kind at most.
const ELEMENTS_MAX: usize = 1024;
/// XML events looked at, in at most 1 MiB of text.
const EVENTS_MAX: usize = 200_000;

/// A `File` element of `References`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    id: String,
    pub(super) href: String,
    pub(super) compression: Option<String>,
    pub(super) chunked: bool,
}

/// What the descriptor says of files and disks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Envelope {
    files: Vec<File>,
    /// `fileRef` of each disk that has one; a disk without is empty.
    disks: Vec<String>,
}

impl Envelope {
    /// Parses the text at byte `position` of the archive.
    pub(super) fn parse(text: &[u8], position: u64) -> Result<Self> {
        let bad = |problem: String| corrupt("OVF descriptor", position, problem);
        let text = String::from_utf8_lossy(text);
        let mut reader = Reader::from_str(&text);
        let mut found = Self::default();
        for _ in 0..EVENTS_MAX {
            let element = match reader.read_event() {
                Ok(Event::Start(element) | Event::Empty(element)) => element,
                Ok(Event::Eof) => return Ok(found),
                Ok(_) => continue,
                Err(e) => return Err(bad(e.to_string())),
            };
            match element.local_name().as_ref() {
                b"File" if found.files.len() < ELEMENTS_MAX => {
                    let attribute = |name: &str| attribute(&element, name);
                    found.files.push(File {
                        id: attribute("id").unwrap_or_default(),
                        href: attribute("href").unwrap_or_default(),
                        compression: attribute("compression")
                            .filter(|c| !c.is_empty() && c != "identity"),
                        chunked: attribute("chunkSize").is_some(),
                    });
                }
                b"Disk" if found.disks.len() < ELEMENTS_MAX => {
                    found.disks.extend(attribute(&element, "fileRef"));
                }
                _ => {}
            }
        }
        Err(bad("too many elements".into()))
    }

    /// The files of the disks, in the order of the disk section.
    pub(super) fn disks(&self) -> Vec<&File> {
        let file = |id: &String| self.files.iter().find(|f| f.id == *id);
        self.disks.iter().filter_map(file).collect()
    }
}

/// The attribute with this name, whatever its prefix: descriptors in the wild differ in it.
fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let found = element
        .attributes()
        .flatten()
        .find(|a| a.key.local_name().as_ref() == name.as_bytes())?;
    found.unescape_value().ok().map(|v| v.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_files_that_the_disk_section_names() {
        let text = br#"<?xml version="1.0"?><!-- <File ovf:id="no"/> -->
            <Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"><References>
            <File ovf:href="a &amp; b.vmdk" ovf:id="f1"/><File ovf:href="x.iso" ovf:id="f2"/>
            <File ovf:href="c.vmdk" ovf:id="f3" ovf:compression="gzip" ovf:chunkSize="7"/>
            </References><DiskSection><Info>disks</Info><Disk ovf:diskId="empty"/>
            <Disk ovf:diskId="d3" ovf:fileRef="f3"/><Disk ovf:diskId="d1" ovf:fileRef="f1"/>
            <Disk ovf:diskId="d9" ovf:fileRef="f9"/></DiskSection></Envelope>"#;
        let found = Envelope::parse(text, 0).unwrap();
        let disks = found.disks();
        let hrefs: Vec<_> = disks.iter().map(|f| f.href.as_str()).collect();
        assert_eq!(hrefs, ["c.vmdk", "a & b.vmdk"]);
        assert_eq!(disks[0].compression.as_deref(), Some("gzip"));
        assert!(disks[0].chunked && !disks[1].chunked);
        assert!(Envelope::parse(b"<a><b></a>", 0).is_err());
    }
}
