//! Extended attributes: some behind the inode, some shared by several inodes.

use super::Erofs;
use super::inode::Inode;
use crate::bytes::{Record, wide};
use crate::error::{DiskError, Result};

/// `struct erofs_xattr_ibody_header` without its list.
const HEAD: usize = 12;
/// An entry without its name, and the unit of their places.
const ENTRY: usize = 4;

/// The beginning of a name, by number; `None` for one that the file system itself defines.
fn prefix(number: u8) -> Option<&'static [u8]> {
    Some(match number {
        1 => b"user.",
        2 => b"system.posix_acl_access",
        3 => b"system.posix_acl_default",
        4 => b"trusted.",
        6 => b"security.",
        0x80.. => return None,
        // Not known to Linux either; no name that is asked for begins so.
        _ => b"?",
    })
}

/// An entry's name as (number, rest), and the lengths of rest and value.
struct Head {
    number: u8,
    name_len: usize,
    value_len: usize,
}

impl Head {
    fn parse(r: &Record<'_>, at: usize) -> Result<Self> {
        Ok(Self {
            name_len: usize::from(r.u8(at)?),
            number: r.u8(at.saturating_add(1))?,
            value_len: usize::from(r.u16_le(at.saturating_add(2))?),
        })
    }

    fn len(&self) -> usize {
        ENTRY
            .saturating_add(self.name_len)
            .saturating_add(self.value_len)
    }

    /// Whether the name is `wanted`.
    fn is(&self, rest: &[u8], wanted: &[u8]) -> Result<bool> {
        let Some(prefix) = prefix(self.number) else {
            return Err(DiskError::Unsupported {
                feature: "erofs xattr_prefixes".to_owned(),
            });
        };
        Ok(wanted.strip_prefix(prefix) == Some(rest))
    }
}

impl Erofs {
    /// The value of an attribute of an inode. One whose prefix the file system defines is only
    /// refused when no other is the one that is wanted.
    pub(super) fn find_xattr(&self, inode: &Inode, wanted: &[u8]) -> Result<Option<Vec<u8>>> {
        if inode.xattr_len == 0 {
            return Ok(None);
        }
        let raw = self.meta(inode.xattr_at, inode.xattr_len)?;
        let r = Record::new("erofs xattrs", inode.xattr_at, &raw);
        let shared = usize::from(r.u8(4)?);
        let mut refused = None;
        for index in 0..shared {
            let id = r.u32_le(HEAD.saturating_add(index.saturating_mul(4)))?;
            match self.shared_xattr(id, wanted) {
                Ok(None) => {}
                Err(e @ DiskError::Unsupported { .. }) => refused = Some(e),
                other => return other,
            }
        }
        let mut at = HEAD.saturating_add(shared.saturating_mul(4));
        // Each takes four bytes at least: the length bounds the loop.
        while at.saturating_add(ENTRY) <= raw.len() {
            let head = Head::parse(&r, at)?;
            let name_at = at.saturating_add(ENTRY);
            let rest = r.slice(name_at, head.name_len)?;
            match head.is(rest, wanted) {
                Ok(true) => {
                    let value_at = name_at.saturating_add(head.name_len);
                    return Ok(Some(r.slice(value_at, head.value_len)?.to_vec()));
                }
                Ok(false) => {}
                Err(e) => refused = Some(e),
            }
            at = at.saturating_add(head.len().next_multiple_of(ENTRY));
        }
        refused.map_or(Ok(None), Err)
    }

    /// The value of a shared attribute, if it has the wanted name. They lie on units of four bytes.
    fn shared_xattr(&self, id: u32, wanted: &[u8]) -> Result<Option<Vec<u8>>> {
        let at = u64::from(id)
            .saturating_mul(wide(ENTRY))
            .saturating_add(self.superblock.xattr_start);
        let raw = self.meta(at, ENTRY)?;
        let head = Head::parse(&Record::new("erofs shared xattr", at, &raw), 0)?;
        let raw = self.meta(at, head.len())?;
        let r = Record::new("erofs shared xattr", at, &raw);
        if !head.is(r.slice(ENTRY, head.name_len)?, wanted)? {
            return Ok(None);
        }
        let value_at = ENTRY.saturating_add(head.name_len);
        Ok(Some(r.slice(value_at, head.value_len)?.to_vec()))
    }
}
