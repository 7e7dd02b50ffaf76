//! Container, disk, volumes and file systems of an image as one value: the `layers` command, and
//! the ground that guest facts are read from.

use crate::container::{Container, ContainerFacts};
use crate::error::{DiskError, Result};
use crate::fs::{FileSystem, FileSystemFacts};
use crate::layer::Window;
use crate::partition::{self, Disk};
use crate::probe::{self, Probed, VolumeFacts};
use crate::read_at::Layer;
use std::sync::Arc;

/// All layers of an image. Serialises to the same bytes on every run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Layers {
    /// The container.
    pub image: ContainerFacts,
    /// The disk and its partitions.
    pub disk: Disk,
    /// Volumes: LVM, md, LUKS and others, in the order of their devices.
    pub volumes: Vec<Volume>,
    /// File systems and swap, in the order of their devices.
    pub filesystems: Vec<FileSystemLayer>,
    /// Whether anything at all was recognised. A raw file without it is no disk image.
    pub recognised: bool,
}

/// A volume and where it lies.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Volume {
    /// `/dev/sda` or `/dev/sda2`.
    pub device: String,
    /// What it is.
    #[serde(flatten)]
    pub facts: VolumeFacts,
}

/// A file system and where it lies.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FileSystemLayer {
    /// `/dev/sda` or `/dev/sda2`.
    pub device: String,
    /// Type as blkid names it.
    #[serde(rename = "type")]
    pub fs_type: String,
    /// UUID as blkid prints it.
    pub uuid: Option<String>,
    /// Label.
    pub label: Option<String>,
    /// Size as the file system claims.
    pub size: Option<u64>,
    /// Block size.
    pub block_size: Option<u32>,
    /// Feature names, sorted.
    pub features: Vec<String>,
    /// Whether a journal waits to be replayed.
    pub needs_recovery: bool,
    /// Whether its files can be read.
    pub readable: bool,
    /// Why not: the feature or type that is not supported.
    pub unsupported: Option<String>,
    /// Why not: the damage.
    pub damage: Option<String>,
    /// What was left out or not trusted.
    pub warnings: Vec<String>,
}

/// A file system that can be read, with its device.
#[derive(Clone)]
pub struct Mountable {
    /// `/dev/sda` or `/dev/sda2`.
    pub device: String,
    /// Number of the partition it lies in, if it lies in one.
    pub partition: Option<u32>,
    /// PARTUUID of that partition.
    pub partuuid: Option<String>,
    /// Name (PARTLABEL) of that partition.
    pub partlabel: Option<String>,
    /// Its files.
    pub reader: Arc<dyn FileSystem>,
}

/// An image taken apart.
pub struct Examined {
    /// The description.
    pub layers: Layers,
    /// Readable file systems, in the order of their devices.
    pub mountable: Vec<Mountable>,
}

/// Finds partitions, volumes and file systems of a virtual disk.
///
/// # Errors
/// Budgets and failing reads. Damage and unsupported parts are told in the description.
pub fn examine(container: &Container) -> Result<Examined> {
    let mut disk = choose_table(&container.disk)?;
    let mut found = Examined {
        layers: Layers {
            image: container.facts.clone(),
            disk: Disk::default(),
            volumes: Vec::new(),
            filesystems: Vec::new(),
            recognised: disk.table != "none",
        },
        mountable: Vec::new(),
    };
    // Hybrid ISO images carry a table and a file system over the whole disk.
    if let Some(whole) = probe::probe(&container.disk)?
        && (disk.table == "none" || is_whole_disk_type(&whole))
    {
        found.add("/dev/sda".into(), None, whole);
    }
    for partition in &mut disk.partitions {
        if partition.container {
            continue;
        }
        let window: Layer = Arc::new(Window::new(
            Arc::clone(&container.disk),
            partition.start,
            partition.size,
        ));
        let Some(probed) = probe::probe(&window)? else {
            continue;
        };
        partition.content = Some(probed.facts.fs_type.clone());
        let device = format!("/dev/sda{}", partition.index);
        found.add(device, Some(partition), probed);
    }
    found.layers.disk = disk;
    Ok(found)
}

fn is_whole_disk_type(probed: &Probed) -> bool {
    matches!(
        probed.facts.fs_type.as_str(),
        "iso9660" | "udf" | "hfsplus" | "windows_dynamic_disk"
    )
}

/// A boot sector or a leftover signature must not pass for a partition table, nor a leftover file
/// system for the disk's content.
fn choose_table(layer: &Layer) -> Result<Disk> {
    let disk = partition::read(layer)?;
    if disk.table != "dos" {
        if disk.table == "none"
            && let Some(foreign) = partition::foreign_table(layer.as_ref())?
            && probe::probe(layer)?.is_none()
        {
            let table = foreign.to_owned();
            let warnings = vec![format!("partition table {foreign} is not read")];
            return Ok(Disk {
                table,
                warnings,
                ..disk
            });
        }
        return Ok(disk);
    }
    let bare = Disk {
        table: "none".into(),
        sector_size: 512,
        size: layer.len(),
        ..Disk::default()
    };
    if probe::is_boot_sector(layer)? {
        return Ok(bare);
    }
    match probe::probe(layer)? {
        None => Ok(disk),
        Some(whole) if is_whole_disk_type(&whole) => Ok(disk),
        Some(_) => {
            for partition in disk.partitions.iter().filter(|p| !p.container) {
                let window: Layer = Arc::new(Window::new(
                    Arc::clone(layer),
                    partition.start,
                    partition.size,
                ));
                if partition.start > 0 && probe::probe(&window)?.is_some() {
                    return Ok(disk);
                }
            }
            Ok(bare)
        }
    }
}

impl Examined {
    fn add(&mut self, device: String, partition: Option<&partition::Partition>, probed: Probed) {
        self.layers.recognised = true;
        if let Some(facts) = probed.volume {
            self.layers.volumes.push(Volume { device, facts });
            return;
        }
        let readable = probed.reader.is_some();
        if let Some(reader) = probed.reader {
            self.mountable.push(Mountable {
                device: device.clone(),
                partition: partition.map(|p| p.index),
                partuuid: partition.and_then(|p| p.uuid.clone()),
                partlabel: partition.and_then(|p| p.name.clone()),
                reader,
            });
        }
        self.layers.filesystems.push(describe(
            device,
            probed.facts,
            readable,
            probed.unsupported,
            probed.damage.as_ref(),
        ));
    }
}

fn describe(
    device: String,
    facts: FileSystemFacts,
    readable: bool,
    unsupported: Option<String>,
    damage: Option<&DiskError>,
) -> FileSystemLayer {
    FileSystemLayer {
        device,
        fs_type: facts.fs_type,
        uuid: facts.uuid,
        label: facts.label,
        size: facts.size_bytes,
        block_size: facts.block_size,
        features: facts.features,
        needs_recovery: facts.needs_recovery,
        readable,
        unsupported,
        damage: damage.map(ToString::to_string),
        warnings: facts.warnings,
    }
}
