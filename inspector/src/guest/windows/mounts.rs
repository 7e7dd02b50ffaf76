//! Drive letters: MountedDevices of SYSTEM, resolved to the partitions of this disk.

use super::keys::Reader;
use super::system::System;
use crate::bytes::{guid, text_utf16_le};
use crate::guest::clean;
use crate::layers::Layers;
use crate::report::MountEntry;

/// Longest entry that is read: device paths have some hundred characters.
const ENTRY_MAX: usize = 64 << 10;
/// There are 26 letters.
const LETTERS_MAX: usize = 100;
const PREFIX: &str = "\\DosDevices\\";

pub(super) fn read(reader: &mut Reader, system: &System, layers: &Layers) -> Vec<MountEntry> {
    let Some(hive) = &system.system else {
        return Vec::new();
    };
    let values = reader.values_at(hive, "MountedDevices");
    let letters: Vec<String> = values
        .iter()
        .map(|value| value.name())
        .filter(|name| {
            name.get(..PREFIX.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
        })
        .map(str::to_owned)
        .take(LETTERS_MAX)
        .collect();
    let mut entries = Vec::new();
    for name in letters {
        let Some(bytes) = values.bytes(reader, &name, ENTRY_MAX) else {
            continue;
        };
        let (spec, device) = resolve(&bytes, layers);
        let fs_type = device
            .as_deref()
            .and_then(|device| layers.filesystems.iter().find(|fs| fs.device == device))
            .map(|fs| fs.fs_type.clone());
        entries.push(MountEntry {
            spec,
            device,
            target: clean(name.get(PREFIX.len()..).unwrap_or_default()),
            fs_type: fs_type.unwrap_or_default(),
            options: Vec::new(),
            dump: 0,
            pass: 0,
        });
    }
    entries.sort_by(|a, b| a.target.cmp(&b.target));
    entries
}

/// What an entry means: 12 bytes are a disk signature and a byte offset (MBR), `DMIO:ID:` precedes
/// a partition's GUID (GPT), everything else is a device path in UTF-16.
fn resolve(bytes: &[u8], layers: &Layers) -> (String, Option<String>) {
    if let [a, b, c, d, offset @ ..] = bytes
        && let Ok(offset) = <[u8; 8]>::try_from(offset)
    {
        let signature = u32::from_le_bytes([*a, *b, *c, *d]);
        let offset = u64::from_le_bytes(offset);
        let ours = layers.disk.table == "dos"
            && layers.disk.id.as_deref() == Some(&format!("0x{signature:08x}"));
        let partition = layers
            .disk
            .partitions
            .iter()
            .find(|partition| ours && !partition.container && partition.start == offset);
        return (
            format!("signature=0x{signature:08x} offset={offset}"),
            partition.map(|partition| format!("/dev/sda{}", partition.index)),
        );
    }
    if let Some(id) = bytes.strip_prefix(b"DMIO:ID:")
        && let Ok(id) = <[u8; 16]>::try_from(id)
    {
        let id = guid(&id);
        let partition = layers.disk.partitions.iter().find(|partition| {
            layers.disk.table == "gpt"
                && partition
                    .uuid
                    .as_deref()
                    .is_some_and(|uuid| uuid.eq_ignore_ascii_case(&id))
        });
        return (
            format!("partuuid={id}"),
            partition.map(|partition| format!("/dev/sda{}", partition.index)),
        );
    }
    (clean(&text_utf16_le(bytes)), None)
}
