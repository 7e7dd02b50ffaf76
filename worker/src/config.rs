//! The worker's configuration: flag > environment > file > default, one struct, checked at start.

use clap::Args;
use guestkit_inspector::isolate::Isolation;
use guestkit_kafka::{RegistryAccess, Secret, nearest};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Options of `run` and `check-config`. All are optional here: defaults come last.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Options {
    /// Kafka brokers, HOST:PORT separated by commas
    #[arg(long, env = "GUESTKIT_BOOTSTRAP_SERVERS", value_name = "HOST:PORT,…")]
    pub bootstrap_servers: Option<String>,
    /// Schema registry (Confluent's API); without one jobs are JSON or single-object Avro
    #[arg(
        long,
        env = "GUESTKIT_SCHEMA_REGISTRY_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub schema_registry_url: Option<String>,
    /// User of the schema registry (HTTP basic)
    #[arg(long, env = "GUESTKIT_SCHEMA_REGISTRY_USER", value_name = "NAME")]
    pub schema_registry_user: Option<String>,
    /// His password; others on this machine see flags, so prefer the variable or the file
    #[arg(
        long,
        env = "GUESTKIT_SCHEMA_REGISTRY_PASSWORD",
        value_name = "TEXT",
        hide_env_values = true
    )]
    pub schema_registry_password: Option<Secret>,
    /// File that holds the password
    #[arg(
        long,
        env = "GUESTKIT_SCHEMA_REGISTRY_PASSWORD_FILE",
        value_name = "FILE"
    )]
    pub schema_registry_password_file: Option<PathBuf>,
    /// PEM file of the authorities that vouch for the schema registry [default: the system's]
    #[arg(long, env = "GUESTKIT_SCHEMA_REGISTRY_CA", value_name = "FILE")]
    pub schema_registry_ca: Option<PathBuf>,
    /// How long the registry must keep saying that a schema id is unknown before a record that
    /// names it is a dead letter [default: 60s]
    #[arg(long, env = "GUESTKIT_SCHEMA_UNKNOWN_AFTER", value_name = "TIME")]
    pub schema_unknown_after: Option<String>,
    /// First part of all topic names [default: vm-operations]
    #[arg(long, env = "GUESTKIT_TOPIC_PREFIX", value_name = "NAME")]
    pub topic_prefix: Option<String>,
    /// Consumer group [default: guestkit-workers]
    #[arg(long, env = "GUESTKIT_GROUP_ID", value_name = "NAME")]
    pub group_id: Option<String>,
    /// Name of this worker [default: host name and 8 random digits]
    #[arg(long, env = "GUESTKIT_WORKER_ID", value_name = "NAME")]
    pub worker_id: Option<String>,
    /// Worker pool to serve [default: the default pool]
    #[arg(long, env = "GUESTKIT_POOL", value_name = "NAME")]
    pub pool: Option<String>,
    /// Jobs that run at the same time [default: 4 per core]
    #[arg(long, env = "GUESTKIT_CONCURRENCY", value_name = "N")]
    pub concurrency: Option<usize>,
    /// Directory beneath which disk images may be opened; repeat for more. Without one, none may
    #[arg(
        long = "disk-root",
        env = "GUESTKIT_DISK_ROOT",
        value_name = "DIR",
        value_delimiter = ','
    )]
    #[serde(rename = "disk-root")]
    pub disk_roots: Vec<PathBuf>,
    /// Serve only when the kernel gives the processes that read disk images their whole confinement
    /// (Landlock, seccomp, resource limits)
    #[arg(long, env = "GUESTKIT_REQUIRE_SANDBOX")]
    pub require_sandbox: bool,
    /// Read disk images in the worker itself, unconfined
    #[arg(long, env = "GUESTKIT_NO_SANDBOX")]
    pub no_sandbox: bool,
    /// Where results over 512 KiB go; without it they fail with RESULT_TOO_LARGE
    #[arg(long, env = "GUESTKIT_ARTIFACT_DIR", value_name = "DIR")]
    pub artifact_dir: Option<PathBuf>,
    /// Address for /healthz, /readyz, /metrics and /status
    #[arg(long, env = "GUESTKIT_HTTP_LISTEN", value_name = "ADDR:PORT")]
    pub http_listen: Option<SocketAddr>,
    /// OpenTelemetry collector to send spans to (OTLP over HTTP), for example http://localhost:4318; the
    /// OTEL_… variables count too. Without one none are made
    #[arg(long, env = "GUESTKIT_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// How long a drain waits for running jobs, for example 30s or 5m [default: 30s]
    #[arg(long, env = "GUESTKIT_DRAIN_TIMEOUT", value_name = "TIME")]
    pub drain_timeout: Option<String>,
    /// How results and progress are written: auto (Confluent Avro with a registry, else
    /// single-object Avro) or json [default: auto]
    #[arg(long, env = "GUESTKIT_RESULT_FORMAT", value_name = "FORMAT")]
    pub result_format: Option<String>,
    /// File transport: directory that JSON jobs are dropped in
    #[arg(long, env = "GUESTKIT_JOBS_DIR", value_name = "DIR")]
    pub jobs_dir: Option<PathBuf>,
    /// File transport: directory that results are written to
    #[arg(long, env = "GUESTKIT_RESULTS_DIR", value_name = "DIR")]
    pub results_dir: Option<PathBuf>,
    /// Logs for programs (json) or people (text) [default: text]
    #[arg(long, env = "GUESTKIT_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Let system.echo jobs crash this worker, for tests of the fleet
    #[arg(long, env = "GUESTKIT_ALLOW_TEST_FAULTS")]
    pub allow_test_faults: bool,
    /// librdkafka properties, as in its own files
    #[arg(skip)]
    pub kafka: std::collections::BTreeMap<String, String>,
}

/// Where jobs come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// A Kafka cluster.
    Kafka {
        /// HOST:PORT,…
        bootstrap_servers: String,
        /// Registry, if there is one.
        schema_registry_url: Option<String>,
    },
    /// Two directories.
    Files {
        /// Jobs are dropped here.
        jobs_dir: PathBuf,
        /// Results appear here.
        results_dir: PathBuf,
    },
}

/// The configuration, whole and checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where jobs come from.
    pub transport: Transport,
    /// How to come into the schema registry.
    pub schema_registry: RegistryAccess,
    /// How long an unknown schema id waits before it is believed.
    pub schema_unknown_after: Duration,
    /// First part of all topic names.
    pub topic_prefix: String,
    /// Consumer group as configured; a pool's group has the pool's name added.
    pub group_id: String,
    /// Name of this worker, if it was given one.
    pub worker_id: Option<String>,
    /// Pool, if not the default one.
    pub pool: Option<String>,
    /// Jobs that run at the same time.
    pub concurrency: usize,
    /// Directories beneath which images may be opened.
    pub disk_roots: Vec<PathBuf>,
    /// How disk images are read.
    pub isolation: Isolation,
    /// Where large results go.
    pub artifact_dir: Option<PathBuf>,
    /// Address of the HTTP endpoint.
    pub http_listen: Option<SocketAddr>,
    /// Collector of spans, if one is named.
    pub otlp_endpoint: Option<String>,
    /// How long a drain waits.
    pub drain_timeout: Duration,
    /// Whether results are JSON whatever the registry.
    pub json_results: bool,
    /// Whether logs are JSON.
    pub json_logs: bool,
    /// Whether `system.echo` may crash the worker.
    pub allow_test_faults: bool,
    /// librdkafka properties from the file.
    pub kafka: std::collections::BTreeMap<String, String>,
}

/// A configuration that cannot work, in words that say what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// Most jobs at the same time: each has a thread.
const CONCURRENCY_MAX: usize = 4_096;
/// Jobs per core that run at the same time, unless told: inspection waits for disks half the time.
const JOBS_PER_CORE: usize = 4;

impl Options {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// When it cannot be read, is no TOML, or has an unknown key.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError(format!("{}: {error}", path.display())))?;
        Self::from_text(&text)
            .map_err(|ConfigError(words)| ConfigError(format!("{}: {words}", path.display())))
    }

    fn from_text(text: &str) -> Result<Self, ConfigError> {
        // Its own printout shows the line, which may hold a secret.
        let wrong = |error: toml::de::Error| {
            let line = error.span().map_or_else(String::new, |span| {
                let before = text.get(..span.start).unwrap_or_default();
                format!("line {}: ", before.matches('\n').count() + 1)
            });
            ConfigError(format!("{line}{}", error.message()))
        };
        let table: toml::Table = toml::from_str(text).map_err(wrong)?;
        let known = keys();
        for key in table.keys() {
            if !known.contains(key) {
                let hint = nearest(key, known.iter().map(String::as_str))
                    .map_or_else(String::new, |near| format!("; did you mean {near}?"));
                return Err(ConfigError(format!("unknown key {key}{hint}")));
            }
        }
        toml::from_str(text).map_err(wrong)
    }

    /// These options, with what they leave open taken from `file`.
    #[must_use]
    pub fn over(self, file: Self) -> Self {
        Self {
            bootstrap_servers: self.bootstrap_servers.or(file.bootstrap_servers),
            schema_registry_url: self.schema_registry_url.or(file.schema_registry_url),
            schema_registry_user: self.schema_registry_user.or(file.schema_registry_user),
            schema_registry_password: self
                .schema_registry_password
                .or(file.schema_registry_password),
            schema_registry_password_file: self
                .schema_registry_password_file
                .or(file.schema_registry_password_file),
            schema_registry_ca: self.schema_registry_ca.or(file.schema_registry_ca),
            schema_unknown_after: self.schema_unknown_after.or(file.schema_unknown_after),
            topic_prefix: self.topic_prefix.or(file.topic_prefix),
            group_id: self.group_id.or(file.group_id),
            worker_id: self.worker_id.or(file.worker_id),
            pool: self.pool.or(file.pool),
            concurrency: self.concurrency.or(file.concurrency),
            disk_roots: if self.disk_roots.is_empty() {
                file.disk_roots
            } else {
                self.disk_roots
            },
            require_sandbox: self.require_sandbox || file.require_sandbox,
            no_sandbox: self.no_sandbox || file.no_sandbox,
            artifact_dir: self.artifact_dir.or(file.artifact_dir),
            http_listen: self.http_listen.or(file.http_listen),
            otlp_endpoint: self.otlp_endpoint.or(file.otlp_endpoint),
            drain_timeout: self.drain_timeout.or(file.drain_timeout),
            result_format: self.result_format.or(file.result_format),
            jobs_dir: self.jobs_dir.or(file.jobs_dir),
            results_dir: self.results_dir.or(file.results_dir),
            log_format: self.log_format.or(file.log_format),
            allow_test_faults: self.allow_test_faults || file.allow_test_faults,
            kafka: file.kafka,
        }
    }

    /// Checks everything and fills in the defaults.
    ///
    /// # Errors
    /// Names the option and says what to do.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let json_results = one_of(
            "result-format",
            self.result_format.as_deref(),
            "auto",
            "json",
        )?;
        let json_logs = one_of("log-format", self.log_format.as_deref(), "text", "json")?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let concurrency = self.concurrency.unwrap_or(cores * JOBS_PER_CORE);
        if concurrency == 0 || concurrency > CONCURRENCY_MAX {
            return Err(ConfigError(format!(
                "concurrency is {concurrency}: give 1 to {CONCURRENCY_MAX}"
            )));
        }
        let drain_timeout = duration_or(self.drain_timeout.as_deref(), 30)?;
        let schema_unknown_after = duration_or(self.schema_unknown_after.as_deref(), 60)?;
        for root in &self.disk_roots {
            if !root.is_dir() {
                return Err(ConfigError(format!(
                    "disk-root {} is no directory",
                    root.display()
                )));
            }
        }
        if self.require_sandbox && self.no_sandbox {
            return Err(ConfigError(
                "require-sandbox and no-sandbox exclude each other".to_owned(),
            ));
        }
        for (name, value) in [
            ("worker-id", &self.worker_id),
            ("pool", &self.pool),
            ("group-id", &self.group_id),
            ("topic-prefix", &self.topic_prefix),
        ] {
            if let Some(value) = value {
                check_name(name, value)?;
            }
        }
        let schema_registry = RegistryAccess::new(
            self.schema_registry_user.clone(),
            self.schema_registry_password.clone(),
            self.schema_registry_password_file.as_deref(),
            self.schema_registry_ca.clone(),
        )
        .map_err(|fault| ConfigError(fault.to_string()))?;
        Ok(Config {
            transport: transport(&self)?,
            schema_registry,
            schema_unknown_after,
            topic_prefix: self
                .topic_prefix
                .unwrap_or_else(|| "vm-operations".to_owned()),
            group_id: self
                .group_id
                .unwrap_or_else(|| "guestkit-workers".to_owned()),
            worker_id: self.worker_id,
            pool: self
                .pool
                .filter(|pool| pool != guestkit_protocol::DEFAULT_POOL),
            concurrency,
            disk_roots: self.disk_roots,
            isolation: Isolation {
                sandbox: !self.no_sandbox,
                require: self.require_sandbox,
                program: None,
            },
            artifact_dir: self.artifact_dir,
            http_listen: self.http_listen,
            otlp_endpoint: self.otlp_endpoint,
            drain_timeout,
            json_results,
            json_logs,
            allow_test_faults: self.allow_test_faults,
            kafka: self.kafka,
        })
    }
}

/// Keys of the configuration file: the long names of the flags, and the table of librdkafka.
fn keys() -> BTreeSet<String> {
    let command = Options::augment_args(clap::Command::new("worker"));
    let flags = command.get_arguments().filter_map(clap::Arg::get_long);
    let mut keys: BTreeSet<String> = flags.map(str::to_owned).collect();
    keys.insert("kafka".to_owned());
    keys
}

fn transport(options: &Options) -> Result<Transport, ConfigError> {
    match (
        &options.bootstrap_servers,
        &options.jobs_dir,
        &options.results_dir,
    ) {
        (Some(servers), None, None) => Ok(Transport::Kafka {
            bootstrap_servers: servers.clone(),
            schema_registry_url: options.schema_registry_url.clone(),
        }),
        (None, Some(jobs_dir), Some(results_dir)) => Ok(Transport::Files {
            jobs_dir: jobs_dir.clone(),
            results_dir: results_dir.clone(),
        }),
        (Some(_), _, _) => Err(ConfigError(
            "bootstrap-servers and jobs-dir/results-dir exclude each other: a worker serves Kafka or a directory".to_owned(),
        )),
        (None, Some(_), None) | (None, None, Some(_)) => Err(ConfigError(
            "jobs-dir and results-dir go together".to_owned(),
        )),
        (None, None, None) => Err(ConfigError(
            "no bootstrap-servers: give --bootstrap-servers HOST:PORT, or --jobs-dir and --results-dir to work without Kafka".to_owned(),
        )),
    }
}

/// Whether `value` is `other`; `default` or nothing says no.
fn one_of(
    name: &str,
    value: Option<&str>,
    default: &str,
    other: &str,
) -> Result<bool, ConfigError> {
    match value {
        None => Ok(false),
        Some(value) if value == default => Ok(false),
        Some(value) if value == other => Ok(true),
        Some(value) => Err(ConfigError(format!(
            "{name} is {value:?}: give {default} or {other}"
        ))),
    }
}

/// Kafka's own rule for names in topics and groups, so that a mistake shows here.
fn check_name(name: &str, value: &str) -> Result<(), ConfigError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if value.is_empty() || value.len() > 128 || !value.chars().all(legal) {
        return Err(ConfigError(format!(
            "{name} is {value:?}: give 1 to 128 of A-Z a-z 0-9 . _ -"
        )));
    }
    Ok(())
}

fn duration_or(text: Option<&str>, default_seconds: u64) -> Result<Duration, ConfigError> {
    text.map_or(Ok(Duration::from_secs(default_seconds)), duration)
}

/// Reads `500ms`, `30s`, `5m` or `2h`.
fn duration(text: &str) -> Result<Duration, ConfigError> {
    let wrong = || ConfigError(format!("{text:?} is no time: give 500ms, 30s, 5m or 2h"));
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    Ok(Duration::from_millis(number.saturating_mul(ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kafka() -> Options {
        Options {
            bootstrap_servers: Some("a:1".to_owned()),
            ..Options::default()
        }
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file: Options =
            toml::from_str("topic-prefix = \"from-file\"\ngroup-id = \"from-file\"").unwrap();
        let flags = Options {
            group_id: Some("from-flag".to_owned()),
            ..kafka()
        };
        let config = flags.over(file).resolve().unwrap();
        assert_eq!(config.topic_prefix, "from-file");
        assert_eq!(config.group_id, "from-flag");
        assert_eq!(config.drain_timeout, Duration::from_secs(30));
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_refused_by_name() {
        let unknown = Options::from_text("topic-prefx = \"x\"").unwrap_err();
        assert!(
            unknown
                .to_string()
                .contains("unknown key topic-prefx; did you mean topic-prefix?"),
            "{unknown}"
        );
        for (options, word) in [
            (Options::default(), "bootstrap-servers"),
            (
                Options {
                    concurrency: Some(0),
                    ..kafka()
                },
                "concurrency",
            ),
            (
                Options {
                    drain_timeout: Some("soon".to_owned()),
                    ..kafka()
                },
                "soon",
            ),
            (
                Options {
                    jobs_dir: Some("x".into()),
                    ..kafka()
                },
                "jobs-dir",
            ),
            (
                Options {
                    pool: Some("a b".to_owned()),
                    ..kafka()
                },
                "pool",
            ),
        ] {
            let error = options.resolve().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    /// Every flag can stand in the file under its own name: a key that the flags know and the file
    /// does not would be refused by the second reading.
    #[test]
    fn every_flag_is_a_key_of_the_file() {
        for key in keys() {
            let tried = ["\"x\"", "1", "true", "[\"x\"]", "\"127.0.0.1:1\"", "{}"]
                .iter()
                .any(|value| Options::from_text(&format!("{key} = {value}")).is_ok());
            assert!(tried, "{key}");
        }
    }

    #[test]
    fn no_printout_and_no_error_shows_a_secret() {
        let text = "bootstrap-servers = \"a:1\"\nschema-registry-user = \"me\"\n\
                    schema-registry-password = \"hush-hush\"\n";
        let options = Options::from_text(text).unwrap();
        let printed = format!("{options:?}{:?}", options.clone().resolve().unwrap());
        assert!(!printed.contains("hush-hush") && printed.contains("[redacted]"));
        for broken in [
            "schema-registry-password = \"hush-hush",
            "schema-registry-password = [\"hush-hush\"]",
            "schema-registry-password = hush-hush",
        ] {
            let error = Options::from_text(broken).unwrap_err().to_string();
            assert!(!error.contains("hush-hush"), "{error}");
            assert!(error.contains("line 1"), "{error}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7_200)));
        assert!(duration("30").is_err());
        assert!(duration("s").is_err());
    }
}
