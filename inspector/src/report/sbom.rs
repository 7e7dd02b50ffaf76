//! Software bills of materials: what both formats take from a report, and names that depend on the
//! content alone.

use super::{Coverage, InspectReport, Os, Package, Sections};
use sha2::{Digest, Sha256};

/// Tool that the documents name as their maker.
pub(super) const TOOL: &str = "guestkit-inspect";

/// An operating system and what is installed in it.
pub(super) struct System<'a> {
    pub(super) os: &'a Os,
    pub(super) packages: &'a [Package],
    /// Whether packages may be missing: their database was damaged, unknown or not asked for.
    pub(super) incomplete: bool,
}

/// Operating systems of a report with their packages.
pub(super) fn systems(report: &InspectReport) -> Vec<System<'_>> {
    let sections = |n: usize| -> Option<&Sections> {
        if n == 0 {
            return Some(&report.sections);
        }
        let more = report.more.iter().find(|more| more.os == n);
        more.map(|more| &more.sections)
    };
    report
        .os
        .iter()
        .enumerate()
        .map(|(n, os)| {
            let sections = sections(n);
            let packages = sections.and_then(|sections| sections.packages.as_deref());
            let coverage = sections.and_then(|sections| sections.coverage.get("packages"));
            System {
                os,
                packages: packages.unwrap_or_default(),
                incomplete: coverage != Some(&Coverage::Ok),
            }
        })
        .collect()
}

/// A UUID of version 8 (RFC 9562, section 5.8) made of the content: the same report has the same.
pub(super) fn uuid(content: &str) -> String {
    let sum = Sha256::digest(content);
    let mut bytes = [0_u8; 16];
    for (to, from) in bytes.iter_mut().zip(sum) {
        *to = from;
    }
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
    *version = *version & 0x0f | 0x80;
    *variant = *variant & 0x3f | 0x80;
    crate::bytes::uuid(&bytes).unwrap_or_default()
}

/// A guest's text as one line; none when nothing is in it.
pub(super) fn line(text: &str) -> Option<String> {
    let parts = text.split(|c: char| c.is_control() || c.is_whitespace());
    let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// The system's CPE, where it is a well-formed string (NISTIR 7695, section 6.2): os-release may say
/// anything, and one bad name spoils a whole document. Wildcards inside values and languages, which no
/// system has, are left out too.
pub(super) fn cpe(os: &Os) -> Option<&str> {
    const PARTS: usize = 11;
    const LANGUAGE: usize = 6;
    let cpe = os.cpe.as_deref()?;
    let mut parts = vec![String::new()];
    let mut chars = cpe.strip_prefix("cpe:2.3:")?.chars();
    while let Some(c) = chars.next() {
        if c == ':' {
            parts.push(String::new());
            continue;
        }
        let is_plain = c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '*');
        let is_quoted = c == '\\'
            && chars
                .next()
                .is_some_and(|c| c.is_ascii_punctuation() && !matches!(c, '-' | '.' | '_'));
        if !is_plain && !is_quoted {
            return None;
        }
        parts.last_mut()?.push(c);
    }
    let is_any = |part: &str| matches!(part, "*" | "-");
    let well_formed = parts.len() == PARTS
        && parts
            .first()
            .is_some_and(|part| matches!(&**part, "a" | "h" | "o"))
        && parts.get(LANGUAGE).is_some_and(|part| is_any(part))
        && parts
            .iter()
            .all(|part| is_any(part) || (!part.is_empty() && !part.contains('*')));
    well_formed.then_some(cpe)
}

/// Names of their own for packages that share a URL, as rpm allows.
pub(super) struct Names {
    seen: std::collections::BTreeMap<String, u32>,
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            seen: std::collections::BTreeMap::new(),
        }
    }

    pub(super) fn unique(&mut self, name: String) -> String {
        let count = self.seen.entry(name.clone()).or_insert(0);
        *count = count.saturating_add(1);
        match *count {
            1 => name,
            n => format!("{name}#{n}"),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::layers::Layers;
    use crate::partition::Disk;

    fn package(name: &str, version: &str, purl: &str) -> Package {
        Package {
            name: name.to_owned(),
            full_version: version.to_owned(),
            manager: "dpkg",
            epoch: None,
            version: version.to_owned(),
            release: None,
            arch: "amd64".to_owned(),
            source: Some("src".to_owned()),
            source_version: Some("1".to_owned()),
            purl: purl.to_owned(),
            size: None,
            status: "install ok installed".to_owned(),
            license: Some("GPLv2+ and BSD (odd)".to_owned()),
            vendor: Some("Maker (x)".to_owned()),
            install_time: None,
        }
    }

    /// Two packages share a URL, one has no version.
    pub(in crate::report) fn report() -> InspectReport {
        let mut report = InspectReport::of(Layers {
            image: Default::default(),
            disk: Disk::default(),
            further: Vec::new(),
            volumes: Vec::new(),
            filesystems: Vec::new(),
            recognised: true,
        });
        report.os = vec![Os {
            os_type: "linux".to_owned(),
            distro: "debian".to_owned(),
            version: Some("12".to_owned()),
            pretty_name: Some("Debian GNU/Linux 12 (bookworm)".to_owned()),
            cpe: Some("cpe:2.3:o:debian:debian_linux:12:*:*:*:*:*:*:*".to_owned()),
            ..Os::default()
        }];
        let sections = &mut report.sections;
        sections.coverage.insert("packages", Coverage::Ok);
        sections.packages = Some(vec![
            package("a", "1", "pkg:deb/debian/a@1?arch=amd64"),
            package("a", "1", "pkg:deb/debian/a@1?arch=amd64"),
            package("b", "", "pkg:deb/debian/b"),
        ]);
        report
    }

    #[test]
    fn odd_text_of_a_guest_spoils_no_document() {
        assert_eq!(line(" a\n\u{1}b  c "), Some("a b c".to_owned()));
        assert_eq!(line(" \n"), None);
        let rest = ":*:*:*:*:*:*:*";
        for (start, lawful) in [
            ("cpe:2.3:o:debian:debian_linux:12", true),
            ("cpe:2.3:o:a:b:1\\+2\\:3", true),
            ("cpe:2.3:o:a:b:-", true),
            ("cpe:2.3:o:a:b:1+2", false),
            ("cpe:2.3:o:a:b:é", false),
            ("cpe:2.3:o:a:b:\\é", false),
            ("cpe:2.3:o:a::1", false),
            ("cpe:2.3:o:a:b*:1", false),
            ("cpe:2.3:x:a:b:1", false),
            ("cpe:2.3:o:a:b:1:2", false),
            ("cpe:2.3:o:a:b:1\\", false),
            ("cpe:/o:a:b:1", false),
        ] {
            let os = Os {
                cpe: Some(format!("{start}{rest}")),
                ..Os::default()
            };
            assert_eq!(cpe(&os).is_some(), lawful, "{start}");
        }
    }

    #[test]
    fn names_depend_on_content_only() {
        let id = uuid("x");
        assert_eq!(id, uuid("x"));
        assert_ne!(id, uuid("y"));
        assert_eq!((id.as_bytes()[14], id.len()), (b'8', 36));
        let mut names = Names::new();
        let found = ["a", "b", "a"].map(|name| names.unique(name.to_owned()));
        assert_eq!(found, ["a", "b", "a#2"]);
    }
}
