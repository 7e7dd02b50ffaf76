//! Extended attributes: ids, which lead to lists of names and values.

use super::Squashfs;
use super::inode::NONE;
use super::meta::Cursor;
use crate::bytes::{Record, read_vec, size};
use crate::error::{DiskError, Result};

/// Linux' own limits: names a file has, bytes of a value.
const COUNT_MAX: u32 = 1024;
const VALUE_MAX: u32 = 64 << 10;

impl Squashfs {
    /// The value of an attribute of the list numbered `index`.
    pub(super) fn find_xattr(&self, index: u32, wanted: &[u8]) -> Result<Option<Vec<u8>>> {
        let at = self.xattr_table;
        if index == NONE || at == u64::MAX {
            return Ok(None);
        }
        let head = read_vec(self.device.as_ref(), at, 16)?;
        let r = Record::new("squashfs xattr table", at, &head);
        let table = r.u64_le(0)?;
        if index >= r.u32_le(8)? {
            return Err(r.corrupt(8, format!("no list {index}")));
        }
        let entry = self.table_entry(at.saturating_add(16), u64::from(index), 16)?;
        let r = Record::new("squashfs xattr id", at, &entry);
        let count = r.u32_le(8)?;
        if count > COUNT_MAX {
            return Err(r.corrupt(8, format!("{count} attributes")));
        }
        let mut cursor = Cursor::within(table, r.u64_le(0)?);
        for _ in 0..count {
            let mut head = [0; 4];
            self.read_meta(&mut cursor, &mut head)?;
            let r = Record::new("squashfs xattr", cursor.block, &head);
            let (kind, len) = (r.u16_le(0)?, usize::from(r.u16_le(2)?));
            let mut name = match kind & 0xff {
                0 => b"user.".to_vec(),
                1 => b"trusted.".to_vec(),
                2 => b"security.".to_vec(),
                _ => Vec::new(),
            };
            let mut rest = vec![0; len];
            self.read_meta(&mut cursor, &mut rest)?;
            name.extend(rest);
            let value = self.xattr_value(&mut cursor)?;
            if name != wanted {
                continue;
            }
            if kind & 0x100 == 0 {
                return Ok(Some(value));
            }
            // Values that several files share lie elsewhere.
            let reference = Record::new("squashfs xattr", cursor.block, &value).u64_le(0)?;
            return self
                .xattr_value(&mut Cursor::within(table, reference))
                .map(Some);
        }
        Ok(None)
    }

    fn xattr_value(&self, cursor: &mut Cursor) -> Result<Vec<u8>> {
        let mut raw = [0; 4];
        self.read_meta(cursor, &mut raw)?;
        let len = u32::from_le_bytes(raw);
        if len > VALUE_MAX {
            return Err(DiskError::Corrupt {
                structure: "squashfs xattr",
                position: cursor.block,
                problem: format!("a value of {len} bytes"),
            });
        }
        let mut value = vec![0; size(len)];
        self.read_meta(cursor, &mut value)?;
        Ok(value)
    }
}
