//! Container, disk, volumes and file systems of an image as one value: the `layers` command, and
//! the ground that guest facts are read from.

use crate::container::{Container, ContainerFacts};
use crate::error::{DiskError, Result};
use crate::fs::btrfs;
use crate::fs::{FileSystem, FileSystemFacts, Subvolume};
use crate::layer::Window;
use crate::partition::{self, Disk};
use crate::probe::{self, Probed, VolumeFacts};
use crate::read_at::Layer;
use crate::volume::{Assembled, Member, lvm, md};
use std::collections::BTreeMap;
use std::sync::Arc;

/// All layers of an image. Serialises to the same bytes on every run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Layers {
    /// The container.
    pub image: ContainerFacts,
    /// The disk and its partitions.
    pub disk: Disk,
    /// Further disks of the same machine, `/dev/sdb` and so on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub further: Vec<FurtherDisk>,
    /// Volumes: LVM, md, LUKS and others, in the order of their devices; then what members were
    /// put together to.
    pub volumes: Vec<Volume>,
    /// File systems and swap, in the order of their devices.
    pub filesystems: Vec<FileSystemLayer>,
    /// Whether anything at all was recognised. A raw file without it is no disk image.
    pub recognised: bool,
}

/// A disk beside the first one.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FurtherDisk {
    /// `/dev/sdb`.
    pub device: String,
    /// Its container.
    pub image: ContainerFacts,
    /// The disk and its partitions.
    pub disk: Disk,
}

/// A volume and where it lies.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Volume {
    /// `/dev/sda` or `/dev/sda2`; `/dev/vg` for a volume group, `/dev/md/name` for an array.
    pub device: String,
    /// What it is.
    #[serde(flatten)]
    pub facts: VolumeFacts,
}

/// A file system and where it lies.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FileSystemLayer {
    /// `/dev/sda`, `/dev/sda2`, `/dev/vg/lv` or `/dev/md/name`.
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
    /// Subvolumes and snapshots, sorted by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subvolumes: Vec<Subvolume>,
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
    /// `/dev/sda`, `/dev/sda2`, `/dev/vg/lv` or `/dev/md/name`.
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
    /// The budget that was used up before all was looked at ([`examine_partly`]).
    pub cut_short: Option<DiskError>,
}

/// Disks of one machine: `/dev/sda` to `/dev/sdz`.
const DISKS_MAX: usize = 26;
/// Volumes upon volumes: LVM on md is two rounds.
const ROUNDS_MAX: usize = 4;

/// Finds partitions, volumes and file systems of a virtual disk.
///
/// # Errors
/// Budgets and failing reads. Damage and unsupported parts are told in the description.
pub fn examine(container: &Container) -> Result<Examined> {
    examine_all(std::slice::from_ref(container))
}

/// Finds partitions, volumes and file systems of the virtual disks of one machine: `/dev/sda`,
/// `/dev/sdb` and so on, in their order.
///
/// # Errors
/// `NotFound` without a disk, `OverBudget` for more than 26; budgets and failing reads.
pub fn examine_all(containers: &[Container]) -> Result<Examined> {
    let found = examine_partly(containers)?;
    match found.cut_short {
        Some(error) => Err(error),
        None => Ok(found),
    }
}

/// As [`examine_all`], and what was found until then when a budget is used up.
///
/// # Errors
/// `NotFound` without a disk, `OverBudget` for more than 26; failing reads.
pub fn examine_partly(containers: &[Container]) -> Result<Examined> {
    let Some(first) = containers.first() else {
        return Err(DiskError::NotFound {
            what: "a disk to examine".into(),
        });
    };
    if containers.len() > DISKS_MAX {
        return Err(DiskError::OverBudget {
            budget: format!("{DISKS_MAX} disks of one machine"),
        });
    }
    let mut found = Examined {
        layers: Layers {
            image: first.facts.clone(),
            disk: Disk::default(),
            further: Vec::new(),
            volumes: Vec::new(),
            filesystems: Vec::new(),
            recognised: false,
        },
        mountable: Vec::new(),
        cut_short: None,
    };
    match found.add_all(containers) {
        Err(error @ DiskError::OverBudget { .. }) => found.cut_short = Some(error),
        outcome => outcome?,
    }
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
    fn add_all(&mut self, containers: &[Container]) -> Result<()> {
        let mut members = Vec::new();
        for (letter, container) in ('a'..='z').zip(containers) {
            let device = format!("/dev/sd{letter}");
            let mut disk = Disk {
                table: partition::UNKNOWN.to_owned(),
                size: container.disk.len(),
                ..Disk::default()
            };
            let outcome = self.add_disk(&device, &container.disk, &mut disk, &mut members);
            // Told even where a budget ended the looking.
            if letter == 'a' {
                self.layers.disk = disk;
            } else {
                self.layers.further.push(FurtherDisk {
                    device,
                    image: container.facts.clone(),
                    disk,
                });
            }
            outcome?;
        }
        self.assemble(members)
    }

    /// One disk: its table, and what lies in its partitions or over the whole.
    fn add_disk(
        &mut self,
        device: &str,
        layer: &Layer,
        disk: &mut Disk,
        members: &mut Vec<Member>,
    ) -> Result<()> {
        *disk = choose_table(layer)?;
        self.layers.recognised |= disk.table != "none";
        // Hybrid ISO images carry a table and a file system over the whole disk.
        if let Some(whole) = probe::probe(layer)?
            && (disk.table == "none" || is_whole_disk_type(&whole))
        {
            self.add(device.to_owned(), None, whole, layer, members);
        }
        for partition in &mut disk.partitions {
            if partition.container {
                continue;
            }
            let window: Layer = Arc::new(Window::new(
                Arc::clone(layer),
                partition.start,
                partition.size,
            ));
            let probed = match probe::probe(&window)? {
                Some(probed) => probed,
                None if partition.part_type == partition::LDM_METADATA => dynamic_disk(),
                None => continue,
            };
            partition.content = Some(probed.facts.fs_type.clone());
            let device = format!("{device}{}", partition.index);
            self.add(device, Some(partition), probed, &window, members);
        }
        Ok(())
    }

    fn add(
        &mut self,
        device: String,
        partition: Option<&partition::Partition>,
        probed: Probed,
        layer: &Layer,
        members: &mut Vec<Member>,
    ) {
        self.layers.recognised = true;
        if matches!(
            probed.facts.fs_type.as_str(),
            "LVM2_member" | "linux_raid_member" | "btrfs"
        ) {
            members.push(Member {
                device: device.clone(),
                layer: Arc::clone(layer),
            });
        }
        if let Some(facts) = probed.volume {
            self.layers.volumes.push(Volume { device, facts });
            return;
        }
        let readable = probed.reader.is_some();
        let mut subvolumes = Vec::new();
        if let Some(reader) = probed.reader {
            // Where they cannot be listed the root is still worth a look.
            subvolumes = reader.subvolumes().unwrap_or_default();
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
            subvolumes,
            readable,
            probed.unsupported,
            probed.damage.as_ref(),
        ));
    }

    /// Puts members together and looks into what that makes: arrays first, then volume groups, as
    /// often as new members turn up.
    fn assemble(&mut self, members: Vec<Member>) -> Result<()> {
        let mut all = members.clone();
        let mut fresh = members;
        for _ in 0..ROUNDS_MAX {
            let mut next = Vec::new();
            for (mut facts, mut array) in md::assemble(&fresh)? {
                array.device = self.unused(array.device);
                facts.unsupported = array.layer.as_ref().err().cloned();
                self.layers.volumes.push(Volume {
                    device: array.device.clone(),
                    facts,
                });
                self.add_volume(array, &mut next)?;
            }
            // Physical volumes on arrays belong to the groups of this round.
            fresh.append(&mut next);
            for group in lvm::assemble(&fresh)? {
                for volume in &mut self.layers.volumes {
                    if group.devices.contains(&volume.device) {
                        volume.facts.vg = Some(group.name.clone());
                    }
                }
                self.layers.volumes.push(Volume {
                    device: format!("/dev/{}", group.name),
                    facts: group.facts,
                });
                for volume in group.volumes {
                    self.add_volume(volume, &mut next)?;
                }
            }
            all.extend(next.iter().cloned());
            if next.is_empty() {
                break;
            }
            fresh = next;
        }
        self.join_btrfs(&all)
    }

    fn unused(&self, device: String) -> String {
        let is_used = |name: &str| self.layers.volumes.iter().any(|v| v.device == name);
        let numbered = (0..100u8).map(|n| format!("{device}_{n}"));
        std::iter::once(device.clone())
            .chain(numbered)
            .find(|name| !is_used(name))
            .unwrap_or(device)
    }

    fn add_volume(&mut self, volume: Assembled, members: &mut Vec<Member>) -> Result<()> {
        let Ok(layer) = volume.layer else {
            return Ok(());
        };
        if let Some(probed) = probe::probe(&layer)? {
            self.add(volume.device, None, probed, &layer, members);
        }
        Ok(())
    }

    /// Opens btrfs file systems of several devices once more, with all devices that are here.
    /// They are told at the first.
    fn join_btrfs(&mut self, members: &[Member]) -> Result<()> {
        let mut sets: BTreeMap<[u8; 16], Vec<&Member>> = BTreeMap::new();
        for member in members {
            match btrfs::membership(member.layer.as_ref()) {
                Ok((id, devices)) if devices > 1 => sets.entry(id).or_default().push(member),
                Ok(_) | Err(DiskError::Corrupt { .. } | DiskError::OutOfBounds { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        for set in sets.into_values().filter(|set| set.len() > 1) {
            let Some((first, others)) = set.split_first() else {
                continue;
            };
            let layers = set.iter().map(|member| Arc::clone(&member.layer));
            let Some(probed) = probe::btrfs_of(layers.collect())? else {
                continue;
            };
            let is_other = |device: &str| others.iter().any(|m| m.device == device);
            let (filesystems, mountable) = (&mut self.layers.filesystems, &mut self.mountable);
            filesystems.retain(|fs| !is_other(&fs.device));
            mountable.retain(|m| !is_other(&m.device));
            let readable = probed.reader.is_some();
            let subvolumes = probed
                .reader
                .as_ref()
                .and_then(|reader| reader.subvolumes().ok())
                .unwrap_or_default();
            match mountable.iter_mut().find(|m| m.device == first.device) {
                Some(known) => {
                    if let Some(reader) = probed.reader {
                        known.reader = reader;
                    }
                }
                None => mountable.extend(probed.reader.map(|reader| Mountable {
                    device: first.device.clone(),
                    partition: None,
                    partuuid: None,
                    partlabel: None,
                    reader,
                })),
            }
            if let Some(known) = filesystems.iter_mut().find(|fs| fs.device == first.device) {
                *known = describe(
                    first.device.clone(),
                    probed.facts,
                    subvolumes,
                    readable,
                    probed.unsupported,
                    probed.damage.as_ref(),
                );
            }
        }
        Ok(())
    }
}

/// A dynamic disk on a GPT keeps its database in a partition of its own.
fn dynamic_disk() -> Probed {
    probe::named_volume("windows_dynamic_disk")
}

impl Layers {
    /// The device of `layers` that a guest's name for it means: `/dev/mapper/vg-lv` with doubled
    /// hyphens is `/dev/vg/lv`, `/dev/md/0` is `/dev/md0`. None when there is no such device.
    pub fn device_of(&self, name: &str) -> Option<&str> {
        let known = |device: &str| {
            let filesystems = self.filesystems.iter().map(|fs| fs.device.as_str());
            let volumes = self.volumes.iter().map(|v| v.device.as_str());
            filesystems.chain(volumes).find(|d| *d == device)
        };
        if let Some(device) = known(name) {
            return Some(device);
        }
        if let Some(mapped) = name.strip_prefix("/dev/mapper/") {
            let mut volumes = self.volumes.iter().flat_map(|v| &v.facts.lvs);
            let volume = volumes.find(|lv| {
                let path = lv.device.strip_prefix("/dev/").unwrap_or_default();
                path.split_once('/').is_some_and(|(vg, lv)| {
                    format!("{}-{}", vg.replace('-', "--"), lv.replace('-', "--")) == mapped
                })
            });
            return volume.map(|lv| lv.device.as_str());
        }
        let array = name.strip_prefix("/dev/md/")?;
        known(&format!("/dev/md{array}"))
    }
}

fn describe(
    device: String,
    facts: FileSystemFacts,
    subvolumes: Vec<Subvolume>,
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
        subvolumes,
        readable,
        unsupported,
        damage: damage.map(ToString::to_string),
        warnings: facts.warnings,
    }
}
