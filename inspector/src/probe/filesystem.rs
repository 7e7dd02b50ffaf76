//! File systems that are recognised and named, not read (all but those with a reader).

use super::{fat, iso};
use crate::bytes::{Record, label, read_upto, text_utf16_le, uuid};
use crate::error::Result;
use crate::fs::FileSystemFacts;
use crate::read_at::ReadAt;

type Recogniser = fn(&dyn ReadAt) -> Result<Option<FileSystemFacts>>;

pub(super) fn recognise(layer: &dyn ReadAt) -> Result<Option<FileSystemFacts>> {
    const ALL: &[Recogniser] = &[
        boot_sectors,
        first_sector,
        swap,
        iso::recognise,
        at_1k,
        reiserfs,
        jfs,
        apfs,
        f2fs,
        ufs,
        gfs2,
        vmfs,
    ];
    for recogniser in ALL {
        if let Some(found) = recogniser(layer)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn named(fs_type: &str) -> FileSystemFacts {
    FileSystemFacts {
        fs_type: fs_type.into(),
        ..FileSystemFacts::default()
    }
}

fn boot_sectors(layer: &dyn ReadAt) -> Result<Option<FileSystemFacts>> {
    let boot = read_upto(layer, 0, 512)?;
    if boot.len() < 512 {
        return Ok(None);
    }
    if let Some(facts) = fat::exfat(layer, &boot)? {
        return Ok(Some(facts));
    }
    if let Some(facts) = fat::ntfs(layer, &boot)? {
        return Ok(Some(facts));
    }
    if boot.get(3..11) == Some(b"ReFS\0\0\0\0") {
        return Ok(Some(named("refs")));
    }
    fat::fat(layer, &boot)
}

fn first_sector(layer: &dyn ReadAt) -> Result<Option<FileSystemFacts>> {
    let head = read_upto(layer, 0, 512)?;
    let r = Record::new("superblock", 0, &head);
    match r.slice(0, 4) {
        Ok(b"hsqs") => Ok(Some(match r.u16_le(28)? {
            4 => FileSystemFacts {
                size_bytes: Some(r.u64_le(40)?),
                block_size: Some(r.u32_le(12)?),
                ..named("squashfs")
            },
            _ => named("squashfs3"),
        })),
        Ok(b"sqsh") => Ok(Some(named("squashfs3"))),
        Ok(b"-rom") if head.starts_with(b"-rom1fs-") => Ok(Some(FileSystemFacts {
            label: label(r.slice(16, 16)?),
            ..named("romfs")
        })),
        Ok(b"\x45\x3d\xcd\x28" | b"\x28\xcd\x3d\x45") => Ok(Some(FileSystemFacts {
            label: label(r.slice(48, 16)?),
            ..named("cramfs")
        })),
        Ok(b"UBI#") => Ok(Some(named("ubi"))),
        _ => Ok(None),
    }
}

/// The signature ends the first page, whatever the page size was.
fn swap(layer: &dyn ReadAt) -> Result<Option<FileSystemFacts>> {
    for page in [4096u64, 8192, 16384, 32768, 65536] {
        let signature = read_upto(layer, page.saturating_sub(10), 10)?;
        match signature.as_slice() {
            b"SWAPSPACE2" => {
                let raw = read_upto(layer, 1024, 64)?;
                let r = Record::new("swap header", 1024, &raw);
                // Written in the byte order of the machine; version 1 either way.
                let little = r.u32_le(0)? == 1;
                if !little && r.u32_be(0)? != 1 {
                    return Ok(None);
                }
                let last = if little { r.u32_le(4)? } else { r.u32_be(4)? };
                return Ok(Some(FileSystemFacts {
                    uuid: uuid(&r.array(12)?),
                    label: label(r.slice(28, 16)?),
                    size_bytes: Some(u64::from(last).saturating_add(1).saturating_mul(page)),
                    block_size: u32::try_from(page).ok(),
                    ..named("swap")
                }));
            }
            b"SWAP-SPACE" => return Ok(Some(named("swap"))),
            b"S1SUSPEND\0" | b"S2SUSPEND\0" | b"ULSUSPEND\0" | b"LINHIB0001" => {
                return Ok(Some(named("swsuspend")));
            }
            _ => {}
        }
    }
    Ok(None)
}

fn at_1k(layer: &dyn ReadAt) -> Result<Option<FileSystemFacts>> {
    let raw = read_upto(layer, 1024, 512)?;
    let r = Record::new("superblock", 1024, &raw);
    if r.u32_le(0).ok() == Some(0xe0f5_e1e2) {
        let block = 1u32.checked_shl(u32::from(r.u8(12)?)).unwrap_or(0);
        return Ok(Some(FileSystemFacts {
            uuid: uuid(&r.array(48)?),
            label: label(r.slice(64, 16)?),
            size_bytes: Some(u64::from(r.u32_le(36)?).saturating_mul(u64::from(block))),
            block_size: Some(block),
            ..named("erofs")
        }));
    }
    match r.slice(0, 2) {
        Ok(b"H+" | b"HX") if matches!(r.u16_be(2)?, 4 | 5) => {
            let block = r.u32_be(40)?;
            Ok(Some(FileSystemFacts {
                size_bytes: Some(u64::from(r.u32_be(44)?).saturating_mul(u64::from(block))),
                block_size: Some(block),
                ..named("hfsplus")
            }))
        }
        // An HFS wrapper may embed HFS+.
        Ok(b"BD") if r.slice(124, 2)? == b"H+" => Ok(Some(named("hfsplus"))),
        Ok(b"BD") if r.u32_be(20)? & 511 == 0 && r.u32_be(20)? > 0 => Ok(Some(named("hfs"))),
        // nilfs2: magic at 6, revision 2 at 0.
        _ if r.u16_le(6).ok() == Some(0x3434) && r.u32_le(0)? == 2 => Ok(Some(FileSystemFacts {
            uuid: uuid(&r.array(152)?),
            label: label(r.slice(168, 80)?),
            ..named("nilfs2")
        })),
        _ => Ok(None),
    }
}

fn reiserfs(layer: &dyn ReadAt) -> Result<Option<FileSystemFacts>> {
    for at in [64u64 << 10, 8 << 10] {
        let raw = read_upto(layer, at, 128)?;
        let r = Record::new("reiserfs superblock", at, &raw);
        if matches!(r.slice(52, 8), Ok(b"ReIsErFs" | b"ReIsEr2F" | b"ReIsEr3F")) {
            return Ok(Some(FileSystemFacts {
                uuid: uuid(&r.array(84)?),
                label: label(r.slice(100, 16)?),
                ..named("reiserfs")
            }));
        }
    }
    Ok(None)
}

fn jfs(layer: &dyn ReadAt) -> Result<Option<FileSystemFacts>> {
    let raw = read_upto(layer, 32 << 10, 184)?;
    let r = Record::new("jfs superblock", 32 << 10, &raw);
    if r.slice(0, 4).ok() != Some(b"JFS1") {
        return Ok(None);
    }
    Ok(Some(FileSystemFacts {
        uuid: uuid(&r.array(136)?),
        label: label(r.slice(152, 16)?),
        ..named("jfs")
    }))
}

fn apfs(layer: &dyn ReadAt) -> Result<Option<FileSystemFacts>> {
    let raw = read_upto(layer, 0, 128)?;
    let r = Record::new("APFS container", 0, &raw);
    if r.slice(32, 4).ok() != Some(b"NXSB") {
        return Ok(None);
    }
    let block = r.u32_le(36)?;
    Ok(Some(FileSystemFacts {
        uuid: uuid(&r.array(72)?),
        size_bytes: Some(r.u64_le(40)?.saturating_mul(u64::from(block))),
        block_size: Some(block),
        ..named("apfs")
    }))
}

fn f2fs(layer: &dyn ReadAt) -> Result<Option<FileSystemFacts>> {
    let raw = read_upto(layer, 1024, 1152)?;
    let r = Record::new("f2fs superblock", 1024, &raw);
    if r.u32_le(0).ok() != Some(0xf2f5_2010) {
        return Ok(None);
    }
    let label = text_utf16_le(r.slice(124, 1024)?);
    Ok(Some(FileSystemFacts {
        uuid: uuid(&r.array(108)?),
        label: Some(label).filter(|text| !text.is_empty()),
        ..named("f2fs")
    }))
}

fn ufs(layer: &dyn ReadAt) -> Result<Option<FileSystemFacts>> {
    for at in [8u64 << 10, 64 << 10, 256 << 10, 0] {
        let magic_at = at.saturating_add(1372);
        let raw = read_upto(layer, magic_at, 4)?;
        let r = Record::new("UFS superblock", magic_at, &raw);
        let known = |n: u32| matches!(n, 0x0001_1954 | 0x1954_0119 | 0x0009_5014);
        if r.u32_le(0).is_ok_and(known) || r.u32_be(0).is_ok_and(known) {
            return Ok(Some(named("ufs")));
        }
    }
    Ok(None)
}

fn gfs2(layer: &dyn ReadAt) -> Result<Option<FileSystemFacts>> {
    let raw = read_upto(layer, 64 << 10, 32)?;
    let r = Record::new("GFS2 superblock", 64 << 10, &raw);
    let found = r.u32_be(0).ok() == Some(0x0116_1970) && r.u32_be(4).ok() == Some(1);
    Ok(found.then(|| named("gfs2")))
}

fn vmfs(layer: &dyn ReadAt) -> Result<Option<FileSystemFacts>> {
    let volume = read_upto(layer, 1 << 20, 4)?;
    if volume == [0x0d, 0xd0, 0x01, 0xc0] {
        return Ok(Some(named("VMFS_volume_member")));
    }
    let fs = read_upto(layer, 2 << 20, 4)?;
    Ok((fs == [0x5e, 0xf1, 0xab, 0x2f]).then(|| named("VMFS")))
}
