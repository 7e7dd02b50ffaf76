//! Images put together by hand: differencing VHD and VHDX, a VHDX log, VMDK descriptors, archives.
//! Independent of the readers: field by field from the specifications.

pub(crate) use crate::harness::seal::{MIB, put};
use crate::harness::seal::{seal, sum};

fn utf16(text: &str, big: bool) -> Vec<u8> {
    text.encode_utf16()
        .flat_map(|unit| {
            if big {
                unit.to_be_bytes()
            } else {
                unit.to_le_bytes()
            }
        })
        .collect()
}

pub(crate) const VHD_PARENT: [u8; 16] = [0x11; 16];
pub(crate) const VHD_CHILD: [u8; 16] = [0x22; 16];

fn vhd_footer(kind: u32, size: u64, id: [u8; 16], header_at: u64) -> Vec<u8> {
    let mut f = vec![0; 512];
    put(&mut f, 0, b"conectix");
    put(&mut f, 8, &2u32.to_be_bytes());
    put(&mut f, 12, &0x1_0000u32.to_be_bytes());
    put(&mut f, 16, &header_at.to_be_bytes());
    put(&mut f, 24, &1000u32.to_be_bytes());
    put(&mut f, 28, b"win ");
    put(&mut f, 40, &size.to_be_bytes());
    put(&mut f, 48, &size.to_be_bytes());
    put(&mut f, 60, &kind.to_be_bytes());
    put(&mut f, 68, &id);
    let checksum = sum(&f);
    put(&mut f, 64, &checksum);
    f
}

/// A fixed VHD: data and footer.
pub(crate) fn fixed_vhd(mut data: Vec<u8>, id: [u8; 16]) -> Vec<u8> {
    let footer = vhd_footer(2, data.len() as u64, id, u64::MAX);
    data.extend(footer);
    data
}

/// A differencing VHD of one block of 64 KiB for each list of (sector, byte) that `blocks` holds;
/// `None` is a block that is not there. `locators`: platform code and path.
pub(crate) fn differencing_vhd(
    size: u64,
    parent: [u8; 16],
    locators: &[(&[u8; 4], &str)],
    unicode_name: &str,
    blocks: &[Option<&[(usize, u8)]>],
) -> Vec<u8> {
    const BLOCK: usize = 64 << 10;
    let footer = vhd_footer(4, size, VHD_CHILD, 512);
    let mut header = vec![0; 1024];
    put(&mut header, 0, b"cxsparse");
    put(&mut header, 8, &u64::MAX.to_be_bytes());
    put(&mut header, 16, &0x2000u64.to_be_bytes());
    put(&mut header, 24, &0x1_0000u32.to_be_bytes());
    put(&mut header, 28, &(blocks.len() as u32).to_be_bytes());
    put(&mut header, 32, &(BLOCK as u32).to_be_bytes());
    put(&mut header, 0x28, &parent);
    let name = utf16(unicode_name, true);
    put(&mut header, 0x40, &name);
    let mut image = vec![0; 0x3000];
    for (slot, (code, path)) in locators.iter().enumerate() {
        let at = 0x240 + slot * 24;
        let path = utf16(path, false);
        let place = 0x800 + slot * 0x400;
        put(&mut header, at, *code);
        put(&mut header, at + 4, &512u32.to_be_bytes());
        put(&mut header, at + 8, &(path.len() as u32).to_be_bytes());
        put(&mut header, at + 16, &(place as u64).to_be_bytes());
        put(&mut image, place, &path);
    }
    let checksum = sum(&header);
    put(&mut header, 0x24, &checksum);
    put(&mut image, 0, &footer);
    put(&mut image, 512, &header);
    for (index, block) in blocks.iter().enumerate() {
        let at = 0x2000 + index * 4;
        let Some(sectors) = block else {
            put(&mut image, at, &[0xff; 4]);
            continue;
        };
        let place = image.len();
        put(&mut image, at, &((place / 512) as u32).to_be_bytes());
        image.resize(place + 512 + BLOCK, 0xee);
        image[place..place + 512].fill(0);
        for (sector, byte) in *sectors {
            image[place + sector / 8] |= 0x80 >> (sector % 8);
            let data = place + 512 + sector * 512;
            image[data..data + 512].fill(*byte);
        }
    }
    image.extend(&footer);
    image
}

/// `2DC27766-…` as stored.
fn guid(text: &str) -> [u8; 16] {
    let d: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let b: Vec<u8> = d
        .chunks(2)
        .map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap())
        .collect();
    [
        b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13],
        b[14], b[15],
    ]
}

pub(crate) const VHDX_PARENT: &str = "{01234567-89AB-CDEF-0011-223344556677}";

/// What a VHDX is to be.
pub(crate) struct Vhdx<'a> {
    pub(crate) size: u64,
    pub(crate) sector: u32,
    /// Data write identifier.
    pub(crate) id: &'a str,
    /// Keys and values of the parent locator.
    pub(crate) locator: &'a [(&'a str, &'a str)],
    /// (state, place in MiB) by index of the table.
    pub(crate) table: &'a [(usize, u64, u64)],
    pub(crate) log_guid: [u8; 16],
    pub(crate) file_mib: usize,
}

pub(crate) const NO_LOG: [u8; 16] = [0; 16];
pub(crate) const LOG: [u8; 16] = [0x77; 16];

/// Blocks of 1 MiB; log at 1 MiB, metadata at 2 MiB, table at 3 MiB, data from 4 MiB on.
pub(crate) fn vhdx(what: &Vhdx<'_>) -> Vec<u8> {
    let mut image = vec![0; what.file_mib * MIB];
    put(&mut image, 0, b"vhdxfile");
    for (at, sequence) in [(0x10000, 5u64), (0x20000, 6)] {
        let mut head = vec![0; 4096];
        put(&mut head, 0, b"head");
        put(&mut head, 8, &sequence.to_le_bytes());
        put(&mut head, 32, &guid(what.id));
        put(&mut head, 48, &what.log_guid);
        put(&mut head, 66, &1u16.to_le_bytes());
        put(&mut head, 68, &(MIB as u32).to_le_bytes());
        put(&mut head, 72, &(MIB as u64).to_le_bytes());
        seal(&mut head);
        put(&mut image, at, &head);
    }
    let mut regions = vec![0; 64 << 10];
    put(&mut regions, 0, b"regi");
    put(&mut regions, 8, &2u32.to_le_bytes());
    for (slot, (id, at)) in [
        ("2DC27766-F623-4200-9D64-115E9BFD4A08", 3 * MIB),
        ("8B7CA206-4790-4B9A-B8FE-575F050F886E", 2 * MIB),
    ]
    .iter()
    .enumerate()
    {
        let e = 16 + slot * 32;
        put(&mut regions, e, &guid(id));
        put(&mut regions, e + 16, &(*at as u64).to_le_bytes());
        put(&mut regions, e + 24, &(MIB as u32).to_le_bytes());
        put(&mut regions, e + 28, &1u32.to_le_bytes());
    }
    seal(&mut regions);
    put(&mut image, 0x30000, &regions);
    put(&mut image, 0x40000, &regions);

    let flags: u32 = if what.locator.is_empty() { 0 } else { 2 };
    let mut items: Vec<(&str, Vec<u8>)> = vec![
        (
            "CAA16737-FA36-4D43-B3B6-33F0AA44E76B",
            [(MIB as u32).to_le_bytes(), flags.to_le_bytes()].concat(),
        ),
        (
            "2FA54224-CD1B-4876-B211-5DBED83BF4B8",
            what.size.to_le_bytes().to_vec(),
        ),
        (
            "8141BF1D-A96F-4709-BA47-F233A8FAAB5F",
            what.sector.to_le_bytes().to_vec(),
        ),
    ];
    if !what.locator.is_empty() {
        let mut body = guid("B04AEFB7-D19E-4A81-B789-25B8E9445913").to_vec();
        body.extend([0, 0]);
        body.extend((what.locator.len() as u16).to_le_bytes());
        let mut text: Vec<u8> = Vec::new();
        let texts_at = 20 + what.locator.len() * 12;
        for (key, value) in what.locator {
            let (key, value) = (utf16(key, false), utf16(value, false));
            let at = texts_at + text.len();
            body.extend((at as u32).to_le_bytes());
            body.extend(((at + key.len()) as u32).to_le_bytes());
            body.extend((key.len() as u16).to_le_bytes());
            body.extend((value.len() as u16).to_le_bytes());
            text.extend(key);
            text.extend(value);
        }
        body.extend(text);
        items.push(("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C", body));
    }
    let metadata = 2 * MIB;
    put(&mut image, metadata, b"metadata");
    put(
        &mut image,
        metadata + 10,
        &(items.len() as u16).to_le_bytes(),
    );
    let mut offset = 64 << 10;
    for (slot, (id, body)) in items.iter().enumerate() {
        let e = metadata + 32 + slot * 32;
        put(&mut image, e, &guid(id));
        put(&mut image, e + 16, &(offset as u32).to_le_bytes());
        put(&mut image, e + 20, &(body.len() as u32).to_le_bytes());
        put(&mut image, e + 24, &4u32.to_le_bytes());
        put(&mut image, metadata + offset, body);
        offset += body.len().next_multiple_of(8);
    }
    for (index, state, mib) in what.table {
        let entry = state | mib << 20;
        put(&mut image, 3 * MIB + index * 8, &entry.to_le_bytes());
    }
    image
}

/// A piece of a log entry.
pub(crate) enum Change<'a> {
    /// 4096 bytes there.
    Data(u64, &'a [u8]),
    /// So many zeros there.
    Zeros(u64, u64),
}

/// A log entry (MS-VHDX 2.3.1): sequence number, tail, file length, changes.
pub(crate) fn log_entry(sequence: u64, tail: u32, file: u64, changes: &[Change<'_>]) -> Vec<u8> {
    let descriptors = (64 + changes.len() * 32).next_multiple_of(4096);
    let mut entry = vec![0; descriptors];
    put(&mut entry, 0, b"loge");
    put(&mut entry, 12, &tail.to_le_bytes());
    put(&mut entry, 16, &sequence.to_le_bytes());
    put(&mut entry, 24, &(changes.len() as u32).to_le_bytes());
    put(&mut entry, 32, &LOG);
    put(&mut entry, 48, &file.to_le_bytes());
    put(&mut entry, 56, &file.to_le_bytes());
    for (index, change) in changes.iter().enumerate() {
        let at = 64 + index * 32;
        put(&mut entry, at + 24, &sequence.to_le_bytes());
        match change {
            Change::Data(target, data) => {
                put(&mut entry, at, b"desc");
                put(&mut entry, at + 4, &data[4092..]);
                put(&mut entry, at + 8, &data[..8]);
                put(&mut entry, at + 16, &target.to_le_bytes());
                let mut sector = vec![0; 4096];
                put(&mut sector, 0, b"data");
                put(&mut sector, 4, &((sequence >> 32) as u32).to_le_bytes());
                put(&mut sector, 8, &data[8..4092]);
                put(&mut sector, 4092, &(sequence as u32).to_le_bytes());
                entry.extend(sector);
            }
            Change::Zeros(target, len) => {
                put(&mut entry, at, b"zero");
                put(&mut entry, at + 8, &len.to_le_bytes());
                put(&mut entry, at + 16, &target.to_le_bytes());
            }
        }
    }
    let len = entry.len() as u32;
    put(&mut entry, 8, &len.to_le_bytes());
    seal(&mut entry);
    entry
}

/// Writes an entry into the log of an image, from byte `at` of the log on, around its end.
pub(crate) fn write_log(image: &mut [u8], at: usize, entry: &[u8]) {
    for (i, byte) in entry.iter().enumerate() {
        image[MIB + (at + i) % MIB] = *byte;
    }
}

/// A VMDK descriptor with these extent lines.
pub(crate) fn vmdk(parent: Option<(u32, &str)>, extents: &[String]) -> Vec<u8> {
    let (cid, hint) = match parent {
        Some((cid, name)) => (cid, format!("parentFileNameHint=\"{name}\"\n")),
        None => (u32::MAX, String::new()),
    };
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=00000007\nparentCID={cid:08x}\n\
         createType=\"custom\"\n{hint}{}\n",
        extents.join("\n")
    )
    .into_bytes()
}

/// A ustar archive.
pub(crate) fn tar(members: &[(&str, u8, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, kind, body) in members {
        let mut h = vec![0; 512];
        put(&mut h, 0, name.as_bytes());
        put(&mut h, 100, b"0000644\0");
        put(&mut h, 124, format!("{:011o}\0", body.len()).as_bytes());
        put(&mut h, 156, &[*kind]);
        put(&mut h, 257, b"ustar\x0000");
        put(&mut h, 148, &[b' '; 8]);
        let sum: u32 = h.iter().map(|b| u32::from(*b)).sum();
        put(&mut h, 148, format!("{sum:06o}\0 ").as_bytes());
        archive.extend(h);
        archive.extend(*body);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// An OVF descriptor whose only disk is the file `href`.
pub(crate) fn ovf(href: &str) -> Vec<u8> {
    format!(
        "<Envelope xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\"><References>\
         <File ovf:href=\"{href}\" ovf:id=\"f\"/></References><DiskSection>\
         <Disk ovf:diskId=\"d\" ovf:fileRef=\"f\"/></DiskSection></Envelope>"
    )
    .into_bytes()
}
