//! Berkeley DB hash databases as rpm writes them (`Packages`): every data item of every bucket
//! (Berkeley DB 4.x/5.x, dbinc/db_page.h: `HASHHDR`, `PAGE`, `HOFFPAGE`).

use super::{BLOB_MAX, Blobs};
use crate::bytes::{Record, narrow, read_vec, size, wide};
use crate::error::{DiskError, Result};
use crate::read_at::ReadAt;

const MAGIC: u32 = 0x0006_1561;
/// `DBMETA.type` of a hash database.
const P_HASHMETA: u8 = 8;
const P_HASH_UNSORTED: u8 = 2;
const P_OVERFLOW: u8 = 7;
const P_HASH: u8 = 13;
/// Length of a page's header.
const PAGE_HEADER: usize = 26;
/// Items: on the page, or in a chain of overflow pages.
const H_KEYDATA: u8 = 1;
const H_OFFPAGE: u8 = 3;

pub(super) fn is_bdb(head: &[u8]) -> bool {
    let magic = head.get(12..16).and_then(|bytes| bytes.try_into().ok());
    magic.is_some_and(|magic| {
        u32::from_le_bytes(magic) == MAGIC || u32::from_be_bytes(magic) == MAGIC
    })
}

struct Database<'a> {
    layer: &'a dyn ReadAt,
    page_size: usize,
    pages: u32,
    big: bool,
    /// Pages that were read, of buckets and of items alike: each belongs to one chain, and a chain
    /// that comes back is damage.
    seen: Vec<bool>,
}

pub(super) fn read(layer: &dyn ReadAt, blobs: &mut Blobs<'_>) -> Result<()> {
    let bytes = read_vec(layer, 0, 512)?;
    let meta = Record::new("Berkeley DB hash meta page", 0, &bytes);
    let big = meta.u32_be(12)? == MAGIC;
    let u32_at = |offset| {
        if big {
            meta.u32_be(offset)
        } else {
            meta.u32_le(offset)
        }
    };
    if u32_at(12)? != MAGIC || meta.u8(25)? != P_HASHMETA {
        return Err(meta.corrupt(12, "no hash database"));
    }
    if meta.u8(24)? != 0 {
        return Err(DiskError::Unsupported {
            feature: "encrypted Berkeley DB".to_owned(),
        });
    }
    let page_size = u32_at(20)?;
    if !page_size.is_power_of_two() || !(512..=65_536).contains(&page_size) {
        return Err(meta.corrupt(20, format!("page size {page_size}")));
    }
    let whole = layer.len().checked_div(u64::from(page_size)).unwrap_or(0);
    let pages = u32::try_from(whole)
        .unwrap_or(u32::MAX)
        .min(u32_at(32)?.saturating_add(1));
    let max_bucket = u32_at(72)?;
    if max_bucket >= pages {
        return Err(meta.corrupt(72, format!("{max_bucket} buckets in {pages} pages")));
    }
    let mut database = Database {
        layer,
        page_size: size(page_size),
        pages,
        big,
        seen: vec![false; size(pages)],
    };
    for bucket in 0..=max_bucket {
        // BUCKET_TO_PAGE: bucket + spares[log2 of the next power of two from bucket + 1 on].
        let doubling = size(
            bucket
                .saturating_add(1)
                .next_power_of_two()
                .trailing_zeros(),
        );
        let spare = u32_at(96_usize.saturating_add(doubling.saturating_mul(4)))?;
        database.bucket(bucket.wrapping_add(spare), blobs)?;
    }
    Ok(())
}

impl Database<'_> {
    fn page(&self, number: u32) -> Result<Vec<u8>> {
        if number >= self.pages {
            return Err(corrupt(number, "a page past the end"));
        }
        let position = u64::from(number).saturating_mul(wide(self.page_size));
        read_vec(self.layer, position, self.page_size)
    }

    fn u32(&self, record: &Record<'_>, offset: usize) -> Result<u32> {
        if self.big {
            record.u32_be(offset)
        } else {
            record.u32_le(offset)
        }
    }

    /// Notes that a page is read.
    fn enter(&mut self, number: u32) -> Result<()> {
        match self.seen.get_mut(size(number)) {
            Some(seen) if !*seen => *seen = true,
            Some(_) => return Err(corrupt(number, "a chain of pages that comes back")),
            None => return Err(corrupt(number, "a page past the end")),
        }
        Ok(())
    }

    /// All pages of a bucket.
    fn bucket(&mut self, first: u32, blobs: &mut Blobs<'_>) -> Result<()> {
        let mut number = first;
        loop {
            self.enter(number)?;
            let bytes = self.page(number)?;
            let page = Record::new("Berkeley DB page", 0, &bytes);
            if !matches!(page.u8(25)?, P_HASH | P_HASH_UNSORTED) {
                // Buckets that were never used have no page yet.
                return Ok(());
            }
            self.items(&page, blobs)?;
            number = self.u32(&page, 16)?;
            if number == 0 {
                return Ok(());
            }
        }
    }

    /// Items come in pairs, key and data; each lies before the one that came earlier.
    fn items(&mut self, page: &Record<'_>, blobs: &mut Blobs<'_>) -> Result<()> {
        let big = self.big;
        let count = half(page, big, 20)?;
        let index = |n: usize| {
            let at = n.saturating_mul(2).saturating_add(PAGE_HEADER);
            half(page, big, at)
        };
        for n in (1..count).step_by(2) {
            let start = index(n)?;
            match page.u8(start)? {
                H_OFFPAGE => {
                    let first = self.u32(page, start.saturating_add(4))?;
                    let length = self.u32(page, start.saturating_add(8))?;
                    if size(length) > BLOB_MAX {
                        blobs.skip(size(length));
                        continue;
                    }
                    blobs.take(&self.overflow(first, size(length))?)?;
                }
                H_KEYDATA => {
                    let end = index(n.saturating_sub(1))?;
                    let from = start.saturating_add(1);
                    let length = end.saturating_sub(from);
                    // Key 0 holds the next package number in four bytes.
                    if length > 16 {
                        blobs.take(page.slice(from, length)?)?;
                    }
                }
                other => return Err(page.corrupt(start, format!("an item of type {other}"))),
            }
        }
        Ok(())
    }

    fn overflow(&mut self, first: u32, length: usize) -> Result<Vec<u8>> {
        // No chain is longer than what the whole file can hold.
        if length > narrow(self.layer.len()) {
            return Err(corrupt(first, "an item longer than the file"));
        }
        let mut blob = Vec::with_capacity(length);
        let mut number = first;
        while blob.len() < length {
            self.enter(number)?;
            let bytes = self.page(number)?;
            let page = Record::new("Berkeley DB overflow page", 0, &bytes);
            let here = half(&page, self.big, 22)?;
            // A page without bytes would go on for ever.
            if page.u8(25)? != P_OVERFLOW || here == 0 {
                return Err(corrupt(number, "no overflow page"));
            }
            let wanted = here.min(length.saturating_sub(blob.len()));
            blob.extend_from_slice(page.slice(PAGE_HEADER, wanted)?);
            number = self.u32(&page, 16)?;
            if number == 0 {
                break;
            }
        }
        if blob.len() < length {
            return Err(corrupt(first, "a chain that ends early"));
        }
        Ok(blob)
    }
}

fn half(record: &Record<'_>, big: bool, offset: usize) -> Result<usize> {
    let value = if big {
        record.u16_be(offset)
    } else {
        record.u16_le(offset)
    };
    value.map(usize::from)
}

fn corrupt(page: u32, problem: &str) -> DiskError {
    DiskError::Corrupt {
        structure: "Berkeley DB page",
        position: u64::from(page),
        problem: problem.to_owned(),
    }
}
