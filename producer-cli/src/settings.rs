//! Settings: flag > environment > file > default, checked once.

use crate::cli::{Common, Output};
use crate::clock::{self, Deadline};
use crate::failure::{Failure, Outcome};
use guestkit_kafka::connection::{Sources, parse_properties};
use guestkit_kafka::registry::{Patience, RegistrySchemas};
use guestkit_kafka::trace::Spans;
use guestkit_kafka::{Connection, Fault, Properties, RegistryAccess, Secret, TopicNames, nearest};
use guestkit_protocol::{NoRegistry, SchemaSource, Timestamp, TraceContext};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long questions to the cluster may take when nothing else is said.
const QUESTION: Duration = Duration::from_secs(30);

/// The settings of one command.
#[derive(Debug)]
pub(crate) struct Settings {
    bootstrap_servers: Option<String>,
    kafka: Properties,
    environment: Properties,
    pub(crate) schema_registry_url: Option<String>,
    schema_registry: RegistryAccess,
    pub(crate) names: TopicNames,
    pub(crate) group_id: String,
    pub(crate) output: Output,
    otlp_endpoint: Option<String>,
    timeout: Option<Duration>,
}

/// Keys of the file.
const KEYS: &[&str] = &[
    "bootstrap-servers",
    "schema-registry-url",
    "schema-registry-user",
    "schema-registry-password",
    "schema-registry-password-file",
    "schema-registry-ca",
    "topic-prefix",
    "group-id",
    "pool",
    "kafka-properties",
    "otlp-endpoint",
    "output",
    "timeout",
    "kafka",
];

impl Settings {
    /// Puts flags (which hold the environment's values) and file together. `environment` is for `KAFKA_…`.
    pub(crate) fn new(flags: Common, environment: Properties) -> Outcome<Self> {
        let mut file = match &flags.config {
            Some(path) => read_file(path)?,
            None => toml::Table::new(),
        };
        let mut kafka = Properties::new();
        if let Some(table) = file.remove("kafka") {
            let toml::Value::Table(table) = table else {
                return Err(Failure::usage(
                    "[kafka] in the configuration file is no table",
                ));
            };
            for (name, value) in table {
                let text = match value {
                    toml::Value::String(text) => text,
                    toml::Value::Table(_) => {
                        return Err(Failure::usage(format!(
                            "[kafka]: write \"{name}.…\" in quotes, librdkafka's names have dots"
                        )));
                    }
                    other => other.to_string(),
                };
                kafka.insert(name, text);
            }
        }
        let mut pick = |flag: Option<String>, key: &str| -> Outcome<Option<String>> {
            match (flag, file.remove(key)) {
                (Some(flag), _) => Ok(Some(flag)),
                (None, Some(toml::Value::String(text))) => Ok(Some(text)),
                (None, Some(_)) => Err(Failure::usage(format!(
                    "{key} in the configuration file is no text"
                ))),
                (None, None) => Ok(None),
            }
        };
        let bootstrap_servers = pick(flags.bootstrap_servers, "bootstrap-servers")?;
        let schema_registry_url = pick(flags.schema_registry_url, "schema-registry-url")?;
        let path_text = |path: Option<PathBuf>| path.map(|path| path.display().to_string());
        let user = pick(flags.schema_registry_user, "schema-registry-user")?;
        let password = pick(None, "schema-registry-password")?.map(Secret::new);
        let password = flags.schema_registry_password.or(password);
        let password_file = pick(
            path_text(flags.schema_registry_password_file),
            "schema-registry-password-file",
        )?;
        let ca = pick(path_text(flags.schema_registry_ca), "schema-registry-ca")?;
        let schema_registry = RegistryAccess::new(
            user,
            password,
            password_file.as_deref().map(Path::new),
            ca.map(PathBuf::from),
        )?;
        let prefix = pick(flags.topic_prefix, "topic-prefix")?;
        let group_id = pick(flags.group_id, "group-id")?;
        let pool = pick(flags.pool, "pool")?;
        let timeout = pick(flags.timeout, "timeout")?;
        let otlp_endpoint = pick(flags.otlp_endpoint, "otlp-endpoint")?;
        let output = pick(None, "output")?;
        let properties = flags
            .kafka_properties
            .map(|path| path.display().to_string());
        if let Some(path) = pick(properties, "kafka-properties")? {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| Failure::usage(format!("cannot read {path}: {error}")))?;
            kafka.extend(parse_properties(&text)?);
        }
        let output = match (flags.output, output.as_deref()) {
            (Some(output), _) => output,
            (None, None | Some("table")) => Output::Table,
            (None, Some("json")) => Output::Json,
            (None, Some(other)) => {
                return Err(Failure::usage(format!(
                    "output is table or json, not {other}"
                )));
            }
        };
        Ok(Self {
            bootstrap_servers,
            kafka,
            environment,
            schema_registry_url: schema_registry_url.filter(|url| !url.is_empty()),
            schema_registry,
            names: TopicNames::new(
                prefix.as_deref().unwrap_or("vm-operations"),
                pool.as_deref(),
            )?,
            group_id: group_id.unwrap_or_else(|| "guestkit-workers".to_owned()),
            output,
            otlp_endpoint,
            timeout: timeout.as_deref().map(duration).transpose()?,
        })
    }

    /// How to reach Kafka.
    pub(crate) fn connection(&self) -> Outcome<Connection> {
        let sources = Sources {
            file: &self.kafka,
            environment: &self.environment,
            read_file: &|path| std::fs::read_to_string(path),
        };
        let servers = self.bootstrap_servers.as_deref().unwrap_or_default();
        Ok(Connection::new(servers, sources)?)
    }

    /// The registry.
    ///
    /// Fails when none is configured.
    pub(crate) fn registry(&self) -> Outcome<RegistrySchemas> {
        let url = self.schema_registry_url.as_deref().ok_or_else(|| {
            Fault::Config("no schema registry: use --schema-registry-url URL".to_owned())
        })?;
        let request = self.question().min(Duration::from_secs(10));
        let patience = Patience {
            answer: request,
            request,
            // A command is run again by hand: it need not wait for proof.
            unknown: Duration::ZERO,
            ..Patience::default()
        };
        Ok(RegistrySchemas::with(url, &self.schema_registry, patience)?)
    }

    /// Where schema ids are looked up.
    pub(crate) fn schemas(&self) -> Outcome<Box<dyn SchemaSource>> {
        Ok(match self.schema_registry_url {
            Some(_) => Box::new(self.registry()?),
            None => Box::new(NoRegistry),
        })
    }

    /// Where spans go, if anywhere.
    pub(crate) fn spans(&self) -> Result<Option<Arc<Spans>>, Fault> {
        let endpoint = self.otlp_endpoint.as_deref();
        let instance = std::process::id().to_string();
        Spans::start("guestkit-jobs", &instance, endpoint, &self.environment)
    }

    /// The span that this command belongs to, as the caller's `TRACEPARENT` says.
    pub(crate) fn traceparent(&self) -> Option<TraceContext> {
        TraceContext::parse(self.environment.get("TRACEPARENT")?)
    }

    /// How long one question to the cluster may take.
    pub(crate) fn question(&self) -> Duration {
        self.timeout
            .unwrap_or(QUESTION)
            .max(Duration::from_millis(100))
    }

    /// When a command that waits gives up.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::of(self.timeout)
    }
}

fn read_file(path: &Path) -> Outcome<toml::Table> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    // The error's own printout shows the line, which may hold a secret.
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = text.get(..start).unwrap_or_default().matches('\n').count() + 1;
        Failure::usage(format!(
            "{}, line {line}: {}",
            path.display(),
            error.message()
        ))
    })?;
    for key in table.keys() {
        if !KEYS.contains(&key.as_str()) {
            let hint = nearest(key, KEYS.iter().copied())
                .map_or_else(String::new, |near| format!("; did you mean {near}?"));
            return Err(Failure::usage(format!(
                "{}: unknown key {key}{hint}",
                path.display()
            )));
        }
    }
    Ok(table)
}

/// `500ms`, `30s`, `5m`, `2h`, `7d`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Outcome<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let millis: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    let found = number.parse::<u64>().ok().filter(|_| millis > 0);
    let found = found.and_then(|number| number.checked_mul(millis));
    found.map(Duration::from_millis).ok_or_else(|| {
        Failure::usage(format!(
            "{text:?} is no time such as 500ms, 30s, 5m, 2h or 7d"
        ))
    })
}

/// RFC 3339, or an age.
pub(crate) fn since(text: &str) -> Outcome<i64> {
    if let Ok(time) = Timestamp::parse(text) {
        return Ok(time.as_millis());
    }
    let age = duration(text).map_err(|_| {
        Failure::usage(format!(
            "{text:?} is neither RFC 3339 nor an age such as 10m"
        ))
    })?;
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    Ok(clock::now().as_millis().saturating_sub(age).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(flags: Common, text: &str) -> Outcome<Settings> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jobs.toml");
        std::fs::write(&path, text).unwrap();
        let config = Some(path);
        Settings::new(Common { config, ..flags }, Properties::new())
    }

    #[test]
    fn flags_win_over_the_file() {
        let flags = Common {
            topic_prefix: Some("a".to_owned()),
            ..Common::default()
        };
        let text = "topic-prefix = \"b\"\npool = \"gpu\"\noutput = \"json\"\n\
                    bootstrap-servers = \"x:1\"\n[kafka]\n\"security.protocol\" = \"plaintext\"\nlog_level = 3\n";
        let settings = settings(flags, text).unwrap();
        assert_eq!(settings.names.jobs, "a.jobs.gpu");
        assert_eq!(settings.output, Output::Json);
        let printed = format!("{:?}", settings.connection().unwrap());
        assert!(
            printed.contains("security.protocol") && printed.contains("x:1"),
            "{printed}"
        );
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest_name() {
        let error = settings(Common::default(), "topic-prefx = \"a\"\n").unwrap_err();
        assert_eq!(error.code, 2);
        assert!(
            error.message.contains("did you mean topic-prefix?"),
            "{}",
            error.message
        );
        assert!(settings(Common::default(), "pool = 3\n").is_err());
        assert!(settings(Common::default(), "[kafka.security]\nprotocol = \"ssl\"\n").is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("1500ms").unwrap(), Duration::from_millis(1500));
        assert_eq!(duration("90").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("2h").unwrap(), Duration::from_secs(7200));
        for text in ["", "s", "1w", "-1s", "99999999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(since("1970-01-01T00:00:01Z").unwrap(), 1000);
        assert!(since("10m").unwrap() > 0 && since("soon").is_err());
    }
}
