//! Services and drivers of the current control set.

use super::keys::{Reader, Values};
use super::system::System;
use crate::guest::clean;
use crate::registry::Key;
use crate::report::windows::WindowsService;
use crate::report::{Service, Services};

/// Services of one system.
const SERVICES_MAX: usize = 20_000;

pub(super) fn read(reader: &mut Reader, system: &System) -> (Services, Vec<WindowsService>) {
    let mut services = Services::default();
    let mut details = Vec::new();
    let Some((hive, path)) = system.control("Services") else {
        return (services, details);
    };
    let Some(key) = reader.key(hive, &path) else {
        return (services, details);
    };
    let place = format!("{}\\{path}", hive.name);
    for key in reader.subkeys(&key) {
        if details.len() >= SERVICES_MAX {
            let message = format!("more than {SERVICES_MAX} services");
            reader.note("over_budget", &place, message);
            break;
        }
        let values = reader.values(&key);
        let Some(service) = service(reader, &key, &values) else {
            continue;
        };
        services.units.push(Service {
            name: service.name.clone(),
            manager: "windows",
            state: service.start,
            path: format!("{place}\\{}", service.name),
            exec: service.image_path.clone(),
            user: service.user.clone(),
            preset: None,
            drop_ins: Vec::new(),
            schedule: Vec::new(),
            listen: Vec::new(),
            runlevels: Vec::new(),
        });
        details.push(service);
    }
    services.units.sort_unstable();
    details.sort_unstable();
    (services, details)
}

/// Keys without a type hold settings or counters only.
fn service(reader: &mut Reader, key: &Key<'_>, values: &Values<'_>) -> Option<WindowsService> {
    let number = values.dword(reader, "Type")?;
    // SERVICE_INTERACTIVE_PROCESS and the package flag say nothing about the kind.
    let kind = match number & 0xff {
        0x01 => "kernel_driver",
        0x02 => "file_system_driver",
        0x04 => "adapter",
        0x08 => "recognizer_driver",
        0x10 => "own_process",
        0x20 => "share_process",
        0x50 | 0x60 => "user_service",
        0xd0 | 0xe0 => "user_service_instance",
        _ => "unknown",
    };
    let delayed = values.number(reader, "DelayedAutostart") == Some(1);
    let start = match values.number(reader, "Start") {
        Some(0) => "boot",
        Some(1) => "system",
        Some(2) if delayed => "delayed",
        Some(2) => "automatic",
        Some(3) => "manual",
        Some(4) => "disabled",
        _ => "unknown",
    };
    let is_driver = number & 0x0f != 0;
    let image_path = values.text(reader, "ImagePath");
    let hosted = image_path
        .as_deref()
        .is_some_and(|path| path.to_ascii_lowercase().contains("svchost"));
    let service_dll = if hosted {
        let parameters = reader.below(key, "Parameters");
        parameters.and_then(|key| reader.values(&key).text(reader, "ServiceDll"))
    } else {
        None
    };
    Some(WindowsService {
        name: clean(key.name()),
        display_name: values.text(reader, "DisplayName"),
        kind,
        start,
        image_path,
        service_dll,
        // A driver's ObjectName is an object of the kernel.
        user: (!is_driver)
            .then(|| values.text(reader, "ObjectName"))
            .flatten(),
        group: values.text(reader, "Group"),
    })
}
