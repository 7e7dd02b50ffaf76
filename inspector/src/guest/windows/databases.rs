//! Database servers, told by the keys that their installers write.

use super::keys::Reader;
use super::system::System;
use crate::guest::clean;
use crate::report::Database;

/// Instances of one kind.
const INSTANCES_MAX: usize = 100;

pub(super) fn read(reader: &mut Reader, system: &System) -> Vec<Database> {
    let mut found = Vec::new();
    sql_server(reader, system, &mut found);
    // Key, kind, name of the value with the version, of that with the data directory.
    for (path, kind, version, data) in [
        (
            "PostgreSQL\\Installations",
            "postgresql",
            "Version",
            "Data Directory",
        ),
        ("MySQL AB", "mysql", "Version", "DataLocation"),
        ("WOW6432Node\\MySQL AB", "mysql", "Version", "DataLocation"),
    ] {
        let Some(key) = reader.key(system.software.as_ref(), path) else {
            continue;
        };
        for key in reader.subkeys(&key).into_iter().take(INSTANCES_MAX) {
            let values = reader.values(&key);
            // Tools of the same maker have no data.
            let Some(data) = values.text(reader, data) else {
                continue;
            };
            found.push(Database {
                kind,
                package: clean(key.name()),
                version: values.text(reader, version).unwrap_or_default(),
                data: vec![data],
            });
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn sql_server(reader: &mut Reader, system: &System, found: &mut Vec<Database>) {
    const ROOT: &str = "Microsoft\\Microsoft SQL Server";
    let instances = reader.values_at(
        system.software.as_ref(),
        &format!("{ROOT}\\Instance Names\\SQL"),
    );
    let names: Vec<String> = instances
        .iter()
        .map(|value| value.name().to_owned())
        .take(INSTANCES_MAX)
        .collect();
    for name in names {
        let Some(id) = instances.text(reader, &name) else {
            continue;
        };
        let setup = reader.values_at(system.software.as_ref(), &format!("{ROOT}\\{id}\\Setup"));
        found.push(Database {
            kind: "mssql",
            package: clean(&id),
            version: setup.text(reader, "Version").unwrap_or_default(),
            data: setup
                .text(reader, "SQLDataRoot")
                .map(|path| format!("{path}\\DATA"))
                .into_iter()
                .collect(),
        });
    }
}
