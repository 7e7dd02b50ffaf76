//! Which container format a file is in, by its header.

use crate::bytes::{Record, read_upto};
use crate::error::Result;
use crate::read_at::Layer;

/// The name we use for a format that others name differently.
pub(super) fn canonical(name: &str) -> &str {
    match name {
        "vhd" => "vpc",
        "img" | "iso" => "raw",
        other => other,
    }
}

const MAGICS: &[(usize, &[u8], &str)] = &[
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"conectix", "vpc"),
    (0, b"vhdxfile", "vhdx"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"QFI\xfb\x00\x00\x00\x01", "qcow"),
    (0, b"QED\0", "qed"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"Bochs Virtual HD Image", "bochs"),
    (0, b"#!/bin/sh\n#V2.0 Format\n", "cloop"),
    (0, b"OOOM", "cow"),
    (0, b"EVF\x09\x0d\x0a\xff\x00", "ewf"),
    (0, b"EVF2\x0d\x0a\x81\x00", "ewf2"),
    (0, b"LVF\x09\x0d\x0a\xff\x00", "ewf"),
    (0, b"AFF10\r\n\0", "aff"),
    (0, b"MSWIM\0\0\0", "wim"),
    (0, b"\x3a\xff\x26\xed", "android sparse"),
    (0, b"\x1f\x8b\x08", "gzip"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"\x04\x22\x4d\x18", "lz4"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"PK\x03\x04", "zip"),
    (257, b"ustar", "tar"),
];

/// Format of an image file: `raw` when nothing else is recognised.
pub(super) fn format_of(layer: &Layer) -> Result<&'static str> {
    let head = read_upto(layer.as_ref(), 0, 512)?;
    let record = Record::new("image header", 0, &head);
    if head.starts_with(super::qcow2::MAGIC) {
        let version = record.u32_be(4).unwrap_or(0);
        return Ok(if version == 1 { "qcow" } else { "qcow2" });
    }
    for (offset, magic, format) in MAGICS {
        if record.slice(*offset, magic.len()).ok() == Some(*magic) {
            let package = *format == "tar" && super::ova::is_package(layer.as_ref())?;
            return Ok(if package { "ova" } else { format });
        }
    }
    if is_bzip2(&head) {
        return Ok("bzip2");
    }
    tail_format(layer)
}

/// Whether a format is told by the end of the file only.
pub(super) fn is_signed_at_the_end(layer: &Layer, format: &str) -> Result<bool> {
    Ok(match format {
        "vpc" => !read_upto(layer.as_ref(), 0, 8)?.starts_with(b"conectix"),
        "dmg" => true,
        _ => false,
    })
}

/// What to say of a format that is not read.
pub(super) fn advice(format: &str) -> String {
    let (tool, suffix) = match format {
        "gzip" => ("gzip -d", "gz"),
        "xz" => ("xz -d", "xz"),
        "zstd" => ("zstd -d", "zst"),
        "bzip2" => ("bzip2 -d", "bz2"),
        "lz4" => ("lz4 -d", "lz4"),
        "7z" => ("7z x", "7z"),
        "zip" => ("unzip", "zip"),
        "tar" => ("tar -xf", "tar"),
        _ => return format.to_owned(),
    };
    format!("{format} (decompress it first: {tool} image.{suffix})")
}

/// `BZh`, the level, then the magic of the first block or of an empty stream.
fn is_bzip2(head: &[u8]) -> bool {
    head.starts_with(b"BZh")
        && matches!(
            head.get(4..10),
            Some(b"\x31\x41\x59\x26\x53\x59" | b"\x17\x72\x45\x38\x50\x90")
        )
}

/// Formats that sign the end of the file: fixed VHD and Apple's UDIF.
fn tail_format(layer: &Layer) -> Result<&'static str> {
    let tail_at = layer.len().saturating_sub(512);
    let tail = read_upto(layer.as_ref(), tail_at, 512)?;
    let record = Record::new("image footer", tail_at, &tail);
    if tail.starts_with(b"conectix") && super::vhd::checksum_holds(&tail, 0x40) {
        return Ok("vpc");
    }
    if tail.starts_with(b"koly")
        && record.u32_be(4).ok() == Some(4)
        && record.u32_be(8).ok() == Some(512)
    {
        return Ok("dmg");
    }
    Ok("raw")
}
