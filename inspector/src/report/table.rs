//! The report for people.

use super::{InspectReport, Sections};
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
    for partition in &report.disk.partitions {
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
    for fs in &report.filesystems {
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
    out
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
