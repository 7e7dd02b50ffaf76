//! How to reach the cluster: bootstrap servers and librdkafka's own properties, passed through.
//!
//! Later wins: properties file (or the `[kafka]` table of a TOML file), then `KAFKA_…` variables. What this
//! project's guarantees rest on can't be set; a name that librdkafka does not know is refused at start.

use crate::fault::Fault;
use crate::nearest::nearest;
use crate::properties::KNOWN;
use crate::secret::{REDACTED, without_userinfo};
use rdkafka::ClientConfig;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Properties by name.
pub type Properties = BTreeMap<String, String>;

/// Properties that we own, with the reason or the flag to use.
const OWNED: &[(&str, &str)] = &[
    (
        "auto.offset.reset",
        "a missing offset stops the partition, it is never reset",
    ),
    ("acks", "every record waits for all in-sync replicas"),
    (
        "request.required.acks",
        "every record waits for all in-sync replicas",
    ),
    ("bootstrap.servers", "use --bootstrap-servers"),
    ("metadata.broker.list", "use --bootstrap-servers"),
    (
        "enable.auto.commit",
        "offsets are committed with the results",
    ),
    (
        "enable.auto.offset.store",
        "offsets are committed with the results",
    ),
    (
        "auto.commit.enable",
        "offsets are committed with the results",
    ),
    ("enable.idempotence", "producers are always idempotent"),
    (
        "enable.gapless.guarantee",
        "producers are always idempotent",
    ),
    ("enable.partition.eof", "readers rely on it"),
    ("group.id", "use --group-id"),
    ("group.protocol", "fencing needs the classic protocol"),
    (
        "group.remote.assignor",
        "fencing needs the classic protocol",
    ),
    ("isolation.level", "who reads what is part of the promise"),
    ("partition.assignment.strategy", "it is cooperative-sticky"),
    ("partitioner", "the slot decides the partition"),
    (
        "transactional.id",
        "it is made from prefix, group and worker id",
    ),
    (
        "transaction.timeout.ms",
        "it bounds how long a dead worker holds up readers",
    ),
    (
        "delivery.report.only.error",
        "delivery results are relied on",
    ),
    (
        "plugin.library.paths",
        "no code is loaded from configuration",
    ),
    ("default_topic_conf", "set topic properties directly"),
];

/// Variables that have the prefix by accident: of container images, and what Kubernetes sets in every pod for
/// each service of the namespace whose name begins with `kafka`, such as `kafka-bootstrap`. No property of
/// librdkafka has the word `port` or `service.host`.
fn is_foreign(rest: &str) -> bool {
    let of_image = matches!(
        rest,
        "HOME"
            | "VERSION"
            | "OPTS"
            | "HEAP_OPTS"
            | "LOG4J_OPTS"
            | "JMX_OPTS"
            | "GC_LOG_OPTS"
            | "CLUSTER_ID"
    );
    let words: Vec<&str> = rest.split('_').collect();
    of_image || words.contains(&"PORT") || words.ends_with(&["SERVICE", "HOST"])
}

/// How to reach the cluster; every property is known to librdkafka and none is ours.
#[derive(Clone, PartialEq, Eq)]
pub struct Connection {
    bootstrap_servers: String,
    properties: Properties,
}

/// Where a connection is described. Environment and file system are passed in.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// From a properties file or a `[kafka]` table.
    pub file: &'a Properties,
    /// All environment variables, or those that count.
    pub environment: &'a Properties,
    /// Reads a secret for `…_FILE` and `*_file`-less properties.
    pub read_file: &'a dyn Fn(&Path) -> io::Result<String>,
}

impl Connection {
    /// Puts a connection together.
    ///
    /// # Errors
    /// [`Fault::Config`]: no bootstrap server, a property that is ours or unknown or has a wrong value, a
    /// secret that can't be read.
    pub fn new(bootstrap_servers: &str, sources: Sources<'_>) -> Result<Self, Fault> {
        let bootstrap_servers = bootstrap_servers.trim();
        if bootstrap_servers.is_empty() {
            return Err(Fault::Config(
                "no bootstrap servers: use --bootstrap-servers HOST:PORT".to_owned(),
            ));
        }
        let mut properties = Properties::new();
        for (name, value) in sources.file {
            properties.insert(checked(name, name)?, value.clone());
        }
        for (variable, value) in sources.environment {
            let Some(rest) = variable.strip_prefix("KAFKA_") else {
                continue;
            };
            if is_foreign(rest) || rest == "BOOTSTRAP_SERVERS" {
                continue;
            }
            let (name, value) = match rest.strip_suffix("_FILE") {
                Some(stem) => {
                    let text = (sources.read_file)(Path::new(value)).map_err(|error| {
                        Fault::Config(format!("{variable}: cannot read {value}: {error}"))
                    })?;
                    // Editors and `kubectl create secret` leave a line break that no secret has.
                    (
                        property_name(stem),
                        text.trim_end_matches(['\r', '\n']).to_owned(),
                    )
                }
                None => (property_name(rest), value.clone()),
            };
            properties.insert(checked(&name, variable)?, value);
        }
        let connection = Self {
            bootstrap_servers: bootstrap_servers.to_owned(),
            properties,
        };
        connection
            .client_config()
            .create_native_config()
            .map_err(|error| match error {
                // The value may be a secret.
                rdkafka::error::KafkaError::ClientConfig(_, reason, name, _)
                    if !is_secret(&name) =>
                {
                    Fault::Config(format!("kafka property {name}: {reason}"))
                }
                rdkafka::error::KafkaError::ClientConfig(_, _, name, _) => {
                    Fault::Config(format!("kafka property {name}: its value is refused"))
                }
                other => Fault::Config(other.to_string()),
            })?;
        Ok(connection)
    }

    /// A connection with nothing but an address.
    ///
    /// # Errors
    /// As [`Connection::new`].
    pub fn plain(bootstrap_servers: &str) -> Result<Self, Fault> {
        let none = Properties::new();
        Self::new(
            bootstrap_servers,
            Sources {
                file: &none,
                environment: &none,
                read_file: &|path| std::fs::read_to_string(path),
            },
        )
    }

    /// Where the cluster is.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// A configuration to build a client on.
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap_servers);
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }

    /// What was set, secrets replaced, for printing.
    pub fn redacted(&self) -> Properties {
        let shown = self.properties.iter().map(|(name, value)| {
            let value = if is_secret(name) {
                REDACTED.to_owned()
            } else {
                without_userinfo(value)
            };
            (name.clone(), value)
        });
        std::iter::once((
            "bootstrap.servers".to_owned(),
            self.bootstrap_servers.clone(),
        ))
        .chain(shown)
        .collect()
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.redacted()).finish()
    }
}

/// Whether a property's value must not be printed.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // Locations and the names of mechanisms are no secrets, and are what people look for in a printout.
    !name.ends_with(".location")
        && [
            "password",
            "secret",
            "pem",
            "token",
            "jaas",
            "sasl.oauthbearer.config",
        ]
        .iter()
        .any(|word| name.contains(word))
}

/// A properties file: `name=value` lines, `#` and `!` begin comments.
///
/// # Errors
/// A line without `=` or with a name that comes twice.
pub fn parse_properties(text: &str) -> Result<Properties, Fault> {
    let mut properties = Properties::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let number = index + 1;
        let Some((name, value)) = line.split_once('=') else {
            return Err(Fault::Config(format!(
                "properties file, line {number}: expected name=value"
            )));
        };
        let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
        if properties.insert(name.clone(), value).is_some() {
            return Err(Fault::Config(format!(
                "properties file, line {number}: {name} comes twice"
            )));
        }
    }
    Ok(properties)
}

/// `SECURITY_PROTOCOL` → `security.protocol`; two names of librdkafka have an underscore.
fn property_name(rest: &str) -> String {
    match rest {
        "LOG_LEVEL" => "log_level".to_owned(),
        "ENABLED_EVENTS" => "enabled_events".to_owned(),
        _ => rest.to_ascii_lowercase().replace('_', "."),
    }
}

fn checked(name: &str, origin: &str) -> Result<String, Fault> {
    let shown = if origin == name {
        name.to_owned()
    } else {
        format!("{name} ({origin})")
    };
    if let Some((_, reason)) = OWNED.iter().find(|(owned, _)| *owned == name) {
        return Err(Fault::Config(format!(
            "kafka property {shown} can't be set: {reason}"
        )));
    }
    if KNOWN.binary_search(&name).is_err() {
        let hint = nearest(name, KNOWN.iter().copied())
            .map_or_else(String::new, |near| format!("; did you mean {near}?"));
        return Err(Fault::Config(format!(
            "unknown kafka property {shown}{hint}"
        )));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Properties {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn connect(file: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<Connection, Fault> {
        let read = |path: &Path| match path.to_str() {
            Some("/run/secret") => Ok("hush\n".to_owned()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        Connection::new(
            "localhost:9092",
            Sources {
                file: &map(file),
                environment: &map(environment),
                read_file: &read,
            },
        )
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let connection = connect(
            &[("security.protocol", "plaintext"), ("client.id", "a")],
            &[
                ("KAFKA_SECURITY_PROTOCOL", "ssl"),
                ("KAFKA_LOG_LEVEL", "5"),
                ("PATH", "/bin"),
            ],
        )
        .unwrap();
        let config = connection.client_config();
        assert_eq!(config.get("security.protocol"), Some("ssl"));
        assert_eq!(config.get("client.id"), Some("a"));
        assert_eq!(config.get("log_level"), Some("5"));
    }

    #[test]
    fn secrets_come_from_files_and_are_not_printed() {
        let connection = connect(
            &[("sasl.username", "me")],
            &[("KAFKA_SASL_PASSWORD_FILE", "/run/secret")],
        )
        .unwrap();
        assert_eq!(
            connection.client_config().get("sasl.password"),
            Some("hush")
        );
        let printed = format!("{connection:?}");
        assert!(
            !printed.contains("hush") && printed.contains("\"me\""),
            "{printed}"
        );
        let endpoint = "https://id:hush@issuer/token";
        let connection = connect(&[("client.id", endpoint)], &[]);
        let printed = format!("{:?}", connection.unwrap());
        assert!(
            !printed.contains("hush") && printed.contains("issuer/token"),
            "{printed}"
        );
        let missing = connect(&[], &[("KAFKA_SASL_PASSWORD_FILE", "/nowhere")]).unwrap_err();
        assert!(
            missing.to_string().contains("KAFKA_SASL_PASSWORD_FILE"),
            "{missing}"
        );
        for (name, secret) in [
            ("ssl.key.pem", true),
            ("ssl.key.password", true),
            ("sasl.oauthbearer.client.secret", true),
            ("ssl.ca.location", false),
            ("sasl.mechanism", false),
        ] {
            assert_eq!(is_secret(name), secret, "{name}");
        }
    }

    #[test]
    fn what_is_ours_or_unknown_is_refused() {
        let refused = |name| connect(&[(name, "x")], &[]).unwrap_err().to_string();
        assert!(refused("group.id").contains("--group-id"));
        assert!(refused("isolation.level").contains("can't be set"));
        assert!(refused("securty.protocol").contains("did you mean security.protocol?"));
        assert!(refused("security.protocol").contains("security.protocol"));
        let error = connect(&[], &[("KAFKA_SECURTY_PROTOCOL", "ssl")]).unwrap_err();
        assert!(
            error.to_string().contains("KAFKA_SECURTY_PROTOCOL"),
            "{error}"
        );
        assert!(Connection::plain(" ").is_err());
        for (owned, _) in OWNED {
            assert!(refused(owned).contains("can't be set"), "{owned}");
        }
    }

    #[test]
    fn variables_of_others_do_no_harm() {
        connect(
            &[],
            &[
                ("KAFKA_SERVICE_HOST", "10.0.0.1"),
                ("KAFKA_PORT_9092_TCP_ADDR", "10.0.0.1"),
                ("KAFKA_PORT", "tcp://10.0.0.1:9092"),
                // Strimzi's service of a cluster that is called kafka.
                ("KAFKA_KAFKA_BOOTSTRAP_SERVICE_HOST", "10.0.0.1"),
                ("KAFKA_KAFKA_BOOTSTRAP_SERVICE_PORT_TCP_TLS", "9093"),
                ("KAFKA_KAFKA_BOOTSTRAP_PORT_9093_TCP", "tcp://10.0.0.1:9093"),
                ("KAFKA_HEAP_OPTS", "-Xmx1g"),
                ("KAFKA_BOOTSTRAP_SERVERS", "b:1"),
            ],
        )
        .unwrap();
    }

    #[test]
    fn properties_files_have_comments() {
        let text = "# one\n\n a = b=c \n! two\nd=\n";
        assert_eq!(
            parse_properties(text).unwrap(),
            map(&[("a", "b=c"), ("d", "")])
        );
        assert!(parse_properties("a\n").is_err());
        assert!(parse_properties("a=1\na=2\n").is_err());
    }

    #[test]
    fn the_known_names_are_sorted_and_none_looks_like_a_variable_of_others() {
        assert!(KNOWN.is_sorted() && KNOWN.len() > 150);
        for name in KNOWN {
            assert!(
                !is_foreign(&name.to_uppercase().replace('.', "_")),
                "{name}"
            );
        }
    }
}
