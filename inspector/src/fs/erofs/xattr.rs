//! Extended attributes: some behind the inode, some shared by several inodes.

use super::Erofs;
use super::inode::Inode;
use crate::bytes::{Record, wide};
use crate::error::Result;

/// `struct erofs_xattr_ibody_header` without its list.
const HEAD: usize = 12;
/// An entry without its name, and the unit of their places.
const ENTRY: usize = 4;

/// The beginning of a name, by number.
fn prefix(number: u8) -> &'static [u8] {
    match number {
        1 => b"user.",
        2 => b"system.posix_acl_access",
        3 => b"system.posix_acl_default",
        4 => b"trusted.",
        6 => b"security.",
        // Not known to Linux either; no name that is asked for begins so.
        _ => b"?",
    }
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
    fn is(&self, fs: &Erofs, rest: &[u8], wanted: &[u8]) -> Result<bool> {
        let defined;
        let beginning = match self.number.checked_sub(0x80) {
            None => prefix(self.number),
            Some(index) => {
                defined = fs.long_prefix(index)?;
                defined.as_slice()
            }
        };
        Ok(wanted.strip_prefix(beginning) == Some(rest))
    }
}

impl Erofs {
    /// The value of an attribute of an inode.
    pub(super) fn find_xattr(&self, inode: &Inode, wanted: &[u8]) -> Result<Option<Vec<u8>>> {
        if inode.xattr_len == 0 {
            return Ok(None);
        }
        let raw = self.meta(inode.xattr_at, inode.xattr_len)?;
        let r = Record::new("erofs xattrs", inode.xattr_at, &raw);
        let shared = usize::from(r.u8(4)?);
        for index in 0..shared {
            let id = r.u32_le(HEAD.saturating_add(index.saturating_mul(4)))?;
            if let Some(value) = self.shared_xattr(id, wanted)? {
                return Ok(Some(value));
            }
        }
        let mut at = HEAD.saturating_add(shared.saturating_mul(4));
        // Each takes four bytes at least: the length bounds the loop.
        while at.saturating_add(ENTRY) <= raw.len() {
            let head = Head::parse(&r, at)?;
            let name_at = at.saturating_add(ENTRY);
            let rest = r.slice(name_at, head.name_len)?;
            if head.is(self, rest, wanted)? {
                let value_at = name_at.saturating_add(head.name_len);
                return Ok(Some(r.slice(value_at, head.value_len)?.to_vec()));
            }
            at = at.saturating_add(head.len().next_multiple_of(ENTRY));
        }
        Ok(None)
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
        if !head.is(self, r.slice(ENTRY, head.name_len)?, wanted)? {
            return Ok(None);
        }
        let value_at = ENTRY.saturating_add(head.name_len);
        Ok(Some(r.slice(value_at, head.value_len)?.to_vec()))
    }

    /// A beginning that the file system defines (`struct erofs_xattr_long_prefix`): each has its
    /// length before it and lies on a unit of four bytes; its first byte numbers a usual one.
    fn long_prefix(&self, index: u8) -> Result<Vec<u8>> {
        let mut at = self.superblock.prefixes_at;
        let bytes = |at, len| match self.superblock.prefixes_packed {
            false => self.meta(at, len),
            true => {
                let packed = self.inode(self.superblock.packed)?;
                let mut bytes = vec![0; len];
                let got = self.read(&packed, at, &mut bytes)?;
                bytes.truncate(got);
                Ok(bytes)
            }
        };
        if index >= self.superblock.prefixes {
            let r = Record::new("erofs xattr prefixes", at, &[]);
            return Err(r.corrupt(0, format!("prefix {index}")));
        }
        // Most of it is in memory, but it is work: charge a step of the budget.
        self.device.read_exact_at(0, &mut [])?;
        let mut left = index;
        loop {
            let raw = bytes(at, 2)?;
            let len = Record::new("erofs xattr prefix", at, &raw).u16_le(0)?;
            let Some(fewer) = left.checked_sub(1) else {
                let raw = bytes(at.saturating_add(2), usize::from(len))?;
                let r = Record::new("erofs xattr prefix", at, &raw);
                let infix = r.slice(1, raw.len().saturating_sub(1))?;
                return Ok([prefix(r.u8(0)?), infix].concat());
            };
            left = fewer;
            at = at.saturating_add(u64::from(len)).saturating_add(5) & !3;
        }
    }
}
