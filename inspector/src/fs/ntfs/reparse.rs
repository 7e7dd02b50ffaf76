//! Reparse points ([MS-FSCC] section 2.1.2): links, and files that something else stores.

use super::name;
use crate::bytes::Record;
use crate::error::Result;
use crate::fs::NodeKind;

/// What a reparse point stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reparse {
    /// A link, with its target as a POSIX path of the guest.
    Link(Vec<u8>),
    /// An object of another kind, as WSL makes them.
    Special(NodeKind),
    /// A file compressed by WOF, with the number of its algorithm.
    Wof(u32),
    /// A file whose content is elsewhere.
    Elsewhere(&'static str),
    /// A file of the cloud: its content is there unless it is marked offline.
    Cloud,
    /// Anything else is an ordinary file or directory.
    Other,
}

/// Parses the value of `$REPARSE_POINT`.
pub(super) fn parse(r: &Record<'_>) -> Result<Reparse> {
    Ok(match r.u32_le(0)? {
        0xa000_000c => Reparse::Link(link(r, 20)?),
        0xa000_0003 => Reparse::Link(link(r, 16)?),
        // WSL: a version and the target in UTF-8.
        0xa000_001d => {
            let target = r.bytes().get(12..).unwrap_or_default();
            Reparse::Link(target.to_vec())
        }
        0x8000_0023 => Reparse::Special(NodeKind::Socket),
        0x8000_0024 => Reparse::Special(NodeKind::Fifo),
        0x8000_0025 => Reparse::Special(NodeKind::CharDevice),
        0x8000_0026 => Reparse::Special(NodeKind::BlockDevice),
        // WOF_EXTERNAL_INFO and FILE_PROVIDER_EXTERNAL_INFO_V1 of the Windows SDK.
        0x8000_0017 => match (r.u32_le(8)?, r.u32_le(12)?) {
            (1, 2) => Reparse::Wof(r.u32_le(20)?),
            (1, 1) => Reparse::Elsewhere("ntfs file in a WIM archive"),
            _ => Reparse::Elsewhere("ntfs file of an unknown WOF provider"),
        },
        0x8000_0013 => Reparse::Elsewhere("ntfs deduplicated file"),
        tag if tag & 0xffff_0fff == 0x9000_001a => Reparse::Cloud,
        _ => Reparse::Other,
    })
}

/// The substitute name of a symbolic link or a mount point, whose path buffer begins at `buffer`.
fn link(r: &Record<'_>, buffer: usize) -> Result<Vec<u8>> {
    let (at, len) = (usize::from(r.u16_le(8)?), usize::from(r.u16_le(10)?));
    let target = name::to_bytes(r.slice(buffer.saturating_add(at), len)?);
    Ok(posix(&target))
}

/// A Windows path as a path of the guest. The drive letter goes: a volume does not know its own,
/// and links almost always stay on their volume.
fn posix(path: &[u8]) -> Vec<u8> {
    let end = path.iter().position(|b| *b == 0).unwrap_or(path.len());
    let mut rest = path.get(..end).unwrap_or_default();
    let mut absolute = false;
    for prefix in [&br"\??\"[..], br"\\?\", br"\\.\"] {
        if let Some(after) = rest.strip_prefix(prefix) {
            (rest, absolute) = (after, true);
            break;
        }
    }
    if let [letter, b':', after @ ..] = rest
        && letter.is_ascii_alphabetic()
    {
        (rest, absolute) = (after, true);
    }
    let mut out = Vec::with_capacity(rest.len());
    if absolute && !matches!(rest.first(), Some(b'\\' | b'/')) {
        out.push(b'/');
    }
    out.extend(rest.iter().map(|b| if *b == b'\\' { b'/' } else { *b }));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_paths_become_paths_of_the_guest() {
        for (windows, expected) in [
            (r"\??\C:\Users\All Users", "/Users/All Users"),
            (r"\??\C:", "/"),
            (r"a\b", "a/b"),
            (r"..\x", "../x"),
            (r"\ProgramData", "/ProgramData"),
            (r"\??\Volume{1-2}\", "/Volume{1-2}/"),
        ] {
            let found = posix(windows.as_bytes());
            assert_eq!(String::from_utf8_lossy(&found), expected, "{windows}");
        }
    }
}
