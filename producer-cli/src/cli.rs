//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use guestkit_kafka::Secret;
use guestkit_kafka::acls::Role;
use std::path::PathBuf;

/// Publishes jobs, follows progress, reads results; creates and checks topics and schemas.
#[derive(Parser)]
#[command(name = "guestkit-jobs", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  guestkit-jobs topics create --bootstrap-servers localhost:9092
  guestkit-jobs inspect debian-12.qcow2 --wait
  guestkit-jobs publish jobs.json more.jsonl
  generate | guestkit-jobs publish - --output json
  guestkit-jobs results --job-id inspect-0123456789abcdef --output json
  guestkit-jobs progress --follow
  guestkit-jobs dead-letters show 3/17 --raw > record.bin

Exit codes: 0 done, 1 a job failed or an error, 2 wrong usage or an invalid job, 3 Kafka or the
registry cannot be reached, 4 the time ran out. Documents go to stdout, everything else to stderr.";

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// One document a line
    Json,
}

/// Flags of every command; also environment variables and keys of the TOML file.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Common {
    /// Kafka brokers, HOST:PORT separated by commas
    #[arg(
        long,
        global = true,
        env = "GUESTKIT_BOOTSTRAP_SERVERS",
        value_name = "HOST:PORT,…"
    )]
    pub(crate) bootstrap_servers: Option<String>,
    /// Schema registry (Confluent's API); without one jobs are JSON
    #[arg(
        long,
        global = true,
        env = "GUESTKIT_SCHEMA_REGISTRY_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(crate) schema_registry_url: Option<String>,
    /// User of the schema registry (HTTP basic)
    #[arg(
        long,
        global = true,
        env = "GUESTKIT_SCHEMA_REGISTRY_USER",
        value_name = "NAME"
    )]
    pub(crate) schema_registry_user: Option<String>,
    /// His password; others on this machine see flags, so prefer the variable or the file
    #[arg(
        long,
        global = true,
        env = "GUESTKIT_SCHEMA_REGISTRY_PASSWORD",
        value_name = "TEXT",
        hide_env_values = true
    )]
    pub(crate) schema_registry_password: Option<Secret>,
    /// File that holds the password
    #[arg(
        long,
        global = true,
        env = "GUESTKIT_SCHEMA_REGISTRY_PASSWORD_FILE",
        value_name = "FILE"
    )]
    pub(crate) schema_registry_password_file: Option<PathBuf>,
    /// PEM file of the authorities that vouch for the schema registry [default: the system's]
    #[arg(
        long,
        global = true,
        env = "GUESTKIT_SCHEMA_REGISTRY_CA",
        value_name = "FILE"
    )]
    pub(crate) schema_registry_ca: Option<PathBuf>,
    /// First part of all topic names [default: vm-operations]
    #[arg(
        long,
        global = true,
        env = "GUESTKIT_TOPIC_PREFIX",
        value_name = "NAME"
    )]
    pub(crate) topic_prefix: Option<String>,
    /// Consumer group of the workers [default: guestkit-workers]
    #[arg(long, global = true, env = "GUESTKIT_GROUP_ID", value_name = "NAME")]
    pub(crate) group_id: Option<String>,
    /// Worker pool [default: the default pool]
    #[arg(long, global = true, env = "GUESTKIT_POOL", value_name = "NAME")]
    pub(crate) pool: Option<String>,
    /// librdkafka properties, name=value lines; KAFKA_… variables win over them
    #[arg(
        long,
        global = true,
        env = "GUESTKIT_KAFKA_PROPERTIES",
        value_name = "FILE"
    )]
    pub(crate) kafka_properties: Option<PathBuf>,
    /// TOML file with the same names as these flags; its table kafka holds librdkafka properties
    #[arg(long, global = true, env = "GUESTKIT_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// OpenTelemetry collector to send spans of published jobs to (OTLP over HTTP), for example
    /// http://localhost:4318; the OTEL_… variables count too. Without one none are made
    #[arg(
        long,
        global = true,
        env = "GUESTKIT_OTLP_ENDPOINT",
        value_name = "URL"
    )]
    pub(crate) otlp_endpoint: Option<String>,
    /// How to print [default: table]
    #[arg(long, global = true, env = "GUESTKIT_OUTPUT", value_name = "FORMAT")]
    pub(crate) output: Option<Output>,
    /// How long to wait in all, for example 30s or 5m [default: 30s for the cluster, no limit with
    /// --wait and --follow]
    #[arg(long, global = true, env = "GUESTKIT_TIMEOUT", value_name = "TIME")]
    pub(crate) timeout: Option<String>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Create or check the topics, and say who needs what access
    Topics {
        #[command(subcommand)]
        command: TopicsCommand,
    },
    /// Register or check the schemas
    Schemas {
        #[command(subcommand)]
        command: SchemasCommand,
    },
    /// Check jobs without publishing them
    Validate {
        /// JSON documents, arrays or JSON lines; - is stdin
        #[arg(required = true, value_name = "FILE|-")]
        files: Vec<PathBuf>,
    },
    /// Publish jobs: all are checked first, and none is published if one is invalid
    Publish {
        /// JSON documents, arrays or JSON lines; - is stdin
        #[arg(required = true, value_name = "FILE|-")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        how: Publishing,
    },
    /// Inspect disk images
    Inspect {
        /// Paths as the workers see them
        #[arg(required = true)]
        images: Vec<String>,
        /// Let every file be walked
        #[arg(long)]
        deep: bool,
        #[command(flatten)]
        how: Publishing,
    },
    /// Profile the security of disk images
    Profile {
        /// Paths as the workers see them
        #[arg(required = true)]
        images: Vec<String>,
        #[command(flatten)]
        how: Publishing,
    },
    /// Convert a disk image to another format
    Convert {
        /// Path as the workers see it
        image: String,
        /// Where the converted disk goes
        destination: String,
        /// The new format
        #[arg(long, default_value = "qcow2")]
        format: String,
        #[command(flatten)]
        how: Publishing,
    },
    /// Repair disk images offline, never in place
    Fix {
        /// Paths as the workers see them
        #[arg(required = true)]
        images: Vec<String>,
        #[command(flatten)]
        how: Publishing,
    },
    /// Compare a disk image with a baseline
    Compare {
        /// The disk to judge
        image: String,
        /// The disk that it should be like
        baseline: String,
        #[command(flatten)]
        how: Publishing,
    },
    /// Send a job that returns its data
    Echo {
        /// Any JSON value
        #[arg(default_value = "{}", value_name = "JSON")]
        data: String,
        #[command(flatten)]
        how: Publishing,
    },
    /// Read results
    Results {
        /// Go on as new ones come
        #[arg(long)]
        follow: bool,
        /// Only of this job; repeat for more. Ends when all are found
        #[arg(long, value_name = "ID")]
        job_id: Vec<String>,
        /// Only from this time on: RFC 3339, or an age such as 10m
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
    },
    /// Read progress events
    Progress {
        /// Go on as new ones come
        #[arg(long)]
        follow: bool,
        /// Only of this job; repeat for more
        #[arg(long, value_name = "ID")]
        job_id: Vec<String>,
        /// Only from this time on: RFC 3339, or an age such as 10m
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
    },
    /// Ask the workers to stop a job
    Cancel {
        /// The job
        job_id: String,
        /// Why, for people
        #[arg(long)]
        reason: Option<String>,
    },
    /// Read records that were not understood, or publish them again
    DeadLetters {
        #[command(subcommand)]
        command: DeadLettersCommand,
    },
    /// The workers: what they can do, how they are, when they were last seen
    Workers {
        /// Also those that have been offline for over an hour
        #[arg(long)]
        all: bool,
    },
    /// Is it all right? Backlog, workers, dead letters on one screen; exit code 1 if it is not
    Status {
        /// Look again every so many seconds, until interrupted or --timeout is over
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
              value_parser = clap::value_parser!(u32).range(1..=3600))]
        watch: Option<u32>,
        /// How long a job may wait before that is a problem
        #[arg(long, value_name = "TIME", default_value = "15m")]
        max_wait: String,
    },
    /// Serve jobs over HTTP, with a page for people
    Gateway(crate::gateway::options::GatewayOptions),
    /// Show everything on this machine: a Kafka endpoint in this process, one worker, real disks
    #[cfg(feature = "demo")]
    Demo(crate::demo::DemoOptions),
}

#[derive(Subcommand)]
pub(crate) enum TopicsCommand {
    /// Create what is missing; what is there stays as it is
    Create {
        /// How many slots there are, for good
        #[arg(long, default_value_t = 12)]
        partitions: u32,
        /// Copies of each record [default: 3, or the number of brokers]
        #[arg(long, value_name = "N")]
        replication_factor: Option<u16>,
    },
    /// Say what is wrong and how to mend it
    Check,
    /// Print the access rules that each kind of program needs, and no more
    Acls(AclOptions),
}

/// Flags of `topics acls`.
#[derive(Debug, Args)]
pub(crate) struct AclOptions {
    /// The kind of program [default: all]
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Option<RoleChoice>,
    /// Who it is to the cluster [default: User:guestkit-ROLE]
    #[arg(long, value_name = "TYPE:NAME")]
    pub(crate) principal: Option<String>,
    /// For readers that use a consumer group of their own
    #[arg(long, value_name = "NAME")]
    pub(crate) consumer_group: Option<String>,
    /// For people, as commands of kafka-acls.sh, or as KafkaUser of Strimzi; --output json for programs
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: AclFormat,
    /// The label strimzi.io/cluster
    #[arg(long, value_name = "NAME", default_value = "kafka")]
    pub(crate) cluster: String,
}

/// How rules are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AclFormat {
    /// For people
    Table,
    /// Commands of Kafka's own tool
    KafkaAcls,
    /// KafkaUser documents
    Strimzi,
}

/// Kinds of programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleChoice {
    /// guestkit-worker
    Worker,
    /// guestkit-jobs publish and its shorthands
    Producer,
    /// guestkit-jobs results, progress and dead-letters
    Reader,
    /// guestkit-jobs gateway
    Gateway,
    /// guestkit-jobs topics, status, cancel and dead-letters replay
    Operator,
}

impl From<RoleChoice> for Role {
    fn from(choice: RoleChoice) -> Self {
        match choice {
            RoleChoice::Worker => Self::Worker,
            RoleChoice::Producer => Self::Producer,
            RoleChoice::Reader => Self::Reader,
            RoleChoice::Gateway => Self::Gateway,
            RoleChoice::Operator => Self::Operator,
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum SchemasCommand {
    /// Register this program's schemas, idempotent
    Register,
    /// Say what is missing or differs
    Check,
}

#[derive(Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// One line each
    List {
        /// Only from this time on: RFC 3339, or an age such as 10m
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
    },
    /// One of them, whole
    Show {
        /// PARTITION/OFFSET, as the list has it
        id: String,
        /// Only the value's bytes, unchanged
        #[arg(long)]
        raw: bool,
    },
    /// Publish them again, bytes unchanged, where they came from
    Replay {
        /// PARTITION/OFFSET, as the list has it
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

/// How records are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FramingChoice {
    /// Avro with a schema id of the registry
    Confluent,
    /// Avro with the schema's fingerprint, without a registry
    SingleObject,
    /// JSON text
    Json,
}

/// Flags of everything that publishes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Publishing {
    /// How to frame [default: confluent with a registry, else json]
    #[arg(long, value_name = "FRAMING")]
    pub(crate) framing: Option<FramingChoice>,
    /// Wait for the results, show progress, print the results
    #[arg(long)]
    pub(crate) wait: bool,
    /// For shorthands: two jobs with the same key and payload are the same work
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// For shorthands: 1 to 10, higher is more urgent
    #[arg(long, value_name = "N")]
    pub(crate) priority: Option<u32>,
}
