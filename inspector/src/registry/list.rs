//! Lists of subkeys: index leaf, fast leaf, hash leaf, index root.

use super::hive::{Hive, corrupt};
use super::name::Hint;
use crate::bytes::{Record, size};
use crate::error::{DiskError, Result};

/// Subkeys of one key: as many as a directory may have names.
const SUBKEYS_MAX: usize = 200_000;
/// Elements have eight bytes at most, behind four bytes of header; their number has 16 bits.
const LIST_MAX: usize = 4 + 65_535 * 8;

/// Where a subkey lies, and what the list tells of its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub(super) offset: u32,
    pub(super) hint: Hint,
}

/// All elements of the list at `offset`, those of its leaves where it is an index root.
pub(super) fn read(hive: &Hive, offset: u32) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    match leaf(hive, offset, &mut items)? {
        None => {}
        Some(leaves) => {
            for offset in leaves {
                // "Index root" note 1: an index root holds leaves only, so this ends.
                if leaf(hive, offset, &mut items)?.is_some() {
                    return Err(corrupt(offset, "an index root inside an index root"));
                }
            }
        }
    }
    Ok(items)
}

/// Adds the elements of a leaf; of an index root returns its leaves instead.
fn leaf(hive: &Hive, offset: u32, items: &mut Vec<Item>) -> Result<Option<Vec<u32>>> {
    let bytes = hive.head(hive.cell(offset)?, LIST_MAX)?;
    let record = Record::new("registry list of subkeys", u64::from(offset), &bytes);
    let count = usize::from(record.u16_le(2)?);
    let signature: [u8; 2] = record.array(0)?;
    let width = match &signature {
        b"lf" | b"lh" => 8,
        b"li" | b"ri" => 4_usize,
        _ => return Err(corrupt(offset, "no list of subkeys")),
    };
    hive.charge_list(count)?;
    let elements = record.slice(4, count.saturating_mul(width))?;
    let mut leaves = Vec::new();
    for element in elements.chunks_exact(width) {
        let element = Record::new("registry list of subkeys", u64::from(offset), element);
        let target = element.u32_le(0)?;
        let hint = match &signature {
            b"lf" => Hint::Prefix(element.array(4)?),
            b"lh" => Hint::Hash(element.u32_le(4)?),
            b"ri" => {
                leaves.push(target);
                continue;
            }
            _ => Hint::None,
        };
        if items.len() >= SUBKEYS_MAX {
            return Err(DiskError::OverBudget {
                budget: format!("{SUBKEYS_MAX} subkeys of a registry key"),
            });
        }
        items.push(Item {
            offset: target,
            hint,
        });
    }
    Ok((&signature == b"ri").then_some(leaves))
}

/// Offsets of values ("Key values list"), `count` of them.
pub(super) fn values(hive: &Hive, offset: u32, count: u32) -> Result<Vec<u32>> {
    /// Values of one key.
    const VALUES_MAX: u32 = 100_000;
    if count == 0 {
        return Ok(Vec::new());
    }
    if count > VALUES_MAX {
        return Err(DiskError::OverBudget {
            budget: format!("{VALUES_MAX} values of a registry key"),
        });
    }
    let bytes = hive.head(hive.cell(offset)?, size(count).saturating_mul(4))?;
    let (offsets, _) = bytes.as_chunks::<4>();
    if offsets.len() < size(count) {
        return Err(corrupt(
            offset,
            format!("a list of fewer than {count} values"),
        ));
    }
    Ok(offsets
        .iter()
        .map(|bytes| u32::from_le_bytes(*bytes))
        .collect())
}
