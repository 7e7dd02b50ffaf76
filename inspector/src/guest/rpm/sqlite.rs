//! As much of SQLite as `rpmdb.sqlite` needs, read-only: the rows of one table, newest pages from
//! the write-ahead log (SQLite database file format). No SQL, no locks, no file is written.

use super::wal::{self, Wal};
use super::{BLOB_MAX, Blobs};
use crate::bytes::{Record, narrow, read_vec, size, wide};
use crate::error::{DiskError, Result};
use crate::read_at::ReadAt;

const MAGIC: &[u8] = b"SQLite format 3\0";
const LEAF: u8 = 0x0d;
const INTERIOR: u8 = 0x05;
/// Depth of a tree: SQLite's own limit (`BTCURSOR_MAX_DEPTH`).
const DEPTH_MAX: usize = 20;
/// Longest row of the schema that is read.
const SCHEMA_ROW_MAX: usize = 64 << 10;
/// Columns of a row that are looked at.
const COLUMNS_MAX: usize = 64;

pub(super) fn is_sqlite(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

struct Database<'a> {
    main: &'a dyn ReadAt,
    log: Option<&'a dyn ReadAt>,
    wal: Wal,
    page_size: u32,
    usable: usize,
    pages: u32,
    /// Pages of trees that were read: one that comes back is damage.
    seen: Vec<bool>,
}

/// A value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    Integer(i64),
    Bytes(&'a [u8]),
    Other,
}

/// Calls `blobs` with the column `blob` of each row of the table `Packages`.
pub(super) fn read(
    main: &dyn ReadAt,
    log: Option<&dyn ReadAt>,
    blobs: &mut Blobs<'_>,
) -> Result<()> {
    let bytes = read_vec(main, 0, 100)?;
    let header = Record::new("SQLite header", 0, &bytes);
    if !is_sqlite(&bytes) {
        return Err(header.corrupt(0, "no SQLite database"));
    }
    let page_size = match header.u16_be(16)? {
        1 => 65_536,
        other => u32::from(other),
    };
    if !page_size.is_power_of_two() || page_size < 512 {
        return Err(header.corrupt(16, format!("page size {page_size}")));
    }
    let reserved = usize::from(header.u8(20)?);
    let usable = size(page_size).saturating_sub(reserved);
    if usable < 480 {
        return Err(header.corrupt(20, format!("{reserved} bytes of a page reserved")));
    }
    let wal = match log {
        Some(log) => wal::read(log, page_size)?,
        None => Wal::default(),
    };
    let whole = main.len().checked_div(u64::from(page_size)).unwrap_or(0);
    let in_file = u32::try_from(whole).unwrap_or(u32::MAX);
    // A page is either in the file or in the log: no claim of the header makes more of them.
    let in_log = u32::try_from(wal.pages.len()).unwrap_or(u32::MAX);
    let most = in_file.saturating_add(in_log);
    let pages = wal.size.unwrap_or(in_file).min(most);
    let mut database = Database {
        main,
        log,
        wal,
        page_size,
        usable,
        pages,
        seen: vec![false; size(pages).saturating_add(1)],
    };
    let mut root = None;
    database.table(1, &mut |database, payload| {
        if payload.length > SCHEMA_ROW_MAX {
            return Ok(());
        }
        let row = database.payload(&payload)?;
        let row = columns(&row)?;
        // type, name, tbl_name, rootpage, sql
        if let [
            Value::Bytes(b"table"),
            Value::Bytes(b"Packages"),
            _,
            Value::Integer(page),
            ..,
        ] = row.as_slice()
        {
            root = u32::try_from(*page).ok();
        }
        Ok(())
    })?;
    let root = root.ok_or_else(|| header.corrupt(0, "no table Packages"))?;
    database.table(root, &mut |database, payload| {
        if payload.length > BLOB_MAX {
            blobs.skip(payload.length);
            return Ok(());
        }
        let row = database.payload(&payload)?;
        let blob = columns(&row)?.into_iter().find_map(|value| match value {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        });
        match blob {
            Some(blob) => blobs.take(blob),
            None => Ok(()),
        }
    })
}

/// Where the content of a row lies.
struct Payload {
    length: usize,
    local: Vec<u8>,
    overflow: u32,
}

type Rows<'r, 'a> = dyn FnMut(&Database<'a>, Payload) -> Result<()> + 'r;

impl<'a> Database<'a> {
    fn page(&self, number: u32) -> Result<Vec<u8>> {
        if number == 0 || number > self.pages {
            return Err(corrupt(number, "a page past the end"));
        }
        if let (Some(log), Some(position)) = (self.log, self.wal.pages.get(&number)) {
            return read_vec(log, *position, size(self.page_size));
        }
        let before = u64::from(number.saturating_sub(1));
        let position = before.saturating_mul(u64::from(self.page_size));
        read_vec(self.main, position, size(self.page_size))
    }

    /// Calls `row` for each row of a table, in the order of its keys.
    fn table(&mut self, root: u32, row: &mut Rows<'_, 'a>) -> Result<()> {
        let mut todo = vec![(root, 0_usize)];
        while let Some((number, depth)) = todo.pop() {
            if depth >= DEPTH_MAX {
                return Err(corrupt(number, "a tree without end"));
            }
            match self.seen.get_mut(size(number)) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(corrupt(number, "a page that comes back")),
            }
            let bytes = self.page(number)?;
            let page = Record::new("SQLite page", 0, &bytes);
            // The first page begins with the file's header.
            let start = if number == 1 { 100 } else { 0 };
            let kind = page.u8(start)?;
            let cells = usize::from(page.u16_be(start.saturating_add(3))?);
            let head = if kind == INTERIOR { 12 } else { 8 };
            let pointers = start.saturating_add(head);
            let cell = |n: usize| {
                let at = pointers.saturating_add(n.saturating_mul(2));
                page.u16_be(at).map(usize::from)
            };
            match kind {
                LEAF => {
                    for n in 0..cells {
                        let payload = self.leaf_cell(&page, cell(n)?)?;
                        row(self, payload)?;
                    }
                }
                INTERIOR => {
                    let below = depth.saturating_add(1);
                    todo.push((page.u32_be(start.saturating_add(8))?, below));
                    for n in (0..cells).rev() {
                        todo.push((page.u32_be(cell(n)?)?, below));
                    }
                }
                other => return Err(corrupt(number, &format!("a page of type {other}"))),
            }
        }
        Ok(())
    }

    /// A cell of a leaf: length, row id, content, first overflow page.
    fn leaf_cell(&self, page: &Record<'_>, at: usize) -> Result<Payload> {
        let (length, at) = varint(page, at)?;
        let (_, at) = varint(page, at)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let most = self.usable.saturating_sub(35);
        if length <= most {
            let local = page.slice(at, length)?.to_vec();
            return Ok(Payload {
                length,
                local,
                overflow: 0,
            });
        }
        let least = self
            .usable
            .saturating_sub(12)
            .saturating_mul(32)
            .checked_div(255)
            .unwrap_or(0)
            .saturating_sub(23);
        let rest = length
            .saturating_sub(least)
            .checked_rem(self.usable.saturating_sub(4))
            .unwrap_or(0);
        let kept = least.saturating_add(rest);
        let kept = if kept <= most { kept } else { least };
        Ok(Payload {
            length,
            local: page.slice(at, kept)?.to_vec(),
            overflow: page.u32_be(at.saturating_add(kept))?,
        })
    }

    /// The whole content of a row. The length bounds the chain of overflow pages.
    fn payload(&self, payload: &Payload) -> Result<Vec<u8>> {
        let in_log = self.log.map_or(0, ReadAt::len);
        if wide(payload.length) > self.main.len().saturating_add(in_log) {
            return Err(corrupt(payload.overflow, "a row longer than the file"));
        }
        let mut out = payload.local.clone();
        out.reserve(payload.length.saturating_sub(out.len()));
        let mut number = payload.overflow;
        while out.len() < payload.length {
            let bytes = self.page(number)?;
            let page = Record::new("SQLite overflow page", 0, &bytes);
            let left = payload.length.saturating_sub(out.len());
            let here = left.min(self.usable.saturating_sub(4));
            out.extend_from_slice(page.slice(4, here)?);
            number = page.u32_be(0)?;
        }
        Ok(out)
    }
}

/// Values of a row ("Record Format").
fn columns(row: &[u8]) -> Result<Vec<Value<'_>>> {
    let record = Record::new("SQLite row", 0, row);
    let (header_len, mut at) = varint(&record, 0)?;
    let header_len = narrow(header_len);
    let mut position = header_len;
    let mut values = Vec::new();
    while at < header_len && values.len() < COLUMNS_MAX {
        let (kind, next) = varint(&record, at)?;
        at = next;
        let (length, value) = match kind {
            0 | 7 => (0, Value::Other),
            8 => (0, Value::Integer(0)),
            9 => (0, Value::Integer(1)),
            1..=6 => {
                let length = match kind {
                    5 => 6,
                    6 => 8,
                    other => narrow(other),
                };
                let bytes = record.slice(position, length)?;
                let negative = bytes.first().is_some_and(|byte| *byte >= 0x80);
                let start = if negative { -1 } else { 0 };
                let number = bytes
                    .iter()
                    .fold(start, |number: i64, byte| (number << 8) | i64::from(*byte));
                (length, Value::Integer(number))
            }
            10 | 11 => return Err(record.corrupt(at, format!("a value of type {kind}"))),
            _ => {
                let length = narrow(kind.saturating_sub(12) >> 1);
                (length, Value::Bytes(record.slice(position, length)?))
            }
        };
        // REAL takes eight bytes.
        let length = if kind == 7 { 8 } else { length };
        position = position.saturating_add(length);
        values.push(value);
    }
    Ok(values)
}

/// A variable-length integer: up to nine bytes, big-endian, seven bits each, eight in the ninth.
fn varint(record: &Record<'_>, at: usize) -> Result<(u64, usize)> {
    let mut value = 0_u64;
    let mut at = at;
    for n in 0..9 {
        let byte = record.u8(at)?;
        at = at.saturating_add(1);
        if n == 8 {
            return Ok(((value << 8) | u64::from(byte), at));
        }
        value = (value << 7) | u64::from(byte & 0x7f);
        if byte < 0x80 {
            break;
        }
    }
    Ok((value, at))
}

fn corrupt(page: u32, problem: &str) -> DiskError {
    DiskError::Corrupt {
        structure: "SQLite page",
        position: u64::from(page),
        problem: problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_taken_apart() {
        // Header of 5 bytes: NULL, one byte, text of 2, blob of 1.
        let row = [5, 0, 1, 17, 14, 0xfe, b'h', b'i', 9];
        let values = columns(&row).unwrap();
        assert_eq!(
            values,
            [
                Value::Other,
                Value::Integer(-2),
                Value::Bytes(b"hi"),
                Value::Bytes(&[9]),
            ]
        );
        assert!(columns(&row[..7]).is_err());
    }

    #[test]
    fn variable_integers_have_nine_bytes_at_most() {
        let record = |bytes| Record::new("test", 0, bytes);
        assert_eq!(varint(&record(&[0x7f]), 0), Ok((0x7f, 1)));
        assert_eq!(varint(&record(&[0x81, 0x00]), 0), Ok((0x80, 2)));
        assert_eq!(varint(&record(&[0xff; 9]), 0), Ok((u64::MAX, 9)));
        assert!(varint(&record(&[0xff; 8]), 0).is_err());
    }
}
