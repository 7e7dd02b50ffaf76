//! Database servers: which are installed, and where their data lies.

use super::Scope;
use crate::error::Result;
use crate::report::{Database, Package};

/// Kind, start of the server package's name, data directory.
const KNOWN: [(&str, &str, &str); 8] = [
    ("postgresql", "postgresql-", "/var/lib/postgresql"),
    ("mysql", "mysql-server", "/var/lib/mysql"),
    ("mariadb", "mariadb-server", "/var/lib/mysql"),
    ("mongodb", "mongodb-org-server", "/var/lib/mongodb"),
    ("redis", "redis-server", "/var/lib/redis"),
    ("cassandra", "cassandra", "/var/lib/cassandra"),
    ("elasticsearch", "elasticsearch", "/var/lib/elasticsearch"),
    ("clickhouse", "clickhouse-server", "/var/lib/clickhouse"),
];

pub(super) fn read(scope: &mut Scope<'_>, packages: &[Package]) -> Result<Vec<Database>> {
    let mut found = Vec::new();
    for (kind, start, data) in KNOWN {
        let server = packages.iter().find(|package| {
            package.name.strip_prefix(start).is_some_and(|rest| {
                // postgresql-15 is a server, postgresql-client-15 is none.
                rest.chars()
                    .all(|c| c.is_ascii_digit() || matches!(c, '.' | '-'))
            })
        });
        if let Some(package) = server {
            let data = if scope.exists(data) {
                vec![data.to_owned()]
            } else {
                Vec::new()
            };
            found.push(Database {
                kind,
                package: package.name.clone(),
                version: package.full_version.clone(),
                data,
            });
        }
    }
    found.sort_unstable();
    Ok(found)
}
