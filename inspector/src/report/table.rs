//! The report for people.

use super::{InspectReport, Sections};
use crate::guest::clean;
use crate::layers::{FileSystemLayer, Layers, Volume};
use crate::partition::Disk;
use crate::probe::VolumeFacts;
use std::fmt::Write;

/// Renders a report, summary first. `colour`: for a terminal.
#[must_use]
pub fn render(report: &InspectReport, colour: bool) -> String {
    let mut out = String::new();
    let (bold, plain) = if colour {
        ("\u{1b}[1m", "\u{1b}[0m")
    } else {
        ("", "")
    };
    // Writing to a String cannot fail.
    let mut line = |name: &str, value: String| {
        // Labels and names come from the guest: they must not steer the terminal.
        let value = clean(&value);
        writeln!(out, "{bold}{name:<14}{plain}{value}").unwrap_or_default();
    };
    line(
        "image",
        format!(
            "{}, {}",
            report.image.format,
            size(report.image.virtual_size)
        ),
    );
    line("table", report.disk.table.clone());
    for os in &report.os {
        let name = os.pretty_name.clone().unwrap_or_else(|| os.distro.clone());
        let arch = os.arch.as_deref().unwrap_or("unknown architecture");
        line("system", format!("{name} ({arch}) on {}", os.root));
        for (name, value) in [
            ("hostname", &os.hostname),
            ("machine id", &os.machine_id),
            ("time zone", &os.timezone),
            ("init", &os.init),
        ] {
            if let Some(value) = value {
                line(name, value.clone());
            }
        }
        if !os.software.is_empty() {
            line("software", os.software.join(", "));
        }
    }
    if report.os.is_empty() {
        line("system", "none found".to_owned());
    }
    sections(&report.sections, &mut line);
    disk_lines(
        &report.disk,
        &report.volumes,
        &report.filesystems,
        &mut line,
    );
    out
}

/// Renders container, partitions, volumes and file systems alone.
#[must_use]
pub fn layers(layers: &Layers, colour: bool) -> String {
    let mut out = String::new();
    let (bold, plain) = if colour {
        ("\u{1b}[1m", "\u{1b}[0m")
    } else {
        ("", "")
    };
    // Writing to a String cannot fail.
    let mut line = |name: &str, value: String| {
        // Labels and names come from the guest: they must not steer the terminal.
        let value = clean(&value);
        writeln!(out, "{bold}{name:<14}{plain}{value}").unwrap_or_default();
    };
    let image = &layers.image;
    line(
        "image",
        format!("{}, {}", image.format, size(image.virtual_size)),
    );
    for backing in &image.backing {
        line(
            "backing file",
            format!("{}, {}", backing.name, backing.format),
        );
    }
    line("table", layers.disk.table.clone());
    disk_lines(
        &layers.disk,
        &layers.volumes,
        &layers.filesystems,
        &mut line,
    );
    out
}

fn disk_lines(
    disk: &Disk,
    volumes: &[Volume],
    filesystems: &[FileSystemLayer],
    line: &mut impl FnMut(&str, String),
) {
    for partition in &disk.partitions {
        line(
            "partition",
            format!(
                "{:>3}  {:>10}  {:<8} {}",
                partition.index,
                size(partition.size),
                partition.content.as_deref().unwrap_or("-"),
                partition.name.as_deref().unwrap_or("")
            ),
        );
    }
    for volume in volumes {
        let VolumeFacts {
            volume_type,
            uuid,
            label,
            ..
        } = &volume.facts;
        line(
            "volume",
            format!(
                "{:<11} {:<8} {:<38} {}",
                volume.device,
                volume_type,
                uuid.as_deref().unwrap_or("-"),
                label.as_deref().unwrap_or(""),
            ),
        );
    }
    for fs in filesystems {
        line(
            "file system",
            format!(
                "{:<11} {:<8} {:<38} {}",
                fs.device,
                fs.fs_type,
                fs.uuid.as_deref().unwrap_or("-"),
                fs.label.as_deref().unwrap_or("")
            ),
        );
    }
}

fn sections(sections: &Sections, line: &mut impl FnMut(&str, String)) {
    let count = |n: usize, what: &str| format!("{n} {what}");
    if let Some(packages) = &sections.packages {
        line("packages", count(packages.len(), "installed"));
    }
    if let Some(kernels) = &sections.kernels {
        for kernel in &kernels.installed {
            let mark = if kernel.default { " (default)" } else { "" };
            line("kernel", format!("{}{mark}", kernel.version));
        }
    }
    if let Some(users) = &sections.users {
        let people: Vec<&str> = users
            .iter()
            .filter(|user| user.uid == 0 || (1_000..60_000).contains(&user.uid))
            .map(|user| user.name.as_str())
            .collect();
        line(
            "users",
            format!("{} in all; {}", users.len(), people.join(", ")),
        );
    }
    if let Some(services) = &sections.services {
        let enabled = services.units.iter().filter(|unit| unit.state == "enabled");
        line(
            "services",
            format!(
                "{} units, {} enabled",
                services.units.len(),
                enabled.count()
            ),
        );
    }
    if let Some(network) = &sections.network {
        for interface in &network.interfaces {
            let how = if interface.dhcp {
                "dhcp".to_owned()
            } else {
                interface.addresses.join(" ")
            };
            line("interface", format!("{} {how}", interface.name));
        }
    }
    if let Some(mounts) = &sections.mounts {
        for mount in mounts {
            let device = mount.device.as_deref().unwrap_or("-");
            line(
                "mount",
                format!("{:<12} {:<11} {}", mount.target, device, mount.spec),
            );
        }
    }
    for (section, coverage) in &sections.coverage {
        if !matches!(coverage, super::Coverage::Ok | super::Coverage::Skipped) {
            line("gap", format!("{section}: {coverage:?}").to_lowercase());
        }
    }
    for warning in &sections.warnings {
        line(
            "warning",
            format!(
                "{}: {} ({})",
                warning.section, warning.message, warning.path
            ),
        );
    }
}

fn size(bytes: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (name, unit) in units {
        if bytes >= unit {
            let whole = bytes.checked_div(unit).unwrap_or(0);
            let rest = bytes.checked_rem(unit).unwrap_or(0);
            let tenth = rest.saturating_mul(10).checked_div(unit).unwrap_or(0);
            return format!("{whole}.{tenth} {name}");
        }
    }
    format!("{bytes} B")
}
