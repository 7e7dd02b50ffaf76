//! What a guest's name of a device means on this disk: tags (`UUID=`), links of udev, LVM names, and
//! the kernel's names, which depend on the bus that the guest last ran on.

use crate::layers::{FileSystemLayer, Layers};
use crate::partition::Partition;

/// The device of this disk that is meant, as the report names it.
pub(super) fn resolve(layers: &Layers, spec: &str) -> Option<String> {
    let spec = spec.replace('"', "");
    let (tag, value) = match spec.split_once('=') {
        Some((tag, value)) => (tag.to_uppercase(), value.to_owned()),
        None => match spec
            .strip_prefix("/dev/disk/by-")
            .and_then(|rest| rest.split_once('/'))
        {
            Some((kind, value)) => (kind.to_uppercase(), unescape(value)),
            None => return by_name(layers, &spec),
        },
    };
    let same =
        |a: &Option<String>, b: &str| a.as_deref().is_some_and(|a| a.eq_ignore_ascii_case(b));
    match tag.as_str() {
        "UUID" => by_file_system(layers, |fs| same(&fs.uuid, &value)),
        "LABEL" => by_file_system(layers, |fs| fs.label.as_deref() == Some(&*value)),
        "PARTUUID" => by_partition(layers, |p| same(&p.uuid, &value)),
        "PARTLABEL" => by_partition(layers, |p| p.name.as_deref() == Some(&*value)),
        _ => None,
    }
}

fn by_file_system(layers: &Layers, matches: impl Fn(&FileSystemLayer) -> bool) -> Option<String> {
    let found = layers.filesystems.iter().find(|fs| matches(fs))?;
    Some(found.device.clone())
}

fn by_partition(layers: &Layers, matches: impl Fn(&Partition) -> bool) -> Option<String> {
    let first = ("/dev/sda", &layers.disk);
    let further = layers
        .further
        .iter()
        .map(|one| (one.device.as_str(), &one.disk));
    std::iter::once(first)
        .chain(further)
        .find_map(|(device, disk)| {
            let found = disk.partitions.iter().find(|p| matches(p))?;
            Some(format!("{device}{}", found.index))
        })
}

fn by_name(layers: &Layers, name: &str) -> Option<String> {
    let wanted = canonical(name)?;
    let devices = layers.filesystems.iter().map(|fs| &fs.device);
    let volumes = layers.volumes.iter().map(|volume| &volume.device);
    devices
        .chain(volumes)
        .find(|device| canonical(device).as_ref() == Some(&wanted))
        .cloned()
}

/// Names that mean the same have the same canonical form.
fn canonical(name: &str) -> Option<String> {
    let short = name.strip_prefix("/dev/")?;
    // /dev/mapper/vg-lv: hyphens inside of names are doubled.
    if let Some(mapped) = short.strip_prefix("mapper/") {
        let parts = mapped.replace("--", "\0");
        return Some(match parts.split_once('-') {
            Some((vg, lv)) => format!("lvm {vg}/{lv}").replace('\0', "-"),
            None => format!("mapper {mapped}"),
        });
    }
    // /dev/md0, /dev/md/0 and /dev/md/name.
    if let Some(array) = short
        .strip_prefix("md/")
        .or_else(|| short.strip_prefix("md"))
    {
        return Some(format!("md {array}"));
    }
    if let Some((vg, lv)) = short.split_once('/') {
        return Some(format!("lvm {vg}/{lv}"));
    }
    // Disks have letters, or numbers on newer buses: the first is ours, whatever the bus.
    for start in ["sd", "xvd", "vd", "hd"] {
        if let Some(rest) = short.strip_prefix(start) {
            let mut chars = rest.chars();
            let letter = chars.next().filter(char::is_ascii_lowercase)?;
            return disk(letter, chars.as_str());
        }
    }
    for (start, end) in [("nvme", "n1"), ("mmcblk", "")] {
        if let Some(rest) = short.strip_prefix(start) {
            let (number, partition) = rest.split_once('p').unwrap_or((rest, ""));
            let number: u8 = number.strip_suffix(end)?.parse().ok()?;
            let letter = char::from(b'a'.checked_add(number).filter(u8::is_ascii_lowercase)?);
            return disk(letter, partition);
        }
    }
    Some(short.to_owned())
}

fn disk(letter: char, partition: &str) -> Option<String> {
    let is_number = partition.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| format!("disk {letter}{partition}"))
}

/// udev writes what is not plain as `\x20`.
fn unescape(value: &str) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, behind)) = rest.split_once("\\x") {
        out.push_str(before);
        let code = behind
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                out.push_str("\\x");
                rest = behind;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_device_have_one_form() {
        for (a, b) in [
            ("/dev/mapper/my--vg-lv--0", "/dev/my-vg/lv-0"),
            ("/dev/vda3", "/dev/sda3"),
            ("/dev/nvme0n1p3", "/dev/sda3"),
            ("/dev/nvme1n1p1", "/dev/vdb1"),
            ("/dev/mmcblk0p2", "/dev/hda2"),
            ("/dev/md/0", "/dev/md0"),
        ] {
            assert_eq!(canonical(a), canonical(b), "{a} {b}");
        }
        assert_ne!(canonical("/dev/sdb1"), canonical("/dev/sda1"));
        assert_ne!(
            canonical("/dev/mapper/a-b--c"),
            canonical("/dev/mapper/a--b-c")
        );
        assert_eq!(canonical("tmpfs"), None);
        assert_eq!(unescape("EFI\\x20System\\xzz"), "EFI System\\xzz");
    }
}
