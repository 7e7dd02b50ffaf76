//! Database servers: which are installed, and where their data lies by their configuration.

use super::{Scope, clean, glob, ini};
use crate::error::Result;
use crate::report::{Database, Package};

/// A server: its packages, its configuration files, the key that says where the data lies.
struct Known {
    kind: &'static str,
    /// Package names; `*` stands for a version.
    packages: &'static [&'static str],
    configs: &'static [&'static str],
    key: &'static str,
    /// Where the data lies when nothing else is said.
    data: &'static [&'static str],
}

const KNOWN: [Known; 12] = [
    Known {
        kind: "cassandra",
        packages: &["cassandra"],
        configs: &[
            "/etc/cassandra/cassandra.yaml",
            "/etc/cassandra/conf/cassandra.yaml",
        ],
        key: "data_file_directories",
        data: &["/var/lib/cassandra"],
    },
    Known {
        kind: "clickhouse",
        packages: &["clickhouse-server"],
        configs: &[],
        key: "",
        data: &["/var/lib/clickhouse"],
    },
    Known {
        kind: "elasticsearch",
        packages: &["elasticsearch"],
        configs: &["/etc/elasticsearch/elasticsearch.yml"],
        key: "path.data",
        data: &["/var/lib/elasticsearch"],
    },
    Known {
        kind: "influxdb",
        packages: &["influxdb", "influxdb2"],
        configs: &["/etc/influxdb/influxdb.conf"],
        key: "dir",
        data: &["/var/lib/influxdb"],
    },
    Known {
        kind: "mariadb",
        packages: &[
            "mariadb-server",
            "mariadb-server-*",
            "mariadb",
            "MariaDB-server",
        ],
        configs: &[
            "/etc/my.cnf",
            "/etc/my.cnf.d/*.cnf",
            "/etc/mysql/mariadb.conf.d/*.cnf",
            "/etc/mysql/my.cnf",
        ],
        key: "datadir",
        data: &["/var/lib/mysql"],
    },
    Known {
        kind: "memcached",
        packages: &["memcached"],
        configs: &[],
        key: "",
        data: &[],
    },
    Known {
        kind: "mongodb",
        packages: &["mongodb-org-server", "mongodb-server", "mongodb"],
        configs: &["/etc/mongod.conf", "/etc/mongodb.conf"],
        key: "dbPath",
        data: &["/var/lib/mongodb", "/var/lib/mongo"],
    },
    Known {
        kind: "mysql",
        packages: &[
            "mysql-server",
            "mysql-server-*",
            "mysql-community-server",
            "mysql",
        ],
        configs: &[
            "/etc/my.cnf",
            "/etc/my.cnf.d/*.cnf",
            "/etc/mysql/mysql.conf.d/*.cnf",
            "/etc/mysql/my.cnf",
        ],
        key: "datadir",
        data: &["/var/lib/mysql"],
    },
    Known {
        kind: "opensearch",
        packages: &["opensearch"],
        configs: &["/etc/opensearch/opensearch.yml"],
        key: "path.data",
        data: &["/var/lib/opensearch"],
    },
    Known {
        kind: "postgresql",
        packages: &[
            "postgresql-*",
            "postgresql-server",
            "postgresql*-server",
            "postgresql",
        ],
        configs: &["/etc/postgresql/*/*/postgresql.conf"],
        key: "data_directory",
        data: &[
            "/var/lib/postgresql/*/main",
            "/var/lib/pgsql/data",
            "/var/lib/pgsql/*/data",
            "/var/lib/postgresql/*/data",
            "/var/lib/postgres/data",
        ],
    },
    Known {
        kind: "redis",
        packages: &["redis-server", "redis"],
        configs: &["/etc/redis/redis.conf", "/etc/redis.conf"],
        key: "dir",
        data: &["/var/lib/redis"],
    },
    Known {
        kind: "valkey",
        packages: &["valkey-server", "valkey"],
        configs: &["/etc/valkey/valkey.conf"],
        key: "dir",
        data: &["/var/lib/valkey"],
    },
];

pub(super) fn read(scope: &mut Scope<'_>, packages: &[Package]) -> Result<Vec<Database>> {
    let mut found = Vec::new();
    for known in &KNOWN {
        let servers = packages.iter().filter(|package| {
            known
                .packages
                .iter()
                .any(|name| is_server(name, &package.name))
        });
        // Of several (a metapackage and what it pulls in) the one with the most specific name.
        let Some(package) = servers.max_by_key(|package| package.name.len()) else {
            continue;
        };
        found.push(Database {
            kind: known.kind,
            package: package.name.clone(),
            version: package.full_version.clone(),
            data: data(scope, known),
        });
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether a package is one of these; a `*` stands for digits and dots only: postgresql-15 is a
/// server, postgresql-client-15 is none.
fn is_server(pattern: &str, name: &str) -> bool {
    let Some((start, end)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let middle = name
        .strip_prefix(start)
        .and_then(|rest| rest.strip_suffix(end));
    middle.is_some_and(|middle| {
        !middle.is_empty() && middle.chars().all(|c| c.is_ascii_digit() || c == '.')
    })
}

/// Directories that the configuration names; else the usual ones that are there.
fn data(scope: &mut Scope<'_>, known: &Known) -> Vec<String> {
    let mut named = Vec::new();
    for pattern in known.configs {
        for path in glob::paths(scope, pattern) {
            let text = scope.text(&path).unwrap_or_default();
            named.extend(values(&text, known.key));
        }
    }
    if named.is_empty() {
        for pattern in known.data {
            for path in glob::paths(scope, pattern) {
                if scope.exists(&path) {
                    named.push(path);
                }
            }
        }
    }
    let mut named: Vec<String> = named.iter().map(|path| clean(path)).collect();
    named.sort_unstable();
    named.dedup();
    named
}

/// Absolute paths that a key has in any of the forms in use: `key = v`, `key: v`, `key v`, a list of
/// YAML beneath the key.
fn values(text: &str, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_list = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if in_list && let Some(item) = line.strip_prefix("- ") {
            found.push(item.to_owned());
            continue;
        }
        in_list = false;
        let Some(rest) = line.strip_prefix(key) else {
            continue;
        };
        let rest = rest.trim_start();
        if rest == ":" {
            in_list = true;
        } else {
            let value = rest.trim_start_matches(['=', ':']).trim_start();
            found.push(value.to_owned());
        }
    }
    found
        .iter()
        .map(|value| {
            // A comment may stand behind, quotes around.
            let value = value.split(" #").next().unwrap_or_default().trim();
            ini::unquote(value)
        })
        .filter(|value| value.starts_with('/'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::memory::MemoryTree;
    use crate::guest::tests::with_scope;

    fn package(name: &str) -> Package {
        Package {
            name: name.to_owned(),
            full_version: "1".to_owned(),
            ..Package::default()
        }
    }

    #[test]
    fn the_configuration_says_where_data_lies() {
        let tree = MemoryTree::of(&[
            (
                "/etc/postgresql/15/main/postgresql.conf",
                "#data_directory = '/x'\ndata_directory = '/srv/pg' # moved\n",
            ),
            ("/var/lib/mysql/ibdata1", ""),
            ("/etc/redis/redis.conf", "dir /srv/redis\n"),
            (
                "/etc/elasticsearch/elasticsearch.yml",
                "path.data:\n  - /d/1\n  - /d/2\n",
            ),
        ]);
        let packages = [
            "postgresql",
            "postgresql-15",
            "postgresql-client-15",
            "mariadb-server",
            "redis-server",
            "elasticsearch",
            "libmysqlclient",
        ]
        .map(package);
        let found = with_scope(tree, |scope| read(scope, &packages).unwrap());
        let rows: Vec<_> = found
            .iter()
            .map(|d| (d.kind, d.package.as_str(), d.data.join(" ")))
            .collect();
        assert_eq!(
            rows,
            [
                ("elasticsearch", "elasticsearch", "/d/1 /d/2".to_owned()),
                ("mariadb", "mariadb-server", "/var/lib/mysql".to_owned()),
                ("postgresql", "postgresql-15", "/srv/pg".to_owned()),
                ("redis", "redis-server", "/srv/redis".to_owned()),
            ]
        );
    }
}
